package cache

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// Delete deletes the entry of a key, at a given version if one is named. Deleting what is not there is deleted:false.
func (s *Service) Delete(ctx context.Context, tenant string, m messages.CacheDelete) (messages.CacheDeleteReply, error) {
	many, err := s.deleteKeys(ctx, tenant, []string{m.Key}, condition{version: m.IfVersion})
	return messages.CacheDeleteReply{Deleted: many.Deleted == 1}, err
}

// DeleteMany deletes the entries of the keys in one round trip and counts those that were live.
func (s *Service) DeleteMany(ctx context.Context, tenant string, m messages.CacheDeleteMany) (messages.CacheDeleteManyReply, error) {
	return s.deleteKeys(ctx, tenant, m.Keys, condition{})
}

func (s *Service) deleteKeys(ctx context.Context, tenant string, keys []string, only condition) (messages.CacheDeleteManyReply, error) {
	var removed []messages.CacheKeyVersion
	reply, err := postgres.InStatement(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (reply messages.CacheDeleteManyReply, err error) {
		removed, err = deleteEntries(ctx, db, tenant, keys, only)
		return messages.CacheDeleteManyReply{Deleted: len(removed)}, err
	})
	if err == nil && len(removed) > 0 {
		s.invalidated(tenant, messages.CacheInvalidated{Keys: removed})
	}
	return reply, err
}

// condition narrows what is deleted; its zero value does not.
type condition struct {
	version *int64
	tags    []string
	match   messages.Match
}

// deleteEntries removes entries, with their tags and leases, and returns those that were live. What is left is a tombstone
// that the cleaner removes after five minutes: it keeps the version, without which a set that was waiting for the delete
// would go on with a version from before it (ADR 5). It locks in the order of the keys, so that two deletes of the same
// keys cannot wait for each other.
func deleteEntries(ctx context.Context, db postgres.Querier, tenant string, keys []string, only condition) ([]messages.CacheKeyVersion, error) {
	const sql = `
		WITH doomed AS MATERIALIZED (
			SELECT key, expires_at > now() AS live FROM morello.cache_entry
			WHERE expires_at > '-infinity' AND tenant = $1 AND key = ANY ($2) AND ($3::bigint IS NULL OR version = $3)
				AND ($4::text[] IS NULL OR CASE WHEN $5 THEN tags @> $4 ELSE tags && $4 END)
			ORDER BY key
			FOR UPDATE
		), removed AS (
			UPDATE morello.cache_entry AS e SET ` + bury + `
			FROM doomed
			WHERE e.tenant = $1 AND e.key = doomed.key
			RETURNING e.tenant, e.key, e.version, e.replaced_tags AS tags, doomed.live
		), ` + dropTags + `
		SELECT key, version FROM removed WHERE live`
	batch := &pgx.Batch{}
	batch.Queue(endLeasesSQL, tenant, keys)
	var removed []messages.CacheKeyVersion
	batch.Queue(sql, tenant, keys, only.version, only.tags, only.match == messages.MatchAll).Query(func(rows pgx.Rows) (err error) {
		removed, err = pgx.CollectRows(rows, pgx.RowToStructByPos[messages.CacheKeyVersion])
		return err
	})
	return removed, db.SendBatch(ctx, batch).Close()
}

// endLeasesSQL ends the leases of keys that are deleted. It is a statement of its own, before the delete and in one round
// trip with it: a set with a lease, which locks the lease first too, has either not begun, and will find no lease, or is
// waited for, and the delete, which sees what is there when it begins, finds the value.
const endLeasesSQL = endLeasesWhere + `l.tenant = $1 AND l.key = ANY ($2)` + inOrder
