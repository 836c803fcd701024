package devtest_test

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
)

func TestTool(t *testing.T) {
	t.Parallel()
	const stringer = "golang.org/x/tools/cmd/stringer@v0.52.0" // small, and in the module cache already
	tool := devtest.Tool(t, stringer)
	require.Equal(t, filepath.Join("tools", "stringer@v0.52.0", "stringer"), lastElements(tool, 3))
	out, err := exec.CommandContext(t.Context(), tool, "-h").CombinedOutput()
	require.NoError(t, err)
	require.Contains(t, string(out), "Usage of stringer")
	require.Equal(t, tool, devtest.Tool(t, stringer))
}

func TestToolErrors(t *testing.T) {
	t.Parallel()
	for _, unversioned := range []string{"golang.org/x/tools/cmd/stringer", "golang.org/x/tools/cmd/stringer@latest"} {
		_, err := devtest.FindTool(t.Context(), unversioned)
		require.ErrorContains(t, err, "name a version")
	}
	for range 2 { // a failure leaves nothing that looks like a tool
		_, err := devtest.FindTool(t.Context(), "golang.org/x/tools/cmd/absent@v0.52.0")
		require.ErrorContains(t, err, "does not contain package")
	}
}

func lastElements(path string, n int) string {
	last := ""
	for range n {
		last = filepath.Join(filepath.Base(path), last)
		path = filepath.Dir(path)
	}
	return last
}
