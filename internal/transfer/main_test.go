package transfer_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/internal/transfer"
	"github.com/ai-cherry/morello/messages"
)

func TestMain(m *testing.M) { devtest.Main(m, migrate) }

func migrate(ctx context.Context, databaseURL string) error {
	return postgres.MigrateUp(ctx, databaseURL, slog.New(slog.DiscardHandler))
}

const tenant = "acme"

// fixture is a service on a database of its own, with a connection for looking behind it.
type fixture struct {
	*transfer.Service
	url  string
	pool *postgres.Pool
	db   *pgx.Conn
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	return newFixtureOn(t, devtest.Database(t))
}

func newFixtureOn(t *testing.T, url string) fixture {
	t.Helper()
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: url, Program: "test", Instance: "one", Ceiling: 16, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return fixture{transfer.New(pool), url, pool, connect(t, url)}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	db, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close(context.Background()) }) // its server may be gone
	return db
}

func newID() string { return uuid.NewString() }

// put stores a part that is valid.
func (f fixture) put(t *testing.T, id string, part int, data []byte) {
	t.Helper()
	m := messages.TransferPut{TransferID: id, Part: part, Data: data}
	require.NoError(t, m.Validate())
	reply, err := f.Put(t.Context(), tenant, m)
	require.NoError(t, err)
	require.Equal(t, len(data), reply.ReceivedBytes)
}

// get returns a part and how many there are.
func (f fixture) get(t *testing.T, id string, part int) (data []byte, parts int) {
	t.Helper()
	reply, err := f.Get(t.Context(), tenant, messages.TransferGet{TransferID: id, Part: part})
	require.NoError(t, err)
	return reply.Data, reply.Parts
}

// usage returns what is counted for a tenant, after comparing it with what the tenant's parts are.
func (f fixture) usage(t *testing.T, tenant string) (bytes int64) {
	t.Helper()
	var counted int64
	require.NoError(t, f.db.QueryRow(t.Context(), `
		SELECT coalesce((SELECT bytes FROM morello.transfer_usage WHERE tenant = $1), 0),
			(SELECT coalesce(sum(greatest(octet_length(data), 4096)), 0) FROM morello.transfer_part WHERE tenant = $1)`, tenant).Scan(&bytes, &counted))
	require.Equal(t, counted, bytes, "the count is what the parts are")
	return bytes
}

// age moves all parts into the past, as if so much time had passed.
func (f fixture) age(t *testing.T, by time.Duration) {
	t.Helper()
	_, err := f.db.Exec(t.Context(), `UPDATE morello.transfer_part SET expires_at = expires_at - $1::interval`, by)
	require.NoError(t, err)
}

func keyed(ctx context.Context, key string, fingerprint byte) context.Context {
	return messages.WithCall(ctx, &messages.Call{IdempotencyKey: key, Fingerprint: [32]byte{fingerprint}})
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
