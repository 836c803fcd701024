package client_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/client"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

type plan struct {
	Steps []string `json:"steps"`
}

// TestComputeOnce: 64 callers of one key compute once, and each has a copy of its own.
func TestComputeOnce(t *testing.T) {
	t.Parallel()
	c := connect(t, client.Config{URL: startStack(t)})
	var computed atomic.Int64
	var crowd sync.WaitGroup
	for range 64 {
		crowd.Go(func() {
			got, err := client.GetOrCompute(t.Context(), c, client.ComputeOptions{Key: "plan"}, func(context.Context) (plan, error) {
				computed.Add(1)
				return plan{Steps: []string{"read", "think"}}, nil
			})
			if err != nil || len(got.Steps) != 2 || got.Steps[0] != "read" {
				t.Errorf("%v, %v", got, err)
				return
			}
			got.Steps[0] = "mine" // the race detector would see it shared
		})
	}
	crowd.Wait()
	require.EqualValues(t, 1, computed.Load())
	reply, err := c.Cache().Get(t.Context(), messages.CacheGet{Key: "plan"})
	require.NoError(t, err)
	require.Equal(t, `{"steps":["read","think"]}`, string(reply.Value))
	require.InDelta(t, messages.DefaultTTL.Seconds(), *reply.ExpiresInSeconds, 60)
}

func TestComputeKeepsToItsOptions(t *testing.T) {
	t.Parallel()
	c := connect(t, client.Config{URL: startStack(t)})
	options := client.ComputeOptions{Key: "k", TTL: time.Minute, Tags: []string{"t"}}
	// The key belongs to a call of the caller's; used for the set of GetOrCompute, the caller's own would be conflict.
	ctx := client.WithIdempotencyKey(t.Context(), "key")
	got, err := client.GetOrCompute(ctx, c, options, func(context.Context) (int, error) { return 7, nil })
	require.NoError(t, err)
	require.Equal(t, 7, got)
	_, err = c.Cache().Increment(ctx, messages.CacheIncrement{Key: "counter"})
	require.NoError(t, err)
	tagged, err := c.Cache().GetByTags(t.Context(), messages.CacheGetByTags{Tags: []string{"t"}})
	require.NoError(t, err)
	require.Len(t, tagged.Entries, 1)
	reply, err := c.Cache().Get(t.Context(), messages.CacheGet{Key: "k"})
	require.NoError(t, err)
	require.InDelta(t, 60, *reply.ExpiresInSeconds, 30)

	for field, bad := range map[string]client.ComputeOptions{
		"key": {}, "ttl_seconds": {Key: "k", TTL: -1}, "tags[0]": {Key: "k", Tags: []string{""}},
		"stale_seconds": {Key: "k", Stale: messages.MaxStale + 1},
	} {
		_, err := client.GetOrCompute(t.Context(), c, bad, never[int](t))
		require.Equal(t, field, requireCode(t, messages.CodeInvalid, err).Field)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	_, err = client.GetOrCompute(gone, c, client.ComputeOptions{Key: "other"}, never[int](t))
	requireCode(t, messages.CodeDeadlineExceeded, err)
}

// never is a computation that must not happen.
func never[V any](t *testing.T) func(context.Context) (V, error) {
	return func(context.Context) (value V, err error) {
		t.Error("computed")
		return value, nil
	}
}

func TestNullIsAHit(t *testing.T) {
	t.Parallel()
	c := connect(t, client.Config{URL: startStack(t)})
	_, err := c.Cache().Set(t.Context(), messages.CacheSet{Key: "k", Value: []byte("null")})
	require.NoError(t, err)
	got, err := client.GetOrCompute(t.Context(), c, client.ComputeOptions{Key: "k"}, never[*plan](t))
	require.NoError(t, err)
	require.Nil(t, got)
}

// TestComputeError: all who wait get the error as it is, and the next caller computes again.
func TestComputeError(t *testing.T) {
	t.Parallel()
	c := connect(t, client.Config{URL: startStack(t)})
	errModel := errors.New("the model is busy")
	var computed atomic.Int64
	computing, finish := make(chan struct{}), make(chan struct{})
	options := client.ComputeOptions{Key: "k"}
	failing := func(context.Context) (int, error) {
		computed.Add(1)
		close(computing)
		<-finish
		return 0, errModel
	}
	results := make(chan error, 2)
	go func() { _, err := client.GetOrCompute(t.Context(), c, options, failing); results <- err }()
	<-computing
	joining := &announcing{Context: t.Context(), waits: make(chan struct{})}
	go func() { _, err := client.GetOrCompute(joining, c, options, failing); results <- err }()
	<-joining.waits
	close(finish)
	require.ErrorIs(t, <-results, errModel)
	require.ErrorIs(t, <-results, errModel)
	require.EqualValues(t, 1, computed.Load())
	got, err := client.GetOrCompute(t.Context(), c, options, func(context.Context) (int, error) { return 7, nil })
	require.NoError(t, err)
	require.Equal(t, 7, got)
}

// announcing is a context that tells when somebody begins to wait for its end.
type announcing struct {
	context.Context
	once  sync.Once
	waits chan struct{}
}

func (a *announcing) Done() <-chan struct{} {
	a.once.Do(func() { close(a.waits) })
	return a.Context.Done()
}

// TestACallerLeaves: the first caller, whose function runs, does not take it along.
func TestACallerLeaves(t *testing.T) {
	t.Parallel()
	c := connect(t, client.Config{URL: startStack(t)})
	options := client.ComputeOptions{Key: "k"}
	computing, finish := make(chan struct{}), make(chan struct{})
	type mark struct{}
	leaving, leave := context.WithCancel(context.WithValue(t.Context(), mark{}, "first"))
	left := make(chan error, 1)
	go func() {
		_, err := client.GetOrCompute(leaving, c, options, func(ctx context.Context) (any, error) {
			close(computing)
			<-finish
			return ctx.Value(mark{}), ctx.Err()
		})
		left <- err
	}()
	<-computing
	joining := &announcing{Context: t.Context(), waits: make(chan struct{})}
	stayed := make(chan any, 1)
	go func() {
		got, err := client.GetOrCompute(joining, c, options, never[any](t))
		if err != nil {
			t.Error(err)
		}
		stayed <- got
	}()
	<-joining.waits
	leave()
	err := <-left
	requireCode(t, messages.CodeDeadlineExceeded, err)
	require.ErrorIs(t, err, context.Canceled)
	close(finish)
	require.Equal(t, "first", <-stayed)
}

// TestComputeWithoutACache: the value is computed, and the failures are logged.
func TestComputeWithoutACache(t *testing.T) {
	t.Parallel()
	log := &logBuffer{}
	c := connect(t, client.Config{URL: devtest.NATS(t).URL(), Attempts: 1, Log: slog.New(slog.NewTextHandler(log, nil))})
	got, err := client.GetOrCompute(t.Context(), c, client.ComputeOptions{Key: "k"}, func(context.Context) (int, error) { return 7, nil })
	require.NoError(t, err)
	require.Equal(t, 7, got)
	require.Contains(t, log.String(), "no worker is listening")
	require.Contains(t, log.String(), "the cache is of no help")
}

func TestComputeWhatTheCacheRefuses(t *testing.T) {
	t.Parallel()
	log := &logBuffer{}
	c := connect(t, client.Config{URL: startStack(t), Log: slog.New(slog.NewTextHandler(log, nil))})
	large := strings.Repeat("v", messages.MaxCacheValueBytes)
	got, err := client.GetOrCompute(t.Context(), c, client.ComputeOptions{Key: "k"}, func(context.Context) (string, error) { return large, nil })
	require.NoError(t, err)
	require.Equal(t, len(large), len(got))
	require.Contains(t, log.String(), "too_large")
}

// TestComputeOverAnotherType: a value of an older program is replaced; one that never fits is an error.
func TestComputeOverAnotherType(t *testing.T) {
	t.Parallel()
	c := connect(t, client.Config{URL: startStack(t)})
	_, err := c.Cache().Set(t.Context(), messages.CacheSet{Key: "k", Value: []byte(`"old"`)})
	require.NoError(t, err)
	got, err := client.GetOrCompute(t.Context(), c, client.ComputeOptions{Key: "k"}, func(context.Context) (plan, error) { return plan{Steps: []string{"new"}}, nil })
	require.NoError(t, err)
	require.Equal(t, []string{"new"}, got.Steps)
	got, err = client.GetOrCompute(t.Context(), c, client.ComputeOptions{Key: "k"}, never[plan](t))
	require.NoError(t, err)
	require.Equal(t, []string{"new"}, got.Steps)

	_, err = client.GetOrCompute(t.Context(), c, client.ComputeOptions{Key: "f"}, func(context.Context) (func(), error) { return func() {}, nil })
	requireCode(t, messages.CodeInvalid, err)
}

// TestJoinedByAnotherType: whoever waits with a type that the value does not fit gets an error, and harms nobody.
func TestJoinedByAnotherType(t *testing.T) {
	t.Parallel()
	c := connect(t, client.Config{URL: startStack(t)})
	options := client.ComputeOptions{Key: "k"}
	computing, finish := make(chan struct{}), make(chan struct{})
	text, number := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := client.GetOrCompute(t.Context(), c, options, func(context.Context) (string, error) {
			close(computing)
			<-finish
			return "seven", nil
		})
		text <- err
	}()
	<-computing
	joining := &announcing{Context: t.Context(), waits: make(chan struct{})}
	go func() { _, err := client.GetOrCompute(joining, c, options, never[int](t)); number <- err }()
	<-joining.waits
	close(finish)
	require.NoError(t, <-text)
	requireCode(t, messages.CodeInvalid, <-number)
}

func TestComputePanics(t *testing.T) {
	t.Parallel()
	c := connect(t, client.Config{URL: startStack(t)})
	_, err := client.GetOrCompute(t.Context(), c, client.ComputeOptions{Key: "k"}, func(context.Context) (int, error) { panic("boom") })
	requireCode(t, messages.CodeInternal, err)
	require.ErrorContains(t, err, "boom")
}

func TestComputeTimeout(t *testing.T) {
	t.Parallel()
	c := connect(t, client.Config{URL: startStack(t)})
	options := client.ComputeOptions{Key: "k", Timeout: 50 * time.Millisecond}
	_, err := client.GetOrCompute(t.Context(), c, options, func(ctx context.Context) (int, error) {
		<-ctx.Done()
		return 0, context.Cause(ctx)
	})
	require.EqualError(t, err, "compute timeout (50ms) exceeded")
}

// TestCloseAndComputations: Close waits for a computation, or cancels it when it can wait no longer.
func TestCloseAndComputations(t *testing.T) {
	t.Parallel()
	natsURL := startStack(t)
	for name, patient := range map[string]bool{"waits": true, "cancels": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := connect(t, client.Config{URL: natsURL})
			computing, finish := make(chan struct{}), make(chan struct{})
			result := make(chan error, 1)
			go func() {
				_, err := client.GetOrCompute(t.Context(), c, client.ComputeOptions{Key: name}, func(ctx context.Context) (int, error) {
					close(computing)
					select {
					case <-finish:
						return 7, nil
					case <-ctx.Done():
						return 0, ctx.Err()
					}
				})
				result <- err
			}()
			<-computing
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			closed := make(chan error, 1)
			if patient {
				go func() { closed <- c.Close(ctx) }()
				require.Eventually(t, func() bool {
					_, err := c.Cache().Get(t.Context(), messages.CacheGet{Key: "k"})
					return err != nil
				}, 10*time.Second, time.Millisecond)
				close(finish)
				require.NoError(t, <-result)
				require.NoError(t, <-closed)
				reply, err := connect(t, client.Config{URL: natsURL}).Cache().Get(t.Context(), messages.CacheGet{Key: name})
				require.NoError(t, err)
				require.Equal(t, "7", string(reply.Value))
				return
			}
			cancel()
			require.ErrorIs(t, c.Close(ctx), context.Canceled)
			require.ErrorIs(t, <-result, context.Canceled)
		})
	}
}
