package doctor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/postgres"
)

const (
	// oldestPostgres is the oldest version that Morello is tested with.
	oldestPostgres = 15
	// maxSkew between the clocks of this machine and of PostgreSQL that is worth no word.
	maxSkew = time.Second
)

// leases are the processes that hold one; unknown without PostgreSQL or its schema.
type leases struct {
	known               bool
	workers, schedulers []postgres.Worker
}

// database is what the checks of PostgreSQL stand on.
type database struct {
	cfg      Config
	pool     *postgres.Pool
	server   server
	settings map[string]setting
	leased   leases
}

// server is what PostgreSQL says of itself and of this session.
type server struct {
	Version       int    // such as 150004
	VersionText   string // such as 15.4
	Database      string
	Role          string
	Standby       bool
	Encoding      string
	Local         bool // on this machine, as far as its address tells
	DatabaseConns int  // CONNECTION LIMIT, -1 for none
	RoleConns     int
}

// examinePostgres makes all checks of PostgreSQL, and reads the leases on the way.
func examinePostgres(ctx context.Context, cfg Config) ([]Finding, leases) {
	ctx, cancel := context.WithTimeoutCause(ctx, postgresTimeout, fmt.Errorf("PostgreSQL timeout (%s) exceeded", postgresTimeout))
	defer cancel()
	reachable := ok("postgres.reachable", "%s", config.HideSecrets(cfg.DatabaseURL))
	pool, err := postgres.Open(ctx, postgres.Config{
		URL: cfg.DatabaseURL, Program: cfg.Program, Instance: cfg.Instance, Ceiling: 1, BatchSlots: 1, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		reachable.Seen += ": " + explain(ctx, err)
		return []Finding{reachable.fail("export MORELLO_DATABASE_URL=postgres://user:password@host:port/database")}, leases{}
	}
	defer pool.Close()
	d := &database{cfg: cfg, pool: pool}
	if d.server, err = readServer(ctx, pool); err != nil {
		reachable.Seen += ": " + explain(ctx, err)
		return []Finding{reachable.fail(mendConnection(err))}, leases{}
	}
	return append([]Finding{reachable}, d.examine(ctx)...), d.leased
}

func readServer(ctx context.Context, pool *postgres.Pool) (server, error) {
	const sql = `
		SELECT current_setting('server_version_num')::int, current_setting('server_version'), d.datname, current_user,
			pg_is_in_recovery(), pg_encoding_to_char(d.encoding), coalesce(host(inet_server_addr()), ''), d.datconnlimit, r.rolconnlimit
		FROM pg_database d, pg_roles r WHERE d.datname = current_database() AND r.rolname = current_user`
	return postgres.Read(ctx, pool, func(ctx context.Context, db postgres.Querier) (server, error) {
		var s server
		var address string
		err := db.QueryRow(ctx, sql).Scan(&s.Version, &s.VersionText, &s.Database, &s.Role, &s.Standby, &s.Encoding,
			&address, &s.DatabaseConns, &s.RoleConns)
		parsed, parseErr := netip.ParseAddr(address)
		s.Local = address == "" || parseErr == nil && parsed.IsLoopback()
		return s, err
	})
}

// mendConnection says what to do about a connection that was not had, by the code of PostgreSQL's answer.
func mendConnection(err error) string {
	switch postgres.SQLState(err) {
	case "28P01", "28000": // invalid_password, invalid_authorization_specification
		return "check user and password in MORELLO_DATABASE_URL, and pg_hba.conf of the server"
	case "3D000": // invalid_catalog_name
		return "createdb morello   # or name another database in MORELLO_DATABASE_URL"
	case "53300": // too_many_connections
		return "psql -c \"ALTER SYSTEM SET max_connections = 200\"   # and restart PostgreSQL"
	}
	return "start PostgreSQL, or name yours in MORELLO_DATABASE_URL; \"make up\" starts one and prints its URL"
}

// check of PostgreSQL: what it finds, or why it could not look.
type check struct {
	name string
	run  func(ctx context.Context, d *database) (Finding, error)
}

// checks are made in this order, those of settings between version and schema.
var checks = []check{
	{"postgres.pooler", checkPooler},
	{"postgres.connections", checkConnections},
	{"postgres.grants", checkGrants},
	{"postgres.clock", checkClock},
	{"postgres.statistics", checkStatistics},
	{"postgres.old_transactions", checkOldTransactions},
	{"postgres.prepared_transactions", checkPreparedTransactions},
	{"postgres.replication_slots", checkReplicationSlots},
	{"postgres.transaction_ids", checkTransactionIDs},
}

func (d *database) examine(ctx context.Context) []Finding {
	findings := []Finding{d.version(), d.primary(), d.encoding(), d.schema(ctx)}
	settings, err := readSettings(ctx, d.pool)
	if err != nil {
		return append(findings, d.unseen(ctx, "postgres.settings", err))
	}
	d.settings = settings
	findings = append(findings, d.examineSettings()...)
	for _, c := range checks {
		finding, err := c.run(ctx, d)
		if err != nil {
			finding = d.unseen(ctx, c.name, err)
		}
		finding.Check = c.name
		findings = append(findings, finding)
	}
	return findings
}

// unseen is the finding of a check that could not look.
func (d *database) unseen(ctx context.Context, check string, err error) Finding {
	return ok(check, "could not be examined: %s", explain(ctx, err)).warn("GRANT pg_monitor TO " + quoted(d.server.Role) + ";   -- if it was refused")
}

func (d *database) version() Finding {
	f := ok("postgres.version", "PostgreSQL %s", d.server.VersionText)
	if d.server.Version/10_000 < oldestPostgres {
		return f.warn(fmt.Sprintf("upgrade to PostgreSQL %d or newer: nothing older is tested", oldestPostgres))
	}
	return f
}

func (d *database) primary() Finding {
	if d.server.Standby {
		return ok("postgres.primary", "a standby, which takes no writes").
			fail("name the primary in MORELLO_DATABASE_URL, or all hosts with ?target_session_attrs=read-write")
	}
	return ok("postgres.primary", "takes writes")
}

func (d *database) encoding() Finding {
	f := ok("postgres.encoding", "%s", d.server.Encoding)
	if d.server.Encoding != "UTF8" {
		f.Seen += ": text that is not of this encoding cannot be stored"
		return f.fail("createdb --encoding UTF8 --template template0 morello   # and name it in MORELLO_DATABASE_URL")
	}
	return f
}

// schema also reads the leases, which stand in it.
func (d *database) schema(ctx context.Context) Finding {
	const check, mend = "postgres.schema", "morello migrate up"
	state, err := postgres.ReadSchemaState(ctx, d.pool)
	switch {
	case postgres.SQLState(errors.Join(err, state.River)) == "42501": // insufficient_privilege
		return ok(check, "could not be examined: %s", explain(ctx, errors.Join(err, state.River))).fail(d.server.grant())
	case err != nil:
		return d.unseen(ctx, check, err)
	case state.Have < state.Want:
		return ok(check, "at version %d, must be at %d", state.Have, state.Want).fail(mend)
	case state.River != nil:
		return ok(check, "at version %d, but %s", state.Have, explain(ctx, state.River)).fail(mend)
	case state.Have > state.Want:
		return ok(check, "at version %d, newer than %d, which this program brings", state.Have, state.Want).
			warn("upgrade this program, and workers and schedulers of its version")
	}
	if d.leased, err = readLeases(ctx, d.pool); err != nil {
		return d.unseen(ctx, check, err)
	}
	return ok(check, "at version %d", state.Have)
}

func readLeases(ctx context.Context, pool *postgres.Pool) (leases, error) {
	workers, err := postgres.LiveWorkers(ctx, pool, "worker")
	if err != nil {
		return leases{}, err
	}
	schedulers, err := postgres.LiveWorkers(ctx, pool, "scheduler")
	return leases{known: err == nil, workers: workers, schedulers: schedulers}, err
}

func checkPooler(ctx context.Context, d *database) (Finding, error) {
	direct, err := d.pool.Direct(ctx)
	if err != nil || direct {
		return ok("", "none between"), err
	}
	return ok("", "a pooler such as PgBouncer is between: prepared statements and LISTEN need a session of their own").
		warn("name PostgreSQL itself in MORELLO_DATABASE_URL, or set pool_mode = session"), nil
}

// checkClock compares the clocks. What lives and what has expired the database's decides; logs and the start of a process are
// told by this machine's.
func checkClock(ctx context.Context, d *database) (Finding, error) {
	before := time.Now()
	theirs, err := readOne[time.Time](ctx, d.pool, `SELECT clock_timestamp()`)
	return judgeClock(theirs.Sub(before), time.Since(before)), err
}

// judgeClock takes how far PostgreSQL's clock is ahead of the moment of asking: anything from 0 to the round trip is none.
func judgeClock(ahead, roundTrip time.Duration) Finding {
	skew := min(0, ahead) + max(0, ahead-roundTrip)
	f := ok("", "clocks agree to %s, round trip %s", max(skew.Abs(), roundTrip).Round(10*time.Microsecond), roundTrip.Round(10*time.Microsecond))
	if skew.Abs() > maxSkew {
		f.Seen = fmt.Sprintf("PostgreSQL's clock is %s ahead of this machine's", skew.Round(time.Millisecond))
		return f.warn("timedatectl set-ntp true   # on both machines")
	}
	return f
}

func checkStatistics(ctx context.Context, d *database) (Finding, error) {
	const sql = `SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements')`
	installed, err := readOne[bool](ctx, d.pool, sql)
	loaded := strings.Contains(d.settings["shared_preload_libraries"].Value, "pg_stat_statements")
	f := ok("", "pg_stat_statements counts statements")
	switch {
	case err != nil:
		return f, err
	case !loaded:
		f.Seen = "pg_stat_statements is not loaded: nobody can tell which statements are slow"
		return f.warn("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements';   -- restart PostgreSQL, then CREATE EXTENSION pg_stat_statements;"), nil
	case !installed:
		f.Seen = "pg_stat_statements is loaded, but not to be read in this database"
		return f.warn("CREATE EXTENSION pg_stat_statements;"), nil
	}
	return f, nil
}

// readOne runs a statement that returns one value.
func readOne[T any](ctx context.Context, pool *postgres.Pool, sql string, args ...any) (T, error) {
	return postgres.Read(ctx, pool, func(ctx context.Context, db postgres.Querier) (T, error) {
		var value T
		err := db.QueryRow(ctx, sql, args...).Scan(&value)
		return value, err
	})
}

// readAll runs a statement whose columns are the fields of T, in their order.
func readAll[T any](ctx context.Context, pool *postgres.Pool, sql string, args ...any) ([]T, error) {
	return postgres.Read(ctx, pool, func(ctx context.Context, db postgres.Querier) ([]T, error) {
		rows, err := db.Query(ctx, sql, args...)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, pgx.RowToStructByPos[T])
	})
}

func quoted(identifier string) string { return pgx.Identifier{identifier}.Sanitize() }
