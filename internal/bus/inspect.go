package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/ai-cherry/morello/messages"
)

// pingTimeout is how long a server may take to answer a ping.
const pingTimeout = 5 * time.Second

var (
	// ErrNoJetStream says that the server, or the account of this user, has no JetStream.
	ErrNoJetStream = errors.New("JetStream is not enabled")
	// ErrNoEventStream says that nobody has created the stream of events yet.
	ErrNoEventStream = errors.New("the stream " + messages.EventStream + " does not exist")
)

// ServerInfo is what is known of the server that a connection has reached.
type ServerInfo struct {
	Name       string
	Version    string
	MaxPayload int64
	// RoundTrip is how long a ping took.
	RoundTrip time.Duration
}

// ServerInfo asks the server that the connection has reached.
func (c *Conn) ServerInfo(ctx context.Context) (ServerInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout) // the library insists on a deadline
	defer cancel()
	before := time.Now()
	err := ctx.Err() // the library may answer one that has ended, when it is quick
	if err == nil {
		err = c.nc.FlushWithContext(ctx)
	}
	if err != nil {
		return ServerInfo{}, fmt.Errorf("NATS does not answer a ping: %w", err)
	}
	return ServerInfo{
		Name: c.nc.ConnectedServerName(), Version: c.nc.ConnectedServerVersion(), MaxPayload: c.nc.MaxPayload(),
		RoundTrip: time.Since(before),
	}, nil
}

// EventStreamSubjects returns the subjects that the stream of events takes. It fails with ErrNoJetStream or
// ErrNoEventStream where there is none.
func (c *Conn) EventStreamSubjects(ctx context.Context) ([]string, error) {
	js, err := jetstream.New(c.nc)
	if err != nil {
		return nil, fmt.Errorf("JetStream: %w", err)
	}
	stream, err := js.Stream(ctx, messages.EventStream)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, ErrNoEventStream
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrJetStreamNotEnabled),
		errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return nil, ErrNoJetStream
	case err != nil:
		return nil, fmt.Errorf("asking for the stream %s: %w", messages.EventStream, err)
	}
	return stream.CachedInfo().Config.Subjects, nil
}

// Member is a worker as it introduces itself in discovery.
type Member struct {
	Instance string
	Program  string
	Version  string
}

// Discover asks all workers who they are, and returns those that have answered when the context ends: NATS does not know
// how many there are.
func (c *Conn) Discover(ctx context.Context) ([]Member, error) {
	subject, err := micro.ControlSubject(micro.PingVerb, serviceName, "")
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	inbox := c.nc.NewInbox()
	sub, err := c.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := c.nc.PublishRequest(subject, inbox, nil); err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	var members []Member
	for {
		answer, err := sub.NextMsgWithContext(ctx)
		if ctx.Err() != nil || errors.Is(err, nats.ErrNoResponders) {
			return members, nil
		}
		if err != nil {
			return members, fmt.Errorf("discovery: %w", err)
		}
		var ping micro.Ping
		if err := json.Unmarshal(answer.Data, &ping); err == nil && ping.Name == serviceName {
			members = append(members, Member{Instance: ping.ID, Program: ping.Metadata["program"], Version: ping.Version})
		}
	}
}
