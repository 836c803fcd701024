// Package scheduler composes the scheduler: it runs the jobs of every capability, and one of the schedulers leads, which
// is to say that it inserts the periodic ones. Run two.
package scheduler

import (
	"context"
	"log/slog"
	"time"

	"github.com/google/uuid"

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
	"github.com/ai-cherry/morello/internal/transfer"
	"github.com/ai-cherry/morello/messages"
)

const (
	streamTimeout = 30 * time.Second
	// poolCeiling: a job works on one connection, batch by batch.
	poolCeiling = 10
	batchSlots  = 1
)

// Config of a scheduler.
type Config struct {
	config.Config
	// OnReady is called once, when the scheduler runs jobs.
	OnReady func()
	// Log defaults to slog.Default.
	Log *slog.Logger
}

// Connections is how many connections to PostgreSQL a scheduler opens at most.
func Connections() int {
	return postgres.Config{Ceiling: poolCeiling, BatchSlots: batchSlots}.Connections() + jobs.Connections
}

// Run runs jobs until the context ends, and then lets the running ones end and gives up the lead.
func Run(ctx context.Context, cfg Config) error {
	return process.Run(ctx, process.Config{
		Config: cfg.Config, Program: "scheduler", PoolCeiling: poolCeiling, BatchSlots: batchSlots, OnReady: cfg.OnReady, Log: cfg.Log,
	}, func(ctx context.Context, p *process.Process) (func(context.Context) error, error) {
		return start(ctx, cfg.Config, p)
	})
}

func start(ctx context.Context, cfg config.Config, p *process.Process) (func(context.Context) error, error) {
	streamCtx, cancel := context.WithTimeout(ctx, streamTimeout)
	defer cancel()
	if err := p.Conn.EnsureEventStream(streamCtx); err != nil {
		return nil, err
	}
	client, err := jobs.Start(ctx, jobs.Config{DatabaseURL: cfg.DatabaseURL, Instance: p.Instance, Log: p.Log}, kinds(cfg, p))
	if err != nil {
		return nil, err
	}
	return client.Stop, nil
}

// kinds lists every job kind. All schedulers of a deployment must know the same.
func kinds(cfg config.Config, p *process.Process) *jobs.Set {
	set := jobs.NewSet(p.Pool, p.Conn, p.Log)
	jobs.AddPeriodic[cache.Cleanup](set, cache.NewCleanup(cache.CleanupConfig{
		Every: cfg.JobEvery["cache_cleanup"], MaxBytes: cfg.CacheMaxBytes,
	}))
	jobs.AddPeriodic[session.Cleanup](set, session.NewCleanup(session.CleanupConfig{
		Every: cfg.JobEvery["session_cleanup"], Expired: publishingEach(p, messages.SessionExpiredEvent),
	}))
	jobs.AddPeriodic[jobs.IdempotencyCleanup](set, jobs.NewIdempotencyCleanup(cfg.JobEvery["idempotency_cleanup"]))
	jobs.AddPeriodic[audit.Maintenance](set, audit.NewMaintenance(audit.MaintenanceConfig{
		Every: cfg.JobEvery["partition_maintenance"], RetentionDays: cfg.AuditRetentionDays,
	}))
	jobs.AddPeriodic[snapshot.CleanupJob](set, snapshot.NewCleanup(snapshot.CleanupConfig{
		Every:   cfg.JobEvery["snapshot_cleanup"],
		Cleaned: publishingEach(p, messages.SnapshotCleanedEvent),
	}))
	jobs.AddPeriodic[snapshot.Sweep](set, snapshot.NewSweep(cfg.JobEvery["chunk_sweep"]))
	jobs.AddBatched(set, snapshot.NewRestore(snapshot.RestoreConfig{
		Progress: publishing(p, messages.SnapshotRestoreProgressEvent),
		Restored: publishing(p, messages.SnapshotRestoredEvent),
		Failed:   publishing(p, messages.SnapshotRestoreFailedEvent),
	}))
	jobs.AddBatched(set, snapshot.NewVerify)
	jobs.AddPeriodic[transfer.Cleanup](set, transfer.NewCleanup(cfg.JobEvery["transfer_cleanup"]))
	jobs.AddBatched(set, registry.NewCascade(ownedByAgents(p)...))
	return set
}

// ownedByAgents lists what agent.delete with cascade deletes: every capability that keeps something of an agent has a
// function here.
func ownedByAgents(p *process.Process) []registry.DeleteOwned {
	return []registry.DeleteOwned{
		session.NewDeleteOfAgent(publishingEach(p, messages.SessionDeletedEvent)),
		snapshot.NewDeleteOfAgent(publishingEach(p, messages.SnapshotCleanedEvent)),
	}
}

// publishTimeout is how long a job waits for the stream, with rows locked: who needs them is not to wait for longer. The batch is then
// undone, and done again later.
const publishTimeout = time.Second

// publishingEach publishes events of a kind, each under an id of its own.
func publishingEach[Body any](p *process.Process, event messages.Event[Body]) func(ctx context.Context, tenant string, body Body) error {
	return func(ctx context.Context, tenant string, body Body) error {
		return publishing(p, event)(ctx, tenant, uuid.NewString()+":1:1", body)
	}
}

// publishing publishes events of a kind under ids that the jobs give them.
func publishing[Body any](p *process.Process, event messages.Event[Body]) func(ctx context.Context, tenant, id string, body Body) error {
	return func(ctx context.Context, tenant, id string, body Body) error {
		ctx, cancel := context.WithTimeout(ctx, publishTimeout)
		defer cancel()
		return bus.PublishEvent(ctx, p.Conn, event, tenant, id, body)
	}
}
