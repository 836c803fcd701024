package devtest_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
)

func TestMain(m *testing.M) { devtest.Main(m, migrate) }

func migrate(ctx context.Context, databaseURL string) error {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, `CREATE TABLE seed AS SELECT 1 AS n`)
	return err
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func count(t *testing.T, conn *pgx.Conn) int {
	t.Helper()
	var rows int
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT count(*) FROM seed`).Scan(&rows))
	return rows
}

func TestDatabase(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"first", "second"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := connect(t, devtest.Database(t))
			require.Equal(t, 1, count(t, conn), "migrated, and no other test's rows")
			_, err := conn.Exec(t.Context(), `INSERT INTO seed VALUES (2)`)
			require.NoError(t, err)
		})
	}
}

func TestServer(t *testing.T) {
	t.Parallel()
	server := devtest.Server(t)
	require.NoError(t, server.Kill())
	require.NoError(t, server.Restart(t.Context()))
	require.Equal(t, 1, count(t, connect(t, server.URL("morello"))))
	require.NotEqual(t, server.PID(), devtest.Server(t).PID())
}

func TestNATS(t *testing.T) {
	t.Parallel()
	server := devtest.NATS(t)
	nc, err := nats.Connect(server.URL())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	require.NoError(t, nc.Flush())
}
