package scheduler_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/internal/registry"
	"github.com/ai-cherry/morello/internal/scheduler"
	"github.com/ai-cherry/morello/messages"
)

// asScheduler in the environment makes the test binary a scheduler, so that a test can kill one.
const asScheduler = "MORELLO_TEST_AS_SCHEDULER"

func TestMain(m *testing.M) {
	if os.Getenv(asScheduler) != "" {
		runScheduler()
		return
	}
	devtest.Main(m, func(ctx context.Context, databaseURL string) error {
		return postgres.MigrateUp(ctx, databaseURL, slog.New(slog.DiscardHandler))
	})
}

func runScheduler() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg, err := config.Load()
	if err == nil {
		err = scheduler.Run(ctx, scheduler.Config{Config: cfg, OnReady: func() { fmt.Println("ready") }})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// process is a scheduler in a process of its own.
type process struct {
	command *exec.Cmd
}

func start(t *testing.T, databaseURL, natsURL string) *process {
	t.Helper()
	executable, err := os.Executable()
	require.NoError(t, err)
	p := &process{command: exec.CommandContext(t.Context(), executable)}
	p.command.Env = append(os.Environ(), asScheduler+"=1", "MORELLO_DATABASE_URL="+databaseURL, "MORELLO_NATS_URL="+natsURL,
		"MORELLO_HEALTH_ADDR=off", "MORELLO_JOB_CACHE_CLEANUP_EVERY=1s", "MORELLO_JOB_SESSION_CLEANUP_EVERY=1s")
	p.command.Stderr = os.Stderr
	stdout, err := p.command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.command.Start())
	line := make([]byte, len("ready\n"))
	_, err = stdout.Read(line)
	require.NoError(t, err)
	return p
}

func (p *process) end(t *testing.T, signal syscall.Signal) {
	t.Helper()
	require.NoError(t, p.command.Process.Signal(signal))
	err := p.command.Wait()
	if signal == syscall.SIGTERM {
		require.NoError(t, err)
	}
}

// TestOneLeadsAndTheOtherTakesOver starts two schedulers, kills the one that leads, and sees that expired entries are
// removed and reported before and after.
func TestOneLeadsAndTheOtherTakesOver(t *testing.T) {
	t.Parallel()
	url, broker := devtest.Database(t), devtest.NATS(t).URL()
	db, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close(context.Background())) }()

	first := start(t, url, broker)
	expireAndWait(t, db, broker, 1)
	second := start(t, url, broker)
	var leader string
	require.NoError(t, db.QueryRow(t.Context(), `SELECT leader_id FROM river.river_leader`).Scan(&leader))

	first.end(t, syscall.SIGKILL)
	expireAndWait(t, db, broker, 2) // once the lead has lapsed, 15 s
	var successor string
	require.NoError(t, db.QueryRow(t.Context(), `SELECT leader_id FROM river.river_leader`).Scan(&successor))
	require.NotEqual(t, leader, successor)

	third := start(t, url, broker)
	second.end(t, syscall.SIGTERM) // gives up the lead
	expireAndWait(t, db, broker, 3)
	third.end(t, syscall.SIGTERM)
}

// expireAndWait adds an expired entry and waits until it is gone and n reports are in the stream.
func expireAndWait(t *testing.T, db *pgx.Conn, broker string, n int) {
	t.Helper()
	_, err := db.Exec(t.Context(), `
		INSERT INTO morello.cache_entry (tenant, key, value, version, expires_at, sweep_after, created_at)
		VALUES ('acme', 'k', '1', 1, now() - interval '301 seconds', now() - interval '1 second', now())`)
	require.NoError(t, err)
	nc, err := nats.Connect(broker)
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		var left int
		if err := db.QueryRow(t.Context(), `SELECT count(*) FROM morello.cache_entry`).Scan(&left); err != nil || left > 0 {
			return false
		}
		stream, err := js.Stream(t.Context(), messages.EventStream)
		return err == nil && stream.CachedInfo().State.Msgs == uint64(n)
	}, 2*time.Minute, 100*time.Millisecond)
}

// TestExpiredSessionsAreTold: a scheduler marks an expired session and publishes which it was.
func TestExpiredSessionsAreTold(t *testing.T) {
	t.Parallel()
	url, broker := devtest.Database(t), devtest.NATS(t).URL()
	db, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close(context.Background())) }()
	var id string
	require.NoError(t, db.QueryRow(t.Context(), `
		INSERT INTO morello.session (tenant, session_id, user_id, data, metadata, size_bytes, ttl, created_at, updated_at, last_seen_at,
			expires_at, absolute_expires_at, sweep_after)
		VALUES ('acme', gen_random_uuid(), 'u', '{}', '{}', 4, '1 s', now(), now(), now(), now(), now(), now())
		RETURNING session_id::text`).Scan(&id))
	scheduler := start(t, url, broker)
	nc, err := nats.Connect(broker)
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	var told string
	require.Eventually(t, func() bool {
		stream, err := js.Stream(t.Context(), messages.EventStream)
		if err != nil {
			return false
		}
		msg, err := stream.GetLastMsgForSubject(t.Context(), messages.SessionExpiredEvent.Info().Subject("acme"))
		if err == nil {
			told = string(msg.Data)
		}
		return err == nil
	}, time.Minute, 50*time.Millisecond)
	require.Equal(t, `{"sessions":[{"session_id":"`+id+`","user_id":"u"}]}`, told)
	scheduler.end(t, syscall.SIGTERM)
}

// TestKilledCascadeEndsElsewhere: a scheduler that deletes what an agent owns is killed in the middle; another goes on from there.
func TestKilledCascadeEndsElsewhere(t *testing.T) {
	t.Parallel()
	const sessions, firstBatch = 1200, 500
	url, broker := devtest.Database(t), devtest.NATS(t).URL()
	db, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close(context.Background())) }()
	count := func(sql string) (n int) {
		require.NoError(t, db.QueryRow(t.Context(), sql).Scan(&n))
		return n
	}
	const deleted = `SELECT count(*) FROM morello.session WHERE deleted`
	_, err = db.Exec(t.Context(), `
		INSERT INTO morello.session (tenant, session_id, agent_id, data, metadata, size_bytes, ttl, created_at, updated_at, last_seen_at,
			expires_at, absolute_expires_at, sweep_after)
		SELECT 'acme', gen_random_uuid(), CASE WHEN n <= $1 THEN 'a' ELSE 'b' END, '{}', '{}', 4, '1 day', now(),
			now() + n * interval '1 microsecond', now(), now() + interval '1 day', now() + interval '1 day', now() + interval '1 day'
		FROM generate_series(1, $1 + 10) AS n`, sessions)
	require.NoError(t, err)

	// The second batch stops at a session that is locked here.
	other, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { require.NoError(t, other.Close(context.Background())) }()
	lock, err := other.Begin(t.Context())
	require.NoError(t, err)
	_, err = lock.Exec(t.Context(), `
		SELECT FROM morello.session WHERE session_id = (
			SELECT session_id FROM morello.session WHERE agent_id = 'a' ORDER BY updated_at OFFSET 700 LIMIT 1
		) FOR UPDATE`)
	require.NoError(t, err)

	tx, err := db.Begin(t.Context())
	require.NoError(t, err)
	inserter, err := jobs.NewInserter(slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	_, err = inserter.Insert(t.Context(), tx, registry.AgentCascade{Tenant: "acme", AgentID: "a"})
	require.NoError(t, err)
	require.NoError(t, tx.Commit(t.Context()))
	first := start(t, url, broker)
	require.Eventually(t, func() bool {
		return count(deleted) == firstBatch && count(`SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'`) > 0
	}, time.Minute, 10*time.Millisecond)
	first.end(t, syscall.SIGKILL)
	require.NoError(t, lock.Rollback(t.Context()))

	// River gives a job that died a while before it has another go; let it have passed.
	_, err = db.Exec(t.Context(), `UPDATE river.river_job SET attempted_at = attempted_at - interval '1 hour' WHERE kind = 'agent_cascade' AND state = 'running'`)
	require.NoError(t, err)
	second := start(t, url, broker) // leads when the first's lead has lapsed, after 15 s
	require.Eventually(t, func() bool {
		return count(`SELECT count(*) FROM river.river_job WHERE kind = 'agent_cascade' AND state = 'completed'`) == 1
	}, 2*time.Minute, 50*time.Millisecond)
	require.Equal(t, sessions, count(deleted))
	require.Zero(t, count(`SELECT count(*) FROM morello.session WHERE deleted AND agent_id = 'b'`))
	second.end(t, syscall.SIGTERM)
}
