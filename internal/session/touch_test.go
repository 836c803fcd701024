package session_test

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/internal/session"
	"github.com/ai-cherry/morello/messages"
)

// updates reads what PostgreSQL counted of the table: updates, and those of them that were HOT. Backends that are still
// connected may hold some back.
func updates(t *testing.T, db *pgx.Conn) (all, hot int64) {
	t.Helper()
	_, err := db.Exec(t.Context(), `SELECT pg_stat_force_next_flush()`)
	require.NoError(t, err)
	require.NoError(t, db.QueryRow(t.Context(),
		`SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = 'morello.session'::regclass`).Scan(&all, &hot))
	return all, hot
}

// TestHotSessions: 10 000 look-ups of 1 000 sessions, through two workers, write each session once, for a minute; and the
// writes are HOT.
func TestHotSessions(t *testing.T) {
	t.Parallel()
	const sessions, opens, rounds = 1000, 10_000, 3
	url := devtest.Server(t).URL("morello") // nobody else's snapshots keep dead rows from being pruned
	f := newFixtureOn(t, url)
	tokens := make([]string, sessions)
	var next atomic.Int64
	crowd := func(workers int, do func(i int64)) {
		var all sync.WaitGroup
		for range workers {
			all.Go(func() {
				for i := next.Add(1) - 1; i >= 0; i = next.Add(1) - 1 {
					do(i)
				}
			})
		}
		all.Wait()
	}
	next.Store(0)
	crowd(8, func(i int64) {
		if i >= sessions {
			next.Store(-1 << 40)
			return
		}
		reply, err := f.Create(t.Context(), tenant, messages.SessionCreate{UserID: "u", Data: []byte(`{"a":"` + tenant + `"}`)})
		if err != nil {
			t.Error(err)
		}
		tokens[i] = reply.Token
	})
	f.exec(t, `VACUUM ANALYZE morello.session`)
	var all, hot int64
	for range rounds {
		f.exec(t, `UPDATE morello.session SET last_seen_at = last_seen_at - interval '2 minutes'`)
		before, beforeHot := updates(t, f.db)
		var services []*session.Service
		var closers []func()
		for range 2 {
			pool, err := postgres.Open(t.Context(), postgres.Config{URL: url, Program: "test", Instance: "hot", Log: slog.New(slog.DiscardHandler)})
			require.NoError(t, err)
			s := session.New(pool, session.Config{})
			services = append(services, s)
			closers = append(closers, func() { s.Close(); pool.Close() })
		}
		next.Store(0)
		crowd(64, func(i int64) {
			if i >= opens {
				next.Store(-1 << 40)
				return
			}
			if _, err := services[i%2].GetByToken(t.Context(), tenant, messages.SessionGetByToken{Token: tokens[(i*7)%sessions]}); err != nil {
				t.Error(err)
			}
		})
		for _, closeIt := range closers {
			closeIt()
		}
		require.Zero(t, f.count(t, `SELECT count(*) FROM morello.session WHERE last_seen_at < now() - interval '1 minute'`), "all are touched")
		require.Eventually(t, func() bool {
			return f.count(t, `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'morello/test/hot' AND datname = current_database()`) == 0
		}, 10*time.Second, 10*time.Millisecond)
		after, afterHot := updates(t, f.db)
		require.EqualValues(t, sessions, after-before, "one write for each session")
		all, hot = all+after-before, hot+afterHot-beforeHot
	}
	require.GreaterOrEqual(t, float64(hot)/float64(all), 0.9)
	t.Logf("%d touches written, %d HOT", all, hot)
}

// TestOneTouchOfMany: five workers find that a touch is due, and wait for the same lock. One of them writes.
func TestOneTouchOfMany(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.create(t, messages.SessionCreate{})
	id := s.Session.SessionID
	f.exec(t, `CREATE TABLE public.writes (at timestamptz)`)
	f.exec(t, `CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.writes VALUES (NEW.last_seen_at); RETURN NEW; END'`)
	touches := map[string]func(s *session.Service) error{
		"by token": func(service *session.Service) error {
			_, err := service.GetByToken(t.Context(), tenant, messages.SessionGetByToken{Token: s.Token})
			return err
		},
		"by id": func(service *session.Service) error {
			_, err := service.Touch(t.Context(), tenant, messages.SessionTouch{SessionID: id})
			return err
		},
	}
	services := []*session.Service{f.Service}
	for range 4 {
		services = append(services, newService(t, f.url, session.Config{}))
	}
	for name, touch := range touches {
		f.age(t, id, 2*time.Minute)
		f.exec(t, `TRUNCATE public.writes`)
		f.exec(t, `CREATE OR REPLACE TRIGGER note AFTER UPDATE ON morello.session FOR EACH ROW EXECUTE FUNCTION public.note()`)
		tx, err := f.db.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), `SELECT FROM morello.session WHERE session_id = $1 FOR UPDATE`, id)
		require.NoError(t, err)
		var crowd sync.WaitGroup
		for _, service := range services {
			crowd.Go(func() {
				if err := touch(service); err != nil {
					t.Error(err)
				}
			})
		}
		f.awaitLockWaiters(t, int64(len(services)))
		require.NoError(t, tx.Rollback(t.Context()))
		crowd.Wait()
		require.EqualValues(t, 1, f.count(t, `SELECT count(*) FROM public.writes`), name)
		f.exec(t, `DROP TRIGGER note ON morello.session`)
	}
}

// TestReadsWriteNothing: look-ups and touches that are not due write no WAL and take no transaction id.
func TestReadsWriteNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.create(t, messages.SessionCreate{})
	row := func() (where string) {
		require.NoError(t, f.db.QueryRow(t.Context(), `SELECT ctid::text || xmin || xmax FROM morello.session`).Scan(&where))
		return where
	}
	before := row()
	for range 20 {
		f.requireOpens(t, s.Token, s.Session.SessionID)
		_, err := f.Touch(t.Context(), tenant, messages.SessionTouch{SessionID: s.Session.SessionID})
		require.NoError(t, err)
	}
	require.Equal(t, before, row(), "neither written nor locked")
}

// TestEqualTokensShare: a crowd with one token, and one with garbage among them, is answered right.
func TestEqualTokensShare(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.create(t, messages.SessionCreate{Data: []byte(`{"a":1}`)})
	var crowd sync.WaitGroup
	for i := range 300 {
		crowd.Go(func() {
			token := s.Token
			if i%3 == 0 {
				token = s.Token[1:]
			}
			reply, err := f.GetByToken(context.WithoutCancel(t.Context()), tenant, messages.SessionGetByToken{Token: token})
			if i%3 == 0 && messages.AsError(err).Code != messages.CodeNotFound || i%3 != 0 && (err != nil || reply.Session.SessionID != s.Session.SessionID) {
				t.Error(i, reply, err)
			}
		})
	}
	crowd.Wait()
}
