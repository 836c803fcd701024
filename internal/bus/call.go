package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/ai-cherry/morello/messages"
)

// replyGrace is how much longer than its deadline a caller without one of its own waits, so that the worker's own word
// about the deadline arrives.
const replyGrace = 500 * time.Millisecond

// Call calls an operation and decodes its reply. The deadline is the context's, or else the endpoint's. Failures are
// *messages.Error: those that the worker sent, and unavailable when no worker could be asked.
func Call[Req, Reply any](
	ctx context.Context, conn *Conn, endpoint messages.Endpoint[Req, Reply], tenant string, request Req,
) (Reply, error) {
	var reply Reply
	body, raw, err := messages.Pack(request)
	if err != nil {
		return reply, err
	}
	answer, err := conn.Exchange(ctx, endpoint.Info(), tenant, body, Headers{Raw: raw})
	if err != nil {
		return reply, err
	}
	return reply, messages.UnpackReply(answer.Body, func(name string) string { return answer.Raw[name] }, &reply)
}

// Headers are the optional headers of a request; see the constants of package messages.
type Headers struct {
	IdempotencyKey string
	Actor          string
	Traceparent    string
	// Raw are the headers of a request of raw bytes, by name.
	Raw map[string]string
}

// Answer is an encoded reply.
type Answer struct {
	Body []byte
	// Raw are the headers of a reply of raw bytes, by name.
	Raw map[string]string
}

// CallRaw calls an operation with an encoded body and returns the encoded body of the reply. It fails as Call does.
func (c *Conn) CallRaw(ctx context.Context, endpoint messages.EndpointInfo, tenant string, body []byte, headers Headers) ([]byte, error) {
	answer, err := c.Exchange(ctx, endpoint, tenant, body, headers)
	return answer.Body, err
}

// Exchange is CallRaw for replies that may have headers.
func (c *Conn) Exchange(ctx context.Context, endpoint messages.EndpointInfo, tenant string, body []byte, headers Headers) (Answer, error) {
	if err := endpoint.CheckScope(tenant); err != nil {
		return Answer{}, err
	}
	msg := &nats.Msg{Subject: endpoint.Subject(tenant), Data: body, Header: rawHeader(headers.Raw)}
	if deadline, given := ctx.Deadline(); given {
		setHeader(msg, messages.HeaderTimeout, strconv.FormatInt(max(1, time.Until(deadline).Milliseconds()), 10))
	} else { // the worker knows the endpoint's
		limited, cancel := context.WithTimeout(ctx, endpoint.Timeout+replyGrace)
		defer cancel()
		ctx = limited
	}
	setHeader(msg, messages.HeaderIdempotencyKey, headers.IdempotencyKey)
	setHeader(msg, messages.HeaderActor, headers.Actor)
	setHeader(msg, messages.HeaderTraceparent, headers.Traceparent)
	if err := c.checkSize(msg); err != nil {
		return Answer{}, err
	}
	reply, err := c.nc.RequestMsgWithContext(ctx, msg)
	if err != nil {
		return Answer{}, requestError(err)
	}
	if failure := replyError(reply); failure != nil {
		return Answer{}, failure
	}
	return newAnswer(endpoint, reply), nil
}

func newAnswer(endpoint messages.EndpointInfo, reply *nats.Msg) Answer {
	raw := make(map[string]string, len(endpoint.RawReply))
	for _, name := range endpoint.RawReply {
		raw[name] = reply.Header.Get(name)
	}
	return Answer{reply.Data, raw}
}

// checkSize refuses what NATS would: headers count too. It must come first, because a request that fails while it is
// published leaves an entry behind in the library's table of replies.
func (c *Conn) checkSize(msg *nats.Msg) error {
	limit := c.nc.MaxPayload()
	if size := payloadSize(msg); size > limit {
		return messages.TooLarge("", int(limit), fmt.Sprintf("the request has %d bytes with its headers", size))
	}
	return nil
}

// payloadSize is what NATS holds against max_payload: body and headers.
func payloadSize(msg *nats.Msg) int64 { return int64(msg.Size() - len(msg.Subject)) }

// setHeader makes the header when there is something to say: most requests go without, which spares all on their way.
func setHeader(msg *nats.Msg, name, value string) {
	if value == "" {
		return
	}
	if msg.Header == nil {
		msg.Header = nats.Header{}
	}
	msg.Header[name] = []string{value}
}

// requestError says what a failure of the request itself means: whether a worker may have got it.
func requestError(err error) error {
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return messages.Unavailable("no worker is listening", messages.OutcomeNotApplied, err)
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionReconnecting):
		return messages.Unavailable("NATS cannot be reached", messages.OutcomeNotApplied, err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, nats.ErrTimeout):
		return &messages.Error{Code: messages.CodeDeadlineExceeded, Message: "no reply within the deadline", Cause: err}
	default:
		return messages.Unavailable("NATS cannot be reached", messages.OutcomeUnknown, err)
	}
}

// replyError returns the failure that a reply carries, nil when it is a success.
func replyError(reply *nats.Msg) error {
	if reply.Header.Get(messages.HeaderErrorCode) == "" {
		return nil
	}
	return messages.DecodeError(reply.Data)
}
