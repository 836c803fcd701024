package node_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/internal/worker"
)

func TestMain(m *testing.M) {
	devtest.Main(m, func(ctx context.Context, databaseURL string) error {
		return postgres.MigrateUp(ctx, databaseURL, slog.New(slog.DiscardHandler))
	})
}

const (
	installTimeout = 5 * time.Minute
	runTimeout     = time.Minute
)

// TestExample installs what package-lock.json pins into a copy, runs the example and checks what it prints.
func TestExample(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", "example.js"} {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), text, 0o600))
	}
	run(t, installTimeout, folder, nil, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	env := []string{"MORELLO_NATS_URL=" + startStack(t), "MORELLO_TENANT=acme"}
	out := run(t, runTimeout, folder, env, "node", "example.js")
	require.Equal(t, `set: stored true
get: found true {"steps":["read","think"]}
get: found false
error: invalid: ttl_seconds must be more than 0 and at most 315360000 (10 years)
`, out)
}

// run returns what a program of Node.js prints.
func run(t *testing.T, timeout time.Duration, folder string, env []string, program string, args ...string) string {
	t.Helper()
	_, err := exec.LookPath(program)
	require.NoError(t, err, "install Node.js 18 or newer with npm, such as by apt-get install nodejs npm")
	ctx, cancel := context.WithTimeoutCause(t.Context(), timeout, fmt.Errorf("%s timeout (%s) exceeded", program, timeout))
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = folder, append(os.Environ(), env...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	require.NoError(t, cmd.Run(), "%v %s\n%s", context.Cause(ctx), &out, &complaints)
	return out.String()
}

// startStack starts NATS and a worker until the test ends, and returns the URL of NATS.
func startStack(t *testing.T) string {
	t.Helper()
	natsURL, databaseURL := devtest.NATS(t).URL(), devtest.Database(t)
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- worker.Run(ctx, worker.Config{
			Config:  config.Config{DatabaseURL: databaseURL, NATSURL: natsURL, HealthAddr: config.HealthOff},
			OnReady: func() { close(ready) }, Log: slog.New(slog.DiscardHandler),
		})
	}()
	t.Cleanup(func() { cancel(); require.NoError(t, <-ended) })
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		require.NoError(t, err)
	}
	return natsURL
}
