package jobs

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// holding is the right to run a periodic kind: the row of periodic_run, under an epoch.
type holding struct {
	kind       string
	epoch      int64
	takenAt    time.Time
	counts     Counts // of this run; those of a holder that died are taken over
	leftover   messages.MaintenanceReport
	leftoverID *string // the event of leftover, which is not published yet
}

// errLost is what a holder finds when its lease has lapsed and another took the kind.
var errLost = errors.New("another scheduler has taken over this job")

// take gets the kind if it is due and nobody holds it; nil otherwise.
func take(ctx context.Context, pool *postgres.Pool, kind string) (*holding, error) {
	const sql = `
		INSERT INTO morello.periodic_run AS p (kind, due_at, leased_until, epoch)
		VALUES ($1, now(), now() + make_interval(secs => $2), 1)
		ON CONFLICT (kind) DO UPDATE SET leased_until = excluded.leased_until, epoch = p.epoch + 1
			WHERE p.due_at <= now() AND p.leased_until <= now()
		RETURNING epoch, now(), counts, coalesce(report, '{}'), report_id`
	return postgres.InStatement(ctx, pool, "", func(ctx context.Context, db postgres.Querier) (*holding, error) {
		h := holding{kind: kind}
		err := db.QueryRow(ctx, sql, kind, leaseTime.Seconds()).Scan(&h.epoch, &h.takenAt, &h.counts, &h.leftover, &h.leftoverID)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, nil
		}
		return &h, err
	})
}

// renew prolongs the lease and notes the counts, in the transaction of a batch. It fails when the lease is lost.
func renew(ctx context.Context, db postgres.Querier, h *holding, counts Counts) error {
	const sql = `
		UPDATE morello.periodic_run SET leased_until = now() + make_interval(secs => $3), counts = $4
		WHERE kind = $1 AND epoch = $2`
	tag, err := db.Exec(ctx, sql, h.kind, h.epoch, leaseTime.Seconds(), counts)
	if err == nil && tag.RowsAffected() == 0 {
		return errLost
	}
	return err
}

// release gives the kind back until it is due again, with a report whose event is still to be published, if there is one.
func release(ctx context.Context, pool *postgres.Pool, h *holding, due time.Time, report *messages.MaintenanceReport, eventID string) error {
	const sql = `
		UPDATE morello.periodic_run
		SET due_at = $3, leased_until = '-infinity', counts = '{}', report = coalesce($4, report), report_id = nullif($5, '')
		WHERE kind = $1 AND epoch = $2`
	_, err := postgres.InStatement(ctx, pool, "", func(ctx context.Context, db postgres.Querier) (struct{}, error) {
		tag, err := db.Exec(ctx, sql, h.kind, h.epoch, due, report, eventID)
		if err == nil && tag.RowsAffected() == 0 {
			err = errLost
		}
		return struct{}{}, err
	})
	return err
}

// published notes that the event of the report is out.
func published(ctx context.Context, pool *postgres.Pool, kind, eventID string) error {
	const sql = `UPDATE morello.periodic_run SET report_id = NULL WHERE kind = $1 AND report_id = $2`
	_, err := postgres.InStatement(ctx, pool, "", func(ctx context.Context, db postgres.Querier) (struct{}, error) {
		_, err := db.Exec(ctx, sql, kind, eventID)
		return struct{}{}, err
	})
	return err
}
