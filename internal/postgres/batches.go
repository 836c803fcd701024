package postgres

import (
	"context"
	"time"

	"github.com/ai-cherry/morello/messages"
)

// batchShare of the deadline, in percent, is spent on batches; the rest is for the answer.
const batchShare = 80

// Batches is a long change, made in steps.
type Batches[Reply any] struct {
	Tenant string
	// Timeout is for who brings no deadline.
	Timeout time.Duration
	// Step does a bounded part in the transaction that it is given, adds to the reply and tells whether there is more.
	Step func(ctx context.Context, db Querier, reply *Reply) (more bool, err error)
	// SetMore notes in the reply that time ran out before the work.
	SetMore func(reply *Reply, more bool)
	// Committed is called when what the steps since the last call did is durable. Defaults to nothing.
	Committed func()
}

// InBatches runs the steps until there is no more to do or 80 % of the deadline have passed, each in a transaction of its own;
// with an idempotency key all are one transaction. With an error it returns the reply of what is durable.
func InBatches[Reply any](ctx context.Context, pool *Pool, b Batches[Reply]) (Reply, error) {
	deadline, given := ctx.Deadline()
	if !given {
		deadline = time.Now().Add(b.Timeout)
	}
	until := time.Now().Add(time.Until(deadline) * batchShare / 100)
	oneTx := messages.Keyed(ctx)
	var reply Reply
	for more, over := true, false; more && !over; {
		next, err := InTx(ctx, pool, b.Tenant, func(ctx context.Context, db Querier) (next Reply, err error) {
			next = reply
			for again := true; again && err == nil; again = oneTx && more && !over {
				more, err = b.Step(ctx, db, &next)
				over = !time.Now().Before(until)
			}
			b.SetMore(&next, more && over)
			return next, err
		})
		if err != nil {
			return reply, err
		}
		if b.Committed != nil {
			b.Committed()
		}
		reply = next
		if oneTx {
			break
		}
	}
	return reply, nil
}
