package cache

import (
	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/messages"
)

// Endpoints ties each operation of the capability to what answers it.
func (s *Service) Endpoints() []bus.Binding {
	return []bus.Binding{
		bus.Bind(messages.CacheGetEndpoint, s.Get),
		bus.Bind(messages.CacheSetEndpoint, s.Set),
		bus.Bind(messages.CacheGetManyEndpoint, s.GetMany),
		bus.Bind(messages.CacheSetManyEndpoint, s.SetMany),
		bus.Bind(messages.CacheDeleteEndpoint, s.Delete),
		bus.Bind(messages.CacheDeleteManyEndpoint, s.DeleteMany),
		bus.Bind(messages.CacheTouchEndpoint, s.Touch),
		bus.Bind(messages.CacheIncrementEndpoint, s.Increment),
	}
}
