package session_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/internal/session"
	"github.com/ai-cherry/morello/messages"
)

func TestMain(m *testing.M) { devtest.Main(m, migrate) }

func migrate(ctx context.Context, databaseURL string) error {
	return postgres.MigrateUp(ctx, databaseURL, slog.New(slog.DiscardHandler))
}

// fixture is a service on a database of its own, with a connection for looking behind it.
type fixture struct {
	*session.Service
	url string
	db  *pgx.Conn
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	return newFixtureOn(t, devtest.Database(t))
}

func newFixtureOn(t *testing.T, url string) fixture {
	t.Helper()
	return fixture{newService(t, url, session.Config{}), url, connect(t, url)}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	db, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close(context.Background()) }) // its server may be gone
	return db
}

func newService(t *testing.T, url string, cfg session.Config) *session.Service {
	t.Helper()
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: url, Program: "test", Instance: "one", Ceiling: 8, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	service := session.New(pool, cfg)
	t.Cleanup(sync.OnceFunc(func() {
		service.Close()
		pool.Close()
	}))
	return service
}

const tenant = "acme"

// create stores a session that is valid.
func (f fixture) create(t *testing.T, m messages.SessionCreate) messages.SessionCreateReply {
	t.Helper()
	require.NoError(t, m.Validate())
	reply, err := f.Create(t.Context(), tenant, m)
	require.NoError(t, err)
	return reply
}

func (f fixture) get(t *testing.T, id string) messages.Session {
	t.Helper()
	reply, err := f.Get(t.Context(), tenant, messages.SessionGet{SessionID: id})
	require.NoError(t, err)
	return reply.Session
}

// open looks a token up.
func (f fixture) open(t *testing.T, token string) (messages.Session, error) {
	t.Helper()
	reply, err := f.GetByToken(t.Context(), tenant, messages.SessionGetByToken{Token: token})
	return reply.Session, err
}

func (f fixture) update(t *testing.T, m messages.SessionUpdate) messages.Session {
	t.Helper()
	require.NoError(t, m.Validate())
	reply, err := f.Update(t.Context(), tenant, m)
	require.NoError(t, err)
	return reply.Session
}

func (f fixture) rotate(t *testing.T, token string, grace float64) string {
	t.Helper()
	reply, err := f.Rotate(t.Context(), tenant, messages.SessionRotate{Token: token, GraceSeconds: &grace})
	require.NoError(t, err)
	return reply.Token
}

// age moves a session, or all, into the past, as if so much time had passed.
func (f fixture) age(t *testing.T, id string, by time.Duration) {
	t.Helper()
	const sessions = `
		UPDATE morello.session SET created_at = created_at - $2::interval, updated_at = updated_at - $2::interval, last_seen_at = last_seen_at - $2::interval,
			expires_at = expires_at - $2::interval, absolute_expires_at = absolute_expires_at - $2::interval, sweep_after = sweep_after - $2::interval, ended_at = ended_at - $2::interval
		WHERE $1 = '' OR session_id = nullif($1, '')::uuid`
	const tokens = `UPDATE morello.session_token SET valid_until = valid_until - $2::interval WHERE $1 = '' OR session_id = nullif($1, '')::uuid`
	for _, sql := range []string{sessions, tokens} {
		_, err := f.db.Exec(t.Context(), sql, id, by)
		require.NoError(t, err)
	}
}

func (f fixture) count(t *testing.T, sql string, args ...any) int64 {
	t.Helper()
	var n int64
	require.NoError(t, f.db.QueryRow(t.Context(), sql, args...).Scan(&n))
	return n
}

func (f fixture) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := f.db.Exec(t.Context(), sql, args...)
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

// requireGone wants the one answer about what is not live.
func requireGone(t *testing.T, err error) {
	t.Helper()
	require.Equal(t, messages.SessionNotFound(), failure(t, err))
}
