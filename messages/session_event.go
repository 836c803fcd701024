package messages

// The events of sessions. Their bodies are ids, never data or tokens.
var (
	SessionCreatedEvent = Event[SessionRef]{
		Name: "session.created", Kept: true,
		Doc: "A session was created.",
	}
	SessionRotatedEvent = Event[SessionRef]{
		Name: "session.rotated", Kept: true,
		Doc: "A session was given a new token.",
	}
	SessionDeletedEvent = Event[SessionRefs]{
		Name: "session.deleted", Kept: true,
		Doc: "Sessions were deleted, by request, with their agent, or because a user had too many.",
	}
	SessionExpiredEvent = Event[SessionRefs]{
		Name: "session.expired", Kept: true,
		Doc: "Sessions were found to have expired; up to ten minutes may have passed since.",
	}
	SessionTokenReusedEvent = Event[SessionRef]{
		Name: "session.token_reused", Kept: true,
		Doc: "A token came after its time: it may have been stolen, and the session was deleted.",
	}
)

// SessionRef names a session and whose it is.
type SessionRef struct {
	SessionID string `json:"session_id"`
	UserID    string `json:"user_id,omitzero"`
	AgentID   string `json:"agent_id,omitzero"`
}

// SessionRefs names sessions of one tenant that went together, up to 1000 in a message.
type SessionRefs struct {
	Sessions []SessionRef `json:"sessions"`
}

// SessionCleanupEvent reports a run of the job session_cleanup.
var SessionCleanupEvent = Event[MaintenanceReport]{
	Name: "maintenance.session_cleanup", Kept: true,
	Doc: "Expired sessions were marked, ended ones removed after their time, or that failed.",
}
