package cache_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/messages"
)

func (f fixture) info(t *testing.T) messages.CacheInfoReply {
	t.Helper()
	reply, err := f.Info(t.Context(), tenant, messages.CacheInfo{})
	require.NoError(t, err)
	return reply
}

// fill inserts n live entries of the test's tenant, each with a value of 10 bytes and the tags of the SQL expression,
// in which n is the number of the entry.
func (f fixture) fill(t *testing.T, n int, tags string) {
	t.Helper()
	_, err := f.db.Exec(t.Context(), `
		INSERT INTO morello.cache_entry (tenant, key, value, version, expires_at, sweep_after, created_at, tags)
		SELECT '`+tenant+`', 'fill-' || n, '"12345678"', 1, 'infinity', 'infinity', now(), `+tags+`
		FROM generate_series(1, $1) AS n`, n)
	require.NoError(t, err)
	_, err = f.db.Exec(t.Context(), `
		INSERT INTO morello.cache_tag SELECT tenant, tag, key FROM morello.cache_entry, unnest(tags) AS own (tag) ON CONFLICT DO NOTHING`)
	require.NoError(t, err)
	_, err = f.db.Exec(t.Context(), `ANALYZE morello.cache_entry, morello.cache_tag`)
	require.NoError(t, err)
}

func TestInfo(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	empty := f.info(t)
	require.Zero(t, empty.Statistics.TotalEntries)
	require.Equal(t, messages.CacheHealth{}, empty.Health)
	require.Equal(t, []messages.CacheHotKey{}, empty.HotKeys)
	require.Equal(t, []messages.CacheTagCount{}, empty.TagDistribution)
	require.Equal(t, []string{}, empty.Estimated)

	f.set(t, messages.CacheSet{Key: "a", Value: []byte(`"1234"`), Tags: []string{"x", "y"}})
	f.set(t, messages.CacheSet{Key: "b", Value: []byte(`"12345678"`), Tags: []string{"x"}})
	f.set(t, messages.CacheSet{Key: "old", Value: []byte(`12`)})
	f.expire(t, "old", "10 seconds")
	f.set(t, messages.CacheSet{Key: "deleted"})
	_, err := f.Delete(t.Context(), tenant, messages.CacheDelete{Key: "deleted"})
	require.NoError(t, err)
	_, err = f.Set(t.Context(), "other", messages.CacheSet{Key: "a", Value: []byte("1"), Tags: []string{"z"}})
	require.NoError(t, err)
	_, err = f.db.Exec(t.Context(), `INSERT INTO morello.cache_counter VALUES ('`+tenant+`', 3, 1), ('other', 5, 5)`)
	require.NoError(t, err)
	got := f.info(t)
	require.Positive(t, got.Statistics.TableSizeBytes)
	require.Positive(t, got.Statistics.IndexSizeBytes)
	got.Statistics.TableSizeBytes, got.Statistics.IndexSizeBytes = 0, 0
	require.Equal(t, messages.CacheStatistics{
		TotalEntries: 3, LiveEntries: 2, ExpiredEntries: 1, TotalSizeBytes: 18, AvgEntrySizeBytes: 6, MaxEntrySizeBytes: 10,
		DistinctTags: 2, Hits: 3, Misses: 1, HitRatio: 0.75,
	}, got.Statistics)
	require.Equal(t, []messages.CacheTagCount{{Tag: "x", Entries: 2}, {Tag: "y", Entries: 1}}, got.TagDistribution)
	require.InDelta(t, 1.0/3, got.Health.ExpiredRatio, 1e-9)
	require.Empty(t, got.Estimated)
}

// TestInfoEstimates: what is too much to count is near the truth, and says that it is no count.
func TestInfoEstimates(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const entries = 400_000 // 39 MiB: more than is sampled
	f.fill(t, entries, `CASE WHEN n % 2 = 0 THEN ARRAY['even', 'tag-' || n % 100] END`)
	got := f.info(t)
	require.InEpsilon(t, entries, got.Statistics.TotalEntries, 0.1)
	require.InEpsilon(t, entries*10, got.Statistics.TotalSizeBytes, 0.1)
	require.EqualValues(t, 10, got.Statistics.MaxEntrySizeBytes)
	require.EqualValues(t, 51, got.Statistics.DistinctTags) // walked, not estimated
	require.Len(t, got.TagDistribution, 20)
	require.Equal(t, "even", got.TagDistribution[0].Tag)
	require.InEpsilon(t, entries/2, got.TagDistribution[0].Entries, 0.1)
	require.Contains(t, got.Estimated, "total_entries")
	require.Contains(t, got.Estimated, "tag_distribution")
	require.NotContains(t, got.Estimated, "distinct_tags")

	other, err := f.Info(t.Context(), "other", messages.CacheInfo{}) // a small tenant beside it is counted
	require.NoError(t, err)
	require.Empty(t, other.Estimated)
}

func TestInfoBoundsTheWalkOverTags(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.fill(t, 60_000, `ARRAY['a' || n, 'b' || n]`)
	got := f.info(t)
	require.EqualValues(t, 10_000, got.Statistics.DistinctTags)
	require.Equal(t, []string{"tag_distribution", "distinct_tags"}, got.Estimated)
}

// TestHotKeys: the keys that are read most come first, whichever worker answered, and their rate is about right.
func TestHotKeys(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	reader, closeReader := newServiceToClose(t, f.url)
	read := func(key string) {
		_, err := reader.Get(t.Context(), tenant, messages.CacheGet{Key: key})
		require.NoError(t, err)
	}
	const reads = 6400
	for i := range reads {
		read("hottest")
		if i%4 == 0 {
			read("warm")
		}
		if i%8 == 0 {
			read(fmt.Sprint("cold-", i))
		}
	}
	_, err := reader.Get(t.Context(), "other", messages.CacheGet{Key: "hottest"})
	require.NoError(t, err)
	closeReader() // writes what it has sampled
	got := f.info(t)
	require.GreaterOrEqual(t, len(got.HotKeys), 2)
	require.Equal(t, "hottest", got.HotKeys[0].Key)
	require.Equal(t, "warm", got.HotKeys[1].Key)
	// A sum of so many reads, that halves each minute, is of a steady rate of reads * ln 2 / 60.
	require.InEpsilon(t, reads*0.693/60, got.HotKeys[0].ReadsPerSecond, 0.4)

	_, err = f.db.Exec(t.Context(), `UPDATE morello.cache_hot_key SET noted_at = now() - interval '1 minute' WHERE key = 'hottest'`)
	require.NoError(t, err)
	require.InEpsilon(t, got.HotKeys[0].ReadsPerSecond/2, rate(f.info(t), "hottest"), 0.2)

	_, err = f.db.Exec(t.Context(), `UPDATE morello.cache_hot_key SET noted_at = now() - interval '11 minutes' WHERE key = 'hottest'`)
	require.NoError(t, err)
	f.cleanup(t)
	forgotten := f.info(t)
	require.Zero(t, rate(forgotten, "hottest"))
	require.Positive(t, rate(forgotten, "warm"))
}

func rate(info messages.CacheInfoReply, key string) float64 {
	for _, hot := range info.HotKeys {
		if hot.Key == key {
			return hot.ReadsPerSecond
		}
	}
	return 0
}
