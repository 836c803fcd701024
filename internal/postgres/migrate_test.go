package postgres_test

import (
	"context"
	"io/fs"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/migrations"
)

// emptyDatabase returns the URL of a database without our schemas.
func emptyDatabase(t *testing.T) string {
	t.Helper()
	url := devtest.Database(t)
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), `DROP SCHEMA morello CASCADE; DROP SCHEMA river CASCADE`)
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))
	return url
}

func TestMigrateUp(t *testing.T) {
	t.Parallel()
	url := emptyDatabase(t)
	files, err := fs.Glob(migrations.Files, "*.sql")
	require.NoError(t, err)

	before, err := postgres.MigrationStatus(t.Context(), url)
	require.NoError(t, err)
	require.Len(t, before, len(files))
	require.False(t, before[0].Applied)

	var processes sync.WaitGroup
	for range 4 { // at once, as the replicas of a deployment do
		processes.Go(func() { require.NoError(t, migrate(t.Context(), url)) })
	}
	processes.Wait()

	after, err := postgres.MigrationStatus(t.Context(), url)
	require.NoError(t, err)
	for i, m := range after {
		require.Equal(t, files[i], m.Name)
		require.True(t, m.Applied)
		require.WithinDuration(t, time.Now(), m.AppliedAt, time.Minute)
	}
	require.NoError(t, migrate(t.Context(), url)) // nothing left to do
}

func TestWaitForSchema(t *testing.T) {
	t.Parallel()
	url := emptyDatabase(t)
	pool := openPool(t, url, 2)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.Error(t, postgres.WaitForSchema(ctx, pool))
	arrived := make(chan error, 1)
	go func() { arrived <- postgres.WaitForSchema(t.Context(), pool) }()
	require.NoError(t, migrate(t.Context(), url))
	require.NoError(t, <-arrived)
}

func TestReadSchemaState(t *testing.T) {
	t.Parallel()
	url := emptyDatabase(t)
	pool := openPool(t, url, 2)
	state, err := postgres.ReadSchemaState(t.Context(), pool)
	require.NoError(t, err)
	require.Zero(t, state.Have)
	require.Positive(t, state.Want)
	require.ErrorContains(t, state.River, "the schema river is not as it should be")

	require.NoError(t, migrate(t.Context(), url))
	state, err = postgres.ReadSchemaState(t.Context(), pool)
	require.NoError(t, err)
	require.Equal(t, state.Want, state.Have)
	require.NoError(t, state.River)
}

func TestDirect(t *testing.T) {
	t.Parallel()
	direct, err := openPool(t, devtest.Database(t), 1).Direct(t.Context())
	require.NoError(t, err)
	require.True(t, direct)
}

func TestConnections(t *testing.T) {
	t.Parallel()
	require.Equal(t, 22, postgres.Config{}.Connections())
	require.Equal(t, 8, postgres.Config{Ceiling: 7, BatchSlots: 1}.Connections())
}

func TestMalformedURLHidesThePassword(t *testing.T) {
	t.Parallel()
	_, err := postgres.Open(t.Context(), postgres.Config{URL: "postgres://user:secret@host:port/db"})
	require.ErrorContains(t, err, "malformed")
	require.NotContains(t, err.Error(), "secret")
	require.NotContains(t, postgres.MigrateUp(t.Context(), "postgres://user:secret@host:port/db", slog.Default()).Error(), "secret")
}

func TestLease(t *testing.T) {
	t.Parallel()
	url := devtest.Database(t)
	pool := openPool(t, url, 2)
	held, giveBack := context.WithCancel(t.Context())
	done, err := postgres.KeepLease(held, pool, postgres.Worker{Instance: "a", Program: "worker", Host: "h", StartedAt: time.Now()})
	require.NoError(t, err)
	defer func() { giveBack(); <-done }()

	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.Background())) }()
	_, err = conn.Exec(t.Context(), `
		INSERT INTO morello.worker_lease VALUES
			('dead', 'worker', 'h', now(), now() - interval '1 second'),
			('forgotten', 'worker', 'h', now(), now() - interval '2 hours'),
			('other', 'scheduler', 'h', now(), now() + interval '10 seconds')`)
	require.NoError(t, err)
	live, err := postgres.LiveWorkers(t.Context(), pool, "worker")
	require.NoError(t, err)
	require.Len(t, live, 1)
	require.Equal(t, "a", live[0].Instance)

	second, stopSecond := context.WithCancel(t.Context())
	doneSecond, err := postgres.KeepLease(second, pool, postgres.Worker{Instance: "b", Program: "worker", StartedAt: time.Now()})
	require.NoError(t, err)
	stopSecond()
	<-doneSecond
	var left []string
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT array_agg(instance ORDER BY instance) FROM morello.worker_lease`).Scan(&left))
	require.Equal(t, []string{"a", "dead", "other"}, left) // its own given back, the forgotten one removed
}
