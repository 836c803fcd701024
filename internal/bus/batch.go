package bus

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/ai-cherry/morello/messages"
)

// batch is the requests of one message, on their way; see messages.HeaderBatch. Each of them takes the steps of the package
// comment from the body on, as if it had come by itself; the last that is done sends the replies of all.
type batch struct {
	message *request

	mu      sync.Mutex
	replies [][]byte
	room    int // bytes that replies may still have
	atWork  int
}

// batchFraming is kept free in a reply for each request: what is between the replies, and an error in place of a reply.
const batchFraming = 1 << 10

// readBatch takes the number of requests from the headers.
func (r *request) readBatch(header nats.Header) error {
	text := header.Get(messages.HeaderBatch)
	if text == "" {
		return nil
	}
	n, err := strconv.Atoi(text)
	switch {
	case !r.endpoint.Endpoint.Batched:
		return messages.Invalid(messages.HeaderBatch, "%s takes one request a message", r.endpoint.Endpoint.Name)
	case err != nil || n < 1 || n > messages.MaxBatchRequests:
		return messages.Invalid(messages.HeaderBatch, "must be a whole number from 1 to %d", messages.MaxBatchRequests)
	case r.call.IdempotencyKey != "":
		return messages.Invalid(messages.HeaderIdempotencyKey, "cannot be given to several requests at once")
	}
	r.requests = n
	return nil
}

// divide sets the requests of the message to work, on a goroutine of its own.
func (r *request) divide() {
	if !time.Now().Before(r.deadline) {
		r.endpoint.server.dropped.expired.Add(1)
		r.leave()
		return
	}
	bodies, err := messages.SplitBatch(r.msg.Data, r.requests)
	if err != nil {
		r.finish(nil, err)
		return
	}
	n := len(bodies)
	b := &batch{
		message: r, replies: make([][]byte, n), atWork: n,
		room: int(r.endpoint.server.conn.nc.MaxPayload()) - n*batchFraming,
	}
	requests, msgs := make([]request, n), make([]nats.Msg, n)
	for i, body := range bodies {
		msgs[i] = nats.Msg{Header: r.msg.Header, Data: body}
		requests[i] = request{
			endpoint: r.endpoint, msg: &msgs[i], tenant: r.tenant, arrived: r.arrived, deadline: r.deadline, call: r.call, batch: b, place: i,
		}
		requests[i].start()
	}
}

// add keeps a reply until the last is there. One that does not fit in with those before it is too_large.
func (b *batch) add(place int, reply []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(reply) > b.room {
		return messages.TooLarge("", messages.MaxBatchedReplyBytes,
			fmt.Sprintf("the reply has %d bytes, too many to come with the others: send the request by itself", len(reply)))
	}
	b.room -= len(reply)
	b.replies[place] = reply
	return nil
}

// addError keeps a failure in place of a reply.
func (b *batch) addError(place int, failure *messages.Error, repeatable bool) {
	body, err := messages.Encode(failure.Body(repeatable))
	if err != nil {
		b.message.endpoint.server.log.Error("an error reply could not be encoded", "error", err)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.replies[place] = body
}

// leave notes that a request is done.
func (b *batch) leave() {
	b.mu.Lock()
	b.atWork--
	last := b.atWork == 0
	b.mu.Unlock()
	if last {
		b.send()
	}
}

// send answers the message. What was not answered ran out of time before its work began.
func (b *batch) send() {
	r := b.message
	defer r.leave()
	late := messages.AsError(context.DeadlineExceeded)
	for i, reply := range b.replies {
		if reply == nil {
			b.addError(i, late, r.endpoint.Endpoint.Repeatable(false))
		}
	}
	r.endpoint.server.send(&nats.Msg{Subject: r.msg.Reply, Data: messages.JoinBatch(b.replies)})
}
