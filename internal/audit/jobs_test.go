package audit_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/audit"
	"github.com/ai-cherry/morello/internal/jobs"
)

// maintain runs the job to its end and returns what it did.
func (f fixture) maintain(t *testing.T, retentionDays int) jobs.Counts {
	t.Helper()
	step := audit.NewMaintenance(audit.MaintenanceConfig{RetentionDays: retentionDays}).NewRun()
	total := jobs.Counts{}
	for more := true; more; {
		tx, err := f.db.Begin(t.Context())
		require.NoError(t, err)
		var did jobs.Counts
		did, more, err = step(t.Context(), tx)
		require.NoError(t, err)
		require.NoError(t, tx.Commit(t.Context()))
		for name, n := range did {
			total[name] += n
		}
	}
	return total
}

// partitions returns the names of the partitions without what they begin with.
func (f fixture) partitions(t *testing.T) []string {
	t.Helper()
	rows, err := f.db.Query(t.Context(), `
		SELECT replace(c.relname, 'audit_entry_', '') FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'morello.audit_entry'::regclass ORDER BY 1`)
	require.NoError(t, err)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return names
}

// month names the partition of the month that is n away from the database's.
func (f fixture) month(t *testing.T, n int) (name string) {
	t.Helper()
	const sql = `SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => $1), 'YYYY_MM')`
	require.NoError(t, f.db.QueryRow(t.Context(), sql, n).Scan(&name))
	return name
}

// insertOld inserts n entries of an age.
func (f fixture) insertOld(t *testing.T, n int, age string) {
	t.Helper()
	f.exec(t, `INSERT INTO morello.audit_entry (tenant, created_at, event_type, actor, resource_type, resource_id)
		SELECT 'tenant-' || n % 3, now() - $2::interval, 'old', 'a', 't', $2::interval::text FROM generate_series(1, $1) AS n`, n, age)
}

// attach makes the partition of a past month, as the job once did.
func (f fixture) attach(t *testing.T, n int) string {
	t.Helper()
	name := f.month(t, n)
	f.exec(t, fmt.Sprintf(`CREATE TABLE morello.audit_entry_%s PARTITION OF morello.audit_entry FOR VALUES FROM ('%s-01 00:00+00') TO ('%s-01 00:00+00')`,
		name, dashed(name), dashed(f.month(t, n+1))))
	return name
}

func dashed(month string) string { return month[:4] + "-" + month[5:] }

func TestPartitionsAhead(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ahead := []string{f.month(t, 0), f.month(t, 1), f.month(t, 2), f.month(t, 3), "default"}
	require.Equal(t, ahead, f.partitions(t)) // by the migration
	require.Equal(t, jobs.Counts{"created": 0}, f.maintain(t, 0))

	for _, name := range []string{ahead[2], ahead[3]} {
		f.exec(t, `DROP TABLE morello.audit_entry_`+name)
	}
	require.Equal(t, jobs.Counts{"created": 2}, f.maintain(t, 0))
	require.Equal(t, ahead, f.partitions(t))
	var expression string
	require.NoError(t, f.db.QueryRow(t.Context(), `
		SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = ('morello.audit_entry_' || $1)::regclass`, ahead[3]).Scan(&expression))
	require.Contains(t, expression, "FROM ('"+dashed(ahead[3])+"-01 00:00:00+00') TO ('"+dashed(f.month(t, 4))+"-01 00:00:00+00')")
	f.exec(t, `INSERT INTO morello.audit_entry (tenant, created_at, event_type, actor, resource_type, resource_id)
		VALUES ('acme', now() + interval '2 months', 'e', 'a', 't', 'r')`)
	require.Equal(t, 0, f.count(t, `SELECT count(*) FROM morello.audit_entry_default`))
	for _, name := range ahead {
		require.Equal(t, 9, f.count(t, `SELECT count(*) FROM pg_index WHERE indrelid = ('morello.audit_entry_' || $1)::regclass AND indisvalid`, name), "%s has all indexes", name)
	}
}

// TestNet: without its partition an entry goes into the net, is found there, and keeps its month there.
func TestNet(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.exec(t, `DROP TABLE morello.audit_entry_`+f.month(t, 0))
	f.log(t, entry(nil))
	require.Equal(t, 1, f.count(t, `SELECT count(*) FROM morello.audit_entry_default`))
	require.Equal(t, jobs.Counts{"created": 0}, f.maintain(t, 0))
	f.log(t, entry(nil))
	require.Equal(t, 2, f.count(t, `SELECT count(*) FROM morello.audit_entry_default`))
}

// TestRetentionRemovesExactlyWhatIsOld: whole partitions, and by rows what is in the net and in the month on the border.
func TestRetentionRemovesExactlyWhatIsOld(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	dropped := f.attach(t, -6)
	border := f.attach(t, -3)
	f.exec(t, `INSERT INTO morello.audit_entry (tenant, created_at, event_type, actor, resource_type, resource_id)
		SELECT 'acme', to_date($1, 'YYYY_MM') + interval '5 days', 'dropped', 'a', 't', 'r' FROM generate_series(1, 10)`, dropped)
	f.insertOld(t, 5200, "300 days") // in the net: two batches
	var days int
	require.NoError(t, f.db.QueryRow(t.Context(), // the border is in the middle of a month
		`SELECT date_part('day', now() - (to_date($1, 'YYYY_MM') + interval '15 days'))::int`, border).Scan(&days))
	f.insertOld(t, 30, fmt.Sprintf("%d days 1 minute", days))
	f.insertOld(t, 40, fmt.Sprintf("%d days -1 minute", days))
	f.insertOld(t, 50, "1 second")

	require.Equal(t, jobs.Counts{"created": 0}, f.maintain(t, 0)) // kept for ever
	require.Equal(t, 10+5200+30+40+50, f.count(t, `SELECT count(*) FROM morello.audit_entry`))
	require.Equal(t, jobs.Counts{"created": 0, "dropped": 1, "removed": 5230}, f.maintain(t, days))
	require.Equal(t, 90, f.count(t, `SELECT count(*) FROM morello.audit_entry`))
	require.Equal(t, 40, f.count(t, `SELECT count(*) FROM morello.audit_entry WHERE created_at < now() - interval '1 hour'`))
	require.NotContains(t, f.partitions(t), dropped)
	require.Contains(t, f.partitions(t), border)
	require.Equal(t, jobs.Counts{"created": 0, "removed": 0}, f.maintain(t, days))
}

// TestAppendOnly: PostgreSQL refuses what changes the trail, of the owner, of an ordinary role that was granted all rights
// on the table, on the parent and on partitions, whatever it sets.
func TestAppendOnly(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.log(t, entry(nil))
	f.insertOld(t, 1, "300 days")
	role := fmt.Sprintf("audit_test_%d", time.Now().UnixNano())
	f.exec(t, `CREATE ROLE `+role)
	defer func() {
		_, err := f.db.Exec(context.Background(), `RESET ROLE; DROP OWNED BY `+role+`; DROP ROLE `+role)
		require.NoError(t, err)
	}()
	f.exec(t, `GRANT USAGE ON SCHEMA morello TO `+role)
	f.exec(t, `GRANT ALL ON ALL TABLES IN SCHEMA morello TO `+role)
	for _, as := range []string{`RESET ROLE`, `SET ROLE ` + role} {
		f.exec(t, as)
		for _, table := range []string{"audit_entry", "audit_entry_default", "audit_entry_" + f.month(t, 0)} {
			for _, sql := range []string{
				`UPDATE morello.%s SET actor = 'nobody'`, `DELETE FROM morello.%s`, `TRUNCATE morello.%s`,
				`UPDATE morello.%s SET created_at = created_at - interval '1 year'`, `TRUNCATE morello.%s CASCADE`,
			} {
				_, err := f.db.Exec(t.Context(), fmt.Sprintf(sql, table))
				var refused *pgconn.PgError
				require.ErrorAs(t, err, &refused, "%s: %s %s", as, sql, table)
				require.Equal(t, "42501", refused.Code)
				require.Contains(t, refused.Message, "the audit trail is append-only")
			}
		}
		_, err := f.db.Exec(t.Context(), `MERGE INTO morello.audit_entry AS e USING (SELECT 1) AS one ON true WHEN MATCHED THEN DELETE`)
		require.Error(t, err)
	}
	// Still as the ordinary role: it can neither say that it expires entries nor have them expired.
	for _, sql := range []string{
		`SELECT morello.audit_expire('infinity', 100)`, `SELECT morello.audit_drop_partition('infinity')`,
		`DROP TABLE morello.audit_entry_default`, `ALTER TABLE morello.audit_entry DISABLE TRIGGER ALL`,
		`ALTER TABLE morello.audit_entry DETACH PARTITION morello.audit_entry_default`,
	} {
		_, err := f.db.Exec(t.Context(), sql)
		require.Error(t, err, sql)
	}
	f.exec(t, `SET morello.audit_expire_before = 'infinity'`)
	_, err := f.db.Exec(t.Context(), `DELETE FROM morello.audit_entry`)
	require.ErrorContains(t, err, "append-only")
	f.exec(t, `RESET ROLE`)
	require.Equal(t, 2, f.count(t, `SELECT count(*) FROM morello.audit_entry`))
}

// TestRolesThatOwnNothing: a worker's role needs INSERT and SELECT, the scheduler's EXECUTE of three functions.
func TestRolesThatOwnNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.insertOld(t, 3, "300 days")
	f.exec(t, `DROP TABLE morello.audit_entry_`+f.month(t, 3))
	worker, scheduler := fmt.Sprintf("audit_worker_%d", time.Now().UnixNano()), fmt.Sprintf("audit_scheduler_%d", time.Now().UnixNano())
	f.exec(t, `CREATE ROLE `+worker)
	f.exec(t, `CREATE ROLE `+scheduler)
	defer func() {
		_, err := f.db.Exec(context.Background(), fmt.Sprintf(`RESET ROLE; DROP OWNED BY %[1]s, %[2]s; DROP ROLE %[1]s, %[2]s`, worker, scheduler))
		require.NoError(t, err)
	}()
	f.exec(t, fmt.Sprintf(`GRANT USAGE ON SCHEMA morello TO %s, %s`, worker, scheduler))
	f.exec(t, `GRANT INSERT, SELECT ON morello.audit_entry TO `+worker)
	f.exec(t, `GRANT EXECUTE ON FUNCTION morello.audit_make_partitions, morello.audit_drop_partition, morello.audit_expire TO `+scheduler)

	f.exec(t, `SET ROLE `+worker)
	f.exec(t, audit.InsertFrom(`(SELECT 'acme' AS tenant, 'e' AS event_type, 'a' AS actor, 't' AS resource_type, 'r' AS resource_id, '{}'::jsonb AS details) AS entry`))
	require.Equal(t, 4, f.count(t, `SELECT count(*) FROM morello.audit_entry`))
	_, err := f.db.Exec(t.Context(), `DELETE FROM morello.audit_entry`)
	require.ErrorContains(t, err, "permission denied")
	f.exec(t, `SET ROLE `+scheduler)
	require.Equal(t, jobs.Counts{"created": 1, "removed": 3}, f.maintain(t, 100))
}

// TestExpireLeavesNoDoorOpen: after the guarded path, in the same transaction, a delete is refused again.
func TestExpireLeavesNoDoorOpen(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.insertOld(t, 2, "300 days")
	tx, err := f.db.Begin(t.Context())
	require.NoError(t, err)
	var removed int
	require.NoError(t, tx.QueryRow(t.Context(), `SELECT morello.audit_expire(now() - interval '1 day', 1)`).Scan(&removed))
	require.Equal(t, 1, removed)
	_, err = tx.Exec(t.Context(), `DELETE FROM morello.audit_entry`)
	require.ErrorContains(t, err, "append-only")
	require.NoError(t, tx.Rollback(t.Context()))
}
