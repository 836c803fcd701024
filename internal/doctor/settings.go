package doctor

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// setting is a row of pg_settings, as this session has it.
type setting struct {
	Name string
	// Value is in the unit of pg_settings, Shown as people write it.
	Value, Shown string
	// Source says where the value comes from, Context what it takes to change it.
	Source, Context string
}

// number returns the value of a numeric setting, 0 of one that the server does not know.
func (s setting) number() int {
	n, err := strconv.Atoi(s.Value)
	if err != nil {
		return 0
	}
	return n
}

// rule is a setting that hurts when it is bad, and why. Where a server does not know the setting the rule is left out. There
// is none about statement_timeout and idle_in_transaction_session_timeout: our connections set them.
type rule struct {
	name   string
	bad    func(s setting) bool
	status Status
	why    string
	better string
}

var rules = []rule{
	{"fsync", is("off"), Fail, "a crash of the machine may destroy the database", "on"},
	{"full_page_writes", is("off"), Fail, "a crash of the machine may destroy pages", "on"},
	{"synchronous_commit", is("off"), Warn, "a crash loses what was acknowledged a moment before", "on"},
	{"wal_level", is("minimal"), Warn, "neither a standby nor a restore to a point in time is possible", "replica"},
	{"max_wal_size", atMost(1024), Warn, "the default: under writes one checkpoint follows another", "4GB"},
	{"autovacuum", is("off"), Warn, "dead rows stay, and transaction ids run out", "on"},
	{"track_counts", is("off"), Warn, "autovacuum does not see what to do", "on"},
	{"default_transaction_read_only", is("on"), Fail, "nothing can be written", "off"},
	{"default_transaction_isolation", isNot("read committed"), Warn, "transactions fail that would have waited for each other", "read committed"},
	{"idle_session_timeout", atLeast(1), Warn, "it ends idle connections of the pools, and the one on which River listens", "0"},
	{"transaction_timeout", between(1, messages.MaxTimeout), Warn, "it ends transactions before the longest deadline of a request", "0"},
}

func is(value string) func(setting) bool { return func(s setting) bool { return s.Value == value } }

func isNot(value string) func(setting) bool { return func(s setting) bool { return s.Value != value } }

func atMost(n int) func(setting) bool { return func(s setting) bool { return s.number() <= n } }

func atLeast(n int) func(setting) bool { return func(s setting) bool { return s.number() >= n } }

// between is for settings in milliseconds; the end is not included.
func between(least int, end time.Duration) func(setting) bool {
	return func(s setting) bool { return s.number() >= least && s.number() < int(end.Milliseconds()) }
}

// notes are settings that are neither good nor bad, with a word about them when they have this value.
var notes = []struct{ name, value, word string }{
	{"track_io_timing", "off", "with it on the server tells how long it waits for disks"},
}

func readSettings(ctx context.Context, pool *postgres.Pool) (map[string]setting, error) {
	const sql = `SELECT name, setting, current_setting(name), source, context FROM pg_settings WHERE name = ANY ($1)`
	names := []string{
		"max_connections", "superuser_reserved_connections", "reserved_connections", "shared_buffers", "shared_preload_libraries",
		"autovacuum_freeze_max_age", "vacuum_failsafe_age",
	}
	for _, r := range rules {
		names = append(names, r.name)
	}
	for _, n := range notes {
		names = append(names, n.name)
	}
	list, err := readAll[setting](ctx, pool, sql, names)
	settings := map[string]setting{}
	for _, s := range list {
		settings[s.Name] = s
	}
	return settings, err
}

func (d *database) examineSettings() []Finding {
	var findings []Finding
	for _, r := range rules {
		s, known := d.settings[r.name]
		if !known {
			continue
		}
		f := ok("postgres."+r.name, "%s", s.Shown)
		if r.bad(s) {
			f.Seen += ": " + r.why
			f = f.with(r.status, d.server.change(s, r.better))
		}
		findings = append(findings, f)
	}
	for _, n := range notes {
		s := d.settings[n.name]
		f := ok("postgres."+n.name, "%s", s.Shown)
		if s.Value == n.value {
			f.Seen += ": " + n.word
		}
		findings = append(findings, f)
	}
	return append(findings, judgeSharedBuffers(d.settings["shared_buffers"], d.server, config.Memory()))
}

// change returns what brings a setting to a better value, or back to that of the server, by where its value comes from.
func (s server) change(bad setting, better string) string {
	switch bad.Source {
	case "database":
		return fmt.Sprintf("ALTER DATABASE %s RESET %s;", quoted(s.Database), bad.Name)
	case "user":
		return fmt.Sprintf("ALTER ROLE %s RESET %s;", quoted(s.Role), bad.Name)
	case "database user":
		return fmt.Sprintf("ALTER ROLE %s IN DATABASE %s RESET %s;", quoted(s.Role), quoted(s.Database), bad.Name)
	case "global":
		return fmt.Sprintf("ALTER ROLE ALL RESET %s;", bad.Name)
	case "client":
		return fmt.Sprintf("take %s out of MORELLO_DATABASE_URL and PGOPTIONS", bad.Name)
	case "command line":
		return fmt.Sprintf("restart PostgreSQL with -c %s=%s", bad.Name, literal(better))
	}
	set := fmt.Sprintf("ALTER SYSTEM SET %s = %s;", bad.Name, literal(better))
	if bad.Context == "postmaster" {
		return set + "   -- and restart PostgreSQL"
	}
	return set + " SELECT pg_reload_conf();"
}

const (
	bufferBytes = 8 << 10
	// defaultBuffers is what initdb writes: 128 MB.
	defaultBuffers = 128 << 20 / bufferBytes
)

// judgeSharedBuffers finds fault with the default alone: who has chosen a value has had reasons. The memory of another machine
// is not known.
func judgeSharedBuffers(s setting, on server, memory int64) Finding {
	f := ok("postgres.shared_buffers", "%s", s.Shown)
	enough := on.Local && int64(s.number())*bufferBytes >= memory/8
	if s.number() > defaultBuffers || enough {
		return f
	}
	f.Seen += ": the default; a quarter of the memory of its machine is usual"
	better := "1GB"
	if on.Local {
		f.Seen = fmt.Sprintf("%s: the default, and less than an eighth of the %d MB of memory; a quarter is usual", s.Shown, memory>>20)
		better = fmt.Sprintf("%dMB", memory/4>>20)
	}
	return f.warn(on.change(s, better))
}
