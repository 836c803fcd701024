package devstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

const (
	// embeddedCommand is the hidden subcommand whose body is RunEmbeddedPostgres.
	embeddedCommand = "embedded-postgres"
	embeddedVersion = embeddedpostgres.V18

	fetchTimeout = 10 * time.Minute
)

// fetchBinaries returns the directory of downloaded server programs and downloads them first if need be. Processes that
// want to do so at once take turns.
func fetchBinaries(ctx context.Context, cfg PostgresConfig, user account) (string, error) {
	cacheDir, err := cacheDir(cfg.CacheDir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return "", fmt.Errorf("devstack: cache directory: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, fetchTimeout, fmt.Errorf("PostgreSQL download timeout (%s) exceeded", fetchTimeout))
	defer cancel()
	unlock, err := LockFile(ctx, filepath.Join(cacheDir, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()

	installed := filepath.Join(cacheDir, "postgres-"+string(embeddedVersion))
	binDir := filepath.Join(installed, "bin")
	if _, err := os.Stat(binDir); err == nil {
		return binDir, nil
	}
	cfg.Log.Info("downloading PostgreSQL", "version", embeddedVersion, "cache_dir", cacheDir)
	if err := fetch(ctx, cacheDir, installed, cfg.RepositoryURL, user); err != nil {
		return "", fmt.Errorf("devstack: no PostgreSQL server is installed and downloading one with embedded-postgres failed; "+
			"install one (apt-get install postgresql) or say where it is: %w", err)
	}
	return binDir, nil
}

func cacheDir(configured string) (string, error) {
	if configured != "" {
		return filepath.Abs(configured)
	}
	if os.Geteuid() == 0 {
		return "/var/cache/morello", nil // the superuser's home is closed to the server's user
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("devstack: cache directory: %w", err)
	}
	return filepath.Join(dir, "morello"), nil
}

// fetch has embedded-postgres work in a directory of its own and keeps what it unpacked there. Only complete programs get
// the name that fetchBinaries looks for.
func fetch(ctx context.Context, cacheDir, installed, repositoryURL string, user account) error {
	work, err := os.MkdirTemp(cacheDir, "fetch-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	if err := user.own(work); err != nil {
		return err
	}
	if user.credential == nil {
		err = RunEmbeddedPostgres(ctx, work, repositoryURL)
	} else {
		err = runEmbeddedAs(ctx, user, work, repositoryURL)
	}
	// Had it been interrupted, its server would still run: embedded-postgres starts it as a daemon.
	if err := errors.Join(err, stopThrowAway(ctx, work)); err != nil {
		return err
	}
	return os.Rename(filepath.Join(work, "binaries"), installed)
}

// runEmbeddedAs runs this program's hidden subcommand as the account, because embedded-postgres starts its server as the
// caller and PostgreSQL refuses the superuser.
func runEmbeddedAs(ctx context.Context, user account, work, repositoryURL string) error {
	// The link is followed by the child without the permission to enter the folder of the program, which as root often
	// lies where only root may go (go run, go test, /root/go/bin).
	program := "/proc/self/exe"
	if _, err := os.Stat(program); err != nil {
		if program, err = os.Executable(); err != nil {
			return err
		}
	}
	cmd := user.command(ctx, work, program, embeddedCommand, work, repositoryURL)
	cmd.Env = append(cmd.Env, "TMPDIR="+work)
	out, err := cmd.CombinedOutput()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s, which the server runs as, may not enter %s: choose a cache directory elsewhere: %w", user.name, work, err)
	case err != nil:
		return fmt.Errorf("%s as %s: %w: %s", embeddedCommand, user.name, err, bytes.TrimSpace(out))
	}
	return nil
}

// RunEmbeddedPostgres is the body of the hidden subcommand `embedded-postgres WORK_DIR REPOSITORY_URL`, which StartPostgres
// runs in a child process as root: a program that calls StartPostgres as root must offer it. It downloads the server
// programs and leaves them in WORK_DIR/binaries. An empty REPOSITORY_URL means Maven Central.
func RunEmbeddedPostgres(ctx context.Context, args ...string) error {
	if len(args) != 2 {
		return fmt.Errorf("devstack: %s needs a directory and a repository URL", embeddedCommand)
	}
	work, repositoryURL := args[0], args[1]
	if repositoryURL == "" {
		repositoryURL = "https://repo1.maven.org/maven2"
	}
	mirror, err := startMirror(ctx, repositoryURL)
	if err != nil {
		return err
	}
	port, err := reservePort(ctx, 0)
	if err != nil {
		return errors.Join(err, mirror.close())
	}
	// There is no call that only downloads: let it start a server on a throw-away cluster, which proves the programs too.
	server := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		Version(embeddedVersion).
		BinaryRepositoryURL(mirror.url).
		CachePath(filepath.Join(work, "archive")).
		RuntimePath(filepath.Join(work, "runtime")).
		BinariesPath(filepath.Join(work, "binaries")).
		DataPath(filepath.Join(work, "data")).
		Port(uint32(port)).
		Locale("C").Encoding("UTF8").
		StartParameters(map[string]string{"fsync": "off", "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}).
		StartTimeout(startTimeout).
		Logger(io.Discard))
	if err = server.Start(); err == nil {
		err = server.Stop()
	}
	failure := mirror.close()
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil && failure != nil {
		return fmt.Errorf("%w (%w)", failure, err)
	}
	return err
}

// stopThrowAway stops the server of a fetch if it still runs.
func stopThrowAway(ctx context.Context, work string) error {
	content, err := os.ReadFile(filepath.Join(work, "data", "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	pid, err := lockPID(content)
	if err != nil || !isPostmaster(commandLine(pid)) {
		return nil
	}
	return stopOrphan(context.WithoutCancel(ctx), pid)
}
