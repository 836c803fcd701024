// Package process is what worker and scheduler have in common: they wait for PostgreSQL, its schema and NATS, hold a lease,
// report their health, and go down in the reverse order.
package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/health"
	"github.com/ai-cherry/morello/internal/postgres"
)

const (
	// stopTimeout is how long the work at hand may take when the process stops; longer work is cancelled.
	stopTimeout  = 20 * time.Second
	closeTimeout = 5 * time.Second
)

// Config of a process.
type Config struct {
	config.Config
	// Program is "worker" or "scheduler".
	Program string
	// PoolCeiling bounds the connections for requests, BatchSlots those for batches.
	PoolCeiling int
	BatchSlots  int
	// OnReady is called once, when the work has begun.
	OnReady func()
	// Log defaults to slog.Default.
	Log *slog.Logger
}

// Process is what the work of a program stands on.
type Process struct {
	// Instance is the identity of this process, new at each start.
	Instance string
	Pool     *postgres.Pool
	Conn     *bus.Conn
	Log      *slog.Logger

	cfg     Config
	working atomic.Bool
}

// Start begins the work of a program, and returns what ends it. stop lets the work at hand end, and cancels it when its
// context ends first.
type Start func(ctx context.Context, p *Process) (stop func(ctx context.Context) error, err error)

// Run brings up the process, starts the work, and ends it when the context ends or NATS closes the connection for good. A
// context that ends during the start is a normal end.
func Run(ctx context.Context, cfg Config, start Start) error {
	p := &Process{Instance: uuid.NewString(), Log: cfg.Log, cfg: cfg}
	if p.Log == nil {
		p.Log = slog.Default()
	}
	p.Log = p.Log.With("program", cfg.Program, "instance", p.Instance)
	if err := p.run(ctx, start); err != nil && (ctx.Err() == nil || p.working.Load()) {
		return fmt.Errorf("%s: %w", cfg.Program, err)
	}
	return nil
}

func (p *Process) run(ctx context.Context, start Start) error {
	if p.cfg.HealthAddr != config.HealthOff {
		server, err := health.Serve(ctx, p.cfg.HealthAddr, p.ready)
		if err != nil {
			return err
		}
		defer server.Close()
	}
	pool, err := postgres.Open(ctx, postgres.Config{
		URL: p.cfg.DatabaseURL, Program: p.cfg.Program, Instance: p.Instance,
		Ceiling: p.cfg.PoolCeiling, BatchSlots: p.cfg.BatchSlots, Log: p.Log,
	})
	if err != nil {
		return err
	}
	defer pool.Close()
	p.Pool = pool
	if err := postgres.WaitForSchema(ctx, pool); err != nil {
		return err
	}
	conn, err := bus.Connect(ctx, bus.ConnConfig{
		URL: p.cfg.NATSURL, Creds: p.cfg.NATSCreds, CA: p.cfg.NATSCA, Program: p.cfg.Program, Instance: p.Instance, Log: p.Log,
	})
	if err != nil {
		return err
	}
	p.Conn = conn
	return errors.Join(p.work(ctx, start), p.closeConn(ctx))
}

// work holds the lease, and does the work until it is to end.
func (p *Process) work(ctx context.Context, start Start) error {
	leaseCtx, giveBack := context.WithCancel(context.WithoutCancel(ctx))
	defer giveBack()
	released, err := postgres.KeepLease(leaseCtx, p.Pool, p.identity())
	if err != nil {
		return err
	}
	defer func() { giveBack(); <-released }()
	stop, err := start(ctx, p)
	if err != nil {
		return err
	}
	p.working.Store(true)
	p.Log.Info(p.cfg.Program + " is ready")
	if p.cfg.OnReady != nil {
		p.cfg.OnReady()
	}
	select {
	case <-ctx.Done():
	case <-p.Conn.Closed():
		err = errors.New("NATS closed the connection")
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	err = errors.Join(err, stop(stopCtx))
	p.Log.Info(p.cfg.Program + " has stopped")
	return err
}

func (p *Process) identity() postgres.Worker {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return postgres.Worker{Instance: p.Instance, Program: p.cfg.Program, Host: host, StartedAt: time.Now()}
}

func (p *Process) closeConn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	return p.Conn.Close(ctx)
}

// ready is the check behind /readyz.
func (p *Process) ready(ctx context.Context) error {
	switch {
	case !p.working.Load():
		return errors.New("the " + p.cfg.Program + " has not begun its work")
	case !p.Conn.Connected():
		return errors.New("NATS cannot be reached")
	}
	if err := p.Pool.Ping(ctx); err != nil {
		return fmt.Errorf("PostgreSQL: %w", err)
	}
	return nil
}

// ServerConfig returns the settings of the bus server of this process.
func (p *Process) ServerConfig() bus.ServerConfig {
	return bus.ServerConfig{
		Program: p.cfg.Program, Instance: p.Instance, Version: config.Version, MaxInFlight: p.cfg.MaxInFlight, Log: p.Log,
	}
}
