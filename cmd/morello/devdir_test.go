package main

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func write(t *testing.T, file string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(t, os.WriteFile(file, []byte("{}"), 0o600))
	return file
}

func TestPrepareDataDirKeeps(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	version, stale, other := write(t, filepath.Join(dir, "postgres", "PG_VERSION")), write(t, filepath.Join(dir, devFile)), write(t, filepath.Join(dir, "notes.txt"))
	got, clean, err := prepareDataDir(devFlags{dataDir: dir})
	require.NoError(t, err)
	require.Equal(t, dir, got)
	require.NoFileExists(t, stale)
	require.NoError(t, clean())
	require.FileExists(t, version)
	require.FileExists(t, other)
	_, clean, err = prepareDataDir(devFlags{dataDir: dir})
	require.NoError(t, err, "it has been given back")
	require.NoError(t, clean())
}

func TestPrepareDataDirEmpties(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, file := range []string{"postgres/PG_VERSION", "nats/jetstream/x", devFile, "." + devFile, ".postgres.initdb-123/PG_VERSION", devLock} {
		write(t, filepath.Join(dir, file))
	}
	_, clean, err := prepareDataDir(devFlags{dataDir: dir, ephemeral: true})
	require.NoError(t, err)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	require.Equal(t, devLock, entries[0].Name())
	require.NoError(t, clean())
	require.NoDirExists(t, dir)
}

// TestPrepareDataDirRefuses: a folder with anything of somebody else's is left exactly as it is.
func TestPrepareDataDirRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	files := []string{write(t, filepath.Join(dir, "postgres", "PG_VERSION")), write(t, filepath.Join(dir, devFile)), write(t, filepath.Join(dir, "thesis.tex"))}
	_, _, err := prepareDataDir(devFlags{dataDir: dir, ephemeral: true})
	require.ErrorContains(t, err, `holds "thesis.tex"`)
	require.ErrorContains(t, err, dir)
	for _, file := range files {
		require.FileExists(t, file)
	}
	require.NoFileExists(t, filepath.Join(dir, devLock))
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
}

// TestPrepareDataDirInUse: a second morello dev must not empty the folder of the first, nor remove its dev.json.
func TestPrepareDataDirInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, clean, err := prepareDataDir(devFlags{dataDir: dir})
	require.NoError(t, err)
	used, version := write(t, filepath.Join(dir, devFile)), write(t, filepath.Join(dir, "postgres", "PG_VERSION"))
	for _, ephemeral := range []bool{false, true} {
		_, _, err = prepareDataDir(devFlags{dataDir: dir, ephemeral: ephemeral})
		require.ErrorContains(t, err, "--data-dir chooses another one")
		require.ErrorContains(t, err, "locked by another process")
		require.FileExists(t, used)
		require.FileExists(t, version)
	}
	require.NoError(t, clean())
}

func TestPrepareDataDirTemporary(t *testing.T) {
	t.Parallel()
	first, cleanFirst, err := prepareDataDir(devFlags{ephemeral: true})
	require.NoError(t, err)
	second, cleanSecond, err := prepareDataDir(devFlags{ephemeral: true})
	require.NoError(t, err)
	require.NotEqual(t, first, second)
	require.NoError(t, cleanFirst())
	require.NoError(t, cleanSecond())
	require.NoDirExists(t, first)
	require.NoDirExists(t, second)
}

func TestPrepareDataDirIsAFile(t *testing.T) {
	t.Parallel()
	_, _, err := prepareDataDir(devFlags{dataDir: filepath.Join(write(t, filepath.Join(t.TempDir(), "file")), "below")})
	require.ErrorContains(t, err, "data folder:")
	require.ErrorContains(t, err, "--data-dir chooses another one")
}

func TestCheckPort(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	taken := listener.Addr().(*net.TCPAddr).Port
	err = checkPort(t.Context(), taken, "--nats-port")
	require.ErrorContains(t, err, strconv.Itoa(taken))
	require.ErrorContains(t, err, "address already in use (--nats-port chooses another port, 0 a free one)")
	require.NoError(t, listener.Close())
	require.NoError(t, checkPort(t.Context(), taken, "--nats-port"))
	require.NoError(t, checkPort(t.Context(), 0, "--nats-port"))
	for _, port := range []int{-1, 65536} {
		require.ErrorContains(t, checkPort(t.Context(), port, "--http-port"), "--http-port", "%d is no port", port)
	}
}
