package messages

import (
	"net/netip"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// AuditEntry is an entry of the audit trail. Nothing changes or deletes it but its age: MORELLO_AUDIT_RETENTION_DAYS.
type AuditEntry struct {
	// EntryID is a UUID of version 7.
	EntryID string `json:"entry_id" jsonschema:"format=uuid"`
	// EventType says what happened, such as agent.created.
	EventType string `json:"event_type"`
	// Actor says who did it. It is empty in an entry that an operation wrote whose caller named nobody (Morello-Actor).
	Actor        string `json:"actor"`
	ResourceType string `json:"resource_type"`
	ResourceID   string `json:"resource_id"`
	// Details are an object, kept as jsonb: the order of members and the spelling of numbers are not.
	Details   jsontext.Value `json:"details"`
	IPAddress string         `json:"ip_address,omitzero"`
	UserAgent string         `json:"user_agent,omitzero"`
	CreatedAt time.Time      `json:"created_at"`
}

// AuditLogEndpoint appends an entry.
var AuditLogEndpoint = Endpoint[AuditLog, AuditLogReply]{
	Name: "audit.log", Timeout: 2 * time.Second, Mutates: true,
	Doc: "Appends an entry to the audit trail.",
}

// AuditLog appends an entry. Changes of agents and workflows write theirs themselves.
type AuditLog struct {
	// EventType, Actor, ResourceType and ResourceID have 1 to 200 bytes.
	EventType    string `json:"event_type" jsonschema:"minLength=1,maxLength=200"`
	Actor        string `json:"actor" jsonschema:"minLength=1,maxLength=200"`
	ResourceType string `json:"resource_type" jsonschema:"minLength=1,maxLength=200"`
	ResourceID   string `json:"resource_id" jsonschema:"minLength=1,maxLength=200"`
	// Details are an object of up to 64 KiB; {} when absent.
	Details jsontext.Value `json:"details,omitzero"`
	// IPAddress of version 4 or 6; it is kept in its usual spelling (RFC 5952).
	IPAddress string `json:"ip_address,omitzero"`
	// UserAgent of up to 1024 bytes.
	UserAgent string `json:"user_agent,omitzero" jsonschema:"maxLength=1024"`
}

// Validate reports the first field that is missing or out of range.
func (m AuditLog) Validate() error {
	for _, text := range []struct{ field, value string }{
		{"event_type", m.EventType}, {"actor", m.Actor}, {"resource_type", m.ResourceType}, {"resource_id", m.ResourceID},
	} {
		if err := checkName(text.field, text.value); err != nil {
			return err
		}
	}
	if err := checkOrigin(m.IPAddress, m.UserAgent); err != nil {
		return err
	}
	return checkObject("details", m.Details, MaxAuditDetailsBytes)
}

// checkOrigin allows what is absent.
func checkOrigin(ipAddress, userAgent string) error {
	if ipAddress != "" {
		if addr, err := netip.ParseAddr(ipAddress); err != nil || addr.Zone() != "" {
			return Invalid("ip_address", "must be an IP address of version 4 or 6, without a zone")
		}
	}
	if userAgent == "" {
		return nil
	}
	return checkString("user_agent", userAgent, MaxUserAgentBytes)
}

// AuditLogReply holds the entry as it was stored.
type AuditLogReply struct {
	Entry AuditEntry `json:"entry"`
}

// AuditQueryEndpoint reads the trail.
var AuditQueryEndpoint = Endpoint[AuditQuery, AuditQueryReply]{
	Name: "audit.query", Timeout: 5 * time.Second, Shared: true,
	Doc: "Lists entries of the audit trail, newest first, by any of their fields.",
}

// AuditQuery lists the entries that match all the filters it names, exactly, newest first. A page ends at its limit or at
// 1 MiB. Windows of time are half open: that of 1 May ends with the before that is the after of 2 May. Under the operator's tenant
// it lists what operators did; a tenant's entries are listed under that tenant.
type AuditQuery struct {
	EventType    string `json:"event_type,omitzero" jsonschema:"maxLength=200"`
	Actor        string `json:"actor,omitzero" jsonschema:"maxLength=200"`
	ResourceType string `json:"resource_type,omitzero" jsonschema:"maxLength=200"`
	ResourceID   string `json:"resource_id,omitzero" jsonschema:"maxLength=200"`
	// IPAddress in any spelling.
	IPAddress string `json:"ip_address,omitzero"`
	UserAgent string `json:"user_agent,omitzero" jsonschema:"maxLength=1024"`
	// Details, an object of up to 4 KiB, is contained in the details of the entry, as PostgreSQL's @> has it: each member is there,
	// objects within it by the same rule, arrays with each of these elements, anywhere, anything else as the same value. {} is
	// contained in all. Empty objects and arrays within it are in no index: without another filter they are looked for in every entry.
	Details jsontext.Value `json:"details,omitzero"`
	// After is the earliest time, included.
	After *time.Time `json:"after,omitzero"`
	// Before is the end, not included.
	Before *time.Time `json:"before,omitzero"`
	Page
}

// Validate reports the first field that is out of range.
func (m AuditQuery) Validate() error {
	for _, text := range []struct{ field, value string }{
		{"event_type", m.EventType}, {"actor", m.Actor}, {"resource_type", m.ResourceType}, {"resource_id", m.ResourceID},
	} {
		if err := checkOptional(text.field, text.value, MaxNameBytes); err != nil {
			return err
		}
	}
	if err := checkOrigin(m.IPAddress, m.UserAgent); err != nil {
		return err
	}
	if err := checkObject("details", m.Details, MaxAuditFilterBytes); err != nil {
		return err
	}
	if m.After != nil && m.Before != nil && !m.After.Before(*m.Before) {
		return Invalid("after", "must be earlier than before")
	}
	return m.validate()
}

// AuditQueryReply holds a page of entries.
type AuditQueryReply struct {
	Entries []AuditEntry `json:"entries"`
	// NextCursor asks for the next page; absent on the last one.
	NextCursor string `json:"next_cursor,omitzero"`
}
