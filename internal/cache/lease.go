package cache

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// leaseMisses gives a lease for each key that was missed by somebody who asked for one, to the first who did; the rest
// wait. It writes, and so runs only when there is such a miss.
//
// Who gains a lease looks again: between the look and the lease another holder may have set the value. It is then given
// back, and the value is the answer.
func leaseMisses(ctx context.Context, db postgres.Querier, lookups []lookup, results []postgres.Result[entry]) error {
	first := map[entryKey]int{}
	var missed []lookup
	for i, l := range lookups {
		if live := results[i].Value.found && !results[i].Value.stale; !l.lease || live {
			continue
		}
		results[i].Value.wait = true
		if _, seen := first[l.entryKey]; !seen {
			first[l.entryKey] = i
			missed = append(missed, l)
		}
	}
	if len(missed) == 0 {
		return nil
	}
	tokens, err := grantLeases(ctx, db, missed)
	if err != nil || len(tokens) == 0 {
		return err
	}
	granted := withLease(missed, tokens)
	again, err := getEntries(ctx, db, granted)
	if err != nil {
		return err
	}
	stand, err := standing(ctx, db, tokens)
	if err != nil {
		return err
	}
	var needless []string
	for i, l := range granted {
		result, token := &results[first[l.entryKey]].Value, tokens[l.entryKey]
		switch {
		case again[i].found && !again[i].stale:
			*result = again[i]
			needless = append(needless, token)
		case !stand[token]: // it ended while it was given
			needless = append(needless, token)
		default:
			result.wait, result.lease = false, token
		}
	}
	return giveBackLeases(ctx, db, tokens, needless)
}

// withLease returns the look-ups whose key got a lease.
func withLease(lookups []lookup, tokens map[entryKey]string) []lookup {
	var granted []lookup
	for _, l := range lookups {
		if _, ok := tokens[l.entryKey]; ok {
			granted = append(granted, lookup{entryKey: l.entryKey})
		}
	}
	return granted
}

// grantLeases gives a lease for each key on which there is none: none ever, one that has lapsed, or one that ended because
// somebody else has set the key since.
func grantLeases(ctx context.Context, db postgres.Querier, keys []lookup) (map[entryKey]string, error) {
	const sql = `
		INSERT INTO morello.cache_lease AS l (tenant, key, token, seen_version, expires_at)
		SELECT wanted.tenant, wanted.key, gen_random_uuid(), coalesce(e.version, 0), now() + make_interval(secs => $3)
		FROM unnest($1::text[], $2::text[]) AS wanted (tenant, key)
		LEFT JOIN morello.cache_entry AS e ON e.tenant = wanted.tenant AND e.key = wanted.key
		ORDER BY wanted.tenant COLLATE "C", wanted.key COLLATE "C"
		ON CONFLICT (tenant, key) DO UPDATE
			SET token = excluded.token, seen_version = excluded.seen_version, expires_at = excluded.expires_at
			WHERE l.expires_at <= now() OR l.seen_version < excluded.seen_version
		RETURNING tenant, key, token::text`
	tenants, names := make([]string, len(keys)), make([]string, len(keys))
	for i, key := range keys {
		tenants[i], names[i] = key.tenant, key.key
	}
	rows, err := db.Query(ctx, sql, tenants, names, messages.LeaseTime.Seconds())
	if err != nil {
		return nil, err
	}
	tokens := map[entryKey]string{}
	var key entryKey
	var token string
	_, err = pgx.ForEachRow(rows, []any{&key.tenant, &key.key, &token}, func() error {
		tokens[key] = token
		return nil
	})
	return tokens, err
}

// standing returns which of the tokens are those of leases now, on keys that nobody has set or deleted since what the lease was
// given for: a lease whose giving waited for another may have ended before it was there.
func standing(ctx context.Context, db postgres.Querier, tokens map[entryKey]string) (map[string]bool, error) {
	const sql = `
		SELECT l.token::text
		FROM unnest($1::text[], $2::text[]) AS granted (tenant, key)
		JOIN morello.cache_lease AS l ON l.tenant = granted.tenant AND l.key = granted.key
		LEFT JOIN morello.cache_entry AS e ON e.tenant = l.tenant AND e.key = l.key
		WHERE l.seen_version = coalesce(e.version, 0)`
	tenants, names := columnsOf(tokens)
	rows, err := db.Query(ctx, sql, tenants, names)
	if err != nil {
		return nil, err
	}
	stand := map[string]bool{}
	var token string
	_, err = pgx.ForEachRow(rows, []any{&token}, func() error {
		stand[token] = true
		return nil
	})
	return stand, err
}

// columnsOf returns the keys that got tokens, by column.
func columnsOf(tokens map[entryKey]string) (tenants, names []string) {
	for key := range tokens {
		tenants, names = append(tenants, key.tenant), append(names, key.key)
	}
	return tenants, names
}

// giveBackLeases ends the leases with the needless tokens, of those that were granted.
func giveBackLeases(ctx context.Context, db postgres.Querier, tokens map[entryKey]string, needless []string) error {
	if len(needless) == 0 {
		return nil
	}
	tenants, names := columnsOf(tokens)
	const sql = `
		DELETE FROM morello.cache_lease AS l
		USING unnest($1::text[], $2::text[]) AS granted (tenant, key)
		WHERE l.tenant = granted.tenant AND l.key = granted.key AND l.token = ANY ($3::uuid[])`
	_, err := db.Exec(ctx, sql, tenants, names, needless)
	return err
}

// giveBackLease ends a lease whose token did not reach who asked for it, also when that one has gone.
func (s *Service) giveBackLease(ctx context.Context, key entryKey, token string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), messages.CacheGetEndpoint.Timeout)
	defer cancel()
	_, err := postgres.InStatement(ctx, s.pool, key.tenant, func(ctx context.Context, db postgres.Querier) (struct{}, error) {
		return struct{}{}, giveBackLeases(ctx, db, map[entryKey]string{key: token}, []string{token})
	})
	return err
}

// setWithLease stores the entry if the lease holds, and ends it. It holds until it lapses, is deleted, or the key has been
// set by somebody else: then an entry is there that is live, or newer than the one that the lease was given for.
func (s *Service) setWithLease(ctx context.Context, e newEntry, token string) (messages.CacheSetReply, error) {
	const sql = `
		WITH lease AS (
			DELETE FROM morello.cache_lease
			WHERE tenant = $1 AND key = $2 AND token = $6::text::uuid AND expires_at > now()
			RETURNING seen_version
		), upserted AS (
			INSERT INTO morello.cache_entry AS e (tenant, key, value, version, ttl, expires_at, sweep_after, created_at, tags)
			SELECT $1, $2, $3, ` + clockVersion + `, make_interval(secs => $4),
				coalesce(now() + make_interval(secs => $4), 'infinity'),
				coalesce(now() + make_interval(secs => $4 + ` + staleSeconds + `), 'infinity'), now(), $5::text[]
			FROM lease
			ON CONFLICT (tenant, key) DO UPDATE SET ` + replaceEntry + `, version = greatest(e.version + 1, excluded.version)
			WHERE e.expires_at <= now() AND e.version = (SELECT seen_version FROM lease)
			RETURNING tenant, key, version, expires_at, tags, replaced_tags
		), ` + keepTags + `
		SELECT version, expires_at FROM upserted`
	return postgres.InStatement(ctx, s.pool, e.tenant, func(ctx context.Context, db postgres.Querier) (messages.CacheSetReply, error) {
		reply := messages.CacheSetReply{Stored: true}
		var life lifetime
		err := db.QueryRow(ctx, sql, e.tenant, e.key, []byte(e.value), e.ttl, e.uniqueTags(), token).Scan(&reply.Version, &life.expiresAt)
		if errors.Is(err, pgx.ErrNoRows) {
			reply.Stored = false
			reply.Version, err = liveVersion(ctx, db, e.entryKey)
		}
		reply.ExpiresAt = life.time()
		return reply, err
	})
}

// liveVersion returns the version of the live entry, 0 when there is none. A statement that waited for a lock cannot
// tell: it still sees what was there when it began.
func liveVersion(ctx context.Context, db postgres.Querier, key entryKey) (int64, error) {
	const sql = `
		SELECT coalesce(max(version), 0) FROM morello.cache_entry
		WHERE tenant = $1 AND key = $2 AND expires_at > now()`
	var version int64
	err := db.QueryRow(ctx, sql, key.tenant, key.key).Scan(&version)
	return version, err
}

// endLeases ends the leases that a clear is about, before it removes entries: who got one computed from what was true
// before.
func endLeases(ctx context.Context, db postgres.Querier, tenant, prefix string) error {
	const sql = `DELETE FROM morello.cache_lease WHERE tenant = $1 AND key >= $2 AND ($3 = '' OR key < $3)`
	_, err := db.Exec(ctx, sql, tenant, prefix, prefixEnd(prefix))
	return err
}

// sweepLeases removes leases that lapsed, a bounded number.
func sweepLeases(ctx context.Context, db postgres.Querier, batch int) (int64, error) {
	const sql = `
		DELETE FROM morello.cache_lease
		WHERE (tenant, key) IN (
			SELECT tenant, key FROM morello.cache_lease WHERE expires_at <= now() LIMIT $1 FOR UPDATE SKIP LOCKED
		)`
	tag, err := db.Exec(ctx, sql, batch)
	return tag.RowsAffected(), err
}
