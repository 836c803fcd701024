package client

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/ai-cherry/morello/messages"
)

const (
	// longestLeasePause is the longest pause, but for jitter, between two looks for a value that another computes: what
	// it may be late by, against what asking costs the database.
	longestLeasePause = time.Second
	// longestLeaseWait bounds the wait for another's value: two holders of the lease may die, and a third one compute.
	longestLeaseWait = 3 * messages.LeaseTime
)

// found is what a look-up came to.
type found struct {
	value    []byte        // live or stale; nil if there is none of use
	version  int64         // of a live value that is of no use
	lease    string        // the token, for who is to compute
	leaseEnd time.Time     // the lease does not lapse before this: the database grants it after we began to ask
	wait     time.Duration // not 0 while somebody else has the lease
	running  *computation  // of this process, when the look-up began
}

// await looks the key up until there is a value, or nothing to wait for: the flight has got the lease, because nobody had
// it, or its holder failed or died; a computation of this process can be joined; or it has waited long enough.
func (f flight) await(ctx context.Context) (found, error) {
	patience := time.Now().Add(min(f.options.timeout(), longestLeaseWait))
	for n := 0; ; n++ {
		found := f.lookup(ctx)
		left := time.Until(patience)
		switch {
		case found.value != nil:
			return found, nil
		case f.client.gaveUp(): // and that may be why nothing was found
			return found, closedError()
		case found.wait <= 0 || found.running != nil || left <= 0:
			return found, nil
		}
		f.pause(min(left, leasePause(n, found.wait)))
	}
}

// leasePause returns how long to wait after the n-th look, from 0: about what the worker hints, then twice as long each
// time up to a bound; with jitter of a half, so that those who began together do not stay together.
func leasePause(n int, hint time.Duration) time.Duration {
	bound := longestLeasePause
	if n < 16 && hint < longestLeasePause {
		bound = min(bound, hint<<n)
	}
	return bound/2 + rand.N(bound)
}

// pause waits, but not when Close no longer does.
func (f flight) pause(pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.client.giveUp:
	}
}
