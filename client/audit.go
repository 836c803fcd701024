package client

import (
	"context"

	"github.com/ai-cherry/morello/messages"
)

// Audit has the operations on the tenant's audit trail.
type Audit struct{ client *Client }

// Audit returns the operations on the audit trail.
func (c *Client) Audit() Audit { return Audit{c} }

// Log appends an entry to the audit trail. Without an idempotency key it is not repeated after a failure that leaves open
// whether it took place.
func (c Audit) Log(ctx context.Context, request messages.AuditLog) (messages.AuditLogReply, error) {
	return Call(ctx, c.client, messages.AuditLogEndpoint, request)
}

// Query lists entries, newest first, by any of their fields.
func (c Audit) Query(ctx context.Context, request messages.AuditQuery) (messages.AuditQueryReply, error) {
	return Call(ctx, c.client, messages.AuditQueryEndpoint, request)
}
