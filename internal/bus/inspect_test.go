package bus_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/devstack"
	"github.com/ai-cherry/morello/messages"
)

func TestServerInfo(t *testing.T) {
	t.Parallel()
	_, caller, _ := serve(t, bus.ServerConfig{})
	info, err := caller.ServerInfo(t.Context())
	require.NoError(t, err)
	require.Regexp(t, `^\d+\.\d+\.\d+`, info.Version)
	require.NotEmpty(t, info.Name)
	require.Equal(t, int64(messages.MaxPayload), info.MaxPayload)
	require.Positive(t, info.RoundTrip)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = caller.ServerInfo(ended)
	require.ErrorIs(t, err, context.Canceled)
}

func TestDiscover(t *testing.T) {
	t.Parallel()
	_, caller, url := serve(t, bus.ServerConfig{Instance: "one"})
	startServer(t, url, bus.ServerConfig{Instance: "two", Program: "worker", Version: "2.0.0"})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	members, err := caller.Discover(ctx)
	require.NoError(t, err)
	require.ElementsMatch(t, []bus.Member{
		{Instance: "one", Program: "worker", Version: "1.2.3"}, {Instance: "two", Program: "worker", Version: "2.0.0"},
	}, members)
}

func TestEventStreamSubjects(t *testing.T) {
	t.Parallel()
	_, caller, _ := serve(t, bus.ServerConfig{})
	_, err := caller.EventStreamSubjects(t.Context())
	require.ErrorIs(t, err, bus.ErrNoEventStream)
	require.NoError(t, caller.EnsureEventStream(t.Context()))
	subjects, err := caller.EventStreamSubjects(t.Context())
	require.NoError(t, err)
	require.Equal(t, messages.EventStreamSubjects(), subjects)

	plain, err := devstack.StartNATS(devstack.NATSConfig{NoJetStream: true})
	require.NoError(t, err)
	t.Cleanup(plain.Shutdown)
	_, err = connect(t, plain.URL(), "caller", "test").EventStreamSubjects(t.Context())
	require.ErrorIs(t, err, bus.ErrNoJetStream)
}

// TestNobodyToDiscover: NATS says at once that nobody listens.
func TestNobodyToDiscover(t *testing.T) {
	t.Parallel()
	plain, err := devstack.StartNATS(devstack.NATSConfig{})
	require.NoError(t, err)
	t.Cleanup(plain.Shutdown)
	members, err := connect(t, plain.URL(), "caller", "test").Discover(t.Context())
	require.NoError(t, err)
	require.Empty(t, members)
}

func TestConnectOnce(t *testing.T) {
	t.Parallel()
	malformed := bus.ConnConfig{URL: "nats://user:hunter2%zz@127.0.0.1:4222", Program: "test", Instance: "one", Log: slog.New(slog.DiscardHandler)}
	_, err := bus.ConnectOnce(malformed)
	require.EqualError(t, err, "the URL is malformed: want nats://user:password@host:port")
	_, err = bus.ConnectOnce(bus.ConnConfig{URL: "nats://127.0.0.1:1", Program: "test", Instance: "one"})
	require.ErrorContains(t, err, "no servers available")

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = bus.Connect(ctx, malformed)
	require.ErrorContains(t, err, "connecting to NATS at ")
	require.NotContains(t, err.Error(), "hunter2")
}
