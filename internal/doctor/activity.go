package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ai-cherry/morello/messages"
)

// checkOldTransactions looks for transactions that keep VACUUM from removing dead rows. None of ours is older than the
// longest deadline.
func checkOldTransactions(ctx context.Context, d *database) (Finding, error) {
	const sql = `
		SELECT pid, coalesce(nullif(application_name, ''), usename, backend_type), extract(epoch FROM clock_timestamp() - xact_start)::float8
		FROM pg_stat_activity
		WHERE xact_start < clock_timestamp() - make_interval(secs => $1) AND backend_type NOT LIKE 'autovacuum%' AND pid <> pg_backend_pid()
		ORDER BY xact_start LIMIT 100`
	old, err := readAll[oldTransaction](ctx, d.pool, sql, messages.MaxTimeout.Seconds())
	return judgeOldTransactions(old), err
}

type oldTransaction struct {
	PID         int
	Application string
	Seconds     float64
}

func judgeOldTransactions(old []oldTransaction) Finding {
	if len(old) == 0 {
		return ok("", "none older than %s", messages.MaxTimeout)
	}
	f := ok("", "%d older than %s, the oldest for %s by %s: dead rows behind it stay", len(old), messages.MaxTimeout,
		age(old[0].Seconds), old[0].Application)
	return f.warn(fmt.Sprintf("SELECT pg_terminate_backend(%d);   -- if nobody needs it", old[0].PID))
}

// checkPreparedTransactions looks for what a two-phase commit left behind: it holds locks and dead rows, across restarts too.
func checkPreparedTransactions(ctx context.Context, d *database) (Finding, error) {
	const sql = `
		SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::float8 FROM pg_prepared_xacts
		WHERE database = current_database() AND prepared < clock_timestamp() - make_interval(secs => $1)
		ORDER BY prepared LIMIT 100`
	old, err := readAll[preparedTransaction](ctx, d.pool, sql, messages.MaxTimeout.Seconds())
	return judgePreparedTransactions(old), err
}

type preparedTransaction struct {
	ID      string
	Seconds float64
}

func judgePreparedTransactions(old []preparedTransaction) Finding {
	if len(old) == 0 {
		return ok("", "none left over")
	}
	return ok("", "%d left over, the oldest for %s: it holds its locks, and dead rows stay", len(old), age(old[0].Seconds)).
		warn("ROLLBACK PREPARED " + literal(old[0].ID) + ";   -- or COMMIT PREPARED, as its transaction manager says")
}

// checkReplicationSlots looks for slots that keep WAL for a reader that has gone.
func checkReplicationSlots(ctx context.Context, d *database) (Finding, error) {
	const sql = `SELECT slot_name::text FROM pg_replication_slots WHERE NOT active ORDER BY 1 LIMIT 100`
	unused, err := readAll[struct{ Name string }](ctx, d.pool, sql)
	if err != nil || len(unused) == 0 {
		return ok("", "none without a reader"), err
	}
	name := unused[0].Name
	return ok("", "%d without a reader, such as %s: WAL is kept until the disk is full", len(unused), name).
		warn("SELECT pg_drop_replication_slot(" + literal(name) + ");   -- if its reader does not come back"), nil
}

// checkTransactionIDs compares the oldest transaction id with where autovacuum begins to hurry and where it drops all else to
// save the server from refusing writes.
// (https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-WRAPAROUND)
func checkTransactionIDs(ctx context.Context, d *database) (Finding, error) {
	oldest, err := readOne[int](ctx, d.pool, `SELECT max(age(datfrozenxid))::bigint FROM pg_database`)
	return judgeTransactionIDs(oldest, d.settings["autovacuum_freeze_max_age"].number(), d.settings["vacuum_failsafe_age"].number()), err
}

// judgeTransactionIDs: an age a little over freezeAge is normal, autovacuum is at work; twice of it says that it does not succeed.
func judgeTransactionIDs(oldest, freezeAge, failsafeAge int) Finding {
	f := ok("", "the oldest is %d million old", oldest/1_000_000)
	const mend = "vacuumdb --all --freeze   # after ending what holds it back: old transactions, prepared ones, slots"
	switch {
	case oldest > failsafeAge:
		f.Seen += ": the server stops taking writes at 2146 million"
		return f.fail(mend)
	case oldest > 2*freezeAge:
		f.Seen += fmt.Sprintf(", autovacuum should have kept it near %d million", freezeAge/1_000_000)
		return f.warn(mend)
	}
	return f
}

func age(seconds float64) time.Duration {
	return time.Duration(seconds * float64(time.Second)).Round(time.Second)
}

// literal quotes a text for SQL.
func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
