package registry

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

const workflowColumns = `workflow_id, name, description, definition, status, tags, created_by, metadata, version, created_at, updated_at`

// scanWorkflow scans the workflowColumns and what follows them. JSON that was not read is nil.
func scanWorkflow(row pgx.CollectableRow, following ...any) (messages.Workflow, error) {
	var w messages.Workflow
	var definition, metadata []byte
	err := row.Scan(append([]any{
		&w.WorkflowID, &w.Name, &w.Description, &definition, &w.Status, &w.Tags, &w.CreatedBy, &metadata,
		&w.Version, &w.CreatedAt, &w.UpdatedAt,
	}, following...)...)
	if err != nil {
		return w, err
	}
	var errs [2]error
	w.Definition, errs[0] = messages.Compact(definition)
	w.Metadata, errs[1] = messages.Compact(metadata)
	return w, errors.Join(errs[:]...)
}

// CreateWorkflow stores a workflow. An id that is taken is conflict.
func (s *Service) CreateWorkflow(ctx context.Context, tenant string, m messages.WorkflowCreate) (messages.WorkflowReply, error) {
	id, err := orNewID(m.WorkflowID)
	if err != nil {
		return messages.WorkflowReply{}, err
	}
	sql := `
		WITH changed AS (
			INSERT INTO morello.workflow (tenant, workflow_id, name, description, definition, status, tags, created_by, metadata)
			VALUES ($1, $2, $3, $4, $5, coalesce($6, 'draft'), $7, $8, coalesce($9::jsonb, '{}'))
			RETURNING ` + workflowColumns + `
		), tagged AS (
			INSERT INTO morello.workflow_tag (tenant, workflow_id, tag, created_at)
			SELECT $1, workflow_id, tag, created_at FROM changed, unnest(tags) AS tag
		), entry AS (
			SELECT $1 AS tenant, 'workflow.created' AS event_type, $10::text AS actor, 'workflow' AS resource_type, workflow_id AS resource_id,
				jsonb_build_object('name', name, 'version', version) AS details
			FROM changed
		), ` + s.audited + `
		SELECT ` + workflowColumns + ` FROM changed`
	return s.changeWorkflow(ctx, tenant, messages.WorkflowCreatedEvent, func(ctx context.Context, db postgres.Querier) (pgx.Rows, error) {
		return db.Query(ctx, sql, tenant, id, m.Name, m.Description, jsonb(m.Definition), m.Status, append([]string{}, unique(m.Tags)...),
			m.CreatedBy, object(m.Metadata), actor(ctx))
	}, nil)
}

// unique returns the tags in their order, each once; nil for nil.
func unique(tags []string) []string {
	if tags == nil {
		return nil
	}
	once, seen := make([]string, 0, len(tags)), map[string]bool{}
	for _, tag := range tags {
		if !seen[tag] {
			seen[tag] = true
			once = append(once, tag)
		}
	}
	return once
}

// changeWorkflow is a change of a workflow by a statement, and its event.
func (s *Service) changeWorkflow(
	ctx context.Context, tenant string, event messages.Event[messages.WorkflowChanged],
	statement func(ctx context.Context, db postgres.Querier) (pgx.Rows, error), missing func(ctx context.Context, db postgres.Querier) error,
) (messages.WorkflowReply, error) {
	return change(ctx, s, tenant, changing[messages.Workflow, messages.WorkflowReply]{
		statement: statement, scan: scanWorkflow, missing: missing,
		reply: func(w messages.Workflow) messages.WorkflowReply { return messages.WorkflowReply{Workflow: w} },
		emit: func(w messages.Workflow) {
			bus.Emit(s.events, event, tenant, messages.WorkflowChanged{WorkflowID: w.WorkflowID, Name: w.Name, Status: w.Status, Version: w.Version})
		},
	})
}

// GetWorkflow returns a workflow by its id, or the most recently created of a name.
func (s *Service) GetWorkflow(ctx context.Context, tenant string, m messages.WorkflowGet) (messages.WorkflowReply, error) {
	workflow, err := get(ctx, func(limit int) (messages.Workflow, int64, error) { return s.findWorkflow(ctx, tenant, m, limit) })
	return messages.WorkflowReply{Workflow: workflow}, err
}

// findWorkflow leaves out the definition of a row that is larger than the limit.
func (s *Service) findWorkflow(ctx context.Context, tenant string, m messages.WorkflowGet, limit int) (messages.Workflow, int64, error) {
	const sql = `
		SELECT workflow_id, name, description, CASE WHEN size_bytes <= $3 THEN definition END, status, tags, created_by, metadata,
			version, created_at, updated_at, size_bytes
		FROM morello.workflow
		WHERE tenant = $1 AND `
	by, field := `workflow_id = $2`, "workflow_id"
	if m.Name != "" {
		by, field = `name = $2 ORDER BY created_at DESC, workflow_id DESC LIMIT 1`, "name"
	}
	return find(ctx, s, scanWorkflow, notFound("workflow", field), sql+by, tenant, m.WorkflowID+m.Name, limit)
}

// UpdateWorkflow changes the named fields of a workflow.
func (s *Service) UpdateWorkflow(ctx context.Context, tenant string, m messages.WorkflowUpdate) (messages.WorkflowReply, error) {
	sql := `
		WITH changed AS (
			UPDATE morello.workflow SET
				name = coalesce($4, name), description = coalesce($5, description), definition = coalesce($6::jsonb, definition),
				status = coalesce($7, status), tags = coalesce($8::text[], tags), metadata = coalesce($9::jsonb, metadata),
				version = version + 1, updated_at = clock_timestamp()
			WHERE tenant = $1 AND workflow_id = $2 AND version = coalesce($3, version)
			RETURNING ` + workflowColumns + `
		), untagged AS (
			DELETE FROM morello.workflow_tag AS t USING changed
			WHERE t.tenant = $1 AND t.workflow_id = changed.workflow_id AND NOT t.tag = ANY ($8)
		), tagged AS (
			INSERT INTO morello.workflow_tag (tenant, workflow_id, tag, created_at)
			SELECT $1, workflow_id, tag, created_at FROM changed, unnest($8) AS tag
			ON CONFLICT DO NOTHING
		), entry AS (
			SELECT $1 AS tenant, 'workflow.updated' AS event_type, $10::text AS actor, 'workflow' AS resource_type, workflow_id AS resource_id,
				jsonb_build_object('name', name, 'version', version, 'fields', $11::text[]) AS details
			FROM changed
		), ` + s.audited + `
		SELECT ` + workflowColumns + ` FROM changed`
	return s.changeWorkflow(ctx, tenant, messages.WorkflowUpdatedEvent, func(ctx context.Context, db postgres.Querier) (pgx.Rows, error) {
		return db.Query(ctx, sql, tenant, m.WorkflowID, m.IfVersion, m.Name, m.Description, jsonb(m.Definition), m.Status, unique(m.Tags),
			object(m.Metadata), actor(ctx), m.Fields())
	}, func(ctx context.Context, db postgres.Querier) error {
		const sql = `SELECT version FROM morello.workflow WHERE tenant = $1 AND workflow_id = $2`
		return whyNotUpdated(db.QueryRow(ctx, sql, tenant, m.WorkflowID), m.IfVersion, notFound("workflow", "workflow_id"))
	})
}

// DeleteWorkflow removes a workflow.
func (s *Service) DeleteWorkflow(ctx context.Context, tenant string, m messages.WorkflowDelete) (messages.WorkflowDeleteReply, error) {
	sql := `
		WITH deleted AS (
			DELETE FROM morello.workflow WHERE tenant = $1 AND workflow_id = $2
			RETURNING workflow_id, name, status, version
		), entry AS (
			SELECT $1 AS tenant, 'workflow.deleted' AS event_type, $3::text AS actor, 'workflow' AS resource_type, workflow_id AS resource_id,
				jsonb_build_object('name', name, 'version', version) AS details
			FROM deleted
		), ` + s.audited + `
		SELECT workflow_id, name, status, version FROM deleted`
	var deleted []messages.WorkflowChanged
	reply, err := postgres.InStatement(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (messages.WorkflowDeleteReply, error) {
		rows, err := db.Query(ctx, sql, tenant, m.WorkflowID, actor(ctx))
		if err != nil {
			return messages.WorkflowDeleteReply{}, err
		}
		deleted, err = pgx.CollectRows(rows, pgx.RowToStructByPos[messages.WorkflowChanged])
		return messages.WorkflowDeleteReply{Deleted: len(deleted) == 1}, err
	})
	if err == nil && len(deleted) == 1 {
		bus.Emit(s.events, messages.WorkflowDeletedEvent, tenant, deleted[0])
	}
	return reply, err
}
