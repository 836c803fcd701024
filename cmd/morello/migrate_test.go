package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/migrations"
)

// TestMigrate cannot run in parallel: the database comes from the environment.
func TestMigrate(t *testing.T) {
	t.Setenv("MORELLO_DATABASE_URL", "postgres://127.0.0.1:1/not-for-migrations")
	t.Setenv("MORELLO_MIGRATE_DATABASE_URL", devtest.Database(t))
	t.Setenv("MORELLO_LOG_LEVEL", "error")
	files, err := migrations.Files.ReadDir(".")
	require.NoError(t, err)

	requireStatus := func(applied string) {
		out, err := run(t.Context(), "", "migrate", "status")
		require.NoError(t, err)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		require.Len(t, lines, len(files)+1)
		require.Regexp(t, `^MIGRATION +APPLIED$`, lines[0])
		for i, file := range files {
			require.Regexp(t, "^"+regexp.QuoteMeta(file.Name())+" +"+applied+"$", lines[i+1])
		}
	}
	requireStatus("pending")
	requireStatus("pending") // asking changes nothing
	for range 2 {            // the second time there is nothing to do
		out, err := run(t.Context(), "", "migrate", "up")
		require.NoError(t, err)
		require.Equal(t, "the schema is up to date\n", out)
	}
	requireStatus(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
}

// TestMigrateNowhere cannot run in parallel: the database comes from the environment.
func TestMigrateNowhere(t *testing.T) {
	t.Setenv("MORELLO_DATABASE_URL", "postgres://morello:hunter2@127.0.0.1:1/morello")
	for _, what := range []string{"up", "status"} {
		_, err := run(t.Context(), "", "migrate", what)
		require.ErrorContains(t, err, "connection refused", what)
		require.NotContains(t, err.Error(), "hunter2", what)
	}
}
