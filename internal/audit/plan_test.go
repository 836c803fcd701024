package audit_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/audit"
	"github.com/ai-cherry/morello/internal/postgres"
)

// TestQueriesUseIndexes: a query reads no partition from end to end, whatever its filter, and none outside of its bounds.
func TestQueriesUseIndexes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	last := f.attach(t, -1)
	f.exec(t, `INSERT INTO morello.audit_entry (tenant, created_at, event_type, actor, resource_type, resource_id, ip_address, user_agent, details)
		SELECT CASE WHEN n % 11 = 0 THEN 'acme' ELSE 'large' END, date_trunc('month', now(), 'UTC') - make_interval(secs => n - 8000),
			'type-' || n % 50, 'actor-' || n % 500, 'kind-' || n % 20, 'id-' || n,
			CASE WHEN n % 30 = 0 THEN '192.0.2.' || n % 200 END, CASE WHEN n % 30 = 0 THEN 'agent/' || n % 200 END,
			jsonb_build_object('name', 'name-' || n % 1000, 'version', n % 2, 'by', jsonb_build_object('id', n))
		FROM generate_series(1, $1) AS n`, rows)
	f.exec(t, `ANALYZE morello.audit_entry`)
	at, minus := pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}, pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true}
	none := [6]string{}
	with := func(i int, value string) [6]string { filters := none; filters[i] = value; return filters }
	explainDetails := func(details any, filters [6]string, after, before, at pgtype.Timestamptz) string {
		args := []any{postgres.PlanEachTime, tenant, 100}
		for _, filter := range filters {
			args = append(args, filter)
		}
		rows, err := f.db.Query(t.Context(), `EXPLAIN `+audit.QuerySQL, append(args, after, before, at, uuid.Max, details)...)
		require.NoError(t, err)
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		return strings.Join(lines, "\n")
	}
	explain := func(filters [6]string, after, before, at pgtype.Timestamptz) string {
		return explainDetails(nil, filters, after, before, at)
	}
	present := "audit_entry_" + f.month(t, 0)
	for index, filters := range map[string][6]string{
		present + "_pkey":                  none,
		present + "_tenant_event_type_":    with(0, "type-7"),
		present + "_tenant_actor_":         with(1, "actor-7"),
		present + "_tenant_resource_type_": with(2, "kind-7"),
		present + "_tenant_resource_id_":   with(3, "id-11"),
		present + "_tenant_ip_address_":    with(4, "192.0.2.30"),
		present + "_tenant_user_agent_":    with(5, "agent/30"),
	} {
		plan := explain(filters, minus, at, at)
		require.Contains(t, plan, index, plan)
		require.NotContains(t, plan, "Seq Scan on "+present, plan)
		require.NotContains(t, plan, "Seq Scan on audit_entry_"+last, plan)
	}
	ago := pgtype.Timestamptz{Time: time.Now().AddDate(0, 0, -45), Valid: true}
	for name, plan := range map[string]string{"before": explain(none, minus, ago, at), "the place of the page": explain(none, minus, at, ago)} {
		require.NotContains(t, plan, present, name)
	}
	for details, index := range map[string]string{
		`{"name":"name-7"}`: "_jsonb_set_idx", `{"by":{"id":77}}`: "_jsonb_set_idx", `{"version":1,"name":"name-7"}`: "_jsonb_set_idx",
		`{"by":{}}`: "_tenant_", // of which the index of details knows nothing
	} {
		plan := explainDetails(details, none, minus, at, at)
		require.Contains(t, plan, present+index, plan)
		require.NotContains(t, plan, "Seq Scan on "+present, plan)
		require.NotContains(t, explainDetails(details, none, minus, ago, at), present)
	}
	plan := explainDetails(`{"version":1}`, with(3, "id-11"), minus, at, at)
	require.Contains(t, plan, present+"_tenant_resource_id_", "the filter that leaves the fewest\n"+plan)
	require.NotContains(t, explain(none, pgtype.Timestamptz{Time: time.Now(), Valid: true}, at, at), "audit_entry_"+last)
}

const rows = 20_000
