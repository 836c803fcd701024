package cache

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

const (
	// maxCounted is how many rows Info counts; it takes PostgreSQL about a tenth of a second. What has more is estimated.
	maxCounted = 100_000
	// sampledPages are read for an estimate, 32 MiB, wherever the rows lie.
	sampledPages = `4096`
	// maxDistinctTags bounds the walk from tag to tag, 10 µs a step.
	maxDistinctTags = 10_000
	shownHotKeys    = 10
	shownTags       = 20
)

// The parts of a reply that can be estimates, by their names in the contract.
var (
	entryEstimates = []string{
		"total_entries", "live_entries", "expired_entries", "total_size_bytes", "avg_entry_size_bytes", "max_entry_size_bytes",
	}
	tagEstimate = "tag_distribution"
)

// Info describes the tenant's cache: in one round trip as long as there is little to count, in two otherwise.
func (s *Service) Info(ctx context.Context, tenant string, _ messages.CacheInfo) (messages.CacheInfoReply, error) {
	return postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (messages.CacheInfoReply, error) {
		i := info{CacheInfoReply: messages.CacheInfoReply{Estimated: []string{}}}
		if err := i.count(ctx, db, tenant); err != nil {
			return messages.CacheInfoReply{}, err
		}
		err := i.estimate(ctx, db, tenant)
		i.derive()
		return i.CacheInfoReply, err
	})
}

// info is a reply that is being filled in.
type info struct {
	messages.CacheInfoReply
	tagged int64 // tags of entries, in all
}

// count reads what can be counted, or is counted already.
func (i *info) count(ctx context.Context, db postgres.Querier, tenant string) error {
	batch := &pgx.Batch{}
	batch.Queue(countEntriesSQL, tenant, maxCounted+1).QueryRow(i.scanEntries)
	batch.Queue(countTagsSQL, tenant, maxCounted+1, shownTags).Query(i.scanTags)
	batch.Queue(hotKeysSQL, tenant, shownHotKeys).Query(i.scanHotKeys)
	batch.Queue(countersSQL, tenant).QueryRow(func(row pgx.Row) error { return row.Scan(&i.Statistics.Hits, &i.Statistics.Misses) })
	batch.Queue(tableStatisticsSQL).QueryRow(func(row pgx.Row) error {
		return row.Scan(&i.Statistics.TableSizeBytes, &i.Statistics.IndexSizeBytes, &i.Health.HotUpdateRatio, &i.Health.DeadTupleRatio)
	})
	return db.SendBatch(ctx, batch).Close()
}

// estimate reads anew, from samples, what turned out to be too much to count.
func (i *info) estimate(ctx context.Context, db postgres.Querier, tenant string) error {
	batch := &pgx.Batch{}
	if i.Statistics.TotalEntries > maxCounted {
		i.Estimated = append(i.Estimated, entryEstimates...)
		batch.Queue(sampleEntriesSQL, tenant).QueryRow(i.scanEntries)
	}
	if i.tagged > maxCounted {
		i.Estimated = append(i.Estimated, tagEstimate)
		batch.Queue(sampleTagsSQL, tenant, shownTags).Query(i.scanTags)
		batch.Queue(distinctTagsSQL, tenant, maxDistinctTags).QueryRow(i.scanDistinctTags)
	}
	if batch.Len() == 0 {
		return nil
	}
	return db.SendBatch(ctx, batch).Close()
}

func (i *info) scanEntries(row pgx.Row) error {
	s := &i.Statistics
	return row.Scan(&s.TotalEntries, &s.LiveEntries, &s.TotalSizeBytes, &s.MaxEntrySizeBytes)
}

func (i *info) scanTags(rows pgx.Rows) (err error) {
	i.TagDistribution = []messages.CacheTagCount{}
	var tag messages.CacheTagCount
	_, err = pgx.ForEachRow(rows, []any{&tag.Tag, &tag.Entries, &i.Statistics.DistinctTags, &i.tagged}, func() error {
		i.TagDistribution = append(i.TagDistribution, tag)
		return nil
	})
	return err
}

func (i *info) scanDistinctTags(row pgx.Row) error {
	err := row.Scan(&i.Statistics.DistinctTags)
	if i.Statistics.DistinctTags == maxDistinctTags {
		i.Estimated = append(i.Estimated, "distinct_tags")
	}
	return err
}

func (i *info) scanHotKeys(rows pgx.Rows) (err error) {
	i.HotKeys, err = pgx.CollectRows(rows, pgx.RowToStructByPos[messages.CacheHotKey])
	return err
}

// derive fills in what follows from the rest.
func (i *info) derive() {
	s := &i.Statistics
	s.ExpiredEntries = s.TotalEntries - s.LiveEntries
	s.AvgEntrySizeBytes = ratio(s.TotalSizeBytes, s.TotalEntries)
	s.HitRatio = ratio(s.Hits, s.Hits+s.Misses)
	i.Health.ExpiredRatio = ratio(s.ExpiredEntries, s.TotalEntries)
}

func ratio(part, whole int64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// Statements of Info. Tombstones, which expired at -infinity, are no entries. octet_length knows the size of a value
// without reading it.
const (
	countEntriesSQL = `
		SELECT count(*), count(*) FILTER (WHERE expires_at > now()), coalesce(sum(size), 0)::bigint, coalesce(max(size), 0)
		FROM (
			SELECT expires_at, octet_length(value) AS size FROM morello.cache_entry
			WHERE tenant = $1 AND expires_at > '-infinity'
			ORDER BY key LIMIT $2
		) AS e`

	// sampleEntriesSQL scales up what it finds on some pages of the table.
	sampleEntriesSQL = `
		WITH sample AS (` + samplePrefix + `'morello.cache_entry'` + sampleSuffix + `)
		SELECT (count(*) * (SELECT scale FROM sample))::bigint,
			(count(*) FILTER (WHERE expires_at > now()) * (SELECT scale FROM sample))::bigint,
			(coalesce(sum(octet_length(value)), 0) * (SELECT scale FROM sample))::bigint, coalesce(max(octet_length(value)), 0)
		FROM morello.cache_entry TABLESAMPLE SYSTEM ((SELECT 100 / scale FROM sample))
		WHERE tenant = $1 AND expires_at > '-infinity'`

	// A row in a sample of a table's pages stands for scale rows.
	samplePrefix = `SELECT greatest(1, pg_relation_size(`
	sampleSuffix = `) / current_setting('block_size')::float8 / ` + sampledPages + `) AS scale`

	countTagsSQL = `
		SELECT tag, count(*), count(*) OVER (), (sum(count(*)) OVER ())::bigint
		FROM (SELECT tag FROM morello.cache_tag WHERE tenant = $1 ORDER BY tag, key LIMIT $2) AS t
		GROUP BY tag ORDER BY 2 DESC, 1 LIMIT $3`

	sampleTagsSQL = `
		WITH sample AS (` + samplePrefix + `'morello.cache_tag'` + sampleSuffix + `)
		SELECT tag, (count(*) * (SELECT scale FROM sample))::bigint, count(*) OVER (), (sum(count(*)) OVER ())::bigint
		FROM morello.cache_tag TABLESAMPLE SYSTEM ((SELECT 100 / scale FROM sample))
		WHERE tenant = $1
		GROUP BY tag ORDER BY 2 DESC, 1 LIMIT $2`

	// distinctTagsSQL goes from each tag to the next (a "loose index scan").
	distinctTagsSQL = `
		WITH RECURSIVE walk AS (
			(SELECT tag, 1 AS n FROM morello.cache_tag WHERE tenant = $1 ORDER BY tag LIMIT 1)
			UNION ALL
			SELECT next.tag, walk.n + 1
			FROM walk, LATERAL (SELECT tag FROM morello.cache_tag WHERE tenant = $1 AND tag > walk.tag ORDER BY tag LIMIT 1) AS next
			WHERE walk.n < $2
		)
		SELECT count(*) FROM walk`

	// hotKeysSQL: a sum of r reads a second that halves every half-life tends to r * half-life / ln 2.
	hotKeysSQL = `
		SELECT key, ` + decayed + ` * ln(2) / ` + hotHalfLife + ` AS reads_per_second
		FROM morello.cache_hot_key AS h WHERE tenant = $1
		ORDER BY 2 DESC, 1 LIMIT $2`

	countersSQL = `SELECT coalesce(sum(hits), 0)::bigint, coalesce(sum(misses), 0)::bigint FROM morello.cache_counter WHERE tenant = $1`

	tableStatisticsSQL = `
		SELECT sum(pg_table_size(relid))::bigint, sum(pg_indexes_size(relid))::bigint,
			coalesce(sum(n_tup_hot_upd)::float8 / nullif(sum(n_tup_upd), 0), 0),
			coalesce(sum(n_dead_tup)::float8 / nullif(sum(n_live_tup + n_dead_tup), 0), 0)
		FROM pg_stat_user_tables
		WHERE schemaname = 'morello' AND relname IN ('cache_entry', 'cache_tag')`
)
