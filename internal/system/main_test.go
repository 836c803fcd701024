package system_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/internal/system"
	"github.com/ai-cherry/morello/messages"
)

func TestMain(m *testing.M) {
	devtest.Main(m, func(ctx context.Context, databaseURL string) error {
		return postgres.MigrateUp(ctx, databaseURL, slog.New(slog.DiscardHandler))
	})
}

// fixture is the service on a database of its own, with a connection for looking behind it.
type fixture struct {
	*system.Service
	pool     *postgres.Pool
	inserter *jobs.Inserter
	db       *pgx.Conn
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	url := devtest.Database(t)
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: url, Program: "test", Instance: "one", Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	db, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close(context.Background())) })
	inserter, err := jobs.NewInserter(slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return fixture{system.New(pool, system.Config{Audit: insertEntries, Jobs: inserter}), pool, inserter, db}
}

// insertEntries does what the audit trail's own function does.
func insertEntries(source string) string {
	return `INSERT INTO morello.audit_entry (tenant, event_type, actor, resource_type, resource_id, details)
		SELECT tenant, event_type, actor, resource_type, resource_id, details FROM ` + source
}

// args are those of a tenant's job, or of the operator's when the tenant is empty.
type args struct {
	Tenant string `json:"tenant,omitempty"`
	kind   string
}

func (a args) Kind() string { return a.kind }

func (f fixture) insert(t *testing.T, a args) (jobID int64) {
	t.Helper()
	jobID, err := postgres.InTx(t.Context(), f.pool, "", func(ctx context.Context, db postgres.Querier) (int64, error) {
		return f.inserter.Insert(ctx, db, a)
	})
	require.NoError(t, err)
	return jobID
}

// set puts a job into a state.
func (f fixture) set(t *testing.T, jobID int64, state messages.JobState) {
	t.Helper()
	_, err := f.db.Exec(t.Context(), `
		UPDATE river.river_job SET state = $2::text::river.river_job_state, attempt = 1, attempted_at = now(),
			finalized_at = CASE WHEN $2 IN ('completed', 'cancelled', 'discarded') THEN now() END
		WHERE id = $1`, jobID, string(state))
	require.NoError(t, err)
}

func (f fixture) get(t *testing.T, tenant string, jobID int64) messages.Job {
	t.Helper()
	reply, err := f.JobGet(t.Context(), tenant, messages.SystemJobGet{JobRef: messages.JobRef{JobID: jobID}})
	require.NoError(t, err)
	return reply.Job
}

// trail returns the entries of the audit trail in their order, as texts.
func (f fixture) trail(t *testing.T) []string {
	t.Helper()
	rows, err := f.db.Query(t.Context(), `
		SELECT concat_ws(' ', tenant, event_type, nullif(actor, ''), resource_type, resource_id, details)
		FROM morello.audit_entry ORDER BY created_at`)
	require.NoError(t, err)
	entries, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return entries
}

// requireFailure requires an error of a code about a field.
func requireFailure(t *testing.T, code messages.Code, field string, err error) {
	t.Helper()
	var known *messages.Error
	require.ErrorAs(t, err, &known)
	require.Equal(t, code, known.Code, err)
	require.Equal(t, field, known.Details.Field, err)
}
