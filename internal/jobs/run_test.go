package jobs

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// tenantArgs are the arguments of a tenant's job.
type tenantArgs struct {
	Tenant string `json:"tenant"`
}

func (tenantArgs) Kind() string { return "test_tenant_job" }

// insert inserts a job.
func (f fixture) insert(t *testing.T, args Args) (jobID int64) {
	t.Helper()
	inserter, err := NewInserter(f.runner.log)
	require.NoError(t, err)
	jobID, err = postgres.InTx(t.Context(), f.runner.pool, "", func(ctx context.Context, db postgres.Querier) (int64, error) {
		return inserter.Insert(ctx, db, args)
	})
	require.NoError(t, err)
	return jobID
}

// running returns the first attempt of a job that no River runs.
func (f fixture) running(t *testing.T) *run {
	t.Helper()
	id := f.insert(t, tenantArgs{"acme"})
	_, err := f.db.Exec(t.Context(), `UPDATE river.river_job SET state = 'running', attempt = 1, attempted_at = now() WHERE id = $1`, id)
	require.NoError(t, err)
	return &run{jobID: id, attempt: 1}
}

func (f fixture) job(t *testing.T, id int64) messages.Job {
	t.Helper()
	job, err := Get(t.Context(), f.db, messages.TenantAdmin, id)
	require.NoError(t, err)
	return job
}

// start runs jobs of the set until the test ends.
func (f fixture) start(t *testing.T, set *Set) {
	t.Helper()
	client, err := Start(t.Context(), Config{DatabaseURL: f.url, Instance: "one", Log: f.runner.log}, set)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Stop(context.WithoutCancel(t.Context()))) })
}

// waitFor waits until a job is in a state, and returns it.
func (f fixture) waitFor(t *testing.T, id int64, state messages.JobState) (job messages.Job) {
	t.Helper()
	require.Eventually(t, func() bool {
		job = f.job(t, id)
		return job.State == state
	}, time.Minute, 10*time.Millisecond)
	return job
}

// TestProgress: what a step counts, reports and sets is there when its batch is committed, and not a moment before; what a batch
// noted that failed is not.
func TestProgress(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	attempt := f.running(t)
	step := func(did Counts, note func(ctx context.Context), err error) Step {
		return func(ctx context.Context, _ postgres.Querier) (Counts, bool, error) {
			note(ctx)
			return did, false, err
		}
	}
	nothing := func(context.Context) {}
	do := func(s Step) {
		_, _ = f.runner.runNoted(t.Context(), attempt, s)
	}
	require.Nil(t, f.job(t, attempt.jobID).Progress)
	do(step(Counts{"deleted": 500}, nothing, nil))
	do(step(Counts{"deleted": 30, "marked": 1}, nothing, nil))
	require.Equal(t, &messages.JobProgress{Done: 531}, f.job(t, attempt.jobID).Progress)
	require.Nil(t, f.job(t, attempt.jobID).Result, "it is not completed")
	do(step(nil, func(ctx context.Context) {
		Report(ctx, messages.JobProgress{Done: 1, Total: 4, Unit: "chunks"})
		require.Equal(t, &messages.JobProgress{Done: 531}, f.job(t, attempt.jobID).Progress)
		id, n := Running(ctx)
		require.Equal(t, attempt.jobID, id)
		require.Equal(t, 1, n)
	}, nil))
	do(step(Counts{"deleted": 9}, func(ctx context.Context) {
		Report(ctx, messages.JobProgress{Done: 4})
		require.NoError(t, SetResult(ctx, "of a batch that failed"))
	}, errors.New("died")))
	require.Equal(t, &messages.JobProgress{Done: 1, Total: 4, Unit: "chunks"}, f.job(t, attempt.jobID).Progress)
	_, err := f.db.Exec(t.Context(), `UPDATE river.river_job SET state = 'completed', finalized_at = now() WHERE id = $1`, attempt.jobID)
	require.NoError(t, err)
	require.JSONEq(t, `{"deleted":530,"marked":1}`, string(f.job(t, attempt.jobID).Result))

	_, err = f.runner.runNoted(t.Context(), attempt, step(Counts{"deleted": 1}, nothing, nil))
	require.ErrorIs(t, err, errGivenUp)
	require.JSONEq(t, `{"deleted":530,"marked":1}`, string(f.job(t, attempt.jobID).Result))
}

// TestWhoWakesFromTheDeadDoesNoBatch: River has given the job to another attempt; what the first one does is rolled back.
func TestWhoWakesFromTheDeadDoesNoBatch(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	attempt := f.running(t)
	_, err := f.db.Exec(t.Context(), `UPDATE river.river_job SET attempt = 2 WHERE id = $1`, attempt.jobID)
	require.NoError(t, err)
	_, err = f.runner.runNoted(t.Context(), attempt, func(ctx context.Context, db postgres.Querier) (Counts, bool, error) {
		_, err := db.Exec(ctx, `INSERT INTO morello.cache_counter (tenant) VALUES ('effect')`)
		return nil, false, err
	})
	require.ErrorIs(t, err, errGivenUp)
	var effects int
	require.NoError(t, f.db.QueryRow(t.Context(), `SELECT count(*) FROM morello.cache_counter`).Scan(&effects))
	require.Zero(t, effects)
}

// TestNotesOutliveRuns: a job in several runs counts on, and its own result is what is shown.
func TestNotesOutliveRuns(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	set := NewSet(f.runner.pool, nil, f.runner.log)
	set.runner.batchedTime = 0 // one batch in a run
	batches := 0
	AddBatched(set, func(tenantArgs) Step {
		return func(ctx context.Context, _ postgres.Querier) (Counts, bool, error) {
			batches++
			if batches == 3 {
				return Counts{"done": 2}, false, SetResult(ctx, map[string]any{"snapshot_id": "s"})
			}
			return Counts{"done": 2}, true, nil
		}
	})
	f.start(t, set)
	job := f.waitFor(t, f.insert(t, tenantArgs{"acme"}), messages.JobCompleted)
	require.Equal(t, &messages.JobProgress{Done: 6}, job.Progress)
	require.JSONEq(t, `{"snapshot_id":"s"}`, string(job.Result))
	require.Equal(t, "acme", job.Tenant)
	require.Nil(t, job.Failure)
	require.NotNil(t, job.FinalizedAt)
}

// TestFailures: a failure shows its code and its message, and nothing of what lies behind it.
func TestFailures(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, c := range []struct {
		step Step
		code messages.Code
		text string
	}{
		{fail(messages.Invalid("data_transfer_id", "part 2 is missing")), messages.CodeInvalid, "data_transfer_id: part 2 is missing"},
		{fail(errors.New("password=hunter2")), messages.CodeInternal, "internal error, logged under "},
		{func(context.Context, postgres.Querier) (Counts, bool, error) { panic("hunter2") }, messages.CodeInternal, "the attempt ended without a word, or its process died"},
	} {
		set := NewSet(f.runner.pool, nil, f.runner.log)
		AddBatched(set, func(tenantArgs) Step { return c.step })
		client, err := Start(t.Context(), Config{DatabaseURL: f.url, Instance: "one", Log: f.runner.log}, set)
		require.NoError(t, err)
		id := f.insert(t, tenantArgs{"acme"})
		require.Eventually(t, func() bool { return f.job(t, id).Failure != nil }, time.Minute, 10*time.Millisecond)
		require.NoError(t, client.Stop(t.Context()))
		failure := f.job(t, id).Failure
		require.Equal(t, c.code, failure.Code)
		require.True(t, strings.HasPrefix(failure.Message, c.text), failure.Message)
		require.NotContains(t, failure.Message, "hunter2")
		require.WithinDuration(t, time.Now(), failure.At, time.Minute)
		_, err = f.db.Exec(t.Context(), `DELETE FROM river.river_job`)
		require.NoError(t, err)
	}
}

func fail(err error) Step {
	return func(context.Context, postgres.Querier) (Counts, bool, error) { return nil, false, err }
}

// TestResultsAreBounded: they are read with the job.
func TestResultsAreBounded(t *testing.T) {
	t.Parallel()
	require.NoError(t, SetResult(t.Context(), strings.Repeat("x", maxResultBytes-2)))
	require.ErrorContains(t, SetResult(t.Context(), strings.Repeat("x", maxResultBytes-1)), "65537 bytes")
	require.Error(t, SetResult(t.Context(), func() {}))
}

// TestCancelOfARunningJob: it ends with the batch at work, which is rolled back; what was done before stays.
func TestCancelOfARunningJob(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	set := NewSet(f.runner.pool, nil, f.runner.log)
	set.runner.batchedTime = time.Minute
	begun, goOn := make(chan struct{}, 1000), make(chan struct{})
	AddBatched(set, func(tenantArgs) Step {
		return func(ctx context.Context, _ postgres.Querier) (Counts, bool, error) {
			begun <- struct{}{}
			select {
			case <-goOn:
			case <-ctx.Done(): // River has heard of it
			}
			return Counts{"done": 1}, true, nil
		}
	})
	f.start(t, set)
	id := f.insert(t, tenantArgs{"acme"})
	<-begun
	goOn <- struct{}{}
	<-begun
	inserter, err := NewInserter(f.runner.log)
	require.NoError(t, err)
	_, err = postgres.InTx(t.Context(), f.runner.pool, "", func(ctx context.Context, db postgres.Querier) (struct{}, error) {
		return struct{}{}, inserter.Cancel(ctx, db, id)
	})
	require.NoError(t, err)
	job := f.job(t, id)
	require.Equal(t, messages.JobRunning, job.State)
	require.True(t, job.CancelRequested)
	job = f.waitFor(t, id, messages.JobCancelled)
	require.Nil(t, job.Failure)
	require.Nil(t, job.Result)
	require.False(t, job.CancelRequested)
	require.EqualValues(t, 1, job.Progress.Done)
}
