package snapshot_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ai-cherry/morello/messages"
)

func (f fixture) diff(t require.TestingT, from, to string) messages.SnapshotDiffReply {
	reply, err := f.Diff(f.ctx, tenant, messages.SnapshotDiff{FromSnapshotID: from, ToSnapshotID: to})
	require.NoError(t, err)
	return reply
}

func TestDiff(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, example := range []struct{ from, to, patch string }{
		{`{"a":1,"b":[1,2,3]}`, `{"b":[1,2,3],"a":1}`, `[]`},
		{`{"a":1}`, `{"a":2}`, `[{"op":"replace","path":"/a","value":2}]`},
		{`{"a":1}`, `{"b~/":2}`, `[{"op":"remove","path":"/a"},{"op":"add","path":"/b~0~1","value":2}]`},
		{`[1,2,3]`, `[1,3]`, `[{"op":"remove","path":"/1"}]`},
		{`[1,2,3]`, `[1,2,3,4,5]`, `[{"op":"add","path":"/3","value":4},{"op":"add","path":"/4","value":5}]`},
		{`[{"a":[1]},7]`, `[{"a":[1,2]},7]`, `[{"op":"add","path":"/0/a/1","value":2}]`},
		{`1`, `{}`, `[{"op":"replace","path":"","value":{}}]`},
		{`{"":null}`, `{"":false}`, `[{"op":"replace","path":"/","value":false}]`},
	} {
		reply := f.diff(t, f.create(t, "a", example.from).SnapshotID, f.create(t, "a", example.to).SnapshotID)
		patch, err := messages.Encode(reply.Changes)
		require.NoError(t, err)
		require.Equal(t, example.patch, string(patch), "%s to %s", example.from, example.to)
	}
	_, err := f.Diff(t.Context(), tenant, messages.SnapshotDiff{FromSnapshotID: f.create(t, "a", `1`).SnapshotID, ToSnapshotID: uuid.NewString()})
	require.Equal(t, messages.ErrorDetails{Field: "to_snapshot_id"}, failure(t, err).Details)
}

// One turn more is a few chunks of the tree, and two additions; also where runs end, so that the lists have others of other levels.
func TestDiffReadsWhatDiffers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const first, last = 380, 401
	var ids []string
	for turns := first; turns <= last; turns++ {
		ids = append(ids, f.create(t, "a", conversation(turns)).SnapshotID)
	}
	chunks := f.count(t, `SELECT count(*) FROM morello.snapshot_chunk`)
	f.exec(t, `DELETE FROM morello.snapshot_chunk WHERE text LIKE '%sentence%turn1__ %'`) // what is not read may as well be gone
	gone := chunks - f.count(t, `SELECT count(*) FROM morello.snapshot_chunk`)
	require.Greater(t, gone, int64(50))
	for i, turns := 1, first; turns < last; i, turns = i+1, turns+1 {
		reply := f.diff(t, ids[i-1], ids[i])
		require.Equal(t, []messages.SnapshotChange{
			{Op: "add", Path: "/messages/" + jsonNumber(turns), Value: jsontext.Value(message(turns))},
			{Op: "replace", Path: "/step", Value: jsontext.Value(jsonNumber(turns + 1))},
		}, reply.Changes)
	}
}

func TestDiffIsBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	long := strings.Repeat(`"0123456789",`, 20_000)
	reply := f.diff(t, f.create(t, "a", `[]`).SnapshotID, f.create(t, "a", "["+long+"0]").SnapshotID)
	require.True(t, reply.Truncated)
	require.Len(t, reply.Changes, 10_000)
}

// Whatever the documents are, the patch makes one into the other.
func TestPatchMakesTheOther(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	rapid.Check(t, func(t *rapid.T) {
		from := document(3).Draw(t, "from")
		to := document(3).Draw(t, "to")
		if !rapid.Bool().Draw(t, "unrelated") {
			to = mutate(t, from)
		}
		var ids []string
		for _, doc := range []any{from, to} {
			text, err := json.Marshal(doc)
			require.NoError(t, err)
			reply, err := f.Create(f.ctx, tenant, messages.SnapshotCreate{AgentID: "a", Data: text})
			require.NoError(t, err)
			ids = append(ids, reply.Snapshot.SnapshotID)
		}
		reply := f.diff(t, ids[0], ids[1])
		require.False(t, reply.Truncated)
		require.Equal(t, normal(t, to), apply(t, normal(t, from), reply.Changes))
	})
}

// document draws documents with lists long enough to be cut into runs.
func document(depth int) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		kind := rapid.IntRange(0, 5).Draw(t, "kind")
		if depth == 0 {
			kind %= 3
		}
		switch kind {
		case 0:
			return rapid.IntRange(0, 9).Draw(t, "number")
		case 1:
			return rapid.SampledFrom([]string{"", "x", "é~/\"\\", "\x01"}).Draw(t, "text")
		case 2:
			return strings.Repeat(rapid.SampledFrom([]string{"long text ", "other ", "€"}).Draw(t, "word"), rapid.IntRange(1, 900).Draw(t, "times"))
		case 3, 4:
			length := rapid.SampledFrom([]int{0, 1, 3, 40, 300}).Draw(t, "length")
			list := make([]any, length)
			for i := range list {
				list[i] = map[string]any{"id": i, "name": fmt.Sprintf("element number %d of the list", i)}
			}
			if length > 0 && length < 40 {
				list[0] = document(depth-1).Draw(t, "element")
			}
			return list
		default:
			object := map[string]any{}
			for i := range rapid.SampledFrom([]int{0, 2, 5, 200}).Draw(t, "members") {
				object["member number "+strconv.Itoa(i)] = i
			}
			object["child"] = document(depth-1).Draw(t, "member")
			return object
		}
	})
}

// mutate changes a copy in some places.
func mutate(t *rapid.T, doc any) any {
	switch doc := doc.(type) {
	case []any:
		list := slices.Clone(doc)
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			at := rapid.IntRange(0, len(list)).Draw(t, "at")
			switch rapid.IntRange(0, 3).Draw(t, "change") {
			case 0:
				list = slices.Insert(list, at, document(1).Draw(t, "inserted"))
			case 1:
				list = append(list[:at:at], list[min(at+rapid.IntRange(0, 60).Draw(t, "removed"), len(list)):]...)
			case 2:
				if at < len(list) {
					list[at] = mutate(t, list[at])
				}
			default:
				if at < len(list) && len(doc) > 0 { // moved to the end, or a copy of another
					list = append(slices.Delete(list, at, at+1), doc[min(at, len(doc)-1)])
				}
			}
		}
		return list
	case map[string]any:
		object := map[string]any{}
		for name, v := range doc {
			if rapid.IntRange(0, 20).Draw(t, "gone") > 0 {
				object[name] = v
			}
		}
		object["new"] = 1
		if child, there := object["child"]; there {
			object["child"] = mutate(t, child)
		}
		return object
	default:
		return document(1).Draw(t, "other")
	}
}

func normal(t require.TestingT, doc any) (same any) {
	text, err := json.Marshal(doc)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &same))
	return same
}

// apply applies a patch as RFC 6902 has it.
func apply(t require.TestingT, doc any, patch []messages.SnapshotChange) any {
	for _, change := range patch {
		var v any
		if change.Op != "remove" {
			require.NoError(t, json.Unmarshal(change.Value, &v))
		}
		doc = applyAt(t, doc, slices.Collect(jsontext.Pointer(change.Path).Tokens()), change.Op, v)
	}
	return doc
}

func applyAt(t require.TestingT, doc any, path []string, op string, v any) any {
	if len(path) == 0 {
		require.Equal(t, "replace", op)
		return v
	}
	switch doc := doc.(type) {
	case map[string]any:
		old, there := doc[path[0]]
		switch {
		case len(path) > 1:
			require.True(t, there)
			doc[path[0]] = applyAt(t, old, path[1:], op, v)
		case op == "remove":
			require.True(t, there)
			delete(doc, path[0])
		default:
			require.Equal(t, op == "replace", there)
			doc[path[0]] = v
		}
		return doc
	case []any:
		at, err := strconv.Atoi(path[0])
		require.NoError(t, err)
		switch {
		case len(path) > 1:
			doc[at] = applyAt(t, doc[at], path[1:], op, v)
		case op == "remove":
			return slices.Delete(doc, at, at+1)
		case op == "add":
			return slices.Insert(doc, at, v)
		default:
			doc[at] = v
		}
		return doc
	}
	require.Fail(t, "the path leads into a scalar")
	return nil
}
