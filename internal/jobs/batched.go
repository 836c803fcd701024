package jobs

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// batchedPause is how long a job that ran out of time lets others of its queue go first.
const batchedPause = time.Second

// AddBatched adds a kind of job that somebody inserts: begin returns the step that is called, each time in a transaction of
// its own, until there is no more to do. A job that needs longer than one run goes on in another; one that fails, or whose
// process dies, is run again by River, up to 25 times within three weeks, unless its failure is Final. So a step finds out from the data what is left to
// do, and nothing of it may be wrong when it is done twice. When a job is cancelled the batch at work is rolled back.
//
// What the steps count, Report and SetResult is committed with their batches, and shown by system.job_get.
func AddBatched[A Args](set *Set, begin func(args A) Step) {
	river.AddWorker(set.workers, river.WorkFunc(func(ctx context.Context, job *river.Job[A]) error {
		noted, err := readNote(job.Metadata)
		if err != nil {
			return err
		}
		attempt := &run{jobID: job.ID, attempt: job.Attempt, note: noted}
		more, err := set.runner.runBatches(ctx, attempt, begin(job.Args))
		switch {
		case errors.Is(context.Cause(ctx), river.ErrJobCancelledRemotely):
			return err // of the context: River knows why
		case errors.As(err, new(finalError)):
			return river.JobCancel(set.runner.presentable(err, job.Kind, job.ID))
		case err != nil:
			return set.runner.presentable(err, job.Kind, job.ID)
		case more:
			return river.JobSnooze(batchedPause)
		}
		return nil
	}))
}

// runBatches works until there is no more to do, or time is up, and does one batch at least.
func (r *runner) runBatches(ctx context.Context, attempt *run, step Step) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, maxRun)
	defer cancel()
	for start := time.Now(); ; {
		begun := time.Now()
		if more, err = r.runNoted(ctx, attempt, step); err != nil || !more {
			return more, err
		}
		rest(ctx, time.Since(begun)*longestRest)
		if time.Since(start) > r.batchedTime {
			return true, nil
		}
	}
}

// runNoted runs one step and, in the same transaction, notes what it did.
func (r *runner) runNoted(ctx context.Context, attempt *run, step Step) (more bool, err error) {
	b := &batch{run: attempt, note: attempt.note}
	ctx = context.WithValue(ctx, batchKey{}, b)
	more, err = postgres.InTx(ctx, r.pool, "", func(ctx context.Context, db postgres.Querier) (bool, error) {
		did, more, err := step(ctx, db)
		if err != nil {
			return false, err
		}
		b.note.add(did)
		return more, attempt.write(ctx, db, b.note)
	})
	if err == nil {
		attempt.note = b.note
	}
	return more, err
}

// presentable makes of a failure what River may keep and job_get show: "<code>: <message>", without what lies behind it. That is
// logged under the id that the message of an internal failure names.
func (r *runner) presentable(err error, kind string, jobID int64) error {
	failure := *messages.AsError(err)
	if failure.Code == messages.CodeInternal {
		failure.Details.ErrorID = uuid.NewString()
		failure.Message = "internal error, logged under " + failure.Details.ErrorID
	}
	r.log.Error("a job failed", "job", kind, "job_id", jobID, "error_id", failure.Details.ErrorID, "error", err)
	return errors.New(failure.Error())
}
