package client

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/ai-cherry/morello/messages"
)

const (
	// maxUnanswered is how many messages of one operation may be without a reply before requests gather: one that a worker
	// works on, and one that waits there, so that it need not wait for the network.
	maxUnanswered = 2
	// gatherPatience is how long requests gather at most: one that is slow to be answered does not hold up the others.
	gatherPatience = 5 * time.Millisecond
	// maxGatheredBytes bounds a request that goes with others, and maxGatheredTotal a message of several.
	maxGatheredBytes = 8 << 10
	maxGatheredTotal = 256 << 10
)

// gatherer sends the requests of concurrent callers to one operation in few messages, as pipelining does: a message costs NATS,
// the worker and this process more than most requests in it. There is no timer for who is alone: a request leaves at once while
// fewer than maxUnanswered messages are without a reply. Otherwise it waits for a reply to one of them, for gatherPatience
// at most, and then leaves in one message with all that came meanwhile.
type gatherer struct {
	client   *Client
	endpoint messages.EndpointInfo

	mu         sync.Mutex
	waiting    []*gathered
	unanswered int // messages for whose replies others wait
}

// gathered is a request on its way.
type gathered struct {
	ctx      context.Context
	deadline time.Time
	given    bool // whether the context ends at the deadline
	body     []byte
	answer   chan answer // of one
}

// give answers a request, if it has no answer yet.
func (w *gathered) give(a answer) {
	select {
	case w.answer <- a:
	default:
	}
}

// answer is what came of a request: the reply, an error of the worker or of the library, or that it is to be sent by itself.
type answer struct {
	reply *nats.Msg
	err   error
	alone bool
}

// gathererOf returns the gatherer of an operation; nil if its requests go one by one.
func (c *Client) gathererOf(endpoint messages.EndpointInfo) *gatherer {
	if !endpoint.Batched || c.maxBatch == 1 {
		return nil
	}
	if g, ok := c.gatherers.Load(endpoint.Name); ok {
		return g.(*gatherer)
	}
	g, _ := c.gatherers.LoadOrStore(endpoint.Name, &gatherer{client: c, endpoint: endpoint})
	return g.(*gatherer)
}

// roundTrip sends a request, alone or with others, and returns its reply or the library's error.
func (g *gatherer) roundTrip(ctx context.Context, r *request) (*nats.Msg, error) {
	waits := g.join(ctx, r)
	if waits == nil {
		answered := g.expectAnswer()
		defer answered()
		return r.roundTripAlone(ctx)
	}
	select {
	case got := <-waits.answer:
		if got.alone {
			return r.roundTripAlone(ctx)
		}
		return got.reply, got.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// join lets a request wait for others; nil if it is to leave at once, in a message that is counted.
func (g *gatherer) join(ctx context.Context, r *request) *gathered {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.unanswered < maxUnanswered {
		g.unanswered++
		return nil
	}
	waits := &gathered{ctx: ctx, deadline: r.deadline, given: r.given, body: r.msg.Data, answer: make(chan answer, 1)}
	g.waiting = append(g.waiting, waits)
	return waits
}

// expectAnswer returns what is to be called when the reply to a message is there. Others wait for that no longer than
// gatherPatience.
func (g *gatherer) expectAnswer() (answered func()) {
	timer := time.AfterFunc(gatherPatience, g.next)
	return func() {
		if timer.Stop() {
			g.next()
		}
	}
}

// next sends those who wait, or gives back the place of the message before.
func (g *gatherer) next() {
	g.mu.Lock()
	batch := g.take()
	if len(batch) == 0 {
		g.unanswered--
	}
	g.mu.Unlock()
	if len(batch) > 0 {
		go g.send(batch)
	}
}

// take removes those from the queue who go together, and those who wait no longer.
func (g *gatherer) take() (batch []*gathered) {
	total, taken := 0, 0
	limit := min(maxGatheredTotal, int(g.client.nc.MaxPayload())/2)
	for _, waits := range g.waiting {
		if waits.ctx.Err() == nil {
			if len(batch) == g.client.maxBatch || len(batch) > 0 && total+len(waits.body) > limit {
				break
			}
			batch = append(batch, waits)
			total += len(waits.body) + 1
		}
		taken++
	}
	left := copy(g.waiting, g.waiting[taken:])
	clear(g.waiting[left:])
	g.waiting = g.waiting[:left]
	return batch
}

// send sends requests in one message and hands out the replies. It waits as long as the most patient of the callers, but not longer
// than a worker may work; each of the others leaves when its own time has come.
func (g *gatherer) send(batch []*gathered) {
	answered := g.expectAnswer()
	deadline := batch[0].deadline
	bodies := make([][]byte, len(batch))
	for i, waits := range batch {
		bodies[i] = waits.body
		if waits.deadline.After(deadline) {
			deadline = waits.deadline
		}
	}
	msg := &nats.Msg{Subject: g.endpoint.Subject(g.client.tenant), Data: bodies[0], Header: nats.Header{
		messages.HeaderTimeout: {timeoutText(deadline)},
	}}
	if len(batch) > 1 {
		msg.Header[messages.HeaderBatch] = []string{strconv.Itoa(len(batch))}
		msg.Data = messages.JoinBatch(bodies)
	}
	for _, waits := range batch {
		if latest := waits.deadline.Add(replyGrace); !waits.given && latest.Before(deadline) { // its context does not end
			leave := time.AfterFunc(time.Until(latest), func() { waits.give(answer{err: context.DeadlineExceeded}) })
			defer leave.Stop()
		}
	}
	if latest := time.Now().Add(messages.MaxTimeout); latest.Before(deadline) {
		deadline = latest
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline.Add(replyGrace))
	defer cancel()
	reply, err := g.client.nc.RequestMsgWithContext(ctx, msg)
	answered()
	if len(batch) == 1 {
		batch[0].give(answer{reply: reply, err: err})
		return
	}
	g.handOut(batch, reply, err)
}

// handOut gives each request its part of the reply to all. When the message as such was refused for what it holds, or by a worker
// that knows nothing of several requests, each is to go by itself; and so is one whose reply was too large to come with the others.
func (g *gatherer) handOut(batch []*gathered, reply *nats.Msg, err error) {
	all := answer{err: err}
	var elements [][]byte
	if err == nil {
		if failure := replyError(reply); failure != nil {
			all = answer{err: failure, alone: failure.Code == messages.CodeInvalid || failure.Code == messages.CodeTooLarge}
		} else if elements, err = messages.SplitBatch(reply.Data, len(batch)); err != nil {
			all.err = &messages.Error{Code: messages.CodeInternal, Message: "the reply cannot be read", Cause: err}
		}
	}
	for i, waits := range batch {
		got := all
		if elements != nil {
			got = g.answerOf(elements[i])
		}
		waits.give(got)
	}
}

func (g *gatherer) answerOf(element []byte) answer {
	failure := messages.BatchedError(element)
	if failure == nil {
		return answer{reply: &nats.Msg{Data: element}}
	}
	return answer{err: failure, alone: failure.Code == messages.CodeTooLarge && g.endpoint.Repeatable(false)}
}
