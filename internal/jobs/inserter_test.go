package jobs

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/postgres"
)

type testArgs struct {
	ID string `json:"id"`
}

func (testArgs) Kind() string { return "test_job" }

// TestInserter: a job is there exactly if the transaction commits.
func TestInserter(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	inserter, err := NewInserter(f.runner.log)
	require.NoError(t, err)
	insert := func(ctx context.Context, db postgres.Querier) (int64, error) {
		return inserter.Insert(ctx, db, testArgs{"a"})
	}
	id, err := postgres.InTx(t.Context(), f.runner.pool, "", insert)
	require.NoError(t, err)
	_, err = postgres.InTx(t.Context(), f.runner.pool, "", func(ctx context.Context, db postgres.Querier) (int64, error) {
		if _, err := insert(ctx, db); err != nil {
			return 0, err
		}
		return 0, errors.New("no")
	})
	require.EqualError(t, err, "no")
	_, err = postgres.InStatement(t.Context(), f.runner.pool, "", insert) // no transaction
	require.ErrorContains(t, err, "in a transaction only")
	var ids []int64
	require.NoError(t, f.db.QueryRow(t.Context(), `SELECT array_agg(id) FROM river.river_job WHERE kind = 'test_job' AND args = '{"id":"a"}'`).Scan(&ids))
	require.Equal(t, []int64{id}, ids)
}

// TestRunBatches: each step is a transaction of its own, and what was committed before a failure stays.
func TestRunBatches(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	calls := 0
	step := func(ctx context.Context, db postgres.Querier) (Counts, bool, error) {
		calls++
		if _, err := db.Exec(ctx, `INSERT INTO morello.cache_counter (tenant) VALUES ($1)`, string(rune('a'+calls))); err != nil {
			return nil, false, err
		}
		if calls == 3 {
			return nil, false, errors.New("died")
		}
		return nil, calls < 5, nil
	}
	f.runner.batchedTime = time.Minute
	attempt := f.running(t)
	_, err := f.runner.runBatches(t.Context(), attempt, step)
	require.EqualError(t, err, "died")
	more, err := f.runner.runBatches(t.Context(), attempt, step)
	require.NoError(t, err)
	require.False(t, more)
	var done int
	require.NoError(t, f.db.QueryRow(t.Context(), `SELECT count(*) FROM morello.cache_counter`).Scan(&done))
	require.Equal(t, 4, done)
}

// TestBatchedGoesOn: a job that runs out of time goes on in another run, which is no further attempt.
func TestBatchedGoesOn(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	set := NewSet(f.runner.pool, nil, f.runner.log)
	set.runner.batchedTime = 0 // one batch in a run
	var left atomic.Int32
	left.Store(2)
	AddBatched(set, func(testArgs) Step {
		return func(context.Context, postgres.Querier) (Counts, bool, error) { return nil, left.Add(-1) > 0, nil }
	})
	client, err := Start(t.Context(), Config{DatabaseURL: f.url, Instance: "one", Log: f.runner.log}, set)
	require.NoError(t, err)
	defer func() { require.NoError(t, client.Stop(context.WithoutCancel(t.Context()))) }()
	inserter, err := NewInserter(f.runner.log)
	require.NoError(t, err)
	id, err := postgres.InTx(t.Context(), f.runner.pool, "", func(ctx context.Context, db postgres.Querier) (int64, error) {
		return inserter.Insert(ctx, db, testArgs{"a"})
	})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		var done bool
		err := f.db.QueryRow(t.Context(), `SELECT state = 'completed' FROM river.river_job WHERE id = $1`, id).Scan(&done)
		return err == nil && done
	}, time.Minute, 20*time.Millisecond)
	require.Zero(t, left.Load())
}
