package cache

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
)

const (
	tagWalkBatch = 1000
	// tagWalkBatches bounds one run, which comes every minute.
	tagWalkBatches = 20
)

// taggedKey is a row of cache_tag.
type taggedKey struct{ tenant, tag, key string }

// tagWalk removes the rows of cache_tag that outlived the tag of their entry: a set that waited for another one of the
// same key cannot see the tags which that one has just written, and leaves them. Readers compare with the entry, so such
// rows only take room. The walk goes on, run after run, where the last one ended.
type tagWalk struct{ batches int }

// step looks at the next rows.
func (w *tagWalk) step(ctx context.Context, db postgres.Querier) (jobs.Counts, bool, error) {
	w.batches++
	last, looked, orphans, err := nextOrphans(ctx, db)
	if err != nil {
		return nil, false, err
	}
	removed, err := removeOrphans(ctx, db, orphans)
	if err != nil {
		return nil, false, err
	}
	more := looked == tagWalkBatch
	if !more {
		last = taggedKey{} // the end: the next run begins anew
	}
	return jobs.Counts{"tags": removed}, more && w.batches < tagWalkBatches, moveTagWalk(ctx, db, last)
}

// nextOrphans reads on from where the walk is and returns where it ends, how many rows it saw, and those whose entry seems
// not to have the tag.
func nextOrphans(ctx context.Context, db postgres.Querier) (last taggedKey, looked int, orphans []taggedKey, err error) {
	const sql = `
		WITH place AS MATERIALIZED (
			SELECT coalesce(max(tag_tenant), '') AS tenant, coalesce(max(tag), '') AS tag, coalesce(max(tag_key), '') AS key
			FROM morello.cache_walk
		)
		SELECT t.tenant, t.tag, t.key, NOT coalesce(t.tag = ANY (e.tags), false)
		FROM (
			SELECT tenant, tag, key FROM morello.cache_tag
			WHERE (tenant, tag, key) > ((SELECT tenant FROM place), (SELECT tag FROM place), (SELECT key FROM place))
			ORDER BY tenant, tag, key LIMIT $1
		) AS t
		LEFT JOIN morello.cache_entry AS e ON e.tenant = t.tenant AND e.key = t.key
		ORDER BY t.tenant, t.tag, t.key`
	rows, err := db.Query(ctx, sql, tagWalkBatch)
	if err != nil {
		return last, 0, nil, err
	}
	orphan := false
	_, err = pgx.ForEachRow(rows, []any{&last.tenant, &last.tag, &last.key, &orphan}, func() error {
		looked++
		if orphan {
			orphans = append(orphans, last)
		}
		return nil
	})
	return last, looked, orphans, err
}

// removeOrphans locks the entries, looks again, and removes the rows that are orphans still. Where there is no entry it
// makes a tombstone: only a row can be locked, and a set may be about to make the entry, and to find its tag there already.
func removeOrphans(ctx context.Context, db postgres.Querier, orphans []taggedKey) (int64, error) {
	if len(orphans) == 0 {
		return 0, nil
	}
	const lock = `
		INSERT INTO morello.cache_entry AS e (tenant, key, value, version, expires_at, sweep_after, created_at)
		SELECT tenant, key, '', ` + clockVersion + `, '-infinity', now() + make_interval(secs => ` + staleSeconds + `), now()
		FROM (
			SELECT DISTINCT tenant COLLATE "C", key COLLATE "C" FROM unnest($1::text[], $2::text[]) AS o (tenant, key) ORDER BY 1, 2
		) AS entries (tenant, key)
		ON CONFLICT (tenant, key) DO UPDATE SET version = e.version`
	const remove = `
		DELETE FROM morello.cache_tag AS t
		USING unnest($1::text[], $2::text[], $3::text[]) AS o (tenant, tag, key), morello.cache_entry AS e
		WHERE t.tenant = o.tenant AND t.tag = o.tag AND t.key = o.key
			AND e.tenant = o.tenant AND e.key = o.key AND NOT coalesce(o.tag = ANY (e.tags), false)`
	tenants, tags, keys := make([]string, len(orphans)), make([]string, len(orphans)), make([]string, len(orphans))
	for i, o := range orphans {
		tenants[i], tags[i], keys[i] = o.tenant, o.tag, o.key
	}
	if _, err := db.Exec(ctx, lock, tenants, keys); err != nil {
		return 0, err
	}
	removed, err := db.Exec(ctx, remove, tenants, tags, keys)
	return removed.RowsAffected(), err
}

func moveTagWalk(ctx context.Context, db postgres.Querier, to taggedKey) error {
	const sql = `
		INSERT INTO morello.cache_walk (tag_tenant, tag, tag_key) VALUES ($1, $2, $3)
		ON CONFLICT (only_one) DO UPDATE SET tag_tenant = excluded.tag_tenant, tag = excluded.tag, tag_key = excluded.tag_key`
	_, err := db.Exec(ctx, sql, to.tenant, to.tag, to.key)
	return err
}
