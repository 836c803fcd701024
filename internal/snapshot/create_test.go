package snapshot_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/messages"
)

func jsonNumber(n int) string { return strconv.Itoa(n) }

func message(i int) string {
	words := strings.Repeat(fmt.Sprintf("sentence%d of turn%d is here. ", i%7, i), 40)
	return fmt.Sprintf(`{"role":"user","content":"%s"}`, strings.TrimSpace(words))
}

func TestCreateAndRead(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, data := range []string{
		`null`, `{}`, `[]`, `"x"`, `1.0`, `1e400`, `123456789012345678901234567890`, `{"b":1,"a":[1,2,{"c":null}]}`, `"\u0000\ud800\/é"`, conversation(50),
	} {
		made := f.create(t, "a", data)
		require.Equal(t, data, f.data(t, made.SnapshotID))
		require.EqualValues(t, len(data), made.SizeBytes)
		require.Equal(t, made, f.latest(t, "a").Snapshot)
	}
}

func TestWhiteSpaceIsRemoved(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	require.Equal(t, `{"a":[1,2],"b":" x "}`, f.data(t, f.create(t, "a", " { \"a\" : [ 1 ,\n2 ] , \"b\" : \" x \" } ").SnapshotID))
}

func TestGrowingStateCostsItsGrowth(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	first := f.create(t, "a", conversation(100))
	second := f.create(t, "a", conversation(101))
	require.Less(t, second.StoredBytes, int64(5000))
	require.Greater(t, first.StoredBytes, int64(50_000))
	require.Equal(t, first.SnapshotID, second.ParentID)
	require.True(t, second.CreatedAt.After(first.CreatedAt))
	third := f.create(t, "a", conversation(101))
	require.Zero(t, third.StoredBytes)
	require.Equal(t, second.ContentHash, third.ContentHash)
	require.Zero(t, f.create(t, "b", conversation(100)).StoredBytes)
	require.Equal(t, conversation(100), f.data(t, first.SnapshotID))
}

func TestSameIDAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := messages.SnapshotCreate{AgentID: "a", Data: jsontext.Value(`{"n":1}`), SnapshotID: uuid.NewString(), IfHead: messages.NoSnapshot}
	first := f.createBy(t, m)
	require.Equal(t, first, f.createBy(t, m))
	require.EqualValues(t, 1, f.count(t, `SELECT count(*) FROM morello.snapshot`))
	m.Data = jsontext.Value(`{"n":2}`)
	_, err := f.Create(t.Context(), tenant, m)
	require.Equal(t, messages.CodeConflict, failure(t, err).Code)
	require.Equal(t, `{"n":1}`, string(f.latest(t, "a").Data))
}

func TestIfHead(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	first := f.createBy(t, messages.SnapshotCreate{AgentID: "a", Data: jsontext.Value(`1`), IfHead: messages.NoSnapshot})
	second := f.createBy(t, messages.SnapshotCreate{AgentID: "a", Data: jsontext.Value(`2`), IfHead: first.SnapshotID})
	for _, head := range []string{first.SnapshotID, messages.NoSnapshot, uuid.NewString()} {
		_, err := f.Create(t.Context(), tenant, messages.SnapshotCreate{AgentID: "a", Data: jsontext.Value(`3`), IfHead: head})
		require.Equal(t, messages.ErrorDetails{Field: "if_head", SnapshotID: second.SnapshotID}, failure(t, err).Details)
	}
	_, err := f.Create(t.Context(), tenant, messages.SnapshotCreate{AgentID: "none", Data: jsontext.Value(`3`), IfHead: first.SnapshotID})
	require.Equal(t, messages.CodeConflict, failure(t, err).Code)
	require.EqualValues(t, 2, f.count(t, `SELECT count(*) FROM morello.snapshot`))
	require.EqualValues(t, 1, f.count(t, `SELECT count(*) FROM morello.snapshot_head`))
}

func TestForksReadBackTheirOwn(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	root := f.create(t, "a", `{"branch":"root"}`)
	left := f.create(t, "a", `{"branch":"left"}`)
	right := f.createBy(t, messages.SnapshotCreate{AgentID: "a", Data: jsontext.Value(`{"branch":"right"}`), ParentID: root.SnapshotID})
	require.Equal(t, root.SnapshotID, right.ParentID)
	leftmost := f.createBy(t, messages.SnapshotCreate{AgentID: "a", Data: jsontext.Value(`{"branch":"leftmost"}`), ParentID: left.SnapshotID})
	require.Equal(t, `{"branch":"left"}`, f.data(t, left.SnapshotID))
	require.Equal(t, `{"branch":"right"}`, f.data(t, right.SnapshotID))
	require.Equal(t, leftmost, f.latest(t, "a").Snapshot)
	loud := f.createBy(t, messages.SnapshotCreate{AgentID: "a", Data: jsontext.Value(`3`), ParentID: strings.ToUpper(left.SnapshotID), SnapshotID: strings.ToUpper(uuid.NewString())})
	require.Equal(t, loud, f.latest(t, "a").Snapshot)
	_, err := f.Create(t.Context(), tenant, messages.SnapshotCreate{AgentID: "b", Data: jsontext.Value(`1`), ParentID: root.SnapshotID})
	require.Equal(t, "parent_id", failure(t, err).Details.Field)
	_, err = f.Create(t.Context(), tenant, messages.SnapshotCreate{AgentID: "a", Data: jsontext.Value(`1`), ParentID: uuid.NewString()})
	require.Equal(t, messages.CodeNotFound, failure(t, err).Code)
}

// Ten creators of the same chunks at a time, for ten agents and for one.
func TestCreatorsSideBySide(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, agent := range []string{"one", "agent-%d"} {
		var group sync.WaitGroup
		for i := range 10 {
			group.Go(func() {
				agent := strings.ReplaceAll(agent, "%d", jsonNumber(i))
				for turn := range 5 {
					_, err := f.Create(t.Context(), tenant, messages.SnapshotCreate{AgentID: agent, Data: jsontext.Value(conversation(20 + turn))})
					require.NoError(t, err)
				}
			})
		}
		group.Wait()
	}
	require.EqualValues(t, 100, f.count(t, `SELECT count(*) FROM morello.snapshot`))
	require.EqualValues(t, 49, f.count(t, `SELECT count(*) FROM morello.snapshot WHERE agent_id = 'one' AND parent_id IS NOT NULL`))
	require.EqualValues(t, 50, f.count(t, `SELECT count(DISTINCT created_at) FROM morello.snapshot WHERE agent_id = 'one'`))
	// what each added is what is there: nothing was counted twice
	require.Equal(t, f.count(t, `SELECT sum(stored_bytes) FROM morello.snapshot`), f.count(t, `
		SELECT sum(`+rowBytes+`)
		FROM morello.snapshot_chunk`))
}
