package doctor

import (
	"context"
	"fmt"
	"strings"

	"github.com/ai-cherry/morello/internal/postgres"
)

// checkConnections compares what the server gives with what is open, and with what the processes open when they are busy.
func checkConnections(ctx context.Context, d *database) (Finding, error) {
	const sql = `SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'`
	open, err := readOne[int](ctx, d.pool, sql)
	return judgeConnections(d.available(), open, d.leased, d.cfg), err
}

// available is how many connections the role may have to the database.
func (d *database) available() int {
	available := d.settings["max_connections"].number() - d.settings["superuser_reserved_connections"].number() -
		d.settings["reserved_connections"].number()
	for _, limit := range []int{d.server.DatabaseConns, d.server.RoleConns} {
		if limit >= 0 {
			available = min(available, limit)
		}
	}
	return available
}

func judgeConnections(available, open int, leased leases, cfg Config) Finding {
	workers, schedulers := max(1, len(leased.workers)), max(1, len(leased.schedulers))
	least := cfg.WorkerConns + cfg.SchedulerConns
	wanted := workers*cfg.WorkerConns + schedulers*cfg.SchedulerConns
	f := ok("", "%d open, %d to be had; workers (%d) and schedulers (%d) open up to %d", open, available, workers, schedulers, wanted)
	mend := fmt.Sprintf("ALTER SYSTEM SET max_connections = %d;   -- and restart PostgreSQL; or lower MORELLO_POOL_CEILING, or raise the CONNECTION LIMIT",
		2*wanted+10)
	switch {
	case available < least:
		return f.fail(mend)
	case available < wanted:
		return f.warn(mend)
	}
	return f
}

// checkGrants looks for tables that the user may not read or change, and sequences that it may not use, as workers and
// schedulers do. The sequence of an identity column needs no right of its own.
func checkGrants(ctx context.Context, d *database) (Finding, error) {
	const sql = `
		SELECT coalesce(array_agg(format('%I.%I', n.nspname, c.relname) ORDER BY n.nspname, c.relname), '{}')
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname IN ('morello', $1) AND c.relkind IN ('r', 'p', 'S') AND NOT CASE
			WHEN NOT has_schema_privilege(n.oid, 'USAGE') THEN false
			WHEN c.relkind = 'S' THEN has_sequence_privilege(c.oid, 'USAGE')
				OR EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'i')
			WHEN c.relname = 'schema_migration' THEN has_table_privilege(c.oid, 'SELECT')
			ELSE has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
				AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')
		END`
	missing, err := readOne[[]string](ctx, d.pool, sql, postgres.RiverSchema)
	if err != nil || len(missing) == 0 {
		return ok("", "%s may read and change every table", d.server.Role), err
	}
	return ok("", "%s lacks rights on %s", d.server.Role, listed(missing)).fail(d.server.grant()), nil
}

// grant gives the role what workers and schedulers need.
func (s server) grant() string {
	schemas, role := "morello, "+postgres.RiverSchema, quoted(s.Role)
	return strings.Join([]string{
		"GRANT USAGE ON SCHEMA " + schemas + " TO " + role + ";",
		"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA " + schemas + " TO " + role + ";",
		"GRANT USAGE ON ALL SEQUENCES IN SCHEMA " + schemas + " TO " + role + ";",
	}, " ")
}
