package bus

import (
	"context"
	"fmt"
	"sync"

	"github.com/ai-cherry/morello/messages"
)

// admission bounds the requests at work and the bytes of their bodies, in all and by tenant. It never waits.
type admission struct {
	max, maxPerTenant load
	mu                sync.Mutex
	all               load
	perTenant         map[string]load // holds only tenants with requests at work
}

// load is a number of requests and of the bytes of their bodies.
type load struct{ requests, bytes int64 }

func newAdmission(cfg ServerConfig) admission {
	return admission{
		max:          load{int64(cfg.MaxInFlight), cfg.MaxRequestBytes},
		maxPerTenant: load{int64(cfg.MaxPerTenant), cfg.MaxRequestBytes / 2},
		perTenant:    map[string]load{},
	}
}

// retryAfterMS is the hint to a refused caller: about the time in which a worker gets through what it holds.
const retryAfterMS = 100

// enter lets the load of a message in, or says why not. Who was let in must leave.
func (a *admission) enter(tenant string, request load) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if full := a.all.exceeding(a.max, request); full != "" {
		return refusal(messages.CodeOverloaded, "this worker has its limit of "+full+" at work")
	}
	if full := a.perTenant[tenant].exceeding(a.maxPerTenant, request); full != "" {
		return refusal(messages.CodeQuotaExceeded, "the tenant has its limit of "+full+" at work on this worker")
	}
	a.all = a.all.plus(request)
	a.perTenant[tenant] = a.perTenant[tenant].plus(request)
	return nil
}

// exceeding names the limit that another load would exceed; empty when it would not. A message that is larger than the
// limit is let in when there is no other: it must be possible at some time.
func (l load) exceeding(limit, request load) string {
	switch sum := l.plus(request); {
	case sum.requests > limit.requests && l.requests > 0:
		return fmt.Sprintf("%d requests", limit.requests)
	case sum.bytes > limit.bytes && l.bytes > 0:
		return fmt.Sprintf("%d bytes of requests", limit.bytes)
	default:
		return ""
	}
}

func (l load) plus(other load) load { return load{l.requests + other.requests, l.bytes + other.bytes} }

func refusal(code messages.Code, message string) error {
	return &messages.Error{Code: code, Message: message, Details: messages.ErrorDetails{RetryAfterMS: retryAfterMS}}
}

func (a *admission) leave(tenant string, request load) {
	a.mu.Lock()
	defer a.mu.Unlock()
	request = load{-request.requests, -request.bytes}
	a.all = a.all.plus(request)
	left := a.perTenant[tenant].plus(request)
	if left.requests == 0 {
		delete(a.perTenant, tenant)
		return
	}
	a.perTenant[tenant] = left
}

func (a *admission) requestsAtWork() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.all.requests
}

type requestKey struct{}

// Reserve takes memory for a reply that is large, or may be, before it is read, waiting in turn until enough of
// MaxReplyBytes is free or the context ends. It is given back when the reply has been handed to NATS: until then the bytes
// are in memory. Outside of a request there is nothing to bound, and it does nothing.
func Reserve(ctx context.Context, bytes int64) error {
	r, ok := ctx.Value(requestKey{}).(*request)
	if !ok {
		return nil
	}
	if r.batch != nil {
		return messages.TooLarge("", messages.MaxBatchedReplyBytes, "the reply may be too large to come with others: send the request by itself")
	}
	s := r.endpoint.server
	bytes = min(bytes, s.cfg.MaxReplyBytes-r.reserved) // what exceeds the whole budget has all of it
	if err := s.replies.Acquire(ctx, bytes); err != nil {
		return err
	}
	r.reserved += bytes
	return nil
}
