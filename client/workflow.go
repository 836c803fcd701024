package client

import (
	"context"

	"github.com/ai-cherry/morello/messages"
)

// Workflow has the operations on the tenant's workflows.
type Workflow struct{ client *Client }

// Workflow returns the operations on workflows.
func (c *Client) Workflow() Workflow { return Workflow{c} }

// Create stores a workflow under an id of its own. Without a workflow_id and without an idempotency key it is not repeated after
// a failure that leaves open whether it took place.
func (c Workflow) Create(ctx context.Context, request messages.WorkflowCreate) (messages.WorkflowReply, error) {
	return Call(ctx, c.client, messages.WorkflowCreateEndpoint, request)
}

// Get returns a workflow by its id, or the most recently created of a name.
func (c Workflow) Get(ctx context.Context, request messages.WorkflowGet) (messages.WorkflowReply, error) {
	return Call(ctx, c.client, messages.WorkflowGetEndpoint, request)
}

// Update changes the named fields of a workflow, at a given version if one is named.
func (c Workflow) Update(ctx context.Context, request messages.WorkflowUpdate) (messages.WorkflowReply, error) {
	return Call(ctx, c.client, messages.WorkflowUpdateEndpoint, request)
}

// List lists workflows, the most recently created first, by status, tag and words if they are given.
func (c Workflow) List(ctx context.Context, request messages.WorkflowList) (messages.WorkflowListReply, error) {
	return Call(ctx, c.client, messages.WorkflowListEndpoint, request)
}

// Delete removes a workflow.
func (c Workflow) Delete(ctx context.Context, request messages.WorkflowDelete) (messages.WorkflowDeleteReply, error) {
	return Call(ctx, c.client, messages.WorkflowDeleteEndpoint, request)
}
