package client

import (
	"context"

	"github.com/ai-cherry/morello/messages"
)

// Agent has the operations on the tenant's registry of agents.
type Agent struct{ client *Client }

// Agent returns the operations on agents.
func (c *Client) Agent() Agent { return Agent{c} }

// Create registers an agent under an id and a name of its own. Without an agent_id or an idempotency key a repetition
// registers nothing: the name is taken.
func (c Agent) Create(ctx context.Context, request messages.AgentCreate) (messages.AgentReply, error) {
	return Call(ctx, c.client, messages.AgentCreateEndpoint, request)
}

// Get returns an agent by its id or its name.
func (c Agent) Get(ctx context.Context, request messages.AgentGet) (messages.AgentReply, error) {
	return Call(ctx, c.client, messages.AgentGetEndpoint, request)
}

// Update changes the named fields of an agent, at a given version if one is named.
func (c Agent) Update(ctx context.Context, request messages.AgentUpdate) (messages.AgentReply, error) {
	return Call(ctx, c.client, messages.AgentUpdateEndpoint, request)
}

// List lists agents, the most recently created first, by status, type and words if they are given.
func (c Agent) List(ctx context.Context, request messages.AgentList) (messages.AgentListReply, error) {
	return Call(ctx, c.client, messages.AgentListEndpoint, request)
}

// Delete removes an agent, and by a job what it owns if that is asked for.
func (c Agent) Delete(ctx context.Context, request messages.AgentDelete) (messages.AgentDeleteReply, error) {
	return Call(ctx, c.client, messages.AgentDeleteEndpoint, request)
}
