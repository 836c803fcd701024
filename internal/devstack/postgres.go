// Package devstack starts the servers that Morello needs on this machine: a private PostgreSQL as real server processes
// and a nats-server inside the calling process. `morello dev` and the tests run on it. It listens on loopback only and
// asks for no credentials, so it is not for production; it starts servers and clones databases, and composes no program.
package devstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	superuser = "morello"

	initdbTimeout = 2 * time.Minute
	startTimeout  = 30 * time.Second
	quitTimeout   = 10 * time.Second // an immediate shutdown has nothing to write, so that this is generous
	pollInterval  = 10 * time.Millisecond
)

// PostgresConfig says where and how a server runs. Only DataDir is required.
type PostgresConfig struct {
	// DataDir holds the cluster. It is created when absent or empty and reused when it holds a cluster; anything else in
	// it is an error. As root it must lie where the server's user may enter.
	DataDir string

	// Port on 127.0.0.1. Defaults to a free one; a taken port is an error.
	Port int

	// BinDir is where postgres and initdb live. Defaults to the first of PATH, the newest /usr/lib/postgresql/*/bin,
	// /usr/local/pgsql/bin and `pg_config --bindir` that holds PostgreSQL 15 or newer. "none" skips what is installed and
	// downloads.
	BinDir string

	// CacheDir keeps downloaded binaries. Defaults to /var/cache/morello as root, else to morello in the user's cache.
	CacheDir string

	// RepositoryURL is the Maven repository to download from. Defaults to Maven Central.
	RepositoryURL string

	// Settings are further server settings. They win over ours, except for what Port decides.
	Settings map[string]string

	// Log gets a line when a server starts or stops. Defaults to none. The server's own log is DataDir/server.log.
	Log *slog.Logger
}

// Postgres is a server that this process started. Its methods may be called from several goroutines.
type Postgres struct {
	cfg  PostgresConfig
	bin  binaries
	user account
	port int

	mu      sync.Mutex
	process *process // nil while the server is down
}

// StartPostgres starts a server and returns once it answers, which may take 30 s (without initdb and download). A server
// that a dead process left behind in this data directory is stopped first; one that is in use is an error. The server gets
// a session of its own and, on Linux, does not outlive this process. ctx bounds the start, not the server's life.
func StartPostgres(ctx context.Context, cfg PostgresConfig) (*Postgres, error) {
	if cfg.DataDir == "" {
		return nil, errors.New("devstack: PostgresConfig.DataDir is required")
	}
	dataDir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("devstack: data directory: %w", err)
	}
	cfg.DataDir = dataDir
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if _, err := reservePort(ctx, cfg.Port); err != nil { // before minutes go into downloads
		return nil, err
	}
	p := &Postgres{cfg: cfg, port: cfg.Port}
	if p.user, err = serverAccount(); err != nil {
		return nil, err
	}
	if p.bin, err = findBinaries(ctx, cfg, p.user); err != nil {
		return nil, err
	}
	if err := prepareCluster(ctx, cfg.DataDir, p.bin, p.user); err != nil {
		return nil, err
	}
	if err := p.Restart(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// URL is the connection string of a database: loopback, no password, superuser morello.
func (p *Postgres) URL(database string) string {
	address := url.URL{
		Scheme:   "postgres",
		User:     url.User(superuser),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return address.String()
}

// Port is the TCP port on 127.0.0.1; it stays the same across restarts.
func (p *Postgres) Port() int { return p.port }

// PID is the process id of the postmaster, 0 while the server is down.
func (p *Postgres) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process == nil || p.process.ended() {
		return 0
	}
	return p.process.pid()
}

// Restart starts the server again on its port and data directory after Kill or Stop; running already is an error.
func (p *Postgres) Restart(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process != nil && !p.process.ended() {
		return fmt.Errorf("devstack: PostgreSQL is running already (process %d)", p.process.pid())
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("PostgreSQL start timeout (%s) exceeded", startTimeout))
	defer cancel()
	if err := stopStale(ctx, p.cfg.DataDir, p.cfg.Log); err != nil {
		return err
	}
	for {
		port, err := reservePort(ctx, p.port)
		if err != nil {
			return err
		}
		process, err := p.launch(ctx, port)
		if err == nil {
			p.port, p.process = port, process
			p.cfg.Log.Info("PostgreSQL is running", "version", p.bin.version, "port", port, "pid", process.pid(), "data_dir", p.cfg.DataDir)
			return nil
		}
		if !p.mayRetry(ctx, err) {
			return err
		}
	}
}

// launch starts the server once and waits until it answers.
func (p *Postgres) launch(ctx context.Context, port int) (*process, error) {
	serverLog, err := openServerLog(p.cfg.DataDir, p.user)
	if err != nil {
		return nil, err
	}
	defer serverLog.close()

	// The server must outlive ctx, which bounds the start only.
	cmd := p.user.command(context.WithoutCancel(ctx), p.cfg.DataDir, p.bin.path("postgres"), p.arguments(port)...)
	cmd.Stdout, cmd.Stderr = serverLog.file, serverLog.file
	diesWithParent(cmd)
	process, err := startProcess(cmd)
	if err != nil {
		return nil, fmt.Errorf("devstack: start PostgreSQL: %w", err)
	}
	if err := p.awaitReady(ctx, process, port); err != nil {
		process.kill()
		return nil, &startError{cause: err, log: serverLog.tail()}
	}
	return process, nil
}

func (p *Postgres) arguments(port int) []string {
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"unix_socket_directories": "",
		"logging_collector":       "off",
		"log_destination":         "stderr",
	}
	if p.bin.hasStatStatements {
		settings["shared_preload_libraries"] = "pg_stat_statements"
	}
	maps.Copy(settings, p.cfg.Settings)
	settings["port"] = strconv.Itoa(port)
	settings["cluster_name"] = ownerMark(os.Getpid())

	args := []string{"-D", p.cfg.DataDir}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

func (p *Postgres) awaitReady(ctx context.Context, process *process, port int) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		if p.answers(ctx, port) {
			return nil
		}
		select {
		case <-process.done:
			return fmt.Errorf("the server ended: %s", process.cmd.ProcessState)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

// answers reports whether this server, and not another one that was quicker to take the port, answers a query.
func (p *Postgres) answers(ctx context.Context, port int) bool {
	probe := &Postgres{port: port}
	conn, err := pgx.Connect(ctx, probe.URL("postgres"))
	if err != nil {
		return false
	}
	defer closeConn(ctx, conn)
	var dataDir string
	err = conn.QueryRow(ctx, `SELECT current_setting('data_directory')`).Scan(&dataDir)
	return err == nil && dataDir == p.cfg.DataDir
}

// mayRetry reports whether a start failed for a reason that passes: backends of a killed postmaster that still hold its
// shared memory, or a free port that somebody else took first.
func (p *Postgres) mayRetry(ctx context.Context, err error) bool {
	var failed *startError
	if !errors.As(err, &failed) || ctx.Err() != nil {
		return false
	}
	return failed.logged("pre-existing shared memory block") || p.port == 0 && failed.logged("could not bind")
}

// Stop shuts the server down without waiting for clients ("fast") and waits for its end. When ctx ends first the server is
// stopped at once ("immediate", recovered at the next start) and the error says so. Stopping a stopped server is no error.
func (p *Postgres) Stop(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process == nil {
		return nil
	}
	process := p.process
	p.process = nil
	if err := process.signal(syscall.SIGINT); err != nil {
		return fmt.Errorf("devstack: stop PostgreSQL: %w", err)
	}
	select {
	case <-process.done:
		p.cfg.Log.Info("PostgreSQL has stopped", "port", p.port)
		return nil
	case <-ctx.Done():
		process.kill()
		return fmt.Errorf("devstack: stop PostgreSQL: fast shutdown did not end in time, stopped immediately: %w", context.Cause(ctx))
	}
}

// Kill ends the postmaster and all its backends with SIGKILL, as a crash would, and waits until they are gone. Killing a
// stopped server is no error.
func (p *Postgres) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process == nil {
		return nil
	}
	process := p.process
	p.process = nil
	if err := process.killTree(); err != nil {
		return fmt.Errorf("devstack: kill PostgreSQL: %w", err)
	}
	p.cfg.Log.Info("PostgreSQL was killed", "port", p.port)
	return nil
}

// reservePort returns a port of 127.0.0.1 that nobody listens on: the wanted one, or any if that is 0.
func reservePort(ctx context.Context, wanted int) (int, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(wanted)))
	if errors.Is(err, syscall.EADDRINUSE) {
		return 0, fmt.Errorf("devstack: port %d of 127.0.0.1 is taken: %w", wanted, err)
	}
	if err != nil {
		return 0, fmt.Errorf("devstack: %w", err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().(*net.TCPAddr).Port, nil
}
