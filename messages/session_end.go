package messages

import (
	"fmt"
	"time"
)

// SessionDeleteEndpoint ends a session.
var SessionDeleteEndpoint = Endpoint[SessionDelete, SessionDeleteReply]{
	Name: "session.delete", Timeout: 2 * time.Second, Mutates: true,
	Doc: "Deletes a session, for good.",
}

// SessionDelete ends a live session. The row stays for 30 days, to be listed; nothing revives it.
type SessionDelete struct {
	SessionID string `json:"session_id" jsonschema:"format=uuid"`
}

// Validate reports the first field that is out of range.
func (m SessionDelete) Validate() error { return checkID("session_id", m.SessionID) }

// SessionDeleteReply says whether a live session was deleted. Deleting one that is not live is deleted:false, no error.
type SessionDeleteReply struct {
	Deleted bool `json:"deleted"`
}

// SessionBulkDeleteEndpoint ends many sessions.
var SessionBulkDeleteEndpoint = Endpoint[SessionBulkDelete, SessionBulkDeleteReply]{
	Name: "session.bulk_delete", Timeout: 5 * time.Second, Mutates: true,
	Doc: "Deletes up to 1000 sessions at once.",
}

// SessionBulkDelete ends the live ones of 1 to 1000 sessions, all at once; repeated ids count once.
type SessionBulkDelete struct {
	SessionIDs []string `json:"session_ids" jsonschema:"minItems=1,maxItems=1000"`
}

// Validate reports the first field that is out of range.
func (m SessionBulkDelete) Validate() error {
	if err := checkCount("session_ids", len(m.SessionIDs), MaxBatchKeys); err != nil {
		return err
	}
	for i, id := range m.SessionIDs {
		if err := checkID(fmt.Sprintf("session_ids[%d]", i), id); err != nil {
			return err
		}
	}
	return nil
}

// SessionBulkDeleteReply counts the live sessions that were deleted.
type SessionBulkDeleteReply struct {
	Deleted int64 `json:"deleted"`
}

// SessionDeleteUserEndpoint ends the sessions of a user.
var SessionDeleteUserEndpoint = Endpoint[SessionDeleteUser, SessionDeleteUserReply]{
	Name: "session.delete_user", Timeout: 30 * time.Second, Mutates: true,
	Doc: "Deletes all sessions of a user, but for one if it is named.",
}

// SessionDeleteUser ends the live sessions of a user, such as after a change of password. It works in batches until 80 % of
// the deadline have passed; more:true then asks to be called again.
type SessionDeleteUser struct {
	UserID string `json:"user_id" jsonschema:"minLength=1,maxLength=200"`
	// ExceptSessionID is spared: the session in which the user asked.
	ExceptSessionID string `json:"except_session_id,omitzero" jsonschema:"format=uuid"`
}

// Validate reports the first field that is out of range.
func (m SessionDeleteUser) Validate() error {
	if err := checkUUID("except_session_id", m.ExceptSessionID); err != nil {
		return err
	}
	return checkString("user_id", m.UserID, MaxNameBytes)
}

// SessionDeleteUserReply counts the live sessions that were deleted.
type SessionDeleteUserReply struct {
	Deleted int64 `json:"deleted"`
	// More says that time ran out before all were deleted: call again.
	More bool `json:"more,omitzero"`
}
