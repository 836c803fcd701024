// Package worker composes the worker: it answers the requests of every capability, keeps nothing that cannot be lost, and
// may run in any number.
package worker

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"github.com/ai-cherry/morello/internal/audit"
	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/cache"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/internal/process"
	"github.com/ai-cherry/morello/internal/registry"
	"github.com/ai-cherry/morello/internal/session"
	"github.com/ai-cherry/morello/internal/snapshot"
	"github.com/ai-cherry/morello/internal/system"
	"github.com/ai-cherry/morello/internal/transfer"
	"github.com/ai-cherry/morello/messages"
)

// bodyShare is the part of memory for the bodies of requests, and again for large replies: 1/8. There are several copies
// of each on its way.
const bodyShare = 8

// documentShare is the part of memory for snapshots of more than a megabyte, as they are cut and put together: 1/4.
const documentShare = 4

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
	}, func(ctx context.Context, p *process.Process) (func(context.Context) error, error) {
		return start(ctx, cfg.Config, p)
	})
}

// start brings up every capability and serves its endpoints.
func start(ctx context.Context, cfg config.Config, p *process.Process) (func(context.Context) error, error) {
	events, err := bus.NewPublisher(p.Conn)
	if err != nil {
		return nil, err
	}
	inserter, err := jobs.NewInserter(p.Log)
	if err != nil {
		return nil, err
	}
	caches := cache.New(p.Pool, cache.Config{
		Log: p.Log,
		Invalidated: func(tenant string, event messages.CacheInvalidated) {
			if err := bus.Announce(p.Conn, messages.CacheInvalidatedEvent, tenant, event); err != nil {
				p.Log.Debug("an invalidation could not be announced", "error", err)
			}
		},
	})
	sessions := session.New(p.Pool, session.Config{Events: events})
	registries := registry.New(p.Pool, registry.Config{Audit: audit.InsertFrom, InsertJob: inserter.Insert, Events: events})
	transfers := transfer.New(p.Pool)
	snapshots := snapshot.New(p.Pool, snapshot.Config{
		Events: events, InsertJob: inserter.Insert, TakeTransfer: transfers.Take, OfferTransfer: transfers.Offer, LargeBytes: config.Memory() / documentShare,
	})
	warnOfDurability(ctx, caches, cfg.CacheDurable, p.Log)
	serverConfig := p.ServerConfig()
	serverConfig.MaxRequestBytes, serverConfig.MaxReplyBytes = config.Memory()/bodyShare, config.Memory()/bodyShare
	server := bus.NewServer(p.Conn, serverConfig, slices.Concat(
		caches.Endpoints(), sessions.Endpoints(), registries.Endpoints(), audit.New(p.Pool).Endpoints(),
		snapshots.Endpoints(), transfers.Endpoints(), system.New(p.Pool, system.Config{Audit: audit.InsertFrom, Jobs: inserter}).Endpoints(),
	))
	stop := func(ctx context.Context) error {
		err := server.Drain(ctx)
		caches.Close(ctx)
		sessions.Close()
		snapshots.Close()
		return errors.Join(err, events.Close(ctx))
	}
	if err := server.Start(); err != nil {
		return nil, errors.Join(err, stop(ctx))
	}
	return stop, nil
}

// warnOfDurability tells of a setting that only "morello migrate up" puts into force.
func warnOfDurability(ctx context.Context, caches *cache.Service, wanted bool, log *slog.Logger) {
	switch is, err := caches.Durable(ctx); {
	case err != nil:
		log.Warn("whether the cache is durable could not be read", "error", err)
	case is != wanted:
		log.Warn("MORELLO_CACHE_DURABLE is not in force: run \"morello migrate up\" with it", "setting", wanted, "durable", is)
	}
}
