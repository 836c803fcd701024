package main

import (
	"encoding/json"
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/doctor"
	"github.com/ai-cherry/morello/internal/postgres"
)

// durable are the settings that the servers of tests do without, for speed.
var durable = map[string]string{"fsync": "on", "full_page_writes": "on"}

// TestDoctor cannot run in parallel: the servers come from the environment.
func TestDoctor(t *testing.T) {
	databaseURL := devtest.ServerWithSettings(t, durable).URL("morello")
	require.NoError(t, postgres.MigrateUp(t.Context(), databaseURL, slog.New(slog.DiscardHandler)))
	t.Setenv("MORELLO_DATABASE_URL", databaseURL)
	t.Setenv("MORELLO_NATS_URL", serve(t))

	out, err := run(t.Context(), "", "doctor")
	require.NoError(t, err, "warnings are no failure: %s", out)
	line := regexp.MustCompile(`^(ok  |warn)  [a-z]+\.[a-z_]+ +\S.*$`)
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	for i, text := range lines[:len(lines)-1] {
		if strings.HasPrefix(text, "      ") {
			require.Regexp(t, `^      mend: \S`, text)
			require.True(t, strings.HasPrefix(lines[i-1], "warn"), text)
			continue
		}
		require.Regexp(t, line, text)
	}
	require.Regexp(t, `^\d+ checks: \d+ ok, \d+ warn, 0 FAIL$`, lines[len(lines)-1])
	require.Contains(t, out, "without a lease in this database: one", "the worker of serve has no database")

	out, err = run(t.Context(), "", "doctor", "--json")
	require.NoError(t, err)
	var findings []doctor.Finding
	require.NoError(t, json.Unmarshal([]byte(out), &findings))
	require.Equal(t, "config.version", findings[0].Check)
	require.True(t, strings.HasSuffix(out, "]\n"))
}

// TestDoctorFails cannot run in parallel: the servers come from the environment.
func TestDoctorFails(t *testing.T) {
	t.Setenv("MORELLO_DATABASE_URL", "postgres://morello:hunter2@127.0.0.1:1/morello")
	t.Setenv("MORELLO_NATS_URL", "nats://operator:hunter2@127.0.0.1:1")
	for _, args := range [][]string{{"doctor"}, {"doctor", "--json"}} {
		out, err := run(t.Context(), "", args...)
		require.EqualError(t, err, "failed checks: 2")
		require.NotContains(t, out, "hunter2")
		require.Contains(t, out, "nats.reachable")
	}
	out, err := run(t.Context(), "", "doctor")
	require.Error(t, err)
	require.Contains(t, out, "\nFAIL  postgres.reachable ")
	require.Contains(t, out, "checks: 2 ok, 0 warn, 2 FAIL\n")
}
