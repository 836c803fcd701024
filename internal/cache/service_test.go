package cache_test

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/messages"
)

func TestSetAndGet(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	require.Equal(t, messages.CacheGetReply{}, f.get(t, "k"))

	stored := f.set(t, messages.CacheSet{Key: "k", Value: []byte(`{"a": [1.0, 1e400, "\u0000\ud800"]}`), TTLSeconds: ptr(60.0)})
	require.True(t, stored.Stored)
	require.WithinDuration(t, time.Now().Add(time.Minute), *stored.ExpiresAt, 10*time.Second)
	got := f.get(t, "k")
	require.True(t, got.Found)
	require.Equal(t, `{"a":[1.0,1e400,"\u0000\ud800"]}`, string(got.Value)) // tokens as sent
	require.Equal(t, stored.Version, got.Version)
	require.Equal(t, *stored.ExpiresAt, *got.ExpiresAt)
	require.InDelta(t, 60, *got.ExpiresInSeconds, 10)

	second := f.set(t, messages.CacheSet{Key: "k", Value: []byte("null"), NoExpiry: true})
	require.Greater(t, second.Version, stored.Version)
	require.Nil(t, second.ExpiresAt)
	got = f.get(t, "k")
	require.Equal(t, "null", string(got.Value)) // a value, not a miss
	require.True(t, got.Found)
	require.Nil(t, got.ExpiresAt)
	require.Nil(t, got.ExpiresInSeconds)
}

func TestKeysAreBytesAndTenantsApart(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	keys := []string{"e\u0301", "\u00e9", "E", "e", " e", strings.Repeat("k", 512), `'"\;--`, "%", "_"}
	for i, key := range keys {
		f.set(t, messages.CacheSet{Key: key, Value: fmt.Append(nil, i)})
		_, err := f.Set(t.Context(), "other", messages.CacheSet{Key: key, Value: []byte(`"other"`)})
		require.NoError(t, err)
	}
	for i, key := range keys {
		require.Equal(t, fmt.Sprint(i), string(f.get(t, key).Value))
	}
	_, err := f.Delete(t.Context(), "other", messages.CacheDelete{Key: "e"})
	require.NoError(t, err)
	require.True(t, f.get(t, "e").Found)
}

func TestLargeValues(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, size := range []int{64<<10 - 2, 64 << 10, 4<<20 - 2} { // around the bound of a batch, and the largest
		value := append(append([]byte{'"'}, bytes.Repeat([]byte("x"), size)...), '"')
		f.set(t, messages.CacheSet{Key: "large", Value: value})
		got := f.get(t, "large")
		require.True(t, bytes.Equal(value, got.Value))
		require.NotNil(t, got.ExpiresInSeconds)
	}
}

func TestExpiredIsMissing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	first := f.set(t, messages.CacheSet{Key: "k", Tags: []string{"t"}})
	f.expire(t, "k", "1 microsecond")
	require.Equal(t, messages.CacheGetReply{}, f.get(t, "k"))
	many, err := f.GetMany(t.Context(), tenant, messages.CacheGetMany{Keys: []string{"k"}})
	require.NoError(t, err)
	require.Equal(t, map[string]*messages.CacheEntry{"k": nil}, many.Entries)
	touched, err := f.Touch(t.Context(), tenant, messages.CacheTouch{Key: "k"})
	require.NoError(t, err)
	require.Equal(t, messages.CacheTouchReply{}, touched) // never revived
	deleted, err := f.Delete(t.Context(), tenant, messages.CacheDelete{Key: "k"})
	require.NoError(t, err)
	require.False(t, deleted.Deleted)

	f.set(t, messages.CacheSet{Key: "k", Tags: []string{"t"}})
	f.expire(t, "k", "1 microsecond")
	second := f.set(t, messages.CacheSet{Key: "k", IfAbsent: true})
	require.True(t, second.Stored) // expired is absent
	require.Greater(t, second.Version, first.Version)
	require.Empty(t, f.tags(t))
}

func TestConditions(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	first := f.set(t, messages.CacheSet{Key: "k", IfAbsent: true})
	require.True(t, first.Stored)
	lost := messages.CacheSetReply{Version: first.Version}
	require.Equal(t, lost, f.set(t, messages.CacheSet{Key: "k", IfAbsent: true}))
	require.Equal(t, lost, f.set(t, messages.CacheSet{Key: "k", IfVersion: ptr(int64(0))}))
	require.Equal(t, lost, f.set(t, messages.CacheSet{Key: "k", IfVersion: ptr(first.Version - 1)}))
	second := f.set(t, messages.CacheSet{Key: "k", Value: []byte("2"), IfVersion: ptr(first.Version), Tags: []string{"t"}})
	require.True(t, second.Stored)
	require.Greater(t, second.Version, first.Version)
	require.Equal(t, "2", string(f.get(t, "k").Value))
	require.Equal(t, messages.CacheSetReply{}, f.set(t, messages.CacheSet{Key: "nothing", IfVersion: ptr(int64(7))}))

	deleted, err := f.Delete(t.Context(), tenant, messages.CacheDelete{Key: "k", IfVersion: ptr(first.Version)})
	require.NoError(t, err)
	require.False(t, deleted.Deleted)
	deleted, err = f.Delete(t.Context(), tenant, messages.CacheDelete{Key: "k", IfVersion: ptr(second.Version)})
	require.NoError(t, err)
	require.True(t, deleted.Deleted)
	require.Empty(t, f.tags(t))
	third := f.set(t, messages.CacheSet{Key: "k", IfVersion: ptr(int64(0))})
	require.True(t, third.Stored)
	require.Greater(t, third.Version, second.Version) // across deletion
}

func TestTagsFollowTheEntry(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	odd := `{"a",\b}` // what an array literal must quote
	f.set(t, messages.CacheSet{Key: "k", Tags: []string{"b", odd, "b", "NULL"}})
	require.ElementsMatch(t, []string{"NULL k", "b k", odd + " k"}, f.tags(t))
	f.set(t, messages.CacheSet{Key: "k", Tags: []string{"b", "c"}})
	require.Equal(t, []string{"b k", "c k"}, f.tags(t))
	_, err := f.Increment(t.Context(), tenant, messages.CacheIncrement{Key: "k"}) // keeps them
	require.NoError(t, err)
	require.Equal(t, []string{"b k", "c k"}, f.tags(t))
	f.set(t, messages.CacheSet{Key: "k", IfVersion: ptr(f.get(t, "k").Version), Tags: []string{"d"}})
	require.Equal(t, []string{"d k"}, f.tags(t))
	f.expire(t, "k", "1 second")
	_, err = f.Increment(t.Context(), tenant, messages.CacheIncrement{Key: "k"}) // another entry
	require.NoError(t, err)
	require.Empty(t, f.tags(t))
	_, err = f.SetMany(t.Context(), tenant, messages.CacheSetMany{Tags: []string{"all"}, Entries: []messages.CacheSetEntry{
		{Key: "k", Value: []byte("1")},
		{Key: "l", Value: []byte("1"), Tags: []string{"own"}},
		{Key: "m", Value: []byte("1"), Tags: []string{}},
	}})
	require.NoError(t, err)
	require.Equal(t, []string{"all k", "own l"}, f.tags(t)) // an empty list wins too
	_, err = f.DeleteMany(t.Context(), tenant, messages.CacheDeleteMany{Keys: []string{"l", "k"}})
	require.NoError(t, err)
	require.Empty(t, f.tags(t))
}

func TestMany(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	set, err := f.SetMany(t.Context(), tenant, messages.CacheSetMany{
		TTLSeconds: ptr(100.0),
		Entries: []messages.CacheSetEntry{
			{Key: "a", Value: []byte(`1`)}, {Key: "b", Value: []byte(`2`), TTLSeconds: ptr(5.0)}, {Key: "a", Value: []byte(`3`)},
		},
	})
	require.NoError(t, err)
	require.Equal(t, 2, set.Stored)
	got, err := f.GetMany(t.Context(), tenant, messages.CacheGetMany{Keys: []string{"b", "missing", "a", "a"}})
	require.NoError(t, err)
	require.Len(t, got.Entries, 3)
	require.Nil(t, got.Entries["missing"])
	require.Equal(t, "3", string(got.Entries["a"].Value))
	require.InDelta(t, 100, *got.Entries["a"].ExpiresInSeconds, 10)
	require.InDelta(t, 5, *got.Entries["b"].ExpiresInSeconds, 4.9)
	deleted, err := f.DeleteMany(t.Context(), tenant, messages.CacheDeleteMany{Keys: []string{"a", "a", "b", "missing"}})
	require.NoError(t, err)
	require.Equal(t, 2, deleted.Deleted)
}

func TestGetManyOverTheLimit(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	value := append(append([]byte{'"'}, bytes.Repeat([]byte("x"), 3<<20)...), '"')
	for _, key := range []string{"a", "b", "c"} {
		f.set(t, messages.CacheSet{Key: key, Value: value})
	}
	_, err := f.GetMany(t.Context(), tenant, messages.CacheGetMany{Keys: []string{"a", "b", "c"}})
	known := failure(t, err)
	require.Equal(t, messages.CodeTooLarge, known.Code)
	require.Contains(t, known.Message, fmt.Sprint(3*len(value))) // the sum
	got, err := f.GetMany(t.Context(), tenant, messages.CacheGetMany{Keys: []string{"a", "c"}})
	require.NoError(t, err)
	require.True(t, bytes.Equal(value, got.Entries["c"].Value))
}

func TestTouch(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.set(t, messages.CacheSet{Key: "k", TTLSeconds: ptr(1000.0)})
	f.set(t, messages.CacheSet{Key: "forever", NoExpiry: true})
	version := f.get(t, "k").Version
	for range 3 { // however often: the TTL does not grow
		touched, err := f.Touch(t.Context(), tenant, messages.CacheTouch{Key: "k"})
		require.NoError(t, err)
		require.True(t, touched.Touched)
		require.WithinDuration(t, time.Now().Add(1000*time.Second), *touched.ExpiresAt, 10*time.Second)
	}
	touched, err := f.Touch(t.Context(), tenant, messages.CacheTouch{Key: "k", TTLSeconds: ptr(50.0)})
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(50*time.Second), *touched.ExpiresAt, 10*time.Second)
	_, err = f.Touch(t.Context(), tenant, messages.CacheTouch{Key: "k"})
	require.NoError(t, err)
	got := f.get(t, "k")
	require.InDelta(t, 1000, *got.ExpiresInSeconds, 10) // its own TTL again
	require.Equal(t, version, got.Version)
	touched, err = f.Touch(t.Context(), tenant, messages.CacheTouch{Key: "forever"})
	require.NoError(t, err)
	require.Equal(t, messages.CacheTouchReply{Touched: true}, touched)
	touched, err = f.Touch(t.Context(), tenant, messages.CacheTouch{Key: "missing"})
	require.NoError(t, err)
	require.Equal(t, messages.CacheTouchReply{}, touched)
}

func TestIncrement(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	increment := func(m messages.CacheIncrement) (messages.CacheIncrementReply, error) {
		m.Key = "n"
		return f.Increment(t.Context(), tenant, m)
	}
	first, err := increment(messages.CacheIncrement{Initial: 10, TTLSeconds: ptr(100.0)})
	require.NoError(t, err)
	require.EqualValues(t, 11, first.Value)
	second, err := increment(messages.CacheIncrement{Delta: ptr(int64(-20)), Initial: 10})
	require.NoError(t, err)
	require.EqualValues(t, -9, second.Value)
	require.Greater(t, second.Version, first.Version)
	require.InDelta(t, 100, *f.get(t, "n").ExpiresInSeconds, 10) // kept
	_, err = increment(messages.CacheIncrement{Delta: ptr(int64(0)), TTLSeconds: ptr(7.0)})
	require.NoError(t, err)
	require.InDelta(t, 100, *f.get(t, "n").ExpiresInSeconds, 10) // so a window of fixed length is counted
	f.expire(t, "n", "1 second")
	third, err := increment(messages.CacheIncrement{})
	require.NoError(t, err)
	require.EqualValues(t, 1, third.Value)
	require.Greater(t, third.Version, second.Version)

	for name, value := range map[string]string{
		"overflow": fmt.Sprint(math.MaxInt64), "fraction": "1.0", "exponent": "1e3", "text": `"5"`, "null": "null", "object": "{}",
	} {
		f.set(t, messages.CacheSet{Key: "n", Value: jsontext.Value(value)})
		_, err := increment(messages.CacheIncrement{})
		require.Equal(t, messages.CodeConflict, failure(t, err).Code, name)
		require.Equal(t, value, string(f.get(t, "n").Value), name)
	}
	f.set(t, messages.CacheSet{Key: "n", Value: []byte("-0")})
	_, err = increment(messages.CacheIncrement{Delta: ptr(int64(math.MaxInt64))})
	require.NoError(t, err)
	_, err = f.Increment(t.Context(), tenant, messages.CacheIncrement{Key: "fresh", Initial: 1, Delta: ptr(int64(math.MaxInt64))})
	require.Equal(t, messages.CodeConflict, failure(t, err).Code)
}

// TestIdempotencyKeys: every mutating operation, repeated with its key, has one effect and one reply.
// TestIncrementTimeToLive: what is given holds when the counter is created, and again only when it is renewed.
func TestIncrementTimeToLive(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	increment := func(m messages.CacheIncrement) *float64 {
		m.Key = "n"
		require.NoError(t, m.Validate())
		_, err := f.Increment(t.Context(), tenant, m)
		require.NoError(t, err)
		return f.get(t, "n").ExpiresInSeconds
	}
	require.InDelta(t, 60, *increment(messages.CacheIncrement{TTLSeconds: ptr(60.0), Tags: []string{"t", "s", "t"}}), 10)
	require.Equal(t, []string{"s n", "t n"}, f.tags(t))
	require.InDelta(t, 60, *increment(messages.CacheIncrement{TTLSeconds: ptr(500.0), NoExpiry: false, Tags: []string{"u"}}), 10)
	require.InDelta(t, 60, *increment(messages.CacheIncrement{NoExpiry: true}), 10)
	require.Equal(t, []string{"s n", "t n"}, f.tags(t))
	require.InDelta(t, 500, *increment(messages.CacheIncrement{TTLSeconds: ptr(500.0), Renew: true}), 10)
	require.InDelta(t, 3600, *increment(messages.CacheIncrement{Renew: true}), 10, "the default of a counter that is created")
	require.Nil(t, increment(messages.CacheIncrement{NoExpiry: true, Renew: true}))
	require.Nil(t, increment(messages.CacheIncrement{TTLSeconds: ptr(5.0)}))
	_, err := f.Touch(t.Context(), tenant, messages.CacheTouch{Key: "n"})
	require.NoError(t, err)
	require.Nil(t, f.get(t, "n").ExpiresInSeconds, "its own time to live")

	f.expire(t, "n", "1 second")
	require.InDelta(t, 3600, *increment(messages.CacheIncrement{Tags: []string{"t", "v"}}), 10)
	require.Equal(t, []string{"t n", "v n"}, f.tags(t), "those of the counter that expired are gone")
	require.EqualValues(t, "1", f.get(t, "n").Value)
	_, err = f.Delete(t.Context(), tenant, messages.CacheDelete{Key: "n"})
	require.NoError(t, err)
	require.Nil(t, increment(messages.CacheIncrement{NoExpiry: true}))
	require.Empty(t, f.tags(t))
}

// TestKeepTTL: a live entry keeps when it expires and what a touch renews it by; for any other the given time counts.
func TestKeepTTL(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	expiresIn := func(m messages.CacheSet) *float64 {
		m.Key, m.KeepTTL = "k", true
		require.True(t, f.set(t, m).Stored)
		return f.get(t, "k").ExpiresInSeconds
	}
	require.InDelta(t, 100, *expiresIn(messages.CacheSet{TTLSeconds: ptr(100.0)}), 10)
	require.InDelta(t, 100, *expiresIn(messages.CacheSet{Value: []byte("2"), Tags: []string{"t"}}), 10)
	require.Equal(t, "2", string(f.get(t, "k").Value))
	require.Equal(t, []string{"t k"}, f.tags(t), "nothing else is kept")
	version := f.get(t, "k").Version
	require.InDelta(t, 100, *expiresIn(messages.CacheSet{NoExpiry: true, IfVersion: &version}), 10)
	_, err := f.db.Exec(t.Context(), `UPDATE morello.cache_entry SET expires_at = now() + interval '5 seconds'`)
	require.NoError(t, err)
	require.InDelta(t, 5, *expiresIn(messages.CacheSet{}), 4)
	_, err = f.Touch(t.Context(), tenant, messages.CacheTouch{Key: "k"})
	require.NoError(t, err)
	require.InDelta(t, 100, *f.get(t, "k").ExpiresInSeconds, 10)
	f.expire(t, "k", "1 second")
	require.InDelta(t, 7, *expiresIn(messages.CacheSet{TTLSeconds: ptr(7.0), IfAbsent: true}), 6)
	_, err = f.Delete(t.Context(), tenant, messages.CacheDelete{Key: "k"})
	require.NoError(t, err)
	require.Nil(t, expiresIn(messages.CacheSet{NoExpiry: true}))
	require.Nil(t, expiresIn(messages.CacheSet{TTLSeconds: ptr(7.0)}))
	holder := f.ask(t, messages.CacheGet{Key: "leased", Lease: true})
	f.set(t, messages.CacheSet{Key: "leased", Lease: holder.Lease, KeepTTL: true, TTLSeconds: ptr(7.0)})
	require.InDelta(t, 7, *f.get(t, "leased").ExpiresInSeconds, 6)
}

// TestSetManyWithoutExpiry: of each entry, or of all but those with a time of their own.
func TestSetManyWithoutExpiry(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	one := []byte("1")
	for _, m := range []messages.CacheSetMany{
		{NoExpiry: true, Entries: []messages.CacheSetEntry{{Key: "a", Value: one}, {Key: "b", Value: one, TTLSeconds: ptr(50.0)}}},
		{TTLSeconds: ptr(70.0), Entries: []messages.CacheSetEntry{{Key: "c", Value: one, NoExpiry: true}, {Key: "d", Value: one}}},
	} {
		require.NoError(t, m.Validate())
		_, err := f.SetMany(t.Context(), tenant, m)
		require.NoError(t, err)
	}
	require.Nil(t, f.get(t, "a").ExpiresInSeconds)
	require.InDelta(t, 50, *f.get(t, "b").ExpiresInSeconds, 10)
	require.Nil(t, f.get(t, "c").ExpiresInSeconds)
	require.InDelta(t, 70, *f.get(t, "d").ExpiresInSeconds, 10)
}

func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := keyed(t.Context(), "set", 1)
	set := messages.CacheSet{Key: "k", Value: []byte("1"), TTLSeconds: ptr(60.0)}
	first, err := f.Set(ctx, tenant, set)
	require.NoError(t, err)
	again, err := f.Set(ctx, tenant, set)
	require.NoError(t, err)
	require.Equal(t, first, again)
	require.Equal(t, first.Version, f.get(t, "k").Version)

	ctx = keyed(t.Context(), "if_absent", 1)
	for range 2 {
		reply, err := f.Set(ctx, tenant, messages.CacheSet{Key: "new", Value: []byte("1"), IfAbsent: true})
		require.NoError(t, err)
		require.True(t, reply.Stored)
	}
	ctx = keyed(t.Context(), "increment", 1)
	for range 2 {
		reply, err := f.Increment(ctx, tenant, messages.CacheIncrement{Key: "n"})
		require.NoError(t, err)
		require.EqualValues(t, 1, reply.Value)
	}
	ctx = keyed(t.Context(), "set_many", 1)
	for range 2 {
		reply, err := f.SetMany(ctx, tenant, messages.CacheSetMany{Entries: []messages.CacheSetEntry{{Key: "m", Value: []byte("1")}}})
		require.NoError(t, err)
		require.Equal(t, 1, reply.Stored)
		f.set(t, messages.CacheSet{Key: "m", Value: []byte("2")})
	}
	require.Equal(t, "2", string(f.get(t, "m").Value))
	ctx = keyed(t.Context(), "touch", 1)
	var until []time.Time
	for range 2 {
		reply, err := f.Touch(ctx, tenant, messages.CacheTouch{Key: "k"})
		require.NoError(t, err)
		until = append(until, *reply.ExpiresAt)
	}
	require.Equal(t, until[0], until[1])
	for range 2 {
		reply, err := f.Delete(keyed(t.Context(), "delete", 1), tenant, messages.CacheDelete{Key: "k"})
		require.NoError(t, err)
		require.True(t, reply.Deleted)
		many, err := f.DeleteMany(keyed(t.Context(), "delete_many", 1), tenant, messages.CacheDeleteMany{Keys: []string{"m", "n"}})
		require.NoError(t, err)
		require.Equal(t, 2, many.Deleted)
	}
}
