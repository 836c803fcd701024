package client

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/ai-cherry/morello/messages"
)

// ComputeOptions say how GetOrCompute keeps a value. Only Key must be given.
type ComputeOptions struct {
	// Key of 1 to 512 bytes. The same key must always mean the same computation, with the same options.
	Key string
	// TTL of a computed value. Defaults to one hour.
	TTL time.Duration
	// Stale is for how long after its TTL a value is still returned, while it is computed anew in the background: the
	// stale-while-revalidate of RFC 5861. Up to 5 minutes ([messages.MaxStale]). Defaults to 0: never.
	Stale time.Duration
	// Tags of a computed value, up to 32. Defaults to none.
	Tags []string
	// Timeout of the computation, which goes on when its callers have left. The computation of another process is waited
	// for no longer than that either, nor longer than 30 seconds. Defaults to 5 minutes.
	Timeout time.Duration
}

// defaultComputeTimeout bounds a computation that nobody may be waiting for any more.
const defaultComputeTimeout = 5 * time.Minute

// GetOrCompute returns the cached value of a key; if there is none, it computes the value, stores it and returns it. Of
// all callers in all processes that ask for a key at the same time one computes and the others wait for its value; see
// the package comment for the exceptions. With Stale, nobody waits for a value that has only just expired.
//
// The value travels as JSON, computed or not: each caller gets a copy of its own, and what JSON does not keep is lost. A
// cached value that does not decode into V is computed anew. A value that was computed before its key or one of its tags was
// invalidated is returned, and not stored. A cache that cannot be asked, or will not store the value, is logged and otherwise harmless. An error of compute is returned to all callers of this Client as it is, and not cached;
// that of a computation in the background is logged.
//
// A computation that asks for a key whose computation waits for its own, directly or in a circle, gets an invalid error at once that
// names the keys. For that, compute must pass its context on. Nobody waits for a computation of this process for more than 30
// seconds, either: one of those who did computes for all of them.
//
// compute gets the values of the first caller's context, but not its end: a caller that leaves gets deadline_exceeded and
// disturbs no other. It is cancelled by Timeout, and when Close gives up. A panic in it becomes an internal error.
func GetOrCompute[V any](
	ctx context.Context, c *Client, options ComputeOptions, compute func(ctx context.Context) (V, error),
) (V, error) {
	var value V
	if err := options.validate(); err != nil {
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
	leave, err := c.waits.enter(ctx, options.Key)
	if err != nil {
		return value, err
	}
	defer leave()
	patience := time.NewTimer(min(options.timeout(), longestLeaseWait))
	defer patience.Stop()
	select {
	case result := <-c.flights.DoChan(options.Key, func() (any, error) { return f.run(detached) }):
		return decodeValue[V](result)
	case <-ctx.Done():
		return value, ended(ctx.Err())
	case <-patience.C:
	}
	select { // as another process does that has waited in vain
	case result := <-c.impatient.DoChan(options.Key, func() (any, error) { return f.runAlone(detached) }):
		return decodeValue[V](result)
	case <-ctx.Done():
		return value, ended(ctx.Err())
	}
}

func (o ComputeOptions) validate() error {
	if err := o.lookup().Validate(); err != nil {
		return err
	}
	return o.entry([]byte("null")).Validate()
}

// lookup is what is asked of the cache.
func (o ComputeOptions) lookup() messages.CacheGet {
	return messages.CacheGet{Key: o.Key, Lease: true, StaleSeconds: o.Stale.Seconds()}
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

func (o ComputeOptions) timeout() time.Duration {
	if o.Timeout <= 0 {
		return defaultComputeTimeout
	}
	return o.Timeout
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

// flight is one look-up with all who wait for it. Its values are encoded, so that nobody shares memory.
type flight struct {
	client  *Client
	options ComputeOptions
	decodes func(body []byte) error
	compute func(ctx context.Context) ([]byte, error)
}

// run returns the value that is cached, or else that of a computation. With a stale value nobody waits for it.
func (f flight) run(ctx context.Context) ([]byte, error) {
	if err := f.client.enter(); err != nil {
		return nil, err
	}
	defer f.client.calls.Done()
	found, err := f.await(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case found.value == nil:
		return f.join(ctx, found).result()
	case found.lease != "" && found.running == nil:
		f.start(ctx, found)
	}
	return found.value, nil
}

// runAlone returns the value that is cached, or that of a computation beside the one that this process has waited for in vain.
func (f flight) runAlone(ctx context.Context) ([]byte, error) {
	if err := f.client.enter(); err != nil {
		return nil, err
	}
	defer f.client.calls.Done()
	found := f.lookup(ctx)
	if found.value != nil {
		return found.value, nil
	}
	f.client.calls.Add(1)
	c := f.newComputation(found)
	c.run(ctx)
	return c.result()
}

// lookup asks the cache. When that fails there is neither value, nor lease, nor anybody to wait for; a value that does not
// decode is none.
func (f flight) lookup(ctx context.Context) found {
	found := found{running: f.running(), leaseEnd: time.Now().Add(messages.LeaseTime)}
	reply, err := exchange(ctx, f.client, messages.CacheGetEndpoint, f.options.lookup())
	if err != nil {
		reply = messages.CacheGetReply{}
	} else if reply.Found {
		err = f.decodes(reply.Value)
	}
	if err != nil {
		f.client.log.Warn("the cache is of no help; computing", "key", f.options.Key, "error", err)
		reply.Value = nil
	}
	found.value, found.lease = reply.Value, reply.Lease
	if reply.Value == nil && !reply.Stale {
		found.version = reply.Version
	}
	found.wait = time.Duration(reply.LeaseWaitMS) * time.Millisecond
	return found
}
