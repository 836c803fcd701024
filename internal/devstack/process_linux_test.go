package devstack_test

import (
	"bufio"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack"
)

func TestPostgresDoesNotOutliveKilledParent(t *testing.T) {
	t.Parallel()
	parent := osexec.CommandContext(t.Context(), os.Args[0], childCommand, filepath.Join(openDir(t), "data"))
	stdin, err := parent.StdinPipe() // as long as it is open the parent waits
	require.NoError(t, err)
	t.Cleanup(func() { _ = stdin.Close() })
	stdout, err := parent.StdoutPipe()
	require.NoError(t, err)
	parent.Stderr = os.Stderr
	require.NoError(t, parent.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	server, err := strconv.Atoi(strings.TrimSpace(line))
	require.NoError(t, err)
	require.True(t, devstack.Alive(server))

	require.NoError(t, parent.Process.Kill())
	require.Error(t, parent.Wait())
	eventually(t, func() bool { return !devstack.Alive(server) })
}
