package snapshot

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// TestPlans: every statement about one snapshot, one agent or one page reads a few pages of 60 000 snapshots, most of which are
// another tenant's.
func TestPlans(t *testing.T) {
	t.Parallel()
	db, err := pgx.Connect(t.Context(), devtest.Database(t))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close(context.Background())) })
	for _, sql := range []string{
		`CREATE FUNCTION pg_temp.words(n integer) RETURNS text LANGUAGE sql AS $$ SELECT 'text number n' || n || CASE WHEN n % 6000 = 0 THEN ' rare' ELSE ' common' END $$`,
		`CREATE FUNCTION pg_temp.hash(n integer) RETURNS bytea LANGUAGE sql AS $$ SELECT sha256('\x010000' || convert_to(pg_temp.words(n), 'UTF8')) $$`,
		`INSERT INTO morello.snapshot_chunk (tenant, hash, touched_at, encoding, text)
			SELECT CASE WHEN n % 20 = 0 THEN 'acme' ELSE 'large' END, pg_temp.hash(n), now() - interval '2 hours', 10, pg_temp.words(n)
			FROM generate_series(1, 60000) AS n`,
		`INSERT INTO morello.snapshot (tenant, snapshot_id, agent_id, user_id, parent_id, ancestor_id, label, metadata, vector_ids, size_bytes,
				content_hash, document_sha256, document_bytes, stored_bytes, partially_indexed, created_at)
			SELECT CASE WHEN n % 20 = 0 THEN 'acme' ELSE 'large' END, md5(n::text)::uuid, 'agent-' || n % 300, 'user-' || n % 100,
				md5((n - 300)::text)::uuid, md5((n - 300)::text)::uuid, CASE WHEN n % 1000 = 0 THEN 'marked' END, '{}', '{}', 2,
				pg_temp.hash(n), sha256(''), 10, 10, false, now() - make_interval(secs => 60000 - n)
			FROM generate_series(1, 60000) AS n`,
		`INSERT INTO morello.snapshot_head (tenant, agent_id, snapshot_id, last_at)
			SELECT DISTINCT ON (tenant, agent_id) tenant, agent_id, snapshot_id, created_at FROM morello.snapshot ORDER BY tenant, agent_id, created_at DESC`,
		`INSERT INTO morello.snapshot_text (tenant, hash, agent_id) SELECT tenant, content_hash, agent_id FROM morello.snapshot`,
		`VACUUM ANALYZE morello.snapshot, morello.snapshot_chunk, morello.snapshot_head, morello.snapshot_text`, // as autovacuum would
	} {
		_, err := db.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	const acme, agent = "acme", "agent-0"
	head, err := find(t.Context(), db, acme, newest(agent, ""), "")
	require.NoError(t, err)
	list := func(ctx context.Context, db postgres.Querier, agentID, userID, label string) (int, error) {
		at, id := postgres.Place{}.Before(highestID)
		sql := listOfAllSQL
		if agentID != "" {
			sql = listOfAgentSQL
		}
		rows, err := db.Query(ctx, sql, postgres.PlanEachTime, acme, 20, at, id, agentID, userID, label, nil, nil)
		if err != nil {
			return 0, err
		}
		page, _, err := postgres.CollectPage(rows, scanSnapshot)
		return len(page), err
	}
	for name, c := range map[string]struct {
		pages, found int
		run          func(ctx context.Context, db postgres.Querier) (int, error)
	}{
		"head": {40, 1, func(ctx context.Context, db postgres.Querier) (int, error) {
			found, all, err := findWhole(ctx, db, acme, newest(agent, ""), "")
			require.Equal(t, head, found)
			return len(all), err
		}},
		"newest of a user": {20, 1, func(ctx context.Context, db postgres.Querier) (int, error) {
			_, err := find(ctx, db, acme, newest(agent, "user-0"), "")
			return 1, err
		}},
		"base": {40, 1, func(ctx context.Context, db postgres.Querier) (int, error) {
			base, err := readBase(ctx, db, acme, agent, newest(agent, ""), "")
			return len(base.hashes), err
		}},
		"list":          {60, 20, func(ctx context.Context, db postgres.Querier) (int, error) { return list(ctx, db, "", "", "") }},
		"list of agent": {60, 20, func(ctx context.Context, db postgres.Querier) (int, error) { return list(ctx, db, agent, "", "") }},
		"list of user":  {60, 20, func(ctx context.Context, db postgres.Querier) (int, error) { return list(ctx, db, "", "user-0", "") }},
		"list by label": {60, 20, func(ctx context.Context, db postgres.Querier) (int, error) { return list(ctx, db, "", "", "marked") }},
		"history": {90, 20, func(ctx context.Context, db postgres.Querier) (int, error) {
			rows, err := db.Query(ctx, historySQL, acme, 20, head.SnapshotID)
			if err != nil {
				return 0, err
			}
			page, _, err := postgres.CollectPage(rows, scanAncestor)
			return len(page), err
		}},
		"create": {120, 1, func(ctx context.Context, db postgres.Querier) (int, error) {
			c := &creation{SnapshotCreate: messages.SnapshotCreate{AgentID: agent, SnapshotID: "0196f3c2-7b1e-7c3a-9f0e-0f6a3d1c2b4a"}, tenant: acme, document: []byte(`{"a":1}`)}
			made := build(c.document, func(Hash) bool { return false })
			a := &addition{creation: c, made: made, base: &base{head.SnapshotID, nil}, last: postgres.Only(divide(made))}
			batch, snapshots := &pgx.Batch{}, []messages.Snapshot{{}}
			queueHeads(batch, []*addition{a})
			queueSnapshots(batch, []*addition{a}, snapshots)
			err := db.SendBatch(ctx, batch).Close()
			require.Equal(t, head.SnapshotID, snapshots[0].ParentID)
			return 1, err
		}},
		"delete": {150, 1, func(ctx context.Context, db postgres.Querier) (int, error) {
			gone, err := remove(ctx, db, acme, []string{head.ParentID})
			return len(gone), err
		}},
		"clean-up": {1500, 500, func(ctx context.Context, db postgres.Querier) (int, error) { // of 200 agents, of which most have as many as are kept
			walk := cleanup{tenant: acme, retention: retention{keep: 2}}
			found, err := walk.spare(ctx, db, []string{"agent-0", "agent-100", "agent-120", "agent-20", "agent-200", "agent-40", "agent-60", "agent-80"})
			return len(found), err
		}},
		"matches of a rare word": {60, 10, func(ctx context.Context, db postgres.Querier) (int, error) {
			q, err := parseQuery(ctx, db, "rare")
			require.NoError(t, err)
			matches, _, err := newestMatches(ctx, db, acme, q, "")
			return len(matches), err
		}},
		"rank of matches": {200, 10, func(ctx context.Context, db postgres.Querier) (int, error) {
			q, err := parseQuery(ctx, db, "rare")
			require.NoError(t, err)
			matches, _, err := newestMatches(ctx, db, acme, q, "")
			require.NoError(t, err)
			page, _, err := rankMatches(ctx, db, acme, q, matches, messages.SnapshotSearch{}, rank{})
			return len(page), err
		}},
		"chunks": {8, 1, func(ctx context.Context, db postgres.Querier) (int, error) {
			found, err := readChunks(ctx, db, acme, []Hash{rootOf(head)})
			return len(found), err
		}},
	} {
		tx, err := db.Begin(t.Context()) // within it the counts only grow
		require.NoError(t, err)
		pages := func() (n int) {
			const sql = `
				SELECT sum(pg_stat_get_xact_blocks_fetched(oid))::bigint FROM pg_class WHERE relnamespace = 'morello'::regnamespace AND relname LIKE 'snapshot%'`
			require.NoError(t, tx.QueryRow(t.Context(), sql).Scan(&n))
			return n
		}
		before := pages()
		found, err := c.run(t.Context(), tx)
		require.NoError(t, err, name)
		require.Equal(t, c.found, found, name)
		require.LessOrEqual(t, pages()-before, c.pages, name)
		require.NoError(t, tx.Rollback(t.Context()))
	}
}
