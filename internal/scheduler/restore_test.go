package scheduler_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/internal/snapshot"
	"github.com/ai-cherry/morello/messages"
)

// restoring is snapshots on a database and a broker of their own.
type restoring struct {
	*snapshot.Service
	url, broker string
	db          *pgx.Conn
}

func newRestoring(t *testing.T) restoring {
	t.Helper()
	r := restoring{url: devtest.Database(t), broker: devtest.NATS(t).URL()}
	var err error
	r.db, err = pgx.Connect(t.Context(), r.url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.db.Close(context.Background())) })
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: r.url, Program: "test", Instance: "one", Ceiling: 2})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	inserter, err := jobs.NewInserter(slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	r.Service = snapshot.New(pool, snapshot.Config{InsertJob: inserter.Insert})
	return r
}

// conversation is a document of so many chunks and more.
func conversation(chunks int) string {
	messages := make([]string, chunks)
	for i := range messages {
		messages[i] = fmt.Sprintf(`"%s"`, strings.Repeat(fmt.Sprintf("message %d ", i), 8))
	}
	return "[" + strings.Join(messages, ",") + "]"
}

func (r restoring) create(t *testing.T, agent, data string) messages.Snapshot {
	t.Helper()
	reply, err := r.Create(t.Context(), "acme", messages.SnapshotCreate{AgentID: agent, Data: []byte(data), Metadata: []byte(`{"a":1}`), VectorIDs: []string{"v"}})
	require.NoError(t, err)
	return reply.Snapshot
}

func (r restoring) restore(t *testing.T, m messages.SnapshotRestore) messages.SnapshotRestoreReply {
	t.Helper()
	require.NoError(t, m.Validate())
	reply, err := r.Restore(t.Context(), "acme", m)
	require.NoError(t, err)
	return reply
}

func (r restoring) latest(t *testing.T, agent string) messages.SnapshotDataReply {
	t.Helper()
	reply, err := r.Latest(t.Context(), "acme", messages.SnapshotLatest{AgentID: agent})
	require.NoError(t, err)
	return reply
}

// job waits until the job is over, and returns it.
func (r restoring) job(t *testing.T, id int64) (state string, result map[string]any) {
	t.Helper()
	require.Eventually(t, func() bool {
		const sql = `SELECT state, coalesce(metadata->'morello'->'result', '{}') FROM river.river_job WHERE id = $1`
		require.NoError(t, r.db.QueryRow(t.Context(), sql, id).Scan(&state, &result))
		return state == "completed" || state == "cancelled" || state == "discarded"
	}, 2*time.Minute, 20*time.Millisecond)
	return state, result
}

// events returns the bodies of the events of a kind, without repetitions.
func (r restoring) events(t *testing.T, name string) (bodies []map[string]any) {
	t.Helper()
	nc, err := nats.Connect(r.broker)
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	consumer, err := js.OrderedConsumer(t.Context(), messages.EventStream, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{"morello.events.v1.acme." + name},
	})
	require.NoError(t, err)
	batch, err := consumer.Fetch(1000, jetstream.FetchMaxWait(500*time.Millisecond))
	require.NoError(t, err)
	for msg := range batch.Messages() {
		var body map[string]any
		require.NoError(t, json.Unmarshal(msg.Data(), &body))
		bodies = append(bodies, body)
	}
	return bodies
}

func TestRestore(t *testing.T) {
	t.Parallel()
	r := newRestoring(t)
	old := r.create(t, "a", conversation(700))
	head := r.create(t, "a", `{"gone":"wrong"}`)
	dry := r.restore(t, messages.SnapshotRestore{AgentID: "a", At: &old.CreatedAt, DryRun: true})
	require.Equal(t, messages.SnapshotRestoreReply{PreRestoreSnapshotID: head.SnapshotID, Source: old, TargetAgentID: "a"}, dry)
	same := r.restore(t, messages.SnapshotRestore{SnapshotID: old.SnapshotID})
	other := r.restore(t, messages.SnapshotRestore{AgentID: "a", At: &old.CreatedAt, TargetAgentID: "b"})
	doomed := r.create(t, "c", `1`)
	failing := r.restore(t, messages.SnapshotRestore{SnapshotID: doomed.SnapshotID})
	_, err := r.Delete(t.Context(), "acme", messages.SnapshotDelete{SnapshotID: doomed.SnapshotID})
	require.NoError(t, err)
	scheduler := start(t, r.url, r.broker)
	for agent, reply := range map[string]messages.SnapshotRestoreReply{"a": same, "b": other} {
		state, _ := r.job(t, reply.JobID)
		require.Equal(t, "completed", state)
		got := r.latest(t, agent)
		require.Equal(t, conversation(700), string(got.Data))
		require.Equal(t, reply.SnapshotID, got.Snapshot.SnapshotID)
		require.Equal(t, reply.PreRestoreSnapshotID, got.Snapshot.ParentID)
		require.Equal(t, old.SnapshotID, got.Snapshot.RestoredFrom)
		require.Equal(t, old.ContentHash, got.Snapshot.ContentHash)
		require.Equal(t, []string{"v"}, got.Snapshot.VectorIDs)
		require.Contains(t, string(got.Snapshot.Metadata), `"restored_from": "`+old.SnapshotID)
		require.Contains(t, string(got.Snapshot.Metadata), `"a": 1`)
	}
	state, _ := r.job(t, failing.JobID)
	require.Equal(t, "cancelled", state)
	job, err := jobs.Get(t.Context(), r.db, "acme", failing.JobID)
	require.NoError(t, err)
	require.Equal(t, messages.CodeNotFound, job.Failure.Code)
	require.Equal(t, "source_snapshot_id: there is no such snapshot", job.Failure.Message)
	require.Len(t, r.events(t, "snapshot.restored"), 2)
	progress := r.events(t, "snapshot.restore_progress")
	require.GreaterOrEqual(t, len(progress), 4)
	failed := r.events(t, "snapshot.restore_failed")
	require.Len(t, failed, 1)
	require.Equal(t, failing.SnapshotID, failed[0]["snapshot_id"])
	require.Contains(t, failed[0]["error"], "not_found")
	var texts int
	require.NoError(t, r.db.QueryRow(t.Context(), `SELECT count(*) FROM morello.snapshot_text WHERE agent_id = 'b'`).Scan(&texts))
	require.Equal(t, 700, texts)
	scheduler.end(t, syscall.SIGTERM)
}

// A scheduler is killed in the middle of a restore; another finishes it, with one new snapshot.
func TestKilledRestoreEndsElsewhere(t *testing.T) {
	t.Parallel()
	r := newRestoring(t)
	old := r.create(t, "a", conversation(2000))
	head := r.create(t, "a", `1`)
	reply := r.restore(t, messages.SnapshotRestore{SnapshotID: old.SnapshotID})

	// The last step waits for the head, which is locked here.
	other, err := pgx.Connect(t.Context(), r.url)
	require.NoError(t, err)
	defer func() { require.NoError(t, other.Close(context.Background())) }()
	lock, err := other.Begin(t.Context())
	require.NoError(t, err)
	_, err = lock.Exec(t.Context(), `SELECT FROM morello.snapshot_head FOR UPDATE`)
	require.NoError(t, err)
	first := start(t, r.url, r.broker)
	require.Eventually(t, func() bool {
		var waiting int
		require.NoError(t, r.db.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'`).Scan(&waiting))
		return waiting > 0
	}, time.Minute, 10*time.Millisecond)
	first.end(t, syscall.SIGKILL)
	require.NoError(t, lock.Rollback(t.Context()))
	require.Equal(t, head.SnapshotID, r.latest(t, "a").Snapshot.SnapshotID)

	// River gives a job that died a while before it has another go; let it have passed.
	_, err = r.db.Exec(t.Context(), `UPDATE river.river_job SET attempted_at = attempted_at - interval '1 hour' WHERE state = 'running'`)
	require.NoError(t, err)
	second := start(t, r.url, r.broker)
	state, _ := r.job(t, reply.JobID)
	require.Equal(t, "completed", state)
	got := r.latest(t, "a")
	require.Equal(t, reply.SnapshotID, got.Snapshot.SnapshotID)
	require.Equal(t, conversation(2000), string(got.Data))
	var snapshots int
	require.NoError(t, r.db.QueryRow(t.Context(), `SELECT count(*) FROM morello.snapshot`).Scan(&snapshots))
	require.Equal(t, 3, snapshots)
	second.end(t, syscall.SIGTERM)
}

func TestVerify(t *testing.T) {
	t.Parallel()
	r := newRestoring(t)
	r.create(t, "a", conversation(800))
	r.create(t, "b", `{"fine":true}`)
	var damaged, missing string
	require.NoError(t, r.db.QueryRow(t.Context(), `
		UPDATE morello.snapshot_chunk SET text = 'X' || substr(text, 2) WHERE hash = (SELECT hash FROM morello.snapshot_chunk WHERE body IS NULL ORDER BY hash DESC LIMIT 1)
		RETURNING encode(hash, 'hex')`).Scan(&damaged))
	require.NoError(t, r.db.QueryRow(t.Context(), `
		DELETE FROM morello.snapshot_chunk WHERE hash = (SELECT hash FROM morello.snapshot_chunk WHERE body IS NULL ORDER BY hash LIMIT 1)
		RETURNING encode(hash, 'hex')`).Scan(&missing))
	scheduler := start(t, r.url, r.broker)
	for _, m := range []messages.SnapshotVerify{{}, {Tenant: "acme", AgentID: "a"}} {
		reply, err := r.Verify(t.Context(), messages.TenantAdmin, m)
		require.NoError(t, err)
		state, result := r.job(t, reply.JobID)
		require.Equal(t, "completed", state)
		require.EqualValues(t, 1, result["damaged"])
		require.EqualValues(t, 1, result["missing"])
		require.ElementsMatch(t, []any{
			map[string]any{"tenant": "acme", "hash": damaged, "problem": "is damaged: its bytes do not have its hash"},
			map[string]any{"tenant": "acme", "hash": missing, "problem": "is missing"},
		}, result["bad"])
		require.Greater(t, result["checked"], 800.0)
	}
	reply, err := r.Verify(t.Context(), messages.TenantAdmin, messages.SnapshotVerify{Tenant: "acme", AgentID: "b"})
	require.NoError(t, err)
	_, result := r.job(t, reply.JobID)
	require.EqualValues(t, 0, result["damaged"])
	require.EqualValues(t, 1, result["checked"])
	scheduler.end(t, syscall.SIGTERM)
}
