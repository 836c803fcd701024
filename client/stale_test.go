package client_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/client"
	"github.com/ai-cherry/morello/messages"
)

var staleOptions = client.ComputeOptions{Key: "k", Stale: time.Minute}

// eventually waits until a caller gets the value.
func eventually(t *testing.T, c *client.Client, want int, compute func(context.Context) (int, error)) {
	t.Helper()
	require.Eventually(t, func() bool {
		got, err := client.GetOrCompute(t.Context(), c, staleOptions, compute)
		return err == nil && got == want
	}, 30*time.Second, time.Millisecond)
}

// TestStaleWhileRevalidate: the callers of two processes get the value that has expired at once, while one computation
// runs; then they get the new one.
func TestStaleWhileRevalidate(t *testing.T) {
	t.Parallel()
	p := startProcesses(t)
	p.setExpired(t, "k", "1", time.Second)
	b := newBlocked()
	for range 20 {
		for _, process := range []*client.Client{p.first, p.second} {
			got, err := client.GetOrCompute(t.Context(), process, staleOptions, b.compute)
			require.NoError(t, err)
			require.Equal(t, 1, got)
		}
	}
	b.waitForStart(t)
	b.finish <- outcome{value: 7}
	eventually(t, p.first, 7, b.compute)
	require.Equal(t, outcome{value: 7}, <-call(t.Context(), p.second, client.ComputeOptions{Key: "k"}, never[int](t)))
	require.EqualValues(t, 1, b.computed.Load())
}

// TestStaleIsNotAskedFor: who does not accept a stale value waits for the new one.
func TestStaleIsNotAskedFor(t *testing.T) {
	t.Parallel()
	p := startProcesses(t)
	p.setExpired(t, "k", "1", time.Second)
	require.Equal(t, outcome{value: 7}, <-call(t.Context(), p.first, client.ComputeOptions{Key: "k"}, gives(7)))
	p.expire(t, "k", 2*time.Minute)
	require.Equal(t, outcome{value: 8}, <-call(t.Context(), p.first, staleOptions, gives(8)))
}

// TestStaleOfAnotherType: what does not decode is not returned, and computed anew with the lease.
func TestStaleOfAnotherType(t *testing.T) {
	t.Parallel()
	p := startProcesses(t)
	p.setExpired(t, "k", `"text"`, time.Second)
	require.Equal(t, outcome{value: 7}, <-call(t.Context(), p.first, staleOptions, gives(7)))
	p.requireCached(t, "k", "7")
}

// TestOneBackgroundComputation: there is one of a key in a process, also when its lease has lapsed and another is granted.
func TestOneBackgroundComputation(t *testing.T) {
	t.Parallel()
	p := startProcesses(t)
	p.setExpired(t, "k", "1", time.Second)
	b := newBlocked()
	for range 5 {
		require.Equal(t, outcome{value: 1}, <-call(t.Context(), p.first, staleOptions, b.compute))
		p.lapse(t)
	}
	b.waitForStart(t)
	b.finish <- outcome{value: 7}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, p.first.Close(ctx)) // waits for all there are
	require.EqualValues(t, 1, b.computed.Load())
}

// TestBackgroundFailure: it is logged, the callers keep the stale value until it is too old, and nobody tries again before
// the lease has lapsed.
func TestBackgroundFailure(t *testing.T) {
	t.Parallel()
	p := startProcesses(t)
	p.setExpired(t, "k", "1", time.Second)
	b := newBlocked()
	require.Equal(t, outcome{value: 1}, <-call(t.Context(), p.first, staleOptions, b.compute))
	b.waitForStart(t)
	b.finish <- outcome{err: errors.New("the model is busy")}
	p.waitForLog(t, "the model is busy")
	for _, process := range []*client.Client{p.first, p.second} {
		require.Equal(t, outcome{value: 1}, <-call(t.Context(), process, staleOptions, never[int](t)))
	}
	p.lapse(t)
	p.expire(t, "k", 2*time.Minute)
	require.Equal(t, outcome{value: 7}, <-call(t.Context(), p.second, staleOptions, gives(7)))
}

// TestStaleBecomesTooOld: who can have no value any more joins the computation in the background, and shares its error.
func TestStaleBecomesTooOld(t *testing.T) {
	t.Parallel()
	p := startProcesses(t)
	errModel := errors.New("the model is busy")
	for _, want := range []outcome{{err: errModel}, {value: 7}} {
		p.setExpired(t, "k", "1", time.Second)
		b := newBlocked()
		require.Equal(t, outcome{value: 1}, <-call(t.Context(), p.first, staleOptions, b.compute))
		b.waitForStart(t)
		p.expire(t, "k", 2*time.Minute)
		before := p.gets.Load()
		joined := call(t.Context(), p.first, staleOptions, never[int](t))
		p.waitForGets(t, before+1)
		b.finish <- want
		require.Equal(t, want, <-joined)
	}
}

// TestDeletedWhileComputingInBackground: who comes after the delete does not get what was computed before it, nor does the
// cache.
func TestDeletedWhileComputingInBackground(t *testing.T) {
	t.Parallel()
	p := startProcesses(t)
	p.setExpired(t, "k", "1", time.Second)
	b := newBlocked()
	require.Equal(t, outcome{value: 1}, <-call(t.Context(), p.first, staleOptions, b.compute))
	b.waitForStart(t)
	_, err := p.second.Cache().Delete(t.Context(), messages.CacheDelete{Key: "k"})
	require.NoError(t, err)
	require.Equal(t, outcome{value: 8}, <-call(t.Context(), p.first, staleOptions, gives(8)))
	b.finish <- outcome{value: 7}
	require.NoError(t, p.first.Close(t.Context()))
	p.requireCached(t, "k", "8")
}

// TestCloseAndBackgroundComputations: Close waits for one, or cancels it when it can wait no longer.
func TestCloseAndBackgroundComputations(t *testing.T) {
	t.Parallel()
	p := startProcesses(t)
	p.setExpired(t, "k", "1", time.Second)
	b := newBlocked()
	require.Equal(t, outcome{value: 1}, <-call(t.Context(), p.first, staleOptions, b.compute))
	b.waitForStart(t)
	closed := make(chan error, 1)
	go func() { closed <- p.first.Close(t.Context()) }()
	require.Eventually(t, func() bool {
		_, err := p.first.Cache().Get(t.Context(), messages.CacheGet{Key: "k"})
		return err != nil
	}, 10*time.Second, time.Millisecond)
	require.Empty(t, closed)
	b.finish <- outcome{value: 7}
	require.NoError(t, <-closed)
	p.requireCached(t, "k", "7")

	p.expire(t, "k", time.Second)
	require.Equal(t, outcome{value: 7}, <-call(t.Context(), p.second, staleOptions, b.compute))
	b.waitForStart(t)
	ended, end := context.WithCancel(t.Context())
	end()
	require.ErrorIs(t, p.second.Close(ended), context.Canceled)
	p.waitForLog(t, "context canceled")
}
