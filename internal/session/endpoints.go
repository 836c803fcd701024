package session

import (
	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/messages"
)

// Endpoints ties each operation of the capability to what answers it.
func (s *Service) Endpoints() []bus.Binding {
	return []bus.Binding{
		bus.Bind(messages.SessionCreateEndpoint, s.Create),
		bus.Bind(messages.SessionGetEndpoint, s.Get),
		bus.BindDeferred(messages.SessionGetByTokenEndpoint, s.GetByToken, s.beginGetByToken),
		bus.BindDeferred(messages.SessionUpdateEndpoint, s.Update, s.beginUpdate),
		bus.BindDeferred(messages.SessionTouchEndpoint, s.Touch, s.beginTouch),
		bus.Bind(messages.SessionExtendEndpoint, s.Extend),
		bus.Bind(messages.SessionRotateEndpoint, s.Rotate),
		bus.Bind(messages.SessionDeleteEndpoint, s.Delete),
		bus.Bind(messages.SessionBulkDeleteEndpoint, s.BulkDelete),
		bus.Bind(messages.SessionDeleteUserEndpoint, s.DeleteUser),
		bus.Bind(messages.SessionListEndpoint, s.List),
		bus.Bind(messages.SessionActiveCountEndpoint, s.ActiveCount),
		bus.Bind(messages.SessionCleanupInactiveEndpoint, s.CleanupInactive),
		bus.Bind(messages.SessionAnalyticsEndpoint, s.Analytics),
	}
}
