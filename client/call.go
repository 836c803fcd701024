package client

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nats-io/nats.go"

	"github.com/ai-cherry/morello/messages"
)

// replyGrace is how much longer than its deadline a call without one of its own waits, so that the worker's own word
// about the deadline arrives.
const replyGrace = 500 * time.Millisecond

type validator interface{ Validate() error }

// Call calls an operation that has no method yet; the methods are calls of it too. The request is validated here before
// anything is sent. See the package comment for deadlines, retries and errors.
func Call[Req validator, Reply any](
	ctx context.Context, c *Client, endpoint messages.Endpoint[Req, Reply], request Req,
) (Reply, error) {
	if err := c.enter(); err != nil {
		var none Reply
		return none, err
	}
	defer c.calls.Done()
	return exchange(ctx, c, endpoint, request)
}

// exchange is a Call of somebody whom Close waits for already.
func exchange[Req validator, Reply any](
	ctx context.Context, c *Client, endpoint messages.Endpoint[Req, Reply], request Req,
) (Reply, error) {
	var reply Reply
	if err := request.Validate(); err != nil {
		return reply, err
	}
	message := any(request) // converted once: it is copied to the heap
	body, raw, err := messages.Pack(message)
	if err != nil {
		return reply, &messages.Error{Code: messages.CodeInvalid, Message: "the request cannot be encoded as JSON", Cause: err}
	}
	answer, err := c.send(ctx, endpoint.Info(), packed{body, raw, messages.GoesAlone(message)})
	if err != nil {
		return reply, err
	}
	if err := messages.UnpackReply(answer.Data, answer.Header.Get, &reply); err != nil {
		return reply, &messages.Error{Code: messages.CodeInternal, Message: "the reply cannot be read", Cause: err}
	}
	return reply, nil
}

// headers are what a context adds to a call; see the constants of package messages.
type headers struct{ idempotencyKey, actor, traceparent string }

type headersKey struct{}

func headersFrom(ctx context.Context) headers {
	h, _ := ctx.Value(headersKey{}).(headers)
	return h
}

// WithIdempotencyKey makes the repetition of one mutating call safe, by this client or a later process: within 24 hours
// the same request with the same key gets the first reply and has no second effect; another request is conflict. The
// key has 1 to 128 bytes without control characters; an empty one takes away the context's. Operations that change
// nothing ignore it.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	h := headersFrom(ctx)
	h.idempotencyKey = key
	return context.WithValue(ctx, headersKey{}, h)
}

// WithActor says on whose behalf the calls of this context are made, for the audit trail: up to 200 bytes of UTF-8
// without control characters.
func WithActor(ctx context.Context, actor string) context.Context {
	h := headersFrom(ctx)
	h.actor = actor
	return context.WithValue(ctx, headersKey{}, h)
}

// WithTraceparent sends the W3C trace context with the calls of this context. A malformed one is ignored, as W3C has it.
func WithTraceparent(ctx context.Context, traceparent string) context.Context {
	h := headersFrom(ctx)
	h.traceparent = traceparent
	return context.WithValue(ctx, headersKey{}, h)
}

func (h headers) validate() error {
	if len(h.idempotencyKey) > messages.MaxIdempotencyKeyBytes || !isPlainText(h.idempotencyKey) {
		return messages.Invalid(messages.HeaderIdempotencyKey, "must have 1 to %d bytes, of UTF-8 without control characters", messages.MaxIdempotencyKeyBytes)
	}
	if len(h.actor) > messages.MaxActorBytes || !isPlainText(h.actor) {
		return messages.Invalid(messages.HeaderActor, "must have %d bytes at most, of UTF-8 without control characters", messages.MaxActorBytes)
	}
	return nil
}

func isPlainText(text string) bool {
	return utf8.ValidString(text) && strings.IndexFunc(text, unicode.IsControl) < 0
}

func (h headers) encode() nats.Header {
	header := nats.Header{}
	if h == (headers{}) {
		return header
	}
	for name, value := range map[string]string{
		messages.HeaderIdempotencyKey: h.idempotencyKey, messages.HeaderActor: h.actor, messages.HeaderTraceparent: h.traceparent,
	} {
		if value != "" && isPlainText(value) {
			header.Set(name, value)
		}
	}
	return header
}

// packed is an encoded request.
type packed struct {
	body      []byte
	raw       map[string]string // headers, if the body is raw bytes
	goesAlone bool              // in no message with others
}

// send sends a request, again if need be, and returns the reply.
func (c *Client) send(ctx context.Context, endpoint messages.EndpointInfo, p packed) (*nats.Msg, error) {
	if err := endpoint.CheckScope(c.tenant); err != nil {
		return nil, err
	}
	h := headersFrom(ctx)
	if err := h.validate(); err != nil {
		return nil, err
	}
	deadline, given := ctx.Deadline()
	if !given {
		deadline = time.Now().Add(endpoint.Timeout)
	}
	header := h.encode()
	for name, value := range p.raw {
		header.Set(name, value)
	}
	r := &request{
		client: c, deadline: deadline, given: given, timeout: endpoint.Timeout,
		msg:        &nats.Msg{Subject: endpoint.Subject(c.tenant), Data: p.body, Header: header},
		repeatable: endpoint.Repeatable(h.idempotencyKey != ""),
	}
	if !p.goesAlone && len(header) == 0 && len(p.body) <= maxGatheredBytes {
		r.gatherer = c.gathererOf(endpoint)
	}
	return r.run(ctx)
}

// request is a message that may have to be sent several times.
type request struct {
	client     *Client
	msg        *nats.Msg
	gatherer   *gatherer     // nil: it goes by itself
	deadline   time.Time     // of the call with all its attempts
	given      bool          // whether the deadline is the caller's, and not the endpoint's
	timeout    time.Duration // within which the endpoint is expected to answer
	repeatable bool          // a second effect is the same as none
}

// attempt makes the n-th attempt. If another may follow, and has time to, it waits no longer than the endpoint's time-out. What
// is left of the deadline need not be said while it is what the worker assumes.
func (r *request) attempt(ctx context.Context, n int) (*nats.Msg, *messages.Error) {
	nc := r.client.nc
	mayRepeat := n < r.client.attempts
	if r.given || n > 1 {
		r.msg.Header.Set(messages.HeaderTimeout, timeoutText(r.deadline))
	}
	if err := r.checkSize(); err != nil {
		return nil, err
	}
	if ctx.Err() == nil && !nc.IsConnected() {
		// Looked at first, because a request that fails while it is published leaves an entry in the library's table of
		// replies, each time.
		return nil, messages.Unavailable("NATS cannot be reached", messages.OutcomeNotApplied, nats.ErrDisconnected)
	}
	waiting := ctx
	if mayRepeat && r.repeatable && time.Until(r.deadline) > r.timeout+replyGrace {
		limited, cancel := context.WithTimeout(ctx, r.timeout)
		defer cancel()
		waiting = limited
	}
	reply, err := r.roundTrip(waiting)
	var known *messages.Error
	switch {
	case err == nil:
		return reply, replyError(reply)
	case errors.As(err, &known):
		return nil, known
	case ctx.Err() != nil:
		return nil, ended(ctx.Err())
	case errors.Is(err, context.DeadlineExceeded) && !time.Now().Before(r.deadline):
		return nil, ended(err)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, messages.Unavailable(fmt.Sprintf("no reply within the attempt's time-out (%s)", r.timeout), messages.OutcomeUnknown, err)
	case errors.Is(err, nats.ErrNoResponders):
		return nil, messages.Unavailable("no worker is listening", messages.OutcomeNotApplied, err)
	case errors.Is(err, nats.ErrReconnectBufExceeded):
		return nil, messages.Unavailable("NATS cannot be reached", messages.OutcomeNotApplied, err)
	}
	return nil, messages.Unavailable("the connection to NATS broke before the reply", messages.OutcomeUnknown, err)
}

// timeoutText is what HeaderTimeout says.
func timeoutText(deadline time.Time) string {
	return strconv.FormatInt(max(1, time.Until(deadline).Milliseconds()), 10)
}

// roundTrip sends the request, alone or with others, and returns the reply or the library's error.
func (r *request) roundTrip(ctx context.Context) (*nats.Msg, error) {
	if r.gatherer != nil {
		return r.gatherer.roundTrip(ctx, r)
	}
	return r.roundTripAlone(ctx)
}

func (r *request) roundTripAlone(ctx context.Context) (*nats.Msg, error) {
	if !r.given {
		limited, cancel := context.WithDeadline(ctx, r.deadline.Add(replyGrace))
		defer cancel()
		ctx = limited
	}
	return r.client.nc.RequestMsgWithContext(ctx, r.msg)
}

// checkSize refuses what NATS would: headers count too. It comes first for the same reason as the look at the connection.
func (r *request) checkSize() *messages.Error {
	limit := r.client.nc.MaxPayload()
	if size := int64(r.msg.Size() - len(r.msg.Subject)); size > limit {
		return messages.TooLarge("", int(limit), fmt.Sprintf("the request has %d bytes with its headers", size))
	}
	return nil
}

// ended is the failure of a call whose context ended, by its deadline or by the caller.
func ended(cause error) *messages.Error {
	return &messages.Error{Code: messages.CodeDeadlineExceeded, Message: "no reply within the caller's time", Cause: cause}
}

// replyError returns the failure that a reply carries, nil when it is a success.
func replyError(reply *nats.Msg) *messages.Error {
	if reply.Header.Get(messages.HeaderErrorCode) == "" {
		return nil
	}
	return messages.DecodeError(reply.Data)
}
