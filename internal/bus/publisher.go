package bus

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ai-cherry/morello/messages"
)

const (
	// maxUnconfirmed bounds the events that the stream has not confirmed yet; over it events are dropped, after a moment.
	maxUnconfirmed = 4096
	unconfirmedFor = time.Millisecond
	// confirmTimeout is how long the stream may take to confirm one.
	confirmTimeout = 10 * time.Second
	// emitAttempts and emitRetryWait bridge a stream whose leader is just being elected.
	emitAttempts  = 5
	emitRetryWait = 250 * time.Millisecond
)

// Publisher publishes the kept events of requests without making them wait: an event goes out after the commit of what it
// tells, and is lost if the process is killed in between, or the stream cannot be reached. The zero value and nil publish
// nothing.
type Publisher struct {
	js      jetstream.JetStream
	log     *slog.Logger
	dropped atomic.Int64
}

// NewPublisher returns a publisher on the connection. Close it before the connection.
func NewPublisher(conn *Conn) (*Publisher, error) {
	p := &Publisher{log: conn.log}
	js, err := jetstream.New(conn.nc,
		jetstream.WithPublishAsyncMaxPending(maxUnconfirmed), jetstream.WithPublishAsyncTimeout(confirmTimeout),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, msg *nats.Msg, err error) { p.lost(msg.Subject, err) }))
	if err != nil {
		return nil, fmt.Errorf("JetStream: %w", err)
	}
	p.js = js
	return p, nil
}

// Emit publishes an event of a request whose effect is durable. It does not wait for the stream.
func Emit[Body any](p *Publisher, event messages.Event[Body], tenant string, body Body) {
	if p == nil || p.js == nil {
		return
	}
	data, err := messages.Encode(body)
	if err != nil {
		p.lost(event.Name, err)
		return
	}
	msg := &nats.Msg{Subject: event.Info().Subject(tenant), Data: data}
	// The library repeats what is not confirmed under the same id, of which the stream keeps one.
	id := tenant + ":" + event.Name + ":" + uuid.NewString() + ":1:1"
	_, err = p.js.PublishMsgAsync(msg, jetstream.WithMsgID(id), jetstream.WithStallWait(unconfirmedFor),
		jetstream.WithRetryAttempts(emitAttempts), jetstream.WithRetryWait(emitRetryWait))
	if err != nil {
		p.lost(msg.Subject, err)
	}
}

func (p *Publisher) lost(subject string, err error) {
	p.dropped.Add(1)
	p.log.Warn("an event was lost", "subject", subject, "error", err)
}

// Dropped returns how many events were lost so far.
func (p *Publisher) Dropped() int64 { return p.dropped.Load() }

// Close waits until the stream has confirmed what was published, or the context ends.
func (p *Publisher) Close(ctx context.Context) error {
	if p == nil || p.js == nil {
		return nil
	}
	defer p.js.CleanupPublisher()
	select {
	case <-p.js.PublishAsyncComplete():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%d events are not confirmed: %w", p.js.PublishAsyncPending(), ctx.Err())
	}
}
