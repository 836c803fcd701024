package client

import (
	"context"

	"github.com/ai-cherry/morello/messages"
)

// Cache has the operations on the tenant's cache; see also [GetOrCompute].
type Cache struct{ client *Client }

// Cache returns the operations on the cache.
func (c *Client) Cache() Cache { return Cache{c} }

// Get returns the live entry of a key; a miss is Found false.
func (c Cache) Get(ctx context.Context, request messages.CacheGet) (messages.CacheGetReply, error) {
	return Call(ctx, c.client, messages.CacheGetEndpoint, request)
}

// Set stores a value under a key, replacing value, TTL and tags; on a condition if one is given.
func (c Cache) Set(ctx context.Context, request messages.CacheSet) (messages.CacheSetReply, error) {
	return Call(ctx, c.client, messages.CacheSetEndpoint, request)
}

// GetMany returns the live entries of up to 1000 keys; nil for each that is not there.
func (c Cache) GetMany(ctx context.Context, request messages.CacheGetMany) (messages.CacheGetManyReply, error) {
	return Call(ctx, c.client, messages.CacheGetManyEndpoint, request)
}

// SetMany stores up to 1000 entries, all or none.
func (c Cache) SetMany(ctx context.Context, request messages.CacheSetMany) (messages.CacheSetManyReply, error) {
	return Call(ctx, c.client, messages.CacheSetManyEndpoint, request)
}

// Delete deletes the entry of a key, at a given version if one is named.
func (c Cache) Delete(ctx context.Context, request messages.CacheDelete) (messages.CacheDeleteReply, error) {
	return Call(ctx, c.client, messages.CacheDeleteEndpoint, request)
}

// DeleteMany deletes the entries of up to 1000 keys.
func (c Cache) DeleteMany(ctx context.Context, request messages.CacheDeleteMany) (messages.CacheDeleteManyReply, error) {
	return Call(ctx, c.client, messages.CacheDeleteManyEndpoint, request)
}

// Touch renews the time to live of a live entry, by its own original TTL or a given one.
func (c Cache) Touch(ctx context.Context, request messages.CacheTouch) (messages.CacheTouchReply, error) {
	return Call(ctx, c.client, messages.CacheTouchEndpoint, request)
}

// Increment adds to the whole number under a key, atomically. Without an idempotency key it is not repeated after a
// failure that leaves open whether it took place.
func (c Cache) Increment(ctx context.Context, request messages.CacheIncrement) (messages.CacheIncrementReply, error) {
	return Call(ctx, c.client, messages.CacheIncrementEndpoint, request)
}

// Keys lists live keys in byte order, those with a prefix if one is given.
func (c Cache) Keys(ctx context.Context, request messages.CacheKeys) (messages.CacheKeysReply, error) {
	return Call(ctx, c.client, messages.CacheKeysEndpoint, request)
}

// GetByTags lists the live entries that have any, or all, of some tags.
func (c Cache) GetByTags(ctx context.Context, request messages.CacheGetByTags) (messages.CacheGetByTagsReply, error) {
	return Call(ctx, c.client, messages.CacheGetByTagsEndpoint, request)
}

// Clear removes the entries of tags, with a prefix, or all of the tenant; call again while the reply says More.
func (c Cache) Clear(ctx context.Context, request messages.CacheClear) (messages.CacheClearReply, error) {
	return Call(ctx, c.client, messages.CacheClearEndpoint, request)
}

// Info describes the tenant's cache: counts, sizes, hits, hot keys, tags; what would take too long to count is estimated.
func (c Cache) Info(ctx context.Context, request messages.CacheInfo) (messages.CacheInfoReply, error) {
	return Call(ctx, c.client, messages.CacheInfoEndpoint, request)
}
