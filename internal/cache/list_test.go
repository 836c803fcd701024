package cache_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/cache"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// allKeys lists keys page by page.
func (f fixture) allKeys(t *testing.T, m messages.CacheKeys) (keys []string, pages int) {
	t.Helper()
	for {
		require.NoError(t, m.Validate())
		reply, err := f.Keys(t.Context(), tenant, m)
		require.NoError(t, err)
		require.LessOrEqual(t, len(reply.Keys), m.Size())
		pages++
		for _, key := range reply.Keys {
			keys = append(keys, key.Key)
		}
		if m.Cursor = reply.NextCursor; m.Cursor == "" {
			return keys, pages
		}
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	names := []string{"a", "a\uD7FF", "a\uE000", "aa", "ab", "b", "a\U0010FFFFz", "ä", "A"}
	for _, name := range names {
		f.set(t, messages.CacheSet{Key: name, Value: []byte(`"four"`)})
	}
	_, err := f.Set(t.Context(), "other", messages.CacheSet{Key: "foreign", Value: []byte("1")})
	require.NoError(t, err)
	f.set(t, messages.CacheSet{Key: "expired"})
	f.expire(t, "expired", "1 second")

	slices.Sort(names) // Go compares bytes
	keys, pages := f.allKeys(t, messages.CacheKeys{Page: messages.Page{Limit: ptr(2)}})
	require.Equal(t, names, keys)
	require.Equal(t, 5, pages)
	for _, prefix := range []string{"a", "aa", "a\uD7FF", "a\U0010FFFF", "\U0010FFFF", "zz"} {
		var want []string
		for _, name := range names {
			if strings.HasPrefix(name, prefix) {
				want = append(want, name)
			}
		}
		keys, _ := f.allKeys(t, messages.CacheKeys{Prefix: prefix, Page: messages.Page{Limit: ptr(1)}})
		require.Equal(t, want, keys, prefix)
	}
	reply, err := f.Keys(t.Context(), tenant, messages.CacheKeys{Prefix: "aa"})
	require.NoError(t, err)
	require.EqualValues(t, 6, reply.Keys[0].SizeBytes)
	require.Equal(t, f.get(t, "aa").Version, reply.Keys[0].Version)
	require.NotNil(t, reply.Keys[0].ExpiresAt)
	empty, err := f.Keys(t.Context(), "nobody", messages.CacheKeys{})
	require.NoError(t, err)
	require.NotNil(t, empty.Keys) // [] and not null
}

func TestCursors(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i := range 5 {
		f.set(t, messages.CacheSet{Key: fmt.Sprint("k", i), Tags: []string{"t"}})
	}
	page := messages.Page{Limit: ptr(2)}
	keys, err := f.Keys(t.Context(), tenant, messages.CacheKeys{Prefix: "k", Page: page})
	require.NoError(t, err)
	tagged, err := f.GetByTags(t.Context(), tenant, messages.CacheGetByTags{Tags: []string{"t"}, Page: page})
	require.NoError(t, err)
	require.NotEmpty(t, tagged.NextCursor)
	for name, call := range map[string]func(cursor string) error{
		"of another tenant": func(string) error {
			_, err := f.Keys(t.Context(), "other", messages.CacheKeys{Prefix: "k", Page: messages.Page{Cursor: keys.NextCursor}})
			return err
		},
		"of another filter": func(string) error {
			_, err := f.Keys(t.Context(), tenant, messages.CacheKeys{Page: messages.Page{Cursor: keys.NextCursor}})
			return err
		},
		"of another operation": func(string) error {
			_, err := f.GetByTags(t.Context(), tenant, messages.CacheGetByTags{Tags: []string{"t"}, Page: messages.Page{Cursor: keys.NextCursor}})
			return err
		},
		"of other tags": func(string) error {
			_, err := f.GetByTags(t.Context(), tenant, messages.CacheGetByTags{Tags: []string{"u"}, Page: messages.Page{Cursor: tagged.NextCursor}})
			return err
		},
		"garbage": func(string) error {
			_, err := f.Keys(t.Context(), tenant, messages.CacheKeys{Page: messages.Page{Cursor: "garbage!"}})
			return err
		},
		"short": func(string) error {
			_, err := f.Keys(t.Context(), tenant, messages.CacheKeys{Page: messages.Page{Cursor: "AA"}})
			return err
		},
	} {
		known := failure(t, call(""))
		require.Equal(t, messages.CodeInvalid, known.Code, name)
		require.Equal(t, "cursor", known.Details.Field, name)
	}
}

// tagged lists the keys of tags page by page.
func (f fixture) tagged(t *testing.T, m messages.CacheGetByTags) (keys []string) {
	t.Helper()
	for {
		require.NoError(t, m.Validate())
		reply, err := f.GetByTags(t.Context(), tenant, m)
		require.NoError(t, err)
		for _, e := range reply.Entries {
			keys = append(keys, e.Key)
		}
		if m.Cursor = reply.NextCursor; m.Cursor == "" {
			return keys
		}
	}
}

func TestGetByTags(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	set := func(key string, tags ...string) { f.set(t, messages.CacheSet{Key: key, Tags: tags}) }
	set("1", "a")
	set("2", "a", "b")
	set("3", "b", "c")
	set("4", "a", "b", "c")
	set("5")
	set("gone", "a", "b", "c")
	f.expire(t, "gone", "1 second")
	for name, test := range map[string]struct {
		tags []string
		all  bool
		want []string
	}{
		"one":           {[]string{"a"}, false, []string{"1", "2", "4"}},
		"any":           {[]string{"a", "c"}, false, []string{"1", "2", "3", "4"}},
		"all":           {[]string{"a", "b"}, true, []string{"2", "4"}},
		"all three":     {[]string{"c", "b", "a"}, true, []string{"4"}},
		"repeated":      {[]string{"a", "a"}, true, []string{"1", "2", "4"}},
		"unknown":       {[]string{"z"}, false, nil},
		"all, unknown":  {[]string{"a", "z"}, true, nil},
		"any, unknown":  {[]string{"z", "c"}, false, []string{"3", "4"}},
		"of one (all)":  {[]string{"c"}, true, []string{"3", "4"}},
		"case matters":  {[]string{"A"}, false, nil},
		"not a pattern": {[]string{"%"}, false, nil},
	} {
		for _, limit := range []int{1, 2, 1000} {
			m := messages.CacheGetByTags{Tags: test.tags, Page: messages.Page{Limit: &limit}}
			if test.all {
				m.Match = messages.MatchAll
			}
			require.Equal(t, test.want, f.tagged(t, m), "%s, pages of %d", name, limit)
		}
	}
	reply, err := f.GetByTags(t.Context(), tenant, messages.CacheGetByTags{Tags: []string{"c"}})
	require.NoError(t, err)
	require.Equal(t, "1", string(reply.Entries[0].Value))
	require.Equal(t, []string{"b", "c"}, reply.Entries[0].Tags)
	require.WithinDuration(t, time.Now(), reply.Entries[0].CreatedAt, time.Minute)
	require.NotNil(t, reply.Entries[0].ExpiresAt)
	reply, err = f.GetByTags(t.Context(), tenant, messages.CacheGetByTags{Tags: []string{"c"}, WithValues: ptr(false)})
	require.NoError(t, err)
	require.Nil(t, reply.Entries[0].Value)
	empty, err := f.GetByTags(t.Context(), "other", messages.CacheGetByTags{Tags: []string{"a"}})
	require.NoError(t, err)
	require.Empty(t, empty.Entries)
	require.NotNil(t, empty.Entries)
}

// TestGetByTagsIgnoresStaleRows: a row of cache_tag that outlived its entry's tag names nothing.
func TestGetByTagsIgnoresStaleRows(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.set(t, messages.CacheSet{Key: "k", Tags: []string{"new"}})
	_, err := f.db.Exec(t.Context(), `INSERT INTO morello.cache_tag VALUES ($1, 'old', 'k'), ($1, 'old', 'missing')`, tenant)
	require.NoError(t, err)
	require.Empty(t, f.tagged(t, messages.CacheGetByTags{Tags: []string{"old"}}))
	cleared, err := f.Clear(t.Context(), tenant, messages.CacheClear{Tags: []string{"old"}})
	require.NoError(t, err)
	require.Zero(t, cleared.Removed)
	require.True(t, f.get(t, "k").Found)
}

func TestPagesEndAtOneMegabyte(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	value := append(append([]byte{'"'}, bytes.Repeat([]byte("x"), 400<<10)...), '"')
	for i := range 7 {
		f.set(t, messages.CacheSet{Key: fmt.Sprint(i), Value: value, Tags: []string{"t"}})
	}
	f.set(t, messages.CacheSet{Key: "8", Value: append(append([]byte{'"'}, bytes.Repeat([]byte("x"), 3<<20)...), '"'), Tags: []string{"t"}})
	m := messages.CacheGetByTags{Tags: []string{"t"}}
	var sizes []int
	for {
		reply, err := f.GetByTags(t.Context(), tenant, m)
		require.NoError(t, err)
		for _, e := range reply.Entries {
			require.NotNil(t, e.Value)
		}
		sizes = append(sizes, len(reply.Entries))
		if m.Cursor = reply.NextCursor; m.Cursor == "" {
			break
		}
	}
	require.Equal(t, []int{3, 3, 2}, sizes)
}

func TestClear(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	fill := func() {
		for _, key := range []string{"p1", "p2", "q"} {
			f.set(t, messages.CacheSet{Key: key, Tags: []string{"t", key}})
		}
		_, err := f.Set(t.Context(), "other", messages.CacheSet{Key: "p1", Value: []byte("1"), Tags: []string{"t"}})
		require.NoError(t, err)
	}
	for name, test := range map[string]struct {
		clear messages.CacheClear
		left  []string
	}{
		"prefix": {messages.CacheClear{Prefix: "p"}, []string{"q"}},
		"tag":    {messages.CacheClear{Tags: []string{"t"}}, nil},
		"any":    {messages.CacheClear{Tags: []string{"p1", "q"}}, []string{"p2"}},
		"all of": {messages.CacheClear{Tags: []string{"t", "p2"}, Match: messages.MatchAll}, []string{"p1", "q"}},
		"all":    {messages.CacheClear{All: true}, nil},
		"no one": {messages.CacheClear{Prefix: "z"}, []string{"p1", "p2", "q"}},
	} {
		fill()
		require.NoError(t, test.clear.Validate(), name)
		reply, err := f.Clear(t.Context(), tenant, test.clear)
		require.NoError(t, err, name)
		require.EqualValues(t, 3-len(test.left), reply.Removed, name)
		require.False(t, reply.More, name)
		keys, _ := f.allKeys(t, messages.CacheKeys{})
		require.Equal(t, test.left, keys, name)
		other, err := f.Get(t.Context(), "other", messages.CacheGet{Key: "p1"})
		require.NoError(t, err)
		require.True(t, other.Found, name)
	}
}

func TestClearWorksInBatches(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const sql = `
		INSERT INTO morello.cache_entry (tenant, key, value, version, expires_at, sweep_after, created_at, tags)
		SELECT $1, 'k' || n, '1', 1, now() + interval '1 hour', now() + interval '1 hour', now(), '{t}' FROM generate_series(1, 3500) AS n
		ON CONFLICT (tenant, key) DO UPDATE SET value = '1', expires_at = excluded.expires_at, tags = '{t}' -- over tombstones`
	fill := func() {
		_, err := f.db.Exec(t.Context(), sql, tenant)
		require.NoError(t, err)
		_, err = f.db.Exec(t.Context(), `INSERT INTO morello.cache_tag SELECT tenant, 't', key FROM morello.cache_entry ON CONFLICT DO NOTHING`)
		require.NoError(t, err)
	}
	for _, clear := range []messages.CacheClear{{All: true}, {Prefix: "k"}, {Tags: []string{"t"}}} {
		fill()
		reply, err := f.Clear(t.Context(), tenant, clear)
		require.NoError(t, err)
		require.Equal(t, messages.CacheClearReply{Removed: 3500}, reply)
		require.Empty(t, f.tags(t))
	}
	fill()
	for range 2 { // one transaction, one effect
		reply, err := f.Clear(keyed(t.Context(), "clear", 1), tenant, messages.CacheClear{All: true})
		require.NoError(t, err)
		require.EqualValues(t, 3500, reply.Removed)
	}
	fill()
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(time.Hour))
	defer cancel()
	reply, err := f.Clear(ctx, tenant, messages.CacheClear{All: true})
	require.NoError(t, err)
	require.False(t, reply.More)
}

// TestInvalidations: who keeps copies hears of each delete, clear and overwrite, and of nothing else.
func TestInvalidations(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var mu sync.Mutex
	var heard []messages.CacheInvalidated
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: f.url, Program: "test", Instance: "two"})
	require.NoError(t, err)
	service := cache.New(pool, cache.Config{Invalidated: func(of string, event messages.CacheInvalidated) {
		mu.Lock()
		defer mu.Unlock()
		require.Equal(t, tenant, of)
		heard = append(heard, event)
	}})
	t.Cleanup(func() { service.Close(context.Background()); pool.Close() })
	last := func() messages.CacheInvalidated {
		mu.Lock()
		defer mu.Unlock()
		require.Len(t, heard, 1)
		event := heard[0]
		heard = nil
		return event
	}
	named := func(key string, version int64) messages.CacheInvalidated {
		return messages.CacheInvalidated{Keys: []messages.CacheKeyVersion{{Key: key, Version: version}}}
	}
	set := func(m messages.CacheSet) messages.CacheSetReply {
		m.Value = []byte("1")
		reply, err := service.Set(t.Context(), tenant, m)
		require.NoError(t, err)
		return reply
	}
	set(messages.CacheSet{Key: "k"}) // nobody can have a copy
	require.Empty(t, heard)
	second := set(messages.CacheSet{Key: "k"})
	require.Equal(t, named("k", second.Version), last())
	third := set(messages.CacheSet{Key: "k", IfVersion: &second.Version})
	require.Equal(t, named("k", third.Version), last())
	set(messages.CacheSet{Key: "k", IfAbsent: true})
	require.Empty(t, heard)
	_, err = service.SetMany(t.Context(), tenant, messages.CacheSetMany{Entries: []messages.CacheSetEntry{
		{Key: "k", Value: []byte("1")}, {Key: "new", Value: []byte("1")},
	}})
	require.NoError(t, err)
	fourth := f.get(t, "k")
	require.Equal(t, named("k", fourth.Version), last())
	_, err = service.Delete(t.Context(), tenant, messages.CacheDelete{Key: "k"})
	require.NoError(t, err)
	require.Equal(t, named("k", fourth.Version), last())
	_, err = service.Delete(t.Context(), tenant, messages.CacheDelete{Key: "k"})
	require.NoError(t, err)
	require.Empty(t, heard)
	set(messages.CacheSet{Key: "once"})
	var keyedVersion int64
	for range 2 { // the repetition changes nothing, and is not announced
		reply, err := service.Set(keyed(t.Context(), "once", 1), tenant, messages.CacheSet{Key: "once", Value: []byte("2")})
		require.NoError(t, err)
		keyedVersion = reply.Version
	}
	require.Equal(t, named("once", keyedVersion), last())
	for range 2 {
		_, err = service.Increment(t.Context(), tenant, messages.CacheIncrement{Key: "counter"})
		require.NoError(t, err)
	}
	require.Equal(t, named("counter", f.get(t, "counter").Version), last())
	_, err = service.Clear(t.Context(), tenant, messages.CacheClear{Prefix: "n"})
	require.NoError(t, err)
	require.Equal(t, messages.CacheInvalidated{Prefix: "n"}, last())
}
