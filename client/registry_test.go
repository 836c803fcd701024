package client_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/client"
	"github.com/ai-cherry/morello/messages"
)

// TestRegistryMethodsCallTheirEndpoints is TestMethodsCallTheirEndpoints for agents, workflows and the audit trail.
func TestRegistryMethodsCallTheirEndpoints(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t, client.Config{URL: startStack(t)}), client.WithActor(t.Context(), "ada")
	agent, err := c.Agent().Create(ctx, messages.AgentCreate{AgentID: "a", Name: "Researcher"})
	require.NoError(t, err)
	got, err := c.Agent().Get(ctx, messages.AgentGet{Name: "Researcher"})
	require.NoError(t, err)
	require.Equal(t, agent, got)
	updated, err := c.Agent().Update(ctx, messages.AgentUpdate{AgentID: "a", Type: new("lead")})
	require.NoError(t, err)
	require.EqualValues(t, 2, updated.Agent.Version)
	agents, err := c.Agent().List(ctx, messages.AgentList{Type: "lead"})
	require.NoError(t, err)
	require.Equal(t, []messages.Agent{updated.Agent}, agents.Agents)
	deleted, err := c.Agent().Delete(ctx, messages.AgentDelete{AgentID: "a", Cascade: true})
	require.NoError(t, err)
	require.True(t, deleted.Deleted)
	require.Positive(t, deleted.JobID)

	workflow, err := c.Workflow().Create(ctx, messages.WorkflowCreate{WorkflowID: "w", Name: "Report", Definition: []byte(`null`), Tags: []string{"t"}})
	require.NoError(t, err)
	found, err := c.Workflow().Get(ctx, messages.WorkflowGet{WorkflowID: "w"})
	require.NoError(t, err)
	require.Equal(t, workflow, found)
	changed, err := c.Workflow().Update(ctx, messages.WorkflowUpdate{WorkflowID: "w", Name: new("Weekly report")})
	require.NoError(t, err)
	workflows, err := c.Workflow().List(ctx, messages.WorkflowList{Tag: "t", Query: "weekly"})
	require.NoError(t, err)
	require.Equal(t, []messages.Workflow{changed.Workflow}, workflows.Workflows)
	gone, err := c.Workflow().Delete(ctx, messages.WorkflowDelete{WorkflowID: "w"})
	require.NoError(t, err)
	require.True(t, gone.Deleted)

	logged, err := c.Audit().Log(ctx, messages.AuditLog{EventType: "e", Actor: "bob", ResourceType: "t", ResourceID: "r"})
	require.NoError(t, err)
	bobs, err := c.Audit().Query(ctx, messages.AuditQuery{Actor: "bob"})
	require.NoError(t, err)
	require.Equal(t, []messages.AuditEntry{logged.Entry}, bobs.Entries)
	trail, err := c.Audit().Query(ctx, messages.AuditQuery{Actor: "ada"})
	require.NoError(t, err)
	var events []string
	for _, e := range trail.Entries {
		events = append(events, e.EventType)
	}
	require.Equal(t, []string{
		"workflow.deleted", "workflow.updated", "workflow.created", "agent.deleted", "agent.updated", "agent.created",
	}, events)
}
