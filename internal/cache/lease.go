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
		INSERT INTO morello.cache_lease AS l (tenant, key, token, seen_version, expires_at, granted_at, clear_number, tags)
		SELECT wanted.tenant, wanted.key, gen_random_uuid(), coalesce(e.version, 0), now() + make_interval(secs => $3), now(),
			(SELECT last_value FROM morello.cache_clear_number),
			CASE WHEN e.expires_at = '-infinity' THEN e.replaced_tags ELSE e.tags END
		FROM unnest($1::text[], $2::text[]) AS wanted (tenant, key)
		LEFT JOIN morello.cache_entry AS e ON e.tenant = wanted.tenant AND e.key = wanted.key
		ORDER BY wanted.tenant COLLATE "C", wanted.key COLLATE "C"
		ON CONFLICT (tenant, key) DO UPDATE
			SET token = excluded.token, seen_version = excluded.seen_version, expires_at = excluded.expires_at,
				granted_at = excluded.granted_at, clear_number = excluded.clear_number, tags = excluded.tags
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
	const sql = endLeasesWhere + `(l.tenant, l.key) IN (SELECT * FROM unnest($1::text[], $2::text[])) AND l.token = ANY ($3::uuid[])` + inOrder
	_, err := db.Exec(ctx, sql, tenants, names, needless)
	return err
}

// renewLease has a lease that holds last for another 10 seconds from now, up to an hour from when it was granted.
func (s *Service) renewLease(ctx context.Context, tenant string, m messages.CacheTouch) (messages.CacheTouchReply, error) {
	const sql = `
		UPDATE morello.cache_lease AS l
		SET expires_at = greatest(l.expires_at, least(now() + make_interval(secs => $4), l.granted_at + make_interval(secs => $5)))
		WHERE l.tenant = $1 AND l.key = $2 AND l.token = $3::text::uuid AND l.expires_at > now() AND l.seen_version = coalesce((
			SELECT e.version FROM morello.cache_entry AS e WHERE e.tenant = l.tenant AND e.key = l.key), 0)
		RETURNING true, expires_at`
	return postgres.InStatement(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (messages.CacheTouchReply, error) {
		rows, err := db.Query(ctx, sql, tenant, m.Key, m.Lease, messages.LeaseTime.Seconds(), messages.MaxLeaseAge.Seconds())
		if err != nil {
			return messages.CacheTouchReply{}, err
		}
		replies, err := pgx.CollectRows(rows, pgx.RowToStructByPos[messages.CacheTouchReply])
		return postgres.Only(replies), err
	})
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

// setWithLease stores the entry if the lease holds, and ends it. It holds until it lapses, is deleted, the key has been set by somebody
// else (then an entry is there that is live, or newer than the one that the lease was granted for), or one of the entry's tags has been
// cleared since the lease was granted.
//
// It locks the tags in a statement of its own, in one round trip with the rest: a clear of one of them has then either ended,
// and its row is seen, or waits until the entry is stored, and removes it.
func (s *Service) setWithLease(ctx context.Context, e newEntry, token string) (messages.CacheSetReply, error) {
	const sql = `
		WITH lease AS (
			DELETE FROM morello.cache_lease
			WHERE tenant = $1 AND key = $2 AND token = $6::text::uuid AND expires_at > now()
			RETURNING seen_version, clear_number
		), upserted AS (
			INSERT INTO morello.cache_entry AS e (tenant, key, value, version, ttl, expires_at, sweep_after, created_at, tags)
			SELECT $1, $2, $3, ` + clockVersion + `, make_interval(secs => $4),
				coalesce(now() + make_interval(secs => $4), 'infinity'),
				coalesce(now() + make_interval(secs => $4 + ` + staleSeconds + `), 'infinity'), now(), $5::text[]
			FROM lease
			WHERE NOT EXISTS (
				SELECT FROM morello.cache_cleared_tag AS c
				WHERE c.tenant = $1 AND c.tag = ANY ($5::text[]) AND c.clear_number > lease.clear_number AND c.all_tags <@ $5::text[]
			)
			ON CONFLICT (tenant, key) DO UPDATE SET ` + replaceEntry + replaceTTL + `, version = greatest(e.version + 1, excluded.version)
			WHERE e.expires_at <= now() AND e.version = (SELECT seen_version FROM lease)
			RETURNING tenant, key, version, expires_at, tags, replaced_tags
		), ` + keepTags + `
		SELECT version, expires_at FROM upserted`
	return postgres.InStatement(ctx, s.pool, e.tenant, func(ctx context.Context, db postgres.Querier) (messages.CacheSetReply, error) {
		reply := messages.CacheSetReply{Stored: true}
		var life lifetime
		tags := e.uniqueTags()
		batch := &pgx.Batch{}
		if tags != nil {
			batch.Queue(shareTagsSQL, e.tenant, tags)
		}
		batch.Queue(sql, e.tenant, e.key, []byte(e.value), e.ttl, tags, token).QueryRow(func(row pgx.Row) error {
			return row.Scan(&reply.Version, &life.expiresAt)
		})
		err := db.SendBatch(ctx, batch).Close()
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

// endLeases ends the leases that a clear is about, before it removes entries: their holders compute from what was true before.
func endLeases(ctx context.Context, db postgres.Querier, tenant string, m messages.CacheClear) error {
	if m.Tags != nil {
		return endLeasesOfTags(ctx, db, tenant, m.Tags, m.Match)
	}
	return endLeasesOfPrefix(ctx, db, tenant, m.Prefix)
}

// Leases are deleted in the order of their keys, as they are granted, so that no two statements wait for each other.
const (
	endLeasesWhere = `WITH ended AS MATERIALIZED (SELECT l.tenant, l.key FROM morello.cache_lease AS l WHERE `
	inOrder        = ` ORDER BY l.tenant, l.key FOR UPDATE)
		DELETE FROM morello.cache_lease AS l USING ended WHERE l.tenant = ended.tenant AND l.key = ended.key`
)

// endLeasesOfTags notes that the tags were cleared, for the leases of which only the holder knows the tags, and deletes the leases of
// which the tags are known. From the lock until the end of the transaction no value with one of the tags is stored with a lease.
func endLeasesOfTags(ctx context.Context, db postgres.Querier, tenant string, tags []string, match messages.Match) error {
	const (
		note = `
			WITH superseded AS (
				DELETE FROM morello.cache_cleared_tag
				WHERE tenant = $1 AND tag = ANY ($2) AND all_tags = CASE WHEN $3 THEN $2::text[] ELSE ARRAY[tag] END
			)
			INSERT INTO morello.cache_cleared_tag (tenant, tag, clear_number, all_tags, cleared_at)
			SELECT $1, tag, c.number, CASE WHEN $3 THEN $2::text[] ELSE ARRAY[tag] END, clock_timestamp()
			FROM (SELECT nextval('morello.cache_clear_number') AS number) AS c, unnest($2::text[]) AS tag
			WHERE NOT $3 OR tag = ($2::text[])[1]`
		end = endLeasesWhere + `l.tenant = $1 AND CASE WHEN $3 THEN l.tags @> $2::text[] ELSE l.tags && $2::text[] END` + inOrder
	)
	tags, all := uniqueTags(tags), match == messages.MatchAll
	batch := &pgx.Batch{}
	batch.Queue(lockTagsSQL, tenant, tags)
	batch.Queue(note, tenant, tags, all)
	batch.Queue(end, tenant, tags, all)
	return db.SendBatch(ctx, batch).Close()
}

// The locks of tags: many sets with leases share them, a clear has them alone. They are taken in order, so that no two wait for each
// other.
const (
	lockTagsSQL  = `SELECT pg_advisory_xact_lock(name) FROM (` + tagLockNames + `) AS l`
	shareTagsSQL = `SELECT pg_advisory_xact_lock_shared(name) FROM (` + tagLockNames + `) AS l`
	tagLockNames = `SELECT DISTINCT hashtextextended('morello.cache_tag ' || $1 || ' ' || tag, 0) AS name FROM unnest($2::text[]) AS tag ORDER BY 1`
)

func endLeasesOfPrefix(ctx context.Context, db postgres.Querier, tenant, prefix string) error {
	const sql = endLeasesWhere + `l.tenant = $1 AND l.key >= $2 AND ($3 = '' OR l.key < $3)` + inOrder
	_, err := db.Exec(ctx, sql, tenant, prefix, prefixEnd(prefix))
	return err
}

// sweepClearedTags forgets clears that are older than any lease can be, a bounded number.
func sweepClearedTags(ctx context.Context, db postgres.Querier, batch int) (int64, error) {
	const sql = `
		DELETE FROM morello.cache_cleared_tag
		WHERE ctid = ANY (ARRAY(
			SELECT ctid FROM morello.cache_cleared_tag
			WHERE cleared_at < now() - make_interval(secs => $2) ORDER BY cleared_at LIMIT $1 FOR UPDATE SKIP LOCKED))`
	tag, err := db.Exec(ctx, sql, batch, messages.MaxLeaseAge.Seconds())
	return tag.RowsAffected(), err
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
