package devstack_test

import (
	"bytes"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
)

func TestStartRefusesDataDirInUse(t *testing.T) {
	t.Parallel()
	dataDir := filepath.Join(openDir(t), "data")
	server := start(t, quick(dataDir))
	_, err := devstack.StartPostgres(t.Context(), quick(dataDir))
	require.ErrorContains(t, err, "is in use by the PostgreSQL server with process id "+strconv.Itoa(server.PID()))
	require.True(t, devstack.Alive(server.PID()))
}

// After a crash of the machine the process id in postmaster.pid may be anybody's.
func TestRestartWhenProcessIDCameRoundAgain(t *testing.T) {
	t.Parallel()
	server := devtest.Server(t)
	dataDir := query[string](t, server.URL("postgres"), `SHOW data_directory`)
	require.NoError(t, server.Kill())

	other := osexec.CommandContext(t.Context(), "cat")
	stdin, err := other.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, other.Start())
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = other.Wait()
	})
	lock := filepath.Join(dataDir, "postmaster.pid")
	content, err := os.ReadFile(lock)
	require.NoError(t, err)
	_, rest, found := bytes.Cut(content, []byte("\n"))
	require.True(t, found)
	require.NoError(t, os.WriteFile(lock, append([]byte(strconv.Itoa(other.Process.Pid)+"\n"), rest...), 0o600))

	require.NoError(t, server.Restart(t.Context()))
	require.True(t, devstack.Alive(other.Process.Pid), "the innocent process was left alone")
}

func TestRestartStopsOrphan(t *testing.T) {
	t.Parallel()
	server := devtest.Server(t)
	dataDir := query[string](t, server.URL("postgres"), `SHOW data_directory`)
	require.NoError(t, server.Stop(t.Context()))

	// A server whose mark names another process than its parent: process 1 stands for one that has died.
	orphan := startByHand(t, server, dataDir, "cluster_name=morello/1")
	require.NoError(t, server.Restart(t.Context()))
	require.False(t, devstack.Alive(orphan))
}

func TestRestartRefusesForeignServer(t *testing.T) {
	t.Parallel()
	server := devtest.Server(t)
	dataDir := query[string](t, server.URL("postgres"), `SHOW data_directory`)
	require.NoError(t, server.Stop(t.Context()))

	foreign := startByHand(t, server, dataDir, "cluster_name=production")
	require.ErrorContains(t, server.Restart(t.Context()), "is in use")
	require.True(t, devstack.Alive(foreign))
}

// startByHand starts the server's program, as its user, without its knowledge.
func startByHand(t *testing.T, server *devstack.Postgres, dataDir, setting string) (pid int) {
	t.Helper()
	cmd := server.Command(t.Context(), "postgres", "-D", dataDir, "-c", setting, "-c", "listen_addresses=", "-c", "unix_socket_directories=")
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	ready := func() bool {
		content, _ := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
		return bytes.HasPrefix(content, []byte(strconv.Itoa(cmd.Process.Pid)+"\n")) && bytes.Contains(content, []byte("ready"))
	}
	require.NoError(t, devstack.Poll(t.Context(), ready))
	return cmd.Process.Pid
}

func TestNewServerStopsWithItsKilledParent(t *testing.T) {
	t.Parallel()
	dataDir := filepath.Join(openDir(t), "data")
	parent := osexec.CommandContext(t.Context(), os.Args[0], childCommand, dataDir)
	_, err := parent.StdinPipe() // never closed: the child waits
	require.NoError(t, err)
	stdout, err := parent.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, parent.Start())
	line := make([]byte, 32)
	n, err := stdout.Read(line)
	require.NoError(t, err)
	pid, err := strconv.Atoi(string(bytes.TrimSpace(line[:n])))
	require.NoError(t, err)
	require.True(t, devstack.Alive(pid))

	require.NoError(t, parent.Process.Kill())
	_ = parent.Wait()
	// On Linux it stops by itself; elsewhere, and if it is still busy stopping, the next start stops it.
	server := start(t, quick(dataDir))
	require.False(t, devstack.Alive(pid))
	require.NotEqual(t, pid, server.PID())
}
