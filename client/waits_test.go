package client_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/client"
	"github.com/ai-cherry/morello/messages"
)

// asks is a computation that needs the value of another key.
func asks(c *client.Client, key string, compute func(context.Context) (int, error)) func(context.Context) (int, error) {
	return func(ctx context.Context) (int, error) {
		value, err := client.GetOrCompute(ctx, c, client.ComputeOptions{Key: key}, compute)
		return value + 1, err
	}
}

// TestCirclesOfComputations: a computation that would wait for itself is an error at once that names the keys, whatever way it takes. The
// next caller computes again.
func TestCirclesOfComputations(t *testing.T) {
	t.Parallel()
	c := connect(t, client.Config{URL: startStack(t)})
	for n := 1; n <= 4; n++ {
		key := func(i int) string { return fmt.Sprintf("%d-%d", n, i%n) }
		var compute func(i int) func(context.Context) (int, error)
		compute = func(i int) func(context.Context) (int, error) {
			return func(ctx context.Context) (int, error) { return asks(c, key(i+1), compute(i+1))(ctx) }
		}
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		defer cancel()
		_, err := client.GetOrCompute(ctx, c, client.ComputeOptions{Key: key(0)}, compute(0))
		require.Equal(t, "key", requireCode(t, messages.CodeInvalid, err).Field)
		for i := range n {
			require.ErrorContains(t, err, fmt.Sprintf("%q", key(i)))
		}
		got, err := client.GetOrCompute(ctx, c, client.ComputeOptions{Key: key(0)}, asks(c, key(1)+" free", gives(7)))
		require.NoError(t, err)
		require.Equal(t, 8, got)
	}
}

// TestACircleOfTwoCallers: each has begun to compute a key when it asks for the other's. One is refused, and its failure is the other's.
func TestACircleOfTwoCallers(t *testing.T) {
	t.Parallel()
	c := connect(t, client.Config{URL: startStack(t)})
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	computing := make(chan struct{}, 2)
	both := make(chan struct{})
	results := map[string]<-chan outcome{}
	for key, other := range map[string]string{"a": "b", "b": "a"} {
		results[key] = call(ctx, c, client.ComputeOptions{Key: key}, func(ctx context.Context) (int, error) {
			computing <- struct{}{}
			<-both
			return asks(c, other, never[int](t))(ctx)
		})
	}
	<-computing
	<-computing
	close(both)
	for _, result := range results {
		requireCode(t, messages.CodeInvalid, (<-result).err)
	}
}

// TestComputationsThatShareAKey: many that need the same key, and one that needs it twice, are no circle.
func TestComputationsThatShareAKey(t *testing.T) {
	t.Parallel()
	c := connect(t, client.Config{URL: startStack(t)})
	shared := newBlocked()
	var results []<-chan outcome
	for i := range 8 {
		results = append(results, call(t.Context(), c, client.ComputeOptions{Key: fmt.Sprint("k", i)}, func(ctx context.Context) (int, error) {
			first := call(ctx, c, client.ComputeOptions{Key: "shared"}, shared.compute)
			second, err := asks(c, "shared", shared.compute)(ctx)
			return (<-first).value + second, err
		}))
	}
	shared.waitForStart(t)
	shared.finish <- outcome{value: 1}
	for _, result := range results {
		require.Equal(t, outcome{value: 3}, <-result)
	}
	require.EqualValues(t, 1, shared.computed.Load())
}

// TestACircleThatCannotBeSeen: when a computation does not pass its context on, who waits for it computes beside it after a while, as
// another process would, and both end.
func TestACircleThatCannotBeSeen(t *testing.T) {
	t.Parallel()
	c := connect(t, client.Config{URL: startStack(t)})
	options := client.ComputeOptions{Key: "k", Timeout: time.Second}
	started := time.Now()
	got, err := client.GetOrCompute(t.Context(), c, client.ComputeOptions{Key: "k"}, func(context.Context) (int, error) {
		value, err := client.GetOrCompute(t.Context(), c, options, gives(7))
		return value + 1, err
	})
	require.NoError(t, err)
	require.Equal(t, 8, got)
	require.Less(t, time.Since(started), soon)
	reply, err := c.Cache().Get(t.Context(), messages.CacheGet{Key: "k"})
	require.NoError(t, err)
	require.Equal(t, "8", string(reply.Value))
}
