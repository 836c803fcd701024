package messages

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// frequentReader is a message so frequent that it reads what it wrote, in a quarter of the library's time. A test compares the two.
type frequentReader interface {
	// readJSON reports false for what only the library can read, and may then have read a part: what the library reads once more.
	readJSON(text []byte) bool
}

func (m *CacheGet) readJSON(text []byte) bool {
	all := newMembers(text)
	if !all.next() || string(all.name) != "key" {
		return false
	}
	m.Key = all.string()
	isControl := func(r rune) bool { return r < ' ' }
	return !all.next() && all.complete() && strings.IndexFunc(m.Key, isControl) < 0
}

func (r *CacheGetReply) readJSON(text []byte) bool {
	m := newMembers(text)
	for m.next() {
		switch string(m.name) {
		case "found":
			r.Found = m.bool()
		case "value":
			r.Value = bytes.Clone(m.value)
		case "version":
			r.Version = m.int()
		case "expires_at":
			r.ExpiresAt = m.time()
		case "expires_in_seconds":
			left := m.float()
			r.ExpiresInSeconds = &left
		case "stale":
			r.Stale = m.bool()
		default: // what comes with leases is rare
			return false
		}
	}
	return m.complete()
}

func (r *CacheSetReply) readJSON(text []byte) bool {
	m := newMembers(text)
	for m.next() {
		switch string(m.name) {
		case "stored":
			r.Stored = m.bool()
		case "version":
			r.Version = m.int()
		case "expires_at":
			r.ExpiresAt = m.time()
		default:
			return false
		}
	}
	return m.complete()
}

func (r *SessionReply) readJSON(text []byte) bool {
	outer := newMembers(text)
	if !outer.next() || string(outer.name) != "session" || !r.Session.readJSON(outer.value) {
		return false
	}
	return !outer.next() && outer.complete()
}

func (s *Session) readJSON(text []byte) bool {
	m := newMembers(text)
	for m.next() {
		switch string(m.name) {
		case "session_id":
			s.SessionID = m.string()
		case "user_id":
			s.UserID = m.string()
		case "agent_id":
			s.AgentID = m.string()
		case "data":
			s.Data = bytes.Clone(m.value)
		case "metadata":
			s.Metadata = bytes.Clone(m.value)
		case "created_at":
			s.CreatedAt = *m.time()
		case "updated_at":
			s.UpdatedAt = *m.time()
		case "last_seen_at":
			s.LastSeenAt = *m.time()
		case "expires_at":
			s.ExpiresAt = *m.time()
		case "absolute_expires_at":
			s.AbsoluteExpiresAt = *m.time()
		case "ttl_seconds":
			s.TTLSeconds = m.float()
		case "idle_timeout_seconds":
			s.IdleTimeoutSeconds = m.float()
		case "ip_address":
			s.IPAddress = m.string()
		case "user_agent":
			s.UserAgent = m.string()
		case "interaction_count":
			s.InteractionCount = m.int()
		case "version":
			s.Version = m.int()
		case "state":
			s.State = SessionState(m.string())
		default:
			return false
		}
	}
	return m.complete()
}

// members goes over the members of an object without white space between its tokens. It takes no number, string or time for what it is
// not; other values, which only replies have, come from a worker and are not checked.
type members struct {
	name, value []byte
	rest        []byte // behind the value, from its comma or brace on
	failed      bool
}

func newMembers(text []byte) *members {
	m := &members{rest: text}
	if len(text) < 2 || text[0] != '{' || text[len(text)-1] != '}' {
		m.failed = true
	}
	return m
}

// next goes to the next member, and reports whether there is one.
func (m *members) next() bool {
	if m.failed || len(m.rest) < len(`,"":0}`) {
		return false
	}
	text := m.rest[1:] // what stood before was a brace or a comma
	if text[0] != '"' {
		m.failed = true
		return false
	}
	length := StringLength(text)
	if length+1 >= len(text) || text[length] != ':' {
		m.failed = true
		return false
	}
	m.name, text = text[1:length-1], text[length+1:]
	if length = valueLength(text); length == 0 {
		m.failed = true
		return false
	}
	m.value, m.rest = text[:length], text[length:]
	return true
}

// complete reports whether all was read, and could be.
func (m *members) complete() bool { return !m.failed && string(m.rest) == "}" }

func (m *members) bool() bool {
	value := string(m.value) == "true"
	m.failed = m.failed || !value && string(m.value) != "false"
	return value
}

func (m *members) int() int64 {
	n, err := strconv.ParseInt(string(m.value), 10, 64)
	m.failed = m.failed || err != nil || m.value[0] == '+'
	return n
}

func (m *members) float() float64 {
	f, err := strconv.ParseFloat(string(m.value), 64)
	m.failed = m.failed || err != nil || m.value[0] != '-' && (m.value[0] < '0' || m.value[0] > '9') // as Inf, which JSON does not have
	return f
}

// string takes what has no escapes.
func (m *members) string() string {
	if len(m.value) < 2 || m.value[0] != '"' || StringLength(m.value) != len(m.value) || bytes.IndexByte(m.value, '\\') >= 0 {
		m.failed = true
		return ""
	}
	return string(m.value[1 : len(m.value)-1])
}

func (m *members) time() *time.Time {
	t, err := time.Parse(time.RFC3339, m.string())
	m.failed = m.failed || err != nil
	return &t
}

// valueLength returns how long the value is that a text begins with, which a comma or a bracket follows.
func valueLength(text []byte) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			i += StringLength(text[i:]) - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
	return len(text)
}
