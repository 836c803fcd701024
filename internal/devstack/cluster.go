package devstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// prepareCluster makes dataDir a cluster that the account can serve: it creates one or checks the one that is there.
func prepareCluster(ctx context.Context, dataDir string, bin binaries, user account) error {
	parent := filepath.Dir(dataDir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("devstack: data directory: %w", err)
	}
	if _, err := bin.run(ctx, user, parent, "postgres", "--version"); errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("devstack: %s, which the server runs as, may not enter %s: choose a data directory elsewhere, such as /var/lib/morello: %w",
			user.name, parent, err)
	}
	entries, err := os.ReadDir(dataDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("devstack: data directory: %w", err)
	}
	if len(entries) == 0 {
		return createCluster(ctx, dataDir, bin, user)
	}
	return checkCluster(dataDir, bin, user)
}

// createCluster runs initdb in a directory beside dataDir and renames that, so that no half-made cluster can be left.
func createCluster(ctx context.Context, dataDir string, bin binaries, user account) error {
	temporary, err := os.MkdirTemp(filepath.Dir(dataDir), "."+filepath.Base(dataDir)+".initdb-")
	if err != nil {
		return fmt.Errorf("devstack: initdb: %w", err)
	}
	defer func() { _ = os.RemoveAll(temporary) }()
	if err := user.own(temporary); err != nil {
		return err
	}
	if err := initdb(ctx, temporary, bin, user); err != nil {
		return err
	}
	if err := os.Remove(dataDir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("devstack: data directory: %w", err)
	}
	if err := os.Rename(temporary, dataDir); err != nil {
		return fmt.Errorf("devstack: data directory: %w", err)
	}
	return nil
}

func initdb(ctx context.Context, dir string, bin binaries, user account) error {
	ctx, cancel := context.WithTimeoutCause(ctx, initdbTimeout, fmt.Errorf("initdb timeout (%s) exceeded", initdbTimeout))
	defer cancel()
	args := []string{"-D", dir, "--auth=trust", "--username=" + superuser, "--encoding=UTF8", "--no-sync"}
	out, err := bin.run(ctx, user, dir, "initdb", append(args, "--locale=C.UTF-8")...)
	if err != nil && bytes.Contains(out, []byte("invalid locale name")) { // musl and older systems lack C.UTF-8
		out, err = bin.run(ctx, user, dir, "initdb", append(args, "--locale=C")...)
	}
	if err != nil {
		return fmt.Errorf("devstack: initdb: %w\n%s", err, bytes.TrimSpace(out))
	}
	return nil
}

func checkCluster(dataDir string, bin binaries, user account) error {
	version, err := os.ReadFile(filepath.Join(dataDir, "PG_VERSION"))
	if err != nil {
		return fmt.Errorf("devstack: %s is not empty and holds no PostgreSQL cluster: %w", dataDir, err)
	}
	if major := strings.TrimSpace(string(version)); major != strconv.Itoa(bin.major) {
		return fmt.Errorf("devstack: %s was made by PostgreSQL %s, the server is %s: choose another data directory or server", dataDir, major, bin.version)
	}
	return user.own(dataDir)
}

const markPrefix = "morello/"

// ownerMark is the cluster_name of a server: it tells which process started it, also to whoever looks at `ps`.
func ownerMark(pid int) string { return markPrefix + strconv.Itoa(pid) }

// stopStale makes way in dataDir for a new server. One that we started and whose owner has died is stopped. One that is in
// use, or that is not ours, is an error. A lock file that names another program, because process ids come round again, is
// taken over.
func stopStale(ctx context.Context, dataDir string, log *slog.Logger) error {
	lock := filepath.Join(dataDir, "postmaster.pid")
	content, err := os.ReadFile(lock)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("devstack: %w", err)
	}
	pid, err := lockPID(content)
	if err != nil || !alive(pid) {
		return nil // PostgreSQL itself goes on over the lock file of a dead server
	}
	args := commandLine(pid)
	switch {
	case !isPostmaster(args):
		// PostgreSQL refuses to start while the process lives, but ignores its own parent. The rest of the file must
		// stay: by the shared memory named there it finds out whether backends have outlived their postmaster.
		_, rest, _ := bytes.Cut(content, []byte("\n"))
		return overwrite(lock, append([]byte(strconv.Itoa(os.Getpid())+"\n"), rest...))
	case isOrphan(pid, args, dataDir):
		log.Warn("stopping a PostgreSQL server that was left behind", "pid", pid, "data_dir", dataDir)
		return stopOrphan(ctx, pid)
	default:
		return fmt.Errorf("devstack: %s is in use by the PostgreSQL server with process id %d: stop that first", dataDir, pid)
	}
}

// lockPID reads the process id, the first line of postmaster.pid.
func lockPID(content []byte) (int, error) {
	line, _, _ := bytes.Cut(content, []byte("\n"))
	pid, err := strconv.Atoi(string(line))
	if err == nil && pid <= 0 {
		err = fmt.Errorf("process id %d", pid)
	}
	return pid, err
}

// overwrite replaces the content of a file in a directory that is the unprivileged user's, following no link there.
func overwrite(path string, content []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("devstack: %w", err)
	}
	_, err = file.Write(content)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("devstack: %w", err)
	}
	return nil
}

func isPostmaster(args []string) bool {
	if len(args) == 0 {
		return false
	}
	name := filepath.Base(args[0])
	return name == "postgres" || name == "postmaster"
}

// isOrphan reports whether a server on dataDir was started by this package, in a process that is no longer its parent.
func isOrphan(pid int, args []string, dataDir string) bool {
	marked := slices.ContainsFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "cluster_name="+markPrefix) })
	return marked && slices.Contains(args, dataDir) && !slices.Contains(args, "cluster_name="+ownerMark(parentOf(pid)))
}

// stopOrphan shuts a server down that is not our child: fast, and immediately when that does not end.
func stopOrphan(ctx context.Context, pid int) error {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("devstack: stop the PostgreSQL server with process id %d: %w", pid, err)
		}
		patience, cancel := context.WithTimeout(ctx, quitTimeout)
		err := poll(patience, func() bool { return !alive(pid) })
		cancel()
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("devstack: the PostgreSQL server with process id %d does not stop", pid)
}
