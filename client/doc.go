// Package client calls Morello from Go: one method for each operation, with deadlines and retries, over NATS.
//
//	c, err := client.Connect(ctx, client.Config{URL: "nats://127.0.0.1:4222", Tenant: "acme"})
//	…
//	defer c.Close(ctx)
//	reply, err := c.Cache().Get(ctx, messages.CacheGet{Key: "plan:42"})
//
// Requests, replies, codes and limits are those of package messages. What is not found in the cache is a reply with Found
// false, not an error. Every error of a call is a *[messages.Error], which errors.As finds and whose Code says what
// happened; a failure of the connection has one too.
//
// # Deadlines
//
// The deadline of a call, with all its attempts, is the context's, or else the endpoint's own (2 seconds for most).
// Workers are told what is left of it, and drop what comes too late.
//
// # Retries
//
// A call is attempted up to four times ([Config.Attempts]), and only after failures that make repetition safe:
//
//   - overloaded, quota_exceeded with a retry_after_ms, unavailable with the outcome not_applied: always;
//   - unavailable with the outcome unknown, and no reply within the endpoint's own time-out while the context has more:
//     if the operation changes nothing, or the call carries an idempotency key ([WithIdempotencyKey]).
//
// The pauses between the attempts double, with full jitter, and last at least the retry_after_ms of the failure. A pause
// that would outlast the deadline is not begun: the call returns the failure at once.
package client
