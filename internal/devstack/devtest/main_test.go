package devtest_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
)

// leakVariable makes TestLeaker, in a child process, leave a goroutine.
const leakVariable = "DEVTEST_LEAK"

func TestLeaker(t *testing.T) {
	t.Parallel()
	if os.Getenv(leakVariable) != "" {
		go func() { select {} }()
	}
}

func TestMainReportsLeaks(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestLeaker$")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))

	cmd = exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestLeaker$")
	cmd.Env = append(os.Environ(), leakVariable+"=yes")
	out, err = cmd.CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 1, exit.ExitCode())
	require.Contains(t, string(out), "goroutines left by the tests")
}

func TestMainOffersHiddenSubcommand(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), os.Args[0], "embedded-postgres").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "needs a directory and a repository URL")
}

func TestFailedMigrationIsNotRepeated(t *testing.T) {
	t.Parallel()
	calls := 0
	first, second, closing := devtest.NewDatabaseError(func(context.Context, string) error {
		calls++
		return errors.New("no such table")
	})
	require.EqualError(t, first, "migrate the template: no such table")
	require.Equal(t, first, second)
	require.NoError(t, closing)
	require.Equal(t, 1, calls)
}

func TestRemoveAbandoned(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	abandoned := filepath.Join(base, devtest.FolderPrefix+"1")
	used := filepath.Join(base, devtest.FolderPrefix+"2")
	stopping := filepath.Join(base, devtest.FolderPrefix+"3")
	other := filepath.Join(base, "other")
	for _, dir := range []string{abandoned, used, stopping, other} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "data"), 0o700))
	}
	lock := filepath.Join(stopping, "data", "postmaster.pid")
	require.NoError(t, os.WriteFile(lock, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600))
	unlock, err := devstack.TryLockFile(filepath.Join(used, "lock"))
	require.NoError(t, err)
	defer unlock()

	devtest.RemoveAbandoned(base)
	require.NoDirExists(t, abandoned)
	require.DirExists(t, used)
	require.DirExists(t, stopping)
	require.DirExists(t, other)
}
