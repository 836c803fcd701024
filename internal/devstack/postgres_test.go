package devstack_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
)

func TestPostgresLife(t *testing.T) {
	t.Parallel()
	dataDir := filepath.Join(openDir(t), "new", "data")
	server := start(t, quick(dataDir))
	require.Equal(t, "off", query[string](t, server.URL("postgres"), `SHOW fsync`), "Settings")
	require.Equal(t, "UTF8", query[string](t, server.URL("postgres"), `SHOW server_encoding`))
	require.Equal(t, "127.0.0.1", query[string](t, server.URL("postgres"), `SHOW listen_addresses`))
	require.Empty(t, query[string](t, server.URL("postgres"), `SHOW unix_socket_directories`))
	require.ErrorContains(t, server.Restart(t.Context()), "is running already")
	exec(t, server.URL("postgres"), `CREATE TABLE kept (n int)`)

	pid, port := server.PID(), server.Port()
	processes := append(devstack.ChildrenOf(pid), pid)
	require.Greater(t, len(processes), 1)
	require.NoError(t, server.Stop(t.Context()))
	for _, process := range processes {
		require.False(t, devstack.Alive(process))
	}
	require.Zero(t, server.PID())
	require.NoError(t, server.Stop(t.Context()), "stopping twice")
	require.NoError(t, server.Kill(), "killing what is stopped")

	require.NoError(t, server.Restart(t.Context()))
	require.Equal(t, port, server.Port())
	require.NotEqual(t, pid, server.PID())
	require.Zero(t, query[int](t, server.URL("postgres"), `SELECT count(*) FROM kept`))

	entries, err := os.ReadDir(filepath.Dir(dataDir))
	require.NoError(t, err)
	require.Len(t, entries, 1, "initdb leaves nothing beside the data directory")
}

func TestPostgresURL(t *testing.T) {
	t.Parallel()
	server := devtest.Server(t)
	require.Equal(t, "postgres://morello@127.0.0.1:"+strconv.Itoa(server.Port())+"/some?sslmode=disable", server.URL("some"))

	const odd = `a "b"/c?d`
	require.NoError(t, server.CreateDatabase(t.Context(), odd, ""))
	require.Equal(t, odd, query[string](t, server.URL(odd), `SELECT current_database()`))
}

func TestPostgresLoadsStatStatements(t *testing.T) {
	t.Parallel()
	server := devtest.Server(t)
	if query[int](t, server.URL("postgres"), `SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_stat_statements'`) == 0 {
		require.Empty(t, query[string](t, server.URL("postgres"), `SHOW shared_preload_libraries`))
		return
	}
	exec(t, server.URL("postgres"), `CREATE EXTENSION pg_stat_statements`)
	require.Positive(t, query[int](t, server.URL("postgres"), `SELECT count(*) FROM pg_stat_statements`))
}

func TestPostgresKeepsCommitsWhenKilled(t *testing.T) {
	t.Parallel()
	server := devtest.Server(t)
	exec(t, server.URL("morello"), `CREATE TABLE logged (n int); CREATE UNLOGGED TABLE unlogged (n int);
		INSERT INTO logged VALUES (1); INSERT INTO unlogged VALUES (1)`)
	idle := connect(t, server.URL("morello"))

	processes := append(devstack.ChildrenOf(server.PID()), server.PID())
	require.Contains(t, processes, int(idle.PgConn().PID()))
	require.NoError(t, server.Kill())
	for _, process := range processes {
		require.False(t, devstack.Alive(process))
	}
	require.Error(t, idle.Ping(t.Context()))

	require.NoError(t, server.Restart(t.Context()))
	require.Equal(t, 1, query[int](t, server.URL("morello"), `SELECT count(*) FROM logged`))
	require.Equal(t, 0, query[int](t, server.URL("morello"), `SELECT count(*) FROM unlogged`), "a crash, not a shutdown")
}

func TestPostgresStopsImmediatelyWhenTimeIsUp(t *testing.T) {
	t.Parallel()
	server := devtest.Server(t)
	pid := server.PID()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, server.Stop(ctx), context.Canceled)
	require.False(t, devstack.Alive(pid))
	require.NoError(t, server.Restart(t.Context()))
}

func TestPostgresStartErrors(t *testing.T) {
	t.Parallel()
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = taken.Close() })
	occupied := openDir(t)
	require.NoError(t, os.WriteFile(filepath.Join(occupied, "letter.txt"), nil, 0o600))
	older := openDir(t)
	require.NoError(t, os.WriteFile(filepath.Join(older, "PG_VERSION"), []byte("9\n"), 0o600))

	tests := map[string]struct {
		cfg  devstack.PostgresConfig
		want string
	}{
		"no data directory":      {devstack.PostgresConfig{}, "DataDir is required"},
		"taken port":             {devstack.PostgresConfig{DataDir: "x", Port: taken.Addr().(*net.TCPAddr).Port}, "of 127.0.0.1 is taken"},
		"no server there":        {devstack.PostgresConfig{DataDir: "x", BinDir: occupied}, "no PostgreSQL server in " + occupied},
		"foreign data directory": {quick(occupied), "is not empty and holds no PostgreSQL cluster"},
		"older cluster":          {quick(older), "was made by PostgreSQL 9"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := devstack.StartPostgres(t.Context(), test.cfg)
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestPostgresStartErrorTellsTheServersReason(t *testing.T) {
	t.Parallel()
	cfg := quick(filepath.Join(openDir(t), "data"))
	cfg.Settings["work_mem"] = "plenty"
	_, err := devstack.StartPostgres(t.Context(), cfg)
	require.ErrorContains(t, err, `invalid value for parameter "work_mem"`)
}

func TestPostgresRefusesOldServer(t *testing.T) {
	t.Parallel()
	binDir := openDir(t)
	for _, program := range []string{"postgres", "initdb"} {
		script := []byte("#!/bin/sh\necho 'postgres (PostgreSQL) 14.9'\n")
		require.NoError(t, os.WriteFile(filepath.Join(binDir, program), script, 0o755))
	}
	require.NoError(t, os.Chmod(binDir, 0o755))
	_, err := devstack.StartPostgres(t.Context(), devstack.PostgresConfig{DataDir: filepath.Join(binDir, "data"), BinDir: binDir})
	require.ErrorContains(t, err, "is PostgreSQL 14.9, 15 or newer is needed")
}

// As root this is what happens to a data directory below /root.
func TestPostgresDataDirThatServerMayNotEnter(t *testing.T) {
	t.Parallel()
	closed := filepath.Join(openDir(t), "closed")
	require.NoError(t, os.Mkdir(closed, 0o700))
	if os.Geteuid() != 0 {
		require.NoError(t, os.Chmod(closed, 0))
		t.Cleanup(func() { require.NoError(t, os.Chmod(closed, 0o700)) })
	}
	_, err := devstack.StartPostgres(t.Context(), quick(filepath.Join(closed, "data")))
	require.ErrorIs(t, err, os.ErrPermission)
	require.ErrorContains(t, err, "may not enter "+closed+": choose a data directory elsewhere, such as /var/lib/morello")
}

func TestPostgresInterruptedInitdbLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	binDir := openDir(t)
	require.NoError(t, os.Chmod(binDir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(binDir, "postgres"), []byte("#!/bin/sh\necho 'postgres (PostgreSQL) 15.0'\n"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(binDir, "initdb"), []byte("#!/bin/sh\ntouch half-made; echo full disk; exit 1\n"), 0o755))

	_, err := devstack.StartPostgres(t.Context(), devstack.PostgresConfig{DataDir: filepath.Join(dir, "data"), BinDir: binDir})
	require.ErrorContains(t, err, "full disk")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}
