package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/ai-cherry/morello/messages"
)

const (
	// firstPause and longestPause bound the random pauses between attempts; the first leaves a worker time to get through
	// much of what it holds.
	firstPause   = 100 * time.Millisecond
	longestPause = 2 * time.Second
)

// run attempts the request until it has an answer that repetition would not improve, or no attempt or time is left. The
// failure of the last attempt is the failure of the call, unless the context ended in a pause.
func (r *request) run(ctx context.Context) (*nats.Msg, error) {
	for n := 1; ; n++ {
		reply, failure := r.attempt(ctx, n)
		switch {
		case failure == nil:
			return reply, nil
		case n == r.client.attempts || !r.isRetryable(failure):
			return nil, failure
		case !r.wait(ctx, pause(n, failure)):
			if ctx.Err() != nil {
				return nil, ended(errors.Join(ctx.Err(), failure))
			}
			return nil, failure
		}
	}
}

// isRetryable: after deadline_exceeded there is no time for a repetition, although it might be harmless.
func (r *request) isRetryable(failure *messages.Error) bool {
	return failure.Code != messages.CodeDeadlineExceeded && failure.Retryable(r.repeatable)
}

// pause returns how long to wait after the n-th attempt: "full jitter", of Marc Brooker, "Exponential Backoff And
// Jitter", AWS Architecture Blog, 2015, a random part of a bound that doubles. What the worker asks for comes first, so
// that those it refuses together do not come back together.
func pause(n int, failure *messages.Error) time.Duration {
	bound := longestPause
	if doublings := n - 1; doublings < 16 {
		bound = min(longestPause, firstPause<<doublings)
	}
	return time.Duration(failure.Details.RetryAfterMS)*time.Millisecond + rand.N(bound)
}

// wait pauses, and reports whether there is time for another attempt. It does not begin a pause that ends too late.
func (r *request) wait(ctx context.Context, pause time.Duration) bool {
	if r.client.nc.Status() == nats.CLOSED || time.Until(r.deadline) <= pause {
		return false
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-r.client.giveUp:
	}
	return false
}
