// Package worker composes the worker: it answers the requests of every capability, keeps nothing that cannot be lost, and
// may run in any number.
package worker

import (
	"context"
	"errors"
	"log/slog"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/cache"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/internal/process"
	"github.com/ai-cherry/morello/messages"
)

// largeShare is the part of memory for values that are too large for a batch.
const largeShare = 8

// Config of a worker.
type Config struct {
	config.Config
	// OnReady is called once, when the worker answers requests.
	OnReady func()
	// Log defaults to slog.Default.
	Log *slog.Logger
}

// Connections is how many connections to PostgreSQL a worker of these settings opens at most.
func Connections(cfg config.Config) int {
	return postgres.Config{Ceiling: cfg.PoolCeiling}.Connections()
}

// Run answers requests until the context ends, and then stops without losing one: it lets go of its subscriptions,
// answers what it has taken, writes its counts and gives back its lease.
func Run(ctx context.Context, cfg Config) error {
	return process.Run(ctx, process.Config{
		Config: cfg.Config, Program: "worker", PoolCeiling: cfg.PoolCeiling, OnReady: cfg.OnReady, Log: cfg.Log,
	}, start)
}

// start brings up every capability and serves its endpoints.
func start(ctx context.Context, p *process.Process) (func(context.Context) error, error) {
	caches := cache.New(p.Pool, cache.Config{
		LargeBytes: config.Memory() / largeShare, Log: p.Log,
		Invalidated: func(tenant string, event messages.CacheInvalidated) {
			if err := bus.Announce(p.Conn, messages.CacheInvalidatedEvent, tenant, event); err != nil {
				p.Log.Debug("an invalidation could not be announced", "error", err)
			}
		},
	})
	server := bus.NewServer(p.Conn, p.ServerConfig(), caches.Endpoints())
	stop := func(ctx context.Context) error {
		err := server.Drain(ctx)
		caches.Close(ctx)
		return err
	}
	if err := server.Start(); err != nil {
		return nil, errors.Join(err, stop(ctx))
	}
	return stop, nil
}
