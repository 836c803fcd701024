package cache_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/cache"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// TestSetsOfOneKeyNeverShareAVersion: also when a batch collapses them.
func TestSetsOfOneKeyNeverShareAVersion(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	services := []*cache.Service{f.Service, newService(t, f.url)}
	var mu sync.Mutex
	var versions []int64
	var callers sync.WaitGroup
	for caller := range 64 {
		callers.Go(func() {
			last := int64(0)
			for i := range 20 {
				value := fmt.Appendf(nil, `"%d-%d"`, caller, i)
				reply, err := services[caller%2].Set(t.Context(), tenant, messages.CacheSet{Key: fmt.Sprint("k", i%3), Value: value})
				require.NoError(t, err)
				require.True(t, reply.Stored)
				if i%3 == 0 {
					require.Greater(t, reply.Version, last)
					last = reply.Version
					mu.Lock()
					versions = append(versions, reply.Version)
					mu.Unlock()
				}
			}
		})
	}
	callers.Wait()
	slices.Sort(versions)
	require.Len(t, slices.Compact(slices.Clone(versions)), len(versions))
	require.Equal(t, versions[len(versions)-1], f.get(t, "k0").Version) // the last one stands
}

func TestIncrementIsAtomic(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	other := newService(t, f.url)
	var callers sync.WaitGroup
	for caller := range 40 {
		callers.Go(func() {
			for range 10 {
				_, err := []*cache.Service{f.Service, other}[caller%2].Increment(t.Context(), tenant, messages.CacheIncrement{Key: "n"})
				require.NoError(t, err)
			}
		})
	}
	callers.Wait()
	require.Equal(t, "400", string(f.get(t, "n").Value))
}

func TestOneOfManyIfAbsentWins(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for round := range 10 {
		var callers sync.WaitGroup
		stored := make(chan int64, 20)
		lost := make(chan int64, 20)
		for range 20 {
			callers.Go(func() {
				reply, err := f.Set(t.Context(), tenant, messages.CacheSet{Key: fmt.Sprint(round), Value: []byte("1"), IfAbsent: true})
				require.NoError(t, err)
				if reply.Stored {
					stored <- reply.Version
				} else {
					lost <- reply.Version
				}
			})
		}
		callers.Wait()
		require.Len(t, stored, 1)
		winner := <-stored
		close(lost)
		for version := range lost {
			require.Equal(t, winner, version)
		}
	}
}

// TestNothingDeadlocks mixes every statement that locks several entries, in every order.
func TestNothingDeadlocks(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	services := []*cache.Service{f.Service, newService(t, f.url)}
	keys := make([]string, 20)
	for i := range keys {
		keys[i] = fmt.Sprint("k", i)
	}
	var callers sync.WaitGroup
	for caller := range 32 {
		callers.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(caller)))
			service := services[caller%2]
			for range 30 {
				some := make([]string, 0, 10)
				for _, i := range random.Perm(len(keys))[:10] {
					some = append(some, keys[i])
				}
				require.NoError(t, anyOperation(t.Context(), service, random, some))
			}
		})
	}
	callers.Wait()
	// cache_tag says what the entries say, but for rows that a reader ignores.
	var missing int
	require.NoError(t, f.db.QueryRow(t.Context(), `
		SELECT count(*) FROM morello.cache_entry AS e, unnest(e.tags) AS own (tag)
		WHERE NOT EXISTS (SELECT FROM morello.cache_tag AS t WHERE t.tenant = e.tenant AND t.tag = own.tag AND t.key = e.key)`).Scan(&missing))
	require.Zero(t, missing)
}

func anyOperation(ctx context.Context, service *cache.Service, random *rand.Rand, keys []string) error {
	tags := [][]string{nil, {"a"}, {"b"}, {"a", "b"}}[random.IntN(4)]
	var err error
	switch random.IntN(5) {
	case 0:
		var entries []messages.CacheSetEntry
		for _, key := range keys {
			entries = append(entries, messages.CacheSetEntry{Key: key, Value: []byte("1"), Tags: tags})
		}
		_, err = service.SetMany(ctx, tenant, messages.CacheSetMany{Entries: entries})
	case 1:
		_, err = service.DeleteMany(ctx, tenant, messages.CacheDeleteMany{Keys: keys})
	case 2:
		_, err = service.Set(ctx, tenant, messages.CacheSet{Key: keys[0], Value: []byte("1"), Tags: tags})
	case 3:
		_, err = service.Touch(ctx, tenant, messages.CacheTouch{Key: keys[0]})
	default:
		_, err = service.Increment(ctx, tenant, messages.CacheIncrement{Key: keys[0]})
	}
	return err
}

// TestCountsAreTrueAcrossWorkers: every get is counted once, whichever worker answered, also at shutdown.
func TestCountsAreTrueAcrossWorkers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	url := f.url
	for range 2 {
		pool, err := postgres.Open(t.Context(), postgres.Config{URL: url, Program: "test", Instance: "two"})
		require.NoError(t, err)
		service := cache.New(pool, cache.Config{})
		_, err = service.Set(t.Context(), tenant, messages.CacheSet{Key: "k", Value: []byte("1")})
		require.NoError(t, err)
		var callers sync.WaitGroup
		for range 20 {
			callers.Go(func() {
				for _, key := range []string{"k", "missing", "k"} {
					_, err := service.Get(t.Context(), tenant, messages.CacheGet{Key: key})
					require.NoError(t, err)
				}
				_, err := service.GetMany(t.Context(), "other", messages.CacheGetMany{Keys: []string{"k", "l"}})
				require.NoError(t, err)
			})
		}
		callers.Wait()
		service.Close(t.Context())
		pool.Close()
	}
	counts := func(tenant string) (hits, misses int) {
		require.NoError(t, f.db.QueryRow(t.Context(), `SELECT hits, misses FROM morello.cache_counter WHERE tenant = $1`, tenant).Scan(&hits, &misses))
		return hits, misses
	}
	hits, misses := counts(tenant)
	require.Equal(t, []int{80, 40}, []int{hits, misses})
	hits, misses = counts("other")
	require.Equal(t, []int{0, 80}, []int{hits, misses})
}

func TestCountsAreFlushedWhileRunning(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.get(t, "missing")
	require.Eventually(t, func() bool {
		var misses int
		err := f.db.QueryRow(t.Context(), `SELECT misses FROM morello.cache_counter WHERE tenant = $1`, tenant).Scan(&misses)
		return err == nil && misses == 1
	}, 20*time.Second, 50*time.Millisecond)
}

// TestCacheAfterACrash: the cache is empty and works; what was acknowledged elsewhere is not this test's matter.
func TestCacheAfterACrash(t *testing.T) {
	t.Parallel()
	server := devtest.Server(t)
	service := newService(t, server.URL("morello"))
	ctx := t.Context()
	_, err := service.Set(ctx, tenant, messages.CacheSet{Key: "k", Value: []byte("1"), Tags: []string{"t"}})
	require.NoError(t, err)
	require.NoError(t, server.Kill())
	_, err = service.Get(ctx, tenant, messages.CacheGet{Key: "k"})
	known := failure(t, err) // an error, never a miss
	require.Equal(t, messages.CodeUnavailable, known.Code)
	require.Equal(t, messages.OutcomeNotApplied, known.Details.Outcome)
	_, err = service.Set(ctx, tenant, messages.CacheSet{Key: "k", Value: []byte("1")})
	require.Equal(t, messages.CodeUnavailable, failure(t, err).Code)
	require.NoError(t, server.Restart(ctx))
	require.Eventually(t, func() bool {
		reply, err := service.Get(ctx, tenant, messages.CacheGet{Key: "k"})
		return err == nil && !reply.Found
	}, 30*time.Second, 10*time.Millisecond)
	_, err = service.Set(ctx, tenant, messages.CacheSet{Key: "k", Value: []byte("2")})
	require.NoError(t, err)
}
