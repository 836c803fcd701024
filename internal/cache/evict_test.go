package cache_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/cache"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/messages"
)

// live returns the keys that are live.
func (f fixture) live(t *testing.T) []string {
	t.Helper()
	keys, _ := f.allKeys(t, messages.CacheKeys{})
	return keys
}

// evict runs the job with a bound and returns what it did.
func (f fixture) evict(t *testing.T, maxBytes int64) jobs.Counts {
	t.Helper()
	did, _ := f.run(t, cache.CleanupConfig{MaxBytes: maxBytes})
	return did
}

// TestEviction: over the bound the oldest entries go, those that are read stay, and the next round goes on behind them.
func TestEviction(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const entries = 20_000
	f.fill(t, entries, `CASE WHEN n % 2 = 0 THEN ARRAY['even'] END`)
	_, err := f.db.Exec(t.Context(), `INSERT INTO morello.cache_hot_key VALUES ('`+tenant+`', 'fill-7', 100, now()), ('other', 'fill-8', 100, now())`)
	require.NoError(t, err)
	require.Zero(t, f.evict(t, 0)["evicted"], "no bound")
	require.Zero(t, f.evict(t, 1<<30)["evicted"], "a bound that is not reached")
	require.Len(t, f.live(t), entries)

	did := f.evict(t, 3<<20)
	require.Positive(t, did["evicted"])
	require.Positive(t, did["evicted_bytes"])
	left := f.live(t)
	require.Len(t, left, entries-int(did["evicted"]))
	require.True(t, slices.Contains(left, "fill-7"), "it is read")
	require.False(t, slices.Contains(left, "fill-8"), "it is another tenant's that is read")
	require.Equal(t, int(did["evicted"])+2, oldest(t, left), "first in, first out, but for fill-7")
	require.Len(t, f.tags(t), even(t, left))
	require.Zero(t, f.evict(t, 3<<20)["evicted"], "it is within the bound now")

	_, err = f.db.Exec(t.Context(), `VACUUM morello.cache_entry`) // what came later takes the room of what went
	require.NoError(t, err)
	for i := range 5 {
		var entries []messages.CacheSetEntry
		for n := range 1000 {
			entries = append(entries, messages.CacheSetEntry{Key: fmt.Sprintf("again-%d-%d", i, n), Value: []byte("1")})
		}
		_, err := f.SetMany(t.Context(), tenant, messages.CacheSetMany{Entries: entries})
		require.NoError(t, err)
	}
	require.Positive(t, f.evict(t, 3<<20)["evicted"])
	now := f.live(t)
	require.False(t, slices.Contains(now, fmt.Sprint("fill-", oldest(t, left))), "the hand goes on where it stood")
	require.True(t, slices.Contains(now, "again-0-0"), "what took the room behind the hand is passed last")
}

// oldest returns the least number of the keys fill-<n> but for fill-7.
func oldest(t *testing.T, keys []string) int {
	t.Helper()
	return slices.Min(numbers(t, slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return key == "fill-7" })))
}

func even(t *testing.T, keys []string) (n int) {
	t.Helper()
	for _, number := range numbers(t, keys) {
		n += 1 - number%2
	}
	return n
}

func numbers(t *testing.T, keys []string) []int {
	t.Helper()
	list := make([]int, len(keys))
	for i, key := range keys {
		_, err := fmt.Sscanf(key, "fill-%d", &list[i])
		require.NoError(t, err)
	}
	return list
}

// TestWritesCountAsUse: whatever reads or changes a live entry often keeps it from being evicted.
func TestWritesCountAsUse(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	service, closeService := newServiceToClose(t, f.url)
	ctx := t.Context()
	uses := map[string]func(key string) error{
		"get": func(key string) error { _, err := service.Get(ctx, tenant, messages.CacheGet{Key: key}); return err },
		"get_many": func(key string) error {
			_, err := service.GetMany(ctx, tenant, messages.CacheGetMany{Keys: []string{key}})
			return err
		},
		"touch": func(key string) error {
			_, err := service.Touch(ctx, tenant, messages.CacheTouch{Key: key})
			return err
		},
		"increment": func(key string) error {
			_, err := service.Increment(ctx, tenant, messages.CacheIncrement{Key: key})
			return err
		},
		"set": func(key string) error {
			_, err := service.Set(ctx, tenant, messages.CacheSet{Key: key, Value: []byte("2")})
			return err
		},
		"keep_ttl": func(key string) error {
			_, err := service.Set(ctx, tenant, messages.CacheSet{Key: key, Value: []byte("2"), KeepTTL: true})
			return err
		},
		"if_version": func(key string) error {
			found, err := service.Get(ctx, "other", messages.CacheGet{Key: key})
			if err == nil {
				version := found.Version + f.get(t, key).Version
				_, err = service.Set(ctx, tenant, messages.CacheSet{Key: key, Value: []byte("2"), IfVersion: &version})
			}
			return err
		},
		"set_many": func(key string) error {
			_, err := service.SetMany(ctx, tenant, messages.CacheSetMany{Entries: []messages.CacheSetEntry{{Key: key, Value: []byte("2")}}})
			return err
		},
	}
	for name := range uses {
		f.set(t, messages.CacheSet{Key: name})
	}
	f.fill(t, 20_000, `NULL`)
	var used sync.WaitGroup
	for name, use := range uses {
		used.Go(func() {
			for range 400 { // a dozen samples
				if err := use(name); err != nil {
					t.Error(name, err)
					return
				}
			}
		})
	}
	used.Wait()
	closeService() // writes what was sampled
	require.Positive(t, f.evict(t, 1<<20)["evicted"])
	live := f.live(t)
	for name := range uses {
		require.Contains(t, live, name)
	}
}

// TestEvictionOfLargeValues: one page may stand for many megabytes; no more goes than must.
func TestEvictionOfLargeValues(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	random := make([]byte, 1<<20)
	for i := range 40 {
		for j := range random { // PostgreSQL would compress what repeats
			random[j] = 'a' + byte((i*7+j*j*31+j/13*j)%26)
		}
		f.set(t, messages.CacheSet{Key: fmt.Sprint("k", i), Value: fmt.Appendf(nil, "%q", random)})
	}
	var stored int64
	require.NoError(t, f.db.QueryRow(t.Context(), `SELECT sum(pg_column_size(value)) FROM morello.cache_entry`).Scan(&stored))
	did := f.evict(t, stored/2)
	require.InDelta(t, float64(stored)*(1-0.475), did["evicted_bytes"], 2<<20)
	require.InDelta(t, 40*(1-0.475), did["evicted"], 2)
}

// TestEvictionGoesRoundTheClock: under a bound that is far too small it ends after one round, and leaves what is locked.
func TestEvictionGoesRoundTheClock(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.fill(t, 5000, `NULL`)
	tx, err := f.db.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `SELECT FROM morello.cache_entry WHERE key = 'fill-3' FOR UPDATE`)
	require.NoError(t, err)
	other := newFixtureOn(t, f.url)
	require.EqualValues(t, 4999, other.evict(t, 1)["evicted"])
	require.NoError(t, tx.Rollback(t.Context()))
	require.Equal(t, []string{"fill-3"}, f.live(t))
}

// TestDurable: a durable cache outlives a crash of PostgreSQL, and can be made one and undone with its entries in it.
func TestDurable(t *testing.T) {
	t.Parallel()
	server := devtest.Server(t)
	f := newFixtureOn(t, server.URL("morello"))
	f.set(t, messages.CacheSet{Key: "k", Tags: []string{"t"}})
	isDurable := func() bool {
		durable, err := f.Durable(t.Context())
		require.NoError(t, err)
		return durable
	}
	setDurable := func(durable bool) bool {
		changed, err := cache.SetDurable(t.Context(), f.db, durable)
		require.NoError(t, err)
		return changed
	}
	require.False(t, isDurable())
	require.False(t, setDurable(false))
	require.True(t, setDurable(true))
	require.False(t, setDurable(true), "it is already")
	require.True(t, isDurable())
	require.True(t, f.get(t, "k").Found)
	f.set(t, messages.CacheSet{Key: "l", Value: []byte("2"), Tags: []string{"t"}})

	require.NoError(t, server.Kill())
	require.NoError(t, server.Restart(t.Context()))
	again := newFixtureOn(t, server.URL("morello"))
	require.Equal(t, "2", string(again.get(t, "l").Value))
	require.Equal(t, []string{"t k", "t l"}, again.tags(t))

	changed, err := cache.SetDurable(t.Context(), again.db, false)
	require.NoError(t, err)
	require.True(t, changed)
	require.Equal(t, "2", string(again.get(t, "l").Value))
}
