package snapshot

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// Delete deletes a snapshot. If it is the head, its nearest ancestor that is left becomes the head.
func (s *Service) Delete(ctx context.Context, tenant string, m messages.SnapshotDelete) (messages.SnapshotDeleteReply, error) {
	var gone []messages.SnapshotRef
	reply, err := postgres.InTx(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (messages.SnapshotDeleteReply, error) {
		const owner = `SELECT agent_id FROM morello.snapshot WHERE tenant = $1 AND snapshot_id = $2`
		rows, err := db.Query(ctx, owner, tenant, m.SnapshotID)
		if err != nil {
			return messages.SnapshotDeleteReply{}, err
		}
		agents, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil || len(agents) == 0 {
			return messages.SnapshotDeleteReply{}, err
		}
		if err := lockHeads(ctx, db, tenant, agents); err != nil {
			return messages.SnapshotDeleteReply{}, err
		}
		gone, err = remove(ctx, db, tenant, []string{m.SnapshotID})
		return messages.SnapshotDeleteReply{Deleted: len(gone) == 1}, err
	})
	if err == nil && len(gone) == 1 {
		bus.Emit(s.cfg.Events, messages.SnapshotDeletedEvent, tenant, gone[0])
	}
	return reply, err
}

// lockHeads locks the heads of agents, in their order. Who holds the head of an agent creates or deletes its snapshots alone.
func lockHeads(ctx context.Context, db postgres.Querier, tenant string, agents []string) error {
	const sql = `SELECT FROM morello.snapshot_head WHERE tenant = $1 AND agent_id = ANY ($2) ORDER BY agent_id FOR UPDATE`
	_, err := db.Exec(ctx, sql, tenant, agents)
	return err
}

// remove deletes snapshots of agents whose heads are locked. What had one of them as its nearest ancestor, heads included, goes on
// with the nearest that is left. The sweep will look for what only they held.
func remove(ctx context.Context, db postgres.Querier, tenant string, ids []string) ([]messages.SnapshotRef, error) {
	const deleting = `
		WITH RECURSIVE gone AS MATERIALIZED (
			DELETE FROM morello.snapshot WHERE tenant = $1 AND snapshot_id = ANY ($2::uuid[])
			RETURNING snapshot_id, agent_id, user_id, parent_id, ancestor_id
		), hop (snapshot_id, next) AS (
			SELECT snapshot_id, ancestor_id FROM gone
			UNION ALL
			SELECT hop.snapshot_id, gone.ancestor_id FROM hop JOIN gone ON gone.snapshot_id = hop.next
		), nearest AS MATERIALIZED (
			SELECT snapshot_id, next FROM hop WHERE next IS NULL OR next NOT IN (SELECT snapshot_id FROM gone)
		), orphans AS (
			UPDATE morello.snapshot AS s SET ancestor_id = nearest.next FROM nearest
			WHERE s.tenant = $1 AND s.ancestor_id = nearest.snapshot_id AND s.snapshot_id NOT IN (SELECT snapshot_id FROM gone)
		), heads AS (
			UPDATE morello.snapshot_head AS h SET snapshot_id = nearest.next FROM gone JOIN nearest USING (snapshot_id)
			WHERE h.tenant = $1 AND h.agent_id = gone.agent_id AND h.snapshot_id = gone.snapshot_id
		), garbage AS (
			INSERT INTO morello.snapshot_garbage (tenant, deleted_at) SELECT $1, clock_timestamp() FROM gone LIMIT 1
			ON CONFLICT (tenant) DO UPDATE SET deleted_at = greatest(snapshot_garbage.deleted_at, excluded.deleted_at)
		)
		SELECT snapshot_id::text, agent_id, coalesce(user_id, ''), coalesce(parent_id::text, '') FROM gone`
	if len(ids) == 0 {
		return nil, nil
	}
	rows, err := db.Query(ctx, deleting, tenant, ids)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[messages.SnapshotRef])
}

// NewDeleteOfAgent returns what deletes up to limit of the snapshots of an agent in the transaction that it is given, and reports
// whether there are more. Who deletes an agent with what is its calls it until there are none. cleaned publishes which are to go. It is
// called before the agent's head is locked, so that nobody waits for the stream, and its error undoes the batch: so the event comes at
// least once, and of a job that is cancelled after it it may tell of snapshots that are still there.
func NewDeleteOfAgent(
	cleaned func(ctx context.Context, tenant string, gone messages.SnapshotsCleaned) error,
) func(ctx context.Context, db postgres.Querier, tenant, agentID string, limit int) (deleted int64, more bool, err error) {
	return func(ctx context.Context, db postgres.Querier, tenant, agentID string, limit int) (int64, bool, error) {
		const oldest = `
			SELECT snapshot_id::text, agent_id, coalesce(user_id, ''), coalesce(parent_id::text, '')
			FROM morello.snapshot WHERE tenant = $1 AND agent_id = $2 ORDER BY created_at LIMIT $3`
		rows, err := db.Query(ctx, oldest, tenant, agentID, limit)
		if err != nil {
			return 0, false, err
		}
		found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[messages.SnapshotRef])
		if err != nil || len(found) == 0 {
			return 0, false, err
		}
		if err := cleaned(ctx, tenant, messages.SnapshotsCleaned{Snapshots: found}); err != nil {
			return 0, false, err
		}
		if err := lockHeads(ctx, db, tenant, []string{agentID}); err != nil {
			return 0, false, err
		}
		ids := make([]string, len(found))
		for i, s := range found {
			ids[i] = s.SnapshotID
		}
		gone, err := remove(ctx, db, tenant, ids)
		return int64(len(gone)), len(found) == limit, err
	}
}
