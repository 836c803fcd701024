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
	"github.com/ai-cherry/morello/internal/postgres"
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
