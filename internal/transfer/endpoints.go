package transfer

import (
	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/messages"
)

// Endpoints ties each operation of the capability to what answers it.
func (s *Service) Endpoints() []bus.Binding {
	return []bus.Binding{
		bus.Bind(messages.TransferPutEndpoint, s.Put),
		bus.Bind(messages.TransferGetEndpoint, s.Get),
		bus.Bind(messages.TransferDeleteEndpoint, s.Delete),
	}
}
