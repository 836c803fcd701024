package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	leaseTime  = 15 * time.Second
	leaseRenew = 5 * time.Second
	// leaseForgotten is how long the row of a dead process is kept, for people to see.
	leaseForgotten = time.Hour
	leaseRelease   = 2 * time.Second
)

// Worker is a process that holds a lease: it is at work, and answers control messages.
type Worker struct {
	Instance  string
	Program   string
	Host      string
	StartedAt time.Time
}

// KeepLease holds the row of this process in worker_lease until the context ends, and then deletes it. The first
// renewal is done when it returns; done is closed at the end. While PostgreSQL cannot be reached it keeps trying: a
// process whose lease has lapsed is counted as dead by others, and works on.
func KeepLease(ctx context.Context, pool *Pool, worker Worker) (done <-chan struct{}, err error) {
	if err := renewLease(ctx, pool, worker); err != nil {
		return nil, fmt.Errorf("taking the lease of this process: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(leaseRenew)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if err := renewLease(ctx, pool, worker); err != nil && ctx.Err() == nil {
					pool.log.Warn("the lease of this process could not be renewed", "error", err)
				}
			case <-ctx.Done():
				releaseLease(ctx, pool, worker.Instance)
				return
			}
		}
	}()
	return ended, nil
}

// renewLease also forgets rows that lapsed long ago, in the same statement.
func renewLease(ctx context.Context, pool *Pool, worker Worker) error {
	const sql = `
		WITH forgotten AS (
			DELETE FROM morello.worker_lease WHERE leased_until < now() - make_interval(secs => $6) AND instance <> $1
		)
		INSERT INTO morello.worker_lease (instance, program, host, started_at, leased_until)
		VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5))
		ON CONFLICT (instance) DO UPDATE SET leased_until = excluded.leased_until`
	ctx, cancel := context.WithTimeout(ctx, leaseRenew)
	defer cancel()
	_, err := InStatement(ctx, pool, "", func(ctx context.Context, db Querier) (struct{}, error) {
		_, err := db.Exec(ctx, sql, worker.Instance, worker.Program, worker.Host, worker.StartedAt,
			leaseTime.Seconds(), leaseForgotten.Seconds())
		return struct{}{}, err
	})
	return err
}

func releaseLease(ctx context.Context, pool *Pool, instance string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseRelease)
	defer cancel()
	_, err := InStatement(ctx, pool, "", func(ctx context.Context, db Querier) (struct{}, error) {
		_, err := db.Exec(ctx, `DELETE FROM morello.worker_lease WHERE instance = $1`, instance)
		return struct{}{}, err
	})
	if err != nil {
		pool.log.Warn("the lease of this process could not be given back; it lapses", "error", err)
	}
}

// LiveWorkers returns the processes of a program whose lease has not lapsed, oldest first.
func LiveWorkers(ctx context.Context, pool *Pool, program string) ([]Worker, error) {
	const sql = `
		SELECT instance, program, host, started_at FROM morello.worker_lease
		WHERE program = $1 AND leased_until > now()
		ORDER BY started_at, instance LIMIT 1000`
	return Read(ctx, pool, func(ctx context.Context, db Querier) ([]Worker, error) {
		rows, err := db.Query(ctx, sql, program)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, pgx.RowToStructByName[Worker])
	})
}
