package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

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

// changing is a change of one thing: an agent or a workflow.
type changing[Row, Reply any] struct {
	// statement changes the thing, appends the entry to the audit trail, and returns the thing as it is now.
	statement func(ctx context.Context, db postgres.Querier) (pgx.Rows, error)
	scan      func(row pgx.CollectableRow, following ...any) (Row, error)
	reply     func(row Row) Reply
	// missing finds out what is to be said when the statement changed nothing; errAppeared has it run again.
	missing func(ctx context.Context, db postgres.Querier) error
	// emit publishes the event of the change, after its commit.
	emit func(row Row)
}

// change makes the change. A repeated request that has its reply already publishes nothing.
func change[Row, Reply any](ctx context.Context, s *Service, tenant string, c changing[Row, Reply]) (Reply, error) {
	var changed []Row
	reply, err := postgres.InStatement(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (reply Reply, err error) {
		for err = errAppeared; errors.Is(err, errAppeared); {
			changed, err = c.tryChange(ctx, db)
		}
		if err == nil {
			reply = c.reply(changed[0])
		}
		return reply, err
	})
	if err == nil && len(changed) == 1 {
		c.emit(changed[0])
	}
	return reply, err
}

// tryChange runs the statement once.
func (c changing[Row, Reply]) tryChange(ctx context.Context, db postgres.Querier) ([]Row, error) {
	rows, err := c.statement(ctx, db)
	if err != nil {
		return nil, err
	}
	changed, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Row, error) { return c.scan(row) })
	switch {
	case err != nil:
		return nil, duplicate(err)
	case len(changed) == 0:
		return nil, c.missing(ctx, db)
	}
	return changed, nil
}

// get finds one thing. What is large find leaves out at first; it is read again when the memory for it is free.
func get[Row any](ctx context.Context, find func(limit int) (row Row, size int64, err error)) (Row, error) {
	row, size, err := find(smallBytes)
	if err != nil || size <= smallBytes {
		return row, err
	}
	if err := bus.Reserve(ctx, size); err != nil {
		return row, err
	}
	row, _, err = find(anySize)
	return row, err
}

// find reads the one row of a statement, whose columns scan takes and its size follows. Where there is none it is not found.
func find[Row any](
	ctx context.Context, s *Service, scan func(row pgx.CollectableRow, following ...any) (Row, error), missing error, sql string, args ...any,
) (row Row, size int64, err error) {
	row, err = postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (none Row, err error) {
		rows, err := db.Query(ctx, sql, args...)
		if err != nil {
			return none, err
		}
		found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Row, error) { return scan(row, &size) })
		switch {
		case err != nil:
			return none, err
		case len(found) == 0:
			return none, missing
		}
		return found[0], nil
	})
	return row, size, err
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

// versionConflict is the answer to an update whose if_version is not the version that is there.
func versionConflict(wanted, found int64) error {
	return &messages.Error{
		Code: messages.CodeConflict, Message: fmt.Sprintf("has version %d, not %d", found, wanted),
		Details: messages.ErrorDetails{Field: "if_version", Version: found},
	}
}
