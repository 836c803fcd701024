package registry_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/internal/registry"
	"github.com/ai-cherry/morello/messages"
)

func TestMain(m *testing.M) {
	devtest.Main(m, func(ctx context.Context, databaseURL string) error {
		return postgres.MigrateUp(ctx, databaseURL, slog.New(slog.DiscardHandler))
	})
}

var discard = slog.New(slog.DiscardHandler)

// fixture is the registry on a database of its own, with a connection for looking behind it.
type fixture struct {
	*registry.Service
	url  string
	pool *postgres.Pool
	db   *pgx.Conn
}

// newFixture changes the settings of the service if change is given.
func newFixture(t *testing.T, change ...func(cfg *registry.Config)) fixture {
	t.Helper()
	url := devtest.Database(t)
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: url, Program: "test", Instance: "one", Ceiling: 16})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	db, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close(context.Background())) })
	inserter, err := jobs.NewInserter(discard)
	require.NoError(t, err)
	cfg := registry.Config{Audit: insertEntries, InsertJob: inserter.Insert}
	for _, c := range change {
		c(&cfg)
	}
	return fixture{registry.New(pool, cfg), url, pool, db}
}

// insertEntries does what the audit trail's own function does.
func insertEntries(source string) string {
	return `INSERT INTO morello.audit_entry (tenant, event_type, actor, resource_type, resource_id, details)
		SELECT tenant, event_type, actor, resource_type, resource_id, details FROM ` + source
}

const tenant = "acme"

func (f fixture) createAgent(t *testing.T, m messages.AgentCreate) messages.Agent {
	t.Helper()
	require.NoError(t, m.Validate())
	reply, err := f.CreateAgent(t.Context(), tenant, m)
	require.NoError(t, err)
	return reply.Agent
}

func (f fixture) createWorkflow(t *testing.T, m messages.WorkflowCreate) messages.Workflow {
	t.Helper()
	if m.Definition == nil {
		m.Definition = []byte(`{}`)
	}
	require.NoError(t, m.Validate())
	reply, err := f.CreateWorkflow(t.Context(), tenant, m)
	require.NoError(t, err)
	return reply.Workflow
}

func (f fixture) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := f.db.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

func (f fixture) count(t *testing.T, sql string, args ...any) (n int) {
	t.Helper()
	require.NoError(t, f.db.QueryRow(t.Context(), sql, args...).Scan(&n))
	return n
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

func keyed(ctx context.Context, key string, fingerprint byte) context.Context {
	return messages.WithCall(ctx, &messages.Call{IdempotencyKey: key, Fingerprint: [32]byte{fingerprint}, Actor: "ada"})
}

func failure(t *testing.T, err error) *messages.Error {
	t.Helper()
	var known *messages.Error
	require.ErrorAs(t, err, &known)
	return known
}

// requireFailure requires an error of a code about a field.
func requireFailure(t *testing.T, code messages.Code, field string, err error) {
	t.Helper()
	require.Equal(t, code, failure(t, err).Code, err)
	require.Equal(t, field, failure(t, err).Details.Field, err)
}
