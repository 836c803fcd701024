package client_test

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/client"
	"github.com/ai-cherry/morello/internal/devstack"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

// patience is a number of attempts that no restart outlasts: the deadline decides.
const patience = 1000

// load increments one counter with keys, and reads, from 16 callers until stop is called, which checks that no call failed
// and that each increment took place once. done counts the increments.
func load(t *testing.T, c *client.Client) (done *atomic.Int64, stop func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	var stopping atomic.Bool
	var crowd sync.WaitGroup
	done = &atomic.Int64{}
	for caller := range 16 {
		crowd.Go(func() {
			for i := 0; !stopping.Load(); i++ {
				keyed := client.WithIdempotencyKey(ctx, fmt.Sprintf("%d-%d", caller, i))
				if _, err := c.Cache().Increment(keyed, messages.CacheIncrement{Key: "counter"}); err != nil {
					t.Errorf("increment: %v", err)
					return
				}
				done.Add(1)
				if _, err := c.Cache().Get(ctx, messages.CacheGet{Key: "counter"}); err != nil {
					t.Errorf("get: %v", err)
					return
				}
			}
		})
	}
	return done, func() {
		t.Helper()
		defer cancel()
		stopping.Store(true)
		crowd.Wait()
		reply, err := c.Cache().Get(ctx, messages.CacheGet{Key: "counter"})
		require.NoError(t, err)
		require.Equal(t, strconv.FormatInt(done.Load(), 10), string(reply.Value))
	}
}

// waitForMore waits until n more increments are done.
func waitForMore(t *testing.T, done *atomic.Int64, n int64) {
	t.Helper()
	target := done.Load() + n
	require.Eventually(t, func() bool { return t.Failed() || done.Load() >= target }, time.Minute, time.Millisecond)
	require.False(t, t.Failed())
}

// TestWorkerRestarts: for a while there is no worker at all. No call fails, and no increment is lost or done twice.
func TestWorkerRestarts(t *testing.T) {
	t.Parallel()
	natsURL, databaseURL := devtest.NATS(t).URL(), devtest.Database(t)
	stopWorker := startWorker(t, databaseURL, natsURL)
	done, stop := load(t, connect(t, client.Config{URL: natsURL, Attempts: patience}))
	waitForMore(t, done, 50)
	stopWorker()
	startWorker(t, databaseURL, natsURL)
	waitForMore(t, done, 50)
	stop()
}

// TestNATSRestarts: requests and replies under way are lost, and asked for again with the same key.
func TestNATSRestarts(t *testing.T) {
	t.Parallel()
	store := t.TempDir()
	broker, err := devstack.StartNATS(devstack.NATSConfig{StoreDir: store})
	require.NoError(t, err)
	t.Cleanup(broker.Shutdown)
	startWorker(t, devtest.Database(t), broker.URL())
	c := connect(t, client.Config{URL: broker.URL(), Attempts: patience})
	done, stop := load(t, c)
	waitForMore(t, done, 50)

	broker.Shutdown()
	waitForDisconnect(t, c)
	at, err := url.Parse(broker.URL())
	require.NoError(t, err)
	port, err := strconv.Atoi(at.Port())
	require.NoError(t, err)
	again, err := devstack.StartNATS(devstack.NATSConfig{StoreDir: store, Port: port})
	require.NoError(t, err)
	t.Cleanup(again.Shutdown)
	waitForMore(t, done, 50)
	stop()
}

// waitForDisconnect waits until a caller with little patience is told at once that nothing happened.
func waitForDisconnect(t *testing.T, c *client.Client) {
	t.Helper()
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := c.Cache().Set(ctx, messages.CacheSet{Key: "k", Value: []byte("1")})
		var failure *messages.Error
		require.ErrorAs(t, err, &failure)
		return failure.Code == messages.CodeUnavailable && failure.Details.Outcome == messages.OutcomeNotApplied
	}, 10*time.Second, time.Millisecond)
}

// TestCloseWithoutNATS: there is nothing to drain, and no error.
func TestCloseWithoutNATS(t *testing.T) {
	t.Parallel()
	broker := devtest.NATS(t)
	c := connect(t, client.Config{URL: broker.URL()})
	broker.Shutdown()
	waitForDisconnect(t, c)
	require.NoError(t, c.Close(t.Context()))
	_, err := client.GetOrCompute(t.Context(), c, client.ComputeOptions{Key: "k"}, never[int](t))
	requireCode(t, messages.CodeUnavailable, err)
}

// TestPostgreSQLRestarts: what the worker answers meanwhile is repeated as far as it may be.
func TestPostgreSQLRestarts(t *testing.T) {
	t.Parallel()
	server, natsURL := devtest.Server(t), devtest.NATS(t).URL()
	startWorker(t, server.URL("morello"), natsURL)
	c := connect(t, client.Config{URL: natsURL, Attempts: patience})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	_, err := c.Cache().Set(ctx, messages.CacheSet{Key: "k", Value: []byte("1")})
	require.NoError(t, err)
	require.NoError(t, server.Kill())
	short := connect(t, client.Config{URL: natsURL, Attempts: 1})
	_, err = short.Cache().Get(ctx, messages.CacheGet{Key: "k"})
	requireCode(t, messages.CodeUnavailable, err)
	answered := make(chan error, 1)
	go func() {
		_, err := c.Cache().Set(client.WithIdempotencyKey(ctx, "key"), messages.CacheSet{Key: "k", Value: []byte("2")})
		answered <- err
	}()
	require.NoError(t, server.Restart(ctx))
	require.NoError(t, <-answered)
	reply, err := c.Cache().Get(ctx, messages.CacheGet{Key: "k"})
	require.NoError(t, err)
	require.Equal(t, "2", string(reply.Value))
}
