package doctor

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/postgres"
)

// TestJudgements: what a test cannot have in a real server, such as age.
func TestJudgements(t *testing.T) {
	t.Parallel()
	one := postgres.Worker{Instance: "one", Host: "alpha"}
	two := postgres.Worker{Instance: "two", Host: "beta"}
	answer := func(instance, version string) bus.Member { return bus.Member{Instance: instance, Version: version} }
	both := leases{known: true, workers: []postgres.Worker{one, two}, schedulers: []postgres.Worker{{Instance: "s"}}}
	cfg := Config{WorkerConns: 20, SchedulerConns: 25}
	million := 1_000_000
	for _, c := range []struct {
		name       string
		got        Finding
		status     Status
		seen, mend string
	}{
		{"clock", judgeClock(time.Millisecond, 2*time.Millisecond), OK, "round trip 2ms", ""},
		{"clock within a slow round trip", judgeClock(3*time.Second, 4*time.Second), OK, "agree", ""},
		{"clock ahead", judgeClock(3*time.Second, time.Millisecond), Warn, "2.999s ahead", "set-ntp"},
		{"clock behind", judgeClock(-2*time.Second, time.Millisecond), Warn, "-2s ahead", "set-ntp"},
		{"young ids", judgeTransactionIDs(250*million, 200*million, 1600*million), OK, "250 million", ""},
		{"old ids", judgeTransactionIDs(401*million, 200*million, 1600*million), Warn, "near 200 million", "vacuumdb"},
		{"ids that end", judgeTransactionIDs(1601*million, 200*million, 1600*million), Fail, "stops taking writes", "vacuumdb"},
		{"old transactions", judgeOldTransactions([]oldTransaction{{42, "psql", 3661}, {43, "x", 400}}), Warn, "2 older than 5m0s, the oldest for 1h1m1s by psql", "pg_terminate_backend(42)"},
		{"prepared", judgePreparedTransactions([]preparedTransaction{{"it's", 60}}), Warn, "1 left over", "ROLLBACK PREPARED 'it''s';"},
		{"connections for all", judgeConnections(65, 3, both, cfg), OK, "workers (2) and schedulers (1) open up to 65", ""},
		{"connections for one", judgeConnections(64, 3, both, cfg), Warn, "64 to be had", "max_connections = 140"},
		{"connections for none", judgeConnections(44, 3, both, cfg), Fail, "44 to be had", "MORELLO_POOL_CEILING"},
		{"an old server", (&database{server: server{Version: 140_011, VersionText: "14.11"}}).version(), Warn, "PostgreSQL 14.11", "15"},
		{"a standby", (&database{server: server{Standby: true}}).primary(), Fail, "takes no writes", "primary"},
		{"default buffers elsewhere", judgeSharedBuffers(setting{Name: "shared_buffers", Value: "16384", Shown: "128MB", Context: "postmaster"}, server{}, 1<<30), Warn, "128MB", "shared_buffers = '1GB';   -- and restart"},
		{"default buffers, little memory", judgeSharedBuffers(setting{Value: "16384", Shown: "128MB"}, server{Local: true}, 1<<30), OK, "128MB", ""},
		{"default buffers here", judgeSharedBuffers(setting{Name: "shared_buffers", Value: "16384", Shown: "128MB"}, server{Local: true}, 16<<30), Warn, "16384 MB", "'4096MB'"},
		{"all answer", judgeAnswers(both, answers{true, []bus.Member{answer("one", "1"), answer("two", "1")}}), OK, "2 answered", ""},
		{"one is silent", judgeAnswers(both, answers{true, []bus.Member{answer("two", "1")}}), Warn, "silent, though their lease is live: one on alpha", "MORELLO_NATS_URL"},
		{"all are silent", judgeAnswers(both, answers{known: true}), Fail, "one on alpha, two on beta", "MORELLO_NATS_URL"},
		{"a stranger", judgeAnswers(both, answers{true, []bus.Member{answer("one", "1"), answer("two", "1"), answer("three", "1")}}), Warn, "without a lease in this database: three", "MORELLO_DATABASE_URL"},
		{"other versions", judgeVersions([]bus.Member{answer("one", "9.9.9"), answer("two", "9.9.9"), answer("three", config.Version)}), Warn, "9.9.9 (2)", "one version"},
		{"another version", judgeVersions([]bus.Member{answer("one", "9.9.9")}), Warn, "this program is " + config.Version, "one version"},
		{"no scheduler", judgeLeases(leases{known: true, workers: both.workers}), Warn, "workers (2), schedulers (0)", "scheduler"},
	} {
		require.Equal(t, c.status, c.got.Status, "%s: %+v", c.name, c.got)
		require.Contains(t, c.got.Seen, c.seen, c.name)
		require.Contains(t, c.got.Mend, c.mend, c.name)
	}
}

func TestListed(t *testing.T) {
	t.Parallel()
	require.Equal(t, "a, b", listed([]string{"a", "b"}))
	seven := []string{"a", "b", "c", "d", "e", "f", "g"}
	require.Equal(t, "a, b, c, d, e, and 2 more", listed(seven))
	require.Equal(t, "f", seven[5], "the list is left alone")
}
