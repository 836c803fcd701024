package devtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ai-cherry/morello/internal/devstack"
)

const installTimeout = 10 * time.Minute

// Tool returns the path of a Go program such as "github.com/nats-io/natscli/nats@v0.5.1". It is installed at first use into
// the user's cache and found there by later runs and other processes; our go.mod has no part in it.
func Tool(t testing.TB, pkgAtVersion string) string {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), installTimeout, fmt.Errorf("tool install timeout (%s) exceeded", installTimeout))
	defer cancel()
	tool, err := findTool(ctx, pkgAtVersion)
	if err != nil {
		t.Fatalf("devtest: tool %s: %v", pkgAtVersion, err)
	}
	return tool
}

func findTool(ctx context.Context, pkgAtVersion string) (string, error) {
	pkg, version, found := strings.Cut(pkgAtVersion, "@")
	if !found || version == "" || version == "latest" {
		return "", fmt.Errorf("name a version, as in %s@v1.2.3", pkg)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	tools := filepath.Join(cache, "morello", "tools")
	if err := os.MkdirAll(tools, 0o755); err != nil {
		return "", err
	}
	dir := filepath.Join(tools, path.Base(pkg)+"@"+version)
	unlock, err := devstack.LockFile(ctx, dir+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err != nil {
		if err := install(ctx, pkgAtVersion, dir); err != nil {
			return "", err
		}
	}
	return onlyFile(dir)
}

// install builds beside dir and renames, so that an interrupted build leaves nothing that looks like a tool.
func install(ctx context.Context, pkgAtVersion, dir string) error {
	fresh, err := os.MkdirTemp(filepath.Dir(dir), "installing-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(fresh) }()
	cmd := exec.CommandContext(ctx, "go", "install", pkgAtVersion)
	cmd.Dir = fresh
	cmd.Env = append(os.Environ(), "GOBIN="+fresh, "GOFLAGS=-mod=mod", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("go install: %w\n%s", err, bytes.TrimSpace(out))
	}
	return os.Rename(fresh, dir)
}

// onlyFile finds the program without guessing how `go install` named it (a package path may end in /v2).
func onlyFile(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	if len(entries) != 1 {
		return "", fmt.Errorf("%s holds %d files instead of one program", dir, len(entries))
	}
	return filepath.Join(dir, entries[0].Name()), nil
}
