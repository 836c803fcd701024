package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// stepped is a reply that counts its steps.
type stepped struct {
	Steps int
	More  bool
}

// TestBatchesStopInTime: work without end stops when 80 % of the deadline have passed, says that there is more, and has told of
// every batch; with an idempotency key all of it is one transaction.
func TestBatchesStopInTime(t *testing.T) {
	t.Parallel()
	pool := openPool(t, devtest.Database(t), 4)
	for _, key := range []string{"", "k"} {
		ctx, cancel := context.WithTimeout(messages.WithCall(t.Context(), &messages.Call{IdempotencyKey: key}), time.Second)
		told, steps := 0, 0
		reply, err := postgres.InBatches(ctx, pool, postgres.Batches[stepped]{
			Tenant: "acme", Timeout: time.Hour,
			Step: func(_ context.Context, _ postgres.Querier, reply *stepped) (bool, error) {
				steps++
				reply.Steps++
				return true, nil
			},
			SetMore:   func(reply *stepped, more bool) { reply.More = more },
			Committed: func() { told++ },
		})
		require.NoError(t, err)
		require.NoError(t, ctx.Err(), "there is time for the answer")
		cancel()
		require.Equal(t, stepped{steps, true}, reply)
		require.Greater(t, steps, 1)
		require.Equal(t, map[string]int{"": steps, "k": 1}[key], told)
	}
}

// TestBatchesFail: a step that fails is not stepped, and not told of; what was committed before it is.
func TestBatchesFail(t *testing.T) {
	t.Parallel()
	pool := openPool(t, devtest.Database(t), 4)
	told := 0
	reply, err := postgres.InBatches(t.Context(), pool, postgres.Batches[stepped]{
		Tenant: "acme", Timeout: time.Minute,
		Step: func(_ context.Context, _ postgres.Querier, reply *stepped) (bool, error) {
			reply.Steps++
			if reply.Steps == 3 {
				return true, errors.New("broken")
			}
			return true, nil
		},
		SetMore:   func(reply *stepped, more bool) { reply.More = more },
		Committed: func() { told++ },
	})
	require.ErrorContains(t, err, "broken")
	require.Equal(t, stepped{Steps: 2}, reply)
	require.Equal(t, 2, told)
}
