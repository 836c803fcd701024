package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/messages"
)

const (
	tenant   = "bench"
	manyKeys = 100
)

// benchCase is one way to answer the same question.
type benchCase struct {
	name  string
	start func(ctx context.Context, cfg Config, s *stack, p *progress) (*running, error)
}

// running is a case that is ready to be measured.
type running struct {
	operation         operation
	itemsPerOperation int
	stop              func()
}

// echoCase is what the others are held against.
const echoCase = "echo"

// The cases that need a Redis.
const (
	redisGetCase = "Redis GET"
	redisSetCase = "Redis SET"
)

// cases in the order of the table. What reads comes before what writes.
var cases = []benchCase{
	{echoCase, over(RoleEcho, (*stack).loadKeys, rawGet)},
	{"get, one statement each", over(RoleNaive, (*stack).loadKeys, rawGet)},
	{"get", over(RoleWorker, (*stack).loadKeys, rawGet)},
	{"get, Go client", overClient(messages.MaxBatchRequests, (*stack).loadKeys, clientGet)},
	{"get, Go client, one a message", overClient(1, (*stack).loadKeys, clientGet)},
	{"get_many of 100", over(RoleWorker, (*stack).loadKeys, rawGetMany)},
	{"direct prepared SELECT", startDirect},
	{"JetStream KV get", startKV(kvGet)},
	{redisGetCase, startRedis(redisGet)},
	{"set, one statement each", over(RoleNaive, (*stack).loadKeys, rawSet)},
	{"set", over(RoleWorker, (*stack).loadKeys, rawSet)},
	{"set, Go client", overClient(messages.MaxBatchRequests, (*stack).loadKeys, clientSet)},
	{"JetStream KV put", startKV(kvPut)},
	{redisSetCase, startRedis(redisSet)},
}

// selectCases leaves out what was not asked for, and Redis if there is none.
func selectCases(cfg Config, cases []benchCase) ([]benchCase, error) {
	for _, name := range cfg.Only {
		if names := namesOf(cases); !slices.Contains(names, name) {
			return nil, fmt.Errorf("there is no case %q; there are: %s", name, strings.Join(names, ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(cases), func(c benchCase) bool {
		isRedis := c.name == redisGetCase || c.name == redisSetCase
		return isRedis && cfg.Redis == "" || len(cfg.Only) > 0 && !slices.Contains(cfg.Only, c.name)
	}), nil
}

// CaseNames lists the cases of Run, for help texts.
func CaseNames() []string { return namesOf(cases) }

func namesOf(cases []benchCase) []string {
	var names []string
	for _, c := range cases {
		names = append(names, c.name)
	}
	return names
}

func keyName(n uint64) string { return "key-" + strconv.FormatUint(n, 10) }

// preparation makes what a case works on. What other cases have made already it leaves.
type preparation func(s *stack, ctx context.Context, cfg Config, p *progress) error

// over measures requests that a role answers, on what was prepared.
func over(
	roleName string, prepare preparation, newOperation func(cfg Config, s *stack) (operation, int),
) func(context.Context, Config, *stack, *progress) (*running, error) {
	return func(ctx context.Context, cfg Config, s *stack, p *progress) (*running, error) {
		if err := prepare(s, ctx, cfg, p); err != nil {
			return nil, err
		}
		r, err := s.startRole(ctx, roleName)
		if err != nil {
			return nil, err
		}
		operation, items := newOperation(cfg, s)
		return &running{operation, items, func() { s.stopRole(r) }}, nil
	}
}

// loadKeys fills the cache through a worker, if that has not been done.
func (s *stack) loadKeys(ctx context.Context, cfg Config, p *progress) error {
	if s.loaded {
		return nil
	}
	r, err := s.startRole(ctx, RoleWorker)
	if err != nil {
		return err
	}
	defer s.stopRole(r)
	ttl := messages.MaxTTL.Seconds()
	for first := 0; first < cfg.Keys; first += messages.MaxBatchKeys {
		p.show("loading keys: %d of %d", first, cfg.Keys)
		request := messages.CacheSetMany{TTLSeconds: &ttl}
		for i := first; i < min(first+messages.MaxBatchKeys, cfg.Keys); i++ {
			request.Entries = append(request.Entries, messages.CacheSetEntry{Key: keyName(uint64(i)), Value: benchValue(cfg.ValueBytes)})
		}
		if _, err := bus.Call(ctx, s.conn, messages.CacheSetManyEndpoint, tenant, request); err != nil {
			return err
		}
	}
	s.loaded = true
	return s.vacuum(ctx)
}

// vacuum brings the table into the state that autovacuum keeps it in, so that no case pays for another.
func (s *stack) vacuum(ctx context.Context) error {
	return s.exec(ctx, `VACUUM ANALYZE morello.cache_entry`)
}

// exec runs a statement on the database that roles work on.
func (s *stack) exec(ctx context.Context, sql string, args ...any) (err error) {
	conn, err := pgx.Connect(ctx, s.databaseURL())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	_, err = conn.Exec(ctx, sql, args...)
	return err
}

// call calls for the bench's tenant, again when the machine stalled for longer than the deadline of the operation: that
// shows in the latencies, and ends no run. It sends no deadline of its own, as most callers do.
func (s *stack) call(ctx context.Context, endpoint messages.EndpointInfo, body []byte) ([]byte, error) {
	for {
		reply, err := s.conn.CallRaw(ctx, endpoint, tenant, body, bus.Headers{})
		if err == nil || messages.AsError(err).Code != messages.CodeDeadlineExceeded {
			return reply, err
		}
	}
}

func rawGet(cfg Config, s *stack) (operation, int) {
	endpoint := messages.CacheGetEndpoint.Info()
	return func(ctx context.Context, random uint64) error {
		body := []byte(`{"key":"` + keyName(random%uint64(cfg.Keys)) + `"}`)
		reply, err := s.call(ctx, endpoint, body)
		if err == nil && len(reply) < cfg.ValueBytes {
			return fmt.Errorf("a get answered %s", reply)
		}
		return err
	}, 1
}

func rawSet(cfg Config, s *stack) (operation, int) {
	endpoint := messages.CacheSetEndpoint.Info()
	value := string(benchValue(cfg.ValueBytes))
	return func(ctx context.Context, random uint64) error {
		body := []byte(`{"key":"` + keyName(random%uint64(cfg.Keys)) + `","value":` + value + `}`)
		_, err := s.call(ctx, endpoint, body)
		return err
	}, 1
}

func rawGetMany(cfg Config, s *stack) (operation, int) {
	endpoint := messages.CacheGetManyEndpoint.Info()
	return func(ctx context.Context, random uint64) error {
		request := messages.CacheGetMany{Keys: make([]string, manyKeys)}
		for i := range request.Keys {
			random = random*6364136223846793005 + 1442695040888963407 // Knuth's MMIX generator
			request.Keys[i] = keyName(random >> 16 % uint64(cfg.Keys))
		}
		body, err := messages.Encode(request)
		if err != nil {
			return err
		}
		reply, err := s.call(ctx, endpoint, body)
		if err == nil && len(reply) < manyKeys/2*cfg.ValueBytes {
			return fmt.Errorf("get_many answered %.200s", reply)
		}
		return err
	}, manyKeys
}

// directConns is the number of connections with which the direct SELECT was fastest on two cores (of 2, 4, 8, 16).
const directConns = 4

// startDirect reads without Morello: pgx's own pool and prepared statement, in the callers' process.
func startDirect(ctx context.Context, cfg Config, s *stack, p *progress) (*running, error) {
	if err := s.loadKeys(ctx, cfg, p); err != nil {
		return nil, err
	}
	pool, err := s.newPool(ctx, directConns)
	if err != nil {
		return nil, err
	}
	const sql = `SELECT value, version, expires_at FROM morello.cache_entry WHERE tenant = $1 AND key = $2 AND expires_at > now()`
	get := func(ctx context.Context, random uint64) error {
		var entry messages.CacheEntry
		return pool.QueryRow(ctx, sql, tenant, keyName(random%uint64(cfg.Keys))).Scan((*[]byte)(&entry.Value), &entry.Version, &entry.ExpiresAt)
	}
	return &running{get, 1, pool.Close}, nil
}

// newPool returns a pool of pgx's own, as those have it who do without Morello.
func (s *stack) newPool(ctx context.Context, conns int) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(s.databaseURL())
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = int32(conns)
	return pgxpool.NewWithConfig(ctx, cfg)
}
