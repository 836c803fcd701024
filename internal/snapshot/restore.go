package snapshot

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// RestoreArgs are the arguments of the job that restores a snapshot.
type RestoreArgs struct {
	Tenant           string `json:"tenant"`
	SourceSnapshotID string `json:"source_snapshot_id"`
	SnapshotID       string `json:"snapshot_id"` // of the new one, so that however often the job runs there is one
	AgentID          string `json:"agent_id"`    // whose head it becomes
}

// Kind names the job.
func (RestoreArgs) Kind() string { return "snapshot_restore" }

// Restore inserts the job that makes an earlier state the head of an agent.
func (s *Service) Restore(ctx context.Context, tenant string, m messages.SnapshotRestore) (messages.SnapshotRestoreReply, error) {
	plan := func(ctx context.Context, db postgres.Querier) (reply messages.SnapshotRestoreReply, err error) {
		source, field := byID(m.SnapshotID), "snapshot_id"
		if m.At != nil {
			source, field = which{`snapshot_id = (
				SELECT snapshot_id FROM morello.snapshot WHERE tenant = $1 AND agent_id = $2 AND created_at <= $3
				ORDER BY created_at DESC LIMIT 1)`, []any{m.AgentID, *m.At}}, "at"
		}
		if reply.Source, err = find(ctx, db, tenant, source, field); err != nil {
			return reply, err
		}
		if reply.TargetAgentID = m.TargetAgentID; reply.TargetAgentID == "" {
			reply.TargetAgentID = reply.Source.AgentID
		}
		const head = `SELECT coalesce((SELECT snapshot_id::text FROM morello.snapshot_head WHERE tenant = $1 AND agent_id = $2), '')`
		err = db.QueryRow(ctx, head, tenant, reply.TargetAgentID).Scan(&reply.PreRestoreSnapshotID)
		if err != nil || m.DryRun {
			return reply, err
		}
		id, err := uuid.NewV7()
		if err != nil {
			return reply, fmt.Errorf("making an id: %w", err)
		}
		reply.SnapshotID = id.String()
		reply.JobID, err = s.cfg.InsertJob(ctx, db, RestoreArgs{tenant, reply.Source.SnapshotID, reply.SnapshotID, reply.TargetAgentID})
		return reply, err
	}
	if m.DryRun {
		return postgres.Read(ctx, s.pool, plan)
	}
	return postgres.InTx(ctx, s.pool, tenant, plan)
}

// restoreBatch is how many chunks a step checks.
const restoreBatch = 500

// RestoreConfig of the job: how its events are published, each under an id that is the same when it is published again. Progress
// and Failed are called before a batch is committed, Restored after the commit of the restore; an error repeats the step. So each
// event comes at least once. Required.
type RestoreConfig struct {
	Progress func(ctx context.Context, tenant, id string, body messages.SnapshotRestoreProgress) error
	Restored func(ctx context.Context, tenant, id string, body messages.SnapshotRestoration) error
	Failed   func(ctx context.Context, tenant, id string, body messages.SnapshotRestoreFailure) error
}

// NewRestore returns what the job does. It reads every chunk of the source again and compares it with its hash, and notes that the
// target has the texts; then it makes the new snapshot in one transaction, and at last tells of it. What is done is found in what
// the job has noted, and in whether the snapshot is there.
func NewRestore(cfg RestoreConfig) func(args RestoreArgs) jobs.Step {
	return func(args RestoreArgs) jobs.Step {
		r := &restore{RestoreArgs: args, cfg: cfg}
		return r.step
	}
}

type restore struct {
	RestoreArgs
	cfg    RestoreConfig
	hashes []Hash // of the source, sorted; read at first
}

// restored is what the job notes.
type restored struct {
	SnapshotID string `json:"snapshot_id"`
	Checked    int    `json:"checked"`         // chunks
	After      string `json:"after,omitempty"` // the last of them
}

func (r *restore) step(ctx context.Context, db postgres.Querier) (jobs.Counts, bool, error) {
	if there, err := r.isThere(ctx, db); err != nil || there {
		if err == nil {
			err = r.cfg.Restored(ctx, r.Tenant, eventID(ctx, 1), r.restoration(ctx))
		}
		return nil, false, err
	}
	err := r.next(ctx, db)
	if isFinal(err) {
		failure := messages.AsError(damage(err))
		event := messages.SnapshotRestoreFailure{SnapshotRestoration: r.restoration(ctx), Error: failure.Error()}
		if told := r.cfg.Failed(ctx, r.Tenant, eventID(ctx, 1), event); told != nil {
			return nil, false, told
		}
		err = jobs.Final(failure)
	}
	return nil, true, err
}

// next checks the next chunks; after the last it restores.
func (r *restore) next(ctx context.Context, db postgres.Querier) error {
	source, err := find(ctx, db, r.Tenant, byID(r.SourceSnapshotID), "source_snapshot_id")
	if err != nil {
		return err
	}
	noted := restored{SnapshotID: r.SnapshotID}
	if _, err := jobs.Result(ctx, &noted); err != nil {
		return err
	}
	if r.hashes == nil {
		if r.hashes, err = reachedHashes(ctx, db, r.Tenant, rootOf(source)); err != nil {
			return err
		}
	}
	rest := after(r.hashes, noted.After)
	if len(rest) == 0 {
		return r.restore(ctx, db)
	}
	batch := rest[:min(restoreBatch, len(rest))]
	if err := r.check(ctx, db, batch); err != nil {
		return err
	}
	noted.Checked, noted.After = len(r.hashes)-len(rest)+len(batch), batch[len(batch)-1].String()
	progress := messages.JobProgress{Done: int64(noted.Checked), Total: int64(len(r.hashes)), Unit: "chunks"}
	jobs.Report(ctx, progress)
	if err := jobs.SetResult(ctx, noted); err != nil {
		return err
	}
	return r.cfg.Progress(ctx, r.Tenant, eventID(ctx, noted.Checked), messages.SnapshotRestoreProgress{SnapshotRestoration: r.restoration(ctx), Progress: progress})
}

// after returns the hashes after one, which is written in hexadecimal digits, or all.
func after(hashes []Hash, last string) []Hash {
	if last == "" {
		return hashes
	}
	var hash Hash
	_, _ = hex.Decode(hash[:], []byte(last))
	at, found := slices.BinarySearchFunc(hashes, hash, compareHashes)
	if found {
		at++
	}
	return hashes[at:]
}

func (r *restore) isThere(ctx context.Context, db postgres.Querier) (there bool, err error) {
	const sql = `SELECT EXISTS (SELECT FROM morello.snapshot WHERE tenant = $1 AND snapshot_id = $2)`
	err = db.QueryRow(ctx, sql, r.Tenant, r.SnapshotID).Scan(&there)
	return there, err
}

// check compares chunks with their hashes, and notes that the target has their texts.
func (r *restore) check(ctx context.Context, db postgres.Querier, hashes []Hash) error {
	const texts = `
		INSERT INTO morello.snapshot_text (tenant, hash, agent_id)
		SELECT $1, hash, $3 FROM morello.snapshot_chunk WHERE tenant = $1 AND hash = ANY ($2::bytea[]) AND text IS NOT NULL ORDER BY hash
		ON CONFLICT DO NOTHING`
	found, err := readChunks(ctx, db, r.Tenant, hashes)
	if err != nil {
		return err
	}
	for _, hash := range hashes {
		if found[hash] == nil {
			return &fault{hash, errMissing}
		}
	}
	_, err = db.Exec(ctx, texts, r.Tenant, asBytes(hashes), r.AgentID)
	return err
}

// restore makes the new snapshot the head of the target. Its lock on the source makes the chunks stay until the commit.
func (r *restore) restore(ctx context.Context, db postgres.Querier) error {
	const copied = `
		INSERT INTO morello.snapshot (
			tenant, snapshot_id, agent_id, user_id, parent_id, ancestor_id, metadata, vector_ids, size_bytes,
			content_hash, document_sha256, document_bytes, stored_bytes, partially_indexed, restored_from, created_at)
		SELECT $1, $3::uuid, $2, s.user_id, h.previous_id, h.previous_id,
			s.metadata || jsonb_build_object('restored_from', s.snapshot_id, 'restored_at', to_char(h.last_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')),
			s.vector_ids, s.size_bytes + 128, s.content_hash, s.document_sha256, s.document_bytes, 0, s.partially_indexed, s.snapshot_id, h.last_at
		FROM morello.snapshot_head AS h, morello.snapshot AS s
		WHERE h.tenant = $1 AND h.agent_id = $2 AND s.tenant = $1 AND s.snapshot_id = $4::uuid`
	whatever := []*string{nil}
	if _, err := db.Exec(ctx, moveHeads, []string{r.Tenant}, []string{r.AgentID}, []string{r.SnapshotID}, whatever, whatever); err != nil {
		return err
	}
	if _, err := find(ctx, db, r.Tenant, which{`snapshot_id = $2 FOR KEY SHARE`, []any{r.SourceSnapshotID}}, "source_snapshot_id"); err != nil {
		return err
	}
	_, err := db.Exec(ctx, copied, r.Tenant, r.AgentID, r.SnapshotID, r.SourceSnapshotID)
	return err
}

func (r *restore) restoration(ctx context.Context) messages.SnapshotRestoration {
	jobID, _ := jobs.Running(ctx)
	return messages.SnapshotRestoration{JobID: jobID, SourceSnapshotID: r.SourceSnapshotID, SnapshotID: r.SnapshotID, AgentID: r.AgentID}
}

func eventID(ctx context.Context, n int) string {
	jobID, attempt := jobs.Running(ctx)
	return fmt.Sprintf("%d:%d:%d", jobID, attempt, n)
}

// isFinal reports whether a repetition would fail alike: the source is not there any more, or is damaged.
func isFinal(err error) bool {
	if err == nil {
		return false
	}
	return messages.AsError(damage(err)).Code == messages.CodeNotFound || isFault(err)
}

// reachedHashes returns the hashes of all chunks under roots that are there, sorted.
func reachedHashes(ctx context.Context, db postgres.Querier, tenant string, roots ...Hash) ([]Hash, error) {
	rows, err := db.Query(ctx, treeSQL(given)+` SELECT hash FROM reached`, tenant, asBytes(roots))
	if err != nil {
		return nil, err
	}
	hashes, err := pgx.CollectRows(rows, scanHash)
	slices.SortFunc(hashes, compareHashes)
	return hashes, err
}
