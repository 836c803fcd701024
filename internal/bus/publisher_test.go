package bus_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

// TestEmit: what was emitted is in the stream when Close returns, each event once, under an id of its own.
func TestEmit(t *testing.T) {
	t.Parallel()
	url := devtest.NATS(t).URL()
	conn := connect(t, url, "worker", "one")
	require.NoError(t, conn.EnsureEventStream(t.Context()))
	publisher, err := bus.NewPublisher(conn)
	require.NoError(t, err)
	const events = 1000
	for i := range events {
		bus.Emit(publisher, messages.CacheCleanupEvent, "acme", messages.MaintenanceReport{DurationMS: int64(i)})
	}
	require.NoError(t, publisher.Close(t.Context()))
	require.Zero(t, publisher.Dropped())
	js, err := jetstream.New(rawConn(t, url))
	require.NoError(t, err)
	stream, err := js.Stream(t.Context(), messages.EventStream)
	require.NoError(t, err)
	require.EqualValues(t, events, stream.CachedInfo().State.Msgs)
	msg, err := stream.GetMsg(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, "morello.events.v1.acme.maintenance.cache_cleanup", msg.Subject)
	require.Regexp(t, `^acme:maintenance\.cache_cleanup:[0-9a-f-]{36}:1:1$`, msg.Header.Get(nats.MsgIdHdr))
}

// TestEmitNeverWaits: without a stream events are lost, counted, and nobody waits for them.
func TestEmitNeverWaits(t *testing.T) {
	t.Parallel()
	conn := connect(t, devtest.NATS(t).URL(), "worker", "one")
	publisher, err := bus.NewPublisher(conn)
	require.NoError(t, err)
	bus.Emit(publisher, messages.CacheCleanupEvent, "acme", messages.MaintenanceReport{})
	require.Eventually(t, func() bool { return publisher.Dropped() == 1 }, 20*time.Second, 10*time.Millisecond)
	require.NoError(t, publisher.Close(t.Context()))

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	var none *bus.Publisher
	bus.Emit(none, messages.CacheCleanupEvent, "acme", messages.MaintenanceReport{})
	require.NoError(t, none.Close(gone))
}
