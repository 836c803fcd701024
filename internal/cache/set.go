package cache

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// Set stores a value, with a condition if one is given. Repeating an unconditional set is harmless.
func (s *Service) Set(ctx context.Context, tenant string, m messages.CacheSet) (messages.CacheSetReply, error) {
	e, err := entryToSet(tenant, m)
	switch {
	case err != nil:
		return messages.CacheSetReply{}, err
	case m.IfAbsent:
		return s.setIfVersion(ctx, e, 0)
	case m.IfVersion != nil:
		return s.setIfVersion(ctx, e, *m.IfVersion)
	case m.Lease != "":
		return s.setWithLease(ctx, e, m.Lease)
	case m.KeepTTL || messages.Keyed(ctx):
		return s.setOne(ctx, e)
	default:
		return s.sets.Do(ctx, e)
	}
}

// setOne stores the entry by itself. A repetition with the same idempotency key stores nothing and announces nothing.
func (s *Service) setOne(ctx context.Context, e newEntry) (messages.CacheSetReply, error) {
	var stored map[entryKey]storedEntry
	reply, err := postgres.InStatement(ctx, s.pool, e.tenant, func(ctx context.Context, db postgres.Querier) (reply messages.CacheSetReply, err error) {
		stored, err = upsert(ctx, db, []newEntry{e}, 1, e.keepTTL)
		return stored[e.entryKey].CacheSetReply, err
	})
	if err == nil {
		s.announceOverwritten(stored)
	}
	return reply, err
}

// beginSet is Set without waiting. Conditional sets, and those that keep a time to live, are not batched.
func (s *Service) beginSet(d bus.Deferred[messages.CacheSetReply], tenant string, m messages.CacheSet) {
	if m.Conditional() || m.KeepTTL {
		d.Go(func(ctx context.Context) (messages.CacheSetReply, error) { return s.Set(ctx, tenant, m) })
		return
	}
	e, err := entryToSet(tenant, m)
	if err != nil {
		d.Reply(messages.CacheSetReply{}, err)
		return
	}
	s.sets.Submit(d.Deadline(), e, d.Reply)
}

func entryToSet(tenant string, m messages.CacheSet) (newEntry, error) {
	value, err := messages.Compact(m.Value)
	e := newEntry{entryKey: entryKey{tenant, m.Key}, value: value, tags: m.Tags, keepTTL: m.KeepTTL}
	if !m.NoExpiry {
		e.ttl = seconds(messages.TTL(m.TTLSeconds, messages.DefaultTTL))
	}
	return e, err
}

// setAttempts bounds how often a set that must be the first loses against one that began later and is gone again.
const setAttempts = 10

// setIfVersion stores the entry if the live one has this version; 0 means that there must be none.
func (s *Service) setIfVersion(ctx context.Context, e newEntry, version int64) (messages.CacheSetReply, error) {
	reply, err := postgres.InStatement(ctx, s.pool, e.tenant, func(ctx context.Context, db postgres.Querier) (messages.CacheSetReply, error) {
		for range setAttempts {
			reply, decided, err := compareAndSet(ctx, db, e, version)
			if decided || err != nil {
				return reply, err
			}
		}
		return messages.CacheSetReply{}, messages.Unavailable("the key is written too often at this moment", messages.OutcomeNotApplied, nil)
	})
	if err == nil && reply.Stored && version > 0 {
		s.counters.hot.sample(e.entryKey)
		s.invalidated(e.tenant, messages.CacheInvalidated{Keys: []messages.CacheKeyVersion{{Key: e.key, Version: reply.Version}}})
	}
	return reply, err
}

// announceOverwritten tells of the entries that were there before, one message for each tenant, and counts them as used.
func (s *Service) announceOverwritten(stored map[entryKey]storedEntry) {
	overwritten := map[string][]messages.CacheKeyVersion{}
	for key, e := range stored {
		if e.overwrote {
			s.counters.hot.sample(key)
			overwritten[key.tenant] = append(overwritten[key.tenant], messages.CacheKeyVersion{Key: key.key, Version: e.Version})
		}
	}
	for tenant, keys := range overwritten {
		s.invalidated(tenant, messages.CacheInvalidated{Keys: keys})
	}
}

// compareAndSet locks the live entry, compares, and writes. It is undecided when no entry was to be seen, and yet another
// one came first.
func compareAndSet(ctx context.Context, db postgres.Querier, e newEntry, version int64) (reply messages.CacheSetReply, decided bool, err error) {
	const sql = `
		WITH live AS MATERIALIZED (
			SELECT version FROM morello.cache_entry
			WHERE tenant = $1 AND key = $2 AND expires_at > now()
			FOR UPDATE
		), upserted AS (
			INSERT INTO morello.cache_entry AS e (tenant, key, value, version, ttl, expires_at, sweep_after, created_at, tags)
			SELECT $1, $2, $3, ` + clockVersion + `, make_interval(secs => $4),
				coalesce(now() + make_interval(secs => $4), 'infinity'),
				coalesce(now() + make_interval(secs => $4 + ` + staleSeconds + `), 'infinity'), now(), $5::text[]
			WHERE coalesce((SELECT version FROM live), 0) = $6
			ON CONFLICT (tenant, key) DO UPDATE SET ` + replaceEntry + replaceOrKeepTTL + `, version = greatest(e.version + 1, excluded.version)
			WHERE CASE WHEN e.expires_at > now() THEN e.version ELSE 0 END = $6
			RETURNING tenant, key, version, expires_at, tags, replaced_tags
		), ` + keepTags + `
		SELECT true, version, expires_at FROM upserted
		UNION ALL
		SELECT false, version, NULL FROM live WHERE NOT EXISTS (SELECT FROM upserted)`
	rows, err := db.Query(ctx, sql, e.tenant, e.key, []byte(e.value), e.ttl, e.uniqueTags(), version, e.keepTTL)
	if err != nil {
		return reply, false, err
	}
	replies, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (messages.CacheSetReply, error) {
		var life lifetime
		var reply messages.CacheSetReply
		err := row.Scan(&reply.Stored, &reply.Version, &life.expiresAt)
		reply.ExpiresAt = life.time()
		return reply, err
	})
	if err != nil || len(replies) == 1 {
		return postgres.Only(replies), true, err
	}
	return reply, version != 0, nil
}

// SetMany stores entries in one statement, all or none. Of a repeated key the last entry wins.
func (s *Service) SetMany(ctx context.Context, tenant string, m messages.CacheSetMany) (messages.CacheSetManyReply, error) {
	entries, err := newEntries(tenant, m)
	if err != nil {
		return messages.CacheSetManyReply{}, err
	}
	var stored map[entryKey]storedEntry
	reply, err := postgres.InStatement(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (messages.CacheSetManyReply, error) {
		stored, err = upsert(ctx, db, entries, 1, false)
		return messages.CacheSetManyReply{Stored: len(stored)}, err
	})
	if err == nil {
		s.announceOverwritten(stored)
	}
	return reply, err
}

// newEntries applies the common TTL and tags, and keeps the last entry of each key, sorted by key.
func newEntries(tenant string, m messages.CacheSetMany) ([]newEntry, error) {
	last := make(map[string]newEntry, len(m.Entries))
	common := messages.TTL(m.TTLSeconds, messages.DefaultTTL)
	for _, given := range m.Entries {
		value, err := messages.Compact(given.Value)
		if err != nil {
			return nil, err
		}
		e := newEntry{entryKey: entryKey{tenant, given.Key}, value: value, tags: given.Tags}
		if noExpiry := given.NoExpiry || m.NoExpiry && given.TTLSeconds == nil; !noExpiry {
			e.ttl = seconds(messages.TTL(given.TTLSeconds, common))
		}
		if given.Tags == nil {
			e.tags = m.Tags
		}
		last[given.Key] = e
	}
	entries := make([]newEntry, 0, len(last))
	for _, e := range last {
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b newEntry) int { return a.compare(b.entryKey) })
	return entries, nil
}
