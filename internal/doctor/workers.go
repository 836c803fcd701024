package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/postgres"
)

// examineWorkers compares who holds a lease in PostgreSQL with who answers over NATS, as far as either is known.
func examineWorkers(leased leases, answered answers) []Finding {
	var findings []Finding
	if leased.known {
		findings = append(findings, judgeLeases(leased))
	}
	if answered.known {
		findings = append(findings, judgeAnswers(leased, answered), judgeVersions(answered.members))
	}
	return findings
}

func judgeLeases(leased leases) Finding {
	f := ok("workers.leases", "live: workers (%d), schedulers (%d)", len(leased.workers), len(leased.schedulers))
	switch {
	case len(leased.workers) == 0:
		f.Seen += ": nobody answers requests"
		return f.warn("worker   # with the same MORELLO_DATABASE_URL and MORELLO_NATS_URL")
	case len(leased.schedulers) == 0:
		f.Seen += ": nobody removes what has expired"
		return f.warn("scheduler   # with the same MORELLO_DATABASE_URL and MORELLO_NATS_URL")
	}
	return f
}

// judgeAnswers: a worker with a lease and no answer is cut off from NATS; one that answers without a lease has another database.
func judgeAnswers(leased leases, answered answers) Finding {
	f := ok("workers.answer", "%d answered over NATS", len(answered.members))
	if !leased.known {
		return f
	}
	var silent, foreign []string
	for _, w := range leased.workers {
		if !slices.ContainsFunc(answered.members, func(m bus.Member) bool { return m.Instance == w.Instance }) {
			silent = append(silent, w.Instance+" on "+w.Host)
		}
	}
	for _, m := range answered.members {
		if !slices.ContainsFunc(leased.workers, func(w postgres.Worker) bool { return w.Instance == m.Instance }) {
			foreign = append(foreign, m.Instance)
		}
	}
	switch {
	case len(silent) > 0:
		f.Seen += "; silent, though their lease is live: " + listed(silent)
		return f.with(silence(answered), "look at the log of these workers, and at their MORELLO_NATS_URL")
	case len(foreign) > 0:
		f.Seen += "; without a lease in this database: " + listed(foreign)
		return f.warn("compare MORELLO_DATABASE_URL of these workers with the one here")
	}
	return f
}

// silence of some is a warning; when nobody answers nothing works.
func silence(answered answers) Status {
	if len(answered.members) == 0 {
		return Fail
	}
	return Warn
}

func judgeVersions(members []bus.Member) Finding {
	count := map[string]int{}
	for _, m := range members {
		count[m.Version]++
	}
	var versions []string
	for version, n := range count {
		versions = append(versions, fmt.Sprintf("%s (%d)", version, n))
	}
	slices.Sort(versions)
	switch {
	case len(members) == 0:
		return ok("workers.versions", "no worker to compare with")
	case len(count) == 1 && count[config.Version] > 0:
		return ok("workers.versions", "%s, as this program", strings.Join(versions, ", "))
	}
	return ok("workers.versions", "%s; this program is %s", strings.Join(versions, ", "), config.Version).
		warn("bring all workers and schedulers to one version; until then what the newest brings answers only sometimes")
}
