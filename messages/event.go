package messages

import (
	"reflect"
	"strings"
	"time"
)

const (
	eventPrefix = "morello.events." + ContractVersion + "."
	// EventStream is the JetStream stream that keeps events.
	EventStream = "MORELLO_EVENTS"
	// EventRetention is how long that stream keeps an event.
	EventRetention = 7 * 24 * time.Hour
	// EventStreamBytes bounds the stream; the oldest events go first.
	EventStreamBytes = 1 << 30
	// EventDuplicateWindow is how long the stream knows the id of an event, and drops a second one with it.
	EventDuplicateWindow = 2 * time.Hour
)

// Event names one kind of event and ties it to its body.
type Event[Body any] struct {
	// Name is "<capability>.<event>", the last two tokens of the subject.
	Name string
	// Doc says in one sentence what happened.
	Doc string
	// Kept events are stored in EventStream; the others reach only who listens at the moment.
	Kept bool
}

// Info returns the event without its type, the form in which it stands in the table.
func (e Event[Body]) Info() EventInfo {
	return EventInfo{Name: e.Name, Doc: e.Doc, Kept: e.Kept, Body: reflect.TypeFor[Body]()}
}

// EventInfo is one row of the table of events.
type EventInfo struct {
	Name string
	Doc  string
	Kept bool
	Body reflect.Type
}

// Subject returns the subject of a tenant's events of this kind; those of no tenant are TenantAdmin's.
func (e EventInfo) Subject(tenant string) string { return eventPrefix + tenant + "." + e.Name }

// Events returns the table of all events.
func Events() []EventInfo {
	return []EventInfo{
		CacheInvalidatedEvent.Info(),
		SessionCreatedEvent.Info(),
		SessionRotatedEvent.Info(),
		SessionDeletedEvent.Info(),
		SessionExpiredEvent.Info(),
		SessionTokenReusedEvent.Info(),
		AgentCreatedEvent.Info(),
		AgentUpdatedEvent.Info(),
		AgentDeletedEvent.Info(),
		WorkflowCreatedEvent.Info(),
		WorkflowUpdatedEvent.Info(),
		WorkflowDeletedEvent.Info(),
		SnapshotCreatedEvent.Info(),
		SnapshotDeletedEvent.Info(),
		SnapshotRestoredEvent.Info(),
		SnapshotRestoreProgressEvent.Info(),
		SnapshotRestoreFailedEvent.Info(),
		SnapshotCleanedEvent.Info(),
		CacheCleanupEvent.Info(),
		SessionCleanupEvent.Info(),
		SnapshotCleanupEvent.Info(),
		ChunkSweepEvent.Info(),
		IdempotencyCleanupEvent.Info(),
		PartitionMaintenanceEvent.Info(),
		TransferCleanupEvent.Info(),
	}
}

// EventByName finds an event in the table.
func EventByName(name string) (EventInfo, bool) {
	for _, event := range Events() {
		if event.Name == name {
			return event, true
		}
	}
	return EventInfo{}, false
}

// EventStreamSubjects returns the subjects that EventStream keeps: for each capability that has kept events, all tenants.
func EventStreamSubjects() []string {
	var subjects []string
	seen := map[string]bool{}
	for _, event := range Events() {
		capability, _, _ := strings.Cut(event.Name, ".")
		if event.Kept && !seen[capability] {
			seen[capability] = true
			subjects = append(subjects, eventPrefix+"*."+capability+".>")
		}
	}
	return subjects
}

// CacheCleanupEvent reports a run of the job cache_cleanup.
var CacheCleanupEvent = Event[MaintenanceReport]{
	Name: "maintenance.cache_cleanup", Kept: true,
	Doc: "Expired cache entries were removed, or their removal failed.",
}

// IdempotencyCleanupEvent reports a run of the job idempotency_cleanup.
var IdempotencyCleanupEvent = Event[MaintenanceReport]{
	Name: "maintenance.idempotency_cleanup", Kept: true,
	Doc: "Replies kept for repeated requests were removed after their time, or their removal failed.",
}

// PartitionMaintenanceEvent reports a run of the job partition_maintenance.
var PartitionMaintenanceEvent = Event[MaintenanceReport]{
	Name: "maintenance.partition_maintenance", Kept: true,
	Doc: "Partitions of the audit trail were made, or what is past its retention was removed, or that failed.",
}

// MaintenanceReport is what a periodic job publishes when it did something or failed. A long run may be reported in
// several parts, each with its own counts.
type MaintenanceReport struct {
	Job        string           `json:"job"`
	StartedAt  time.Time        `json:"started_at"`
	DurationMS int64            `json:"duration_ms"`
	Counts     map[string]int64 `json:"counts"`
	// Error names the failure; empty when the run ended well. Its text is for operators and holds no data.
	Error string `json:"error,omitzero"`
}
