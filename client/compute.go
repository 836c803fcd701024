package client

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/ai-cherry/morello/messages"
)

// ComputeOptions say where GetOrCompute keeps a value. Only Key must be given.
type ComputeOptions struct {
	// Key of 1 to 512 bytes. The same key must always mean the same computation.
	Key string
	// TTL of a computed value. Defaults to one hour.
	TTL time.Duration
	// Tags of a computed value, up to 32. Defaults to none.
	Tags []string
	// Timeout of the computation, which goes on when its callers have left. Defaults to 5 minutes.
	Timeout time.Duration
}

// defaultComputeTimeout bounds a computation that nobody may be waiting for any more.
const defaultComputeTimeout = 5 * time.Minute

// GetOrCompute returns the cached value of a key; if there is none, it computes the value, stores it and returns it.
// Callers of one Client that ask for a key at the same time share one computation; those of other processes do not.
//
// The value travels as JSON, computed or not: each caller gets a copy of its own, and what JSON does not keep is lost. A
// cached value that does not decode into V is computed anew. A cache that cannot be asked, or will not store the value, is
// logged and otherwise harmless. An error of compute is returned to all its callers as it is, and not cached.
//
// compute gets the values of the first caller's context, but not its end: a caller that leaves gets deadline_exceeded and
// disturbs no other. It is cancelled by Timeout, and when Close gives up. A panic in it becomes an internal error.
func GetOrCompute[V any](
	ctx context.Context, c *Client, options ComputeOptions, compute func(ctx context.Context) (V, error),
) (V, error) {
	var value V
	if err := options.entry([]byte("null")).Validate(); err != nil {
		return value, err
	}
	if ctx.Err() != nil {
		return value, ended(ctx.Err())
	}
	// The key of a call of the caller's is not that of ours.
	detached := WithIdempotencyKey(context.WithoutCancel(ctx), "")
	f := flight{
		client: c, options: options,
		decodes: func(body []byte) error { return messages.DecodeReply(body, new(V)) },
		compute: func(ctx context.Context) ([]byte, error) {
			computed, err := compute(ctx)
			if err != nil {
				return nil, err
			}
			return encodeValue(computed)
		},
	}
	select {
	case result := <-c.flights.DoChan(options.Key, func() (any, error) { return f.run(detached) }):
		return decodeValue[V](result)
	case <-ctx.Done():
		return value, ended(ctx.Err())
	}
}

// entry is what is stored when the value has been computed.
func (o ComputeOptions) entry(value []byte) messages.CacheSet {
	entry := messages.CacheSet{Key: o.Key, Value: value, Tags: o.Tags}
	if o.TTL != 0 {
		seconds := o.TTL.Seconds()
		entry.TTLSeconds = &seconds
	}
	return entry
}

func encodeValue(value any) ([]byte, error) {
	body, err := messages.Encode(value)
	if err != nil {
		return nil, &messages.Error{Code: messages.CodeInvalid, Message: "the computed value cannot be encoded as JSON", Cause: err}
	}
	return body, nil
}

func decodeValue[V any](result singleflight.Result) (V, error) {
	var value V
	if result.Err != nil {
		return value, result.Err
	}
	if err := messages.DecodeReply(result.Val.([]byte), &value); err != nil {
		message := fmt.Sprintf("the value cannot be decoded into %T", value)
		return value, &messages.Error{Code: messages.CodeInvalid, Message: message, Cause: err}
	}
	return value, nil
}

// flight is one computation with all who wait for it. Its values are encoded, so that nobody shares memory.
type flight struct {
	client  *Client
	options ComputeOptions
	decodes func(body []byte) error
	compute func(ctx context.Context) ([]byte, error)
}

func (f flight) run(ctx context.Context) ([]byte, error) {
	if err := f.client.enter(); err != nil {
		return nil, err
	}
	defer f.client.calls.Done()
	if value := f.lookup(ctx); value != nil {
		return value, nil
	}
	value, err := f.computeInTime(ctx)
	if err == nil {
		f.store(ctx, value)
	}
	return value, err
}

// lookup returns the cached value, nil if there is none of use.
func (f flight) lookup(ctx context.Context) []byte {
	reply, err := exchange(ctx, f.client, messages.CacheGetEndpoint, messages.CacheGet{Key: f.options.Key})
	if err == nil && reply.Found {
		err = f.decodes(reply.Value)
	}
	if err != nil {
		f.client.log.Warn("the cache is of no help; computing", "key", f.options.Key, "error", err)
		return nil
	}
	return reply.Value
}

func (f flight) computeInTime(ctx context.Context) (value []byte, err error) {
	timeout := f.options.Timeout
	if timeout <= 0 {
		timeout = defaultComputeTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("compute timeout (%s) exceeded", timeout))
	defer cancel()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-f.client.giveUp:
			cancel()
		case <-ended:
		}
	}()
	defer func() {
		if p := recover(); p != nil {
			cause := fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			value, err = nil, &messages.Error{Code: messages.CodeInternal, Message: fmt.Sprintf("compute panicked: %v", p), Cause: cause}
		}
	}()
	return f.compute(ctx)
}

func (f flight) store(ctx context.Context, value []byte) {
	if _, err := exchange(ctx, f.client, messages.CacheSetEndpoint, f.options.entry(value)); err != nil {
		f.client.log.Warn("a computed value could not be cached", "key", f.options.Key, "error", err)
	}
}
