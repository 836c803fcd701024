package jobs

import (
	"context"
	"time"

	"github.com/riverqueue/river"

	"github.com/ai-cherry/morello/internal/postgres"
)

// batchedPause is how long a job that ran out of time lets others of its queue go first.
const batchedPause = time.Second

// AddBatched adds a kind of job that somebody inserts: begin returns the step that is called, each time in a transaction of
// its own, until there is no more to do. A job that needs longer than one run goes on in another; one that fails, or whose
// process dies, is run again by River, up to 25 times within three weeks. So a step finds out from the data what is left to
// do, and nothing of it may be wrong when it is done twice.
func AddBatched[A Args](set *Set, begin func(args A) Step) {
	river.AddWorker(set.workers, river.WorkFunc(func(ctx context.Context, job *river.Job[A]) error {
		more, err := set.runner.runBatches(ctx, begin(job.Args))
		if err == nil && more {
			return river.JobSnooze(batchedPause)
		}
		return err
	}))
}

// runBatches works until there is no more to do, or time is up, and does one batch at least.
func (r *runner) runBatches(ctx context.Context, step Step) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, maxRun)
	defer cancel()
	for start := time.Now(); ; {
		begun := time.Now()
		more, err = postgres.InTx(ctx, r.pool, "", func(ctx context.Context, db postgres.Querier) (bool, error) {
			_, more, err := step(ctx, db)
			return more, err
		})
		if err != nil || !more {
			return more, err
		}
		rest(ctx, time.Since(begun)*restShare)
		if time.Since(start) > r.batchedTime {
			return true, nil
		}
	}
}
