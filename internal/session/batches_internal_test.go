package session

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// counted is a reply that counts its steps.
type counted struct {
	Steps int
	More  bool
}

// TestBatchesStopInTime: work without end stops when 80 % of the deadline have passed, says that there is more, and has told of
// every batch; with an idempotency key all of it is one transaction.
func TestBatchesStopInTime(t *testing.T) {
	t.Parallel()
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: devtest.Database(t), Program: "test", Instance: "one", Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	for _, key := range []string{"", "k"} {
		ctx, cancel := context.WithTimeout(messages.WithCall(t.Context(), &messages.Call{IdempotencyKey: key}), time.Second)
		told, steps := 0, 0
		reply, err := inBatches(ctx, pool, batches[counted]{
			tenant: "acme", timeout: time.Hour,
			step: func(_ context.Context, _ postgres.Querier, reply *counted) (bool, error) {
				steps++
				reply.Steps++
				return true, nil
			},
			setMore:   func(reply *counted, more bool) { reply.More = more },
			committed: func() { told++ },
		})
		require.NoError(t, err)
		require.NoError(t, ctx.Err(), "there is time for the answer")
		cancel()
		require.Equal(t, counted{steps, true}, reply)
		require.Greater(t, steps, 1)
		require.Equal(t, map[string]int{"": steps, "k": 1}[key], told)
	}
}

// TestBatchesFail: a step that fails is not counted, and not told of; what was committed before it is.
func TestBatchesFail(t *testing.T) {
	t.Parallel()
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: devtest.Database(t), Program: "test", Instance: "one", Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	told := 0
	reply, err := inBatches(t.Context(), pool, batches[counted]{
		tenant: "acme", timeout: time.Minute,
		step: func(_ context.Context, _ postgres.Querier, reply *counted) (bool, error) {
			reply.Steps++
			if reply.Steps == 3 {
				return true, errors.New("broken")
			}
			return true, nil
		},
		setMore:   func(reply *counted, more bool) { reply.More = more },
		committed: func() { told++ },
	})
	require.ErrorContains(t, err, "broken")
	require.Equal(t, counted{Steps: 2}, reply)
	require.Equal(t, 2, told)
}
