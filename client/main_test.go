package client_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/client"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/internal/worker"
	"github.com/ai-cherry/morello/messages"
)

const password = "secret"

func TestMain(m *testing.M) {
	for _, user := range []string{"OPERATOR", "GATEWAY", "WORKER", "SCHEDULER", "TENANT_ACME"} {
		if err := os.Setenv("MORELLO_NATS_"+user+"_PASSWORD", password); err != nil {
			panic(err)
		}
	}
	devtest.Main(m, func(ctx context.Context, databaseURL string) error {
		return postgres.MigrateUp(ctx, databaseURL, slog.New(slog.DiscardHandler))
	})
}

// startWorker runs a worker until stop is called.
func startWorker(t testing.TB, databaseURL, natsURL string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- worker.Run(ctx, worker.Config{
			Config:  config.Config{DatabaseURL: databaseURL, NATSURL: natsURL, HealthAddr: config.HealthOff},
			OnReady: func() { close(ready) }, Log: slog.New(slog.DiscardHandler),
		})
	}()
	end := sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { require.NoError(t, end()) })
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		require.NoError(t, err)
	}
	return func() { t.Helper(); require.NoError(t, end()) }
}

// startStack starts NATS and a worker on a database of its own, and returns the URL of NATS.
func startStack(t testing.TB) string {
	t.Helper()
	natsURL := devtest.NATS(t).URL()
	startWorker(t, devtest.Database(t), natsURL)
	return natsURL
}

// connect returns a client that is closed when the test ends. Its log is discarded unless the config has one.
func connect(t testing.TB, cfg client.Config) *client.Client {
	t.Helper()
	if cfg.Tenant == "" {
		cfg.Tenant = "acme"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c, err := client.Connect(context.Background(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, c.Close(ctx))
	})
	return c
}

// requireCode requires err to be a *messages.Error with a code, and returns its details.
func requireCode(t testing.TB, code messages.Code, err error) messages.ErrorDetails {
	t.Helper()
	var failure *messages.Error
	require.ErrorAs(t, err, &failure)
	require.Equal(t, code, failure.Code, err.Error())
	return failure.Details
}

// logBuffer is a log that tests read while it is written.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func login(url, user, password string) string {
	return strings.Replace(url, "nats://", "nats://"+user+":"+password+"@", 1)
}
