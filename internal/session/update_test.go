package session_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ai-cherry/morello/messages"
)

func TestUpdateMerges(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const before = `{"a":{"x":1,"y":2},"b":[1,2],"c":3}`
	for _, c := range []struct {
		merge       messages.Merge
		given, want string
	}{
		{"", `{"a":{"x":9},"c":null,"d":4}`, `{"a":{"x":9},"b":[1,2],"c":null,"d":4}`},
		{messages.MergeShallow, `{}`, before},
		{messages.MergeDeep, `{"a":{"x":null,"z":{"n":null,"m":[null]}},"b":[3],"c":null}`, `{"a":{"y":2,"z":{"m":[null]}},"b":[3]}`},
		{messages.MergeReplace, `{"e":5}`, `{"e":5}`},
		{messages.MergeReplace, `{}`, `{}`},
	} {
		s := f.create(t, messages.SessionCreate{Data: []byte(before), Metadata: []byte(before)}).Session
		got := f.update(t, messages.SessionUpdate{SessionID: s.SessionID, Data: []byte(c.given), Merge: c.merge})
		require.JSONEq(t, c.want, string(got.Data), "%s %s", c.merge, c.given)
		require.JSONEq(t, before, string(got.Metadata), "what is not given stays, with every merge")
		got = f.update(t, messages.SessionUpdate{SessionID: s.SessionID, Metadata: []byte(c.given), Merge: c.merge})
		require.JSONEq(t, c.want, string(got.Metadata))
		require.JSONEq(t, c.want, string(got.Data))
		require.Equal(t, got, f.get(t, s.SessionID))
	}
}

// TestUpdateWithoutDataRenews: it wipes nothing, also when data is null, and renews by the session's own TTL.
func TestUpdateWithoutDataRenews(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.create(t, messages.SessionCreate{
		Data: []byte(`{"a":1}`), TTLSeconds: new(1000.0), AbsoluteTTLSeconds: new(3000.0), IdleTimeoutSeconds: new(900.0),
	}).Session
	f.age(t, s.SessionID, 800*time.Second)
	aged := f.get(t, s.SessionID)
	renewed := f.update(t, messages.SessionUpdate{SessionID: s.SessionID, Data: []byte(`null`), CountInteraction: true})
	require.JSONEq(t, `{"a":1}`, string(renewed.Data))
	require.EqualValues(t, 2, renewed.Version)
	require.EqualValues(t, 1, renewed.InteractionCount)
	require.Equal(t, renewed.UpdatedAt.Add(1000*time.Second), renewed.ExpiresAt)
	require.Equal(t, renewed.UpdatedAt, renewed.LastSeenAt)
	require.Equal(t, aged.AbsoluteExpiresAt, renewed.AbsoluteExpiresAt)

	kept := f.update(t, messages.SessionUpdate{SessionID: s.SessionID, Renew: new(false)})
	require.Equal(t, renewed.ExpiresAt, kept.ExpiresAt)
	require.Equal(t, renewed.LastSeenAt, kept.LastSeenAt)
	require.EqualValues(t, 3, kept.Version)

	for range 2 { // 800 s were gone; 700 more, twice, leave less than a TTL to the absolute expiry
		f.age(t, s.SessionID, 700*time.Second)
		kept = f.update(t, messages.SessionUpdate{SessionID: s.SessionID})
	}
	require.Equal(t, kept.AbsoluteExpiresAt, kept.ExpiresAt)

	long := f.create(t, messages.SessionCreate{TTLSeconds: new(10.0)}).Session
	extended, err := f.Extend(t.Context(), tenant, messages.SessionExtend{SessionID: long.SessionID})
	require.NoError(t, err)
	require.Equal(t, extended.ExpiresAt, f.update(t, messages.SessionUpdate{SessionID: long.SessionID}).ExpiresAt, "a renewal shortens nothing")
}

func TestIfVersion(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.create(t, messages.SessionCreate{Data: []byte(`{"a":1}`)}).Session
	f.update(t, messages.SessionUpdate{SessionID: s.SessionID, IfVersion: new(int64(1)), Data: []byte(`{"a":2}`)})
	before := f.get(t, s.SessionID)
	_, err := f.Update(t.Context(), tenant, messages.SessionUpdate{SessionID: s.SessionID, IfVersion: new(int64(1)), Data: []byte(`{"a":3}`)})
	conflict := failure(t, err)
	require.Equal(t, messages.CodeConflict, conflict.Code)
	require.Equal(t, "if_version", conflict.Details.Field)
	require.Contains(t, conflict.Message, "version 2, not 1")
	require.Equal(t, before, f.get(t, s.SessionID))
}

// TestSizeLimits: data of exactly 256 KiB can be stored and updated; one byte more, given or merged, changes nothing.
func TestSizeLimits(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for field, limit := range map[string]int{"data": messages.MaxSessionDataBytes, "metadata": messages.MaxMetadataBytes} {
		// Many small members, and a string that looks like JSON: jsonb writes them with spaces, which do not count.
		filled := fmt.Sprintf(`{"s":": , \" ","a":[%s1],"f":%q}`, strings.Repeat("1,", 200), "")
		filled = strings.Replace(filled, `"f":""`, `"f":"`+strings.Repeat("x", limit-len(filled)-len(`,"n":1`))+`"`, 1)
		create := messages.SessionCreate{Data: []byte(filled)}
		update := func(n string) messages.SessionUpdate { return messages.SessionUpdate{Data: []byte(n)} }
		if field == "metadata" {
			create = messages.SessionCreate{Metadata: []byte(filled)}
			update = func(n string) messages.SessionUpdate { return messages.SessionUpdate{Metadata: []byte(n)} }
		}
		s := f.create(t, create).Session
		for _, merge := range []messages.Merge{messages.MergeShallow, messages.MergeDeep} {
			m := update(`{"n":1}`)
			m.SessionID, m.Merge = s.SessionID, merge
			before := f.update(t, m) // exactly the limit
			m = update(`{"n":12}`)
			m.SessionID, m.Merge = s.SessionID, merge
			_, err := f.Update(t.Context(), tenant, m)
			tooLarge := failure(t, err)
			require.Equal(t, messages.CodeTooLarge, tooLarge.Code)
			require.Equal(t, field, tooLarge.Details.Field)
			require.Equal(t, before, f.get(t, s.SessionID), "nothing is changed")
		}
		replace := update(`{}`)
		replace.SessionID, replace.Merge = s.SessionID, messages.MergeReplace
		f.update(t, replace)
	}
}

// TestLargeSessionsByToken: what is too large for a batch is read by itself.
func TestLargeSessionsByToken(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	large := `{"x":"` + strings.Repeat("y", 200<<10) + `"}`
	made := f.create(t, messages.SessionCreate{Data: []byte(large)})
	opened, err := f.open(t, made.Token)
	require.NoError(t, err)
	require.Equal(t, made.Session, opened)
}

// TestMergersAtOnce: 100 parallel updates of different members are all kept, and counted.
func TestMergersAtOnce(t *testing.T) {
	t.Parallel()
	for _, merge := range []messages.Merge{messages.MergeShallow, messages.MergeDeep} {
		f := newFixture(t)
		id := f.create(t, messages.SessionCreate{}).Session.SessionID
		var crowd sync.WaitGroup
		for i := range 100 {
			crowd.Go(func() {
				data := fmt.Appendf(nil, `{"k%d":{"v":%d}}`, i, i)
				_, err := f.Update(t.Context(), tenant, messages.SessionUpdate{SessionID: id, Data: data, Merge: merge, CountInteraction: true})
				if err != nil {
					t.Error(err)
				}
			})
		}
		crowd.Wait()
		s := f.get(t, id)
		var members map[string]struct{ V int }
		require.NoError(t, json.Unmarshal(s.Data, &members))
		require.Len(t, members, 100)
		for i := range 100 {
			require.Equal(t, i, members[fmt.Sprint("k", i)].V)
		}
		require.EqualValues(t, 100, s.InteractionCount)
		require.EqualValues(t, 101, s.Version)
	}
}

// rfc7396 are the examples of RFC 7396, appendix A.
var rfc7396 = []struct{ target, patch, want string }{
	{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
	{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
	{`{"a":"b"}`, `{"a":null}`, `{}`},
	{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
	{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
	{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
	{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
	{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
	{`["a","b"]`, `["c","d"]`, `["c","d"]`},
	{`{"a":"b"}`, `["c"]`, `["c"]`},
	{`{"a":"foo"}`, `null`, `null`},
	{`{"a":"foo"}`, `"bar"`, `"bar"`},
	{`{"e":null}`, `{"a":1}`, `{"e":null,"a":1}`},
	{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
	{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
}

func TestJSONMergePatch(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	patch := func(target, patch string) (merged string) {
		require.NoError(t, f.db.QueryRow(t.Context(), `SELECT morello.json_merge_patch($1::text::jsonb, $2::text::jsonb)::text`, target, patch).Scan(&merged))
		return merged
	}
	for _, c := range rfc7396 {
		require.JSONEq(t, c.want, patch(c.target, c.patch), "%s %s", c.target, c.patch)
	}
	rapid.Check(t, func(r *rapid.T) {
		target, p := anyJSON(3).Draw(r, "target"), anyJSON(3).Draw(r, "patch")
		want, err := json.Marshal(mergePatch(target, p))
		require.NoError(r, err)
		a, err := json.Marshal(target)
		require.NoError(r, err)
		b, err := json.Marshal(p)
		require.NoError(r, err)
		require.JSONEq(r, string(want), patch(string(a), string(b)))
	})
}

// mergePatch is the pseudo-code of RFC 7396, section 2.
func mergePatch(target, patch any) any {
	members, isObject := patch.(map[string]any)
	if !isObject {
		return patch
	}
	merged := map[string]any{}
	if before, isObject := target.(map[string]any); isObject {
		for name, value := range before {
			merged[name] = value
		}
	}
	for name, value := range members {
		if value == nil {
			delete(merged, name)
		} else {
			merged[name] = mergePatch(merged[name], value)
		}
	}
	return merged
}

// anyJSON draws values of few names, so that they meet.
func anyJSON(depth int) *rapid.Generator[any] {
	leaf := rapid.OneOf(rapid.Just[any](nil), rapid.Just[any](true), rapid.Map(rapid.IntRange(0, 3), func(n int) any { return n }),
		rapid.Map(rapid.SampledFrom([]string{"", "x", ": , \"{"}), func(s string) any { return s }))
	if depth == 0 {
		return leaf
	}
	return rapid.Custom(func(r *rapid.T) any {
		switch rapid.IntRange(0, 3).Draw(r, "kind") {
		case 0:
			return leaf.Draw(r, "leaf")
		case 1:
			return rapid.SliceOfN(anyJSON(depth-1), 0, 3).Draw(r, "array")
		}
		return rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "c"}), anyJSON(depth-1), 0, 3).Draw(r, "object")
	})
}

// TestDeepNesting: patches as deep as a request may be.
func TestDeepNesting(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.create(t, messages.SessionCreate{Data: nested("a", messages.MaxNesting-2)}).Session.SessionID
	f.update(t, messages.SessionUpdate{SessionID: id, Data: nested("a", messages.MaxNesting-2), Merge: messages.MergeDeep})
	f.update(t, messages.SessionUpdate{SessionID: id, Data: nested("b", messages.MaxNesting-2), Merge: messages.MergeDeep})
}

func nested(name string, depth int) []byte {
	return []byte(strings.Repeat(`{"`+name+`":`, depth) + "{}" + strings.Repeat("}", depth))
}

// TestJSONBytes: the length without white space is that of the compact text.
func TestJSONBytes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	rapid.Check(t, func(r *rapid.T) {
		text, err := json.Marshal(anyJSON(3).Draw(r, "value"))
		require.NoError(r, err)
		require.EqualValues(r, len(text), f.count(t, `SELECT morello.json_bytes($1::text::jsonb)`, string(text)), "%s", text)
	})
}
