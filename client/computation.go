package client

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/ai-cherry/morello/messages"
)

// computation is the one of a key in this process. It belongs to the Client, whose Close waits for it, and not to the
// flight that starts it.
type computation struct {
	flight
	found      found // what the look-up before it came to
	background bool  // callers have a stale value, and do not wait

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
	if running == nil || (found.lease != "" && time.Now().Before(running.found.leaseEnd)) {
		return f.start(ctx, found)
	}
	return running
}

// start starts a computation; with a stale value, in the background.
func (f flight) start(ctx context.Context, found found) *computation {
	c := &computation{flight: f, found: found, background: found.value != nil, done: make(chan struct{}), err: errNoReturn}
	f.client.computations.Store(f.options.Key, c)
	f.client.calls.Add(1) // while that of the flight counts
	go c.run(ctx)
	return c
}

func (c *computation) result() ([]byte, error) {
	<-c.done
	return c.value, c.err
}

func (c *computation) run(ctx context.Context) {
	defer c.client.calls.Done()
	defer c.end()
	c.value, c.err = c.computeInTime(ctx)
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

// store offers the value to the cache, and reports whether that was possible. With a lease that has ended it is not
// stored: it may be older than a delete, and who has set the key since has the newer value. A lease that may just have
// lapsed says nothing of the kind; the value is stored then if none is there, or else what takes longer than a lease
// would never be cached.
func (c *computation) store(ctx context.Context) bool {
	entry := c.options.entry(c.value)
	entry.Lease = c.found.lease
	entry.IfAbsent = c.found.wait > 0 // another was waited for in vain, and may have been ready since
	reply, err := exchange(ctx, c.client, messages.CacheSetEndpoint, entry)
	if err == nil && !reply.Stored && entry.Lease != "" && !time.Now().Before(c.found.leaseEnd) {
		entry.Lease, entry.IfAbsent = "", true
		_, err = exchange(ctx, c.client, messages.CacheSetEndpoint, entry)
	}
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
	left := min(time.Until(c.found.leaseEnd), messages.CacheDeleteEndpoint.Timeout)
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
