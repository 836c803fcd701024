package messages

import "time"

// SnapshotCleanupEndpoint removes old states.
var SnapshotCleanupEndpoint = Endpoint[SnapshotCleanup, SnapshotCleanupReply]{
	Name: "snapshot.cleanup", Timeout: 30 * time.Second, Mutates: true,
	Doc: "Deletes old snapshots beyond the newest of each agent; a job does so too.",
}

// SnapshotCleanup deletes snapshots that are old and beyond the newest of their agent; never a head, and none labelled "pinned".
// It works in batches until 80 % of the deadline have passed; more:true then asks to be called again. The job snapshot_cleanup
// does the same for all tenants, with the defaults.
type SnapshotCleanup struct {
	// OlderThanDays is 0 to 3650; 90 when absent.
	OlderThanDays *float64 `json:"older_than_days,omitzero" jsonschema:"minimum=0,maximum=3650,default=90"`
	// KeepMinimum is how many of the newest of each agent stay whatever their age, 0 to 10000; 5 when absent.
	KeepMinimum *int   `json:"keep_minimum,omitzero" jsonschema:"minimum=0,maximum=10000,default=5"`
	AgentID     string `json:"agent_id,omitzero" jsonschema:"maxLength=200"`
	// DryRun changes nothing and counts what would be deleted.
	DryRun bool `json:"dry_run,omitzero"`
}

// Validate reports the first field that is out of range.
func (m SnapshotCleanup) Validate() error {
	if m.OlderThanDays != nil && (!(*m.OlderThanDays >= 0) || *m.OlderThanDays > MaxSnapshotRetentionDays) {
		return Invalid("older_than_days", "must be 0 to %d", MaxSnapshotRetentionDays)
	}
	if m.KeepMinimum != nil && (*m.KeepMinimum < 0 || *m.KeepMinimum > MaxKeptSnapshots) {
		return Invalid("keep_minimum", "must be 0 to %d", MaxKeptSnapshots)
	}
	return checkOptional("agent_id", m.AgentID, MaxNameBytes)
}

// SnapshotCleanupReply counts what was done, or would be.
type SnapshotCleanupReply struct {
	Deleted int64 `json:"deleted"`
	// FreedBytes is what the deleted snapshots had added to the store. The next sweeps free as much of it as no other snapshot holds.
	FreedBytes int64 `json:"freed_bytes"`
	// KeptByMinimum counts the old ones that are among the newest of their agent.
	KeptByMinimum int64 `json:"kept_by_minimum"`
	// More says that time ran out before all was done: call again.
	More bool `json:"more,omitzero"`
}

// SnapshotRestoreEndpoint goes back to a state.
var SnapshotRestoreEndpoint = Endpoint[SnapshotRestore, SnapshotRestoreReply]{
	Name: "snapshot.restore", Timeout: 5 * time.Second, Mutates: true,
	Doc: "Starts a job that makes an earlier state the head of its agent, or of another; nothing is lost of what came after.",
}

// SnapshotRestore restores a snapshot: a job verifies it, and makes a new snapshot with the same data whose parent is the head of
// the target. system.job_get follows the job; snapshot.restored or snapshot.restore_failed tells the end.
type SnapshotRestore struct {
	// SnapshotID names what to restore; or AgentID and At, the newest snapshot of the agent that is not later.
	SnapshotID string     `json:"snapshot_id,omitzero" jsonschema:"format=uuid"`
	AgentID    string     `json:"agent_id,omitzero" jsonschema:"maxLength=200"`
	At         *time.Time `json:"at,omitzero"`
	// TargetAgentID is whose head it becomes; that of the snapshot's own agent when absent.
	TargetAgentID string `json:"target_agent_id,omitzero" jsonschema:"maxLength=200"`
	// DryRun changes nothing and says what would be restored.
	DryRun bool `json:"dry_run,omitzero"`
}

// Validate reports the first field that is out of range.
func (m SnapshotRestore) Validate() error {
	if (m.SnapshotID == "") == (m.AgentID == "") {
		return Invalid("snapshot_id", "exactly one of snapshot_id, and agent_id with at, must be given")
	}
	if (m.AgentID == "") != (m.At == nil) {
		return Invalid("at", "must be given with agent_id, and only with it")
	}
	if err := checkUUID("snapshot_id", m.SnapshotID); err != nil {
		return err
	}
	if err := checkOptional("agent_id", m.AgentID, MaxNameBytes); err != nil {
		return err
	}
	return checkOptional("target_agent_id", m.TargetAgentID, MaxNameBytes)
}

// SnapshotRestoreReply names the job and what it makes.
type SnapshotRestoreReply struct {
	// JobID is absent in a dry run.
	JobID int64 `json:"job_id,omitzero"`
	// SnapshotID is that of the new snapshot; absent in a dry run.
	SnapshotID string `json:"snapshot_id,omitzero"`
	// PreRestoreSnapshotID is the head of the target before; absent if it has none.
	PreRestoreSnapshotID string `json:"pre_restore_snapshot_id,omitzero"`
	// Source is the snapshot that is restored, TargetAgentID whose head it becomes.
	Source        Snapshot `json:"source"`
	TargetAgentID string   `json:"target_agent_id"`
}

// SnapshotVerifyEndpoint re-reads what is stored.
var SnapshotVerifyEndpoint = Endpoint[SnapshotVerify, SnapshotVerifyReply]{
	Name: "snapshot.verify", Timeout: 5 * time.Second, Mutates: true, Operator: true,
	Doc: "Starts a job that reads stored chunks again, compares them with their hashes, and reports the damaged.",
}

// SnapshotVerify checks the store. The job's result has counts, and the first damaged and missing chunks by name.
type SnapshotVerify struct {
	// Tenant whose chunks are checked; those of all when absent.
	Tenant string `json:"tenant,omitzero" jsonschema:"maxLength=63"`
	// AgentID, which needs a tenant, restricts it to the snapshots of an agent.
	AgentID string `json:"agent_id,omitzero" jsonschema:"maxLength=200"`
}

// Validate reports the first field that is out of range.
func (m SnapshotVerify) Validate() error {
	if m.Tenant != "" && !ValidTenant(m.Tenant) {
		return Invalid("tenant", "is no name of a tenant")
	}
	if m.AgentID != "" && m.Tenant == "" {
		return Invalid("agent_id", "needs a tenant")
	}
	return checkOptional("agent_id", m.AgentID, MaxNameBytes)
}

// SnapshotVerifyReply names the job.
type SnapshotVerifyReply struct {
	JobID int64 `json:"job_id"`
}
