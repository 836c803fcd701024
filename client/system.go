package client

import (
	"context"

	"github.com/ai-cherry/morello/messages"
)

// System has the operations of the system that are open to tenants: those on their own jobs.
type System struct{ client *Client }

// System returns the operations of the system.
func (c *Client) System() System { return System{c} }

// JobGet returns a job of the tenant: its state, how far it is, its result or failure.
func (s System) JobGet(ctx context.Context, request messages.SystemJobGet) (messages.JobReply, error) {
	return Call(ctx, s.client, messages.SystemJobGetEndpoint, request)
}

// JobList lists the tenant's jobs, the newest first.
func (s System) JobList(ctx context.Context, request messages.SystemJobList) (messages.SystemJobListReply, error) {
	return Call(ctx, s.client, messages.SystemJobListEndpoint, request)
}

// JobCancel cancels a job: at once if it waits, in a moment if it runs.
func (s System) JobCancel(ctx context.Context, request messages.SystemJobCancel) (messages.JobReply, error) {
	return Call(ctx, s.client, messages.SystemJobCancelEndpoint, request)
}

// JobRetry has a job that failed, was cancelled or waits for its time run now.
func (s System) JobRetry(ctx context.Context, request messages.SystemJobRetry) (messages.JobReply, error) {
	return Call(ctx, s.client, messages.SystemJobRetryEndpoint, request)
}
