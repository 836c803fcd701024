package jobs

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river/rivertype"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// row is a row of River, as far as the contract shows it.
const (
	rowColumns = `id, tenant, kind, state, cancel_requested, attempt, max_attempts, metadata, failure, created_at, scheduled_at, attempted_at, finalized_at`
	rows       = `
		SELECT id, coalesce(args ->> 'tenant', '') AS tenant, kind, state::text, state = 'running' AND metadata ? 'cancel_attempted_at' AS cancel_requested,
			attempt, max_attempts, metadata, errors[cardinality(errors)] AS failure, created_at, scheduled_at, attempted_at, finalized_at,
			octet_length(metadata::text) + 1000 AS size_bytes
		FROM ` + postgres.RiverSchema + `.river_job`
	// ofTenant restricts rows to those of a tenant, which the index on args finds; TenantAdmin has all.
	ofTenant = `($1 = '` + messages.TenantAdmin + `' OR args @> jsonb_build_object('tenant', $1::text))`
)

// Get returns a job of the tenant, or any job for TenantAdmin; not_found when there is none.
func Get(ctx context.Context, db postgres.Querier, tenant string, jobID int64) (messages.Job, error) {
	const sql = `SELECT ` + rowColumns + ` FROM (` + rows + ` WHERE ` + ofTenant + ` AND id = $2) AS job`
	found, err := db.Query(ctx, sql, postgres.PlanEachTime, tenant, jobID)
	if err != nil {
		return messages.Job{}, err
	}
	job, err := pgx.CollectExactlyOneRow(found, func(row pgx.CollectableRow) (messages.Job, error) { return scanJob(row) })
	if errors.Is(err, pgx.ErrNoRows) {
		err = &messages.Error{
			Code: messages.CodeNotFound, Message: "there is no such job, or it was over long ago",
			Details: messages.ErrorDetails{Field: "job_id"},
		}
	}
	return job, err
}

var listSQL = postgres.PageSQL(rowColumns, `id DESC`, rows+`
	WHERE `+ofTenant+`
		AND ($3 = '' OR kind = $3)
		AND ($4 = '' OR state = nullif($4, '')::`+postgres.RiverSchema+`.river_job_state)
		AND ($5::bigint = 0 OR id < $5)`)

// List returns a page of the jobs of the tenant, or of all for TenantAdmin, the newest first, beginning after the job before.
func List(ctx context.Context, db postgres.Querier, tenant string, m messages.SystemJobList, before int64) (page []messages.Job, more bool, err error) {
	found, err := db.Query(ctx, listSQL, postgres.PlanEachTime, tenant, m.Size(), m.Kind, m.State, before)
	if err != nil {
		return nil, false, err
	}
	return postgres.CollectPage(found, scanJob)
}

// scanJob scans the rowColumns and what follows them.
func scanJob(row pgx.CollectableRow, following ...any) (messages.Job, error) {
	var j messages.Job
	var metadata []byte
	var failure *attemptError
	err := row.Scan(append([]any{
		&j.JobID, &j.Tenant, &j.Kind, &j.State, &j.CancelRequested, &j.Attempt, &j.MaxAttempts, &metadata, &failure,
		&j.CreatedAt, &j.ScheduledAt, &j.AttemptedAt, &j.FinalizedAt,
	}, following...)...)
	if err != nil {
		return j, err
	}
	noted, err := readNote(metadata)
	if err != nil {
		return j, err
	}
	j.Progress = noted.progress()
	if j.State != messages.JobCompleted {
		j.Failure = failure.presentable()
		return j, nil
	}
	result, err := noted.result()
	j.Result = jsontext.Value(result)
	return j, err
}

// finalPrefix is what River puts before a failure that is Final.
const finalPrefix = "JobCancelError: "

// attemptError is how River keeps the failure of an attempt.
type attemptError struct {
	At    time.Time `json:"at"`
	Error string    `json:"error"`
}

// presentable returns the failure with the code and the message that its text begins with. Any other text is River's or of a panic,
// and may hold anything; that a job was cancelled is no failure.
func (e *attemptError) presentable() *messages.JobFailure {
	if e == nil || e.Error == rivertype.ErrJobCancelledRemotely.Error() {
		return nil
	}
	code, message, _ := strings.Cut(strings.TrimPrefix(e.Error, finalPrefix), ": ")
	if !slices.Contains(messages.Codes(), messages.Code(code)) {
		code, message = string(messages.CodeInternal), "the attempt ended without a word, or its process died"
	}
	return &messages.JobFailure{Code: messages.Code(code), Message: message, At: e.At.UTC()}
}
