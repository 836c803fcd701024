package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

const (
	// maxTick is how long a due kind waits at most for the next tick.
	maxTick = time.Minute
	// leaseTime is how long a holder that died blocks its successor. A batch must take less.
	leaseTime = 45 * time.Second
	// maxRun bounds one run; what is left is done at the next tick. It is well below JobTimeout.
	maxRun = 50 * time.Second
	// longestRest is how many times as long as a batch took a run rests after it, for the sake of requests: without rests the
	// p99 of gets was five times the undisturbed one on two cores ("morello bench cleanup", docs/benchmarks.md).
	longestRest = 9
	// patientRuns is how many runs in a row may leave something before rests become shorter: each one more halves them, down to
	// none, until a run gets through. What comes in faster than rested runs clear away would otherwise pile up for good.
	patientRuns = 3
)

// Periodic describes a job that comes round by itself.
type Periodic struct {
	// Every is the time from the start of one run to the start of the next.
	Every time.Duration
	// Event is published for each run that did something or failed.
	Event messages.Event[messages.MaintenanceReport]
	// NewRun begins a run: the step that it returns is called until there is no more to do.
	NewRun func() Step
}

// Step does one batch of a run in the transaction it is given: a bounded number of rows, within a few seconds. It
// returns what it did and whether there is more.
type Step func(ctx context.Context, db postgres.Querier) (did Counts, more bool, err error)

// InTurn makes one step of several: each is called until it has no more to do, then the next.
func InTurn(steps ...Step) Step {
	return func(ctx context.Context, db postgres.Querier) (Counts, bool, error) {
		did, more, err := steps[0](ctx, db)
		if err == nil && !more && len(steps) > 1 {
			steps, more = steps[1:], true
		}
		return did, more, err
	}
}

// Counts says how often each thing was done.
type Counts map[string]int64

func (c Counts) add(other Counts) {
	for name, n := range other {
		c[name] += n
	}
}

func (c Counts) any() bool {
	for _, n := range c {
		if n != 0 {
			return true
		}
	}
	return false
}

// Set is the list of job kinds that a scheduler runs. All schedulers must have the same.
type Set struct {
	workers  *river.Workers
	periodic []*river.PeriodicJob
	runner   *runner
}

// NewSet returns an empty set, whose jobs work on the pool and publish on the connection.
func NewSet(pool *postgres.Pool, conn *bus.Conn, log *slog.Logger) *Set {
	return &Set{workers: river.NewWorkers(), runner: &runner{pool: pool, conn: conn, log: log, runTime: maxRun, batchedTime: maxRun / 2}}
}

// AddPeriodic adds a periodic job. Args is an empty struct whose Kind names the job; it has no arguments.
func AddPeriodic[Args river.JobArgs](set *Set, job Periodic) {
	var args Args
	tick := min(job.Every, maxTick)
	// Unique by tick, so that a job which a crash left "running" does not block the ticks after it.
	options := &river.InsertOpts{
		MaxAttempts: 1, // the next tick is the next attempt
		UniqueOpts: river.UniqueOpts{ByPeriod: tick, ByState: []rivertype.JobState{
			rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRunning,
			rivertype.JobStateRetryable, rivertype.JobStateScheduled,
		}},
	}
	set.periodic = append(set.periodic, river.NewPeriodicJob(river.PeriodicInterval(tick),
		func() (river.JobArgs, *river.InsertOpts) { return args, options },
		&river.PeriodicJobOpts{ID: args.Kind(), RunOnStart: true}))
	river.AddWorker(set.workers, river.WorkFunc(func(ctx context.Context, tick *river.Job[Args]) error {
		return set.runner.runIfDue(ctx, args.Kind(), job, tick.ID)
	}))
}

// runner runs periodic jobs by the protocol of the package comment.
type runner struct {
	pool *postgres.Pool
	conn *bus.Conn
	log  *slog.Logger
	// runTime bounds one run of a periodic job. No batch begins in the last tenth of it.
	runTime time.Duration
	// batchedTime is when a run of a job that somebody inserted ends and leaves the rest to another.
	batchedTime time.Duration
	// behind is how many runs in a row have left something, by kind.
	behind sync.Map
}

func (r *runner) runIfDue(ctx context.Context, kind string, job Periodic, jobID int64) error {
	held, err := take(ctx, r.pool, kind)
	if err != nil {
		return fmt.Errorf("taking %s: %w", kind, err)
	}
	if held == nil {
		return nil
	}
	if err := r.publishLeftover(ctx, job, held); err != nil {
		return err // the lease lapses; the next holder tries again
	}
	report := r.run(ctx, kind, job, held)
	return r.conclude(ctx, job, held, report, strconv.FormatInt(jobID, 10)+":1:1")
}

// run works until there is no more to do, or time is up. The report carries the error, if there is one.
func (r *runner) run(ctx context.Context, kind string, job Periodic, held *holding) outcome {
	ctx, cancel := context.WithTimeout(ctx, r.runTime)
	defer cancel()
	start := time.Now()
	step, more, share := job.NewRun(), true, r.restShare(kind)
	var err error
	for more && err == nil && time.Since(start) < r.runTime*9/10 {
		begun := time.Now()
		more, err = r.runBatch(ctx, held, step)
		if more {
			rest(ctx, time.Since(begun)*time.Duration(share))
		}
	}
	switch {
	case err != nil:
	case more:
		r.behind.Store(kind, r.runsBehind(kind)+1)
	default:
		r.behind.Delete(kind)
	}
	report := messages.MaintenanceReport{
		Job: kind, StartedAt: held.takenAt, DurationMS: time.Since(start).Milliseconds(), Counts: held.counts,
	}
	if err != nil {
		r.log.Error("a periodic job failed", "job", kind, "error", err)
		report.Error = string(messages.AsError(err).Code)
	}
	return outcome{report: report, more: more, err: err}
}

// restShare is how many times as long as a batch took a run of the kind rests after it.
func (r *runner) restShare(kind string) int {
	return longestRest >> max(0, r.runsBehind(kind)-patientRuns)
}

func (r *runner) runsBehind(kind string) int {
	runs, _ := r.behind.Load(kind)
	n, _ := runs.(int)
	return n
}

// rest leaves the database to requests for a while.
func rest(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// outcome is how a run ended.
type outcome struct {
	report messages.MaintenanceReport
	more   bool
	err    error
}

// runBatch runs one step and, in the same transaction, renews the lease and adds to the counts.
func (r *runner) runBatch(ctx context.Context, held *holding, step Step) (more bool, err error) {
	counts := maps.Clone(held.counts)
	more, err = postgres.InTx(ctx, r.pool, messages.TenantAdmin, func(ctx context.Context, db postgres.Querier) (bool, error) {
		did, more, err := step(ctx, db)
		if err != nil {
			return false, err
		}
		counts.add(did)
		return more, renew(ctx, db, held, counts)
	})
	if err == nil {
		held.counts = counts
	}
	return more, err
}

// conclude gives the kind back and publishes what happened. A failed run, and one that ran out of time, is due again at
// once, which is to say at the next tick.
func (r *runner) conclude(ctx context.Context, job Periodic, held *holding, o outcome, eventID string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseTime/2) // also when the scheduler is stopping
	defer cancel()
	if !held.counts.any() && o.err == nil {
		return errors.Join(o.err, release(ctx, r.pool, held, nextDue(job, held, o), nil, ""))
	}
	if err := release(ctx, r.pool, held, nextDue(job, held, o), &o.report, eventID); err != nil {
		return errors.Join(o.err, err)
	}
	return errors.Join(o.err, r.publish(ctx, job, held.kind, o.report, eventID))
}

// dueEarly is the part of the period by which a kind is due early, so that the tick meant for it is not just too soon.
const dueEarly = 10

func nextDue(job Periodic, held *holding, o outcome) time.Time {
	if o.more || o.err != nil {
		return held.takenAt
	}
	return held.takenAt.Add(job.Every - job.Every/dueEarly)
}

func (r *runner) publish(ctx context.Context, job Periodic, kind string, report messages.MaintenanceReport, id string) error {
	if err := bus.PublishEvent(ctx, r.conn, job.Event, messages.TenantAdmin, id, report); err != nil {
		return err
	}
	return published(ctx, r.pool, kind, id)
}

// publishLeftover publishes the event of an earlier run that ended without having done so. Its id is the same as then.
func (r *runner) publishLeftover(ctx context.Context, job Periodic, held *holding) error {
	if held.leftoverID == nil {
		return nil
	}
	return r.publish(ctx, job, held.kind, held.leftover, *held.leftoverID)
}
