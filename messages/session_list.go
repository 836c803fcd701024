package messages

import "time"

// SessionListEndpoint lists sessions.
var SessionListEndpoint = Endpoint[SessionList, SessionListReply]{
	Name: "session.list", Timeout: 5 * time.Second,
	Doc: "Lists sessions, the most recently updated first; live ones unless another state is named.",
}

// SessionList lists sessions by updated_at, the latest first. A listing is of the moment of its first page: a session that is
// updated after that comes no more, so that none comes twice. A page ends at its limit or at 1 MiB of data.
type SessionList struct {
	// UserID and AgentID name whose sessions are meant; all when absent.
	UserID  string `json:"user_id,omitzero" jsonschema:"maxLength=200"`
	AgentID string `json:"agent_id,omitzero" jsonschema:"maxLength=200"`
	// State is live when absent. Ended sessions are kept for 30 days.
	State SessionState `json:"state,omitzero" jsonschema:"enum=live,enum=expired,enum=deleted,enum=all,default=live"`
	Page
}

// Validate reports the first field that is out of range.
func (m SessionList) Validate() error {
	if err := checkOwners(m.UserID, m.AgentID); err != nil {
		return err
	}
	switch m.State {
	case "", SessionLive, SessionExpired, SessionDeleted, SessionAll:
		return m.validate()
	}
	return Invalid("state", "must be %s, %s, %s or %s", SessionLive, SessionExpired, SessionDeleted, SessionAll)
}

// SessionListReply holds a page of sessions.
type SessionListReply struct {
	Sessions []Session `json:"sessions"`
	// NextCursor asks for the next page; absent on the last one.
	NextCursor string `json:"next_cursor,omitzero"`
}

// SessionActiveCountEndpoint counts live sessions.
var SessionActiveCountEndpoint = Endpoint[SessionActiveCount, SessionActiveCountReply]{
	Name: "session.active_count", Timeout: 5 * time.Second,
	Doc: "Counts the live sessions, their users and their agents.",
}

// SessionActiveCount counts live sessions, exactly.
type SessionActiveCount struct {
	// UserID and AgentID name whose sessions are meant; all when absent.
	UserID  string `json:"user_id,omitzero" jsonschema:"maxLength=200"`
	AgentID string `json:"agent_id,omitzero" jsonschema:"maxLength=200"`
}

// Validate reports the first field that is out of range.
func (m SessionActiveCount) Validate() error { return checkOwners(m.UserID, m.AgentID) }

// SessionActiveCountReply holds the counts.
type SessionActiveCountReply struct {
	TotalActive  int64 `json:"total_active"`
	UniqueUsers  int64 `json:"unique_users"`
	UniqueAgents int64 `json:"unique_agents"`
	// AvgInteractions is per live session.
	AvgInteractions float64 `json:"avg_interactions"`
}

// SessionCleanupInactiveEndpoint tidies up.
var SessionCleanupInactiveEndpoint = Endpoint[SessionCleanupInactive, SessionCleanupInactiveReply]{
	Name: "session.cleanup_inactive", Timeout: 30 * time.Second, Mutates: true,
	Doc: "Marks the tenant's expired sessions and removes those that ended long ago; a job does so too.",
}

// SessionCleanupInactive marks sessions that have expired, which session.expired tells, and removes those that expired or were
// deleted longer ago than so many days. It never ends a live session. It works in batches until 80 % of the deadline have
// passed; more:true then asks to be called again. The job session_cleanup does the same for all tenants with 30 days.
type SessionCleanupInactive struct {
	// OlderThanDays is 0 to 3650; 30 when absent.
	OlderThanDays *float64 `json:"older_than_days,omitzero" jsonschema:"minimum=0,maximum=3650,default=30"`
	// DryRun changes nothing and counts what would be done.
	DryRun bool `json:"dry_run,omitzero"`
}

// Validate reports the first field that is out of range.
func (m SessionCleanupInactive) Validate() error {
	if m.OlderThanDays != nil && (!(*m.OlderThanDays >= 0) || *m.OlderThanDays > MaxSessionRetentionDays) {
		return Invalid("older_than_days", "must be 0 to %d", MaxSessionRetentionDays)
	}
	return nil
}

// SessionCleanupInactiveReply counts what was done, or would be.
type SessionCleanupInactiveReply struct {
	ExpiredMarked int64 `json:"expired_marked"`
	// Deleted counts the sessions that were removed for good, those among them that were marked just before.
	Deleted int64 `json:"deleted"`
	// More says that time ran out before all was done: call again.
	More bool `json:"more,omitzero"`
}

// SessionAnalyticsEndpoint describes sessions over time.
var SessionAnalyticsEndpoint = Endpoint[SessionAnalytics, SessionAnalyticsReply]{
	Name: "session.analytics", Timeout: 15 * time.Second,
	Doc: "Describes the sessions that began within a time: counts, durations, by hour, top users and agents.",
}

// SessionAnalytics describes the sessions that were created within the last hours and are still kept: ended ones for 30 days.
type SessionAnalytics struct {
	// TimeRangeHours is 1 to 8784, a year; 24 when absent.
	TimeRangeHours *int `json:"time_range_hours,omitzero" jsonschema:"minimum=1,maximum=8784,default=24"`
	// Top is how many users and agents to name, 1 to 100; 10 when absent.
	Top *int `json:"top,omitzero" jsonschema:"minimum=1,maximum=100,default=10"`
}

// Validate reports the first field that is out of range.
func (m SessionAnalytics) Validate() error {
	if m.TimeRangeHours != nil && (*m.TimeRangeHours < 1 || *m.TimeRangeHours > MaxAnalyticsHours) {
		return Invalid("time_range_hours", "must be 1 to %d", MaxAnalyticsHours)
	}
	if m.Top != nil && (*m.Top < 1 || *m.Top > MaxAnalyticsTop) {
		return Invalid("top", "must be 1 to %d", MaxAnalyticsTop)
	}
	return nil
}

// SessionAnalyticsReply is as of one moment.
type SessionAnalyticsReply struct {
	Timestamp      time.Time         `json:"timestamp"`
	TimeRangeHours int               `json:"time_range_hours"`
	Statistics     SessionStatistics `json:"statistics"`
	// ByHour has the hours in which a session began, in order.
	ByHour []SessionHour `json:"by_hour"`
	// TopUsers and TopAgents are those with the most sessions, then the most interactions, then by name.
	TopUsers  []SessionUser  `json:"top_users"`
	TopAgents []SessionAgent `json:"top_agents"`
}

// SessionStatistics counts sessions. A duration is from created_at to last_seen_at.
type SessionStatistics struct {
	TotalSessions      int64   `json:"total_sessions"`
	ActiveSessions     int64   `json:"active_sessions"`
	ExpiredSessions    int64   `json:"expired_sessions"`
	DeletedSessions    int64   `json:"deleted_sessions"`
	UniqueUsers        int64   `json:"unique_users"`
	UniqueAgents       int64   `json:"unique_agents"`
	AvgDurationMinutes float64 `json:"avg_duration_minutes"`
	P95DurationMinutes float64 `json:"p95_duration_minutes"`
	AvgInteractions    float64 `json:"avg_interactions"`
	MaxInteractions    int64   `json:"max_interactions"`
}

// SessionHour counts the sessions that began within an hour.
type SessionHour struct {
	Hour     time.Time `json:"hour"`
	Sessions int64     `json:"sessions"`
}

// SessionUser counts the sessions of a user.
type SessionUser struct {
	UserID       string `json:"user_id"`
	Sessions     int64  `json:"sessions"`
	Interactions int64  `json:"interactions"`
}

// SessionAgent counts the sessions of an agent.
type SessionAgent struct {
	AgentID      string `json:"agent_id"`
	Sessions     int64  `json:"sessions"`
	Interactions int64  `json:"interactions"`
}
