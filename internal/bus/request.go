package bus

import (
	"context"
	"crypto/sha256"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/ai-cherry/morello/messages"
)

// request is a message on its way through the steps of the package comment.
type request struct {
	endpoint *endpoint
	msg      *nats.Msg
	tenant   string
	arrived  time.Time
	deadline time.Time
	call     messages.Call
	requests int    // how many the message carries; 0: one, which is the body
	batch    *batch // that this is one request of; nil: it came by itself
	place    int    // in the batch
	reserved int64  // see Reserve
	// replyHeader are the headers of a reply of raw bytes.
	replyHeader nats.Header
}

// receive takes steps 1 to 4. It runs on the subscription's goroutine and must not wait.
func (e *endpoint) receive(msg *nats.Msg) {
	s := e.server
	r := &request{endpoint: e, msg: msg, arrived: time.Now(), tenant: messages.RequestTenant(msg.Subject)}
	if !mayReplyTo(msg.Reply) || isInboxOfOther(msg.Reply, r.tenant) {
		s.dropped.replySubject.Add(1)
		s.log.Debug("dropped a request whose reply subject is no inbox of the caller", "subject", limited(msg.Subject, 100))
		return
	}
	if err := e.Endpoint.CheckScope(r.tenant); err != nil {
		r.fail(err)
		return
	}
	if err := r.readHeaders(); err != nil {
		r.fail(err)
		return
	}
	if err := s.admission.enter(r.tenant, r.load()); err != nil {
		r.fail(err)
		return
	}
	s.handlers.Add(1)
	switch {
	case r.requests > 0:
		go r.divide()
	case len(msg.Data) <= maxDeferredBytes:
		r.start()
	default:
		go r.run()
	}
}

// load is what the message counts for in the admission.
func (r *request) load() load { return load{int64(max(1, r.requests)), int64(len(r.msg.Data))} }

// start sets the request to work, and does not wait for it.
func (r *request) start() {
	if r.endpoint.begin != nil && r.call.IdempotencyKey == "" {
		r.begin()
		return
	}
	go r.run()
}

// maxDeferredBytes bounds what is decoded on the subscription's goroutine, where others wait behind it.
const maxDeferredBytes = 8 << 10

// readHeaders takes what the request brings besides its body.
func (r *request) readHeaders() error {
	timeout := r.endpoint.Endpoint.Timeout
	r.call.Endpoint = r.endpoint.Endpoint.Name
	header := r.msg.Header
	if text := header.Get(messages.HeaderTimeout); text != "" {
		ms, err := strconv.ParseInt(text, 10, 64)
		if err != nil || ms < 1 {
			return messages.Invalid(messages.HeaderTimeout, "must be a whole number of milliseconds, 1 or more")
		}
		timeout = time.Duration(min(ms, messages.MaxTimeout.Milliseconds())) * time.Millisecond
	}
	r.deadline = r.arrived.Add(timeout)
	r.call.Actor = header.Get(messages.HeaderActor)
	if len(r.call.Actor) > messages.MaxActorBytes || !isPlainText(r.call.Actor) {
		return messages.Invalid(messages.HeaderActor, "must have %d bytes at most, of UTF-8 without control characters", messages.MaxActorBytes)
	}
	if trace := header.Get(messages.HeaderTraceparent); isTraceparent(trace) {
		r.call.Traceparent = trace // else ignored, as W3C has it
	}
	if err := r.readIdempotencyKey(header); err != nil {
		return err
	}
	return r.readBatch(header)
}

func isPlainText(text string) bool {
	return utf8.ValidString(text) && strings.IndexFunc(text, unicode.IsControl) < 0
}

// isTraceparent reports whether the text is a W3C trace context: 2, 32, 16 and 2 lower-case hexadecimal digits.
func isTraceparent(text string) bool {
	if len(text) != 55 || text[2] != '-' || text[35] != '-' || text[52] != '-' {
		return false
	}
	return strings.Trim(text, "0123456789abcdef-") == ""
}

// readIdempotencyKey ignores the key of a request that changes nothing: repeating it is free.
func (r *request) readIdempotencyKey(header nats.Header) error {
	keys, given := header[messages.HeaderIdempotencyKey]
	if !given || !r.endpoint.Endpoint.Mutates {
		return nil
	}
	if len(keys) != 1 || keys[0] == "" || len(keys[0]) > messages.MaxIdempotencyKeyBytes {
		return messages.Invalid(messages.HeaderIdempotencyKey, "must be one key of 1 to %d characters", messages.MaxIdempotencyKeyBytes)
	}
	r.call.IdempotencyKey = keys[0]
	hash := sha256.New()
	hash.Write([]byte(r.call.Endpoint))
	hash.Write([]byte{0})
	for _, name := range r.endpoint.Endpoint.RawRequest {
		hash.Write([]byte(header.Get(name)))
		hash.Write([]byte{0})
	}
	hash.Write(r.msg.Data)
	hash.Sum(r.call.Fingerprint[:0])
	return nil
}

// begin takes step 6 at once and leaves the rest to the batch that the request joins; see BindDeferred.
func (r *request) begin() {
	_, err := protect(func() ([]byte, error) { return nil, r.endpoint.begin(r) })
	if err != nil {
		r.finish(nil, err)
	}
}

// run takes steps 5 to 9, on a goroutine of its own.
func (r *request) run() {
	if !time.Now().Before(r.deadline) {
		r.endpoint.server.dropped.expired.Add(1)
		r.leave()
		return
	}
	r.perform(func(ctx context.Context) ([]byte, error) { return r.endpoint.handle(ctx, r) })
}

// perform runs the operation with deadline and Call in its context, and answers.
func (r *request) perform(operation func(ctx context.Context) ([]byte, error)) {
	ctx, cancel := context.WithDeadline(messages.WithCall(r.endpoint.server.work, &r.call), r.deadline)
	defer cancel()
	ctx = context.WithValue(ctx, requestKey{}, r)
	r.finish(protect(func() ([]byte, error) { return operation(ctx) }))
}

// protect makes of a panic an internal error of this one request.
func protect(fn func() ([]byte, error)) (body []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return fn()
}

// finish answers the request and lets the next one in.
func (r *request) finish(body []byte, err error) {
	defer r.leave()
	if err == nil {
		err = r.reply(body)
	}
	if err != nil {
		r.fail(err)
	}
}

func (r *request) leave() {
	if r.batch != nil {
		r.batch.leave()
		return
	}
	s := r.endpoint.server
	s.replies.Release(r.reserved)
	s.admission.leave(r.tenant, r.load())
	s.handlers.Done()
}

func (r *request) reply(body []byte) error {
	if r.batch != nil {
		if err := r.batch.add(r.place, body); err != nil {
			return err
		}
		r.endpoint.stats.succeeded(time.Since(r.arrived))
		return nil
	}
	s := r.endpoint.server
	msg := &nats.Msg{Subject: r.msg.Reply, Data: body, Header: r.replyHeader}
	if limit, size := s.conn.nc.MaxPayload(), payloadSize(msg); size > limit {
		return messages.TooLarge("", int(limit), fmt.Sprintf("the reply has %d bytes", size))
	}
	r.endpoint.stats.succeeded(time.Since(r.arrived))
	s.send(msg)
	return nil
}

// fail answers with an error, counts it and logs it.
func (r *request) fail(err error) {
	failure := messages.AsError(err)
	r.logFailure(failure)
	r.endpoint.stats.failed(time.Since(r.arrived), failure)
	repeatable := r.endpoint.Endpoint.Repeatable(r.call.IdempotencyKey != "")
	if r.batch != nil {
		r.batch.addError(r.place, failure, repeatable)
		return
	}
	r.endpoint.server.sendError(r.msg.Reply, failure, repeatable)
}

// logFailure logs an internal error under a new id, which it adds to what the caller sees; other failures are the
// caller's business, and logged for who looks for them.
func (r *request) logFailure(failure *messages.Error) {
	log := r.endpoint.server.log.With("endpoint", r.endpoint.Endpoint.Name, "tenant", limited(r.tenant, 100))
	if r.call.Traceparent != "" {
		log = log.With("traceparent", r.call.Traceparent)
	}
	if failure.Code != messages.CodeInternal {
		log.Debug("request failed", "code", string(failure.Code), "error", failure.Message, "cause", failure.Cause)
		return
	}
	failure.Details.ErrorID = uuid.NewString()
	log.Error("request failed", "error_id", failure.Details.ErrorID, "error", failure.Message, "cause", failure.Cause)
}

// sendError sends a failure as ADR-32 has it: two headers, and our body.
func (s *Server) sendError(subject string, failure *messages.Error, idempotent bool) {
	body, err := messages.Encode(failure.Body(idempotent))
	if err != nil {
		s.log.Error("an error reply could not be encoded", "error", err)
		return
	}
	s.send(&nats.Msg{Subject: subject, Data: body, Header: nats.Header{
		messages.HeaderErrorCode: {strconv.Itoa(failure.Code.Number())},
		messages.HeaderError:     {headerText(failure.Error())},
	}})
}

// headerText makes one line of a text that may quote what the caller sent.
func headerText(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, limited(text, 500))
}

// limited cuts what callers choose freely before it goes into a log or a header.
func limited(text string, limit int) string {
	if len(text) > limit {
		return strings.ToValidUTF8(text[:limit], "") + "…"
	}
	return text
}

// send publishes a reply. When the connection is down the reply is lost, as the caller's request would have been.
func (s *Server) send(msg *nats.Msg) {
	if err := s.conn.nc.PublishMsg(msg); err != nil {
		s.log.Warn("a reply could not be sent", "error", err)
	}
}
