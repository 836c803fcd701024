package messages

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Job is work that outlasts the request which asked for it, or that comes round by itself. It is kept for an hour after it was
// completed, for a day after it was cancelled, and for seven days after it was discarded.
type Job struct {
	JobID int64 `json:"job_id"`
	// Tenant whose job it is; absent when it is the operator's.
	Tenant string   `json:"tenant,omitzero"`
	Kind   string   `json:"kind"`
	State  JobState `json:"state"`
	// CancelRequested says of a job that runs that it is about to end.
	CancelRequested bool `json:"cancel_requested,omitzero"`
	// Attempt counts how often it was begun; after MaxAttempts that failed it is discarded.
	Attempt     int `json:"attempt"`
	MaxAttempts int `json:"max_attempts"`
	// Progress is as of the last batch that was committed; absent before the first.
	Progress *JobProgress `json:"progress,omitzero"`
	// Result of a completed job, an object.
	Result jsontext.Value `json:"result,omitzero"`
	// Failure of the last attempt, unless that succeeded.
	Failure   *JobFailure `json:"failure,omitzero"`
	CreatedAt time.Time   `json:"created_at"`
	// ScheduledAt is when it may run, or might have.
	ScheduledAt time.Time `json:"scheduled_at"`
	// AttemptedAt is when the last attempt began.
	AttemptedAt *time.Time `json:"attempted_at,omitzero"`
	// FinalizedAt is when it was completed, cancelled or discarded.
	FinalizedAt *time.Time `json:"finalized_at,omitzero"`
}

// JobState says where a job stands.
type JobState string

// The states of a job. Available jobs wait for a scheduler, scheduled and retryable ones for their time, pending ones for
// something else.
const (
	JobAvailable JobState = "available"
	JobPending   JobState = "pending"
	JobScheduled JobState = "scheduled"
	JobRetryable JobState = "retryable"
	JobRunning   JobState = "running"
	JobCompleted JobState = "completed"
	JobCancelled JobState = "cancelled"
	JobDiscarded JobState = "discarded"
)

func (s JobState) validate(field string) error {
	switch s {
	case "", JobAvailable, JobPending, JobScheduled, JobRetryable, JobRunning, JobCompleted, JobCancelled, JobDiscarded:
		return nil
	}
	return Invalid(field, "must be available, pending, scheduled, retryable, running, completed, cancelled or discarded")
}

// JobProgress says how far a job is.
type JobProgress struct {
	// Done and Total count the same things; Total is absent when nobody knows.
	Done  int64 `json:"done"`
	Total int64 `json:"total,omitzero"`
	// Unit says what is counted, such as bytes; absent when it is many things.
	Unit string `json:"unit,omitzero"`
}

// JobFailure is why an attempt failed. What is internal is logged under the id that the message names.
type JobFailure struct {
	Code    Code      `json:"code"`
	Message string    `json:"message"`
	At      time.Time `json:"at"`
}

// JobRef names a job.
type JobRef struct {
	JobID int64 `json:"job_id" jsonschema:"minimum=1"`
}

// Validate reports an id that is missing.
func (m JobRef) Validate() error {
	if m.JobID < 1 {
		return Invalid("job_id", "is missing; it must be 1 or more")
	}
	return nil
}

// JobReply holds a job.
type JobReply struct {
	Job Job `json:"job"`
}

// SystemJobGetEndpoint reads a job.
var SystemJobGetEndpoint = Endpoint[SystemJobGet, JobReply]{
	Name: "system.job_get", Timeout: 2 * time.Second, Shared: true,
	Doc: "Returns a job: its state, how far it is, its result or failure.",
}

// SystemJobGet reads a job. One that is over for long, and another tenant's, is not_found; the operator reads all.
type SystemJobGet struct{ JobRef }

// SystemJobListEndpoint lists jobs.
var SystemJobListEndpoint = Endpoint[SystemJobList, SystemJobListReply]{
	Name: "system.job_list", Timeout: 5 * time.Second, Shared: true,
	Doc: "Lists jobs, the newest first, by kind and state if they are given.",
}

// SystemJobList lists the jobs of the tenant, the newest first; those of all under the operator's tenant, the ticks of periodic
// jobs among them.
type SystemJobList struct {
	Kind  string   `json:"kind,omitzero" jsonschema:"maxLength=200"`
	State JobState `json:"state,omitzero" jsonschema:"enum=available,enum=pending,enum=scheduled,enum=retryable,enum=running,enum=completed,enum=cancelled,enum=discarded"`
	// Tenant whose jobs the operator wants; all when absent. A tenant may name only itself.
	Tenant string `json:"tenant,omitzero"`
	Page
}

// Validate reports the first field that is out of range.
func (m SystemJobList) Validate() error {
	if err := checkOptional("kind", m.Kind, MaxNameBytes); err != nil {
		return err
	}
	if err := m.State.validate("state"); err != nil {
		return err
	}
	if m.Tenant != "" && !ValidTenant(m.Tenant) {
		return Invalid("tenant", "must match "+TenantPattern)
	}
	return m.validate()
}

// SystemJobListReply holds a page of jobs.
type SystemJobListReply struct {
	Jobs []Job `json:"jobs"`
	// NextCursor asks for the next page; absent on the last one.
	NextCursor string `json:"next_cursor,omitzero"`
}

// SystemJobCancelEndpoint cancels a job.
var SystemJobCancelEndpoint = Endpoint[SystemJobCancel, JobReply]{
	Name: "system.job_cancel", Timeout: 5 * time.Second, Mutates: true, Idempotent: true, Shared: true,
	Doc: "Cancels a job: at once if it waits, in a moment if it runs.",
}

// SystemJobCancel cancels a job. The batch at work is rolled back; what those before it did stays. A job that runs is still running
// in the reply; one that is over stays as it is. A cancellation has an entry in the audit trail.
type SystemJobCancel struct{ JobRef }

// SystemJobRetryEndpoint makes a job run again.
var SystemJobRetryEndpoint = Endpoint[SystemJobRetry, JobReply]{
	Name: "system.job_retry", Timeout: 5 * time.Second, Mutates: true, Idempotent: true, Shared: true,
	Doc: "Has a job that failed, was cancelled or waits for its time run now.",
}

// SystemJobRetry makes a job available at once. One that runs stays as it is; one that is completed is conflict. What is made
// available has an entry in the audit trail.
type SystemJobRetry struct{ JobRef }
