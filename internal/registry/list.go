package registry

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

var agentsSQL = postgres.PageSQL(agentColumns, `created_at DESC, agent_id DESC`, `
	SELECT * FROM morello.agent
	WHERE tenant = $1 AND (created_at, agent_id) < ($3, $4)
		AND ($5::text IS NULL OR status = $5)
		AND ($6 = '' OR type = $6)
		AND ($7 = '' OR morello.registry_words(tenant, name, description, '{}') @@ morello.registry_query($1, $7, ''))`)

// ListAgents lists agents, the most recently created first: a range of an index, or the matches of the words, sorted.
func (s *Service) ListAgents(ctx context.Context, tenant string, m messages.AgentList) (messages.AgentListReply, error) {
	filters := m
	filters.Page = messages.Page{}
	if err := bus.Reserve(ctx, messages.MaxPageBytes); err != nil {
		return messages.AgentListReply{}, err
	}
	agents, next, err := postgres.ReadPage(ctx, s.pool, postgres.Listing{Operation: messages.AgentListEndpoint.Name, Tenant: tenant, Filters: filters}, m.Cursor,
		func(ctx context.Context, db postgres.Querier, from postgres.Place) ([]messages.Agent, bool, error) {
			at, id := from.Before("")
			rows, err := db.Query(ctx, agentsSQL, postgres.PlanEachTime, tenant, m.Size(), at, id, m.Status, m.Type, m.Query)
			if err != nil {
				return nil, false, err
			}
			return postgres.CollectPage(rows, scanAgent)
		}, func(last messages.Agent) postgres.Place { return postgres.Place{At: last.CreatedAt, ID: last.AgentID} })
	return messages.AgentListReply{Agents: agents, NextCursor: next}, err
}

const workflowOrder = `created_at DESC, workflow_id DESC`

var (
	// workflowsSQL finds a tag together with words in the index of words; without them it is for lists without a tag.
	workflowsSQL = postgres.PageSQL(workflowColumns, workflowOrder, `
		SELECT * FROM morello.workflow
		WHERE tenant = $1 AND (created_at, workflow_id) < ($3, $4)
			AND ($5::text IS NULL OR status = $5)
			AND ($6 = '' OR morello.registry_words(tenant, name, description, tags) @@ morello.registry_query($1, $6, $7))`)

	// taggedSQL reads a range of workflow_tag, whose order is that of the list. It compares with the workflow's own tags in
	// words that the planner takes for nothing: another "has the tag" would have it expect few, and scan the tables.
	taggedSQL = postgres.PageSQL(workflowColumns, workflowOrder, `
		SELECT w.workflow_id, w.name, w.description, w.definition, w.status, w.tags, w.created_by, w.metadata, w.version,
			t.created_at, w.updated_at, w.size_bytes
		FROM morello.workflow_tag AS t JOIN morello.workflow AS w USING (tenant, workflow_id)
		WHERE t.tenant = $1 AND t.tag = $6 AND (t.created_at, t.workflow_id) < ($3, $4) AND array_position(w.tags, $6) IS NOT NULL
			AND ($5::text IS NULL OR w.status = $5)`)
)

// ListWorkflows lists workflows, the most recently created first: a range of an index, or the matches of the words, sorted.
func (s *Service) ListWorkflows(ctx context.Context, tenant string, m messages.WorkflowList) (messages.WorkflowListReply, error) {
	filters := m
	filters.Page = messages.Page{}
	if err := bus.Reserve(ctx, messages.MaxPageBytes); err != nil {
		return messages.WorkflowListReply{}, err
	}
	workflows, next, err := postgres.ReadPage(ctx, s.pool, postgres.Listing{Operation: messages.WorkflowListEndpoint.Name, Tenant: tenant, Filters: filters}, m.Cursor,
		func(ctx context.Context, db postgres.Querier, from postgres.Place) ([]messages.Workflow, bool, error) {
			rows, err := queryWorkflows(ctx, db, tenant, m, from)
			if err != nil {
				return nil, false, err
			}
			return postgres.CollectPage(rows, scanWorkflow)
		}, func(last messages.Workflow) postgres.Place {
			return postgres.Place{At: last.CreatedAt, ID: last.WorkflowID}
		})
	return messages.WorkflowListReply{Workflows: workflows, NextCursor: next}, err
}

func queryWorkflows(ctx context.Context, db postgres.Querier, tenant string, m messages.WorkflowList, from postgres.Place) (pgx.Rows, error) {
	at, id := from.Before("")
	if m.Tag != "" && m.Query == "" {
		return db.Query(ctx, taggedSQL, postgres.PlanEachTime, tenant, m.Size(), at, id, m.Status, m.Tag)
	}
	return db.Query(ctx, workflowsSQL, postgres.PlanEachTime, tenant, m.Size(), at, id, m.Status, m.Query, m.Tag)
}
