package transfer

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// Cleanup removes the parts of transfers that have expired.
type Cleanup struct{}

// Kind names the job.
func (Cleanup) Kind() string { return "transfer_cleanup" }

// cleanupBatch is small because the rows are large: 50 MB.
const cleanupBatch = 100

// NewCleanup returns the job, which looks at the parts of all tenants.
func NewCleanup(every time.Duration) jobs.Periodic {
	return jobs.Periodic{Every: every, Event: messages.TransferCleanupEvent, NewRun: func() jobs.Step {
		from := pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true}
		return func(ctx context.Context, db postgres.Querier) (jobs.Counts, bool, error) {
			did, err := cleanUp(ctx, db, from, cleanupBatch)
			from = did.last
			return jobs.Counts{"removed": did.removed}, did.removed == cleanupBatch, err
		}
	}}
}

// cleaned is what a batch did.
type cleaned struct {
	removed int64
	last    pgtype.Timestamptz
}

// cleanUp removes expired parts, from where the batch before ended, and what they count. Parts that are locked, because they are
// put or deleted at the moment, are left for the next run. Only here are the counts of several tenants locked; nobody else who
// holds one waits for anything.
func cleanUp(ctx context.Context, db postgres.Querier, from pgtype.Timestamptz, batch int) (did cleaned, err error) {
	const sql = `
		WITH due AS MATERIALIZED (
			SELECT tenant, transfer_id, part, expires_at FROM morello.transfer_part
			WHERE expires_at >= $1 AND expires_at <= now()
			ORDER BY expires_at LIMIT $2
			FOR UPDATE SKIP LOCKED
		), removed AS (
			DELETE FROM morello.transfer_part AS p USING due
			WHERE p.tenant = due.tenant AND p.transfer_id = due.transfer_id AND p.part = due.part
			RETURNING p.tenant, p.counted
		), freed AS (
			UPDATE morello.transfer_usage AS u SET bytes = u.bytes - r.counted
			FROM (SELECT tenant, sum(counted) AS counted FROM removed GROUP BY tenant) AS r
			WHERE u.tenant = r.tenant
		)
		SELECT count(*), coalesce(max(expires_at), $1) FROM due`
	err = db.QueryRow(ctx, sql, from, batch).Scan(&did.removed, &did.last)
	return did, err
}
