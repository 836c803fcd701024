package messages

import "context"

// Call is what a request brings besides its body. Package bus puts it into the context of every operation.
type Call struct {
	// Endpoint is the name of the operation.
	Endpoint string
	// IdempotencyKey is empty when the caller gave none. It is a secret: it seals the stored reply.
	IdempotencyKey string
	// Fingerprint is the SHA-256 of operation and body; only set with an IdempotencyKey.
	Fingerprint [32]byte
	Actor       string
	Traceparent string
}

type callKey struct{}

// WithCall returns a context that carries the call.
func WithCall(ctx context.Context, call *Call) context.Context {
	return context.WithValue(ctx, callKey{}, call)
}

// CallFrom returns the call that the context carries; an empty one when it carries none.
func CallFrom(ctx context.Context) *Call {
	if call, ok := ctx.Value(callKey{}).(*Call); ok {
		return call
	}
	return &Call{}
}

// Keyed reports whether the request carries an idempotency key.
func Keyed(ctx context.Context) bool { return CallFrom(ctx).IdempotencyKey != "" }
