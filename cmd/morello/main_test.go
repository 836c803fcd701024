package main

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/cli"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

func TestMain(m *testing.M) { devtest.Main(m, nil) }

// run runs the command line, and returns what it printed.
func run(ctx context.Context, stdin string, args ...string) (string, error) {
	var out bytes.Buffer
	root := newCommand()
	root.SetArgs(args)
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(io.Discard)
	err := root.ExecuteContext(ctx)
	return out.String(), err
}

// TestHelp: every command that is shown says what it is, with its flags or commands.
func TestHelp(t *testing.T) {
	t.Parallel()
	for args, wanted := range map[string][]string{
		"":               {"data plane for AI agents", "morello dev", "call ", "config ", "dev ", "doctor ", "migrate "},
		"dev":            {"--data-dir", "--nats-port", "(default 4222)", "--http-port", "(default 8080)", "--workers", "(default 1)", "--ephemeral", "Ctrl-C", "morello dev --ephemeral"},
		"call":           {"--tenant", `(default "demo")`, "--nats-url", "--timeout", "--idempotency-key", "--actor", "Examples:"},
		"config":         {"hidden", "MORELLO_LOG_LEVEL=debug morello config"},
		"doctor":         {"--json", "Exits with 1", "It changes nothing", "morello doctor --json | jq"},
		"migrate":        {"up ", "status ", "MORELLO_MIGRATE_DATABASE_URL"},
		"migrate up":     {"morello migrate up"},
		"migrate status": {"when they were applied"},
	} {
		out, err := run(t.Context(), "", append(strings.Fields(args), "--help")...)
		require.NoError(t, err, args)
		for _, text := range wanted {
			require.Contains(t, out, text, args)
		}
		require.NotContains(t, out, "embedded-postgres", "this one is for morello itself")
	}
	out, err := run(t.Context(), "", "call", "--help")
	require.NoError(t, err)
	for _, endpoint := range messages.Endpoints() {
		require.Contains(t, out, endpoint.Name)
		require.Contains(t, out, endpoint.Doc)
	}
	for _, group := range []string{"", "migrate"} {
		alone, err := run(t.Context(), "", strings.Fields(group)...)
		require.NoError(t, err, group)
		require.Contains(t, alone, "Available Commands:", group)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	out, err := run(t.Context(), "", "--version")
	require.NoError(t, err)
	require.Equal(t, "morello version "+config.Version+"\n", out)
}

// TestMistakes: what is not understood is refused, not taken for a wish for help.
func TestMistakes(t *testing.T) {
	t.Parallel()
	for args, message := range map[string]string{
		"jump":               `unknown command "jump"`,
		"migrate down":       `unknown command "down"`,
		"migrate up now":     `unknown command "now"`,
		"config all":         `unknown command "all"`,
		"dev here":           `unknown command "here"`,
		"doctor me":          `unknown command "me"`,
		"dev --port 1":       "unknown flag: --port",
		"dev --workers many": `invalid argument "many"`,
		"call":               "accepts between 1 and 2 arg(s), received 0",
		"call a b c":         "accepts between 1 and 2 arg(s), received 3",
	} {
		_, err := run(t.Context(), "", strings.Fields(args)...)
		require.ErrorContains(t, err, message, args)
	}
	for args, message := range map[string]string{
		"call cache.fetch": `there is no operation "cache.fetch"; "morello call --help" lists them`,
		"call cache":       "there is no operation",
		"dev --workers 0":  "--workers must be 1 to 64",
		"dev --workers 65": "--workers must be 1 to 64",
	} {
		_, err := run(t.Context(), "", strings.Fields(args)...)
		var usage cli.UsageError
		require.ErrorAs(t, err, &usage, args)
		require.ErrorContains(t, err, message, args)
	}
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	out, err := run(t.Context(), "", cobra.ShellCompRequestCmd, "call", "cache.get")
	require.NoError(t, err)
	require.Contains(t, out, "cache.get_many\t")
	out, err = run(t.Context(), "", cobra.ShellCompRequestCmd, "call", "cache.get", "")
	require.NoError(t, err)
	require.NotContains(t, out, "cache.", "the second argument is a body")
}

// TestConfig cannot run in parallel: the settings come from the environment.
func TestConfig(t *testing.T) {
	t.Setenv("MORELLO_DATABASE_URL", "postgres://morello:hunter2@db:5432/morello?password=hunter3")
	t.Setenv("MORELLO_HTTP_TOKEN", "hunter4")
	t.Setenv("MORELLO_MAX_IN_FLIGHT", "7")
	t.Setenv("MORELLO_NATS_URI", "nats://hunter5")
	out, err := run(t.Context(), "", "config")
	require.NoError(t, err)
	require.NotContains(t, out, "hunter")
	rows := map[string][]string{}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		rows[fields[0]] = fields[1:]
	}
	require.Equal(t, []string{"VALUE", "FROM", "MEANING"}, rows["NAME"])
	require.Equal(t, []string{"postgres://morello@db:5432/morello", "environment"}, rows["MORELLO_DATABASE_URL"][:2])
	require.Equal(t, []string{"postgres://morello@db:5432/morello", "MORELLO_DATABASE_URL"}, rows["MORELLO_MIGRATE_DATABASE_URL"][:2])
	require.Equal(t, []string{"(hidden)", "environment"}, rows["MORELLO_HTTP_TOKEN"][:2])
	require.Equal(t, []string{"-", "default"}, rows["MORELLO_HTTP_OPERATOR_TOKEN"][:2])
	require.Equal(t, []string{"7", "environment"}, rows["MORELLO_MAX_IN_FLIGHT"][:2])
	require.Equal(t, []string{"1m0s", "default"}, rows["MORELLO_JOB_CACHE_CLEANUP_EVERY"][:2])
	require.Contains(t, out, "misspelled?")
	require.Equal(t, []string{"-", "environment"}, rows["MORELLO_NATS_URI"][:2])
}

// TestWrongSettings cannot run in parallel: the settings come from the environment.
func TestWrongSettings(t *testing.T) {
	t.Setenv("MORELLO_LOG_LEVEL", "loud")
	t.Setenv("MORELLO_POOL_CEILING", "none")
	for _, args := range []string{"config", "migrate up", "migrate status", "call cache.get", "dev --ephemeral", "doctor"} {
		_, err := run(t.Context(), "", strings.Fields(args)...)
		var usage cli.UsageError
		require.ErrorAs(t, err, &usage, args)
		require.ErrorContains(t, err, "MORELLO_LOG_LEVEL", args)
		require.ErrorContains(t, err, "MORELLO_POOL_CEILING", args)
	}
}
