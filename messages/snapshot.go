package messages

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Limits and defaults of snapshots.
const (
	// MaxSnapshotBytes bounds a document, without white space.
	MaxSnapshotBytes = 64 << 20
	MaxVectorIDs     = 10_000
	// NoSnapshot as if_head says that the agent must have no head.
	NoSnapshot = "00000000-0000-0000-0000-000000000000"
	// PinnedLabel is the label of what clean-up never removes.
	PinnedLabel                  = "pinned"
	DefaultSnapshotRetentionDays = 90
	MaxSnapshotRetentionDays     = 3650
	DefaultKeptSnapshots         = 5
	MaxKeptSnapshots             = 10_000
	MaxPointerBytes              = 4096
	// SnapshotTimeLimit is how long snapshot.create may take, whatever deadline the caller brings.
	SnapshotTimeLimit = time.Minute
)

// Snapshot is the state of an agent's memory at a moment, without its data.
type Snapshot struct {
	SnapshotID string `json:"snapshot_id"`
	AgentID    string `json:"agent_id"`
	UserID     string `json:"user_id,omitzero"`
	// ParentID is the snapshot that this one follows; absent for the first. It may have been deleted.
	ParentID string `json:"parent_id,omitzero"`
	Label    string `json:"label,omitzero"`
	// Metadata are an object, kept as jsonb.
	Metadata  jsontext.Value `json:"metadata"`
	VectorIDs []string       `json:"vector_ids"`
	// ContentHash is the root of the Merkle tree, in hexadecimal digits: equal documents of a tenant have the same.
	ContentHash string `json:"content_hash"`
	// DocumentSHA256 is the SHA-256 of the document without white space, in hexadecimal digits.
	DocumentSHA256 string `json:"document_sha256"`
	// SizeBytes is the size of the document without white space.
	SizeBytes int64 `json:"size_bytes"`
	// StoredBytes is what the snapshot added to the store: what was there already costs nothing.
	StoredBytes int64 `json:"stored_bytes"`
	// CreatedAt is later than that of every earlier snapshot of the agent.
	CreatedAt time.Time `json:"created_at"`
	// PartiallyIndexed says that the document has more text than snapshot.search finds, 4 MiB.
	PartiallyIndexed bool `json:"partially_indexed,omitzero"`
	// RestoredFrom is the snapshot whose state this one restored.
	RestoredFrom string `json:"restored_from,omitzero"`
}

// SnapshotReply holds a snapshot, without its data.
type SnapshotReply struct {
	Snapshot Snapshot `json:"snapshot"`
}

// SnapshotCreateEndpoint stores a state.
var SnapshotCreateEndpoint = Endpoint[SnapshotCreate, SnapshotReply]{
	Name: "snapshot.create", Timeout: 15 * time.Second, Mutates: true,
	Doc: "Stores the state of an agent's memory, of which only what is new is written, and makes it the agent's head.",
}

// SnapshotCreate stores a JSON document as the newest state of an agent, and makes it the agent's head. Stored is what the tenant
// does not have yet. With a snapshot_id of the caller's it may be repeated: the same content again is the same reply and nothing
// new, other content is conflict.
type SnapshotCreate struct {
	// AgentID of 1 to 200 bytes; the agent need not be registered.
	AgentID string `json:"agent_id" jsonschema:"minLength=1,maxLength=200"`
	// UserID of up to 200 bytes.
	UserID string `json:"user_id,omitzero" jsonschema:"maxLength=200"`
	// Data are any JSON value. It comes back as it was sent, but for white space between its tokens.
	Data jsontext.Value `json:"data,omitzero"`
	// DataTransferID takes the place of data that are too large for one message, up to 64 MiB: a transfer whose parts have been put.
	DataTransferID string `json:"data_transfer_id,omitzero" jsonschema:"format=uuid"`
	// VectorIDs are up to 10000 ids of 1 to 200 bytes.
	VectorIDs []string `json:"vector_ids,omitzero" jsonschema:"maxItems=10000"`
	// Metadata are an object of up to 16 KiB; {} when absent.
	Metadata jsontext.Value `json:"metadata,omitzero"`
	// Label of up to 200 bytes. What is labelled "pinned" is never cleaned up.
	Label string `json:"label,omitzero" jsonschema:"maxLength=200"`
	// ParentID is the snapshot of the same agent that this one follows; the agent's head when absent. Another than the head makes
	// a fork: each branch reads back its own states, and the new snapshot is the head.
	ParentID string `json:"parent_id,omitzero" jsonschema:"format=uuid"`
	// IfHead stores only if this is the agent's head; otherwise conflict names the head. 00000000-0000-0000-0000-000000000000: only if
	// the agent has none.
	IfHead string `json:"if_head,omitzero" jsonschema:"format=uuid"`
	// SnapshotID is a UUID of the caller's choice; a new one when absent.
	SnapshotID string `json:"snapshot_id,omitzero" jsonschema:"format=uuid"`
}

// Validate reports the first field that is out of range.
func (m SnapshotCreate) Validate() error {
	if err := checkName("agent_id", m.AgentID); err != nil {
		return err
	}
	if err := checkOptional("user_id", m.UserID, MaxNameBytes); err != nil {
		return err
	}
	if (len(m.Data) > 0) == (m.DataTransferID != "") {
		return Invalid("data", "exactly one of data and data_transfer_id must be given")
	}
	if len(m.VectorIDs) > MaxVectorIDs {
		return Invalid("vector_ids", "has %d elements; it may have %d at most", len(m.VectorIDs), MaxVectorIDs)
	}
	for i, id := range m.VectorIDs {
		if err := checkName(fmt.Sprintf("vector_ids[%d]", i), id); err != nil {
			return err
		}
	}
	if err := checkObject("metadata", m.Metadata, MaxMetadataBytes); err != nil {
		return err
	}
	if err := checkOptional("label", m.Label, MaxNameBytes); err != nil {
		return err
	}
	if m.SnapshotID == NoSnapshot {
		return Invalid("snapshot_id", "must not be %s", NoSnapshot)
	}
	return checkUUIDs(namedID{"data_transfer_id", m.DataTransferID}, namedID{"parent_id", m.ParentID}, namedID{"if_head", m.IfHead}, namedID{"snapshot_id", m.SnapshotID})
}

type namedID struct{ field, id string }

// checkUUIDs allows absent ones.
func checkUUIDs(ids ...namedID) error {
	for _, named := range ids {
		if err := checkUUID(named.field, named.id); err != nil {
			return err
		}
	}
	return nil
}

// SnapshotDataReply holds a snapshot and its data, or the part of them that was asked for.
type SnapshotDataReply struct {
	Snapshot Snapshot `json:"snapshot"`
	// Data are the document, or the value that path names. Absent when they were not asked for, and when they come by transfer.
	Data jsontext.Value `json:"data,omitzero"`
	// DataTransfer takes the place of data that are too large for one message.
	DataTransfer *DataTransfer `json:"data_transfer,omitzero"`
}

// SnapshotGetEndpoint reads a state.
var SnapshotGetEndpoint = Endpoint[SnapshotGet, SnapshotDataReply]{
	Name: "snapshot.get", Timeout: 15 * time.Second,
	Doc: "Returns a snapshot with its data, or the part of them that a JSON Pointer names.",
}

// SnapshotGet reads a snapshot. Every chunk is compared with its hash: a damaged one is internal and named, and never served.
type SnapshotGet struct {
	SnapshotID string `json:"snapshot_id" jsonschema:"format=uuid"`
	// Path is a JSON Pointer (RFC 6901) of up to 4096 bytes to a value in the data; all of them when absent or empty. Only the chunks
	// on the way to it are read. Where it leads nowhere the answer is not_found.
	Path string `json:"path,omitzero" jsonschema:"maxLength=4096"`
}

// Validate reports the first field that is out of range.
func (m SnapshotGet) Validate() error {
	if err := checkID("snapshot_id", m.SnapshotID); err != nil {
		return err
	}
	switch {
	case len(m.Path) > MaxPointerBytes:
		return Invalid("path", "has %d bytes; it may have %d at most", len(m.Path), MaxPointerBytes)
	case m.Path != "" && (m.Path[0] != '/' || !jsontext.Pointer(m.Path).IsValid()):
		return Invalid("path", "must be a JSON Pointer, as /messages/0/content")
	}
	return nil
}

// SnapshotLatestEndpoint reads the newest state of an agent.
var SnapshotLatestEndpoint = Endpoint[SnapshotLatest, SnapshotDataReply]{
	Name: "snapshot.latest", Timeout: 15 * time.Second,
	Doc: "Returns the head of an agent, or its newest snapshot of a user, with its data.",
}

// SnapshotLatest reads the head of an agent. Without one the answer is not_found.
type SnapshotLatest struct {
	AgentID string `json:"agent_id" jsonschema:"minLength=1,maxLength=200"`
	// UserID asks for the agent's newest snapshot of this user instead.
	UserID string `json:"user_id,omitzero" jsonschema:"maxLength=200"`
	// WithData is true when absent.
	WithData *bool `json:"with_data,omitzero" jsonschema:"default=true"`
}

// Validate reports the first field that is out of range.
func (m SnapshotLatest) Validate() error {
	if err := checkName("agent_id", m.AgentID); err != nil {
		return err
	}
	return checkOptional("user_id", m.UserID, MaxNameBytes)
}

// SnapshotDeleteEndpoint deletes a state.
var SnapshotDeleteEndpoint = Endpoint[SnapshotDelete, SnapshotDeleteReply]{
	Name: "snapshot.delete", Timeout: 5 * time.Second, Mutates: true, Idempotent: true,
	Doc: "Deletes a snapshot; when it is the head, its nearest ancestor that is left becomes the head.",
}

// SnapshotDelete deletes a snapshot. What only it held is removed from the store by a later sweep.
type SnapshotDelete struct {
	SnapshotID string `json:"snapshot_id" jsonschema:"format=uuid"`
}

// Validate reports the first field that is out of range.
func (m SnapshotDelete) Validate() error { return checkID("snapshot_id", m.SnapshotID) }

// SnapshotDeleteReply says whether there was one.
type SnapshotDeleteReply struct {
	Deleted bool `json:"deleted"`
}

// ReadDocument reads a document that did not come in a request: one JSON value by the rules of requests, of which it returns the
// bytes without white space, in the place of those that it is given. The error names the field.
func ReadDocument(field string, document []byte) (jsontext.Value, error) {
	err := checkText(document)
	if err == nil && mayHoldSurrogates(document) {
		err = checkNames(document)
	}
	if err == nil {
		err = checkOne(document)
	}
	var known *Error
	if errors.As(err, &known) {
		return nil, Invalid(field, "the document is refused: %s", joinMessage(known))
	}
	return appendCompact(document[:0], document), nil // in place: a copy may be another 64 MiB
}

// checkOne wants one value and nothing after it.
func checkOne(document []byte) error {
	decoder := jsontext.NewDecoder(bytes.NewBuffer(document), jsontext.AllowInvalidUTF8(true), jsontext.PreserveRawStrings(true))
	if err := decoder.SkipValue(); err != nil {
		return decodeError(err)
	}
	switch _, err := decoder.ReadToken(); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return decodeError(err)
	}
	return Invalid("", "something follows the value")
}

func joinMessage(e *Error) string {
	if e.Details.Field == "" {
		return e.Message
	}
	return e.Details.Field + ": " + e.Message
}
