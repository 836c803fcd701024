package system

import (
	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/messages"
)

// Endpoints ties each operation of the capability to what answers it.
func (s *Service) Endpoints() []bus.Binding {
	return []bus.Binding{
		bus.Bind(messages.SystemJobGetEndpoint, s.JobGet),
		bus.Bind(messages.SystemJobListEndpoint, s.JobList),
		bus.Bind(messages.SystemJobCancelEndpoint, s.JobCancel),
		bus.Bind(messages.SystemJobRetryEndpoint, s.JobRetry),
	}
}
