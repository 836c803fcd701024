package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/devstack"
	"github.com/ai-cherry/morello/internal/postgres"
)

const (
	firstDatabase = "morello"
	stopTimeout   = 30 * time.Second
	closeTime     = 5 * time.Second
)

// stack is what all cases share: PostgreSQL, nats-server, and connections to it.
type stack struct {
	dir                 string
	profile             string // folder of CPU profiles, or empty
	postgres            *devstack.Postgres
	nats                *role
	natsURL             string
	conn                *bus.Conn        // which the callers share, as they do in the other cases
	roles               map[string]*role // those that run at the moment
	loaded, redisLoaded bool             // whether the keys are there
	logins              []login          // sessions that were begun
	storeFilled         bool             // whether pgxstore has them, too
	database            string           // that roles work on
	filled              map[string]bool  // databases with rows, besides the first
}

func startStack(ctx context.Context, profile string) (s *stack, err error) {
	s = &stack{profile: profile, roles: map[string]*role{}, filled: map[string]bool{}}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	if s.dir, err = os.MkdirTemp("", "morello-bench-"); err != nil {
		return s, err
	}
	if err := os.Chmod(s.dir, 0o711); err != nil { // PostgreSQL's user walks through
		return s, err
	}
	s.postgres, err = devstack.StartPostgres(ctx, devstack.PostgresConfig{
		DataDir:  filepath.Join(s.dir, "postgres"),
		Settings: map[string]string{"shared_buffers": "4GB", "max_wal_size": "4GB"},
	})
	if err != nil {
		return s, err
	}
	if err := s.createDatabase(ctx, firstDatabase); err != nil {
		return s, err
	}
	if s.nats, err = s.startRole(ctx, RoleNATS); err != nil {
		return s, err
	}
	s.natsURL = s.nats.says
	s.conn, err = bus.Connect(ctx, bus.ConnConfig{URL: s.natsURL, Program: "bench", Instance: uuid.NewString()})
	return s, err
}

// createDatabase makes an empty database with our schema, and has roles work on it.
func (s *stack) createDatabase(ctx context.Context, name string) error {
	if err := s.postgres.CreateDatabase(ctx, name, ""); err != nil {
		return err
	}
	s.database = name
	return postgres.MigrateUp(ctx, s.databaseURL(), slog.New(slog.DiscardHandler))
}

func (s *stack) databaseURL() string { return s.postgres.URL(s.database) }

// cpu returns the CPU time that each program of the stack has used.
func (s *stack) cpu() cpuTimes {
	times := cpuTimes{"client": ownTime(os.Getpid()), "postgres": familyTime(s.postgres.PID())}
	for name, role := range s.roles {
		times[name] = ownTime(role.command.Process.Pid)
	}
	return times
}

func (s *stack) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if s.conn != nil {
		_ = s.conn.Close(ctx)
	}
	for _, role := range s.roles {
		s.stopRole(role)
	}
	if s.postgres != nil {
		_ = s.postgres.Stop(ctx)
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

// role is another process of this program, doing one of the jobs of role.go.
type role struct {
	name    string
	command *exec.Cmd
	says    string // what it printed when it was ready
}

// startRole starts a process and waits until it says that it is ready.
func (s *stack) startRole(ctx context.Context, name string, env ...string) (*role, error) {
	executable, err := os.Executable()
	if err != nil {
		return nil, err
	}
	r := &role{name: name, command: exec.CommandContext(ctx, executable, RoleCommand, name)}
	r.command.Env = append(r.command.Environ(), "MORELLO_DATABASE_URL="+s.databaseURL(), "MORELLO_NATS_URL="+s.natsURL,
		"MORELLO_HEALTH_ADDR=off", "MORELLO_LOG_LEVEL=warn", "MORELLO_BENCH_DIR="+s.dir, "MORELLO_BENCH_PROFILE="+s.profile)
	r.command.Env = append(r.command.Env, env...)
	r.command.Stderr = os.Stderr
	r.command.Cancel = func() error { return r.command.Process.Signal(syscall.SIGTERM) }
	r.command.WaitDelay = stopTimeout
	stdout, err := r.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := r.command.Start(); err != nil {
		return nil, err
	}
	s.roles[name] = r
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("the process %s did not become ready: %w", name, errors.Join(err, r.command.Wait()))
	}
	r.says = strings.TrimSpace(line)
	return r, nil
}

func (s *stack) stopRole(r *role) {
	_ = r.command.Process.Signal(syscall.SIGTERM)
	_ = r.command.Wait()
	delete(s.roles, r.name)
}
