package doctor_test

import (
	"context"
	"log/slog"
	"net"
	"net/url"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/devstack"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/doctor"
	"github.com/ai-cherry/morello/internal/scheduler"
	"github.com/ai-cherry/morello/internal/worker"
)

// goodSettings are those of a server that nothing is wrong with.
var goodSettings = map[string]string{
	"fsync": "on", "full_page_writes": "on", "max_wal_size": "4GB", "shared_buffers": "160MB", "track_io_timing": "on",
}

// TestAllWell runs a worker and a scheduler on a server with good settings: nothing is wrong.
func TestAllWell(t *testing.T) {
	t.Parallel()
	databaseURL, natsURL := devtest.ServerWithSettings(t, goodSettings).URL("morello"), devtest.NATS(t).URL()
	startPrograms(t, config.Config{DatabaseURL: databaseURL, NATSURL: natsURL, HealthAddr: config.HealthOff, PoolCeiling: 4, MaxInFlight: 64})

	found := examine(t, databaseURL, natsURL)
	require.Subset(t, []string{"postgres.statistics"}, bad(found), "the server may have no pg_stat_statements: %+v", found)
	requireFinding(t, found, "config.version", doctor.OK, config.Version, "")
	requireFinding(t, found, "postgres.reachable", doctor.OK, "postgres://morello@127.0.0.1", "")
	requireFinding(t, found, "postgres.version", doctor.OK, "PostgreSQL 1", "")
	requireFinding(t, found, "postgres.pooler", doctor.OK, "none between", "")
	requireFinding(t, found, "postgres.connections", doctor.OK, "workers (1) and schedulers (1) open up to 45", "")
	requireFinding(t, found, "postgres.shared_buffers", doctor.OK, "160MB", "")
	requireFinding(t, found, "nats.max_payload", doctor.OK, "8388608 bytes", "")
	requireFinding(t, found, "nats.events", doctor.OK, "MORELLO_EVENTS takes morello.events.v1.*.session.>, morello.events.v1.*.maintenance.>", "")
	requireFinding(t, found, "workers.leases", doctor.OK, "live: workers (1), schedulers (1)", "")
	requireFinding(t, found, "workers.answer", doctor.OK, "1 answered", "")
	requireFinding(t, found, "workers.versions", doctor.OK, config.Version+" (1), as this program", "")
}

// startPrograms runs a worker and a scheduler until the test ends.
func startPrograms(t *testing.T, cfg config.Config) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	log := slog.New(slog.DiscardHandler)
	ready, ended := make(chan struct{}, 2), make(chan error, 2)
	onReady := func() { ready <- struct{}{} }
	go func() { ended <- worker.Run(ctx, worker.Config{Config: cfg, OnReady: onReady, Log: log}) }()
	go func() { ended <- scheduler.Run(ctx, scheduler.Config{Config: cfg, OnReady: onReady, Log: log}) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
		require.NoError(t, <-ended)
	})
	for range 2 {
		select {
		case <-ready:
		case err := <-ended:
			ended <- err
			t.Fatalf("a program has ended: %v", err)
		}
	}
}

// TestPostgresDown: NATS is examined all the same.
func TestPostgresDown(t *testing.T) {
	t.Parallel()
	found := examine(t, "postgres://morello:hunter2@"+nowhere+"/morello", devtest.NATS(t).URL())
	requireFinding(t, found, "postgres.reachable", doctor.Fail, "postgres://morello@127.0.0.1:1/morello: dial tcp 127.0.0.1:1", "MORELLO_DATABASE_URL")
	requireFinding(t, found, "nats.reachable", doctor.OK, "round trip", "")
	requireFinding(t, found, "nats.events", doctor.Warn, "MORELLO_EVENTS does not exist", "restart the schedulers")
	requireFinding(t, found, "workers.answer", doctor.OK, "0 answered", "")
	requireFinding(t, found, "workers.versions", doctor.OK, "no worker", "")
	require.NotContains(t, found, "workers.leases")
	require.NotContains(t, found, "postgres.version")
	requireNoSecret(t, found)
}

// TestNATSDown: PostgreSQL is examined all the same.
func TestNATSDown(t *testing.T) {
	t.Parallel()
	found := examine(t, devtest.Database(t), "nats://operator:hunter2@"+nowhere)
	requireFinding(t, found, "nats.reachable", doctor.Fail, "nats://operator@127.0.0.1:1: nats: no servers available", "MORELLO_NATS_URL")
	requireFinding(t, found, "postgres.schema", doctor.OK, "at version", "")
	requireFinding(t, found, "workers.leases", doctor.Warn, "nobody answers requests", "worker")
	require.NotContains(t, found, "nats.version")
	require.NotContains(t, found, "workers.answer")
	requireNoSecret(t, found)
}

func requireNoSecret(t *testing.T, found map[string]doctor.Finding) {
	t.Helper()
	for _, f := range found {
		require.NotContains(t, f.Seen+f.Mend, "hunter2")
	}
}

// TestMalformedURLs: a URL that cannot be read may hold a password anywhere.
func TestMalformedURLs(t *testing.T) {
	t.Parallel()
	found := examine(t, "postgres://u:hunter2%zz@127.0.0.1/db", "nats://u:hunter2%zz@127.0.0.1")
	requireFinding(t, found, "postgres.reachable", doctor.Fail, "malformed", "MORELLO_DATABASE_URL")
	requireFinding(t, found, "nats.reachable", doctor.Fail, "malformed", "MORELLO_NATS_URL")
	requireNoSecret(t, found)
}

// TestRefused: both servers are there, and refuse who asks.
func TestRefused(t *testing.T) {
	t.Parallel()
	natsURL := startNATS(t, devstack.NATSConfig{}, `authorization { user: operator, password: right }`)
	natsURL = change(t, natsURL, func(u *url.URL) { u.User = url.UserPassword("operator", "hunter2") })
	absent := change(t, devtest.Database(t), func(u *url.URL) { u.Path += "_absent" })
	found := examine(t, absent, natsURL)
	requireFinding(t, found, "postgres.reachable", doctor.Fail, "does not exist", "createdb")
	requireFinding(t, found, "nats.reachable", doctor.Fail, "Authorization Violation", "check user and password")
	requireNoSecret(t, found)

	unknown := change(t, devtest.Database(t), func(u *url.URL) { u.User = url.UserPassword("nobody", "hunter2") })
	found = examine(t, unknown, natsURL)
	requireFinding(t, found, "postgres.reachable", doctor.Fail, `"nobody"`, "check user and password")
	requireNoSecret(t, found)
}

// TestSilentServers: servers that take the connection and say nothing hold nobody up.
func TestSilentServers(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, listener.Close()) }()
	address := listener.Addr().String()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, context.DeadlineExceeded)
	defer cancel()
	begin := time.Now()
	found := examineConfig(t, ctx, config.Config{DatabaseURL: "postgres://morello@" + address + "/morello", NATSURL: "nats://" + address})
	require.Less(t, time.Since(begin), 10*time.Second)
	requireFinding(t, found, "postgres.reachable", doctor.Fail, "deadline exceeded", "start PostgreSQL")
	requireFinding(t, found, "nats.reachable", doctor.Fail, "", "start nats-server")
}

// TestPoorNATS: small messages only, and no JetStream.
func TestPoorNATS(t *testing.T) {
	t.Parallel()
	natsURL := startNATS(t, devstack.NATSConfig{NoJetStream: true}, `max_payload: 1MB`)
	found := examine(t, devtest.Database(t), natsURL)
	requireFinding(t, found, "nats.max_payload", doctor.Warn, "1048576 bytes, less than 8388608", "max_payload: 8MB")
	requireFinding(t, found, "nats.events", doctor.Fail, "JetStream is not enabled", "jetstream {")
}

// TestLoginsOfDeployNATS: the operator may ask all that is asked, a worker's login may not, and is told so.
func TestLoginsOfDeployNATS(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/nats/nats-server.conf")
	require.NoError(t, err)
	natsURL := startNATS(t, devstack.NATSConfig{}, regexp.MustCompile(`\$MORELLO_\w+`).ReplaceAllString(string(text), "hunter2"))
	as := func(user string) map[string]doctor.Finding {
		found := examine(t, "postgres://"+nowhere+"/morello", change(t, natsURL, func(u *url.URL) { u.User = url.UserPassword(user, "hunter2") }))
		requireFinding(t, found, "nats.reachable", doctor.OK, "nats://"+user+"@127.0.0.1", "")
		requireFinding(t, found, "nats.max_payload", doctor.OK, "8388608", "")
		requireNoSecret(t, found)
		return found
	}
	requireFinding(t, as("_operator"), "nats.events", doctor.Warn, "does not exist", "restart the schedulers")
	requireFinding(t, as("_worker"), "nats.events", doctor.Warn, "could not be examined: no answer within 2s", "$JS.API.STREAM.INFO.MORELLO_EVENTS")
}

// TestNATSUserWithFewGrants: who may not ask is told what is missing, soon.
func TestNATSUserWithFewGrants(t *testing.T) {
	t.Parallel()
	natsURL := startNATS(t, devstack.NATSConfig{}, `max_payload: 8MB
authorization { users: [{ user: few, password: few, permissions { publish: ["none"], subscribe: ["_INBOX.>"] } }] }`)
	found := examine(t, "postgres://"+nowhere+"/morello", change(t, natsURL, func(u *url.URL) { u.User = url.UserPassword("few", "few") }))
	requireFinding(t, found, "nats.events", doctor.Warn, "could not be examined: no answer within 2s", "$JS.API.STREAM.INFO.MORELLO_EVENTS")
	requireFinding(t, found, "workers.answer", doctor.OK, "0 answered", "")
}

// TestUnknownVariable cannot run in parallel: the settings come from the environment.
func TestUnknownVariable(t *testing.T) {
	t.Setenv("MORELLO_NATS_URI", "nats://hunter2")
	t.Setenv("MORELLO_DATABASE_URL", "postgres://"+nowhere+"/morello")
	t.Setenv("MORELLO_NATS_URL", "nats://"+nowhere)
	cfg, err := config.Load()
	require.NoError(t, err)
	found := examineConfig(t, t.Context(), cfg)
	requireFinding(t, found, "config.unknown", doctor.Warn, "MORELLO_NATS_URI", "unset MORELLO_NATS_URI")
	requireNoSecret(t, found)
}

// TestOrder: two runs list the same checks in the same order.
func TestOrder(t *testing.T) {
	t.Parallel()
	cfg := doctor.Config{
		Config:  config.Config{DatabaseURL: devtest.Database(t), NATSURL: devtest.NATS(t).URL()},
		Program: "operator", Instance: uuid.NewString(), WorkerConns: 1, SchedulerConns: 1,
	}
	names := func() (list []string) {
		for _, f := range doctor.Run(t.Context(), cfg) {
			list = append(list, f.Check)
		}
		return list
	}
	first := names()
	require.Greater(t, len(first), 30)
	require.Equal(t, first, names())
}
