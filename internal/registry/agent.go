package registry

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

const agentColumns = `agent_id, name, description, type, capabilities, autonomy_level, model_config, status, metadata, version, created_at, updated_at`

// scanAgent scans the agentColumns and what follows them. JSON that was not read is nil.
func scanAgent(row pgx.CollectableRow, following ...any) (messages.Agent, error) {
	var a messages.Agent
	var capabilities, modelConfig, metadata []byte
	err := row.Scan(append([]any{
		&a.AgentID, &a.Name, &a.Description, &a.Type, &capabilities, &a.AutonomyLevel, &modelConfig, &a.Status, &metadata,
		&a.Version, &a.CreatedAt, &a.UpdatedAt,
	}, following...)...)
	if err != nil {
		return a, err
	}
	var errs [3]error
	a.Capabilities, errs[0] = messages.Compact(capabilities)
	a.ModelConfig, errs[1] = messages.Compact(modelConfig)
	a.Metadata, errs[2] = messages.Compact(metadata)
	return a, errors.Join(errs[:]...)
}

// CreateAgent registers an agent. An id or a name that is taken is conflict.
func (s *Service) CreateAgent(ctx context.Context, tenant string, m messages.AgentCreate) (messages.AgentReply, error) {
	id, err := orNewID(m.AgentID)
	if err != nil {
		return messages.AgentReply{}, err
	}
	sql := `
		WITH changed AS (
			INSERT INTO morello.agent (tenant, agent_id, name, description, type, capabilities, autonomy_level, model_config, status, metadata)
			VALUES ($1, $2, $3, $4, $5, coalesce($6::jsonb, '[]'), coalesce($7, 1), coalesce($8::jsonb, '{}'), coalesce($9, 'active'), coalesce($10::jsonb, '{}'))
			RETURNING ` + agentColumns + `
		), entry AS (
			SELECT $1 AS tenant, 'agent.created' AS event_type, $11::text AS actor, 'agent' AS resource_type, agent_id AS resource_id,
				jsonb_build_object('name', name, 'version', version) AS details
			FROM changed
		), ` + s.audited + `
		SELECT ` + agentColumns + ` FROM changed`
	return s.changeAgent(ctx, tenant, messages.AgentCreatedEvent, func(ctx context.Context, db postgres.Querier) (pgx.Rows, error) {
		return db.Query(ctx, sql, tenant, id, m.Name, m.Description, m.Type, jsonb(m.Capabilities), m.AutonomyLevel,
			object(m.ModelConfig), m.Status, object(m.Metadata), actor(ctx))
	}, nil)
}

// changeAgent is a change of an agent by a statement, and its event.
func (s *Service) changeAgent(
	ctx context.Context, tenant string, event messages.Event[messages.AgentChanged],
	statement func(ctx context.Context, db postgres.Querier) (pgx.Rows, error), missing func(ctx context.Context, db postgres.Querier) error,
) (messages.AgentReply, error) {
	return change(ctx, s, tenant, changing[messages.Agent, messages.AgentReply]{
		statement: statement, scan: scanAgent, missing: missing,
		reply: func(a messages.Agent) messages.AgentReply { return messages.AgentReply{Agent: a} },
		emit: func(a messages.Agent) {
			bus.Emit(s.events, event, tenant, messages.AgentChanged{AgentID: a.AgentID, Name: a.Name, Status: a.Status, Version: a.Version})
		},
	})
}

// GetAgent returns an agent by its id or its name.
func (s *Service) GetAgent(ctx context.Context, tenant string, m messages.AgentGet) (messages.AgentReply, error) {
	agent, err := get(ctx, func(limit int) (messages.Agent, int64, error) { return s.findAgent(ctx, tenant, m, limit) })
	return messages.AgentReply{Agent: agent}, err
}

// findAgent leaves out the JSON of a row that is larger than the limit.
func (s *Service) findAgent(ctx context.Context, tenant string, m messages.AgentGet, limit int) (messages.Agent, int64, error) {
	const sql = `
		SELECT agent_id, name, description, type, CASE WHEN size_bytes <= $3 THEN capabilities END, autonomy_level,
			CASE WHEN size_bytes <= $3 THEN model_config END, status, metadata, version, created_at, updated_at, size_bytes
		FROM morello.agent
		WHERE tenant = $1 AND `
	by, field := `agent_id = $2`, "agent_id"
	if m.Name != "" {
		by, field = `name = $2`, "name"
	}
	return find(ctx, s, scanAgent, notFound("agent", field), sql+by, tenant, m.AgentID+m.Name, limit)
}

// UpdateAgent changes the named fields of an agent.
func (s *Service) UpdateAgent(ctx context.Context, tenant string, m messages.AgentUpdate) (messages.AgentReply, error) {
	sql := `
		WITH changed AS (
			UPDATE morello.agent SET
				name = coalesce($4, name), description = coalesce($5, description), type = coalesce($6, type),
				capabilities = coalesce($7::jsonb, capabilities), autonomy_level = coalesce($8, autonomy_level),
				model_config = coalesce($9::jsonb, model_config), status = coalesce($10, status), metadata = coalesce($11::jsonb, metadata),
				version = version + 1, updated_at = clock_timestamp()
			WHERE tenant = $1 AND agent_id = $2 AND version = coalesce($3, version)
			RETURNING ` + agentColumns + `
		), entry AS (
			SELECT $1 AS tenant, 'agent.updated' AS event_type, $12::text AS actor, 'agent' AS resource_type, agent_id AS resource_id,
				jsonb_build_object('name', name, 'version', version, 'fields', $13::text[]) AS details
			FROM changed
		), ` + s.audited + `
		SELECT ` + agentColumns + ` FROM changed`
	return s.changeAgent(ctx, tenant, messages.AgentUpdatedEvent, func(ctx context.Context, db postgres.Querier) (pgx.Rows, error) {
		return db.Query(ctx, sql, tenant, m.AgentID, m.IfVersion, m.Name, m.Description, m.Type, jsonb(m.Capabilities), m.AutonomyLevel,
			object(m.ModelConfig), m.Status, object(m.Metadata), actor(ctx), m.Fields())
	}, func(ctx context.Context, db postgres.Querier) error {
		const sql = `SELECT version FROM morello.agent WHERE tenant = $1 AND agent_id = $2`
		return whyNotUpdated(db.QueryRow(ctx, sql, tenant, m.AgentID), m.IfVersion, notFound("agent", "agent_id"))
	})
}

// errAppeared says that what a statement missed came just after it had looked.
var errAppeared = errors.New("what is to be changed appeared meanwhile")

// whyNotUpdated reads the version of what an update did not find, or not with the version that it wanted.
func whyNotUpdated(row pgx.Row, wanted *int64, missing error) error {
	var version int64
	err := row.Scan(&version)
	switch {
	case errors.Is(err, pgx.ErrNoRows), err == nil && wanted == nil: // it came just after the update looked for it
		return missing
	case err != nil:
		return err
	case version == *wanted:
		return errAppeared
	}
	return versionConflict(*wanted, version)
}

// DeleteAgent removes an agent and, with cascade, inserts the job that deletes what it owns, also when it is not registered.
// The entry in the audit trail names the job.
func (s *Service) DeleteAgent(ctx context.Context, tenant string, m messages.AgentDelete) (messages.AgentDeleteReply, error) {
	inTurn := postgres.InStatement[messages.AgentDeleteReply]
	if m.Cascade {
		inTurn = postgres.InTx[messages.AgentDeleteReply]
	}
	var deleted []messages.AgentChanged
	reply, err := inTurn(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (reply messages.AgentDeleteReply, err error) {
		if m.Cascade {
			if reply.JobID, err = s.insertJob(ctx, db, AgentCascade{Tenant: tenant, AgentID: m.AgentID}); err != nil {
				return reply, err
			}
		}
		deleted, err = s.deleteAgent(ctx, db, tenant, m.AgentID, reply.JobID)
		reply.Deleted = len(deleted) == 1
		return reply, err
	})
	if err == nil && len(deleted) == 1 {
		bus.Emit(s.events, messages.AgentDeletedEvent, tenant, deleted[0])
	}
	return reply, err
}

func (s *Service) deleteAgent(ctx context.Context, db postgres.Querier, tenant, agentID string, jobID int64) ([]messages.AgentChanged, error) {
	sql := `
		WITH deleted AS (
			DELETE FROM morello.agent WHERE tenant = $1 AND agent_id = $2
			RETURNING agent_id, name, status, version
		), entry AS (
			SELECT $1 AS tenant, 'agent.deleted' AS event_type, $3::text AS actor, 'agent' AS resource_type, $2 AS resource_id,
				jsonb_strip_nulls(jsonb_build_object('name', name, 'version', version, 'job_id', nullif($4::bigint, 0))) AS details
			FROM (SELECT) AS one LEFT JOIN deleted ON true
			WHERE deleted.agent_id IS NOT NULL OR $4 > 0
		), ` + s.audited + `
		SELECT agent_id, name, status, version FROM deleted`
	rows, err := db.Query(ctx, sql, tenant, agentID, actor(ctx), jobID)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[messages.AgentChanged])
}
