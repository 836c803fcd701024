package cli

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/health"
)

// childVariable makes this test binary a program of the kind that the tests start: Execute ends the process.
const childVariable = "CLI_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if kind := os.Getenv(childVariable); kind != "" {
		Main(Program{Name: "worker", Short: "Work", Long: "The worker works.", Run: runs[kind]})
	}
	devtest.Main(m, nil)
}

var runs = map[string]func(ctx context.Context, cfg config.Config, log *slog.Logger) error{
	"ends": func(context.Context, config.Config, *slog.Logger) error { return nil },
	"fails": func(context.Context, config.Config, *slog.Logger) error {
		return errors.New("PostgreSQL cannot be reached")
	},
	// stops cleanly when it is told to, and says so by its exit code
	"stops": func(ctx context.Context, _ config.Config, _ *slog.Logger) error {
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	},
	// hangs when it is told to stop, and is told again
	"hangs": func(ctx context.Context, _ config.Config, _ *slog.Logger) error {
		for {
			if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
				return err
			}
			<-ctx.Done()
			time.Sleep(20 * time.Millisecond) // a storm of signals is the end of a program under the race detector
		}
	},
}

// TestExitCodes: 0 after a clean end, 1 after a failure, 2 for a mistake of who started it.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, run    string
		args         []string
		env          string
		code         int
		out, failure string
	}{
		{name: "ends", run: "ends"},
		{name: "stops when it is told to", run: "stops"},
		{name: "fails", run: "fails", code: 1, failure: "worker: PostgreSQL cannot be reached\n"},
		{name: "help", run: "fails", args: []string{"--help"}, out: "The worker works.\n\nSettings come from the environment: \"morello config\" lists them."},
		{name: "version", run: "fails", args: []string{"--version"}, out: "worker version " + config.Version},
		{name: "unknown flag", run: "ends", args: []string{"--fast"}, code: 2, failure: "worker: unknown flag: --fast\n"},
		{name: "unknown command", run: "ends", args: []string{"jump"}, code: 2, failure: `worker: unknown command "jump"`},
		{name: "argument too many", run: "ends", args: []string{"health", "now"}, code: 2, failure: "worker: "},
		{name: "wrong setting", run: "ends", env: "MORELLO_LOG_LEVEL=loud", code: 2, failure: "worker: configuration: MORELLO_LOG_LEVEL must be"},
		{name: "wrong setting for health", run: "ends", args: []string{"health"}, env: "MORELLO_LOG_LEVEL=loud", code: 2, failure: "MORELLO_LOG_LEVEL"},
		{name: "misspelled variable", run: "ends", env: "MORELLO_NATS_URI=x", failure: "MORELLO_NATS_URI"},
		{name: "health of nobody", run: "ends", args: []string{"health"}, env: "MORELLO_HEALTH_ADDR=127.0.0.1:1", code: 1, failure: "connection refused"},
		{name: "health is off", run: "ends", args: []string{"health"}, env: "MORELLO_HEALTH_ADDR=off", code: 2, failure: "MORELLO_HEALTH_ADDR is off"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cmd := child(t, c.run, c.args...)
			if c.env != "" {
				cmd.Env = append(cmd.Env, c.env)
			}
			var out, failure bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &failure
			_ = cmd.Run() // the exit code says more
			require.Equal(t, c.code, cmd.ProcessState.ExitCode(), failure.String())
			require.Contains(t, out.String(), c.out)
			require.Contains(t, failure.String(), c.failure)
			if c.failure == "" {
				require.Empty(t, failure.String())
			}
		})
	}
}

// TestSecondSignal: who does not want to wait for the clean stop sends another signal.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	cmd := child(t, "hangs")
	_ = cmd.Run()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	require.True(t, ok)
	require.True(t, status.Signaled())
	require.Equal(t, syscall.SIGINT, status.Signal())
}

func child(t *testing.T, run string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	// With -cover the program would otherwise complain that it has nowhere to leave its counts.
	cmd.Env = []string{childVariable + "=" + run, "PATH=" + os.Getenv("PATH"), "GOCOVERDIR=" + t.TempDir()}
	return cmd
}

// TestHealthCommand asks a real server. It cannot run in parallel: the address comes from the environment.
func TestHealthCommand(t *testing.T) {
	var down atomic.Bool
	server, err := health.Serve(t.Context(), "127.0.0.1:0", func(context.Context) error {
		if down.Load() {
			return errors.New("NATS cannot be reached")
		}
		return nil
	})
	require.NoError(t, err)
	t.Cleanup(server.Close)
	t.Setenv("MORELLO_HEALTH_ADDR", server.Addr())
	ask := func() error {
		command := Program{Name: "worker", Run: runs["fails"]}.command()
		command.SetArgs([]string{"health"})
		return command.ExecuteContext(t.Context())
	}
	require.NoError(t, ask())
	down.Store(true)
	err = ask()
	require.ErrorContains(t, err, "NATS cannot be reached")
	var usage UsageError
	require.NotErrorAs(t, err, &usage)
}

func TestUsageError(t *testing.T) {
	t.Parallel()
	mistake := errors.New("no such flag")
	err := UsageError{mistake}
	require.ErrorIs(t, err, mistake)
	require.EqualError(t, err, "no such flag")
}
