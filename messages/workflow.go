package messages

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// WorkflowStatus says where a workflow is. Any may follow any: whoever runs the workflow keeps it.
type WorkflowStatus string

// The statuses of a workflow.
const (
	WorkflowDraft     WorkflowStatus = "draft"
	WorkflowActive    WorkflowStatus = "active"
	WorkflowPaused    WorkflowStatus = "paused"
	WorkflowCompleted WorkflowStatus = "completed"
	WorkflowFailed    WorkflowStatus = "failed"
)

func (s WorkflowStatus) validate(field string) error {
	switch s {
	case WorkflowDraft, WorkflowActive, WorkflowPaused, WorkflowCompleted, WorkflowFailed:
		return nil
	}
	return Invalid(field, "must be %s, %s, %s, %s or %s", WorkflowDraft, WorkflowActive, WorkflowPaused, WorkflowCompleted, WorkflowFailed)
}

// Workflow is an entry of the registry. Its JSON is kept as jsonb: the order of members and the spelling of numbers are
// not. Morello keeps workflows and does not run them.
type Workflow struct {
	WorkflowID string `json:"workflow_id"`
	// Name is not unique.
	Name string `json:"name"`
	// Description and CreatedBy are empty when none was given.
	Description string `json:"description"`
	// Definition is any JSON value.
	Definition jsontext.Value `json:"definition"`
	Status     WorkflowStatus `json:"status" jsonschema:"enum=draft,enum=active,enum=paused,enum=completed,enum=failed"`
	// Tags are in the order in which they were given, each once.
	Tags      []string `json:"tags"`
	CreatedBy string   `json:"created_by"`
	// Metadata are an object.
	Metadata jsontext.Value `json:"metadata"`
	// Version is 1 at first and grows by one with each update.
	Version   int64     `json:"version"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// WorkflowReply holds a workflow.
type WorkflowReply struct {
	Workflow Workflow `json:"workflow"`
}

// WorkflowCreateEndpoint stores a workflow.
var WorkflowCreateEndpoint = Endpoint[WorkflowCreate, WorkflowReply]{
	Name: "workflow.create", Timeout: 2 * time.Second, Mutates: true,
	Doc: "Stores a workflow under an id of its own.",
}

// WorkflowCreate stores a workflow. An id that the tenant has already is conflict; names may repeat.
type WorkflowCreate struct {
	// WorkflowID of 1 to 200 bytes; a new UUID when absent.
	WorkflowID string `json:"workflow_id,omitzero" jsonschema:"maxLength=200"`
	// Name of 1 to 200 bytes.
	Name string `json:"name" jsonschema:"minLength=1,maxLength=200"`
	// Description of up to 16 KiB.
	Description string `json:"description,omitzero" jsonschema:"maxLength=16384"`
	// Definition is any JSON value of up to 1 MiB, null included.
	Definition jsontext.Value `json:"definition"`
	// Status is draft when absent.
	Status *WorkflowStatus `json:"status,omitzero" jsonschema:"enum=draft,enum=active,enum=paused,enum=completed,enum=failed,default=draft"`
	// Tags are up to 32 names of 1 to 128 bytes; repeated ones count once.
	Tags []string `json:"tags,omitzero" jsonschema:"maxItems=32"`
	// CreatedBy of up to 200 bytes names the author; empty when absent, and never changed.
	CreatedBy string `json:"created_by,omitzero" jsonschema:"maxLength=200"`
	// Metadata are an object of up to 16 KiB; {} when absent.
	Metadata jsontext.Value `json:"metadata,omitzero"`
}

// Validate reports the first field that is missing or out of range.
func (m WorkflowCreate) Validate() error {
	if err := checkOptional("workflow_id", m.WorkflowID, MaxNameBytes); err != nil {
		return err
	}
	if m.Definition == nil {
		return Invalid("definition", "is missing; null is a value")
	}
	if err := checkOptional("created_by", m.CreatedBy, MaxNameBytes); err != nil {
		return err
	}
	return workflowFields{&m.Name, &m.Description, m.Definition, m.Status, m.Tags, m.Metadata}.validate()
}

// workflowFields are what create and update have in common. What is nil is not checked.
type workflowFields struct {
	name, description *string
	definition        jsontext.Value
	status            *WorkflowStatus
	tags              []string
	metadata          jsontext.Value
}

func (f workflowFields) validate() error {
	if err := checkNaming(f.name, f.description); err != nil {
		return err
	}
	if f.status != nil {
		if err := f.status.validate("status"); err != nil {
			return err
		}
	}
	if err := checkTags("tags", f.tags); err != nil {
		return err
	}
	if err := checkJSONB("definition", f.definition, MaxRegistryJSONBytes); err != nil {
		return err
	}
	return checkObject("metadata", f.metadata, MaxMetadataBytes)
}

// WorkflowGetEndpoint reads a workflow.
var WorkflowGetEndpoint = Endpoint[WorkflowGet, WorkflowReply]{
	Name: "workflow.get", Timeout: 2 * time.Second,
	Doc: "Returns a workflow by its id, or the most recently created of a name.",
}

// WorkflowGet asks for a workflow by exactly one of id and name; of several with the name, for the most recently created.
// One that is not there is not_found.
type WorkflowGet struct {
	WorkflowID string `json:"workflow_id,omitzero" jsonschema:"maxLength=200"`
	Name       string `json:"name,omitzero" jsonschema:"maxLength=200"`
}

// Validate reports what is missing, contradictory or out of range.
func (m WorkflowGet) Validate() error { return checkIDOrName("workflow_id", m.WorkflowID, m.Name) }

// WorkflowUpdateEndpoint changes a workflow.
var WorkflowUpdateEndpoint = Endpoint[WorkflowUpdate, WorkflowReply]{
	Name: "workflow.update", Timeout: 2 * time.Second, Mutates: true,
	Doc: "Changes the named fields of a workflow, at a given version if one is named.",
}

// WorkflowUpdate changes the fields that it names and leaves the others as they are. null means that a field is not named,
// except that definition may be null, as any other JSON value. An empty description, object or list of tags takes away
// what was there. An update that names no field is invalid; one of a workflow that is not there is not_found.
type WorkflowUpdate struct {
	WorkflowID string `json:"workflow_id" jsonschema:"minLength=1,maxLength=200"`
	// IfVersion makes the change only if the workflow has this version; else it is conflict, and details.version the
	// version that it has.
	IfVersion   *int64          `json:"if_version,omitzero" jsonschema:"minimum=1"`
	Name        *string         `json:"name,omitzero" jsonschema:"minLength=1,maxLength=200"`
	Description *string         `json:"description,omitzero" jsonschema:"maxLength=16384"`
	Definition  jsontext.Value  `json:"definition,omitzero"`
	Status      *WorkflowStatus `json:"status,omitzero" jsonschema:"enum=draft,enum=active,enum=paused,enum=completed,enum=failed"`
	// Tags replace the tags that were there.
	Tags     []string       `json:"tags,omitzero" jsonschema:"maxItems=32"`
	Metadata jsontext.Value `json:"metadata,omitzero"`
}

// Validate reports the first field that is out of range, and a change of nothing.
func (m WorkflowUpdate) Validate() error {
	if err := checkName("workflow_id", m.WorkflowID); err != nil {
		return err
	}
	if err := checkIfVersion(m.IfVersion); err != nil {
		return err
	}
	if len(m.Fields()) == 0 {
		return Invalid("", "names no field to change")
	}
	return workflowFields{m.Name, m.Description, m.Definition, m.Status, m.Tags, m.Metadata}.validate()
}

// Fields returns the names of the fields that the update changes.
func (m WorkflowUpdate) Fields() []string {
	return namesOf([]namedField{
		{"name", m.Name != nil},
		{"description", m.Description != nil},
		{"definition", m.Definition != nil},
		{"status", m.Status != nil},
		{"tags", m.Tags != nil},
		{"metadata", given(m.Metadata)},
	})
}

// WorkflowListEndpoint lists workflows.
var WorkflowListEndpoint = Endpoint[WorkflowList, WorkflowListReply]{
	Name: "workflow.list", Timeout: 5 * time.Second,
	Doc: "Lists workflows, the most recently created first, by status, tag and words if they are given.",
}

// WorkflowList lists the workflows that match all the filters it names, the most recently created first. A workflow that
// is there throughout, and matches, comes exactly once, whatever changes meanwhile. A page ends at its limit or at 1 MiB.
type WorkflowList struct {
	Status *WorkflowStatus `json:"status,omitzero" jsonschema:"enum=draft,enum=active,enum=paused,enum=completed,enum=failed"`
	// Tag that the workflows have.
	Tag string `json:"tag,omitzero" jsonschema:"maxLength=128"`
	// Query is of up to 1000 bytes and looks for words in name and description, as web searches have it: all of them, in
	// any order, "a phrase", or, -without. Upper and lower case are the same; words are not stemmed.
	Query string `json:"query,omitzero" jsonschema:"maxLength=1000"`
	Page
}

// Validate reports the first field that is out of range.
func (m WorkflowList) Validate() error {
	if m.Status != nil {
		if err := m.Status.validate("status"); err != nil {
			return err
		}
	}
	if m.Tag != "" {
		if err := checkString("tag", m.Tag, MaxTagBytes); err != nil {
			return err
		}
	}
	if err := checkOptional("query", m.Query, MaxQueryBytes); err != nil {
		return err
	}
	return m.validate()
}

// WorkflowListReply holds a page of workflows.
type WorkflowListReply struct {
	Workflows []Workflow `json:"workflows"`
	// NextCursor asks for the next page; absent on the last one.
	NextCursor string `json:"next_cursor,omitzero"`
}

// WorkflowDeleteEndpoint removes a workflow.
var WorkflowDeleteEndpoint = Endpoint[WorkflowDelete, WorkflowDeleteReply]{
	Name: "workflow.delete", Timeout: 2 * time.Second, Mutates: true,
	Doc: "Removes a workflow.",
}

// WorkflowDelete removes a workflow.
type WorkflowDelete struct {
	WorkflowID string `json:"workflow_id" jsonschema:"minLength=1,maxLength=200"`
}

// Validate reports the first field that is out of range.
func (m WorkflowDelete) Validate() error { return checkName("workflow_id", m.WorkflowID) }

// WorkflowDeleteReply says whether there was such a workflow. Deleting what is not there is deleted:false, no error.
type WorkflowDeleteReply struct {
	Deleted bool `json:"deleted"`
}

// WorkflowCreatedEvent, WorkflowUpdatedEvent and WorkflowDeletedEvent tell of each change of a workflow, after it is
// durable.
var (
	WorkflowCreatedEvent = Event[WorkflowChanged]{Name: "workflow.created", Kept: true, Doc: "A workflow was stored."}
	WorkflowUpdatedEvent = Event[WorkflowChanged]{Name: "workflow.updated", Kept: true, Doc: "A workflow was changed."}
	WorkflowDeletedEvent = Event[WorkflowChanged]{Name: "workflow.deleted", Kept: true, Doc: "A workflow was removed."}
)

// WorkflowChanged names a workflow as it is after the change, or was before it was removed.
type WorkflowChanged struct {
	WorkflowID string         `json:"workflow_id"`
	Name       string         `json:"name"`
	Status     WorkflowStatus `json:"status" jsonschema:"enum=draft,enum=active,enum=paused,enum=completed,enum=failed"`
	Version    int64          `json:"version"`
}
