package cache

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// Cleanup keeps the cache in shape: it removes what has expired, lapsed or been forgotten, and evicts what is too much.
type Cleanup struct{}

// Kind names the job.
func (Cleanup) Kind() string { return "cache_cleanup" }

const cleanupBatch = 1000

// CleanupConfig of the job.
type CleanupConfig struct {
	// Every is the period.
	Every time.Duration
	// MaxBytes bounds the entries of all tenants, as they are stored, with their keys, tags and index entries; the files
	// are larger by what waits for vacuum and by free space. Defaults to no bound.
	MaxBytes int64
}

// NewCleanup returns the job that removes entries which expired more than 300 seconds ago and lapsed leases, of all
// tenants, forgets keys that are hot no more and tags that were cleared long ago, removes tags that outlived their entries, and evicts entries as long as the
// cache is larger than its bound.
func NewCleanup(cfg CleanupConfig) jobs.Periodic {
	return jobs.Periodic{Every: cfg.Every, Event: messages.CacheCleanupEvent, NewRun: func() jobs.Step {
		walk, eviction := &tagWalk{}, &eviction{maxBytes: cfg.MaxBytes}
		return jobs.InTurn(newSweep(), cleanLeases, cleanClearedTags, cleanHotKeys, walk.step, eviction.step)
	}}
}

func newSweep() jobs.Step {
	last := pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true}
	return func(ctx context.Context, db postgres.Querier) (jobs.Counts, bool, error) {
		swept, err := sweep(ctx, db, last, cleanupBatch)
		last = swept.last
		return jobs.Counts{"removed": swept.removed}, swept.due == cleanupBatch, err
	}
}

func cleanLeases(ctx context.Context, db postgres.Querier) (jobs.Counts, bool, error) {
	leases, err := sweepLeases(ctx, db, cleanupBatch)
	return jobs.Counts{"leases": leases}, leases == cleanupBatch, err
}

// cleanClearedTags counts nothing: what it removes is a note.
func cleanClearedTags(ctx context.Context, db postgres.Querier) (jobs.Counts, bool, error) {
	forgotten, err := sweepClearedTags(ctx, db, cleanupBatch)
	return nil, forgotten == cleanupBatch, err
}

// cleanHotKeys counts nothing: what it removes is a statistic.
func cleanHotKeys(ctx context.Context, db postgres.Querier) (jobs.Counts, bool, error) {
	forgotten, err := sweepHotKeys(ctx, db, cleanupBatch)
	return nil, forgotten == cleanupBatch, err
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
