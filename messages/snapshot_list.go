package messages

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// SnapshotListEndpoint lists snapshots.
var SnapshotListEndpoint = Endpoint[SnapshotList, SnapshotListReply]{
	Name: "snapshot.list", Timeout: 5 * time.Second,
	Doc: "Lists snapshots without their data, newest first.",
}

// SnapshotList lists snapshots, newest first.
type SnapshotList struct {
	AgentID string `json:"agent_id,omitzero" jsonschema:"maxLength=200"`
	UserID  string `json:"user_id,omitzero" jsonschema:"maxLength=200"`
	Label   string `json:"label,omitzero" jsonschema:"maxLength=200"`
	// CreatedAfter and CreatedBefore are bounds; neither is in the range.
	CreatedAfter  *time.Time `json:"created_after,omitzero"`
	CreatedBefore *time.Time `json:"created_before,omitzero"`
	Page
}

// Validate reports the first field that is out of range.
func (m SnapshotList) Validate() error {
	if err := checkOwners(m.UserID, m.AgentID); err != nil {
		return err
	}
	if err := checkOptional("label", m.Label, MaxNameBytes); err != nil {
		return err
	}
	return m.validate()
}

// SnapshotListReply holds a page of snapshots.
type SnapshotListReply struct {
	Snapshots []Snapshot `json:"snapshots"`
	// NextCursor asks for the next page; absent on the last one.
	NextCursor string `json:"next_cursor,omitzero"`
}

// SnapshotHistoryEndpoint lists ancestors.
var SnapshotHistoryEndpoint = Endpoint[SnapshotHistory, SnapshotHistoryReply]{
	Name: "snapshot.history", Timeout: 5 * time.Second,
	Doc: "Lists a snapshot and its ancestors, up to the first of its branch.",
}

// SnapshotHistory lists a snapshot, what it follows, what that follows, and so on.
type SnapshotHistory struct {
	SnapshotID string `json:"snapshot_id" jsonschema:"format=uuid"`
	Page
}

// Validate reports the first field that is out of range.
func (m SnapshotHistory) Validate() error {
	if err := checkID("snapshot_id", m.SnapshotID); err != nil {
		return err
	}
	return m.validate()
}

// SnapshotHistoryReply holds a page of ancestors.
type SnapshotHistoryReply struct {
	Snapshots  []Snapshot `json:"snapshots"`
	NextCursor string     `json:"next_cursor,omitzero"`
	// Truncated says that an ancestor on this page, or before its first or after its last snapshot, was deleted.
	Truncated bool `json:"truncated,omitzero"`
}

// SnapshotSearchEndpoint searches text.
var SnapshotSearchEndpoint = Endpoint[SnapshotSearch, SnapshotSearchReply]{
	Name: "snapshot.search", Timeout: 5 * time.Second,
	Doc: "Searches the strings in snapshots for words, the best first.",
}

// SnapshotSearch searches the string values of the data, not the names of members, for words that stand in one string together.
// Text that many snapshots share is found once for each agent, in the newest snapshot that holds it. Strings of more than 4 KiB
// are cut after white space; the words must stand in one part. Of a document 4 MiB of text are indexed.
type SnapshotSearch struct {
	// Query of 1 to 1000 bytes, as web search engines have it: words, "phrases", or, -not. At least one word must be wanted.
	Query   string `json:"query" jsonschema:"minLength=1,maxLength=1000"`
	AgentID string `json:"agent_id,omitzero" jsonschema:"maxLength=200"`
	UserID  string `json:"user_id,omitzero" jsonschema:"maxLength=200"`
	Page
}

// Validate reports the first field that is out of range.
func (m SnapshotSearch) Validate() error {
	if err := checkString("query", m.Query, MaxQueryBytes); err != nil {
		return err
	}
	if err := checkOwners(m.UserID, m.AgentID); err != nil {
		return err
	}
	return m.validate()
}

// SnapshotSearchReply holds a page of hits, best first.
type SnapshotSearchReply struct {
	Hits       []SnapshotHit `json:"hits"`
	NextCursor string        `json:"next_cursor,omitzero"`
	// Capped says that there are more matches than the 1000 newest, which were ranked.
	Capped bool `json:"capped,omitzero"`
}

// SnapshotHit is a string that matches.
type SnapshotHit struct {
	// Snapshot is the newest one of its agent that holds the string.
	Snapshot Snapshot `json:"snapshot"`
	// Rank orders the hits; a higher one is better.
	Rank float64 `json:"rank"`
	// Highlights are pieces of the string, in which **words** that match are marked.
	Highlights []string `json:"highlights"`
}

// SnapshotStatsEndpoint describes the store.
var SnapshotStatsEndpoint = Endpoint[SnapshotStats, SnapshotStatsReply]{
	Name: "snapshot.stats", Timeout: 15 * time.Second,
	Doc: "Describes the tenant's snapshots, or an agent's: counts, sizes, what sharing saves.",
}

// SnapshotStats describes snapshots.
type SnapshotStats struct {
	AgentID string `json:"agent_id,omitzero" jsonschema:"maxLength=200"`
}

// Validate reports the first field that is out of range.
func (m SnapshotStats) Validate() error { return checkOptional("agent_id", m.AgentID, MaxNameBytes) }

// SnapshotStatsReply holds the numbers.
type SnapshotStatsReply struct {
	Summary SnapshotSummary `json:"summary"`
	// SizeDistribution counts the documents by size.
	SizeDistribution SnapshotSizes `json:"size_distribution"`
}

// SnapshotSummary adds snapshots up.
type SnapshotSummary struct {
	TotalSnapshots int64 `json:"total_snapshots"`
	UniqueAgents   int64 `json:"unique_agents"`
	UniqueUsers    int64 `json:"unique_users"`
	// DocumentBytes is the sum of the documents' sizes, StoredBytes of what each added to the store.
	DocumentBytes int64 `json:"document_bytes"`
	StoredBytes   int64 `json:"stored_bytes"`
	// DedupRatio is the one divided by the other; 0 without snapshots.
	DedupRatio   float64 `json:"dedup_ratio"`
	AvgSizeBytes float64 `json:"avg_size_bytes"`
	MaxSizeBytes int64   `json:"max_size_bytes"`
	// Oldest and Newest are absent without snapshots.
	Oldest         *time.Time `json:"oldest,omitzero"`
	Newest         *time.Time `json:"newest,omitzero"`
	AvgVectorCount float64    `json:"avg_vector_count"`
}

// SnapshotSizes counts documents by size, each once, in the first that it fits: a KB is 1024 bytes.
type SnapshotSizes struct {
	Under1KB   int64 `json:"under_1_kb"`
	Under10KB  int64 `json:"under_10_kb"`
	Under100KB int64 `json:"under_100_kb"`
	Under1MB   int64 `json:"under_1_mb"`
	Over1MB    int64 `json:"over_1_mb"`
}

// SnapshotDiffEndpoint compares two states.
var SnapshotDiffEndpoint = Endpoint[SnapshotDiff, SnapshotDiffReply]{
	Name: "snapshot.diff", Timeout: 15 * time.Second,
	Doc: "Compares two snapshots, and returns the JSON Patch that makes one into the other.",
}

// SnapshotDiff compares two snapshots of the tenant, of one agent or of two. Only what differs is read.
type SnapshotDiff struct {
	FromSnapshotID string `json:"from_snapshot_id" jsonschema:"format=uuid"`
	ToSnapshotID   string `json:"to_snapshot_id" jsonschema:"format=uuid"`
}

// Validate reports the first field that is out of range.
func (m SnapshotDiff) Validate() error {
	if err := checkID("from_snapshot_id", m.FromSnapshotID); err != nil {
		return err
	}
	return checkID("to_snapshot_id", m.ToSnapshotID)
}

// SnapshotDiffReply holds the changes.
type SnapshotDiffReply struct {
	// Changes are a JSON Patch (RFC 6902) of add, remove and replace, to be applied in this order. It makes a document that is equal;
	// the order of members is not compared.
	Changes []SnapshotChange `json:"changes"`
	// Truncated says that the changes would be more than 1 MiB, or more than 10000: then they are incomplete.
	Truncated bool `json:"truncated,omitzero"`
}

// SnapshotChange is one operation of a JSON Patch.
type SnapshotChange struct {
	Op   string `json:"op" jsonschema:"enum=add,enum=remove,enum=replace"`
	Path string `json:"path"`
	// Value is absent in remove.
	Value jsontext.Value `json:"value,omitzero"`
}
