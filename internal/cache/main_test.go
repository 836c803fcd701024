package cache_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/cache"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

func TestMain(m *testing.M) { devtest.Main(m, migrate) }

func migrate(ctx context.Context, databaseURL string) error {
	return postgres.MigrateUp(ctx, databaseURL, slog.New(slog.DiscardHandler))
}

// fixture is a cache on a database of its own, with a connection for looking behind it.
type fixture struct {
	*cache.Service
	url string
	db  *pgx.Conn
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	return newFixtureOn(t, devtest.Database(t))
}

func newFixtureOn(t *testing.T, url string) fixture {
	t.Helper()
	db, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close(context.Background()) }) // its server may be gone
	return fixture{newService(t, url), url, db}
}

func newService(t *testing.T, url string) *cache.Service {
	t.Helper()
	service, _ := newServiceToClose(t, url)
	return service
}

// newServiceToClose returns a service that the test may close before its end.
func newServiceToClose(t *testing.T, url string) (service *cache.Service, closeIt func()) {
	t.Helper()
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: url, Program: "test", Instance: "one", Ceiling: 8})
	require.NoError(t, err)
	service = cache.New(pool, cache.Config{Log: slog.New(slog.DiscardHandler)})
	closeIt = sync.OnceFunc(func() {
		service.Close(context.Background())
		pool.Close()
	})
	t.Cleanup(closeIt)
	return service, closeIt
}

const tenant = "acme"

func (f fixture) set(t *testing.T, m messages.CacheSet) messages.CacheSetReply {
	t.Helper()
	if m.Value == nil {
		m.Value = []byte("1")
	}
	require.NoError(t, m.Validate())
	reply, err := f.Set(t.Context(), tenant, m)
	require.NoError(t, err)
	return reply
}

func (f fixture) get(t *testing.T, key string) messages.CacheGetReply {
	t.Helper()
	reply, err := f.Get(t.Context(), tenant, messages.CacheGet{Key: key})
	require.NoError(t, err)
	return reply
}

// expire makes the entry of a key, or of all keys, expired for as long as the interval says.
func (f fixture) expire(t *testing.T, key, interval string) {
	t.Helper()
	const sql = `
		UPDATE morello.cache_entry
		SET expires_at = now() - $2::interval, sweep_after = now() - $2::interval + interval '300 seconds'
		WHERE key = $1 OR $1 = ''`
	_, err := f.db.Exec(t.Context(), sql, key, interval)
	require.NoError(t, err)
}

// tags returns the rows of cache_tag as "tag key".
func (f fixture) tags(t *testing.T) []string {
	t.Helper()
	rows, err := f.db.Query(t.Context(), `SELECT tag || ' ' || key FROM morello.cache_tag ORDER BY tag, key`)
	require.NoError(t, err)
	tags, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return tags
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

func ptr[T any](v T) *T { return &v }
