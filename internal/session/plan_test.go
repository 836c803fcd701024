package session_test

import (
	"encoding/json"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/session"
	"github.com/ai-cherry/morello/messages"
)

// plan is what EXPLAIN says of a node.
type plan struct {
	Node    string  `json:"Node Type"`
	Index   string  `json:"Index Name"`
	Rows    float64 `json:"Actual Rows"`
	Removed float64 `json:"Rows Removed by Filter"`
	Hit     int     `json:"Shared Hit Blocks"`
	Read    int     `json:"Shared Read Blocks"`
	Plans   []plan  `json:"Plans"`
}

// indexes returns the names of the indexes that are used, and whether the table is read as a whole.
func (p plan) indexes() (names []string, whole bool) {
	if p.Index != "" {
		names = []string{p.Index}
	}
	whole = p.Node == "Seq Scan"
	for _, below := range p.Plans {
		n, w := below.indexes()
		names, whole = append(names, n...), whole || w
	}
	slices.Sort(names)
	return slices.Compact(names), whole
}

func (f fixture) explain(t *testing.T, sql string, args ...any) (plan, time.Duration) {
	t.Helper()
	var text []byte
	require.NoError(t, f.db.QueryRow(t.Context(), `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) `+sql, args...).Scan(&text))
	var top []struct {
		Plan plan
		Time float64 `json:"Execution Time"`
	}
	require.NoError(t, json.Unmarshal(text, &top))
	return top[0].Plan, time.Duration(math.Round(top[0].Time*1000)) * time.Microsecond
}

// TestPlans: of 60 000 sessions, 90 % of them dead, what is about live ones reads the live ones.
func TestPlans(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const sessions = 60_000
	f.fill(t, sessions, `now() - interval '20 days'`)
	f.exec(t, `UPDATE morello.session SET ended_at = expires_at`)
	f.fill(t, sessions/10, `now()`)
	f.exec(t, `VACUUM ANALYZE morello.session`)
	all, id := pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}, "ffffffff-ffff-ffff-ffff-ffffffffffff"
	list := func(user, agent string) []any {
		return []any{tenant, user, agent, pgtype.Timestamptz{}, all, id, 101, messages.MaxPageBytes}
	}
	table := f.count(t, `SELECT pg_relation_size('morello.session') / 8192`)
	for _, c := range []struct {
		name    string
		sql     string
		args    []any
		indexes []string
		pages   int64 // at most
	}{
		{"list", session.ListSQL(messages.SessionList{}), list("", ""), []string{"session_updated"}, 200},
		{"list of a user", session.ListSQL(messages.SessionList{UserID: "u7"}), list("u7", ""), []string{"session_of_user"}, 50},
		{"list of an agent", session.ListSQL(messages.SessionList{AgentID: "a3"}), list("", "a3"), []string{"session_of_agent"}, 200},
		{"list of all", session.ListSQL(messages.SessionList{State: messages.SessionAll}), list("", ""), []string{"session_ended", "session_updated"}, 400},
		{"count of a user", session.ActiveCountOf("u7", ""), []any{tenant, "u7", ""}, []string{"session_of_user"}, 50},
		{"count", session.ActiveCountSQL, []any{tenant, "", ""}, nil, table / 5},
		{"analytics of a day", session.AnalyticsSQL, []any{tenant, 24, 10}, []string{"session_created_at"}, table / 5},
	} {
		p, took := f.explain(t, c.sql, c.args...)
		indexes, whole := p.indexes()
		t.Logf("%s: %v in %s, %d pages of %d", c.name, indexes, took, p.Hit+p.Read, table)
		require.False(t, whole, "%s reads the whole table", c.name)
		if c.indexes != nil {
			require.Equal(t, c.indexes, indexes, c.name)
		}
		require.LessOrEqual(t, int64(p.Hit+p.Read), c.pages, c.name)
	}
}
