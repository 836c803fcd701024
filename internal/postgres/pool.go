package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ai-cherry/morello/messages"
)

const (
	defaultCeiling    = 16
	defaultBatchSlots = 6
	connectTimeout    = 5 * time.Second
	pingAfterIdle     = 30 * time.Second
	pingTimeout       = 2 * time.Second
	lifetime          = time.Hour
	lifetimeJitter    = 10 * time.Minute
	// cancelDelay passes before a query whose caller has gone is cancelled, because most end by themselves sooner;
	// cancelGrace passes before the connection of one that cannot be cancelled is given up.
	cancelDelay = 100 * time.Millisecond
	cancelGrace = 5 * time.Second
)

// Config says which database to use, as whom, and how much of it.
type Config struct {
	// URL is a connection string as libpq understands it.
	URL string
	// Program and Instance name the connections: morello/<program>/<instance>.
	Program  string
	Instance string
	// Ceiling is the hard bound of connections for requests, and the first limit. Defaults to 16.
	Ceiling int
	// BatchSlots is how many batches may be at work at once, each on a connection of its own. Defaults to 6.
	BatchSlots int
	// Log defaults to slog.Default.
	Log *slog.Logger
}

// Pool holds the connections of a program. Requests share one elastic set of connections; batches have their own, so
// that neither waits for the other and resizing one leaves the other alone.
type Pool struct {
	requests *pgxpool.Pool
	batches  *pgxpool.Pool
	limiter  *limiter
	log      *slog.Logger
}

// Querier runs statements: a connection or a transaction.
type Querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	// SendBatch runs statements in one round trip and, outside of a transaction, in one transaction of their own.
	SendBatch(ctx context.Context, batch *pgx.Batch) pgx.BatchResults
}

// Open returns a pool. It checks the URL, and connects only when a connection is wanted.
func Open(ctx context.Context, cfg Config) (*Pool, error) {
	cfg = cfg.withDefaults()
	requests, err := open(ctx, cfg, cfg.Ceiling, nil)
	if err != nil {
		return nil, err
	}
	batches, err := open(ctx, cfg, cfg.BatchSlots, batchSettings)
	if err != nil {
		requests.Close()
		return nil, err
	}
	return &Pool{requests: requests, batches: batches, limiter: newLimiter(cfg.Ceiling), log: cfg.Log}, nil
}

func (cfg Config) withDefaults() Config {
	if cfg.Ceiling <= 0 {
		cfg.Ceiling = defaultCeiling
	}
	if cfg.BatchSlots <= 0 {
		cfg.BatchSlots = defaultBatchSlots
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return cfg
}

// Connections is how many connections a pool of these settings opens at most.
func (cfg Config) Connections() int {
	cfg = cfg.withDefaults()
	return cfg.Ceiling + cfg.BatchSlots
}

// batchSettings pin the plans of batched statements to index look-ups by key. They are prepared once for batches of any
// size; a plan made while the table was empty, by a scan of it, would be kept for minutes after it has grown.
var batchSettings = map[string]string{
	"plan_cache_mode":  "force_generic_plan",
	"enable_seqscan":   "off",
	"enable_hashjoin":  "off",
	"enable_mergejoin": "off",
}

// PinPlans has the statements of a batch planned once, for index look-ups by key, as those of batched requests are: with many keys
// the planning of each anew would cost more than the look-ups.
func PinPlans(batch *pgx.Batch) {
	batch.Queue(`
		SELECT set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true),
			set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)`)
}

// open opens a pool whose connections outlive a caller that goes away: its query is cancelled, and costs no more.
func open(ctx context.Context, cfg Config, size int, settings map[string]string) (*pgxpool.Pool, error) {
	pool, err := poolConfig(cfg, size)
	if err != nil {
		return nil, err
	}
	for name, value := range settings {
		pool.ConnConfig.RuntimeParams[name] = value
	}
	pool.ConnConfig.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: c, CancelRequestDelay: cancelDelay, DeadlineDelay: cancelGrace}
	}
	return pgxpool.NewWithConfig(ctx, pool)
}

// OpenForRiver returns a plain pool of as many connections as cfg.Ceiling says, for River alone. River interrupts its own
// waiting for notifications, which a request to cancel does not end: it needs the library's own way of cancelling.
func OpenForRiver(ctx context.Context, cfg Config) (*pgxpool.Pool, error) {
	pool, err := poolConfig(cfg, cfg.Ceiling)
	if err != nil {
		return nil, err
	}
	return pgxpool.NewWithConfig(ctx, pool)
}

func poolConfig(cfg Config, size int) (*pgxpool.Config, error) {
	pool, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", hideURL(err))
	}
	pool.MaxConns = int32(min(size, 10_000))
	pool.MinIdleConns = 1
	pool.MaxConnLifetime = lifetime
	pool.MaxConnLifetimeJitter = lifetimeJitter
	pool.PingTimeout = pingTimeout
	pool.ShouldPing = func(_ context.Context, p pgxpool.ShouldPingParams) bool { return p.IdleDuration > pingAfterIdle }
	pool.AfterConnect = useUTC
	conn := pool.ConnConfig
	conn.ConnectTimeout = connectTimeout
	conn.RuntimeParams["application_name"] = "morello/" + cfg.Program + "/" + cfg.Instance
	conn.RuntimeParams["jit"] = "off" // compiling takes longer than any of our statements gains by it
	longest := strconv.FormatInt(messages.MaxTimeout.Milliseconds(), 10)
	conn.RuntimeParams["statement_timeout"] = longest
	// A process that freezes in a transaction and wakes up later must not commit it: locks would be held, and what was read to be
	// recent would be old.
	conn.RuntimeParams["idle_in_transaction_session_timeout"] = longest
	return pool, nil
}

// hideURL keeps a password in a malformed URL out of the error.
func hideURL(err error) error {
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) {
		return errors.New("it is malformed: want postgres://user:password@host:port/database")
	}
	return err
}

// useUTC makes times come back in UTC, as the contract has them.
func useUTC(_ context.Context, conn *pgx.Conn) error {
	conn.TypeMap().RegisterType(&pgtype.Type{
		Name: "timestamptz", OID: pgtype.TimestamptzOID, Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC},
	})
	return nil
}

// Close waits for connections in use, and closes all.
func (p *Pool) Close() {
	p.requests.Close()
	p.batches.Close()
}

// Ping reports whether PostgreSQL answers.
func (p *Pool) Ping(ctx context.Context) error {
	_, err := Read(ctx, p, func(ctx context.Context, db Querier) (int, error) {
		var one int
		return one, db.QueryRow(ctx, "SELECT 1").Scan(&one)
	})
	return err
}

// Direct reports whether connections end at PostgreSQL itself. A pooler between, such as PgBouncer, makes up the process id
// that it greets with.
func (p *Pool) Direct(ctx context.Context) (bool, error) {
	var direct bool
	err := p.withConn(ctx, func(conn *pgxpool.Conn) error {
		const sql = `SELECT pg_backend_pid() = $1`
		return conn.QueryRow(ctx, sql, int64(conn.Conn().PgConn().PID())).Scan(&direct)
	})
	return direct, mapError(ctx, err, true)
}

// withConn runs fn on a connection for requests, waiting for one in turn.
func (p *Pool) withConn(ctx context.Context, fn func(conn *pgxpool.Conn) error) error {
	if err := p.limiter.acquire(ctx); err != nil {
		return notSent(err)
	}
	defer p.limiter.release()
	return acquire(ctx, p.requests, fn)
}

// WithBatchConn runs fn on a connection that is kept for batches. Its plans are pinned to index look-ups.
func (p *Pool) WithBatchConn(ctx context.Context, fn func(ctx context.Context, db Querier) error) error {
	return acquire(ctx, p.batches, func(conn *pgxpool.Conn) error { return fn(ctx, conn) })
}

func acquire(ctx context.Context, pool *pgxpool.Pool, fn func(conn *pgxpool.Conn) error) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return notSent(err)
	}
	defer conn.Release()
	return fn(conn)
}
