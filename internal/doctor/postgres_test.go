package doctor_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/doctor"
)

// noNATS keeps the tests of PostgreSQL from waiting for workers.
const noNATS = "nats://" + nowhere

// TestBadServer: everything that only the start of a server decides.
func TestBadServer(t *testing.T) {
	t.Parallel()
	databaseURL := devtest.ServerWithSettings(t, map[string]string{
		"fsync": "off", "full_page_writes": "off", "autovacuum": "off", "track_counts": "off", "wal_level": "minimal", "max_wal_senders": "0",
		"max_connections": "30", "shared_buffers": "16MB", "shared_preload_libraries": "",
	}).URL("morello")
	found := examine(t, databaseURL, noNATS)
	requireFinding(t, found, "postgres.fsync", doctor.Fail, "off: a crash", "restart PostgreSQL with -c fsync='on'")
	requireFinding(t, found, "postgres.full_page_writes", doctor.Fail, "off: a crash", "-c full_page_writes='on'")
	requireFinding(t, found, "postgres.autovacuum", doctor.Warn, "dead rows stay", "-c autovacuum='on'")
	requireFinding(t, found, "postgres.track_counts", doctor.Warn, "off", "-c track_counts='on'")
	requireFinding(t, found, "postgres.wal_level", doctor.Warn, "minimal", "-c wal_level='replica'")
	requireFinding(t, found, "postgres.max_wal_size", doctor.Warn, "1GB", "ALTER SYSTEM SET max_wal_size = '4GB'; SELECT pg_reload_conf();")
	requireFinding(t, found, "postgres.shared_buffers", doctor.Warn, "16MB", "-c shared_buffers='")
	requireFinding(t, found, "postgres.statistics", doctor.Warn, "not loaded", "shared_preload_libraries = 'pg_stat_statements'")
	requireFinding(t, found, "postgres.connections", doctor.Fail, "27 to be had", "max_connections = 100")
	requireFinding(t, found, "postgres.track_io_timing", doctor.OK, "off: with it", "")

	execute(t, databaseURL, `ALTER SYSTEM SET max_wal_size = '4GB'`)
	execute(t, databaseURL, `SELECT pg_reload_conf()`)
	require.Eventually(t, func() bool {
		return examine(t, databaseURL, noNATS)["postgres.max_wal_size"].Status == doctor.OK
	}, patience, tick)
}

// TestMends: settings of a database are found bad, and what each finding says mends them.
func TestMends(t *testing.T) {
	t.Parallel()
	databaseURL := devtest.Database(t)
	database := databaseName(t, databaseURL)
	settings := map[string]string{
		"synchronous_commit": "off", "default_transaction_isolation": "serializable", "idle_session_timeout": "1h",
		"default_transaction_read_only": "on",
	}
	admin := change(t, databaseURL, func(u *url.URL) { u.RawQuery += "&default_transaction_read_only=off" })
	for name, value := range settings {
		execute(t, admin, "ALTER DATABASE "+database+" SET "+name+" = '"+value+"'")
	}
	found := examine(t, databaseURL, noNATS)
	for name := range settings {
		status := doctor.Warn
		if name == "default_transaction_read_only" {
			status = doctor.Fail
		}
		mend := `ALTER DATABASE "` + database + `" RESET ` + name + ";"
		requireFinding(t, found, "postgres."+name, status, ": ", mend)
		execute(t, admin, mend)
	}
	found = examine(t, databaseURL, noNATS)
	for name := range settings {
		requireFinding(t, found, "postgres."+name, doctor.OK, "", "")
	}
}

func databaseName(t *testing.T, databaseURL string) string {
	t.Helper()
	u, err := url.Parse(databaseURL)
	require.NoError(t, err)
	return strings.TrimPrefix(u.Path, "/")
}

// TestSourcesOfSettings: a setting is mended where it was made.
func TestSourcesOfSettings(t *testing.T) {
	t.Parallel()
	databaseURL := devtest.Database(t)
	role := databaseName(t, databaseURL) + "_source"
	execute(t, databaseURL, "CREATE ROLE "+role+" LOGIN")
	atCleanup(t, databaseURL, "DROP OWNED BY "+role+"; DROP ROLE "+role)
	asRole := change(t, databaseURL, func(u *url.URL) { u.User = url.User(role) })
	execute(t, databaseURL, "ALTER ROLE "+role+" SET synchronous_commit = off")
	execute(t, databaseURL, "ALTER ROLE "+role+" IN DATABASE "+databaseName(t, databaseURL)+" SET idle_session_timeout = '1min'")
	found := examine(t, change(t, asRole, func(u *url.URL) { u.RawQuery += "&default_transaction_isolation=serializable" }), noNATS)
	requireFinding(t, found, "postgres.synchronous_commit", doctor.Warn, "off", `ALTER ROLE "`+role+`" RESET synchronous_commit;`)
	requireFinding(t, found, "postgres.idle_session_timeout", doctor.Warn, "1min", `ALTER ROLE "`+role+`" IN DATABASE "`)
	requireFinding(t, found, "postgres.default_transaction_isolation", doctor.Warn, "serializable", "take default_transaction_isolation out of MORELLO_DATABASE_URL")
}

// TestGrants: a user without rights is told which statements give them, and they do.
func TestGrants(t *testing.T) {
	t.Parallel()
	databaseURL := devtest.Database(t)
	role := databaseName(t, databaseURL) + "_role"
	execute(t, databaseURL, "CREATE ROLE "+role+" LOGIN CONNECTION LIMIT 7")
	atCleanup(t, databaseURL, "DROP OWNED BY "+role+"; DROP ROLE "+role)
	asRole := change(t, databaseURL, func(u *url.URL) { u.User = url.User(role) })

	found := examine(t, asRole, noNATS)
	requireFinding(t, found, "postgres.schema", doctor.Fail, "permission denied", "GRANT USAGE ON SCHEMA")
	requireFinding(t, found, "postgres.grants", doctor.Fail, "lacks rights on ", "GRANT USAGE ON SCHEMA morello, river")
	requireFinding(t, found, "postgres.connections", doctor.Fail, "7 to be had", "CONNECTION LIMIT")
	execute(t, databaseURL, found["postgres.grants"].Mend)

	found = examine(t, asRole, noNATS)
	requireFinding(t, found, "postgres.schema", doctor.OK, "at version", "")
	requireFinding(t, found, "postgres.grants", doctor.OK, role+" may read and change every table", "")
	execute(t, databaseURL, "REVOKE DELETE ON morello.cache_entry FROM "+role+"; REVOKE USAGE ON SEQUENCE river.river_job_id_seq FROM "+role)
	requireFinding(t, examine(t, asRole, noNATS), "postgres.grants", doctor.Fail,
		"lacks rights on morello.cache_entry, river.river_job_id_seq", "GRANT USAGE ON ALL SEQUENCES")
}

// TestStrangeDatabase is not migrated, and of an encoding that cannot hold every text.
func TestStrangeDatabase(t *testing.T) {
	t.Parallel()
	databaseURL := devtest.Database(t)
	name := databaseName(t, databaseURL) + "_strange"
	execute(t, databaseURL, "CREATE DATABASE "+name+" ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
	atCleanup(t, databaseURL, "DROP DATABASE "+name+" WITH (FORCE)")
	found := examine(t, change(t, databaseURL, func(u *url.URL) { u.Path = "/" + name }), noNATS)
	requireFinding(t, found, "postgres.encoding", doctor.Fail, "SQL_ASCII", "--encoding UTF8")
	requireFinding(t, found, "postgres.schema", doctor.Fail, "at version 0, must be at ", "morello migrate up")
	requireFinding(t, found, "postgres.grants", doctor.OK, "", "")
	require.NotContains(t, found, "workers.leases", "nobody knows who is at work")
}

// TestSchemas: what is older, newer or half there.
func TestSchemas(t *testing.T) {
	t.Parallel()
	newer, noRiver := devtest.Database(t), devtest.Database(t)
	execute(t, newer, `INSERT INTO morello.schema_migration (version_id, is_applied) VALUES (9999, true)`)
	requireFinding(t, examine(t, newer, noNATS), "postgres.schema", doctor.Warn, "at version 9999, newer than", "upgrade this program")
	execute(t, noRiver, `DROP SCHEMA river CASCADE`)
	requireFinding(t, examine(t, noRiver, noNATS), "postgres.schema", doctor.Fail, "the schema river is not as it should be", "morello migrate up")
}

// TestReplicationSlot: a slot without a reader is found, and dropped as the finding says.
func TestReplicationSlot(t *testing.T) {
	t.Parallel()
	databaseURL := devtest.Server(t).URL("morello")
	execute(t, databaseURL, `SELECT pg_create_physical_replication_slot('forgotten')`)
	found := examine(t, databaseURL, noNATS)
	requireFinding(t, found, "postgres.replication_slots", doctor.Warn, "forgotten", "SELECT pg_drop_replication_slot('forgotten');")
	execute(t, databaseURL, found["postgres.replication_slots"].Mend)
	requireFinding(t, examine(t, databaseURL, noNATS), "postgres.replication_slots", doctor.OK, "none", "")
}

// TestPooler goes through a proxy that makes up the process id of the server, as PgBouncer does.
func TestPooler(t *testing.T) {
	t.Parallel()
	databaseURL := devtest.Database(t)
	u, err := url.Parse(databaseURL)
	require.NoError(t, err)
	proxy := startPooler(t, u.Host)
	found := examine(t, change(t, databaseURL, func(u *url.URL) { u.Host = proxy }), noNATS)
	requireFinding(t, found, "postgres.pooler", doctor.Warn, "a pooler such as PgBouncer", "pool_mode = session")
}

func startPooler(t *testing.T, server string) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go pass(t.Context(), client, server)
		}
	}()
	t.Cleanup(func() { require.NoError(t, listener.Close()); <-ended })
	return listener.Addr().String()
}

// pass passes on what both sides say, but for the process id in BackendKeyData, until one of them ends.
func pass(ctx context.Context, client net.Conn, server string) {
	defer func() { _ = client.Close() }()
	upstream, err := new(net.Dialer).DialContext(ctx, "tcp", server)
	if err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(upstream, client)
		_ = upstream.Close()
	}()
	head := make([]byte, 5)
	for {
		if _, err := io.ReadFull(upstream, head); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(upstream, body); err != nil {
			return
		}
		if head[0] == 'K' {
			binary.BigEndian.PutUint32(body, 1)
		}
		if _, err := client.Write(append(head[:5:5], body...)); err != nil {
			return
		}
	}
}
