package postgres

import (
	"container/list"
	"context"
	"sync"
)

// limiter is a semaphore whose size can change while it is in use: growing wakes waiters, shrinking lets the holders
// finish. Waiters are served in the order in which they came.
type limiter struct {
	mu      sync.Mutex
	limit   int
	held    int
	waiters list.List // of chan struct{}, closed when the place is granted
}

func newLimiter(limit int) *limiter { return &limiter{limit: limit} }

// acquire takes a place, waiting for it until the context ends.
func (l *limiter) acquire(ctx context.Context) error {
	l.mu.Lock()
	if l.held < l.limit && l.waiters.Len() == 0 {
		l.held++
		l.mu.Unlock()
		return nil
	}
	granted := make(chan struct{})
	place := l.waiters.PushBack(granted)
	l.mu.Unlock()
	select {
	case <-granted:
		return nil
	case <-ctx.Done():
		return l.abandon(place, granted, ctx.Err())
	}
}

// abandon leaves the queue. A place that was granted in the same moment is passed on.
func (l *limiter) abandon(place *list.Element, granted chan struct{}, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-granted:
		l.held--
	default:
		l.waiters.Remove(place)
	}
	l.grant()
	return err
}

func (l *limiter) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held--
	l.grant()
}

// resize changes the number of places, to at least one.
func (l *limiter) resize(limit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = max(1, limit)
	l.grant()
}

// grant gives free places to the first waiters. The caller holds the mutex.
func (l *limiter) grant() {
	for l.held < l.limit && l.waiters.Len() > 0 {
		granted := l.waiters.Remove(l.waiters.Front()).(chan struct{})
		l.held++
		close(granted)
	}
}
