package messages

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// AgentStatus says whether an agent is in use. Nothing depends on it but the filter of agent.list.
type AgentStatus string

// The statuses of an agent.
const (
	AgentActive   AgentStatus = "active"
	AgentInactive AgentStatus = "inactive"
	AgentArchived AgentStatus = "archived"
)

func (s AgentStatus) validate(field string) error {
	switch s {
	case AgentActive, AgentInactive, AgentArchived:
		return nil
	}
	return Invalid(field, "must be %s, %s or %s", AgentActive, AgentInactive, AgentArchived)
}

// Agent is an entry of the registry. Its JSON is kept as jsonb: the order of members and the spelling of numbers are not.
// An agent that is not registered may own sessions and snapshots all the same.
type Agent struct {
	AgentID string `json:"agent_id"`
	// Name is unique in the tenant.
	Name string `json:"name"`
	// Description and Type are empty when none was given.
	Description string `json:"description"`
	Type        string `json:"type"`
	// Capabilities are any JSON value.
	Capabilities jsontext.Value `json:"capabilities"`
	// AutonomyLevel is 0 to 5.
	AutonomyLevel int `json:"autonomy_level"`
	// ModelConfig and Metadata are objects.
	ModelConfig jsontext.Value `json:"model_config"`
	Status      AgentStatus    `json:"status" jsonschema:"enum=active,enum=inactive,enum=archived"`
	Metadata    jsontext.Value `json:"metadata"`
	// Version is 1 at first and grows by one with each update.
	Version   int64     `json:"version"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// AgentReply holds an agent.
type AgentReply struct {
	Agent Agent `json:"agent"`
}

// AgentCreateEndpoint registers an agent.
var AgentCreateEndpoint = Endpoint[AgentCreate, AgentReply]{
	Name: "agent.create", Timeout: 2 * time.Second, Mutates: true,
	Doc: "Registers an agent under an id and a name of its own.",
}

// AgentCreate registers an agent. An id or a name that the tenant has already is conflict, naming the field.
type AgentCreate struct {
	// AgentID of 1 to 200 bytes; a new UUID when absent.
	AgentID string `json:"agent_id,omitzero" jsonschema:"maxLength=200"`
	// Name of 1 to 200 bytes.
	Name string `json:"name" jsonschema:"minLength=1,maxLength=200"`
	// Description of up to 16 KiB.
	Description string `json:"description,omitzero" jsonschema:"maxLength=16384"`
	// Type of up to 200 bytes, such as "researcher"; agent.list filters by it.
	Type string `json:"type,omitzero" jsonschema:"maxLength=200"`
	// Capabilities are any JSON value of up to 1 MiB; [] when absent.
	Capabilities jsontext.Value `json:"capabilities,omitzero"`
	// AutonomyLevel is 0 to 5; 1 when absent.
	AutonomyLevel *int `json:"autonomy_level,omitzero" jsonschema:"minimum=0,maximum=5,default=1"`
	// ModelConfig is an object of up to 1 MiB; {} when absent.
	ModelConfig jsontext.Value `json:"model_config,omitzero"`
	// Status is active when absent.
	Status *AgentStatus `json:"status,omitzero" jsonschema:"enum=active,enum=inactive,enum=archived,default=active"`
	// Metadata are an object of up to 16 KiB; {} when absent.
	Metadata jsontext.Value `json:"metadata,omitzero"`
}

// Validate reports the first field that is out of range.
func (m AgentCreate) Validate() error {
	if err := checkOptional("agent_id", m.AgentID, MaxNameBytes); err != nil {
		return err
	}
	return agentFields{&m.Name, &m.Description, &m.Type, m.Capabilities, m.AutonomyLevel, m.ModelConfig, m.Status, m.Metadata}.validate()
}

// agentFields are what create and update have in common. What is nil is not checked.
type agentFields struct {
	name, description, kind *string
	capabilities            jsontext.Value
	autonomyLevel           *int
	modelConfig             jsontext.Value
	status                  *AgentStatus
	metadata                jsontext.Value
}

func (f agentFields) validate() error {
	if err := checkNaming(f.name, f.description); err != nil {
		return err
	}
	if f.kind != nil {
		if err := checkOptional("type", *f.kind, MaxNameBytes); err != nil {
			return err
		}
	}
	if f.autonomyLevel != nil && (*f.autonomyLevel < 0 || *f.autonomyLevel > MaxAutonomyLevel) {
		return Invalid("autonomy_level", "must be 0 to %d", MaxAutonomyLevel)
	}
	if f.status != nil {
		if err := f.status.validate("status"); err != nil {
			return err
		}
	}
	if err := checkJSONB("capabilities", f.capabilities, MaxRegistryJSONBytes); err != nil {
		return err
	}
	if err := checkObject("model_config", f.modelConfig, MaxRegistryJSONBytes); err != nil {
		return err
	}
	return checkObject("metadata", f.metadata, MaxMetadataBytes)
}

// AgentGetEndpoint reads an agent.
var AgentGetEndpoint = Endpoint[AgentGet, AgentReply]{
	Name: "agent.get", Timeout: 2 * time.Second,
	Doc: "Returns an agent by its id or its name.",
}

// AgentGet asks for an agent by exactly one of id and name. One that is not there is not_found.
type AgentGet struct {
	AgentID string `json:"agent_id,omitzero" jsonschema:"maxLength=200"`
	Name    string `json:"name,omitzero" jsonschema:"maxLength=200"`
}

// Validate reports what is missing, contradictory or out of range.
func (m AgentGet) Validate() error { return checkIDOrName("agent_id", m.AgentID, m.Name) }

// AgentUpdateEndpoint changes an agent.
var AgentUpdateEndpoint = Endpoint[AgentUpdate, AgentReply]{
	Name: "agent.update", Timeout: 2 * time.Second, Mutates: true,
	Doc: "Changes the named fields of an agent, at a given version if one is named.",
}

// AgentUpdate changes the fields that it names and leaves the others as they are. null means that a field is not named,
// except that capabilities may be null, as any other JSON value. An empty description, type or object takes away what was
// there. An update that names no field is invalid; one of an agent that is not there is not_found.
type AgentUpdate struct {
	AgentID string `json:"agent_id" jsonschema:"minLength=1,maxLength=200"`
	// IfVersion makes the change only if the agent has this version; else it is conflict, and details.version the version
	// that it has.
	IfVersion *int64 `json:"if_version,omitzero" jsonschema:"minimum=1"`
	// Name of 1 to 200 bytes; one that another agent has is conflict.
	Name          *string        `json:"name,omitzero" jsonschema:"minLength=1,maxLength=200"`
	Description   *string        `json:"description,omitzero" jsonschema:"maxLength=16384"`
	Type          *string        `json:"type,omitzero" jsonschema:"maxLength=200"`
	Capabilities  jsontext.Value `json:"capabilities,omitzero"`
	AutonomyLevel *int           `json:"autonomy_level,omitzero" jsonschema:"minimum=0,maximum=5"`
	ModelConfig   jsontext.Value `json:"model_config,omitzero"`
	Status        *AgentStatus   `json:"status,omitzero" jsonschema:"enum=active,enum=inactive,enum=archived"`
	Metadata      jsontext.Value `json:"metadata,omitzero"`
}

// Validate reports the first field that is out of range, and a change of nothing.
func (m AgentUpdate) Validate() error {
	if err := checkName("agent_id", m.AgentID); err != nil {
		return err
	}
	if err := checkIfVersion(m.IfVersion); err != nil {
		return err
	}
	if len(m.Fields()) == 0 {
		return Invalid("", "names no field to change")
	}
	return agentFields{m.Name, m.Description, m.Type, m.Capabilities, m.AutonomyLevel, m.ModelConfig, m.Status, m.Metadata}.validate()
}

// Fields returns the names of the fields that the update changes.
func (m AgentUpdate) Fields() []string {
	return namesOf([]namedField{
		{"name", m.Name != nil},
		{"description", m.Description != nil},
		{"type", m.Type != nil},
		{"capabilities", m.Capabilities != nil},
		{"autonomy_level", m.AutonomyLevel != nil},
		{"model_config", given(m.ModelConfig)},
		{"status", m.Status != nil},
		{"metadata", given(m.Metadata)},
	})
}

// AgentListEndpoint lists agents.
var AgentListEndpoint = Endpoint[AgentList, AgentListReply]{
	Name: "agent.list", Timeout: 5 * time.Second,
	Doc: "Lists agents, the most recently created first, by status, type and words if they are given.",
}

// AgentList lists the agents that match all the filters it names, the most recently created first. An agent that is there
// throughout, and matches, comes exactly once, whatever changes meanwhile. A page ends at its limit or at 1 MiB.
type AgentList struct {
	Status *AgentStatus `json:"status,omitzero" jsonschema:"enum=active,enum=inactive,enum=archived"`
	// Type of the agents, exactly.
	Type string `json:"type,omitzero" jsonschema:"maxLength=200"`
	// Query is of up to 1000 bytes and looks for words in name and description, as web searches have it: all of them, in
	// any order, "a phrase", or, -without. Upper and lower case are the same; words are not stemmed.
	Query string `json:"query,omitzero" jsonschema:"maxLength=1000"`
	Page
}

// Validate reports the first field that is out of range.
func (m AgentList) Validate() error {
	if m.Status != nil {
		if err := m.Status.validate("status"); err != nil {
			return err
		}
	}
	if err := checkOptional("type", m.Type, MaxNameBytes); err != nil {
		return err
	}
	if err := checkOptional("query", m.Query, MaxQueryBytes); err != nil {
		return err
	}
	return m.validate()
}

// AgentListReply holds a page of agents.
type AgentListReply struct {
	Agents []Agent `json:"agents"`
	// NextCursor asks for the next page; absent on the last one.
	NextCursor string `json:"next_cursor,omitzero"`
}

// AgentDeleteEndpoint removes an agent.
var AgentDeleteEndpoint = Endpoint[AgentDelete, AgentDeleteReply]{
	Name: "agent.delete", Timeout: 5 * time.Second, Mutates: true,
	Doc: "Removes an agent, and by a job what it owns if that is asked for.",
}

// AgentDelete removes an agent from the registry.
type AgentDelete struct {
	AgentID string `json:"agent_id" jsonschema:"minLength=1,maxLength=200"`
	// Cascade has a job delete also what the agent owns: its sessions, snapshots and items, registered or not. What the
	// agent stores while the job is at work may stay.
	Cascade bool `json:"cascade,omitzero" jsonschema:"default=false"`
}

// Validate reports the first field that is out of range.
func (m AgentDelete) Validate() error { return checkName("agent_id", m.AgentID) }

// AgentDeleteReply says whether there was such an agent. Deleting what is not there is deleted:false, no error.
type AgentDeleteReply struct {
	Deleted bool `json:"deleted"`
	// JobID is that of the job that deletes what the agent owns; given with cascade.
	JobID int64 `json:"job_id,omitzero"`
}

// AgentCreatedEvent, AgentUpdatedEvent and AgentDeletedEvent tell of each change of an agent, after it is durable.
var (
	AgentCreatedEvent = Event[AgentChanged]{Name: "agent.created", Kept: true, Doc: "An agent was registered."}
	AgentUpdatedEvent = Event[AgentChanged]{Name: "agent.updated", Kept: true, Doc: "An agent was changed."}
	AgentDeletedEvent = Event[AgentChanged]{Name: "agent.deleted", Kept: true, Doc: "An agent was removed from the registry."}
)

// AgentChanged names an agent as it is after the change, or was before it was removed.
type AgentChanged struct {
	AgentID string      `json:"agent_id"`
	Name    string      `json:"name"`
	Status  AgentStatus `json:"status" jsonschema:"enum=active,enum=inactive,enum=archived"`
	Version int64       `json:"version"`
}
