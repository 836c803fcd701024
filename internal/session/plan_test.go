package session_test

import (
	"encoding/json"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/session"
	"github.com/ai-cherry/morello/messages"
)

// plan is what EXPLAIN says of a node.
type plan struct {
	Node    string  `json:"Node Type"`
	Table   string  `json:"Relation Name"`
	Index   string  `json:"Index Name"`
	Rows    float64 `json:"Actual Rows"`
	Removed float64 `json:"Rows Removed by Filter"`
	Hit     int     `json:"Shared Hit Blocks"`
	Read    int     `json:"Shared Read Blocks"`
	Plans   []plan  `json:"Plans"`
}

// indexes returns the names of the indexes that are used, and whether the table of sessions is read as a whole.
func (p plan) indexes() (names []string, whole bool) {
	if p.Index != "" {
		names = []string{p.Index}
	}
	whole = p.Node == "Seq Scan" && p.Table == "session"
	for _, below := range p.Plans {
		n, w := below.indexes()
		names, whole = append(names, n...), whole || w
	}
	slices.Sort(names)
	return slices.Compact(names), whole
}

// explain runs a statement, and undoes it.
func (f fixture) explain(t *testing.T, s session.Statement) (plan, time.Duration) {
	t.Helper()
	tx, err := f.db.Begin(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback(t.Context())) }()
	_, err = tx.Exec(t.Context(), `SET LOCAL jit = off`) // as for workers
	require.NoError(t, err)
	var text []byte
	require.NoError(t, tx.QueryRow(t.Context(), `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) `+s.SQL, s.Args...).Scan(&text))
	var top []struct {
		Plan plan
		Time float64 `json:"Execution Time"`
	}
	require.NoError(t, json.Unmarshal(text, &top))
	return top[0].Plan, time.Duration(math.Round(top[0].Time*1000)) * time.Microsecond
}

// planSessions is how many sessions the plans are tested with; docs/benchmarks.md has what they read among a million.
const planSessions = 60_000

// fillForPlans stores sessions of which nine in ten are dead: of one tenant most, a third of them deleted, of users and agents who
// have each the same share; of "small" a few. "retired" and its users have only deleted ones.
func (f fixture) fillForPlans(t *testing.T, n int) {
	t.Helper()
	const sql = `
		INSERT INTO morello.session (tenant, session_id, user_id, agent_id, data, metadata, size_bytes, ttl, created_at, updated_at, last_seen_at,
			expires_at, absolute_expires_at, sweep_after, ended_at, deleted, current_token)
		SELECT $1, id, 'u' || i % 1000, 'a' || i % 7, jsonb_build_object('data', repeat('v', 289)), '{}', 304, '1 day', at, at, at,
			at + '1 day', at + '30 days', at + '1 day', CASE WHEN $4 <> 'open' THEN at + interval '1 day' END, $4 = 'deleted' OR $4 = 'mixed' AND i % 3 = 0, sha256(id::text::bytea)
		FROM generate_series(1, $2::integer) AS i, LATERAL (SELECT now() - $3::interval - i * interval '20 hours' / $2 AS at, gen_random_uuid() AS id) AS moment`
	f.exec(t, sql, tenant, n*89/100, "35 days", "mixed")
	f.exec(t, sql, "retired", n/10, "20 days", "deleted")
	f.exec(t, sql, tenant, n/500, "1 day", "open") // expired, and not marked yet
	f.exec(t, sql, tenant, n/10, "0", "open")
	f.exec(t, sql, "small", 100, "20 days", "mixed")
	f.exec(t, sql, "small", 100, "0", "open")
	f.exec(t, `INSERT INTO morello.session_token (tenant, token_hash, session_id, generation, used, grace)
		SELECT tenant, sha256(session_id::text::bytea), session_id, 1, true, '0' FROM morello.session`)
	f.exec(t, `VACUUM ANALYZE morello.session, morello.session_token`)
}

// TestPlans: what is about live sessions reads the live ones, what is a page reads about a page, and a batch a batch, however many
// dead ones there are.
func TestPlans(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.fillForPlans(t, planSessions)
	table := f.count(t, `SELECT pg_relation_size('morello.session') / 8192`)
	live := f.count(t, `SELECT count(*) FROM morello.session WHERE tenant = $1 AND ended_at IS NULL`, tenant)
	ids := func(which string) []string {
		rows, err := f.db.Query(t.Context(), `SELECT session_id::text FROM morello.session WHERE tenant = $1 AND `+which+` ORDER BY session_id LIMIT 100`, tenant)
		require.NoError(t, err)
		list, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		return list
	}
	tokens, openIDs := ids(`true`), ids(`ended_at IS NULL AND expires_at > now()`)

	type statement struct {
		name      string
		statement session.Statement
		pages     int64 // at most
	}
	statements := []statement{
		{"get_by_token, 100 current tokens", session.LookupStatement(tenant, session.CurrentTokens, tokens...), 400},
		{"get_by_token, 100 other tokens", session.LookupStatement(tenant, session.AnyTokens, tokens...), 1000},
		{"update of 100", session.UpdateStatement(tenant, openIDs...), 10_000},
		{"active_count", session.ActiveCountStatement(tenant, messages.SessionActiveCount{}), live},
		{"active_count, of a user", session.ActiveCountStatement(tenant, messages.SessionActiveCount{UserID: "u7"}), live / 100},
		{"active_count, of an agent", session.ActiveCountStatement(tenant, messages.SessionActiveCount{AgentID: "a3"}), live / 2},
		{"active_count, small tenant", session.ActiveCountStatement("small", messages.SessionActiveCount{}), 120},
		{"analytics, a day", session.AnalyticsStatement(tenant, 24), live},
		{"analytics, a day, small tenant", session.AnalyticsStatement("small", 24), 250},
		{"cleanup marks 1000", session.MarkStatement(nil), 40_000},
		{"cleanup marks 1000 of a tenant", session.MarkStatement(ptr(tenant)), 40_000},
		{"cleanup removes 1000", session.RemoveStatement(nil, 30), 30_000},
		{"cleanup removes 1000 of a tenant", session.RemoveStatement(ptr(tenant), 30), 30_000},
		{"cleanup finds none of a small tenant", session.RemoveStatement(ptr("small"), 30), 50},
		{"cleanup, dry run, small tenant", session.DryRunStatement("small", 1), 250},
	}
	for _, state := range []messages.SessionState{messages.SessionLive, messages.SessionExpired, messages.SessionDeleted, messages.SessionAll} {
		for _, of := range []struct {
			name, tenant string
			m            messages.SessionList
		}{
			{"", tenant, messages.SessionList{}},
			{", of a user", tenant, messages.SessionList{UserID: "u7"}},
			{", of an agent", tenant, messages.SessionList{AgentID: "a3"}},
			{", of a user and an agent", tenant, messages.SessionList{UserID: "u7", AgentID: "a3"}},
			{", small tenant", "small", messages.SessionList{}},
			{", tenant with deleted ones only", "retired", messages.SessionList{}},
			{", of a user with deleted ones only", "retired", messages.SessionList{UserID: "u7"}},
		} {
			of.m.State = state
			statements = append(statements, statement{"list " + string(state) + of.name, session.ListStatement(of.tenant, of.m), int64(450 + planSessions/500)})
		}
	}
	for _, s := range statements {
		p, took := f.explain(t, s.statement)
		indexes, whole := p.indexes()
		t.Logf("| %s | %d | %.2f | %v", s.name, p.Hit+p.Read, float64(took.Microseconds())/1000, indexes)
		if whole || int64(p.Hit+p.Read) > s.pages {
			t.Errorf("%s: %d pages of %d, at most %d; the whole table: %v", s.name, p.Hit+p.Read, table, s.pages, whole)
		}
	}
}

func ptr[T any](value T) *T { return &value }
