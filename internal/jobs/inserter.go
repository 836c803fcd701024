package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/ai-cherry/morello/internal/postgres"
)

// Args are the arguments of a job: ids, never data. Kind names the job. A tenant's job has its name as the member "tenant", by which
// system.job_get knows whose it is; one without is the operator's.
type Args = river.JobArgs

// Inserter inserts jobs in the transactions of others, cancels them and has them run again. It runs none, never leads and has no
// connection of its own. Every scheduler must know the kinds that it inserts.
type Inserter struct{ river *river.Client[pgx.Tx] }

// NewInserter returns an inserter.
func NewInserter(log *slog.Logger) (*Inserter, error) {
	client, err := river.NewClient(riverpgxv5.New(nil), &river.Config{Schema: postgres.RiverSchema, Logger: log})
	if err != nil {
		return nil, fmt.Errorf("configuring River: %w", err)
	}
	return &Inserter{client}, nil
}

// Insert inserts a job in the transaction that db must be, and returns its id: the job is there exactly if the transaction
// commits. After an error the transaction can only be rolled back.
func (i *Inserter) Insert(ctx context.Context, db postgres.Querier, args Args) (jobID int64, err error) {
	tx, err := asTx(db)
	if err != nil {
		return 0, err
	}
	inserted, err := i.river.InsertTx(ctx, tx, args, nil)
	if err != nil {
		return 0, fmt.Errorf("inserting a job of kind %s: %w", args.Kind(), err)
	}
	return inserted.Job.ID, nil
}

func asTx(db postgres.Querier) (pgx.Tx, error) {
	tx, ok := db.(pgx.Tx)
	if !ok {
		return nil, errors.New("a job is inserted or changed in a transaction only")
	}
	return tx, nil
}

// Cancel cancels a job, if the transaction that db must be commits: at once if it waits, soon if it runs; not if it is over.
func (i *Inserter) Cancel(ctx context.Context, db postgres.Querier, jobID int64) error {
	tx, err := asTx(db)
	if err != nil {
		return err
	}
	if _, err := i.river.JobCancelTx(ctx, tx, jobID); err != nil {
		return fmt.Errorf("cancelling job %d: %w", jobID, err)
	}
	return nil
}

// Retry makes a job available at once, if the transaction that db must be commits; not if it runs.
func (i *Inserter) Retry(ctx context.Context, db postgres.Querier, jobID int64) error {
	tx, err := asTx(db)
	if err != nil {
		return err
	}
	if _, err := i.river.JobRetryTx(ctx, tx, jobID); err != nil {
		return fmt.Errorf("retrying job %d: %w", jobID, err)
	}
	return nil
}
