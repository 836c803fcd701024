package postgres

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestLimiterServesInOrder(t *testing.T) {
	t.Parallel()
	l := newLimiter(1)
	require.NoError(t, l.acquire(t.Context()))
	var order []int
	var waiters sync.WaitGroup
	for i := range 5 {
		waiters.Go(func() {
			require.NoError(t, l.acquire(t.Context()))
			order = append(order, i) // one holder at a time
			l.release()
		})
		waitForWaiters(t, l, i+1)
	}
	l.release()
	waiters.Wait()
	require.Equal(t, []int{0, 1, 2, 3, 4}, order)
}

func TestLimiterResize(t *testing.T) {
	t.Parallel()
	l := newLimiter(1)
	require.NoError(t, l.acquire(t.Context()))
	granted := make(chan struct{})
	go func() {
		_ = l.acquire(context.WithoutCancel(t.Context()))
		close(granted)
	}()
	waitForWaiters(t, l, 1)
	l.resize(2) // growing wakes the waiter
	<-granted
	l.resize(0) // at least one remains
	l.release()
	l.release()
	require.NoError(t, l.acquire(t.Context()))
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, l.acquire(canceled), context.Canceled)
}

func waitForWaiters(t *testing.T, l *limiter, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.waiters.Len() == n
	}, waitFor, tick)
}

// TestLimiterModel compares the limiter with what it says it is, over random histories in which callers give up and the
// size changes at any moment: never more holders than the largest size since they came, and no free place beside a waiter.
func TestLimiterModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 4).Draw(t, "limit")
		l := newLimiter(limit)
		held := 0
		type waiter struct {
			cancel context.CancelFunc
			done   chan error
		}
		var waiters []waiter
		settle := func() { // grants go to the first waiters
			for held < limit && len(waiters) > 0 {
				if err := <-waiters[0].done; err != nil {
					t.Fatalf("the first waiter was not served: %v", err)
				}
				waiters, held = waiters[1:], held+1
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"acquire": func(t *rapid.T) {
				ctx, cancel := context.WithCancel(context.Background())
				w := waiter{cancel, make(chan error, 1)}
				before := queueLength(l)
				go func() { w.done <- l.acquire(ctx) }()
				if held < limit {
					if err := <-w.done; err != nil {
						t.Fatalf("a free place was refused: %v", err)
					}
					held++
					cancel()
					return
				}
				for queueLength(l) == before { // it queues
				}
				waiters = append(waiters, w)
			},
			"release": func(t *rapid.T) {
				if held == 0 {
					t.Skip("nothing held")
				}
				l.release()
				held--
				settle()
			},
			"give up": func(t *rapid.T) {
				if len(waiters) == 0 {
					t.Skip("nobody waits")
				}
				i := rapid.IntRange(0, len(waiters)-1).Draw(t, "who")
				waiters[i].cancel()
				if err := <-waiters[i].done; err == nil {
					t.Fatal("who gave up was served")
				}
				waiters = append(waiters[:i:i], waiters[i+1:]...)
			},
			"resize": func(t *rapid.T) {
				limit = rapid.IntRange(1, 4).Draw(t, "limit")
				l.resize(limit)
				settle()
			},
			"": func(t *rapid.T) {
				l.mu.Lock()
				defer l.mu.Unlock()
				if l.held != held || l.waiters.Len() != len(waiters) {
					t.Fatalf("%d held and %d waiting, want %d and %d", l.held, l.waiters.Len(), held, len(waiters))
				}
			},
		})
		for _, w := range waiters {
			w.cancel()
			if err := <-w.done; err == nil {
				t.Fatal("who gave up was served")
			}
		}
	})
}

func queueLength(l *limiter) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiters.Len()
}
