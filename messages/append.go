package messages

import (
	"math"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// appender is a reply so frequent that it writes itself: the same text as the library writes, in a fifth of the time. A
// test compares the two. Values go out as they are: what is stored has no white space between its tokens.
type appender interface {
	// appendJSON reports false for what only the library can write.
	appendJSON() (text []byte, ok bool)
}

// framing is about what the members of a small reply take beside its value.
const framing = 200

func (r CacheGetReply) appendJSON() ([]byte, bool) {
	b := make([]byte, 0, len(r.Value)+framing)
	b = append(b, `{"found":`...)
	b = strconv.AppendBool(b, r.Found)
	if len(r.Value) > 0 {
		b = append(b, `,"value":`...)
		b = append(b, r.Value...)
	}
	b = appendInt(b, `,"version":`, r.Version)
	b = appendTime(b, `,"expires_at":`, r.ExpiresAt)
	if r.ExpiresInSeconds != nil {
		if !isPlainFloat(*r.ExpiresInSeconds) {
			return nil, false
		}
		b = append(b, `,"expires_in_seconds":`...)
		b = strconv.AppendFloat(b, *r.ExpiresInSeconds, 'f', -1, 64)
	}
	if r.Stale {
		b = append(b, `,"stale":true`...)
	}
	if r.Lease != "" {
		b = append(b, `,"lease":`...)
		var err error
		if b, err = jsontext.AppendQuote(b, r.Lease); err != nil {
			return nil, false
		}
	}
	b = appendInt(b, `,"lease_wait_ms":`, r.LeaseWaitMS)
	return append(b, '}'), true
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
