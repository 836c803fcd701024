package jobs

import (
	"context"
	"time"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// IdempotencyCleanup removes the replies that are kept for repeated requests when their time is over.
type IdempotencyCleanup struct{}

// Kind names the job.
func (IdempotencyCleanup) Kind() string { return "idempotency_cleanup" }

const idempotencyBatch = 1000

// NewIdempotencyCleanup returns the job.
func NewIdempotencyCleanup(every time.Duration) Periodic {
	return Periodic{Every: every, Event: messages.IdempotencyCleanupEvent, NewRun: func() Step {
		return func(ctx context.Context, db postgres.Querier) (Counts, bool, error) {
			removed, err := postgres.CleanIdempotencyKeys(ctx, db, idempotencyBatch)
			return Counts{"removed": removed}, removed == idempotencyBatch, err
		}
	}}
}
