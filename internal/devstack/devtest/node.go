package devtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

const nodeTimeout = time.Minute

// NodeFolder copies files of a folder, package.json and package-lock.json among them, into a temporary one, installs there
// what the lock pins, without running anything of it, and returns the copy.
func NodeFolder(t testing.TB, folder string, files ...string) string {
	t.Helper()
	target := t.TempDir()
	for _, name := range append(files, "package.json", "package-lock.json") {
		text, err := os.ReadFile(filepath.Join(folder, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(target, name), text, 0o600)
		}
		if err != nil {
			t.Fatalf("devtest: %v", err)
		}
	}
	runNode(t, installTimeout, target, nil, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	return target
}

// Node runs node in a folder, with further environment variables, and returns what it prints.
func Node(t testing.TB, folder string, env []string, args ...string) string {
	t.Helper()
	return runNode(t, nodeTimeout, folder, env, "node", args...)
}

func runNode(t testing.TB, timeout time.Duration, folder string, env []string, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), timeout, fmt.Errorf("%s timeout (%s) exceeded", program, timeout))
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = folder, append(os.Environ(), env...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("devtest: %s: %v %v (it needs Node.js 18 or newer with npm, such as by apt-get install nodejs npm)\n%s\n%s",
			program, err, context.Cause(ctx), &out, &complaints)
	}
	return out.String()
}
