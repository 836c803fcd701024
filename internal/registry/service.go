package registry

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// Config sets up a Service.
type Config struct {
	// Audit returns the statement that appends an entry to the audit trail for each row of a common table expression with
	// the columns tenant, event_type, actor, resource_type, resource_id and details. It is part of each statement that
	// changes something. Required.
	Audit func(source string) string
	// InsertJob inserts a job in the transaction that it is given, and returns its id. Required.
	InsertJob func(ctx context.Context, db postgres.Querier, args jobs.Args) (jobID int64, err error)
	// Events publishes what was created, updated and deleted. Defaults to nothing.
	Events *bus.Publisher
}

// Service answers the operations of the registry. All methods are safe for concurrent use.
type Service struct {
	pool      *postgres.Pool
	insertJob func(ctx context.Context, db postgres.Querier, args jobs.Args) (int64, error)
	events    *bus.Publisher
	// audited is the common table expression that appends the rows of the one named "entry" to the audit trail.
	audited string
}

// New returns a service.
func New(pool *postgres.Pool, cfg Config) *Service {
	return &Service{pool: pool, insertJob: cfg.InsertJob, events: cfg.Events, audited: `audited AS (` + cfg.Audit("entry") + `)`}
}

// smallBytes bounds what is read at once with the row that tells its size; larger rows are read again, when the memory for
// them is free.
const smallBytes = 64 << 10

// anySize is more than any row has.
const anySize = 1 << 30

// jsonb returns a value as an argument: NULL, which means the default or no change, when it is absent.
func jsonb(value jsontext.Value) *string {
	if value == nil {
		return nil
	}
	return new(string(value))
}

// object is jsonb for what must be an object, where null means absent.
func object(value jsontext.Value) *string {
	if value.Kind() != '{' {
		return nil
	}
	return jsonb(value)
}

// orNewID returns the id that the caller chose, or a new one.
func orNewID(id string) (string, error) {
	if id != "" {
		return id, nil
	}
	made, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("making an id: %w", err)
	}
	return made.String(), nil
}

// actor is on whose behalf the request was made; empty when it does not say.
func actor(ctx context.Context) string { return messages.CallFrom(ctx).Actor }

// duplicate says which field of the request is another's already.
func duplicate(err error) error {
	field, owner := "", ""
	switch postgres.ViolatedConstraint(err) {
	case "agent_pkey":
		field, owner = "agent_id", "an agent"
	case "agent_name":
		field, owner = "name", "another agent"
	case "workflow_pkey":
		field, owner = "workflow_id", "a workflow"
	default:
		return err
	}
	return &messages.Error{
		Code: messages.CodeConflict, Message: "is that of " + owner + " already", Details: messages.ErrorDetails{Field: field}, Cause: err,
	}
}

func notFound(what, field string) error {
	return &messages.Error{Code: messages.CodeNotFound, Message: "there is no such " + what, Details: messages.ErrorDetails{Field: field}}
}

// orNotFound returns the error of a statement, or that of one that found nothing.
func orNotFound(err error, what, field string) error {
	if err != nil {
		return err
	}
	return notFound(what, field)
}

// versionConflict is the answer to an update whose if_version is not the version that is there.
func versionConflict(wanted, found int64) error {
	return &messages.Error{
		Code: messages.CodeConflict, Message: fmt.Sprintf("has version %d, not %d", found, wanted),
		Details: messages.ErrorDetails{Field: "if_version", Version: found},
	}
}
