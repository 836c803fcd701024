package jobs

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/devstack"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

const testKind = "test_kind"

// fixture runs periodic jobs without River, so that each tick is the test's own.
type fixture struct {
	runner *runner
	url    string
	db     *pgx.Conn
	nats   *devstack.NATS
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	url := devtest.Database(t)
	discard := slog.New(slog.DiscardHandler)
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: url, Program: "test", Instance: "one", Log: discard})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	db, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close(context.Background())) })
	server := devtest.NATS(t)
	conn, err := bus.Connect(t.Context(), bus.ConnConfig{URL: server.URL(), Program: "scheduler", Instance: "one", Log: discard})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		require.NoError(t, conn.Close(ctx))
	})
	require.NoError(t, conn.EnsureEventStream(t.Context()))
	return fixture{&runner{pool: pool, conn: conn, log: discard, runTime: maxRun}, url, db, server}
}

// job returns a periodic job that runs the step.
func job(step Step) Periodic {
	return Periodic{Every: time.Hour, Event: messages.CacheCleanupEvent, NewRun: func() Step { return step }}
}

// steps returns a step that does one thing in each of n batches.
func steps(n int) Step {
	return func(context.Context, postgres.Querier) (Counts, bool, error) {
		n--
		return Counts{"done": 1}, n > 0, nil
	}
}

func (f fixture) tick(t *testing.T, jobID int64, step Step) error {
	t.Helper()
	return f.runner.runIfDue(t.Context(), testKind, job(step), jobID)
}

// due makes the kind due, and its lease lapse, now.
func (f fixture) due(t *testing.T) {
	t.Helper()
	_, err := f.db.Exec(t.Context(), `UPDATE morello.periodic_run SET due_at = now(), leased_until = now()`)
	require.NoError(t, err)
}

// events returns the reports in the stream, by message id.
func (f fixture) events(t *testing.T) map[string]messages.MaintenanceReport {
	t.Helper()
	nc, err := nats.Connect(f.nats.URL())
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	stream, err := js.Stream(t.Context(), messages.EventStream)
	require.NoError(t, err)
	reports := map[string]messages.MaintenanceReport{}
	for sequence := range stream.CachedInfo().State.Msgs {
		msg, err := stream.GetMsg(t.Context(), sequence+1)
		require.NoError(t, err)
		var report messages.MaintenanceReport
		require.NoError(t, messages.DecodeReply(msg.Data, &report))
		reports[msg.Header.Get(nats.MsgIdHdr)] = report
	}
	return reports
}

const eventPrefix = "_admin:maintenance.cache_cleanup:"

func TestRunsOnlyWhenDue(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	require.NoError(t, f.tick(t, 1, steps(3)))
	reports := f.events(t)
	require.Len(t, reports, 1)
	report := reports[eventPrefix+"1:1:1"]
	require.Equal(t, map[string]int64{"done": 3}, report.Counts)
	require.Equal(t, testKind, report.Job)
	require.Empty(t, report.Error)
	require.WithinDuration(t, time.Now(), report.StartedAt, time.Minute)

	require.NoError(t, f.tick(t, 2, steps(1))) // not due
	require.Len(t, f.events(t), 1)
	var wait float64
	require.NoError(t, f.db.QueryRow(t.Context(), `SELECT date_part('epoch', due_at - now()) FROM morello.periodic_run`).Scan(&wait))
	require.InDelta(t, 0.9*3600, wait, 60) // a tenth early, so that the tick meant for it is not too soon
	f.due(t)
	require.NoError(t, f.tick(t, 3, steps(1)))
	require.Contains(t, f.events(t), eventPrefix+"3:1:1")
}

func TestNothingDoneIsNoEvent(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	require.NoError(t, f.tick(t, 1, func(context.Context, postgres.Querier) (Counts, bool, error) {
		return Counts{"done": 0}, false, nil
	}))
	require.Empty(t, f.events(t))
}

func TestFailureIsReportedAndTriedAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	calls := 0
	failing := func(context.Context, postgres.Querier) (Counts, bool, error) {
		if calls++; calls == 1 {
			return Counts{"done": 1}, true, nil
		}
		return nil, false, errors.New("a secret of the database")
	}
	require.Error(t, f.tick(t, 1, failing))
	report := f.events(t)[eventPrefix+"1:1:1"]
	require.Equal(t, "internal", report.Error)
	require.Equal(t, map[string]int64{"done": 1}, report.Counts) // what was committed before
	require.NoError(t, f.tick(t, 2, steps(2)))                   // due at once
	require.Equal(t, map[string]int64{"done": 2}, f.events(t)[eventPrefix+"2:1:1"].Counts)
}

func TestHeldByAnother(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	held, err := take(t.Context(), f.runner.pool, testKind)
	require.NoError(t, err)
	require.NotNil(t, held)
	require.NoError(t, f.tick(t, 1, func(context.Context, postgres.Querier) (Counts, bool, error) {
		t.Error("ran although another holds it")
		return nil, false, nil
	}))
}

// TestWhoWakesFromTheDeadChangesNothing: a holder stalls until another has taken over; its batch is rolled back.
func TestWhoWakesFromTheDeadChangesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const effect = `INSERT INTO morello.cache_counter (tenant) VALUES ('effect')`
	err := f.tick(t, 1, func(ctx context.Context, db postgres.Querier) (Counts, bool, error) {
		_, err := db.Exec(ctx, effect)
		require.NoError(t, err)
		f.due(t)                                   // its lease lapses while it is in the middle of a batch
		require.NoError(t, f.tick(t, 2, steps(1))) // and another takes over
		return Counts{"done": 1000}, false, nil
	})
	require.ErrorIs(t, err, errLost)
	var effects int
	require.NoError(t, f.db.QueryRow(t.Context(), `SELECT count(*) FROM morello.cache_counter`).Scan(&effects))
	require.Zero(t, effects)
	reports := f.events(t)
	require.Len(t, reports, 1)
	require.Equal(t, map[string]int64{"done": 1}, reports[eventPrefix+"2:1:1"].Counts)
}

// TestCountsOfTheDeadAreTakenOver: what a holder did before it died is in its successor's report.
func TestCountsOfTheDeadAreTakenOver(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	held, err := take(t.Context(), f.runner.pool, testKind)
	require.NoError(t, err)
	_, err = f.runner.runBatch(t.Context(), held, steps(1))
	require.NoError(t, err)
	f.due(t) // it died here
	require.NoError(t, f.tick(t, 2, steps(2)))
	require.Equal(t, map[string]int64{"done": 3}, f.events(t)[eventPrefix+"2:1:1"].Counts)
}

// TestEventsArePublishedAtLeastOnce: a run that could not publish leaves its event to the next, under the same id.
func TestEventsArePublishedAtLeastOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	held, err := take(t.Context(), f.runner.pool, testKind)
	require.NoError(t, err)
	report := messages.MaintenanceReport{Job: testKind, Counts: map[string]int64{"done": 5}}
	require.NoError(t, release(t.Context(), f.runner.pool, held, time.Now(), &report, "1:1:1")) // and died before publishing
	f.due(t)
	require.NoError(t, f.tick(t, 2, steps(1)))
	reports := f.events(t)
	require.Equal(t, map[string]int64{"done": 5}, reports[eventPrefix+"1:1:1"].Counts)
	require.Equal(t, map[string]int64{"done": 1}, reports[eventPrefix+"2:1:1"].Counts)
	var unpublished *string
	require.NoError(t, f.db.QueryRow(t.Context(), `SELECT report_id FROM morello.periodic_run`).Scan(&unpublished))
	require.Nil(t, unpublished)
}

func TestIdempotencyCleanup(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	_, err := f.db.Exec(t.Context(), `
		INSERT INTO morello.idempotency_key (tenant, key_hash, fingerprint, created_at)
		SELECT 'acme', int4send(n), '', now() - interval '24 hours 1 second' FROM generate_series(1, 2300) AS n`)
	require.NoError(t, err)
	_, err = f.db.Exec(t.Context(), `INSERT INTO morello.idempotency_key (tenant, key_hash, fingerprint) VALUES ('acme', 'new', '')`)
	require.NoError(t, err)
	require.NoError(t, f.runner.runIfDue(t.Context(), "idempotency_cleanup", NewIdempotencyCleanup(time.Hour), 1))
	require.Equal(t, map[string]int64{"removed": 2300}, f.events(t)["_admin:maintenance.idempotency_cleanup:1:1:1"].Counts)
	var left int
	require.NoError(t, f.db.QueryRow(t.Context(), `SELECT count(*) FROM morello.idempotency_key`).Scan(&left))
	require.Equal(t, 1, left)
}

// TestRestsShrinkWithTheBacklog: when several runs in a row do not get through, the next ones rest less and less, and so do more; one
// that gets through is the end of that. Kinds are nothing to each other.
func TestRestsShrinkWithTheBacklog(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.runner.runTime = 300 * time.Millisecond
	endless := func(context.Context, postgres.Querier) (Counts, bool, error) {
		time.Sleep(5 * time.Millisecond)
		return Counts{"done": 1}, true, nil
	}
	run := func(id int64, step Step) int64 {
		require.NoError(t, f.tick(t, id, step))
		var done int64
		const sql = `SELECT coalesce((report->'counts'->>'done')::bigint, 0) FROM morello.periodic_run WHERE kind = $1`
		require.NoError(t, f.db.QueryRow(t.Context(), sql, testKind).Scan(&done))
		f.due(t)
		return done
	}
	shares := []int{longestRest}
	first := run(1, endless)
	last := first
	for id := range int64(7) {
		shares = append(shares, f.runner.restShare(testKind))
		last = run(id+2, endless)
	}
	require.Equal(t, []int{9, 9, 9, 9, 4, 2, 1, 0}, shares)
	require.Greater(t, last, 2*first, "without rests more is done in the same time")
	require.Equal(t, longestRest, f.runner.restShare("another"))
	run(20, steps(1))
	require.Equal(t, longestRest, f.runner.restShare(testKind))
}
