package bus

import (
	"context"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ai-cherry/morello/messages"
)

// publishTimeout bounds the publishing of one kept event, retries included.
const publishTimeout = 10 * time.Second

// EnsureEventStream creates the stream that keeps events, or brings its subjects and bounds up to date. It is
// idempotent; the scheduler calls it at start.
func (c *Conn) EnsureEventStream(ctx context.Context) error {
	js, err := jetstream.New(c.nc)
	if err != nil {
		return fmt.Errorf("JetStream: %w", err)
	}
	_, err = js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: messages.EventStream, Description: "Events of Morello",
		Subjects: messages.EventStreamSubjects(), Storage: jetstream.FileStorage, Discard: jetstream.DiscardOld,
		MaxAge: messages.EventRetention, MaxBytes: messages.EventStreamBytes, Duplicates: messages.EventDuplicateWindow,
	})
	if err != nil {
		return fmt.Errorf("creating the stream %s: %w", messages.EventStream, err)
	}
	return nil
}

// Announce publishes an event that is not kept: it reaches who listens at the moment, and is lost if NATS cannot be
// reached. It does not wait.
func Announce[Body any](conn *Conn, event messages.Event[Body], tenant string, body Body) error {
	data, err := messages.Encode(body)
	if err != nil {
		return err
	}
	return conn.nc.Publish(event.Info().Subject(tenant), data)
}

// PublishEvent publishes a kept event and returns when the stream has it. The id makes repetition harmless: within the
// duplicate window the stream keeps one message of an id.
func PublishEvent[Body any](ctx context.Context, conn *Conn, event messages.Event[Body], tenant, id string, body Body) error {
	data, err := messages.Encode(body)
	if err != nil {
		return err
	}
	js, err := jetstream.New(conn.nc)
	if err != nil {
		return fmt.Errorf("JetStream: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	publish := func() error {
		msg := &nats.Msg{Subject: event.Info().Subject(tenant), Data: data}
		_, err := js.PublishMsg(ctx, msg, jetstream.WithMsgID(tenant+":"+event.Name+":"+id))
		return err
	}
	wait := backoff.NewExponentialBackOff(backoff.WithInitialInterval(50*time.Millisecond), backoff.WithMaxInterval(time.Second))
	if err := backoff.Retry(publish, backoff.WithContext(wait, ctx)); err != nil {
		return fmt.Errorf("publishing %s: %w", event.Name, err)
	}
	return nil
}
