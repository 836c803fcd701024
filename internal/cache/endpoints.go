package cache

import (
	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/messages"
)

// Endpoints ties each operation of the capability to what answers it.
func (s *Service) Endpoints() []bus.Binding {
	return []bus.Binding{
		bus.BindDeferred(messages.CacheGetEndpoint, s.Get, s.beginGet),
		bus.BindDeferred(messages.CacheSetEndpoint, s.Set, s.beginSet),
		bus.Bind(messages.CacheGetManyEndpoint, s.GetMany),
		bus.Bind(messages.CacheSetManyEndpoint, s.SetMany),
		bus.Bind(messages.CacheDeleteEndpoint, s.Delete),
		bus.Bind(messages.CacheDeleteManyEndpoint, s.DeleteMany),
		bus.BindDeferred(messages.CacheTouchEndpoint, s.Touch, s.beginTouch),
		bus.Bind(messages.CacheIncrementEndpoint, s.Increment),
		bus.Bind(messages.CacheKeysEndpoint, s.Keys),
		bus.Bind(messages.CacheGetByTagsEndpoint, s.GetByTags),
		bus.Bind(messages.CacheClearEndpoint, s.Clear),
		bus.Bind(messages.CacheInfoEndpoint, s.Info),
	}
}
