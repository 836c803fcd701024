package node_test

import (
	"context"
	"log/slog"
	"testing"

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

// TestExamples installs what package-lock.json pins into a copy, runs the examples and checks what they print.
func TestExamples(t *testing.T) {
	t.Parallel()
	folder := devtest.NodeFolder(t, ".", "morello.js", "example.js", "sessions.js", "snapshots.js")
	env := []string{"MORELLO_NATS_URL=" + startStack(t), "MORELLO_TENANT=acme"}
	require.Equal(t, `set: stored true
get: found true {"steps":["read","think"]}
get: found false
error: invalid: ttl_seconds must be more than 0 and at most 315360000 (10 years)
`, devtest.Node(t, folder, env, "example.js"))
	require.Equal(t, `create: a token of 43 characters, told this once
get_by_token: ada {"cart":["book"]}
update: {"cart":["book"],"theme":"dark"} version 2
rotate: another token true
delete: deleted true
error: not_found: there is no such live session
`, devtest.Node(t, folder, env, "sessions.js"))
	require.Equal(t, `create: follows the first true
latest: 2 turns in 101 bytes
get: "in May?"
diff: [{"op":"add","path":"/turns/1","value":{"role":"agent","text":"in May?"}}]
error: conflict: if_head
`, devtest.Node(t, folder, env, "snapshots.js"))
}

// TestTransfer runs the example of a document in parts.
func TestTransfer(t *testing.T) {
	t.Parallel()
	folder := devtest.NodeFolder(t, ".", "transfer.js")
	env := []string{"MORELLO_NATS_URL=" + startStack(t), "MORELLO_TENANT=acme"}
	require.Equal(t, `bytes: 3000000 same: true
deleted: true
error: not_found: there is no such part; a part lives for an hour
`, devtest.Node(t, folder, env, "transfer.js"))
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
