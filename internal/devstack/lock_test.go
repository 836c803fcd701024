package devstack_test

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack"
)

func TestLockFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	synctest.Test(t, func(t *testing.T) {
		unlock, err := devstack.LockFile(t.Context(), path)
		require.NoError(t, err)
		_, err = devstack.TryLockFile(path)
		require.ErrorContains(t, err, "locked by another process")

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = devstack.LockFile(ctx, path)
		require.ErrorIs(t, err, context.DeadlineExceeded)

		time.AfterFunc(time.Minute, unlock)
		unlock, err = devstack.LockFile(t.Context(), path)
		require.NoError(t, err)
		unlock()
	})
}

func TestLockFileInMissingFolder(t *testing.T) {
	t.Parallel()
	_, err := devstack.LockFile(t.Context(), filepath.Join(t.TempDir(), "absent", "lock"))
	require.ErrorContains(t, err, "no such file or directory")
}
