package cache_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

// TestReadsWriteNothing: no byte of WAL, no transaction id, no row version; on a server of its own, where nobody else writes.
// Counts of hits are written apart from reads, every two seconds: a round in which that happened is repeated.
func TestReadsWriteNothing(t *testing.T) {
	t.Parallel()
	f := newFixtureOn(t, devtest.Server(t).URL("morello"))
	const keys = 300
	names := make([]string, keys)
	for i := range keys {
		names[i] = fmt.Sprint("k", i)
		f.set(t, messages.CacheSet{Key: names[i], Tags: []string{"t"}})
	}
	type traces struct {
		lsn, xid string
		versions int64 // of rows, alive or dead
	}
	look := func() (seen traces) {
		require.NoError(t, f.db.QueryRow(t.Context(), `
			SELECT pg_current_wal_insert_lsn()::text, pg_snapshot_xmax(pg_current_snapshot())::text, pg_relation_size('morello.cache_entry')`,
		).Scan(&seen.lsn, &seen.xid, &seen.versions))
		return seen
	}
	require.Eventually(t, func() bool {
		before := look()
		for _, name := range names {
			require.True(t, f.get(t, name).Found)
		}
		f.get(t, "missing")
		_, err := f.GetMany(t.Context(), tenant, messages.CacheGetMany{Keys: names})
		require.NoError(t, err)
		require.Len(t, f.live(t), keys)
		require.Len(t, f.tagged(t, messages.CacheGetByTags{Tags: []string{"t"}}), keys)
		f.info(t)
		return look() == before
	}, time.Minute, time.Millisecond)
}

// TestUpdatesAreHOT: touches, and sets with the same TTL, of keys in random order, touch no index in at least 90 of 100
// cases. On a server of its own: a long transaction, in whichever database, keeps row versions and fills the pages.
func TestUpdatesAreHOT(t *testing.T) {
	t.Parallel()
	f := newFixtureOn(t, devtest.Server(t).URL("morello"))
	const keys, rounds, some = 5000, 100, 50
	random := rand.New(rand.NewPCG(1, 2))
	set := func(value int, which []int) {
		request := messages.CacheSetMany{TTLSeconds: ptr(600.0)}
		for _, i := range which {
			request.Entries = append(request.Entries, messages.CacheSetEntry{Key: fmt.Sprint("k", i), Value: fmt.Appendf(nil, `"%0100d"`, value)})
		}
		_, err := f.SetMany(t.Context(), tenant, request)
		require.NoError(t, err)
	}
	for chunk := range slices.Chunk(random.Perm(keys), messages.MaxBatchKeys) {
		set(0, chunk)
	}
	for round := range rounds {
		order := random.Perm(keys)
		set(round, order[:some])
		for _, i := range order[some : 2*some] {
			_, err := f.Touch(t.Context(), tenant, messages.CacheTouch{Key: fmt.Sprint("k", i)})
			require.NoError(t, err)
		}
	}
	const updates = 2 * some * rounds
	var updated, hot int64
	require.Eventually(t, func() bool { // the server's counts come late
		err := f.db.QueryRow(t.Context(), `
			SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = 'morello.cache_entry'::regclass`).Scan(&updated, &hot)
		return err == nil && updated >= updates
	}, time.Minute, 100*time.Millisecond)
	require.EqualValues(t, updates, updated)
	require.GreaterOrEqual(t, float64(hot)/float64(updated), 0.9)
	require.InDelta(t, float64(hot)/float64(updated), f.info(t).Health.HotUpdateRatio, 1e-9)
}
