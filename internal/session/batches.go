package session

import (
	"context"
	"time"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// batchShare of the deadline, in percent, is spent on batches; the rest is for the answer.
const batchShare = 80

// batches is a long change, made in steps.
type batches[Reply any] struct {
	tenant  string
	timeout time.Duration // of who brings no deadline
	// step does a bounded part in the transaction that it is given, adds to the reply and tells whether there is more.
	step    func(ctx context.Context, db postgres.Querier, reply *Reply) (more bool, err error)
	setMore func(reply *Reply, more bool)
	// committed is called when what the steps since the last call did is durable.
	committed func()
}

// inBatches runs the steps until there is no more to do or 80 % of the deadline have passed, each in a transaction of its own;
// with an idempotency key all are one transaction.
func inBatches[Reply any](ctx context.Context, pool *postgres.Pool, b batches[Reply]) (Reply, error) {
	deadline, given := ctx.Deadline()
	if !given {
		deadline = time.Now().Add(b.timeout)
	}
	until := time.Now().Add(time.Until(deadline) * batchShare / 100)
	oneTx := messages.Keyed(ctx)
	var reply Reply
	for more, over := true, false; more && !over; {
		next, err := postgres.InTx(ctx, pool, b.tenant, func(ctx context.Context, db postgres.Querier) (next Reply, err error) {
			next = reply
			for again := true; again && err == nil; again = oneTx && more && !over {
				more, err = b.step(ctx, db, &next)
				over = !time.Now().Before(until)
			}
			b.setMore(&next, more && over)
			return next, err
		})
		if err != nil {
			return reply, err
		}
		b.committed()
		reply = next
		if oneTx {
			break
		}
	}
	return reply, nil
}
