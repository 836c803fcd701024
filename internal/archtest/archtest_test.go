package archtest

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/tools/txtar"
)

var rules = map[string]func(*tree) []string{
	"imports":          checkImports,
	"package comments": checkPackageComments,
	"endpoints":        checkEndpoints,
	"goldens":          checkGoldens,
	"leftovers":        checkLeftovers,
	"dependencies":     checkDependencies,
	"environment":      checkEnvironment,
}

func TestRepository(t *testing.T) {
	t.Parallel()
	repository, err := readTree(os.DirFS("../.."))
	require.NoError(t, err)
	require.NotEmpty(t, directDependencies(string(repository.content["go.mod"])))
	require.NotEmpty(t, declaredEndpoints(repository))
	for name, check := range rules {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Empty(t, strings.Join(check(repository), "\n"))
		})
	}
}

func parse(t *testing.T, archive string) *tree {
	t.Helper()
	files, err := txtar.FS(txtar.Parse([]byte(archive)))
	require.NoError(t, err)
	parsed, err := readTree(files)
	require.NoError(t, err)
	return parsed
}

// TestRules runs each rule on trees that keep it (no faults) and on trees that break it.
func TestRules(t *testing.T) {
	t.Parallel()
	for _, c := range ruleCases {
		t.Run(c.rule+": "+c.name, func(t *testing.T) {
			t.Parallel()
			faults := rules[c.rule](parse(t, c.tree))
			require.Len(t, faults, len(c.faults), "%s", strings.Join(faults, "\n"))
			for i, fault := range c.faults {
				require.Contains(t, faults[i], fault)
			}
		})
	}
}

func TestEveryRuleIsShownToFail(t *testing.T) {
	t.Parallel()
	kept, broken := map[string]bool{}, map[string]bool{}
	for _, c := range ruleCases {
		if len(c.faults) == 0 {
			kept[c.rule] = true
		} else {
			broken[c.rule] = true
		}
	}
	for name := range rules {
		require.True(t, kept[name], "%s: no tree that keeps it", name)
		require.True(t, broken[name], "%s: no tree that breaks it", name)
	}
}

func TestReadTreeRefusesFilesThatDoNotParse(t *testing.T) {
	t.Parallel()
	files, err := txtar.FS(txtar.Parse([]byte("-- client/x.go --\npackage client\nfunc {\n")))
	require.NoError(t, err)
	_, err = readTree(files)
	require.ErrorContains(t, err, "client/x.go:2")
}
