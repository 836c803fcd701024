package devstack_test

import (
	"bytes"
	"context"
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
	// The test's context ends before its cleanup: killed then, the server would leave its shared memory behind.
	cmd := server.Command(context.WithoutCancel(t.Context()), "postgres", "-D", dataDir, "-c", setting, "-c", "listen_addresses=", "-c", "unix_socket_directories="+dataDir)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	ready := func() bool {
		content, _ := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
		return bytes.HasPrefix(content, []byte(strconv.Itoa(cmd.Process.Pid)+"\n")) && bytes.Contains(content, []byte("ready"))
	}
	eventually(t, ready)
	return cmd.Process.Pid
}
