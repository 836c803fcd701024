package messages

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// appender is a message so frequent that it writes itself: the same text as the library writes, in a fifth of the time. A
// test compares the two. Values of the cache go out as they are: what is stored has no white space between its tokens.
type appender interface {
	// appendJSON reports false for what only the library can write.
	appendJSON() (text []byte, ok bool)
}

// framing is about what the members of a small reply take beside its value.
const framing = 200

func (m CacheGet) appendJSON() ([]byte, bool) {
	if m.Lease || m.StaleSeconds != 0 || m.Key == "" {
		return nil, false
	}
	b := make([]byte, 0, len(m.Key)+len(`{"key":""}`))
	b, ok := appendString(append(b, '{'), `"key":`, m.Key)
	return append(b, '}'), ok
}

func (r CacheGetReply) appendJSON() ([]byte, bool) {
	b := make([]byte, 0, len(r.Value)+framing)
	b = append(b, `{"found":`...)
	b = strconv.AppendBool(b, r.Found)
	b, ok := r.append(b)
	if r.Stale {
		b = append(b, `,"stale":true`...)
	}
	b, okLease := appendString(b, `,"lease":`, r.Lease)
	b = appendInt(b, `,"lease_wait_ms":`, r.LeaseWaitMS)
	return append(b, '}'), ok && okLease
}

func (r CacheGetManyReply) appendJSON() ([]byte, bool) {
	keys, size := make([]string, 0, len(r.Entries)), len(`{"entries":{}}`)
	for key, entry := range r.Entries {
		keys = append(keys, key)
		size += len(key) + framing
		if entry != nil {
			size += len(entry.Value)
		}
	}
	slices.Sort(keys)
	b := append(make([]byte, 0, size), `{"entries":{`...)
	for i, key := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		var ok bool
		if b, ok = r.appendEntry(b, key); !ok {
			return nil, false
		}
	}
	return append(b, "}}"...), true
}

func (r CacheGetManyReply) appendEntry(b []byte, key string) ([]byte, bool) {
	b, err := jsontext.AppendQuote(b, key)
	entry := r.Entries[key]
	if entry == nil {
		return append(b, ":null"...), err == nil
	}
	start := len(b) + 1 // of the braces, the first of which takes the place of the first comma
	b, ok := entry.append(append(b, ':'))
	if len(b) == start {
		b = append(b, '{')
	}
	b[start] = '{'
	return append(b, '}'), err == nil && ok
}

// append appends the members that are there, each with a comma before it.
func (e *CacheEntry) append(b []byte) ([]byte, bool) {
	if len(e.Value) > 0 {
		b = append(append(b, `,"value":`...), e.Value...)
	}
	b = appendInt(b, `,"version":`, e.Version)
	b = appendTime(b, `,"expires_at":`, e.ExpiresAt)
	if e.ExpiresInSeconds == nil {
		return b, true
	}
	b = append(b, `,"expires_in_seconds":`...)
	return strconv.AppendFloat(b, *e.ExpiresInSeconds, 'f', -1, 64), isPlainFloat(*e.ExpiresInSeconds)
}

func (r CacheSetReply) appendJSON() ([]byte, bool) {
	b := make([]byte, 0, framing)
	b = append(b, `{"stored":`...)
	b = strconv.AppendBool(b, r.Stored)
	b = append(b, `,"version":`...)
	b = strconv.AppendInt(b, r.Version, 10)
	b = appendTime(b, `,"expires_at":`, r.ExpiresAt)
	return append(b, '}'), true
}

func (r SessionReply) appendJSON() ([]byte, bool) {
	const framing = 700
	s := &r.Session
	b := make([]byte, 0, len(s.UserID)+len(s.AgentID)+len(s.Data)+len(s.Metadata)+len(s.UserAgent)+framing)
	b, ok := appendString(b, `{"session":{"session_id":`, s.SessionID)
	b, okUser := appendString(b, `,"user_id":`, s.UserID)
	b, okAgent := appendString(b, `,"agent_id":`, s.AgentID)
	if !ok || !okUser || !okAgent || s.SessionID == "" || len(s.Data) == 0 || len(s.Metadata) == 0 {
		return nil, false
	}
	b = appendCompact(append(b, `,"data":`...), s.Data)
	b = appendCompact(append(b, `,"metadata":`...), s.Metadata)
	b = appendTime(b, `,"created_at":`, &s.CreatedAt)
	b = appendTime(b, `,"updated_at":`, &s.UpdatedAt)
	b = appendTime(b, `,"last_seen_at":`, &s.LastSeenAt)
	b = appendTime(b, `,"expires_at":`, &s.ExpiresAt)
	b = appendTime(b, `,"absolute_expires_at":`, &s.AbsoluteExpiresAt)
	if !isPlainFloat(s.TTLSeconds) || !isPlainFloat(s.IdleTimeoutSeconds) {
		return nil, false
	}
	b = strconv.AppendFloat(append(b, `,"ttl_seconds":`...), s.TTLSeconds, 'f', -1, 64)
	if s.IdleTimeoutSeconds != 0 {
		b = strconv.AppendFloat(append(b, `,"idle_timeout_seconds":`...), s.IdleTimeoutSeconds, 'f', -1, 64)
	}
	b, ok = appendString(b, `,"ip_address":`, s.IPAddress)
	b, okUser = appendString(b, `,"user_agent":`, s.UserAgent)
	b = strconv.AppendInt(append(b, `,"interaction_count":`...), s.InteractionCount, 10)
	b = strconv.AppendInt(append(b, `,"version":`...), s.Version, 10)
	b, okState := appendString(b, `,"state":`, string(s.State))
	return append(b, "}}"...), ok && okUser && okState && s.State != ""
}

// appendString leaves out a member that is empty, and reports false for what is no UTF-8.
func appendString(b []byte, member, text string) ([]byte, bool) {
	if text == "" {
		return b, true
	}
	b, err := jsontext.AppendQuote(append(b, member...), text)
	return b, err == nil
}

// appendCompact appends valid JSON without the white space between its tokens, as the library does. b may be the beginning of value.
func appendCompact(b []byte, value jsontext.Value) []byte {
	for len(value) > 0 {
		quote := bytes.IndexByte(value, '"')
		if quote < 0 {
			quote = len(value)
		}
		for _, c := range value[:quote] {
			if c > ' ' {
				b = append(b, c)
			}
		}
		value = value[quote:]
		length := StringLength(value)
		b = append(b, value[:length]...)
		value = value[length:]
	}
	return b
}

// StringLength returns how many bytes the JSON string has that a text begins with, as it is written, quotes included; all of a text in
// which it does not end. The text must begin with a quote.
func StringLength(text []byte) int {
	for i := 1; i < len(text); i++ {
		next := bytes.IndexByte(text[i:], '"')
		if next < 0 {
			break
		}
		i += next
		slashes := 0
		for text[i-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return i + 1
		}
	}
	return len(text)
}

// appendInt leaves out a member that is 0.
func appendInt(b []byte, member string, n int64) []byte {
	if n == 0 {
		return b
	}
	return strconv.AppendInt(append(b, member...), n, 10)
}

// appendTime leaves out a member that is nil.
func appendTime(b []byte, member string, t *time.Time) []byte {
	if t == nil {
		return b
	}
	b = append(append(b, member...), '"')
	return append(t.AppendFormat(b, time.RFC3339Nano), '"')
}

// isPlainFloat reports whether a number is written without an exponent (ECMA-262, Number::toString).
func isPlainFloat(f float64) bool {
	return f == 0 && !math.Signbit(f) || math.Abs(f) >= 1e-6 && math.Abs(f) < 1e21
}
