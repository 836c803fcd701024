package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// run is an attempt of a job that somebody inserted.
type run struct {
	jobID   int64
	attempt int
	note    note
}

// note is what a job has noted of itself. It stands in the metadata of its row in River, as noteName, and is written in the
// transaction of each batch: it tells exactly what is done, over all runs and attempts.
type note struct {
	// Counts are the sums of what the steps have counted.
	Counts   Counts                `json:"counts,omitempty"`
	Progress *messages.JobProgress `json:"progress,omitempty"`
	Result   json.RawMessage       `json:"result,omitempty"`
}

const (
	noteName = "morello"
	// maxResultBytes bounds a result: it is read with the job.
	maxResultBytes = 64 << 10
)

func readNote(metadata []byte) (n note, err error) {
	var named struct {
		Note note `json:"morello"`
	}
	if err := json.Unmarshal(metadata, &named); err != nil {
		return n, fmt.Errorf("reading what a job has noted: %w", err)
	}
	return named.Note, nil
}

func (n *note) add(did Counts) {
	if n.Counts = maps.Clone(n.Counts); n.Counts == nil {
		n.Counts = Counts{}
	}
	n.Counts.add(did)
}

// progress is what the job reported, or else how many things its steps have counted.
func (n note) progress() *messages.JobProgress {
	if n.Progress != nil || len(n.Counts) == 0 {
		return n.Progress
	}
	var done int64
	for _, count := range n.Counts {
		done += count
	}
	return &messages.JobProgress{Done: done}
}

// result is what the job set, or else the counts of its steps.
func (n note) result() (json.RawMessage, error) {
	if n.Result != nil || len(n.Counts) == 0 {
		return n.Result, nil
	}
	return json.Marshal(n.Counts)
}

// errGivenUp is what a run finds that River has given up: the job is another's by now, or over.
var errGivenUp = errors.New("this attempt of the job is over")

// write writes the note, in the transaction of a batch. It fails when the attempt is over: so a process that wakes from the dead
// changes nothing.
func (r *run) write(ctx context.Context, db postgres.Querier, n note) error {
	const sql = `
		UPDATE ` + postgres.RiverSchema + `.river_job SET metadata = metadata || jsonb_build_object('` + noteName + `', $3::jsonb)
		WHERE id = $1 AND attempt = $2 AND state = 'running'`
	tag, err := db.Exec(ctx, sql, r.jobID, r.attempt, n)
	if err == nil && tag.RowsAffected() == 0 {
		return errGivenUp
	}
	return err
}

type batchKey struct{}

// batch is what a step finds in its context.
type batch struct {
	run  *run
	note note
}

func batchFrom(ctx context.Context) *batch {
	b, ok := ctx.Value(batchKey{}).(*batch)
	if !ok {
		return &batch{run: &run{}} // a step outside of a job: what it notes is lost
	}
	return b
}

// Report notes how far the job is whose step has the context; job_get shows it once the batch is committed. What is not reported
// again stays, also in a later run. A job that reports nothing shows the sum of what its steps have counted.
func Report(ctx context.Context, progress messages.JobProgress) {
	batchFrom(ctx).note.Progress = &progress
}

// SetResult notes the result of the job whose step has the context, an object of up to 64 KiB. job_get shows it when the job is
// completed. A job that sets none has what its steps have counted as its result. It holds no secrets.
func SetResult(ctx context.Context, result any) error {
	text, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("encoding the result of a job: %w", err)
	}
	if len(text) > maxResultBytes {
		return fmt.Errorf("the result of a job has %d bytes, the limit is %d", len(text), maxResultBytes)
	}
	batchFrom(ctx).note.Result = text
	return nil
}

// Running returns the id of the job whose step has the context, and which attempt this is: with them an event has the same id
// whenever a step is repeated.
func Running(ctx context.Context) (jobID int64, attempt int) {
	b := batchFrom(ctx)
	return b.run.jobID, b.run.attempt
}

// Result reads what SetResult noted last, also in an earlier run or attempt of the job, so that a step can go on from there. It
// reports whether there is something.
func Result(ctx context.Context, result any) (noted bool, err error) {
	text := batchFrom(ctx).note.Result
	if text == nil {
		return false, nil
	}
	return true, json.Unmarshal(text, result)
}

// finalError is a failure that a repetition would not mend.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

// Final marks the failure of a step as one that a repetition would not mend: the job is not run again. It is cancelled then, with
// the failure.
func Final(err error) error { return finalError{err} }
