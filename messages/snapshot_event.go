package messages

// The events of snapshots.
var (
	SnapshotCreatedEvent = Event[SnapshotRef]{
		Name: "snapshot.created", Kept: true,
		Doc: "A state was stored and is the head of its agent.",
	}
	SnapshotDeletedEvent = Event[SnapshotRef]{
		Name: "snapshot.deleted", Kept: true,
		Doc: "A snapshot was deleted.",
	}
	SnapshotRestoredEvent = Event[SnapshotRestoration]{
		Name: "snapshot.restored", Kept: true,
		Doc: "A state was restored: a new snapshot with its data is the head of the target.",
	}
	SnapshotRestoreProgressEvent = Event[SnapshotRestoreProgress]{
		Name: "snapshot.restore_progress", Kept: true,
		Doc: "A restore has come so far.",
	}
	SnapshotRestoreFailedEvent = Event[SnapshotRestoreFailure]{
		Name: "snapshot.restore_failed", Kept: true,
		Doc: "A restore failed for good; nothing has changed.",
	}
	SnapshotCleanedEvent = Event[SnapshotsCleaned]{
		Name: "snapshot.cleaned", Kept: true,
		Doc: "Snapshots of a tenant were deleted: old ones by a clean-up, or all of an agent with the agent.",
	}
)

// SnapshotRef names a snapshot and whose it is.
type SnapshotRef struct {
	SnapshotID string `json:"snapshot_id"`
	AgentID    string `json:"agent_id"`
	UserID     string `json:"user_id,omitzero"`
	ParentID   string `json:"parent_id,omitzero"`
}

// SnapshotRestoration names a restore.
type SnapshotRestoration struct {
	JobID int64 `json:"job_id"`
	// SourceSnapshotID is restored as SnapshotID for AgentID.
	SourceSnapshotID string `json:"source_snapshot_id"`
	SnapshotID       string `json:"snapshot_id"`
	AgentID          string `json:"agent_id"`
}

// SnapshotRestoreProgress says how far a restore is.
type SnapshotRestoreProgress struct {
	SnapshotRestoration
	Progress JobProgress `json:"progress"`
}

// SnapshotRestoreFailure says why a restore was given up.
type SnapshotRestoreFailure struct {
	SnapshotRestoration
	// Error names the failure; its text holds no data.
	Error string `json:"error"`
}

// SnapshotsCleaned names snapshots that went together, up to 1000 in a message.
type SnapshotsCleaned struct {
	Snapshots []SnapshotRef `json:"snapshots"`
}

// SnapshotCleanupEvent reports a run of the job snapshot_cleanup.
var SnapshotCleanupEvent = Event[MaintenanceReport]{
	Name: "maintenance.snapshot_cleanup", Kept: true,
	Doc: "Old snapshots were deleted, or that failed.",
}

// ChunkSweepEvent reports a run of the job chunk_sweep.
var ChunkSweepEvent = Event[MaintenanceReport]{
	Name: "maintenance.chunk_sweep", Kept: true,
	Doc: "Chunks that no snapshot holds any more were removed, or that failed.",
}
