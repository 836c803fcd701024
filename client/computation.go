package client

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/ai-cherry/morello/messages"
)

// computation is the one of a key in this process. It belongs to the Client, whose Close waits for it, and not to the
// flight that starts it.
type computation struct {
	flight
	found      found // what the look-up before it came to
	background bool  // callers have a stale value, and do not wait
	// leaseEnd, in nanoseconds since 1970, is the time before which the lease does not lapse; 0 when it is known to be over.
	leaseEnd atomic.Int64

	done  chan struct{} // closed when value and err are there
	value []byte
	err   error
}

// errNoReturn is the failure of a compute function that ended its goroutine.
var errNoReturn = &messages.Error{Code: messages.CodeInternal, Message: "compute did not return"}

// running returns the computation of the key in this process, nil if there is none. Only a flight starts one, and flights
// of one key follow one another.
func (f flight) running() *computation {
	running, ok := f.client.computations.Load(f.options.Key)
	if !ok {
		return nil
	}
	return running.(*computation)
}

// join returns the computation that runs, or else one that it starts; also if the one that runs is out of date. That is
// so when this flight got a lease before that of the computation can have lapsed: the key was deleted or set meanwhile.
func (f flight) join(ctx context.Context, found found) *computation {
	running := found.running
	if running == nil || (found.lease != "" && running.holdsLease()) {
		return f.start(ctx, found)
	}
	return running
}

// start starts a computation; with a stale value, in the background.
func (f flight) start(ctx context.Context, found found) *computation {
	c := f.newComputation(found)
	f.client.computations.Store(f.options.Key, c)
	f.client.calls.Add(1) // while that of the flight counts
	go c.run(ctx)
	return c
}

func (f flight) newComputation(found found) *computation {
	c := &computation{flight: f, found: found, background: found.value != nil, done: make(chan struct{}), err: errNoReturn}
	c.leaseEnd.Store(found.leaseEnd.UnixNano())
	return c
}

// holdsLease reports whether the lease, as far as this process can know, has not lapsed.
func (c *computation) holdsLease() bool { return time.Now().UnixNano() < c.leaseEnd.Load() }

func (c *computation) result() ([]byte, error) {
	<-c.done
	return c.value, c.err
}

func (c *computation) run(ctx context.Context) {
	defer c.client.calls.Done()
	defer c.end()
	c.value, c.err = c.computeWithLease(context.WithValue(ctx, computingKey{}, c))
	if c.err == nil && c.store(ctx) {
		return
	}
	// In the background nobody waits for the lease. There it is what keeps all processes from trying again at once.
	if c.found.lease != "" && !c.background {
		c.giveBack(ctx)
	}
}

func (c *computation) end() {
	if c.background && c.err != nil {
		c.client.log.Warn("a value could not be computed in the background", "key", c.options.Key, "error", c.err)
	}
	c.client.computations.CompareAndDelete(c.options.Key, c)
	close(c.done)
}

// computeWithLease computes, and renews the lease until that is done.
func (c *computation) computeWithLease(ctx context.Context) ([]byte, error) {
	if c.found.lease == "" {
		return c.computeInTime(ctx)
	}
	renewing, stop := context.WithCancel(ctx)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		c.renewLease(renewing)
	}()
	defer func() {
		stop()
		<-stopped
	}()
	return c.computeInTime(ctx)
}

// renewPeriod leaves room for two renewals that fail.
const renewPeriod = messages.LeaseTime / 4

// renewLease renews the lease until the context ends, or the lease has: then the value will not be stored.
func (c *computation) renewLease(ctx context.Context) {
	tick := time.NewTicker(renewPeriod)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		end := time.Now().Add(messages.LeaseTime)
		attempt, cancel := context.WithTimeout(ctx, renewPeriod)
		reply, err := exchange(attempt, c.client, messages.CacheTouchEndpoint, messages.CacheTouch{Key: c.options.Key, Lease: c.found.lease})
		cancel()
		switch {
		case err == nil && !reply.Touched:
			c.leaseEnd.Store(0)
			return
		case err == nil && end.Before(c.found.leaseEnd.Add(messages.MaxLeaseAge-messages.LeaseTime)):
			c.leaseEnd.Store(end.UnixNano())
		}
	}
}

func (c *computation) computeInTime(ctx context.Context) (value []byte, err error) {
	timeout := c.options.timeout()
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("compute timeout (%s) exceeded", timeout))
	defer cancel()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-c.client.giveUp:
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
	return c.compute(ctx)
}

// store offers the value to the cache, and reports whether that was possible. It is stored only if nothing was deleted, cleared or set
// since before the computation: with a lease that holds, or in place of the very entry that could not be decoded. Without either the
// value may be older than an invalidation, and is not stored.
func (c *computation) store(ctx context.Context) bool {
	entry := c.options.entry(c.value)
	switch {
	case c.found.lease != "":
		entry.Lease = c.found.lease
	case c.found.version != 0:
		entry.IfVersion = &c.found.version
	default:
		return false
	}
	_, err := exchange(ctx, c.client, messages.CacheSetEndpoint, entry)
	if err != nil {
		c.client.log.Warn("a computed value could not be cached", "key", c.options.Key, "error", err)
	}
	return err == nil
}

// noVersion is a version that no entry has: they begin at the microseconds since 1970.
const noVersion = 1

// giveBack ends the lease, so that others need not wait for it to lapse. It is a delete that finds nothing to delete, since
// an expired value and one that somebody else has set are to stay. It may end the lease of somebody who got it after a
// delete, whose value is then not cached; but not that of one who got it because ours lapsed, for it is not sent so late.
func (c *computation) giveBack(ctx context.Context) {
	left := min(time.Until(time.Unix(0, c.leaseEnd.Load())), messages.CacheDeleteEndpoint.Timeout)
	if left <= 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	version := int64(noVersion)
	nothing := messages.CacheDelete{Key: c.options.Key, IfVersion: &version}
	if _, err := exchange(ctx, c.client, messages.CacheDeleteEndpoint, nothing); err != nil {
		c.client.log.Warn("a lease could not be given back; it lapses", "key", c.options.Key, "error", err)
	}
}
