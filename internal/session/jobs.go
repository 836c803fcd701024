package session

import (
	"context"
	"time"

	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// Cleanup marks the sessions that have expired, and removes those that ended long ago, of all tenants.
type Cleanup struct{}

// Kind names the job.
func (Cleanup) Kind() string { return "session_cleanup" }

// CleanupConfig of the job.
type CleanupConfig struct {
	// Every is the period.
	Every time.Duration
	// Expired publishes which sessions have expired, once for each batch and tenant. It is called before the marks are
	// committed, and an error undoes them: so the event comes at least once, and is true in any case. Defaults to nothing.
	Expired func(ctx context.Context, tenant string, expired messages.SessionRefs) error
}

// NewCleanup returns the job.
func NewCleanup(cfg CleanupConfig) jobs.Periodic {
	if cfg.Expired == nil {
		cfg.Expired = func(context.Context, string, messages.SessionRefs) error { return nil }
	}
	return jobs.Periodic{Every: cfg.Every, Event: messages.SessionCleanupEvent, NewRun: func() jobs.Step {
		return jobs.InTurn(newMarking(cfg), newRemoval())
	}}
}

func newMarking(cfg CleanupConfig) jobs.Step {
	from := longAgo
	return func(ctx context.Context, db postgres.Querier) (jobs.Counts, bool, error) {
		did, err := markExpired(ctx, db, from, nil)
		if err != nil {
			return nil, false, err
		}
		from = did.last
		counts := jobs.Counts{"expired_marked": 0}
		for tenant, sessions := range did.marked {
			counts["expired_marked"] += int64(len(sessions))
			if err := cfg.Expired(ctx, tenant, messages.SessionRefs{Sessions: sessions}); err != nil {
				return nil, false, err
			}
		}
		return counts, did.looked == cleanupBatch, nil
	}
}

func newRemoval() jobs.Step {
	from := longAgo
	return func(ctx context.Context, db postgres.Querier) (jobs.Counts, bool, error) {
		did, err := removeOfAll(ctx, db, from, messages.DefaultSessionRetentionDays)
		from = did.last
		return jobs.Counts{"deleted": did.removed}, did.looked == cleanupBatch, err
	}
}
