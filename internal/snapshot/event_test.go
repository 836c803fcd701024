package snapshot_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/bus/bustest"
	"github.com/ai-cherry/morello/internal/snapshot"
	"github.com/ai-cherry/morello/messages"
)

// publishing replaces the fixture's service by one that tells what happens.
func (f *fixture) publishing(t *testing.T) *bustest.Events {
	t.Helper()
	events := bustest.NewEvents(t, slog.New(slog.DiscardHandler))
	f.Service = snapshot.New(f.pool, snapshot.Config{Events: events.Publisher})
	t.Cleanup(f.Close)
	return events
}

// TestEvents: each change is told once, by ids; a repetition and a deletion of nothing are not.
func TestEvents(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	events := f.publishing(t)
	first := f.createBy(t, messages.SnapshotCreate{AgentID: "a", UserID: "u", Data: jsontext.Value(`{"secret":1}`)})
	large := f.createBy(t, messages.SnapshotCreate{AgentID: "a", Data: jsontext.Value(conversation(200))})
	f.createBy(t, messages.SnapshotCreate{AgentID: "a", SnapshotID: large.SnapshotID, Data: jsontext.Value(conversation(200))})
	for range 2 {
		_, err := f.Delete(t.Context(), tenant, messages.SnapshotDelete{SnapshotID: large.SnapshotID})
		require.NoError(t, err)
	}
	last := f.create(t, "a", `2`)
	days, keep := 0.0, 1
	_, err := f.Cleanup(t.Context(), tenant, messages.SnapshotCleanup{OlderThanDays: &days, KeepMinimum: &keep})
	require.NoError(t, err)
	const prefix = "morello.events.v1.acme.snapshot."
	one := `{"snapshot_id":"` + first.SnapshotID + `","agent_id":"a","user_id":"u"}`
	next := func(s messages.Snapshot) string {
		return `{"snapshot_id":"` + s.SnapshotID + `","agent_id":"a","parent_id":"` + first.SnapshotID + `"}`
	}
	require.Equal(t, []string{
		prefix + "created " + one, prefix + "created " + next(large), prefix + "deleted " + next(large), prefix + "created " + next(last),
		prefix + `cleaned {"snapshots":[` + one + `]}`,
	}, events.All(t))
}

// TestEventOfACallerWhoHasLeft: what is stored is told, though who asked for it did not wait.
func TestEventOfACallerWhoHasLeft(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.create(t, "a", `{"n":0}`)
	events, another := f.publishing(t), f.connect(t)
	stored := func(id string) bool {
		return f.count(t, `SELECT count(*) FROM morello.snapshot WHERE snapshot_id = $1`, id) == 1
	}
	leave := func() (id string) {
		tx, err := f.db.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), `SELECT FROM morello.snapshot_head FOR UPDATE`)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended, id := make(chan error, 1), uuid.NewString()
		go func() {
			_, err := f.Create(ctx, tenant, messages.SnapshotCreate{AgentID: "a", SnapshotID: id, Data: jsontext.Value(`{"n":1}`)})
			ended <- err
		}()
		require.Eventually(t, func() bool {
			var waiting int
			return another.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE NOT granted`).Scan(&waiting) == nil && waiting > 0
		}, 10*time.Second, time.Millisecond)
		cancel()
		require.Error(t, <-ended)
		require.NoError(t, tx.Rollback(t.Context()))
		return id
	}
	for range 50 { // if this test was too slow the batch has not waited for the lock, and nothing is stored
		id := leave()
		f.create(t, "a", `{"n":2}`) // after it: those of an agent come one by one
		if stored(id) {
			require.Contains(t, strings.Join(events.All(t), "\n"), `snapshot.created {"snapshot_id":"`+id+`"`)
			return
		}
	}
	t.Fatal("none was stored")
}

// TestRepetitionAfterAnUpgrade: a repetition is told by what was sent. How it is cut may have changed since.
func TestRepetitionAfterAnUpgrade(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	request := messages.SnapshotCreate{AgentID: "a", SnapshotID: uuid.NewString(), Data: jsontext.Value(`{"n":1}`)}
	made := f.createBy(t, request)
	f.exec(t, `UPDATE morello.snapshot SET content_hash = sha256(content_hash)`)
	again := f.createBy(t, request)
	require.Equal(t, made.CreatedAt, again.CreatedAt)
	request.Data = jsontext.Value(`{"n":2}`)
	_, err := f.Create(t.Context(), tenant, request)
	require.Equal(t, messages.CodeConflict, failure(t, err).Code)
}
