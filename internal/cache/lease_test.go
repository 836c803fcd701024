package cache_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/cache"
	"github.com/ai-cherry/morello/messages"
)

func (f fixture) ask(t *testing.T, m messages.CacheGet) messages.CacheGetReply {
	t.Helper()
	require.NoError(t, m.Validate())
	reply, err := f.Get(t.Context(), tenant, m)
	require.NoError(t, err)
	return reply
}

// lapse makes the leases of all keys lapse.
func (f fixture) lapse(t *testing.T) {
	t.Helper()
	_, err := f.db.Exec(t.Context(), `UPDATE morello.cache_lease SET expires_at = now()`)
	require.NoError(t, err)
}

func (f fixture) leases(t *testing.T) (n int) {
	t.Helper()
	require.NoError(t, f.db.QueryRow(t.Context(), `SELECT count(*) FROM morello.cache_lease`).Scan(&n))
	return n
}

func TestLease(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	wants := messages.CacheGet{Key: "k", Lease: true}
	require.Empty(t, f.ask(t, messages.CacheGet{Key: "k"}).Lease) // nobody asked
	require.Zero(t, f.leases(t))
	holder := f.ask(t, wants)
	require.NotEmpty(t, holder.Lease)
	require.Zero(t, holder.LeaseWaitMS)
	other := f.ask(t, wants)
	require.Empty(t, other.Lease)
	require.Positive(t, other.LeaseWaitMS)

	stored := f.set(t, messages.CacheSet{Key: "k", Value: []byte("1"), Lease: holder.Lease, Tags: []string{"t"}})
	require.True(t, stored.Stored)
	require.Equal(t, []string{"t k"}, f.tags(t))
	require.Zero(t, f.leases(t))
	hit := f.ask(t, wants)
	require.True(t, hit.Found)
	require.Empty(t, hit.Lease)
	again := f.set(t, messages.CacheSet{Key: "k", Value: []byte("2"), Lease: holder.Lease}) // it is over
	require.Equal(t, messages.CacheSetReply{Version: stored.Version}, again)
	require.Equal(t, "1", string(f.get(t, "k").Value))
}

func TestLeaseIsGrantedAgainWhenItLapses(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	first := f.ask(t, messages.CacheGet{Key: "k", Lease: true})
	f.lapse(t)
	second := f.ask(t, messages.CacheGet{Key: "k", Lease: true})
	require.NotEmpty(t, second.Lease)
	require.NotEqual(t, first.Lease, second.Lease)
	require.False(t, f.set(t, messages.CacheSet{Key: "k", Lease: first.Lease}).Stored) // too late
	require.True(t, f.set(t, messages.CacheSet{Key: "k", Lease: second.Lease}).Stored)
	third := f.ask(t, messages.CacheGet{Key: "other", Lease: true})
	require.False(t, f.set(t, messages.CacheSet{Key: "k", Lease: third.Lease}).Stored) // another key's
	f.lapse(t)
	did := f.cleanup(t)
	require.EqualValues(t, 1, did["leases"])
	require.Zero(t, f.leases(t))
}

// TestWhatEndsALease: any other change of the key, so that no value computed before it is stored after it.
func TestWhatEndsALease(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	for name, change := range map[string]func() error{
		"delete": func() error { _, err := f.Delete(ctx, tenant, messages.CacheDelete{Key: "k"}); return err },
		"delete_many": func() error {
			_, err := f.DeleteMany(ctx, tenant, messages.CacheDeleteMany{Keys: []string{"k"}})
			return err
		},
		"clear all":        func() error { _, err := f.Clear(ctx, tenant, messages.CacheClear{All: true}); return err },
		"clear prefix":     func() error { _, err := f.Clear(ctx, tenant, messages.CacheClear{Prefix: "k"}); return err },
		"set":              func() error { f.set(t, messages.CacheSet{Key: "k"}); return nil },
		"set, now expired": func() error { f.set(t, messages.CacheSet{Key: "k"}); f.expire(t, "k", "1 second"); return nil },
		"set_many": func() error {
			_, err := f.SetMany(ctx, tenant, messages.CacheSetMany{Entries: []messages.CacheSetEntry{{Key: "k", Value: []byte("1")}}})
			return err
		},
		"if_absent": func() error { f.set(t, messages.CacheSet{Key: "k", IfAbsent: true}); return nil },
		"increment": func() error { _, err := f.Increment(ctx, tenant, messages.CacheIncrement{Key: "k"}); return err },
	} {
		for _, expired := range []bool{false, true} { // nothing was there, or an expired entry
			f.lapse(t)
			_, err := f.Delete(ctx, tenant, messages.CacheDelete{Key: "k"})
			require.NoError(t, err)
			if expired {
				f.set(t, messages.CacheSet{Key: "k", Value: []byte(`"old"`)})
				f.expire(t, "k", "5 seconds")
			}
			holder := f.ask(t, messages.CacheGet{Key: "k", Lease: true})
			require.NotEmpty(t, holder.Lease, name)
			require.NoError(t, change(), name)
			require.False(t, f.set(t, messages.CacheSet{Key: "k", Value: []byte(`"computed before"`), Lease: holder.Lease}).Stored, name)
		}
	}
}

// TestClearingATagEndsLeases: whoever names the tag that is cleared, the entry that was there, live, expired or deleted, or only the
// holder, no value that was computed before is stored after it. Other leases go on.
func TestClearingATagEndsLeases(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	clear := func(t *testing.T, m messages.CacheClear) {
		t.Helper()
		require.NoError(t, m.Validate())
		_, err := f.Clear(t.Context(), tenant, m)
		require.NoError(t, err)
	}
	states := map[string]func(t *testing.T, key string, tags []string){
		"nothing": func(*testing.T, string, []string) {},
		"expired": func(t *testing.T, key string, tags []string) {
			f.set(t, messages.CacheSet{Key: key, Tags: tags})
			f.expire(t, key, "5 seconds")
		},
		"deleted": func(t *testing.T, key string, tags []string) {
			f.set(t, messages.CacheSet{Key: key, Tags: tags})
			_, err := f.Delete(t.Context(), tenant, messages.CacheDelete{Key: key})
			require.NoError(t, err)
		},
		"cleared": func(t *testing.T, key string, tags []string) {
			f.set(t, messages.CacheSet{Key: key, Tags: tags})
			if tags != nil {
				clear(t, messages.CacheClear{Tags: tags})
			} else {
				clear(t, messages.CacheClear{Prefix: key})
			}
		},
	}
	for _, test := range []struct {
		name      string
		had, has  []string // of the entry that was there, of the one to be stored
		cleared   messages.CacheClear
		forgotten bool // the clear ends the lease also when nothing was there before
		known     bool // ... when the entry that was there had the tags
	}{
		{"holder's tag", nil, []string{"t"}, messages.CacheClear{Tags: []string{"t"}}, true, true},
		{"one of the holder's tags", nil, []string{"b", "t", "a"}, messages.CacheClear{Tags: []string{"x", "t"}}, true, true},
		{"all of the holder's tags", nil, []string{"b", "a"}, messages.CacheClear{Tags: []string{"a", "b"}, Match: messages.MatchAll}, true, true},
		{"not all of its tags", nil, []string{"a", "c"}, messages.CacheClear{Tags: []string{"a", "b"}, Match: messages.MatchAll}, false, false},
		{"another tag", []string{"s"}, []string{"s"}, messages.CacheClear{Tags: []string{"t"}}, false, false},
		{"tag that the key had", []string{"t", "u"}, nil, messages.CacheClear{Tags: []string{"t"}}, false, true},
		{"all tags that the key had", []string{"t", "u"}, nil, messages.CacheClear{Tags: []string{"u", "t"}, Match: messages.MatchAll}, false, true},
		{"not all tags that it had", []string{"t"}, nil, messages.CacheClear{Tags: []string{"u", "t"}, Match: messages.MatchAll}, false, false},
	} {
		for state, prepare := range states {
			key := test.name + " " + state
			prepare(t, key, test.had)
			clear(t, test.cleared) // one before the lease is granted means nothing
			holder := f.ask(t, messages.CacheGet{Key: key, Lease: true})
			require.NotEmpty(t, holder.Lease, key)
			elsewhere := test.cleared
			_, err := f.Clear(t.Context(), "other", elsewhere)
			require.NoError(t, err)
			if ends := test.forgotten || test.known && state != "nothing"; ends {
				clear(t, test.cleared)
				require.False(t, f.set(t, messages.CacheSet{Key: key, Tags: test.has, Lease: holder.Lease}).Stored, key)
				require.False(t, f.get(t, key).Found, key)
				holder = f.ask(t, messages.CacheGet{Key: key, Lease: true}) // and makes room
				require.NotEmpty(t, holder.Lease, key)
			} else {
				clear(t, test.cleared)
			}
			require.True(t, f.set(t, messages.CacheSet{Key: key, Tags: test.has, Lease: holder.Lease}).Stored, key)
		}
	}
}

// TestClearsAndSetsWithLeasesAtOnce: a clear that begins after a lease was granted, and a set with that lease, at once, by two workers.
// Whatever comes first, afterwards the value is not there.
func TestClearsAndSetsWithLeasesAtOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	services := []*cache.Service{f.Service, newService(t, f.url)}
	clears := []messages.CacheClear{
		{Tags: []string{"b"}}, {Tags: []string{"c", "a"}}, {Tags: []string{"b", "a"}, Match: messages.MatchAll}, {Prefix: "k"}, {All: true},
	}
	for round := range 60 {
		holder := f.ask(t, messages.CacheGet{Key: "k", Lease: true})
		require.NotEmpty(t, holder.Lease)
		var both sync.WaitGroup
		both.Go(func() {
			set := messages.CacheSet{Key: "k", Value: []byte("1"), Tags: []string{"b", "a"}, Lease: holder.Lease}
			if _, err := services[round%2].Set(t.Context(), tenant, set); err != nil {
				t.Error(err)
			}
		})
		for i := range 2 {
			both.Go(func() {
				if _, err := services[i].Clear(t.Context(), tenant, clears[(round+i)%len(clears)]); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		require.False(t, f.get(t, "k").Found, round)
	}
}

// TestClearedTagsAreForgotten: a tag that is cleared again and again takes one row, and none when no lease can be so old.
func TestClearedTagsAreForgotten(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	rows := func() (n int) {
		require.NoError(t, f.db.QueryRow(t.Context(), `SELECT count(*) FROM morello.cache_cleared_tag`).Scan(&n))
		return n
	}
	for range 5 {
		for _, m := range []messages.CacheClear{{Tags: []string{"t", "u"}}, {Tags: []string{"u", "t"}, Match: messages.MatchAll}} {
			_, err := f.Clear(t.Context(), tenant, m)
			require.NoError(t, err)
		}
	}
	require.Equal(t, 3, rows())
	f.cleanup(t)
	require.Equal(t, 3, rows())
	_, err := f.db.Exec(t.Context(), `UPDATE morello.cache_cleared_tag SET cleared_at = now() - interval '61 minutes' WHERE tag = 'u'`)
	require.NoError(t, err)
	f.cleanup(t)
	require.Equal(t, 2, rows())
}

// TestALeaseIsRenewed: by its holder alone, while it holds, for an hour in all.
func TestALeaseIsRenewed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	renew := func(key, token string) messages.CacheTouchReply {
		reply, err := f.Touch(t.Context(), tenant, messages.CacheTouch{Key: key, Lease: token})
		require.NoError(t, err)
		return reply
	}
	left := func() (seconds float64) {
		require.NoError(t, f.db.QueryRow(t.Context(), `SELECT date_part('epoch', expires_at - now()) FROM morello.cache_lease WHERE key = 'k'`).Scan(&seconds))
		return seconds
	}
	move := func(by string) {
		_, err := f.db.Exec(t.Context(), `UPDATE morello.cache_lease SET granted_at = granted_at - $1::interval, expires_at = expires_at - $1::interval`, by)
		require.NoError(t, err)
	}
	holder := f.ask(t, messages.CacheGet{Key: "k", Lease: true})
	other := f.ask(t, messages.CacheGet{Key: "other", Lease: true})
	require.False(t, renew("k", other.Lease).Touched)
	move("8 seconds")
	require.Less(t, left(), 3.0)
	reply := renew("k", holder.Lease)
	require.True(t, reply.Touched)
	require.NotNil(t, reply.ExpiresAt)
	require.InDelta(t, 10, left(), 1)
	require.Positive(t, f.ask(t, messages.CacheGet{Key: "k", Lease: true}).LeaseWaitMS)
	_, err := f.db.Exec(t.Context(), `UPDATE morello.cache_lease SET granted_at = now() - interval '3595 seconds'`)
	require.NoError(t, err)
	move("6 seconds")
	require.True(t, renew("k", holder.Lease).Touched)
	require.Less(t, left(), 5.0)
	require.True(t, f.set(t, messages.CacheSet{Key: "k", Lease: holder.Lease}).Stored)

	for name, end := range map[string]func(key string){
		"lapses": func(string) { f.lapse(t) },
		"set":    func(key string) { f.set(t, messages.CacheSet{Key: key}) },
		"delete": func(key string) {
			_, err := f.Delete(t.Context(), tenant, messages.CacheDelete{Key: key})
			require.NoError(t, err)
		},
		"clear": func(key string) {
			_, err := f.Clear(t.Context(), tenant, messages.CacheClear{Prefix: key})
			require.NoError(t, err)
		},
	} {
		holder := f.ask(t, messages.CacheGet{Key: name, Lease: true})
		end(name)
		require.Equal(t, messages.CacheTouchReply{}, renew(name, holder.Lease), name)
		require.False(t, f.set(t, messages.CacheSet{Key: name, Lease: holder.Lease}).Stored, name)
	}
}

// TestALeaseIsGivenBack: a delete of a version that no entry has ends the lease, and neither a stale value nor a live one.
func TestALeaseIsGivenBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.set(t, messages.CacheSet{Key: "k", Value: []byte(`"old"`)})
	f.expire(t, "k", "5 seconds")
	wants := messages.CacheGet{Key: "k", Lease: true, StaleSeconds: 60}
	giveBack := messages.CacheDelete{Key: "k", IfVersion: ptr(int64(1))}
	holder := f.ask(t, wants)
	require.NotEmpty(t, holder.Lease)
	_, err := f.Delete(t.Context(), tenant, giveBack)
	require.NoError(t, err)
	next := f.ask(t, wants)
	require.NotEmpty(t, next.Lease)
	require.Equal(t, `"old"`, string(next.Value))
	require.False(t, f.set(t, messages.CacheSet{Key: "k", Value: []byte(`"first"`), Lease: holder.Lease}).Stored)
	require.True(t, f.set(t, messages.CacheSet{Key: "k", Value: []byte(`"second"`), Lease: next.Lease}).Stored)
	_, err = f.Delete(t.Context(), tenant, giveBack)
	require.NoError(t, err)
	require.Equal(t, `"second"`, string(f.get(t, "k").Value))
}

// TestEndedLeaseMakesRoom: after a set that ended a lease has expired, the next miss gets one at once.
func TestEndedLeaseMakesRoom(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	first := f.ask(t, messages.CacheGet{Key: "k", Lease: true})
	f.set(t, messages.CacheSet{Key: "k"})
	f.expire(t, "k", "1 second")
	second := f.ask(t, messages.CacheGet{Key: "k", Lease: true})
	require.NotEmpty(t, second.Lease)
	require.NotEqual(t, first.Lease, second.Lease)
}

func TestStale(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.set(t, messages.CacheSet{Key: "k", Value: []byte(`"old"`)})
	f.expire(t, "k", "20 seconds")
	require.False(t, f.ask(t, messages.CacheGet{Key: "k"}).Found)
	require.False(t, f.ask(t, messages.CacheGet{Key: "k", StaleSeconds: 15}).Found)
	stale := f.ask(t, messages.CacheGet{Key: "k", StaleSeconds: 60})
	require.True(t, stale.Found && stale.Stale)
	require.Equal(t, `"old"`, string(stale.Value))
	require.InDelta(t, -20, *stale.ExpiresInSeconds, 10)
	holder := f.ask(t, messages.CacheGet{Key: "k", StaleSeconds: 60, Lease: true})
	require.NotEmpty(t, holder.Lease)
	require.Equal(t, `"old"`, string(holder.Value))
	waiting := f.ask(t, messages.CacheGet{Key: "k", StaleSeconds: 60, Lease: true})
	require.Positive(t, waiting.LeaseWaitMS)
	require.Equal(t, `"old"`, string(waiting.Value))
	require.True(t, f.set(t, messages.CacheSet{Key: "k", Value: []byte(`"new"`), Lease: holder.Lease}).Stored)
	fresh := f.ask(t, messages.CacheGet{Key: "k", StaleSeconds: 60, Lease: true})
	require.False(t, fresh.Stale)
	require.Equal(t, `"new"`, string(fresh.Value))

	large := append(append([]byte{'"'}, make([]byte, 100<<10)...), '"')
	for i := range large[1 : len(large)-1] {
		large[i+1] = 'x'
	}
	f.set(t, messages.CacheSet{Key: "large", Value: large})
	f.expire(t, "large", "5 seconds")
	holder = f.ask(t, messages.CacheGet{Key: "large", StaleSeconds: 60, Lease: true})
	require.NotEmpty(t, holder.Lease)
	require.True(t, holder.Stale)
	require.Len(t, holder.Value, len(large))
}

// TestThousandMissesOneLease: of 1000 concurrent misses through two workers one gets the lease, also when it is granted
// again after it lapsed.
func TestThousandMissesOneLease(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	services := []*cache.Service{f.Service, newService(t, f.url)}
	for round := range 3 {
		var callers sync.WaitGroup
		var leases, waits atomic.Int64
		for caller := range 1000 {
			callers.Go(func() {
				reply, err := services[caller%2].Get(t.Context(), tenant, messages.CacheGet{Key: "k", Lease: true})
				if err != nil || reply.Found {
					t.Errorf("round %d: %+v, %v", round, reply, err)
				}
				if reply.Lease != "" {
					leases.Add(1)
				}
				if reply.LeaseWaitMS > 0 {
					waits.Add(1)
				}
			})
		}
		callers.Wait()
		require.EqualValues(t, 1, leases.Load())
		require.EqualValues(t, 999, waits.Load())
		f.lapse(t)
	}
}

// TestLeasesDoNotDeadlock: holders who set, and others who delete and set, the same keys.
func TestLeasesDoNotDeadlock(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	services := []*cache.Service{f.Service, newService(t, f.url)}
	keys := []string{"a", "b", "c", "d"}
	var callers sync.WaitGroup
	for caller := range 32 {
		callers.Go(func() {
			service := services[caller%2]
			for i := range 30 {
				if err := leaseRound(t.Context(), service, keys, caller, i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	callers.Wait()
}

func leaseRound(ctx context.Context, service *cache.Service, keys []string, caller, i int) error {
	key := keys[(caller+i)%len(keys)]
	switch (caller + i) % 5 {
	case 0:
		_, err := service.DeleteMany(ctx, tenant, messages.CacheDeleteMany{Keys: []string{keys[3], key, keys[0]}})
		return err
	case 1:
		_, err := service.Set(ctx, tenant, messages.CacheSet{Key: key, Value: fmt.Append(nil, i)})
		return err
	}
	reply, err := service.Get(ctx, tenant, messages.CacheGet{Key: key, Lease: true})
	if err != nil || reply.Lease == "" {
		return err
	}
	_, err = service.Set(ctx, tenant, messages.CacheSet{Key: key, Value: fmt.Append(nil, i), Lease: reply.Lease})
	return err
}
