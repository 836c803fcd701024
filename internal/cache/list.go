package cache

import (
	"context"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// keyList is what a cursor of Keys is valid for, tagList one of GetByTags.
type (
	keyList struct{ Operation, Tenant, Prefix string }
	tagList struct {
		Operation, Tenant string
		Tags              []string
		Match             messages.Match
	}
)

// Keys lists live keys in byte order: a range of the primary key.
func (s *Service) Keys(ctx context.Context, tenant string, m messages.CacheKeys) (messages.CacheKeysReply, error) {
	keys, next, err := postgres.ReadPage(ctx, s.pool, keyList{messages.CacheKeysEndpoint.Name, tenant, m.Prefix}, m.Cursor,
		func(ctx context.Context, db postgres.Querier, after string) ([]messages.CacheKey, bool, error) {
			keys, err := listKeys(ctx, db, tenant, m.Prefix, after, m.Size()+1)
			return keys[:min(len(keys), m.Size())], len(keys) > m.Size(), err
		}, func(last messages.CacheKey) string { return last.Key })
	return messages.CacheKeysReply{Keys: keys, NextCursor: next}, err
}

func listKeys(ctx context.Context, db postgres.Querier, tenant, prefix, after string, limit int) ([]messages.CacheKey, error) {
	const sql = `
		SELECT key, version, expires_at, octet_length(value)
		FROM morello.cache_entry
		WHERE tenant = $1 AND key >= $2 AND ($3 = '' OR key < $3) AND key > $4 AND expires_at > now()
		ORDER BY key
		LIMIT $5`
	rows, err := db.Query(ctx, sql, tenant, prefix, prefixEnd(prefix), after, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (messages.CacheKey, error) {
		var key messages.CacheKey
		var life lifetime
		err := row.Scan(&key.Key, &key.Version, &life.expiresAt, &key.SizeBytes)
		key.ExpiresAt = life.time()
		return key, err
	})
}

// prefixEnd returns the least text that is greater than every text with the prefix; empty when there is none. The order
// of code points is that of their bytes in UTF-8, so that it is the prefix with its last code point increased.
func prefixEnd(prefix string) string {
	for prefix != "" {
		last, size := utf8.DecodeLastRuneInString(prefix)
		prefix = prefix[:len(prefix)-size]
		switch {
		case last == 0xD7FF:
			return prefix + string(rune(0xE000)) // the surrogates between are no characters
		case last < utf8.MaxRune:
			return prefix + string(last+1)
		}
	}
	return ""
}

// GetByTags lists the live entries that have any, or all, of the tags.
func (s *Service) GetByTags(ctx context.Context, tenant string, m messages.CacheGetByTags) (messages.CacheGetByTagsReply, error) {
	list := tagList{messages.CacheGetByTagsEndpoint.Name, tenant, m.Tags, m.Match}
	reply := messages.CacheGetByTagsReply{Entries: []messages.CacheTaggedEntry{}}
	var after string
	if err := postgres.DecodeCursor(m.Cursor, list, &after); err != nil {
		return reply, err
	}
	if err := bus.Reserve(ctx, messages.MaxReplyBytes); err != nil {
		return reply, err
	}
	withValues := m.WithValues == nil || *m.WithValues
	page, err := postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (tagPage, error) {
		return readTagPage(ctx, db, tenant, m, after, withValues)
	})
	if err != nil {
		return reply, err
	}
	if page.last != "" {
		reply.NextCursor, err = postgres.EncodeCursor(list, page.last)
	}
	reply.Entries = append(reply.Entries, page.entries...)
	return reply, err
}

// tagPage is a page of entries; last is the key that the next page begins after, empty on the last page.
type tagPage struct {
	entries []messages.CacheTaggedEntry
	last    string
}

// readTagPage reads a page of keys from cache_tag and then their entries, until they have 1 MiB of values. Keys whose entry
// is gone, expired or no longer tagged so leave a page short.
func readTagPage(ctx context.Context, db postgres.Querier, tenant string, m messages.CacheGetByTags, after string, withValues bool) (tagPage, error) {
	keys, more, err := taggedKeys(ctx, db, tenant, m.Tags, m.Match, after, m.Size())
	if err != nil || len(keys) == 0 {
		return tagPage{}, err
	}
	const sql = `
		SELECT key, version, tags, expires_at, created_at, before, CASE WHEN $4 AND before < $5 THEN value END
		FROM (
			SELECT key, version, tags, expires_at, created_at, value,
				sum(CASE WHEN $4 THEN octet_length(value) ELSE 0 END) OVER (ORDER BY key) - CASE WHEN $4 THEN octet_length(value) ELSE 0 END AS before
			FROM morello.cache_entry
			WHERE tenant = $1 AND key = ANY ($2) AND expires_at > now()
				AND CASE WHEN $3 THEN tags @> $6::text[] ELSE tags && $6::text[] END
		) AS found
		ORDER BY key`
	rows, err := db.Query(ctx, sql, tenant, keys, m.Match == messages.MatchAll, withValues, messages.MaxPageBytes, m.Tags)
	if err != nil {
		return tagPage{}, err
	}
	page := tagPage{}
	if more {
		page.last = keys[len(keys)-1]
	}
	var e messages.CacheTaggedEntry
	var life lifetime
	var before int64
	full := false
	targets := []any{&e.Key, &e.Version, &e.Tags, &life.expiresAt, &e.CreatedAt, &before, (*[]byte)(&e.Value)}
	_, err = pgx.ForEachRow(rows, targets, func() error {
		if before >= messages.MaxPageBytes && !full { // the page ends before this entry
			full = true
			page.last = page.entries[len(page.entries)-1].Key
		}
		if !full {
			e.ExpiresAt = life.time()
			page.entries = append(page.entries, e)
		}
		e.Value, e.Tags = nil, nil
		return nil
	})
	return page, err
}

// taggedKeys returns up to limit keys after the given one that have any, or all, of the tags, in order, and whether there
// are more. It reads ranges of cache_tag, which may name keys that are no longer there.
func taggedKeys(ctx context.Context, db postgres.Querier, tenant string, tags []string, match messages.Match, after string, limit int) ([]string, bool, error) {
	sql := anyTagSQL
	if match == messages.MatchAll {
		sql = allTagsSQL
	}
	rows, err := db.Query(ctx, sql, tenant, tags, after, limit+1)
	if err != nil {
		return nil, false, err
	}
	keys, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if len(keys) > limit {
		return keys[:limit], true, err
	}
	return keys, false, err
}

const (
	// anyTagSQL merges the ranges of the tags: it reads at most a page of each.
	anyTagSQL = `
		SELECT DISTINCT k.key COLLATE "C" AS key
		FROM unnest($2::text[]) AS wanted (tag), LATERAL (
			SELECT key FROM morello.cache_tag
			WHERE tenant = $1 AND tag = wanted.tag AND key > $3
			ORDER BY key LIMIT $4
		) AS k
		ORDER BY 1 LIMIT $4`

	// allTagsSQL walks the range of the rarest tag and looks each of its keys up under the others. How rare a tag is
	// is counted up to 1000. Each ORDER BY stands beside its LIMIT, so that the planner reads the index no further.
	allTagsSQL = `
		WITH rarest AS MATERIALIZED (
			SELECT wanted.tag
			FROM unnest($2::text[]) AS wanted (tag), LATERAL (
				SELECT count(*) AS n FROM (
					SELECT FROM morello.cache_tag WHERE tenant = $1 AND tag = wanted.tag AND key > $3 ORDER BY key LIMIT 1000
				) AS bounded
			) AS counted
			ORDER BY n LIMIT 1
		)
		SELECT k.key
		FROM rarest, LATERAL (
			SELECT t.key FROM morello.cache_tag AS t
			WHERE t.tenant = $1 AND t.tag = rarest.tag AND t.key > $3 AND NOT EXISTS (
				SELECT FROM unnest($2::text[]) AS wanted (tag)
				WHERE NOT EXISTS (SELECT FROM morello.cache_tag AS o WHERE o.tenant = $1 AND o.tag = wanted.tag AND o.key = t.key)
			)
			ORDER BY t.key LIMIT $4
		) AS k
		ORDER BY k.key`
)
