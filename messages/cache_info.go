package messages

import "time"

// CacheInfoEndpoint describes the cache of a tenant.
var CacheInfoEndpoint = Endpoint[CacheInfo, CacheInfoReply]{
	Name: "cache.info", Timeout: 5 * time.Second,
	Doc: "Describes the tenant's cache: counts, sizes, hits, hot keys, tags.",
}

// CacheInfo asks for a description of the tenant's cache.
type CacheInfo struct{}

// Validate has nothing to refuse.
func (m CacheInfo) Validate() error { return nil }

// CacheInfoReply describes the tenant's cache. What would take too long to count is estimated from a sample of the table's
// pages.
type CacheInfoReply struct {
	Statistics CacheStatistics `json:"statistics"`
	// HotKeys are the 10 keys that are used most, the first the hottest. Reads, overwrites, touches and increments count as use.
	// They are sampled; a key that is used a few times a minute may be missing.
	HotKeys []CacheHotKey `json:"hot_keys"`
	// TagDistribution holds the 20 tags with the most entries, the first the largest.
	TagDistribution []CacheTagCount `json:"tag_distribution"`
	Health          CacheHealth     `json:"health"`
	// Estimated names the members of statistics, and tag_distribution, that are no exact counts. Up to 100 000 entries, or
	// tags of entries, are counted.
	Estimated []string `json:"estimated"`
}

// CacheStatistics are numbers about the tenant's cache. Sizes of entries are those of their values.
type CacheStatistics struct {
	// TotalEntries are the live and the expired ones.
	TotalEntries int64 `json:"total_entries"`
	LiveEntries  int64 `json:"live_entries"`
	// ExpiredEntries wait for the job cache_cleanup; stale_seconds of a get may still find them.
	ExpiredEntries int64 `json:"expired_entries"`
	TotalSizeBytes int64 `json:"total_size_bytes"`
	// AvgEntrySizeBytes is 0 when there are no entries.
	AvgEntrySizeBytes float64 `json:"avg_entry_size_bytes"`
	MaxEntrySizeBytes int64   `json:"max_entry_size_bytes"`
	DistinctTags      int64   `json:"distinct_tags"`
	// TableSizeBytes and IndexSizeBytes are those of the whole deployment on disk, all tenants together.
	TableSizeBytes int64 `json:"table_size_bytes"`
	IndexSizeBytes int64 `json:"index_size_bytes"`
	// Hits and Misses are counted since the first request; what a worker counted in the last two seconds may be missing.
	Hits   int64 `json:"hits"`
	Misses int64 `json:"misses"`
	// HitRatio is hits / (hits + misses), 0 when there are none.
	HitRatio float64 `json:"hit_ratio"`
}

// CacheHotKey is a key that is read often.
type CacheHotKey struct {
	Key string `json:"key"`
	// ReadsPerSecond is estimated from samples, an average that forgets half of the past each minute.
	ReadsPerSecond float64 `json:"reads_per_second"`
}

// CacheTagCount says how many entries, expired ones included, have a tag.
type CacheTagCount struct {
	Tag     string `json:"tag"`
	Entries int64  `json:"entries"`
}

// CacheHealth are ratios from 0 to 1. Those of the tables are of the whole deployment.
type CacheHealth struct {
	// ExpiredRatio is expired_entries / total_entries: high when cache_cleanup falls behind.
	ExpiredRatio float64 `json:"expired_ratio"`
	// HotUpdateRatio is the share of updates that touched no index (heap-only tuples), since PostgreSQL's statistics were
	// reset.
	HotUpdateRatio float64 `json:"hot_update_ratio"`
	// DeadTupleRatio is the share of row versions that wait for vacuum.
	DeadTupleRatio float64 `json:"dead_tuple_ratio"`
}
