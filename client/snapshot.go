package client

import (
	"bytes"
	"context"
	"crypto/sha256"

	"github.com/google/uuid"

	"github.com/ai-cherry/morello/messages"
)

// inlineSnapshotBytes is how large data may be to go in the request itself.
const inlineSnapshotBytes = 4 << 20

// Snapshot has the operations on the states of agents' memory. Create, Get and Latest take and return data of any size that
// snapshots may have: what is too large for one message goes in parts, which the caller does not see. Who wants them calls the
// endpoints by Call.
type Snapshot struct{ client *Client }

// Snapshot returns the operations on snapshots.
func (c *Client) Snapshot() Snapshot { return Snapshot{c} }

// Create stores a state as the head of its agent. Data of more than 4 MiB are uploaded before; the parts are deleted again when
// the call is over. Without an idempotency key it is not repeated after a failure that leaves open whether it took place; who
// names a snapshot_id may repeat it.
func (s Snapshot) Create(ctx context.Context, request messages.SnapshotCreate) (messages.SnapshotReply, error) {
	if len(request.Data) <= inlineSnapshotBytes || request.Validate() != nil {
		return Call(ctx, s.client, messages.SnapshotCreateEndpoint, request)
	}
	id, err := transferFor(ctx, request.Data)
	if err != nil {
		return messages.SnapshotReply{}, err
	}
	transfer := s.client.Transfer()
	defer transfer.tidy(ctx, id)
	if err := transfer.upload(WithIdempotencyKey(ctx, ""), id, bytes.NewReader(request.Data)); err != nil {
		return messages.SnapshotReply{}, err
	}
	request.Data, request.DataTransferID = nil, id
	return Call(ctx, s.client, messages.SnapshotCreateEndpoint, request)
}

// transferFor makes the id of a transfer. Under an idempotency key the same data have the same one, so that a request which is
// made again is the same request.
func transferFor(ctx context.Context, data []byte) (string, error) {
	key := headersFrom(ctx).idempotencyKey
	if key == "" {
		id, err := uuid.NewV7()
		return id.String(), err
	}
	sum := sha256.Sum256(data)
	return uuid.NewHash(sha256.New(), uuid.Nil, append([]byte(key+"\x00"), sum[:]...), 8).String(), nil // RFC 9562: version 8
}

// Get returns a snapshot with its data, or the part of them that a JSON Pointer names; not_found without one.
func (s Snapshot) Get(ctx context.Context, request messages.SnapshotGet) (messages.SnapshotDataReply, error) {
	reply, err := Call(ctx, s.client, messages.SnapshotGetEndpoint, request)
	return s.withData(ctx, reply, err)
}

// Latest returns the head of an agent, or its newest snapshot of a user, with its data; not_found without one.
func (s Snapshot) Latest(ctx context.Context, request messages.SnapshotLatest) (messages.SnapshotDataReply, error) {
	reply, err := Call(ctx, s.client, messages.SnapshotLatestEndpoint, request)
	return s.withData(ctx, reply, err)
}

// withData downloads data that were too large for the reply.
func (s Snapshot) withData(ctx context.Context, reply messages.SnapshotDataReply, err error) (messages.SnapshotDataReply, error) {
	if err != nil || reply.DataTransfer == nil {
		return reply, err
	}
	if reply.Data, err = s.client.Transfer().Download(ctx, *reply.DataTransfer); err != nil {
		return messages.SnapshotDataReply{}, err
	}
	reply.DataTransfer = nil
	return reply, nil
}

// List lists snapshots without their data, newest first.
func (s Snapshot) List(ctx context.Context, request messages.SnapshotList) (messages.SnapshotListReply, error) {
	return Call(ctx, s.client, messages.SnapshotListEndpoint, request)
}

// History lists a snapshot and its ancestors, up to the first of its branch.
func (s Snapshot) History(ctx context.Context, request messages.SnapshotHistory) (messages.SnapshotHistoryReply, error) {
	return Call(ctx, s.client, messages.SnapshotHistoryEndpoint, request)
}

// Diff compares two snapshots, and returns the JSON Patch that makes one into the other.
func (s Snapshot) Diff(ctx context.Context, request messages.SnapshotDiff) (messages.SnapshotDiffReply, error) {
	return Call(ctx, s.client, messages.SnapshotDiffEndpoint, request)
}

// Search searches the strings in snapshots for words, the best first.
func (s Snapshot) Search(ctx context.Context, request messages.SnapshotSearch) (messages.SnapshotSearchReply, error) {
	return Call(ctx, s.client, messages.SnapshotSearchEndpoint, request)
}

// Stats describes the tenant's snapshots, or an agent's.
func (s Snapshot) Stats(ctx context.Context, request messages.SnapshotStats) (messages.SnapshotStatsReply, error) {
	return Call(ctx, s.client, messages.SnapshotStatsEndpoint, request)
}

// Delete deletes a snapshot; when it is the head, its nearest ancestor that is left becomes the head.
func (s Snapshot) Delete(ctx context.Context, request messages.SnapshotDelete) (messages.SnapshotDeleteReply, error) {
	return Call(ctx, s.client, messages.SnapshotDeleteEndpoint, request)
}

// Cleanup deletes old snapshots beyond the newest of each agent; call again while the reply says More.
func (s Snapshot) Cleanup(ctx context.Context, request messages.SnapshotCleanup) (messages.SnapshotCleanupReply, error) {
	return Call(ctx, s.client, messages.SnapshotCleanupEndpoint, request)
}

// Restore starts a job that makes an earlier state the head of its agent, or of another. System().JobGet follows it.
func (s Snapshot) Restore(ctx context.Context, request messages.SnapshotRestore) (messages.SnapshotRestoreReply, error) {
	return Call(ctx, s.client, messages.SnapshotRestoreEndpoint, request)
}
