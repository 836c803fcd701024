package snapshot_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/snapshot"
	"github.com/ai-cherry/morello/messages"
)

// listen replaces the fixture's service by one that tells what happens, and returns what it tells.
func (f *fixture) listen(t *testing.T) *nats.Subscription {
	t.Helper()
	url := devtest.NATS(t).URL()
	conn, err := bus.Connect(t.Context(), bus.ConnConfig{URL: url, Program: "worker", Instance: "test", Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		require.NoError(t, conn.Close(ctx))
	})
	require.NoError(t, conn.EnsureEventStream(t.Context()))
	publisher, err := bus.NewPublisher(conn)
	require.NoError(t, err)
	nc, err := nats.Connect(url)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	events, err := nc.SubscribeSync("morello.events.v1." + tenant + ".snapshot.>")
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	f.Service = snapshot.New(f.pool, snapshot.Config{Events: publisher})
	t.Cleanup(f.Close)
	return events
}

func next(t *testing.T, events *nats.Subscription) string {
	t.Helper()
	msg, err := events.NextMsg(10 * time.Second)
	require.NoError(t, err)
	return strings.TrimPrefix(msg.Subject, "morello.events.v1."+tenant+".") + " " + string(msg.Data)
}

// TestEvents: each change is told once, by ids; a repetition and a deletion of nothing are not.
func TestEvents(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	events := f.listen(t)
	first := f.createBy(t, messages.SnapshotCreate{AgentID: "a", UserID: "u", Data: jsontext.Value(`{"secret":1}`)})
	require.Equal(t, fmt.Sprintf(`snapshot.created {"snapshot_id":%q,"agent_id":"a","user_id":"u"}`, first.SnapshotID), next(t, events))
	large := f.createBy(t, messages.SnapshotCreate{AgentID: "a", Data: jsontext.Value(conversation(200))})
	require.Equal(t, fmt.Sprintf(`snapshot.created {"snapshot_id":%q,"agent_id":"a","parent_id":%q}`, large.SnapshotID, first.SnapshotID), next(t, events))
	f.createBy(t, messages.SnapshotCreate{AgentID: "a", SnapshotID: large.SnapshotID, Data: jsontext.Value(conversation(200))})
	for range 2 {
		_, err := f.Delete(t.Context(), tenant, messages.SnapshotDelete{SnapshotID: large.SnapshotID})
		require.NoError(t, err)
	}
	require.Equal(t, fmt.Sprintf(`snapshot.deleted {"snapshot_id":%q,"agent_id":"a","parent_id":%q}`, large.SnapshotID, first.SnapshotID), next(t, events))
	f.create(t, "a", `2`)
	require.Contains(t, next(t, events), "snapshot.created")
	days, keep := 0.0, 1
	_, err := f.Cleanup(t.Context(), tenant, messages.SnapshotCleanup{OlderThanDays: &days, KeepMinimum: &keep})
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf(`snapshot.cleaned {"snapshots":[{"snapshot_id":%q,"agent_id":"a","user_id":"u"}]}`, first.SnapshotID), next(t, events))
}

// TestEventOfACallerWhoHasLeft: what is stored is told, though who asked for it did not wait.
func TestEventOfACallerWhoHasLeft(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.create(t, "a", `{"n":0}`)
	events, another := f.listen(t), f.connect(t)
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
	for range 50 {
		id := leave()
		for range 100 { // if this test was too slow the batch has not waited for the lock, and nothing is stored
			if stored(id) {
				require.Contains(t, next(t, events), fmt.Sprintf(`snapshot.created {"snapshot_id":%q`, id))
				return
			}
			time.Sleep(time.Millisecond)
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
