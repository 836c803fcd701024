package snapshot_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/snapshot"
	"github.com/ai-cherry/morello/messages"
)

func TestPath(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var wide strings.Builder
	for i := range 500 {
		fmt.Fprintf(&wide, `"member %d":{"n":%d},`, i, i)
	}
	id := f.create(t, "a", `{"a/b":{"~":[10,20,{"":null}]},"wide":{`+wide.String()+`"end":1},"doc":`+conversation(300)+`}`).SnapshotID
	for path, want := range map[string]string{
		"/a~1b/~0": `[10,20,{"":null}]`, "/a~1b/~0/1": `20`, "/a~1b/~0/2/": `null`, "/doc/messages/299": message(299), "/doc/step": `300`,
		"/doc/messages/150/role": `"user"`, "/wide/member 321/n": `321`, "/wide/end": `1`, "/doc": conversation(300),
	} {
		reply, err := f.Get(t.Context(), tenant, messages.SnapshotGet{SnapshotID: id, Path: path})
		require.NoError(t, err, path)
		require.Equal(t, want, string(reply.Data), path)
	}
	for _, path := range []string{"/x", "/doc/messages/300", "/doc/messages/-", "/doc/messages/01", "/doc/messages/-1", "/doc/step/0", "/wide/member 500"} {
		_, err := f.Get(t.Context(), tenant, messages.SnapshotGet{SnapshotID: id, Path: path})
		require.Equal(t, messages.ErrorDetails{Field: "path"}, failure(t, err).Details, path)
		require.Equal(t, messages.CodeNotFound, failure(t, err).Code)
	}
}

// What is not on the way to a value is not read.
func TestPathReadsWhatIsNeeded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.create(t, "a", conversation(300)).SnapshotID
	f.exec(t, `DELETE FROM morello.snapshot_chunk WHERE text LIKE '%sentence%turn1__ %'`)
	reply, err := f.Get(t.Context(), tenant, messages.SnapshotGet{SnapshotID: id, Path: "/messages/299"})
	require.NoError(t, err)
	require.Equal(t, message(299), string(reply.Data))
	_, err = f.Get(t.Context(), tenant, messages.SnapshotGet{SnapshotID: id})
	require.Regexp(t, `^chunk [0-9a-f]{64}: is missing`, failure(t, err).Message)
}

// A flipped byte is reported with the name of its chunk, and never served.
func TestDamageIsNamed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	made := f.create(t, "a", conversation(30))
	for _, damage := range []string{
		`UPDATE morello.snapshot_chunk SET text = overlay(text PLACING 'X' FROM 5) WHERE hash = (SELECT hash FROM morello.snapshot_chunk WHERE encoding & 7 > 1 LIMIT 1)`,
		`UPDATE morello.snapshot_chunk SET body = set_byte(body, 1, get_byte(body, 1) # 1) WHERE hash = (SELECT hash FROM morello.snapshot_chunk WHERE leaves IS NOT NULL LIMIT 1)`,
		`UPDATE morello.snapshot_chunk SET leaves = set_byte(leaves, 40, get_byte(leaves, 40) # 128) WHERE hash = (SELECT hash FROM morello.snapshot_chunk WHERE leaves IS NOT NULL LIMIT 1)`,
		`UPDATE morello.snapshot_chunk SET encoding = encoding # 8 WHERE hash = (SELECT hash FROM morello.snapshot_chunk LIMIT 1)`,
	} {
		f.exec(t, `CREATE TEMP TABLE kept AS SELECT * FROM morello.snapshot_chunk`)
		f.exec(t, damage)
		_, err := f.Get(t.Context(), tenant, messages.SnapshotGet{SnapshotID: made.SnapshotID})
		known := failure(t, err)
		require.Equal(t, messages.CodeInternal, known.Code, damage)
		require.Regexp(t, `^chunk [0-9a-f]{64}: is damaged`, known.Message, damage)
		f.exec(t, `TRUNCATE morello.snapshot_chunk`)
		f.exec(t, `INSERT INTO morello.snapshot_chunk SELECT * FROM kept`)
		f.exec(t, `DROP TABLE kept`)
	}
	require.Equal(t, conversation(30), f.data(t, made.SnapshotID))
}

func TestListAndHistory(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var line []messages.Snapshot
	for i := range 7 {
		line = append(line, f.createBy(t, messages.SnapshotCreate{
			AgentID: "a", UserID: "u" + jsonNumber(i%2), Label: "l" + jsonNumber(i%3), Data: jsontext.Value(jsonNumber(i)),
		}))
	}
	f.create(t, "b", `1`)
	list := func(m messages.SnapshotList) (ids []string) {
		for {
			reply, err := f.List(t.Context(), tenant, m)
			require.NoError(t, err)
			for _, s := range reply.Snapshots {
				ids = append(ids, s.SnapshotID)
			}
			if m.Cursor = reply.NextCursor; m.Cursor == "" {
				return ids
			}
		}
	}
	two := 2
	require.Len(t, list(messages.SnapshotList{}), 8)
	require.Equal(t, []string{line[6].SnapshotID, line[4].SnapshotID, line[2].SnapshotID, line[0].SnapshotID},
		list(messages.SnapshotList{AgentID: "a", UserID: "u0", Page: messages.Page{Limit: &two}}))
	require.Equal(t, []string{line[4].SnapshotID, line[1].SnapshotID}, list(messages.SnapshotList{Label: "l1"}))
	require.Equal(t, []string{line[3].SnapshotID}, list(messages.SnapshotList{CreatedAfter: &line[2].CreatedAt, CreatedBefore: &line[4].CreatedAt}))

	history := func(id string) (ids []string, truncated bool) {
		m := messages.SnapshotHistory{SnapshotID: id, Page: messages.Page{Limit: &two}}
		for {
			reply, err := f.History(t.Context(), tenant, m)
			require.NoError(t, err)
			truncated = truncated || reply.Truncated
			for _, s := range reply.Snapshots {
				ids = append(ids, s.SnapshotID)
			}
			if m.Cursor = reply.NextCursor; m.Cursor == "" {
				return ids, truncated
			}
		}
	}
	ids, truncated := history(line[3].SnapshotID)
	require.Equal(t, []string{line[3].SnapshotID, line[2].SnapshotID, line[1].SnapshotID, line[0].SnapshotID}, ids)
	require.False(t, truncated)
	f.delete(t, line[1].SnapshotID)
	f.delete(t, line[2].SnapshotID)
	ids, truncated = history(line[4].SnapshotID)
	require.Equal(t, []string{line[4].SnapshotID, line[3].SnapshotID, line[0].SnapshotID}, ids)
	require.True(t, truncated)
	_, err := f.History(t.Context(), tenant, messages.SnapshotHistory{SnapshotID: uuid.NewString()})
	require.Equal(t, messages.CodeNotFound, failure(t, err).Code)
}

func (f fixture) delete(t testing.TB, id string) {
	t.Helper()
	reply, err := f.Delete(t.Context(), tenant, messages.SnapshotDelete{SnapshotID: id})
	require.NoError(t, err)
	require.True(t, reply.Deleted)
}

func TestDeletingTheHead(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	first, second, third := f.create(t, "a", `1`), f.create(t, "a", `2`), f.create(t, "a", `3`)
	f.delete(t, second.SnapshotID)
	require.Equal(t, `3`, string(f.latest(t, "a").Data))
	f.delete(t, third.SnapshotID)
	require.Equal(t, first.SnapshotID, f.latest(t, "a").Snapshot.SnapshotID)
	fourth := f.create(t, "a", `4`)
	require.Equal(t, first.SnapshotID, fourth.ParentID)
	require.True(t, fourth.CreatedAt.After(third.CreatedAt))
	f.delete(t, fourth.SnapshotID)
	f.delete(t, first.SnapshotID)
	_, err := f.Latest(t.Context(), tenant, messages.SnapshotLatest{AgentID: "a"})
	require.Equal(t, messages.CodeNotFound, failure(t, err).Code)
	reply, err := f.Delete(t.Context(), tenant, messages.SnapshotDelete{SnapshotID: first.SnapshotID})
	require.NoError(t, err)
	require.False(t, reply.Deleted)
	require.Empty(t, f.create(t, "a", `5`).ParentID)
}

func TestCleanup(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, agent := range []string{"a", "b"} {
		for i := range 6 {
			f.createBy(t, messages.SnapshotCreate{AgentID: agent, Data: jsontext.Value(conversation(i)), Label: map[int]string{1: "pinned"}[i]})
		}
	}
	f.exec(t, `UPDATE morello.snapshot SET created_at = created_at - interval '100 days'`)
	f.create(t, "c", `1`)
	two, zero := 2, 0.0
	for _, dry := range []bool{true, true, false} {
		reply, err := f.Cleanup(t.Context(), tenant, messages.SnapshotCleanup{KeepMinimum: &two, DryRun: dry})
		require.NoError(t, err)
		require.Positive(t, reply.FreedBytes)
		reply.FreedBytes = 0
		require.Equal(t, messages.SnapshotCleanupReply{Deleted: 6, KeptByMinimum: 4}, reply)
	}
	require.EqualValues(t, 7, f.count(t, `SELECT count(*) FROM morello.snapshot`))
	none := 0
	reply, err := f.Cleanup(t.Context(), tenant, messages.SnapshotCleanup{OlderThanDays: &zero, KeepMinimum: &none, AgentID: "a"})
	require.NoError(t, err)
	require.EqualValues(t, 1, reply.Deleted) // neither the head nor what is pinned
	require.Equal(t, conversation(5), string(f.latest(t, "a").Data))
	history, err := f.History(t.Context(), tenant, messages.SnapshotHistory{SnapshotID: f.latest(t, "a").Snapshot.SnapshotID})
	require.NoError(t, err)
	require.Len(t, history.Snapshots, 2)
	require.True(t, history.Truncated)
}

func TestLatestOfUser(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.createBy(t, messages.SnapshotCreate{AgentID: "a", UserID: "ada", Data: jsontext.Value(`1`)})
	f.createBy(t, messages.SnapshotCreate{AgentID: "a", UserID: "bob", Data: jsontext.Value(`2`)})
	reply, err := f.Latest(t.Context(), tenant, messages.SnapshotLatest{AgentID: "a", UserID: "ada"})
	require.NoError(t, err)
	require.Equal(t, `1`, string(reply.Data))
	without := false
	reply, err = f.Latest(t.Context(), tenant, messages.SnapshotLatest{AgentID: "a", WithData: &without})
	require.NoError(t, err)
	require.Nil(t, reply.Data)
	require.Equal(t, "bob", reply.Snapshot.UserID)
	_, err = f.Latest(t.Context(), "other", messages.SnapshotLatest{AgentID: "a"})
	require.Equal(t, messages.CodeNotFound, failure(t, err).Code)
}

func TestStats(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	reply, err := f.Stats(t.Context(), tenant, messages.SnapshotStats{})
	require.NoError(t, err)
	require.Equal(t, messages.SnapshotStatsReply{}, reply)
	f.createBy(t, messages.SnapshotCreate{AgentID: "a", UserID: "u", Data: jsontext.Value(`{}`), VectorIDs: []string{"x", "y"}})
	last := f.create(t, "b", conversation(30))
	reply, err = f.Stats(t.Context(), tenant, messages.SnapshotStats{})
	require.NoError(t, err)
	require.EqualValues(t, 2, reply.Summary.TotalSnapshots)
	require.EqualValues(t, 1, reply.Summary.UniqueUsers)
	require.Equal(t, last.SizeBytes+2, reply.Summary.DocumentBytes)
	require.InDelta(t, 1, reply.Summary.AvgVectorCount, 0.001)
	require.Equal(t, messages.SnapshotSizes{Under1KB: 1, Under100KB: 1}, reply.SizeDistribution)
	require.WithinDuration(t, last.CreatedAt, *reply.Summary.Newest, time.Microsecond)
}

// TestDeleteOfAgent: in batches, each told before it is committed, and while nobody waits for it; one that cannot be told is undone,
// and told again.
func TestDeleteOfAgent(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	want := map[string]int{}
	for n := range 5 {
		want[f.create(t, "a", fmt.Sprintf(`{"n":%d}`, n)).SnapshotID] = 1
	}
	kept := f.create(t, "b", `{}`)
	another := f.connect(t)
	told, calls := map[string]int{}, 0
	deleteSome := snapshot.NewDeleteOfAgent(func(_ context.Context, of string, gone messages.SnapshotsCleaned) error {
		require.Equal(t, tenant, of)
		_, err := another.Exec(t.Context(), `SELECT FROM morello.snapshot_head FOR UPDATE NOWAIT`)
		require.NoError(t, err, "no head is locked")
		if calls++; calls == 2 {
			return errors.New("NATS is away")
		}
		for _, s := range gone.Snapshots {
			require.Equal(t, "a", s.AgentID)
			told[s.SnapshotID]++
		}
		return nil
	})
	var total, failures int64
	for more := true; more; {
		err := pgx.BeginFunc(t.Context(), f.db, func(tx pgx.Tx) error {
			deleted, again, err := deleteSome(t.Context(), tx, tenant, "a", 2)
			if err == nil {
				total, more = total+deleted, again
			}
			return err
		})
		if err != nil {
			failures++
		}
	}
	require.EqualValues(t, 5, total)
	require.EqualValues(t, 1, failures)
	require.Equal(t, want, told)
	require.Equal(t, `{}`, f.data(t, kept.SnapshotID))
}
