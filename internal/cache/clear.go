package cache

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

const clearBatch = 1000

// Clear removes the entries of tags, with a prefix, or all, in batches that each begin after the last key of the one
// before. With an idempotency key all batches are one transaction.
func (s *Service) Clear(ctx context.Context, tenant string, m messages.CacheClear) (messages.CacheClearReply, error) {
	after := ""
	reply, err := postgres.InBatches(ctx, s.pool, postgres.Batches[messages.CacheClearReply]{
		Tenant: tenant, Timeout: messages.CacheClearEndpoint.Timeout,
		Step: func(ctx context.Context, db postgres.Querier, reply *messages.CacheClearReply) (bool, error) {
			did, err := clearOnce(ctx, db, tenant, m, after)
			reply.Removed += int64(did.removed)
			after = did.last
			return did.last != "", err
		},
		SetMore: func(reply *messages.CacheClearReply, more bool) { reply.More = more },
	})
	if reply.Removed > 0 {
		s.invalidated(tenant, messages.CacheInvalidated{Tags: m.Tags, Match: m.Match, Prefix: m.Prefix, All: m.All})
	}
	return reply, err
}

// cleared is what a batch did; last is where the next one begins, empty when there is none.
type cleared struct {
	removed int
	last    string
}

// clearOnce finds a batch of keys and removes their entries.
func clearOnce(ctx context.Context, db postgres.Querier, tenant string, m messages.CacheClear, after string) (cleared, error) {
	if after == "" {
		if err := endLeases(ctx, db, tenant, m); err != nil {
			return cleared{}, err
		}
	}
	keys, more, err := keysToClear(ctx, db, tenant, m, after)
	if err != nil || len(keys) == 0 {
		return cleared{}, err
	}
	removed, err := deleteEntries(ctx, db, tenant, keys, condition{tags: m.Tags, match: m.Match})
	did := cleared{removed: len(removed)}
	if more {
		did.last = keys[len(keys)-1]
	}
	return did, err
}

// keysToClear includes expired entries, which would otherwise keep their tags until they are swept.
func keysToClear(ctx context.Context, db postgres.Querier, tenant string, m messages.CacheClear, after string) ([]string, bool, error) {
	if m.Tags != nil {
		return taggedKeys(ctx, db, tenant, m.Tags, m.Match, after, clearBatch)
	}
	const sql = `
		SELECT key FROM morello.cache_entry
		WHERE tenant = $1 AND key >= $2 AND ($3 = '' OR key < $3) AND key > $4 AND expires_at > '-infinity'
		ORDER BY key
		LIMIT $5`
	rows, err := db.Query(ctx, sql, tenant, m.Prefix, prefixEnd(m.Prefix), after, clearBatch+1)
	if err != nil {
		return nil, false, err
	}
	keys, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if len(keys) > clearBatch {
		return keys[:clearBatch], true, err
	}
	return keys, false, err
}
