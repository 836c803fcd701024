// Package bustest is for tests of who publishes events.
package bustest

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

const stopTimeout = 5 * time.Second

// Events publishes to a stream of events of its own.
type Events struct {
	*bus.Publisher

	close  func() error
	stream jetstream.Stream
}

// NewEvents starts a NATS server with the stream of events, until the test ends.
func NewEvents(t testing.TB, log *slog.Logger) *Events {
	t.Helper()
	url := devtest.NATS(t).URL()
	conn, err := bus.Connect(t.Context(), bus.ConnConfig{URL: url, Program: "worker", Instance: "test", Log: log})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, within(conn.Close)) })
	require.NoError(t, conn.EnsureEventStream(t.Context()))
	publisher, err := bus.NewPublisher(conn)
	require.NoError(t, err)
	e := &Events{Publisher: publisher, close: sync.OnceValue(func() error { return within(publisher.Close) })}
	t.Cleanup(func() { require.NoError(t, e.close()) })
	nc, err := nats.Connect(url)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	e.stream, err = js.Stream(t.Context(), messages.EventStream)
	require.NoError(t, err)
	return e
}

func within(stop func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	return stop(ctx)
}

// All closes the publisher, and returns what was published: each event as its subject, a space and its body.
func (e *Events) All(t testing.TB) (list []string) {
	t.Helper()
	require.NoError(t, e.close())
	info, err := e.stream.Info(t.Context())
	require.NoError(t, err)
	for n := info.State.FirstSeq; n <= info.State.LastSeq; n++ {
		msg, err := e.stream.GetMsg(t.Context(), n)
		require.NoError(t, err)
		list = append(list, msg.Subject+" "+string(msg.Data))
	}
	return list
}
