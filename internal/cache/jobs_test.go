package cache_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/cache"
	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/messages"
)

// cleanup runs the job to its end and returns what it did.
func (f fixture) cleanup(t *testing.T) jobs.Counts {
	t.Helper()
	did, _ := f.run(t, cache.CleanupConfig{})
	return did
}

// run runs the job to its end and returns what it did and in how many batches.
func (f fixture) run(t *testing.T, cfg cache.CleanupConfig) (jobs.Counts, int) {
	t.Helper()
	step := cache.NewCleanup(cfg).NewRun()
	total, batches := jobs.Counts{}, 0
	for more := true; more; batches++ {
		tx, err := f.db.Begin(t.Context())
		require.NoError(t, err)
		var did jobs.Counts
		did, more, err = step(t.Context(), tx)
		require.NoError(t, err)
		require.NoError(t, tx.Commit(t.Context()))
		for name, n := range did {
			total[name] += n
		}
	}
	return total, batches
}

func TestCleanup(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i := range 2500 {
		_, err := f.db.Exec(t.Context(), `
			INSERT INTO morello.cache_entry (tenant, key, value, version, ttl, expires_at, sweep_after, created_at, tags)
			VALUES ($1, $2, '1', 1, '1 second', now() - interval '301 seconds', now() - interval '1 second', now(), '{t}')`,
			fmt.Sprint("tenant-", i%3), fmt.Sprint(i))
		require.NoError(t, err)
	}
	_, err := f.db.Exec(t.Context(), `INSERT INTO morello.cache_tag SELECT tenant, 't', key FROM morello.cache_entry`)
	require.NoError(t, err)
	f.set(t, messages.CacheSet{Key: "live", Tags: []string{"t"}})
	f.set(t, messages.CacheSet{Key: "forever", NoExpiry: true})
	f.set(t, messages.CacheSet{Key: "stale"})
	f.expire(t, "stale", "299 seconds") // kept for those who take a stale value

	did, batches := f.run(t, cache.CleanupConfig{})
	require.Equal(t, jobs.Counts{"removed": 2500, "leases": 0, "tags": 0}, did)
	require.Equal(t, 3+5, batches)
	require.Equal(t, []string{"t live"}, f.tags(t))
	var left int
	require.NoError(t, f.db.QueryRow(t.Context(), `SELECT count(*) FROM morello.cache_entry`).Scan(&left))
	require.Equal(t, 3, left)
	did = f.cleanup(t)
	require.Equal(t, jobs.Counts{"removed": 0, "leases": 0, "tags": 0}, did)
}

// TestTombstones: a deleted entry keeps its version for five minutes, and is swept then.
func TestTombstones(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.set(t, messages.CacheSet{Key: "k", NoExpiry: true, Tags: []string{"t"}})
	_, err := f.db.Exec(t.Context(), `UPDATE morello.cache_entry SET version = version + 1000000000`) // ahead of the clock
	require.NoError(t, err)
	before := f.get(t, "k").Version
	_, err = f.Delete(t.Context(), tenant, messages.CacheDelete{Key: "k"})
	require.NoError(t, err)
	require.False(t, f.ask(t, messages.CacheGet{Key: "k", StaleSeconds: 300}).Found) // not even as a stale value
	keys, _ := f.allKeys(t, messages.CacheKeys{})
	require.Empty(t, keys)
	did := f.cleanup(t)
	require.Zero(t, did["removed"])
	require.Greater(t, f.set(t, messages.CacheSet{Key: "k"}).Version, before)

	_, err = f.Delete(t.Context(), tenant, messages.CacheDelete{Key: "k"})
	require.NoError(t, err)
	var seconds float64
	require.NoError(t, f.db.QueryRow(t.Context(), `SELECT date_part('epoch', sweep_after - now()) FROM morello.cache_entry`).Scan(&seconds))
	require.InDelta(t, 300, seconds, 10)
	_, err = f.db.Exec(t.Context(), `UPDATE morello.cache_entry SET sweep_after = now()`)
	require.NoError(t, err)
	did = f.cleanup(t)
	require.EqualValues(t, 1, did["removed"])
}

// TestCleanupRearms: an entry that was renewed is looked at again only when it can have expired.
func TestCleanupRearms(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.set(t, messages.CacheSet{Key: "k", TTLSeconds: ptr(1000.0)})
	f.expire(t, "k", "-1 second") // about to expire, and to be swept
	_, err := f.db.Exec(t.Context(), `UPDATE morello.cache_entry SET sweep_after = now()`)
	require.NoError(t, err)
	_, err = f.Touch(t.Context(), tenant, messages.CacheTouch{Key: "k"})
	require.NoError(t, err)
	due := func() (due bool, armed bool) {
		require.NoError(t, f.db.QueryRow(t.Context(), `
			SELECT sweep_after <= now(), sweep_after = expires_at + interval '300 seconds' FROM morello.cache_entry`).Scan(&due, &armed))
		return due, armed
	}
	isDue, _ := due()
	require.True(t, isDue) // a touch does not move it forward: that would end HOT updates
	did := f.cleanup(t)
	require.Equal(t, jobs.Counts{"removed": 0, "leases": 0, "tags": 0}, did)
	isDue, armed := due()
	require.False(t, isDue)
	require.True(t, armed)
	require.True(t, f.get(t, "k").Found)
}

// TestOrphanedTags: rows of cache_tag whose entry is gone, or has other tags, are removed; the walk is bounded and goes on.
func TestOrphanedTags(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.set(t, messages.CacheSet{Key: "live", Tags: []string{"t", "u"}})
	f.set(t, messages.CacheSet{Key: "untagged"})
	f.fill(t, 25_000, `ARRAY['many']`)
	_, err := f.db.Exec(t.Context(), `
		INSERT INTO morello.cache_tag VALUES ('acme', 'a', 'gone'), ('acme', 'a', 'live'), ('acme', 'zz', 'untagged'), ('other', 't', 'live')`)
	require.NoError(t, err)
	require.EqualValues(t, 1+1, f.cleanup(t)["tags"])
	require.EqualValues(t, 1+1, f.cleanup(t)["tags"], "the second run goes on where the first was cut off")
	require.Zero(t, f.cleanup(t)["tags"])
	var left int
	require.NoError(t, f.db.QueryRow(t.Context(), `SELECT count(*) FROM morello.cache_tag`).Scan(&left))
	require.Equal(t, 25_002, left)
	require.True(t, f.get(t, "live").Found)
	require.Equal(t, []string{"live"}, f.tagged(t, messages.CacheGetByTags{Tags: []string{"t"}}))
}

// TestTagWalkBesideSets: while tags change all the time, in overlapping sets, the walk removes no row that is needed, and
// in the end all that are not.
func TestTagWalkBesideSets(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	services := []*cache.Service{f.Service, newService(t, f.url)}
	var callers sync.WaitGroup
	for caller := range 8 {
		callers.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(caller)))
			for range 150 {
				var some []string
				for _, i := range random.Perm(6)[:3] {
					some = append(some, fmt.Sprint("k", i))
				}
				require.NoError(t, anyOperation(t.Context(), services[caller%2], random, some))
			}
		})
	}
	walking, stopWalking := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(walking)
		for {
			select {
			case <-stopWalking:
				return
			default:
				f.cleanup(t)
			}
		}
	}()
	callers.Wait()
	close(stopWalking)
	<-walking
	f.cleanup(t)
	f.cleanup(t)
	var has, should []string
	require.NoError(t, f.db.QueryRow(t.Context(), `
		SELECT (SELECT array_agg(tag || ' ' || key ORDER BY tag, key) FROM morello.cache_tag),
			(SELECT array_agg(own.tag || ' ' || key ORDER BY own.tag, key) FROM morello.cache_entry, unnest(tags) AS own (tag))`).Scan(&has, &should))
	require.Equal(t, should, has)
}
