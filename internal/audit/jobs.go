package audit

import (
	"context"
	"time"

	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// Maintenance makes partitions of the trail ahead of time, and removes what is past its retention.
type Maintenance struct{}

// Kind names the job.
func (Maintenance) Kind() string { return "partition_maintenance" }

const (
	// monthsAhead of partitions: a scheduler may be away for so long before entries go into the net.
	monthsAhead = 3
	expireBatch = 5000
)

// MaintenanceConfig of the job.
type MaintenanceConfig struct {
	// Every is the period.
	Every time.Duration
	// RetentionDays is how long entries are kept, in days of 24 hours. Defaults to for ever.
	RetentionDays int
}

// NewMaintenance returns the job. It makes the partitions of this month and the next three that are missing, drops those
// whose last entry is past its retention, and deletes the other entries that are, in batches. It does nothing to the trail
// that the functions of migrations/0005_audit.sql do not allow.
func NewMaintenance(cfg MaintenanceConfig) jobs.Periodic {
	return jobs.Periodic{Every: cfg.Every, Event: messages.PartitionMaintenanceEvent, NewRun: func() jobs.Step {
		if cfg.RetentionDays <= 0 {
			return makePartitions
		}
		return jobs.InTurn(makePartitions, dropPartition(cfg.RetentionDays), expire(cfg.RetentionDays))
	}}
}

func makePartitions(ctx context.Context, db postgres.Querier) (jobs.Counts, bool, error) {
	const sql = `SELECT morello.audit_make_partitions($1)`
	var made int64
	err := db.QueryRow(ctx, sql, monthsAhead).Scan(&made)
	return jobs.Counts{"created": made}, false, err
}

// dropPartition drops one at a time: each waits for the queries that are at work on the trail.
func dropPartition(days int) jobs.Step {
	const sql = `SELECT morello.audit_drop_partition(now() - make_interval(hours => 24 * $1))`
	return func(ctx context.Context, db postgres.Querier) (jobs.Counts, bool, error) {
		var dropped bool
		if err := db.QueryRow(ctx, sql, days).Scan(&dropped); err != nil || !dropped {
			return nil, false, err
		}
		return jobs.Counts{"dropped": 1}, true, nil
	}
}

func expire(days int) jobs.Step {
	const sql = `SELECT morello.audit_expire(now() - make_interval(hours => 24 * $1), $2)`
	return func(ctx context.Context, db postgres.Querier) (jobs.Counts, bool, error) {
		var removed int64
		err := db.QueryRow(ctx, sql, days, expireBatch).Scan(&removed)
		return jobs.Counts{"removed": removed}, removed == expireBatch, err
	}
}
