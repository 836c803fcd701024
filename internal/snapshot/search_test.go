package snapshot_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/snapshot"
	"github.com/ai-cherry/morello/messages"
)

func (f fixture) search(t testing.TB, m messages.SnapshotSearch) messages.SnapshotSearchReply {
	t.Helper()
	require.NoError(t, m.Validate())
	reply, err := f.Search(t.Context(), tenant, m)
	require.NoError(t, err)
	return reply
}

// places returns which snapshots are hit, best first.
func places(reply messages.SnapshotSearchReply) (ids []string) {
	for _, hit := range reply.Hits {
		ids = append(ids, hit.Snapshot.SnapshotID)
	}
	return ids
}

func TestSearch(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	long := strings.Repeat("The quick brown fox jumps over the lazy dog and on. ", 4)
	first := f.create(t, "a", `{"fox":"name only","notes":["`+long+`","short cat"]}`)
	second := f.create(t, "a", `{"notes":["`+long+`","short cat","short bird"]}`)
	other := f.create(t, "b", `["`+long+`"]`)
	_, err := f.Create(t.Context(), "elsewhere", messages.SnapshotCreate{AgentID: "a", Data: jsontext.Value(`["` + long + `"]`)})
	require.NoError(t, err)

	fox := f.search(t, messages.SnapshotSearch{Query: "quick fox"})
	require.ElementsMatch(t, []string{second.SnapshotID, other.SnapshotID}, places(fox)) // once for each agent, in the newest
	require.Contains(t, fox.Hits[0].Highlights[0], "**quick** brown **fox**")
	require.Positive(t, fox.Hits[0].Rank)
	require.False(t, fox.Capped)
	require.Equal(t, []string{second.SnapshotID}, places(f.search(t, messages.SnapshotSearch{Query: `"short cat"`})))
	require.Equal(t, []string{"short **cat**"}, f.search(t, messages.SnapshotSearch{Query: `cat`}).Hits[0].Highlights)
	f.create(t, "short", `["to a cat"]`)
	require.Equal(t, []string{"to a **cat**"}, f.search(t, messages.SnapshotSearch{Query: `cat`, AgentID: "short"}).Hits[0].Highlights)
	require.Equal(t, []string{first.SnapshotID}, places(f.search(t, messages.SnapshotSearch{Query: "name"})))
	require.Equal(t, []string{other.SnapshotID}, places(f.search(t, messages.SnapshotSearch{Query: "fox", AgentID: "b"})))
	require.Empty(t, places(f.search(t, messages.SnapshotSearch{Query: "cat bird"})))         // in one string together
	require.Len(t, places(f.search(t, messages.SnapshotSearch{Query: "short -cat"})), 1)      // the bird, though its chunk has the cat
	require.Empty(t, places(f.search(t, messages.SnapshotSearch{Query: "notes"})))            // a member's name
	require.Len(t, places(f.search(t, messages.SnapshotSearch{Query: "bird or nothing"})), 1) // either
	require.Empty(t, places(f.search(t, messages.SnapshotSearch{Query: "fox", UserID: "nobody"})))
	for _, bad := range []string{"-fox", `""`, "..."} {
		_, err := f.Search(t.Context(), tenant, messages.SnapshotSearch{Query: bad})
		require.Equal(t, messages.ErrorDetails{Field: "query"}, failure(t, err).Details, bad)
	}

	f.delete(t, second.SnapshotID)
	require.Contains(t, places(f.search(t, messages.SnapshotSearch{Query: "quick fox"})), first.SnapshotID)
	require.Empty(t, places(f.search(t, messages.SnapshotSearch{Query: "bird"}))) // no snapshot holds it
}

// What is no longer in the head is found in the newest snapshot that holds it, also on another branch.
func TestSearchFindsTheNewestHolder(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	needle := `"` + strings.Repeat("a needle in the hay ", 5) + `"`
	with := f.create(t, "a", `[`+needle+`,1]`)
	f.create(t, "a", `[2]`)
	again := f.createBy(t, messages.SnapshotCreate{AgentID: "a", UserID: "u", Data: jsontext.Value(`[` + needle + `,3]`), ParentID: with.SnapshotID})
	for i := range 70 {
		f.create(t, "a", jsonNumber(i))
	}
	require.Equal(t, []string{again.SnapshotID}, places(f.search(t, messages.SnapshotSearch{Query: "needle"})))
	require.Equal(t, []string{again.SnapshotID}, places(f.search(t, messages.SnapshotSearch{Query: "needle", UserID: "u"})))
	f.delete(t, again.SnapshotID)
	require.Equal(t, []string{with.SnapshotID}, places(f.search(t, messages.SnapshotSearch{Query: "needle"})))
}

func TestSearchPagesAndIsCapped(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var list []string
	for i := range 1200 {
		list = append(list, fmt.Sprintf(`"common word number n%d in a string of its own which is long enough to be a chunk"`, i))
	}
	f.create(t, "a", "["+strings.Join(list, ",")+"]")
	limit := 300
	m := messages.SnapshotSearch{Query: "common", Page: messages.Page{Limit: &limit}}
	seen := map[string]bool{}
	for {
		reply := f.search(t, m)
		require.True(t, reply.Capped)
		for _, hit := range reply.Hits {
			require.False(t, seen[hit.Highlights[0]])
			seen[hit.Highlights[0]] = true
		}
		if m.Cursor = reply.NextCursor; m.Cursor == "" {
			break
		}
	}
	require.Len(t, seen, 1000)
	require.Len(t, f.search(t, messages.SnapshotSearch{Query: "n1199"}).Hits, 1)
}

// With another text configuration words are told apart by its rules, and what is there already is indexed anew.
func TestTextConfig(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.create(t, "a", `["the jumping foxes"]`)
	require.Empty(t, f.search(t, messages.SnapshotSearch{Query: "jump"}).Hits)
	for _, want := range []bool{true, false} {
		changed, err := snapshot.SetTextConfig(t.Context(), f.db, "english")
		require.NoError(t, err)
		require.Equal(t, want, changed)
	}
	f.create(t, "b", `["a fox that jumps"]`)
	require.Len(t, f.search(t, messages.SnapshotSearch{Query: "jump fox"}).Hits, 2)
	_, err := snapshot.SetTextConfig(t.Context(), f.db, "klingon")
	require.ErrorContains(t, err, `no text configuration "klingon"`)
}

// Of a word that is too common to sort all its matches by age, the newest stretches of chunks are looked at.
func TestSearchForACommonWord(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.exec(t, `
		INSERT INTO morello.snapshot_chunk (tenant, hash, touched_at, encoding, text)
		SELECT 'acme', sha256(n::text::bytea), now(), 10, 'a common word in string ' || n FROM generate_series(1, 25000) AS n`)
	f.exec(t, `INSERT INTO morello.snapshot_text (tenant, hash, agent_id) SELECT tenant, hash, 'old' FROM morello.snapshot_chunk`)
	var list []string
	for i := range 500 {
		list = append(list, fmt.Sprintf(`"a common word stands in this message number %d, which is a chunk of its own for its length"`, i))
	}
	made := f.create(t, "new", "["+strings.Join(list, ",")+"]")
	limit := 1000
	for _, agent := range []string{"", "new"} {
		reply := f.search(t, messages.SnapshotSearch{Query: "common", AgentID: agent, Page: messages.Page{Limit: &limit}})
		require.True(t, reply.Capped)
		require.Len(t, reply.Hits, 500) // no snapshot holds the others
		require.Equal(t, made.SnapshotID, reply.Hits[0].Snapshot.SnapshotID)
	}
}
