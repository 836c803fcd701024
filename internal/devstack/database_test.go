package devstack_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
)

func TestCreateDatabaseClonesTemplate(t *testing.T) {
	t.Parallel()
	server := devtest.Server(t)
	require.NoError(t, server.CreateDatabase(t.Context(), "original", ""))
	exec(t, server.URL("original"), `CREATE TABLE item AS SELECT 1 AS n; CREATE UNLOGGED TABLE cache AS SELECT 1 AS n`)

	require.NoError(t, server.CreateDatabase(t.Context(), "copy", "original"))
	exec(t, server.URL("copy"), `INSERT INTO item VALUES (2)`)
	require.Equal(t, 2, query[int](t, server.URL("copy"), `SELECT count(*) FROM item`))
	require.Equal(t, 1, query[int](t, server.URL("copy"), `SELECT count(*) FROM cache`))
	require.Equal(t, 1, query[int](t, server.URL("original"), `SELECT count(*) FROM item`))

	require.ErrorContains(t, server.CreateDatabase(t.Context(), "copy", "original"), `database "copy" already exists`)
	require.ErrorContains(t, server.CreateDatabase(t.Context(), "other", "absent"), `template database "absent" does not exist`)
}

func TestDropDatabaseEndsConnections(t *testing.T) {
	t.Parallel()
	server := devtest.Server(t)
	conn := connect(t, server.URL("morello"))
	require.NoError(t, server.DropDatabase(t.Context(), "morello"))
	require.Error(t, conn.Ping(t.Context()))
	require.Zero(t, query[int](t, server.URL("postgres"), `SELECT count(*) FROM pg_database WHERE datname = 'morello'`))
	require.NoError(t, server.DropDatabase(t.Context(), "morello"), "dropping twice")
}
