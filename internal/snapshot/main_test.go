package snapshot_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/internal/snapshot"
	"github.com/ai-cherry/morello/messages"
)

func TestMain(m *testing.M) { devtest.Main(m, migrate) }

func migrate(ctx context.Context, databaseURL string) error {
	return postgres.MigrateUp(ctx, databaseURL, slog.New(slog.DiscardHandler))
}

const tenant = "acme"

// fixture is a service on a database of its own, with a connection for looking behind it.
type fixture struct {
	ctx context.Context //nolint:containedctx // for property tests, whose t has none
	*snapshot.Service
	url  string
	pool *postgres.Pool
	db   *pgx.Conn
}

func newFixture(t testing.TB) fixture {
	t.Helper()
	return newFixtureOn(t, devtest.Database(t))
}

func newFixtureOn(t testing.TB, url string) fixture {
	t.Helper()
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: url, Program: "test", Instance: "one", Ceiling: 12, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	inserter, err := jobs.NewInserter(slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	service := snapshot.New(pool, snapshot.Config{InsertJob: inserter.Insert})
	f := fixture{t.Context(), service, url, pool, nil}
	f.db = f.connect(t)
	return f
}

// connect returns a connection beside f.db.
func (f fixture) connect(t testing.TB) *pgx.Conn {
	t.Helper()
	db, err := pgx.Connect(t.Context(), f.url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close(context.Background()) })
	return db
}

// another returns a service that knows nothing yet.
func (f fixture) another() *snapshot.Service { return snapshot.New(f.pool, snapshot.Config{}) }

// create stores a state of an agent.
func (f fixture) create(t testing.TB, agent, data string) messages.Snapshot {
	t.Helper()
	return f.createBy(t, messages.SnapshotCreate{AgentID: agent, Data: jsontext.Value(data)})
}

func (f fixture) createBy(t testing.TB, m messages.SnapshotCreate) messages.Snapshot {
	t.Helper()
	require.NoError(t, m.Validate())
	reply, err := f.Create(t.Context(), tenant, m)
	require.NoError(t, err)
	return reply.Snapshot
}

func (f fixture) data(t testing.TB, id string) string {
	t.Helper()
	reply, err := f.Get(t.Context(), tenant, messages.SnapshotGet{SnapshotID: id})
	require.NoError(t, err)
	return string(reply.Data)
}

func (f fixture) latest(t testing.TB, agent string) messages.SnapshotDataReply {
	t.Helper()
	reply, err := f.Latest(t.Context(), tenant, messages.SnapshotLatest{AgentID: agent})
	require.NoError(t, err)
	return reply
}

func (f fixture) count(t testing.TB, sql string, args ...any) int64 {
	t.Helper()
	var n int64
	require.NoError(t, f.db.QueryRow(t.Context(), sql, args...).Scan(&n))
	return n
}

func (f fixture) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	_, err := f.db.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

func failure(t testing.TB, err error) *messages.Error {
	t.Helper()
	var known *messages.Error
	require.ErrorAs(t, err, &known)
	return known
}

// rowBytes is what a row of chunks holds, but for what its text is filled with.
const rowBytes = `32 + coalesce(octet_length(nodes), 0) + coalesce(octet_length(leaves), 0) + coalesce(octet_length(body), 0)
	+ coalesce(octet_length(CASE WHEN encoding & 32 = 0 THEN text ELSE regexp_replace(text, E'\x1f *$', '') END), 0)`

// conversation is a document that grows: messages of about a kilobyte, each of its own.
func conversation(turns int) string {
	var text strings.Builder
	text.WriteString(`{"system":"You are a helpful assistant.","messages":[`)
	for i := range turns {
		if i > 0 {
			text.WriteByte(',')
		}
		text.WriteString(message(i))
	}
	text.WriteString(`],"step":` + jsonNumber(turns) + `}`)
	return text.String()
}
