package registry

import (
	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/messages"
)

// Endpoints ties each operation of the capabilities to what answers it.
func (s *Service) Endpoints() []bus.Binding {
	return []bus.Binding{
		bus.Bind(messages.AgentCreateEndpoint, s.CreateAgent),
		bus.Bind(messages.AgentGetEndpoint, s.GetAgent),
		bus.Bind(messages.AgentUpdateEndpoint, s.UpdateAgent),
		bus.Bind(messages.AgentListEndpoint, s.ListAgents),
		bus.Bind(messages.AgentDeleteEndpoint, s.DeleteAgent),
		bus.Bind(messages.WorkflowCreateEndpoint, s.CreateWorkflow),
		bus.Bind(messages.WorkflowGetEndpoint, s.GetWorkflow),
		bus.Bind(messages.WorkflowUpdateEndpoint, s.UpdateWorkflow),
		bus.Bind(messages.WorkflowListEndpoint, s.ListWorkflows),
		bus.Bind(messages.WorkflowDeleteEndpoint, s.DeleteWorkflow),
	}
}
