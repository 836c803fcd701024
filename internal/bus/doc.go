// Package bus carries the contract over NATS: it serves endpoints, calls them, publishes events, sends control messages
// to workers, and answers discovery as the NATS service API (ADR-32) asks, so that "nats micro ls|info|stats" works.
//
// # What happens to a request, and why in this order
//
//  1. Reply subject. NATS lets a caller name any subject for the reply, and does not ask whether the caller may publish
//     there; a worker would then publish in its place. Anything but an inbox, and the inbox of another tenant, is
//     dropped before a byte is looked at.
//  2. Tenant and scope, from the subject alone: garbage must not reach the accounts that are kept by tenant.
//  3. Headers: deadline, idempotency key, actor, trace. The deadline counts from here.
//  4. Admission, without waiting: over the worker's bound it is overloaded, over the tenant's share quota_exceeded. These
//     come before the body is decoded, because a flooded worker must be able to refuse cheaply.
//  5. From here on a goroutine of its own. Work whose deadline has passed while it waited is dropped: nobody listens.
//  6. The body: strict JSON, then Validate. Where one message carries several requests, each of them takes this and the steps
//     that follow by itself, and the reply holds what each was answered (batch.go).
//  7. The operation, with deadline and Call in its context; a panic becomes internal, and the worker lives on.
//  8. The reply: encoded, held against max_payload (a reply that does not fit is too_large, not silence), sent.
//  9. Count, time, log. An internal error is logged here, once, under the id that the caller received.
package bus
