package devstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// minMajor is the oldest PostgreSQL that Morello supports.
const minMajor = 15

// binaries is an installed PostgreSQL.
type binaries struct {
	dir     string // symbolic links resolved: the libraries lie beside it
	version string
	major   int

	hasStatStatements bool // whether it can load pg_stat_statements
}

// findBinaries returns what cfg.BinDir names, else the first suitable installation, else a downloaded one.
func findBinaries(ctx context.Context, cfg PostgresConfig, user account) (binaries, error) {
	if cfg.BinDir != "" && cfg.BinDir != "none" {
		return inspectBinaries(ctx, cfg.BinDir, user)
	}
	var refused []error
	if cfg.BinDir == "" {
		for _, dir := range installedDirs(ctx) {
			bin, err := inspectBinaries(ctx, dir, user)
			if err == nil {
				return bin, nil
			}
			refused = append(refused, err)
		}
	}
	dir, err := fetchBinaries(ctx, cfg, user)
	if err != nil {
		return binaries{}, errors.Join(append(refused, err)...)
	}
	return inspectBinaries(ctx, dir, user)
}

// installedDirs lists where PostgreSQL usually is, best first. What is not there is left out by inspectBinaries.
func installedDirs(ctx context.Context) []string {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, filepath.Dir(path))
	}
	packaged, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is well-formed
	slices.SortFunc(packaged, func(a, b string) int { return packagedMajor(b) - packagedMajor(a) })
	dirs = append(append(dirs, packaged...), "/usr/local/pgsql/bin")
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, string(bytes.TrimSpace(out)))
	}
	return slices.DeleteFunc(dirs, func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, "postgres"))
		return err != nil
	})
}

// packagedMajor reads 15 from /usr/lib/postgresql/15/bin.
func packagedMajor(dir string) int {
	major, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	return major
}

// inspectBinaries checks that a directory holds a server that the account can run and that is new enough.
func inspectBinaries(ctx context.Context, dir string, user account) (binaries, error) {
	server, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
	if err != nil {
		return binaries{}, fmt.Errorf("devstack: no PostgreSQL server in %s: %w", dir, err)
	}
	bin := binaries{dir: filepath.Dir(server)}
	if _, err := os.Stat(bin.path("initdb")); err != nil {
		return binaries{}, fmt.Errorf("devstack: no initdb beside %s: %w", server, err)
	}
	out, err := bin.run(ctx, user, "/", "postgres", "--version")
	if err != nil {
		return binaries{}, fmt.Errorf("devstack: %s --version as %s: %w %s", server, user.name, err, bytes.TrimSpace(out))
	}
	if _, err := fmt.Sscanf(string(out), "postgres (PostgreSQL) %s", &bin.version); err != nil {
		return binaries{}, fmt.Errorf("devstack: %s --version says %q", server, out)
	}
	if _, err := fmt.Sscanf(bin.version, "%d", &bin.major); err != nil || bin.major < minMajor {
		return binaries{}, fmt.Errorf("devstack: %s is PostgreSQL %s, %d or newer is needed", server, bin.version, minMajor)
	}
	bin.hasStatStatements = bin.findStatStatements(ctx, user)
	return bin, nil
}

func (b binaries) path(program string) string { return filepath.Join(b.dir, program) }

// run runs a program to its end, as the account, and returns what it printed.
func (b binaries) run(ctx context.Context, user account, dir, program string, args ...string) ([]byte, error) {
	out, err := user.command(ctx, dir, b.path(program), args...).CombinedOutput()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return out, err
}

// findStatStatements looks for the library of pg_stat_statements, whose place depends on the packager: a server that is
// told to load one that is not there does not start.
func (b binaries) findStatStatements(ctx context.Context, user account) bool {
	dirs := []string{filepath.Join(b.dir, "../lib"), filepath.Join(b.dir, "../lib/postgresql")}
	if out, err := b.run(ctx, user, "/", "pg_config", "--pkglibdir"); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, dir := range dirs {
		for _, suffix := range []string{".so", ".dylib"} {
			if _, err := os.Stat(filepath.Join(dir, "pg_stat_statements"+suffix)); err == nil {
				return true
			}
		}
	}
	return false
}
