package audit

import (
	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/messages"
)

// Endpoints ties each operation of the capability to what answers it.
func (s *Service) Endpoints() []bus.Binding {
	return []bus.Binding{
		bus.Bind(messages.AuditLogEndpoint, s.Log),
		bus.Bind(messages.AuditQueryEndpoint, s.Query),
	}
}
