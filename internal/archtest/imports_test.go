package archtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

const anything = "*"

// capabilities are flat packages beside one another. The composition root joins them.
var capabilities = []string{
	"internal/cache", "internal/session", "internal/snapshot", "internal/transfer", "internal/registry",
	"internal/audit", "internal/knowledge", "internal/pool", "internal/system",
}

// mayImport is the table of docs/architecture.md: what the code of a package may import of our own. A path that ends
// in "/..." stands for the packages below a folder that have no row of their own. Every package has a row.
var mayImport = withCapabilities(map[string][]string{
	"messages":                  {},
	"messages/...":              {"messages"},
	"migrations":                {},
	"client":                    {"messages"},
	"internal/config":           {},
	"internal/health":           {},
	"internal/archtest":         {},
	"internal/bus":              {"messages"},
	"internal/bus/bustest":      {"messages", "internal/bus", "internal/devstack/devtest"},
	"internal/postgres":         {"messages", "migrations"},
	"internal/weaviate":         {"messages"},
	"internal/jobs":             {"messages", "internal/bus", "internal/postgres"},
	"internal/gateway":          {"messages", "internal/bus", "internal/config", "internal/health"},
	"internal/devstack":         {"migrations"},
	"internal/devstack/devtest": {"internal/devstack"},
	"internal/generate":         {"messages"},
	"internal/generate/...":     {"messages"},
	"internal/cli":              {"internal/config", "internal/health"},
	"internal/process":          {"messages", "internal/bus", "internal/config", "internal/health", "internal/postgres"},
	"internal/doctor":           {"messages", "internal/bus", "internal/config", "internal/postgres"},
	"internal/worker":           {anything},
	"internal/scheduler":        {anything},
	"internal/bench":            {anything},
	"cmd/...":                   {anything},
	"deploy/compose":            {},
	"deploy/nats":               {},
	"examples/...":              {},
})

// testsMayImport is what the tests of every package may import beyond what its code may.
var testsMayImport = []string{"internal/devstack", "internal/devstack/devtest", "internal/bus/bustest"}

// testsAlsoMayImport is what some tests may import besides. Those of what agents use run against the real worker, on a
// migrated database, because a client that works with a stand-in shows nothing; that of the containers knows the settings.
var testsAlsoMayImport = map[string][]string{
	"client":          realWorker,
	"deploy/compose":  {"internal/config"},
	"internal/doctor": {"internal/worker", "internal/scheduler"},
	"examples/...":    realWorker,
}

var realWorker = []string{"internal/worker", "internal/config", "internal/postgres"}

// natsImporters are the only packages, with those below them, whose code imports nats.go.
var natsImporters = []string{"client", "internal/bus", "internal/devstack", "internal/bench"}

const natsModule = "github.com/nats-io/nats.go"

func withCapabilities(table map[string][]string) map[string][]string {
	for _, capability := range capabilities {
		table[capability] = []string{"messages", "internal/bus", "internal/postgres", "internal/jobs"}
	}
	table["internal/knowledge"] = append(table["internal/knowledge"], "internal/weaviate")
	return table
}

// checkImports: packages import only what the table allows.
func checkImports(t *tree) []string {
	var faults []string
	for _, p := range t.packages {
		allowed, known := row(mayImport, p.dir)
		if !known {
			faults = append(faults, fmt.Sprintf(
				"%s: not in the import table: add it to mayImport in internal/archtest and to docs/architecture.md", p.dir))
			continue
		}
		for _, file := range p.files {
			for _, imported := range slices.Sorted(maps.Keys(file.imports())) {
				if why := forbidden(p.dir, file.test, imported, allowed); why != "" {
					faults = append(faults, fmt.Sprintf("%s: imports %s: %s", file.path, imported, why))
				}
			}
		}
	}
	return faults
}

// row finds the row of a folder: its own, or that of the nearest folder above it with "/...".
func row(table map[string][]string, dir string) ([]string, bool) {
	if allowed, ok := table[dir]; ok {
		return allowed, true
	}
	for i := strings.LastIndexByte(dir, '/'); i > 0; i = strings.LastIndexByte(dir[:i], '/') {
		if allowed, ok := table[dir[:i]+"/..."]; ok {
			return allowed, true
		}
	}
	return nil, false
}

// forbidden returns why a file in dir may not import the path, or nothing.
func forbidden(dir string, test bool, imported string, allowed []string) string {
	if below(imported, natsModule) && !test && !below(dir, natsImporters...) {
		return "only " + strings.Join(natsImporters, ", ") + " import nats.go"
	}
	own, ours := strings.CutPrefix(imported, module+"/")
	also, _ := row(testsAlsoMayImport, dir)
	switch {
	case imported == module:
		return "the root is no package"
	case !ours, own == dir, slices.Contains(allowed, own), slices.Contains(allowed, anything):
		return ""
	case test && (slices.Contains(testsMayImport, own) || slices.Contains(also, own)):
		return ""
	case slices.Contains(capabilities, dir) && slices.Contains(capabilities, own):
		return "a capability never imports another: the composition root passes a function value"
	case len(allowed) == 0:
		return "it may import nothing of ours"
	}
	return "of our own it may import only " + strings.Join(allowed, ", ")
}
