package snapshot

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

const highestID = "ffffffff-ffff-ffff-ffff-ffffffffffff"

func placeOf(last messages.Snapshot) postgres.Place {
	return postgres.Place{At: last.CreatedAt, ID: last.SnapshotID}
}

// Snapshots of one agent are of different times, so that an index has their order without their ids.
var (
	listOfAgentSQL = listSQL(`created_at DESC`)
	listOfAllSQL   = listSQL(`created_at DESC, snapshot_id DESC`)
)

func listSQL(order string) string {
	return postgres.PageSQL(columns, order, `
	SELECT * FROM morello.snapshot
	WHERE tenant = $1 AND (created_at, snapshot_id) < ($3, $4::uuid)
		AND ($5 = '' OR agent_id = $5) AND ($6 = '' OR user_id = $6) AND ($7 = '' OR label = $7)
		AND ($8::timestamptz IS NULL OR created_at > $8) AND ($9::timestamptz IS NULL OR created_at < $9)`)
}

// List lists snapshots, newest first: a range of the index of the filters.
func (s *Service) List(ctx context.Context, tenant string, m messages.SnapshotList) (messages.SnapshotListReply, error) {
	filters := m
	filters.Page = messages.Page{}
	if err := bus.Reserve(ctx, messages.MaxPageBytes); err != nil {
		return messages.SnapshotListReply{}, err
	}
	found, next, err := postgres.ReadPage(ctx, s.pool, postgres.Listing{Operation: messages.SnapshotListEndpoint.Name, Tenant: tenant, Filters: filters}, m.Cursor,
		func(ctx context.Context, db postgres.Querier, from postgres.Place) ([]messages.Snapshot, bool, error) {
			at, id := from.Before(highestID)
			sql := listOfAllSQL
			if m.AgentID != "" {
				sql = listOfAgentSQL
			}
			rows, err := db.Query(ctx, sql, postgres.PlanEachTime, tenant, m.Size(), at, id, m.AgentID, m.UserID, m.Label, m.CreatedAfter, m.CreatedBefore)
			if err != nil {
				return nil, false, err
			}
			return postgres.CollectPage(rows, scanSnapshot)
		}, placeOf)
	return messages.SnapshotListReply{Snapshots: found, NextCursor: next}, err
}

// historySQL follows the ancestors that are left, from the snapshot $3 on.
var historySQL = postgres.PageSQL(columns+`, truncated, coalesce(ancestor_id::text, '')`, `depth`, `
	SELECT * FROM (
		WITH RECURSIVE line AS (
			SELECT s.*, 0 AS depth FROM morello.snapshot AS s WHERE s.tenant = $1 AND s.snapshot_id = $3::uuid
			UNION ALL
			SELECT s.*, line.depth + 1 FROM line JOIN morello.snapshot AS s ON s.tenant = $1 AND s.snapshot_id = line.ancestor_id
			WHERE line.depth < $2
		)
		SELECT *, parent_id IS DISTINCT FROM ancestor_id AS truncated FROM line
	) AS line`)

// ancestor is a row of a history: a snapshot, whether the one that it follows was deleted, and the one that the history goes on with.
type ancestor struct {
	messages.Snapshot
	truncated bool
	next      string
}

func scanAncestor(row pgx.CollectableRow, following ...any) (a ancestor, err error) {
	a.Snapshot, err = scanSnapshot(row, append([]any{&a.truncated, &a.next}, following...)...)
	return a, err
}

// History lists a snapshot and what it follows. A page is a walk by the primary key.
func (s *Service) History(ctx context.Context, tenant string, m messages.SnapshotHistory) (messages.SnapshotHistoryReply, error) {
	if err := bus.Reserve(ctx, messages.MaxPageBytes); err != nil {
		return messages.SnapshotHistoryReply{}, err
	}
	page, next, err := postgres.ReadPage(ctx, s.pool, postgres.Listing{Operation: messages.SnapshotHistoryEndpoint.Name, Tenant: tenant, Filters: m.SnapshotID}, m.Cursor,
		func(ctx context.Context, db postgres.Querier, from string) ([]ancestor, bool, error) {
			if from == "" {
				from = m.SnapshotID
			}
			rows, err := db.Query(ctx, historySQL, tenant, m.Size(), from)
			if err != nil {
				return nil, false, err
			}
			return postgres.CollectPage(rows, scanAncestor)
		}, func(last ancestor) string { return last.next })
	if err == nil && len(page) == 0 && m.Cursor == "" {
		err = notFound("snapshot_id")
	}
	reply := messages.SnapshotHistoryReply{Snapshots: []messages.Snapshot{}, NextCursor: next}
	for _, a := range page {
		reply.Snapshots = append(reply.Snapshots, a.Snapshot)
		reply.Truncated = reply.Truncated || a.truncated
	}
	return reply, err
}

// Stats adds up the snapshots of a tenant, or of an agent. It reads the row of each.
func (s *Service) Stats(ctx context.Context, tenant string, m messages.SnapshotStats) (messages.SnapshotStatsReply, error) {
	const sql = `
		SELECT count(*), count(DISTINCT agent_id), count(DISTINCT user_id), coalesce(sum(document_bytes), 0)::bigint, coalesce(sum(stored_bytes), 0)::bigint,
			coalesce(sum(document_bytes) / nullif(sum(stored_bytes), 0), 0)::float8, coalesce(avg(document_bytes), 0)::float8,
			coalesce(max(document_bytes), 0), min(created_at), max(created_at), coalesce(avg(cardinality(vector_ids)), 0)::float8,
			count(*) FILTER (WHERE document_bytes < 1024),
			count(*) FILTER (WHERE document_bytes >= 1024 AND document_bytes < 10 * 1024),
			count(*) FILTER (WHERE document_bytes >= 10 * 1024 AND document_bytes < 100 * 1024),
			count(*) FILTER (WHERE document_bytes >= 100 * 1024 AND document_bytes < 1024 * 1024),
			count(*) FILTER (WHERE document_bytes >= 1024 * 1024)
		FROM morello.snapshot WHERE tenant = $1 AND ($2 = '' OR agent_id = $2)`
	return postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (reply messages.SnapshotStatsReply, err error) {
		sum, sizes := &reply.Summary, &reply.SizeDistribution
		err = db.QueryRow(ctx, sql, postgres.PlanEachTime, tenant, m.AgentID).Scan(
			&sum.TotalSnapshots, &sum.UniqueAgents, &sum.UniqueUsers, &sum.DocumentBytes, &sum.StoredBytes,
			&sum.DedupRatio, &sum.AvgSizeBytes, &sum.MaxSizeBytes, &sum.Oldest, &sum.Newest, &sum.AvgVectorCount,
			&sizes.Under1KB, &sizes.Under10KB, &sizes.Under100KB, &sizes.Under1MB, &sizes.Over1MB)
		return reply, err
	})
}
