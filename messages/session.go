package messages

import (
	"net/netip"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Session is a session as it is read. Its token is never part of it.
//
// It is live while it is not deleted, and now, by the database's clock, is before expires_at, before absolute_expires_at and,
// with an idle timeout, before last_seen_at + idle + least(60 s, idle / 10). The last summand is by how much last_seen_at may
// be late: it is written only when it is older than that. What was used in time is never refused. Deletion and expiry are
// final.
type Session struct {
	// SessionID is a UUID of version 7. It is no secret: it does not open the session.
	SessionID string `json:"session_id"`
	UserID    string `json:"user_id,omitzero"`
	AgentID   string `json:"agent_id,omitzero"`
	// Data and Metadata are objects. The order of members and the spelling of numbers are not kept.
	Data     jsontext.Value `json:"data"`
	Metadata jsontext.Value `json:"metadata"`
	// CreatedAt and the other times are the database's.
	CreatedAt time.Time `json:"created_at"`
	// UpdatedAt and Version change with session.update only.
	UpdatedAt time.Time `json:"updated_at"`
	// LastSeenAt is when the session was last used, and up to least(60 s, idle / 10) behind.
	LastSeenAt time.Time `json:"last_seen_at"`
	// ExpiresAt is moved by update and extend, and never earlier.
	ExpiresAt time.Time `json:"expires_at"`
	// AbsoluteExpiresAt stands from the beginning.
	AbsoluteExpiresAt time.Time `json:"absolute_expires_at"`
	// TTLSeconds is what a renewal renews by.
	TTLSeconds float64 `json:"ttl_seconds"`
	// IdleTimeoutSeconds is absent when there is no idle timeout.
	IdleTimeoutSeconds float64 `json:"idle_timeout_seconds,omitzero"`
	IPAddress          string  `json:"ip_address,omitzero"`
	UserAgent          string  `json:"user_agent,omitzero"`
	// InteractionCount counts the updates that asked to be counted.
	InteractionCount int64 `json:"interaction_count"`
	// Version is 1 at first, and one more with each update.
	Version int64        `json:"version"`
	State   SessionState `json:"state"`
}

// SessionState is whether a session is live, and if not, how it ended.
type SessionState string

// The states, and what a list takes besides.
const (
	SessionLive    SessionState = "live"
	SessionExpired SessionState = "expired"
	SessionDeleted SessionState = "deleted"
	SessionAll     SessionState = "all"
)

// SessionNotFound is the one answer about a session that is not live, and about a token that opens none: unknown, malformed,
// expired, deleted, reused and another tenant's are told apart by nobody.
func SessionNotFound() *Error {
	return &Error{Code: CodeNotFound, Message: "there is no such live session"}
}

// SessionCreateEndpoint begins a session.
var SessionCreateEndpoint = Endpoint[SessionCreate, SessionCreateReply]{
	Name: "session.create", Timeout: 5 * time.Second, Mutates: true,
	Doc: "Creates a session and returns its secret token, this once.",
}

// SessionCreate begins a session. It is answered when it is durable. With an idempotency key a repetition gets the same token:
// the stored reply is sealed with that key.
type SessionCreate struct {
	// UserID and AgentID say whose session it is, in 1 to 200 bytes. Neither need be known to Morello.
	UserID  string `json:"user_id,omitzero" jsonschema:"maxLength=200"`
	AgentID string `json:"agent_id,omitzero" jsonschema:"maxLength=200"`
	// Data is an object of up to 256 KiB, Metadata one of up to 16 KiB; over that is too_large. {} when absent.
	Data     jsontext.Value `json:"data,omitzero"`
	Metadata jsontext.Value `json:"metadata,omitzero"`
	// TTLSeconds is how long the session lives without a renewal, and what a renewal renews by; 86400 when absent. It must not
	// exceed absolute_ttl_seconds.
	TTLSeconds *float64 `json:"ttl_seconds,omitzero" jsonschema:"exclusiveMinimum=0,maximum=315360000,default=86400"`
	// IdleTimeoutSeconds ends the session when it is not used for so long. No idle timeout when absent; it must not exceed
	// ttl_seconds.
	IdleTimeoutSeconds *float64 `json:"idle_timeout_seconds,omitzero" jsonschema:"exclusiveMinimum=0,maximum=315360000"`
	// AbsoluteTTLSeconds ends the session whatever renews it; 2592000 (30 days) when absent.
	AbsoluteTTLSeconds *float64 `json:"absolute_ttl_seconds,omitzero" jsonschema:"exclusiveMinimum=0,maximum=315360000,default=2592000"`
	// IPAddress is that of the user, IPv4 or IPv6.
	IPAddress string `json:"ip_address,omitzero" jsonschema:"maxLength=64"`
	// UserAgent of up to 1024 bytes.
	UserAgent string `json:"user_agent,omitzero" jsonschema:"maxLength=1024"`
	// MaxPerUser bounds the live sessions of the user, this one included: 1 to 10000, no bound when absent. It holds under
	// parallel logins that name it.
	MaxPerUser *int `json:"max_per_user,omitzero" jsonschema:"minimum=1,maximum=10000"`
	// OnLimit says what happens at max_per_user: evict_oldest, when absent, deletes those of the user's sessions that were
	// least recently seen; reject answers quota_exceeded and changes nothing.
	OnLimit OnLimit `json:"on_limit,omitzero" jsonschema:"enum=evict_oldest,enum=reject,default=evict_oldest"`
}

// OnLimit says what a create does that would exceed max_per_user.
type OnLimit string

// The policies. Empty means OnLimitEvictOldest.
const (
	OnLimitEvictOldest OnLimit = "evict_oldest"
	OnLimitReject      OnLimit = "reject"
)

// Validate reports the first field that is out of range, or contradicts another.
func (m SessionCreate) Validate() error {
	if err := checkOwners(m.UserID, m.AgentID); err != nil {
		return err
	}
	if err := checkSessionJSON(m.Data, m.Metadata); err != nil {
		return err
	}
	if err := m.checkTimes(); err != nil {
		return err
	}
	if err := checkIPAddress("ip_address", m.IPAddress); err != nil {
		return err
	}
	if err := checkOptional("user_agent", m.UserAgent, MaxUserAgentBytes); err != nil {
		return err
	}
	return m.checkLimit()
}

func (m SessionCreate) checkTimes() error {
	if err := checkTTL("ttl_seconds", m.TTLSeconds); err != nil {
		return err
	}
	if err := checkTTL("idle_timeout_seconds", m.IdleTimeoutSeconds); err != nil {
		return err
	}
	if err := checkTTL("absolute_ttl_seconds", m.AbsoluteTTLSeconds); err != nil {
		return err
	}
	ttl, absolute := TTL(m.TTLSeconds, DefaultSessionTTL), TTL(m.AbsoluteTTLSeconds, DefaultSessionAbsoluteTTL)
	switch {
	case ttl > absolute:
		return Invalid("ttl_seconds", "is %g; it must be at most absolute_ttl_seconds, %g", ttl.Seconds(), absolute.Seconds())
	case TTL(m.IdleTimeoutSeconds, 0) > ttl:
		return Invalid("idle_timeout_seconds", "is %g; it must be at most ttl_seconds, %g", *m.IdleTimeoutSeconds, ttl.Seconds())
	}
	return nil
}

func (m SessionCreate) checkLimit() error {
	switch {
	case m.MaxPerUser == nil && m.OnLimit != "":
		return Invalid("on_limit", "belongs to max_per_user")
	case m.MaxPerUser == nil:
		return nil
	case *m.MaxPerUser < 1 || *m.MaxPerUser > MaxSessionsPerUser:
		return Invalid("max_per_user", "must be 1 to %d", MaxSessionsPerUser)
	case m.UserID == "":
		return Invalid("max_per_user", "needs user_id")
	case m.OnLimit != "" && m.OnLimit != OnLimitEvictOldest && m.OnLimit != OnLimitReject:
		return Invalid("on_limit", "must be %s or %s", OnLimitEvictOldest, OnLimitReject)
	}
	return nil
}

// SessionCreateReply holds the session and its token.
type SessionCreateReply struct {
	Session Session `json:"session"`
	// Token is the secret that opens the session: 256 random bits, base64url, 43 characters. Morello keeps only its SHA-256
	// and cannot tell it again.
	Token string `json:"token"`
}

// SessionGetEndpoint reads a session.
var SessionGetEndpoint = Endpoint[SessionGet, SessionReply]{
	Name: "session.get", Timeout: 2 * time.Second,
	Doc: "Returns the live session of an id, without touching it.",
}

// SessionGet asks for a live session; not_found otherwise. It writes nothing.
type SessionGet struct {
	SessionID string `json:"session_id" jsonschema:"format=uuid"`
}

// Validate reports the first field that is out of range.
func (m SessionGet) Validate() error { return checkID("session_id", m.SessionID) }

// SessionReply holds a session.
type SessionReply struct {
	Session Session `json:"session"`
}

// SessionGetByTokenEndpoint opens a session.
var SessionGetByTokenEndpoint = Endpoint[SessionGetByToken, SessionReply]{
	Name: "session.get_by_token", Timeout: 2 * time.Second, Batched: true,
	Doc: "Returns the live session that a token opens, and touches it.",
}

// SessionGetByToken asks for the live session of a token; not_found otherwise, in the same words whatever is wrong with the
// token.
//
// The first use of a token that session.rotate gave is written, whatever touch says: it ends the tokens before it. A token
// whose time is over deletes the session: see session.rotate.
type SessionGetByToken struct {
	// Token is what session.create or session.rotate returned.
	Token string `json:"token" jsonschema:"minLength=1"`
	// Touch notes that the session is in use, as session.touch does; true when absent.
	Touch *bool `json:"touch,omitzero" jsonschema:"default=true"`
}

// Validate reports a missing token. Any other is looked up: what is wrong with it is not told.
func (m SessionGetByToken) Validate() error { return checkToken(m.Token) }

// SessionUpdateEndpoint changes a session.
var SessionUpdateEndpoint = Endpoint[SessionUpdate, SessionReply]{
	Name: "session.update", Timeout: 5 * time.Second, Mutates: true,
	Doc: "Merges into the data and metadata of a live session, and renews it.",
}

// SessionUpdate changes a live session; not_found otherwise. The merge happens in the database: updates of different members
// at the same time are all kept. Without data and metadata it only renews. Version and updated_at change with every update.
type SessionUpdate struct {
	SessionID string `json:"session_id" jsonschema:"format=uuid"`
	// Data and Metadata are objects. The limits of 256 KiB and 16 KiB hold for what is given and for the result of the merge;
	// over that is too_large, and nothing is changed.
	Data     jsontext.Value `json:"data,omitzero"`
	Metadata jsontext.Value `json:"metadata,omitzero"`
	// Merge is shallow when absent: given members replace those of the same name, null included. deep is a JSON Merge Patch
	// (RFC 7396): objects are merged member by member, null removes a member. replace leaves only what is given.
	Merge Merge `json:"merge,omitzero" jsonschema:"enum=shallow,enum=deep,enum=replace,default=shallow"`
	// Renew, true when absent, notes that the session is in use, and has it expire a TTL of its own from now, not past the
	// absolute expiry, and not earlier than before.
	Renew *bool `json:"renew,omitzero" jsonschema:"default=true"`
	// IfVersion changes only the session of this version; otherwise conflict.
	IfVersion *int64 `json:"if_version,omitzero" jsonschema:"minimum=1"`
	// CountInteraction adds one to interaction_count.
	CountInteraction bool `json:"count_interaction,omitzero"`
}

// Merge says how given data and data that are there become one.
type Merge string

// The ways to merge. Empty means MergeShallow.
const (
	MergeShallow Merge = "shallow"
	MergeDeep    Merge = "deep"
	MergeReplace Merge = "replace"
)

// Validate reports the first field that is out of range.
func (m SessionUpdate) Validate() error {
	if err := checkID("session_id", m.SessionID); err != nil {
		return err
	}
	if err := checkSessionJSON(m.Data, m.Metadata); err != nil {
		return err
	}
	switch {
	case m.Merge != "" && m.Merge != MergeShallow && m.Merge != MergeDeep && m.Merge != MergeReplace:
		return Invalid("merge", "must be %s, %s or %s", MergeShallow, MergeDeep, MergeReplace)
	case m.Merge != "" && !given(m.Data) && !given(m.Metadata):
		return Invalid("merge", "belongs to data or metadata")
	case m.IfVersion != nil && *m.IfVersion < 1:
		return Invalid("if_version", "must be 1 or more")
	}
	return nil
}

// SessionTouchEndpoint notes that a session is in use.
var SessionTouchEndpoint = Endpoint[SessionTouch, SessionTouchReply]{
	Name: "session.touch", Timeout: 2 * time.Second, Mutates: true, Batched: true,
	Doc: "Notes that a session is in use, which puts off its idle timeout.",
}

// SessionTouch notes that a live session is in use now. It is written when last_seen_at is older than least(60 s, idle / 10),
// or, without an idle timeout, least(60 s, ttl / 10); otherwise nothing needs to be. It does not move expires_at: that is
// what session.update and session.extend do.
type SessionTouch struct {
	SessionID string `json:"session_id" jsonschema:"format=uuid"`
}

// Validate reports the first field that is out of range.
func (m SessionTouch) Validate() error { return checkID("session_id", m.SessionID) }

// SessionTouchReply says whether the session is live. Touching one that is not is touched:false, no error.
type SessionTouchReply struct {
	Touched bool `json:"touched"`
}

// SessionExtendEndpoint puts off the expiry of a session.
var SessionExtendEndpoint = Endpoint[SessionExtend, SessionExtendReply]{
	Name: "session.extend", Timeout: 2 * time.Second, Mutates: true,
	Doc: "Adds to the expiry of a live session, up to its absolute one.",
}

// SessionExtend adds to the current expiry of a live session; not_found otherwise. It is no use of the session: the idle
// timeout runs on. Without an idempotency key a repetition adds again.
type SessionExtend struct {
	SessionID string `json:"session_id" jsonschema:"format=uuid"`
	// AdditionalSeconds is more than 0 and at most ten years; 3600 when absent.
	AdditionalSeconds *float64 `json:"additional_seconds,omitzero" jsonschema:"exclusiveMinimum=0,maximum=315360000,default=3600"`
}

// Validate reports the first field that is out of range.
func (m SessionExtend) Validate() error {
	if err := checkID("session_id", m.SessionID); err != nil {
		return err
	}
	return checkTTL("additional_seconds", m.AdditionalSeconds)
}

// SessionExtendReply says when the session expires now.
type SessionExtendReply struct {
	ExpiresAt time.Time `json:"expires_at"`
}

// SessionRotateEndpoint replaces a token.
var SessionRotateEndpoint = Endpoint[SessionRotate, SessionRotateReply]{
	Name: "session.rotate", Timeout: 5 * time.Second, Mutates: true,
	Doc: "Gives a session a new token; the old one lives on until the new one has been used.",
}

// SessionRotate gives the live session of a token a new one; not_found otherwise. The old token lives on until the new one is
// first used, by get_by_token or rotate, and grace_seconds from then: a caller that never gets the reply goes on with the
// old. Rotating again before that replaces the new token, which opens nothing then.
//
// A token that comes after its time is in the hands of two: the session is deleted, and session.token_reused tells so, while
// the answer is not_found as for any other. The newest 32 tokens of a session are known; an older one is merely unknown.
type SessionRotate struct {
	Token string `json:"token" jsonschema:"minLength=1"`
	// GraceSeconds is 0 to 3600; 30 when absent.
	GraceSeconds *float64 `json:"grace_seconds,omitzero" jsonschema:"minimum=0,maximum=3600,default=30"`
}

// Validate reports the first field that is out of range. Of the token only that it is missing.
func (m SessionRotate) Validate() error {
	if m.GraceSeconds != nil && (!(*m.GraceSeconds >= 0) || *m.GraceSeconds > MaxRotationGrace.Seconds()) {
		return Invalid("grace_seconds", "must be 0 to %.0f", MaxRotationGrace.Seconds())
	}
	return checkToken(m.Token)
}

// SessionRotateReply holds the session and its new token.
type SessionRotateReply struct {
	Session Session `json:"session"`
	// Token is the new secret, told this once.
	Token string `json:"token"`
}

func checkSessionJSON(data, metadata jsontext.Value) error {
	if err := checkCompactObject("data", data, MaxSessionDataBytes); err != nil {
		return err
	}
	return checkCompactObject("metadata", metadata, MaxMetadataBytes)
}

// checkCompactObject is checkObject without the white space between tokens, as the limit counts what is there after a merge.
func checkCompactObject(field string, value jsontext.Value, limit int) error {
	compact, err := Compact(value)
	if err != nil {
		return err
	}
	return checkObject(field, compact, limit)
}

func checkOwners(userID, agentID string) error {
	if err := checkOptional("user_id", userID, MaxNameBytes); err != nil {
		return err
	}
	return checkOptional("agent_id", agentID, MaxNameBytes)
}

// checkToken reports a missing token. That one is malformed is not told: it is looked up as any other.
func checkToken(token string) error {
	if token == "" {
		return Invalid("token", "is missing or empty")
	}
	return nil
}

// checkID wants an id that we made.
func checkID(field, id string) error {
	if id == "" {
		return Invalid(field, "is missing or empty; it must be a UUID")
	}
	return checkUUID(field, id)
}

// maxIPAddressBytes leaves room for the zone of an IPv6 address.
const maxIPAddressBytes = 64

func checkIPAddress(field, address string) error {
	if address == "" {
		return nil
	}
	if _, err := netip.ParseAddr(address); err != nil {
		return Invalid(field, "is no IP address")
	}
	return checkString(field, address, maxIPAddressBytes)
}
