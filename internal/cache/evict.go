package cache

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
)

const (
	// evictTo, in percent of the bound, is where an eviction ends, so that the next one is not due at once.
	evictTo = 95
	// evictPages is how far the hand moves in one batch: 256 KiB of entries, without the parts of them in TOAST.
	evictPages = 32

	// entryBytes is about what a row e takes on disk: its value as it is stored, its key in table and index, its tags in
	// three places, and what PostgreSQL adds to each.
	entryBytes = `(160 + pg_column_size(e.value) + coalesce(3 * pg_column_size(e.tags), 0)
		+ 2 * (octet_length(e.tenant) + octet_length(e.key)) * (1 + coalesce(cardinality(e.tags), 0)))::bigint`
)

// eviction keeps the cache within its bound: first in, first out, with a second chance for what is read. It is CLOCK
// (Corbató, "A Paging Experiment with the Multics System", 1968): a hand goes round the pages of the table and evicts
// what it passes, unless the key is hot. New entries take the room that it leaves, just behind it, and so are the last
// that it reaches. It costs no index, and nothing when an entry is written or read.
type eviction struct {
	maxBytes int64
	measured bool
	excess   int64 // bytes that are to be freed yet
	hand     int64 // the page that is next
	pages    int64 // of the table
	passed   int64 // pages in this run; it ends after one round
}

// step does a batch of the eviction.
func (e *eviction) step(ctx context.Context, db postgres.Querier) (jobs.Counts, bool, error) {
	if e.maxBytes <= 0 {
		return nil, false, nil
	}
	if !e.measured {
		if err := e.measure(ctx, db); err != nil {
			return nil, false, err
		}
	}
	if e.excess <= 0 || e.passed >= e.pages {
		return nil, false, nil
	}
	if e.hand >= e.pages {
		e.hand = 0
	}
	evicted, bytes, err := evict(ctx, db, e.hand, e.excess)
	if err != nil {
		return nil, false, err
	}
	e.passed += evictPages
	if e.excess -= bytes; e.excess > 0 { // else the next run goes on with what is left of these pages
		e.hand += evictPages
	}
	return jobs.Counts{"evicted": evicted, "evicted_bytes": bytes}, true, moveHand(ctx, db, e.hand)
}

// measure estimates how large the cache is, from a sample of its pages, and finds the hand.
func (e *eviction) measure(ctx context.Context, db postgres.Querier) error {
	const sql = `
		WITH sample AS (` + samplePrefix + `'morello.cache_entry'` + sampleSuffix + `)
		SELECT (coalesce(sum(` + entryBytes + `), 0) * (SELECT scale FROM sample))::bigint
		FROM morello.cache_entry AS e TABLESAMPLE SYSTEM ((SELECT 100 / scale FROM sample))
		WHERE e.expires_at > '-infinity'`
	const where = `
		SELECT coalesce((SELECT hand FROM morello.cache_walk), 0),
			pg_relation_size('morello.cache_entry') / current_setting('block_size')::bigint`
	var size int64
	batch := &pgx.Batch{}
	batch.Queue(sql).QueryRow(func(row pgx.Row) error { return row.Scan(&size) })
	batch.Queue(where).QueryRow(func(row pgx.Row) error { return row.Scan(&e.hand, &e.pages) })
	if err := db.SendBatch(ctx, batch).Close(); err != nil {
		return err
	}
	e.measured = true
	if size > e.maxBytes {
		e.excess = size - e.maxBytes/100*evictTo
	}
	return nil
}

// evict removes what the hand passes on the next pages, until that is enough. It leaves tombstones, as a delete does and
// for the same reason; what others have locked is left to the next round. An eviction is no invalidation: nobody is told.
func evict(ctx context.Context, db postgres.Querier, page, enough int64) (evicted, bytes int64, err error) {
	const sql = `
		WITH passed AS MATERIALIZED (
			SELECT tenant, key, bytes, sum(bytes) OVER (ORDER BY place) AS total
			FROM (
				SELECT e.ctid AS place, e.tenant, e.key, ` + entryBytes + ` AS bytes
				FROM morello.cache_entry AS e
				WHERE e.ctid >= $1 AND e.ctid < $2 AND e.expires_at > '-infinity' AND NOT EXISTS (
					SELECT FROM morello.cache_hot_key AS h
					WHERE h.tenant = e.tenant AND h.key = e.key AND h.noted_at > now() - 10 * make_interval(secs => ` + hotHalfLife + `)
				)
			) AS sized
		), doomed AS MATERIALIZED (
			SELECT e.tenant, e.key, passed.bytes
			FROM passed JOIN morello.cache_entry AS e ON e.tenant = passed.tenant AND e.key = passed.key
			WHERE passed.total - passed.bytes < $3
			FOR UPDATE OF e SKIP LOCKED
		), removed AS (
			UPDATE morello.cache_entry AS e SET ` + bury + `
			FROM doomed
			WHERE e.tenant = doomed.tenant AND e.key = doomed.key
			RETURNING e.tenant, e.key, e.replaced_tags AS tags, doomed.bytes
		), ` + dropTags + `
		SELECT count(*), coalesce(sum(bytes), 0)::bigint FROM removed`
	err = db.QueryRow(ctx, sql, firstRow(page), firstRow(page+evictPages), enough).Scan(&evicted, &bytes)
	return evicted, bytes, err
}

// firstRow is where a page of the table begins.
func firstRow(page int64) pgtype.TID { return pgtype.TID{BlockNumber: uint32(page), Valid: true} }

func moveHand(ctx context.Context, db postgres.Querier, hand int64) error {
	const sql = `INSERT INTO morello.cache_walk (hand) VALUES ($1) ON CONFLICT (only_one) DO UPDATE SET hand = excluded.hand`
	_, err := db.Exec(ctx, sql, hand)
	return err
}
