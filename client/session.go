package client

import (
	"context"

	"github.com/ai-cherry/morello/messages"
)

// Session has the operations on the tenant's sessions.
type Session struct{ client *Client }

// Session returns the operations on sessions.
func (c *Client) Session() Session { return Session{c} }

// Create creates a session and returns its secret token, this once. Without an idempotency key it is not repeated after a
// failure that leaves open whether it took place.
func (s Session) Create(ctx context.Context, request messages.SessionCreate) (messages.SessionCreateReply, error) {
	return Call(ctx, s.client, messages.SessionCreateEndpoint, request)
}

// Get returns the live session of an id, without touching it; not_found otherwise.
func (s Session) Get(ctx context.Context, request messages.SessionGet) (messages.SessionReply, error) {
	return Call(ctx, s.client, messages.SessionGetEndpoint, request)
}

// GetByToken returns the live session that a token opens, and touches it; not_found otherwise.
func (s Session) GetByToken(ctx context.Context, request messages.SessionGetByToken) (messages.SessionReply, error) {
	return Call(ctx, s.client, messages.SessionGetByTokenEndpoint, request)
}

// Update merges into the data and metadata of a live session, and renews it.
func (s Session) Update(ctx context.Context, request messages.SessionUpdate) (messages.SessionReply, error) {
	return Call(ctx, s.client, messages.SessionUpdateEndpoint, request)
}

// Touch notes that a session is in use, which puts off its idle timeout.
func (s Session) Touch(ctx context.Context, request messages.SessionTouch) (messages.SessionTouchReply, error) {
	return Call(ctx, s.client, messages.SessionTouchEndpoint, request)
}

// Extend adds to the expiry of a live session, up to its absolute one.
func (s Session) Extend(ctx context.Context, request messages.SessionExtend) (messages.SessionExtendReply, error) {
	return Call(ctx, s.client, messages.SessionExtendEndpoint, request)
}

// Rotate gives a session a new token; the old one lives on until the new one has been used.
func (s Session) Rotate(ctx context.Context, request messages.SessionRotate) (messages.SessionRotateReply, error) {
	return Call(ctx, s.client, messages.SessionRotateEndpoint, request)
}

// Delete deletes a session, for good.
func (s Session) Delete(ctx context.Context, request messages.SessionDelete) (messages.SessionDeleteReply, error) {
	return Call(ctx, s.client, messages.SessionDeleteEndpoint, request)
}

// BulkDelete deletes up to 1000 sessions at once.
func (s Session) BulkDelete(ctx context.Context, request messages.SessionBulkDelete) (messages.SessionBulkDeleteReply, error) {
	return Call(ctx, s.client, messages.SessionBulkDeleteEndpoint, request)
}

// DeleteUser deletes all sessions of a user, but for one if it is named; call again while the reply says More.
func (s Session) DeleteUser(ctx context.Context, request messages.SessionDeleteUser) (messages.SessionDeleteUserReply, error) {
	return Call(ctx, s.client, messages.SessionDeleteUserEndpoint, request)
}

// List lists sessions, the most recently updated first; live ones unless another state is named.
func (s Session) List(ctx context.Context, request messages.SessionList) (messages.SessionListReply, error) {
	return Call(ctx, s.client, messages.SessionListEndpoint, request)
}

// ActiveCount counts the live sessions, their users and their agents.
func (s Session) ActiveCount(ctx context.Context, request messages.SessionActiveCount) (messages.SessionActiveCountReply, error) {
	return Call(ctx, s.client, messages.SessionActiveCountEndpoint, request)
}

// CleanupInactive marks expired sessions and removes those that ended long ago; call again while the reply says More.
func (s Session) CleanupInactive(ctx context.Context, request messages.SessionCleanupInactive) (messages.SessionCleanupInactiveReply, error) {
	return Call(ctx, s.client, messages.SessionCleanupInactiveEndpoint, request)
}

// Analytics describes the sessions that began within a time: counts, durations, by hour, top users and agents.
func (s Session) Analytics(ctx context.Context, request messages.SessionAnalytics) (messages.SessionAnalyticsReply, error) {
	return Call(ctx, s.client, messages.SessionAnalyticsEndpoint, request)
}
