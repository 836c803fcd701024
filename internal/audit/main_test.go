package audit_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/audit"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

func TestMain(m *testing.M) {
	devtest.Main(m, func(ctx context.Context, databaseURL string) error {
		return postgres.MigrateUp(ctx, databaseURL, slog.New(slog.DiscardHandler))
	})
}

// fixture is the trail on a database of its own, with a connection for looking behind it.
type fixture struct {
	*audit.Service
	url  string
	pool *postgres.Pool
	db   *pgx.Conn
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	url := devtest.Database(t)
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: url, Program: "test", Instance: "one", Ceiling: 8})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	db, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close(context.Background())) })
	return fixture{audit.New(pool), url, pool, db}
}

const tenant = "acme"

// entry is what tests log: what they do not care about is filled in.
func entry(change func(*messages.AuditLog)) messages.AuditLog {
	m := messages.AuditLog{EventType: "document.read", Actor: "ada", ResourceType: "document", ResourceID: "42"}
	if change != nil {
		change(&m)
	}
	return m
}

func (f fixture) log(t *testing.T, m messages.AuditLog) messages.AuditEntry {
	t.Helper()
	require.NoError(t, m.Validate())
	reply, err := f.Log(t.Context(), tenant, m)
	require.NoError(t, err)
	return reply.Entry
}

func (f fixture) query(t *testing.T, m messages.AuditQuery) messages.AuditQueryReply {
	t.Helper()
	require.NoError(t, m.Validate())
	reply, err := f.Query(t.Context(), tenant, m)
	require.NoError(t, err)
	return reply
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

func failure(t *testing.T, err error) *messages.Error {
	t.Helper()
	var known *messages.Error
	require.ErrorAs(t, err, &known)
	return known
}
