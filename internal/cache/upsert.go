package cache

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// Pieces of SQL that several statements share.
const (
	// clockVersion is the version of a new entry: microseconds since 1970, so that a key that was deleted and made again
	// goes on with a higher one.
	clockVersion = `(extract(epoch FROM clock_timestamp()) * 1000000)::bigint`

	// staleSeconds is how long an expired entry stays for those who would rather have an old value than none.
	staleSeconds = `300`

	// replaceEntry is what a set does to an entry that is there. sweep_after is only ever lowered: see the migration.
	replaceEntry = `
		value = excluded.value,
		sweep_after = least(e.sweep_after, excluded.sweep_after),
		created_at = CASE WHEN e.expires_at > now() THEN e.created_at ELSE excluded.created_at END,
		tags = excluded.tags,
		replaced_tags = CASE WHEN e.tags IS DISTINCT FROM excluded.tags THEN e.tags END`

	// replaceTTL replaces the time to live of the entry that is there. replaceOrKeepTTL keeps that of a live one if $7 is true.
	replaceTTL       = `, ttl = excluded.ttl, expires_at = excluded.expires_at`
	replaceOrKeepTTL = `,
		ttl = CASE WHEN $7 AND e.expires_at > now() THEN e.ttl ELSE excluded.ttl END,
		expires_at = CASE WHEN $7 AND e.expires_at > now() THEN e.expires_at ELSE excluded.expires_at END`

	// bury makes a tombstone of an entry: it keeps the version, for five minutes.
	bury = `
		value = '', tags = NULL, replaced_tags = e.tags, expires_at = '-infinity',
		sweep_after = least(e.sweep_after, now() + make_interval(secs => ` + staleSeconds + `))`

	// keepTags brings cache_tag in line with the rows of "upserted". It reads them from there, so that it comes after
	// the row lock of the entry, and the tags of one key are never written by two at once.
	keepTags = `
		untagged AS (
			DELETE FROM morello.cache_tag AS t USING upserted AS u, unnest(u.replaced_tags) AS old (tag)
			WHERE t.tenant = u.tenant AND t.tag = old.tag AND t.key = u.key AND NOT coalesce(old.tag = ANY (u.tags), false)
		), tagged AS (
			INSERT INTO morello.cache_tag (tenant, tag, key)
			SELECT u.tenant, new.tag, u.key FROM upserted AS u, unnest(u.tags) AS new (tag)
			ON CONFLICT DO NOTHING
		)`

	// dropTags removes the tags of the entries in "removed".
	dropTags = `
		untagged AS (
			DELETE FROM morello.cache_tag AS t USING removed AS r, unnest(r.tags) AS old (tag)
			WHERE t.tenant = r.tenant AND t.tag = old.tag AND t.key = r.key
		)`
)

// newEntry is an entry to be stored.
type newEntry struct {
	entryKey
	value jsontext.Value
	ttl   *float64 // seconds; nil: does not expire
	tags  []string
	// keepTTL has a live entry keep its time to live; ttl is for one that is not there. It is not for batches.
	keepTTL bool
}

func (k entryKey) compare(other entryKey) int {
	return cmp.Or(strings.Compare(k.tenant, other.tenant), strings.Compare(k.key, other.key))
}

// uniqueTags returns the tags sorted, each once; nil when there are none.
func (e newEntry) uniqueTags() []string { return uniqueTags(e.tags) }

func uniqueTags(tags []string) []string {
	if len(tags) == 0 {
		return nil
	}
	tags = slices.Clone(tags)
	slices.Sort(tags)
	return slices.Compact(tags)
}

// upsert stores entries whose keys differ, sorted by key so that two statements cannot wait for each other, in one
// statement. Versions grow by at least step. keepTTL keeps the time to live of those that are live.
func upsert(ctx context.Context, db postgres.Querier, entries []newEntry, step int, keepTTL bool) (map[entryKey]storedEntry, error) {
	const sql = `
		WITH upserted AS (
			INSERT INTO morello.cache_entry AS e (tenant, key, value, version, ttl, expires_at, sweep_after, created_at, tags)
			SELECT tenant, key, value, ` + clockVersion + `, make_interval(secs => ttl),
				coalesce(now() + make_interval(secs => ttl), 'infinity'),
				coalesce(now() + make_interval(secs => ttl + ` + staleSeconds + `), 'infinity'), now(), tags::text[]
			FROM unnest($1::text[], $2::text[], $3::text[], $4::float8[], $5::text[]) AS i (tenant, key, value, ttl, tags)
			ON CONFLICT (tenant, key) DO UPDATE SET ` + replaceEntry + replaceOrKeepTTL + `, version = greatest(e.version + $6, excluded.version)
			RETURNING tenant, key, version, expires_at, tags, replaced_tags, e.xmax <> 0 AS overwrote
		), ` + keepTags + `
		SELECT tenant, key, version, expires_at, overwrote FROM upserted`
	columns := newUpsertColumns(entries)
	rows, err := db.Query(ctx, sql, columns.tenants, columns.keys, columns.values, columns.ttls, columns.tags, step, keepTTL)
	if err != nil {
		return nil, err
	}
	stored := make(map[entryKey]storedEntry, len(entries))
	var k entryKey
	var e storedEntry
	var life lifetime
	_, err = pgx.ForEachRow(rows, []any{&k.tenant, &k.key, &e.Version, &life.expiresAt, &e.overwrote}, func() error {
		e.Stored, e.ExpiresAt = true, life.time()
		stored[k] = e
		return nil
	})
	return stored, err
}

// storedEntry is the reply to a set, and whether there was an entry before.
type storedEntry struct {
	messages.CacheSetReply
	overwrote bool // PostgreSQL's xmax is set on a row that an upsert found and locked
}

// upsertColumns are the entries turned by 90 degrees, as unnest wants them.
type upsertColumns struct {
	tenants, keys []string
	values        [][]byte
	ttls          []*float64
	tags          []*string // array literals; nil for none
}

func newUpsertColumns(entries []newEntry) upsertColumns {
	c := upsertColumns{
		tenants: make([]string, len(entries)), keys: make([]string, len(entries)), values: make([][]byte, len(entries)),
		ttls: make([]*float64, len(entries)), tags: make([]*string, len(entries)),
	}
	for i, e := range entries {
		c.tenants[i], c.keys[i], c.values[i], c.ttls[i] = e.tenant, e.key, e.value, e.ttl
		if tags := e.uniqueTags(); tags != nil {
			c.tags[i] = new(postgres.ArrayLiteral(tags))
		}
	}
	return c
}

// lifetime is when an entry expires, and the moment at which that was read.
type lifetime struct {
	expiresAt pgtype.Timestamptz
	now       time.Time
}

// time returns when the entry expires; nil when it does not.
func (l lifetime) time() *time.Time {
	if !l.expiresAt.Valid || l.expiresAt.InfinityModifier != pgtype.Finite {
		return nil
	}
	t := l.expiresAt.Time
	return &t
}

func (l lifetime) apply(e *messages.CacheEntry) {
	if e.ExpiresAt = l.time(); e.ExpiresAt != nil {
		left := e.ExpiresAt.Sub(l.now).Seconds()
		e.ExpiresInSeconds = &left
	}
}
