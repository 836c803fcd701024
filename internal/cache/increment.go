package cache

import (
	"context"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// Increment adds to the whole number under a key.
func (s *Service) Increment(ctx context.Context, tenant string, m messages.CacheIncrement) (messages.CacheIncrementReply, error) {
	overwrote := false
	reply, err := postgres.InStatement(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (reply messages.CacheIncrementReply, err error) {
		reply, overwrote, err = increment(ctx, db, tenant, m)
		return reply, err
	})
	if overwrote {
		s.counters.hot.sample(entryKey{tenant, m.Key})
		s.invalidated(tenant, messages.CacheInvalidated{Keys: []messages.CacheKeyVersion{{Key: m.Key, Version: reply.Version}}})
	}
	return reply, err
}

func increment(ctx context.Context, db postgres.Querier, tenant string, m messages.CacheIncrement) (reply messages.CacheIncrementReply, overwrote bool, err error) {
	const sql = `
		WITH upserted AS (
			INSERT INTO morello.cache_entry AS e (tenant, key, value, version, ttl, expires_at, sweep_after, created_at, tags)
			SELECT $1, $2, ($3::bigint + $4::bigint)::text, ` + clockVersion + `, make_interval(secs => $5),
				coalesce(now() + make_interval(secs => $5), 'infinity'),
				coalesce(now() + make_interval(secs => $5 + ` + staleSeconds + `), 'infinity'), now(), $7::text[]
			ON CONFLICT (tenant, key) DO UPDATE SET
				value = CASE WHEN e.expires_at > now() THEN (e.value::bigint + $4)::text ELSE excluded.value END,
				version = greatest(e.version + 1, excluded.version),
				ttl = CASE WHEN e.expires_at > now() AND NOT $6 THEN e.ttl ELSE excluded.ttl END,
				expires_at = CASE WHEN e.expires_at > now() AND NOT $6 THEN e.expires_at ELSE excluded.expires_at END,
				sweep_after = least(e.sweep_after, excluded.sweep_after),
				created_at = CASE WHEN e.expires_at > now() THEN e.created_at ELSE excluded.created_at END,
				tags = CASE WHEN e.expires_at > now() THEN e.tags ELSE excluded.tags END,
				replaced_tags = CASE WHEN e.expires_at <= now() AND e.tags IS DISTINCT FROM excluded.tags THEN e.tags END
			RETURNING tenant, key, value, version, tags, replaced_tags, e.xmax <> 0 AS overwrote
		), ` + keepTags + `
		SELECT value::bigint, version, overwrote FROM upserted`
	delta := int64(1)
	if m.Delta != nil {
		delta = *m.Delta
	}
	var ttl *float64
	if !m.NoExpiry {
		ttl = seconds(messages.TTL(m.TTLSeconds, messages.DefaultTTL))
	}
	err = db.QueryRow(ctx, sql, tenant, m.Key, m.Initial, delta, ttl, m.Renew, uniqueTags(m.Tags)).Scan(&reply.Value, &reply.Version, &overwrote)
	switch postgres.SQLState(err) {
	case "22P02": // invalid_text_representation
		err = &messages.Error{Code: messages.CodeConflict, Message: "the value under the key is no whole number"}
	case "22003": // numeric_value_out_of_range
		err = &messages.Error{Code: messages.CodeConflict, Message: "the sum does not fit into 64 bits"}
	}
	return reply, overwrote, err
}
