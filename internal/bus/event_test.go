package bus_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

func TestEventsAreKeptOnceForEachID(t *testing.T) {
	t.Parallel()
	url := devtest.NATS(t).URL()
	conn := connect(t, url, "scheduler", "one")
	for range 2 { // idempotent
		require.NoError(t, conn.EnsureEventStream(t.Context()))
	}
	report := messages.MaintenanceReport{Job: "cache_cleanup", Counts: map[string]int64{"removed": 3}}
	publish := func(id string) {
		require.NoError(t, bus.PublishEvent(t.Context(), conn, messages.CacheCleanupEvent, messages.TenantAdmin, id, report))
	}
	publish("7:1:1")
	publish("7:1:1") // again, as after a crash
	publish("8:1:1")

	js, err := jetstream.New(rawConn(t, url))
	require.NoError(t, err)
	stream, err := js.Stream(t.Context(), messages.EventStream)
	require.NoError(t, err)
	require.EqualValues(t, 2, stream.CachedInfo().State.Msgs)
	require.Equal(t, messages.EventDuplicateWindow, stream.CachedInfo().Config.Duplicates)
	msg, err := stream.GetMsg(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, "morello.events.v1._admin.maintenance.cache_cleanup", msg.Subject)
	require.Equal(t, "_admin:maintenance.cache_cleanup:7:1:1", msg.Header.Get(nats.MsgIdHdr))
	var got messages.MaintenanceReport
	require.NoError(t, messages.DecodeReply(msg.Data, &got))
	require.Equal(t, report, got)
}

func TestPublishWithoutAStreamFails(t *testing.T) {
	t.Parallel()
	conn := connect(t, devtest.NATS(t).URL(), "scheduler", "one")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := bus.PublishEvent(ctx, conn, messages.CacheCleanupEvent, messages.TenantAdmin, "1:1:1", messages.MaintenanceReport{})
	require.Error(t, err)
}

func TestCallsWhileNATSIsAway(t *testing.T) {
	t.Parallel()
	server := devtest.NATS(t)
	conn := connect(t, server.URL(), "caller", "one")
	require.True(t, conn.Connected())
	server.Shutdown()
	require.Eventually(t, func() bool { return !conn.Connected() }, 5*time.Second, 5*time.Millisecond)
	_, err := bus.Call(t.Context(), conn, messages.CacheGetEndpoint, "acme", messages.CacheGet{Key: "k"})
	known := failure(t, err)
	require.Equal(t, messages.CodeUnavailable, known.Code)
	require.Equal(t, messages.OutcomeNotApplied, known.Details.Outcome)
}

func TestConnectHidesThePassword(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := bus.Connect(ctx, bus.ConnConfig{
		URL: "nats://user:secret@127.0.0.1:1", Program: "caller", Instance: "one", Log: slog.New(slog.DiscardHandler),
	})
	require.ErrorContains(t, err, "127.0.0.1:1")
	require.NotContains(t, err.Error(), "secret")
}
