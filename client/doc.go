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
//
// # Many callers at once
//
// Requests of concurrent callers to one operation go in few messages where the operation takes several (cache.get, set and touch,
// session.get_by_token and touch): while two messages are without a reply others gather, for 5 ms at most, and leave together, up to
// 128 ([Config.MaxBatch]). A lone caller's request leaves at once. Nothing else changes: each has its own reply, failure, deadline and
// retries. Requests with an idempotency key, an actor or a trace context, those over 8 KiB, sets on a condition and gets that ask for a
// lease go by themselves.
//
// # Computing what is not cached
//
// [GetOrCompute] is read-through with singleflight, in the process and across processes. Of all who miss a key one gets a
// lease of the cache (10 seconds, [messages.LeaseTime]) and computes. The others look again, after a tenth of a second and
// then less and less often, up to about once a second. What happens when it does not go so:
//
//   - compute fails, or the cache does not take its value: the lease is given back, and one of those who wait computes.
//   - The process with the lease dies: one of those who wait gets it when it lapses.
//   - compute takes longer than the lease: the Client renews it, for an hour at most. If it cannot, another process may compute too.
//   - The key is deleted, cleared, also by one of Tags, or set meanwhile: that ends the lease, and the value is not stored. The callers
//     who wait in this process get it. A value that was computed before an invalidation is never stored after it.
//   - After 30 seconds of waiting, or Timeout, one of those who wait in a process computes without a lease, and nothing is stored.
//   - The cache cannot be asked: each process computes, and nothing is stored.
//   - A computation asks for a key whose computation waits for its own: an error at once that names the keys ([GetOrCompute]).
//
// With [ComputeOptions].Stale a value that has just expired is returned at once, and the process that gets the lease
// computes in the background, on behalf of its Client: Close waits for that. If it fails, the value stays as stale as it
// is, and is computed anew by the next who asks for it after the lease has lapsed.
package client
