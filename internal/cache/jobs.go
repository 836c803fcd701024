package cache

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// Cleanup removes expired entries and lapsed leases.
type Cleanup struct{}

// Kind names the job.
func (Cleanup) Kind() string { return "cache_cleanup" }

const cleanupBatch = 1000

// NewCleanup returns the job that removes entries which expired more than 300 seconds ago, for all tenants.
func NewCleanup(every time.Duration) jobs.Periodic {
	return jobs.Periodic{Every: every, Event: messages.CacheCleanupEvent, NewRun: func() jobs.Step {
		last := pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true}
		return func(ctx context.Context, db postgres.Querier) (jobs.Counts, bool, error) {
			swept, err := sweep(ctx, db, last, cleanupBatch)
			if err != nil {
				return nil, false, err
			}
			last = swept.last
			leases, err := sweepLeases(ctx, db, cleanupBatch)
			more := swept.due == cleanupBatch || leases == cleanupBatch
			return jobs.Counts{"removed": swept.removed, "leases": leases}, more, err
		}
	}}
}

// swept is what a batch of the cleaner did.
type swept struct {
	due, removed int64
	last         pgtype.Timestamptz
}

// sweep looks at the entries whose sweep_after has passed, from where the batch before ended: from the first key it
// would walk over all that was deleted and not yet vacuumed. It removes what has expired and tells the rest, which was
// renewed in the meantime, when to be looked at again. Entries that are locked at the moment are left for the next run.
func sweep(ctx context.Context, db postgres.Querier, from pgtype.Timestamptz, batch int) (swept, error) {
	const sql = `
		WITH due AS MATERIALIZED (
			SELECT tenant, key, sweep_after, expires_at + make_interval(secs => ` + staleSeconds + `) AS over
			FROM morello.cache_entry
			WHERE sweep_after >= $1 AND sweep_after <= now()
			ORDER BY sweep_after
			LIMIT $2
			FOR UPDATE SKIP LOCKED
		), removed AS (
			DELETE FROM morello.cache_entry AS e USING due
			WHERE e.tenant = due.tenant AND e.key = due.key AND due.over <= now()
			RETURNING e.tenant, e.key, e.tags
		), rearmed AS (
			UPDATE morello.cache_entry AS e SET sweep_after = due.over FROM due
			WHERE e.tenant = due.tenant AND e.key = due.key AND due.over > now()
		), ` + dropTags + `
		SELECT count(*), (SELECT count(*) FROM removed), coalesce(max(sweep_after), $1) FROM due`
	var s swept
	err := db.QueryRow(ctx, sql, from, batch).Scan(&s.due, &s.removed, &s.last)
	return s, err
}
