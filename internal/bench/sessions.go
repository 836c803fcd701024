package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alexedwards/scs/pgxstore"
	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/messages"
)

const (
	// loginCallers begin the sessions that the others use.
	loginCallers = 64
	// sessionBase is what the others are held against.
	sessionBase = "cache.get"
	hotCase     = "hot touches"
)

// SessionsConfig of RunSessions. Keys is the number of sessions, ValueBytes the size of their data.
type SessionsConfig struct {
	Config
	// StoreConns are the numbers of connections to measure pgxstore with.
	StoreConns []int
	// HotSessions are in use all the time, in an open loop of HotRate look-ups a second for HotDuration. A touch is due a
	// minute after the one before.
	HotSessions int
	HotRate     float64
	HotDuration time.Duration
}

// cases in the order of the table. What reads comes before what writes; the open loop is measured by itself.
func (c SessionsConfig) cases() []benchCase {
	reads := []benchCase{
		{sessionBase, over(RoleWorker, (*stack).loadKeys, rawGet)},
		{"session.get_by_token", over(RoleWorker, (*stack).readySessions, rawGetByToken)},
		{"session.get_by_token, Go client", overClient(messages.MaxBatchRequests, (*stack).readySessions, clientGetByToken)},
	}
	writes := []benchCase{{"session.update", over(RoleWorker, (*stack).readySessions, rawUpdate)}}
	for _, conns := range c.StoreConns {
		reads = append(reads, benchCase{fmt.Sprintf("pgxstore Find, %d connections", conns), startStore(conns, storeFind)})
		writes = append(writes, benchCase{fmt.Sprintf("pgxstore Commit, %d connections", conns), startStore(conns, storeCommit)})
	}
	reads = append(reads, benchCase{redisGetCase, startRedis(redisGet)})
	writes = append(writes, benchCase{redisSetCase, startRedis(redisSet)}, benchCase{hotCase, nil})
	return append(reads, writes...)
}

// DefaultStoreConns are few connections, with which pgxstore finds at the least cost, and many, with which it commits most, as the
// disk writes the commits of all of them at once.
var DefaultStoreConns = []int{4, 16}

// SessionCaseNames lists the cases of RunSessions, for help texts.
func SessionCaseNames() []string {
	return namesOf(SessionsConfig{StoreConns: DefaultStoreConns}.cases())
}

// RunSessions measures sessions beside the session store of SCS on the same PostgreSQL, and beside Redis; and how many rows are
// written for the touches of sessions that are in use all the time.
func RunSessions(ctx context.Context, cfg SessionsConfig) error {
	cfg.setDefaults()
	cases, err := selectCases(cfg.Config, cfg.cases())
	if err != nil {
		return err
	}
	return withStack(ctx, cfg.Config, func(s *stack, p *progress) error {
		closed := slices.DeleteFunc(slices.Clone(cases), func(c benchCase) bool { return c.start == nil })
		results, err := measureCases(ctx, cfg.Config, s, p, closed)
		if err != nil {
			return err
		}
		if len(closed) < len(cases) {
			touched, err := measureTouches(ctx, cfg, s, p)
			if err != nil {
				return fmt.Errorf("%s: %w", hotCase, err)
			}
			results = append(results, touched)
		}
		return write(cfg.Config, p, results, sessionBase)
	})
}

// benchObject returns a JSON object of so many bytes, as session data are.
func benchObject(size int) string {
	return `{"data":` + string(benchValue(size-len(`{"data":}`))) + `}`
}

// login is a session as its user knows it.
type login struct{ id, token string }

// logIn begins the sessions through a worker, if that has not been done.
func (s *stack) logIn(ctx context.Context, cfg Config, p *progress) error {
	if s.logins != nil {
		return nil
	}
	r, err := s.startRole(ctx, RoleWorker)
	if err != nil {
		return err
	}
	defer s.stopRole(r)
	request := messages.SessionCreate{Data: []byte(benchObject(cfg.ValueBytes))}
	logins := make([]login, cfg.Keys)
	errs := make([]error, loginCallers)
	var next atomic.Int64
	var crowd sync.WaitGroup
	for caller := range loginCallers {
		crowd.Go(func() {
			for errs[caller] == nil && ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(logins) {
					return
				}
				if i%1000 == 0 {
					p.show("logging in: %d of %d", i, len(logins))
				}
				mine := request
				mine.UserID, mine.AgentID = fmt.Sprintf("user-%d", i/3), fmt.Sprintf("agent-%d", i%100)
				reply, err := bus.Call(ctx, s.conn, messages.SessionCreateEndpoint, tenant, mine)
				logins[i], errs[caller] = login{reply.Session.SessionID, reply.Token}, err
			}
		})
	}
	crowd.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.logins = logins
	return s.touchAll(ctx, time.Hour)
}

// touchAll has all sessions seen so long after this moment. Ahead of the measurements no touch becomes due during them.
func (s *stack) touchAll(ctx context.Context, ahead time.Duration) error {
	return s.exec(ctx, `UPDATE morello.session SET last_seen_at = now() + $1::interval`, ahead)
}

// readySessions begins the sessions, on tables as autovacuum keeps them.
func (s *stack) readySessions(ctx context.Context, cfg Config, p *progress) error {
	if err := s.logIn(ctx, cfg, p); err != nil {
		return err
	}
	return s.exec(ctx, `VACUUM ANALYZE morello.session, morello.session_token`)
}

func rawGetByToken(cfg Config, s *stack) (operation, int) {
	endpoint := messages.SessionGetByTokenEndpoint.Info()
	return func(ctx context.Context, random uint64) error {
		reply, err := s.call(ctx, endpoint, []byte(`{"token":"`+s.logins[random%uint64(len(s.logins))].token+`"}`))
		if err == nil && len(reply) < cfg.ValueBytes {
			return fmt.Errorf("a look-up answered %s", reply)
		}
		return err
	}, 1
}

// rawUpdate replaces the data, as a commit does.
func rawUpdate(cfg Config, s *stack) (operation, int) {
	endpoint := messages.SessionUpdateEndpoint.Info()
	data := benchObject(cfg.ValueBytes)
	return func(ctx context.Context, random uint64) error {
		id := s.logins[random%uint64(len(s.logins))].id
		_, err := s.call(ctx, endpoint, []byte(`{"session_id":"`+id+`","merge":"replace","data":`+data+`}`))
		return err
	}, 1
}

// storeTable is what the documentation of pgxstore says, and as many sessions as ours.
const storeTable = `
	CREATE TABLE sessions (token text PRIMARY KEY, data bytea NOT NULL, expiry timestamptz NOT NULL);
	CREATE INDEX sessions_expiry_idx ON sessions (expiry)`

// startStore measures the session store of SCS: pgx's own pool and prepared statements, in the callers' process.
func startStore(
	conns int, newOperation func(cfg Config, s *stack, store *pgxstore.PostgresStore) operation,
) func(context.Context, Config, *stack, *progress) (*running, error) {
	return func(ctx context.Context, cfg Config, s *stack, p *progress) (*running, error) {
		if err := s.logIn(ctx, cfg, p); err != nil {
			return nil, err
		}
		if err := s.fillStore(ctx, cfg, p); err != nil {
			return nil, err
		}
		pool, err := s.newPool(ctx, conns)
		if err != nil {
			return nil, err
		}
		store := pgxstore.NewWithCleanupInterval(pool, 0)
		return &running{newOperation(cfg, s, store), 1, pool.Close}, nil
	}
}

// fillStore stores our sessions under their tokens, if that has not been done, and vacuums the table.
func (s *stack) fillStore(ctx context.Context, cfg Config, p *progress) error {
	if !s.storeFilled {
		p.show("filling pgxstore")
		if err := s.exec(ctx, storeTable); err != nil {
			return err
		}
		tokens := make([]string, len(s.logins))
		for i, l := range s.logins {
			tokens[i] = l.token
		}
		const sql = `INSERT INTO sessions SELECT token, $2::bytea, now() + interval '1 day' FROM unnest($1::text[]) AS t (token)`
		if err := s.exec(ctx, sql, tokens, []byte(benchObject(cfg.ValueBytes))); err != nil {
			return err
		}
		s.storeFilled = true
	}
	return s.exec(ctx, `VACUUM ANALYZE sessions`)
}

func storeFind(cfg Config, s *stack, store *pgxstore.PostgresStore) operation {
	return func(_ context.Context, random uint64) error {
		data, found, err := store.Find(s.logins[random%uint64(len(s.logins))].token)
		if err == nil && (!found || len(data) < cfg.ValueBytes) {
			return fmt.Errorf("a look-up found %q", data)
		}
		return err
	}
}

func storeCommit(cfg Config, s *stack, store *pgxstore.PostgresStore) operation {
	data := []byte(benchObject(cfg.ValueBytes))
	return func(_ context.Context, random uint64) error {
		return store.Commit(s.logins[random%uint64(len(s.logins))].token, data, time.Now().Add(24*time.Hour))
	}
}

// measureTouches looks a few sessions up all the time, and counts how often a row is written for that.
func measureTouches(ctx context.Context, cfg SessionsConfig, s *stack, p *progress) (Result, error) {
	if err := s.logIn(ctx, cfg.Config, p); err != nil {
		return Result{}, err
	}
	if err := s.touchAll(ctx, 0); err != nil {
		return Result{}, err
	}
	before, err := s.rowWrites(ctx)
	if err != nil {
		return Result{}, err
	}
	r, err := s.startRole(ctx, RoleWorker)
	if err != nil {
		return Result{}, err
	}
	stop := sync.OnceFunc(func() { s.stopRole(r) })
	defer stop()
	p.show("%s: %.0f look-ups a second of %d sessions, for %s", hotCase, cfg.HotRate, cfg.HotSessions, cfg.HotDuration)
	lookUp, _ := rawGetByToken(cfg.Config, s)
	hot := uint64(min(cfg.HotSessions, len(s.logins)))
	cpu := s.cpu()
	m, err := pace(ctx, cfg.HotRate, cfg.HotDuration, func(ctx context.Context, random uint64) error { return lookUp(ctx, random%hot) })
	if err != nil {
		return Result{}, err
	}
	m.cpu = s.cpu().since(cpu)
	stop() // connections tell what they have counted when they end
	after, err := s.rowWrites(ctx)
	result := m.result(hotCase, pacedCallers)
	perMinute := float64(after-before) / m.took.Minutes()
	result.RowWrites = &perMinute
	return result, err
}

// rowWrites returns how many updates of sessions PostgreSQL has counted, when the connections that made them are gone.
func (s *stack) rowWrites(ctx context.Context) (writes int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.databaseURL())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	const others = `SELECT count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()`
	for left := 1; left > 0; {
		if err := conn.QueryRow(ctx, others).Scan(&left); err != nil {
			return 0, err
		}
	}
	err = conn.QueryRow(ctx, `SELECT n_tup_upd FROM pg_stat_user_tables WHERE relid = 'morello.session'::regclass`).Scan(&writes)
	return writes, err
}
