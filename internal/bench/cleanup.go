package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// peakTime is how long the closed loop runs that finds out how much the machine can do.
	peakTime = 5 * time.Second
	// pacedCallers make the open loop: enough that each has an answer before its next request is due.
	pacedCallers = 256
	// cleanupWait bounds the waiting for the end of the clean-up.
	cleanupWait = 15 * time.Minute
)

// RunCleanup measures the latency of gets in an open loop, at a share of what a closed loop reaches, while the job
// cache_cleanup removes expired rows, and undisturbed before and after.
func RunCleanup(ctx context.Context, cfg Config, expired int, share float64) error {
	cfg.setDefaults()
	return withStack(ctx, cfg, func(s *stack, p *progress) error {
		results, err := measureCleanup(ctx, cfg, s, p, expired, share)
		if err != nil {
			return err
		}
		return write(cfg, p, results, echoCase)
	})
}

func measureCleanup(ctx context.Context, cfg Config, s *stack, p *progress, expired int, share float64) ([]Result, error) {
	if err := s.fill(ctx, cfg.Keys, cfg.ValueBytes, p); err != nil {
		return nil, err
	}
	// Between the live rows, as in a cache that has been at work for a while, they would be on the same pages; at the end
	// of the table they still share its indexes.
	if err := s.insert(ctx, insertion{"expired-", expired, cfg.ValueBytes, -time.Hour}, p); err != nil {
		return nil, err
	}
	p.show("vacuum") // which would come by itself, in the middle of what is measured
	if err := s.vacuum(ctx); err != nil {
		return nil, err
	}
	worker, err := s.startRole(ctx, RoleWorker)
	if err != nil {
		return nil, err
	}
	defer s.stopRole(worker)
	get, _ := rawGet(cfg, s)
	p.show("finding the peak")
	peak, err := load(ctx, pacedCallers, peakTime, get)
	if err != nil {
		return nil, err
	}
	rate := share * float64(peak.operations) / peak.took.Seconds()
	undisturbed := func(name string) (Result, error) {
		p.show("%s: %.0f gets a second", name, rate)
		m, err := pace(ctx, rate, cfg.Duration, get)
		return m.result(name, pacedCallers), err
	}
	before, err := undisturbed("undisturbed, before")
	if err != nil {
		return nil, err
	}
	during, err := s.whileCleaning(ctx, p, rate, expired, get)
	if err != nil {
		return nil, err
	}
	after, err := undisturbed("undisturbed, after")
	return []Result{peak.result("peak, closed loop", pacedCallers), before, during, after}, err
}

// whileCleaning starts a scheduler, whose clean-up is due at once, and measures until no expired row is left.
func (s *stack) whileCleaning(ctx context.Context, p *progress, rate float64, expired int, get operation) (Result, error) {
	conn, err := pgx.Connect(ctx, s.databaseURL())
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = conn.Close(ctx) }()
	scheduler, err := s.startRole(ctx, RoleScheduler, "MORELLO_JOB_CACHE_CLEANUP_EVERY=1s")
	if err != nil {
		return Result{}, err
	}
	defer s.stopRole(scheduler)
	ctx, cancel := context.WithTimeoutCause(ctx, cleanupWait, fmt.Errorf("the clean-up took longer than %s", cleanupWait))
	defer cancel()
	loading, stop := context.WithCancel(ctx)
	defer stop()
	begin := time.Now()
	measured := make(chan measurement, 1)
	failed := make(chan error, 1)
	go func() {
		m, err := pace(loading, rate, cleanupWait, get)
		measured <- m
		failed <- err
	}()
	for left := int64(1); left > 0 && ctx.Err() == nil; {
		// The planner's estimate would do, but comes late; the walk over the few that are due is cheap.
		const sql = `SELECT count(*) FROM (SELECT FROM morello.cache_entry WHERE sweep_after <= now() LIMIT 1) AS due`
		if err := conn.QueryRow(ctx, sql).Scan(&left); err != nil {
			return Result{}, err
		}
		p.show("removing %d rows, for %s", expired, time.Since(begin).Round(time.Second))
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	took := time.Since(begin)
	stop()
	m := <-measured
	name := fmt.Sprintf("while %d rows are removed (%s)", expired, took.Round(time.Second))
	return m.result(name, pacedCallers), <-failed
}
