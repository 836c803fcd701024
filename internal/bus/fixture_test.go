package bus_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

// operation is what the tests bind to cache.get and cache.set: two endpoints of the contract, one of which mutates.
type operation[Req, Reply any] func(ctx context.Context, tenant string, request Req) (Reply, error)

// echoGet answers with the key as the value.
func echoGet(_ context.Context, tenant string, m messages.CacheGet) (messages.CacheGetReply, error) {
	value, err := messages.Encode(tenant + "/" + m.Key)
	return messages.CacheGetReply{Found: true, CacheEntry: messages.CacheEntry{Value: jsontext.Value(value)}}, err
}

func connect(t *testing.T, url, program, instance string) *bus.Conn {
	t.Helper()
	conn, err := bus.Connect(t.Context(), bus.ConnConfig{URL: url, Program: program, Instance: instance, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		require.NoError(t, conn.Close(ctx))
	})
	return conn
}

// serve starts a server of the bindings on a nats-server of its own and returns it with a caller's connection.
func serve(t *testing.T, cfg bus.ServerConfig, bindings ...bus.Binding) (*bus.Server, *bus.Conn, string) {
	t.Helper()
	url := devtest.NATS(t).URL()
	if cfg.Instance == "" {
		cfg.Instance = "one"
	}
	cfg.Program, cfg.Version = "worker", "1.2.3"
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	server := startServer(t, url, cfg, bindings...)
	return server, connect(t, url, "caller", "test"), url
}

func startServer(t *testing.T, url string, cfg bus.ServerConfig, bindings ...bus.Binding) *bus.Server {
	t.Helper()
	server := bus.NewServer(connect(t, url, "worker", cfg.Instance), cfg, bindings)
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		require.NoError(t, server.Drain(ctx))
	})
	return server
}

func rawConn(t *testing.T, url string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	return nc
}

// failure returns the contract's error behind err.
func failure(t *testing.T, err error) *messages.Error {
	t.Helper()
	var known *messages.Error
	require.ErrorAs(t, err, &known)
	return known
}
