package messages_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ai-cherry/morello/messages"
)

// TestFrequentMessagesAreWrittenAndReadAsTheLibraryDoes: what Encode writes by hand is what the library makes of the same message,
// and what DecodeReply reads by hand is what the library reads.
func TestFrequentMessagesAreWrittenAndReadAsTheLibraryDoes(t *testing.T) {
	t.Parallel()
	same := func(t require.TestingT, message any) {
		options := json.JoinOptions(json.Deterministic(true), jsontext.AllowInvalidUTF8(true), jsontext.PreserveRawStrings(true))
		want, err := json.Marshal(message, options)
		require.NoError(t, err)
		got, err := messages.Encode(message)
		require.NoError(t, err)
		require.Equal(t, string(want), string(got))

		library, ours := reflect.New(reflect.TypeOf(message)), reflect.New(reflect.TypeOf(message))
		require.NoError(t, json.Unmarshal(want, library.Interface(), options))
		require.NoError(t, messages.DecodeReply(got, ours.Interface()))
		require.Equal(t, library.Interface(), ours.Interface())
	}
	moment := rapid.Custom(func(t *rapid.T) time.Time {
		return time.UnixMicro(rapid.Int64Range(0, 250_000_000_000_000_000).Draw(t, "µs")).UTC()
	})
	value := rapid.SampledFrom([]jsontext.Value{nil, jsontext.Value("0"), jsontext.Value("null"), jsontext.Value(`"\ud800\u0000"`), jsontext.Value(`"<&> \u00e9"`), jsontext.Value("1.0"), jsontext.Value(`{"a":[1e400,""]}`), jsontext.Value(`"é"`)})
	rapid.Check(t, func(t *rapid.T) {
		same(t, messages.CacheGetReply{
			Found: rapid.Bool().Draw(t, "found"), Stale: rapid.Bool().Draw(t, "stale"),
			Lease:       rapid.SampledFrom([]string{"", "5f0c6a0e-6f3c-4d0c-9d5e-0e6b9b1c2d3e", `"<\n`}).Draw(t, "lease"),
			LeaseWaitMS: rapid.Int64Range(0, 100).Draw(t, "wait"),
			CacheEntry: messages.CacheEntry{
				Value: value.Draw(t, "value"), Version: rapid.Int64().Draw(t, "version"),
				ExpiresAt: rapid.Ptr(moment, true).Draw(t, "expires"), ExpiresInSeconds: rapid.Ptr(rapid.Float64Range(-1e25, 1e25), true).Draw(t, "left"),
			},
		})
		same(t, messages.CacheGetManyReply{Entries: rapid.MapOfN(
			rapid.SampledFrom([]string{"", "k", "a", "é", `"<&>\`, "\u2028\x00\n", "\xff"}),
			rapid.Ptr(rapid.Custom(func(t *rapid.T) messages.CacheEntry {
				return messages.CacheEntry{
					Value: value.Draw(t, "value"), Version: rapid.Int64Range(0, 2).Draw(t, "version"),
					ExpiresAt: rapid.Ptr(moment, true).Draw(t, "expires"), ExpiresInSeconds: rapid.Ptr(rapid.Float64Range(-1e25, 1e25), true).Draw(t, "left"),
				}
			}), true), 0, 5).Draw(t, "entries")})
		same(t, messages.CacheSetReply{
			Stored: rapid.Bool().Draw(t, "stored"), Version: rapid.Int64().Draw(t, "version"),
			ExpiresAt: rapid.Ptr(moment, true).Draw(t, "expires"),
		})
	})
	rapid.Check(t, func(t *rapid.T) {
		same(t, messages.CacheGet{
			Key:   rapid.SampledFrom([]string{"", "k", "é", `"<&>\`, "\u2028\x00\n"}).Draw(t, "key"),
			Lease: rapid.Bool().Draw(t, "lease"), StaleSeconds: rapid.SampledFrom([]float64{0, 1.5}).Draw(t, "stale"),
		})
	})
	text := rapid.SampledFrom([]string{"", "u", "é", `"<&>\`, "\u2028\x00\n", "\xff"})
	object := rapid.SampledFrom([]string{`{}`, `{"a": 1}`, `{"a": {"b c": [1, 2.50, "x, y"]}, "d": "\\\" e: f", "g": "h\\\\"}`, `{"\\": " ", "": null}`})
	rapid.Check(t, func(t *rapid.T) {
		same(t, messages.SessionReply{Session: messages.Session{
			SessionID: "5f0c6a0e-6f3c-4d0c-9d5e-0e6b9b1c2d3e", UserID: text.Draw(t, "user"), AgentID: text.Draw(t, "agent"),
			Data: jsontext.Value(object.Draw(t, "data")), Metadata: jsontext.Value(object.Draw(t, "metadata")),
			CreatedAt: moment.Draw(t, "created"), UpdatedAt: moment.Draw(t, "updated"), LastSeenAt: moment.Draw(t, "seen"),
			ExpiresAt: moment.Draw(t, "expires"), AbsoluteExpiresAt: moment.Draw(t, "absolute"),
			TTLSeconds: rapid.Float64Range(0, 1e25).Draw(t, "ttl"), IdleTimeoutSeconds: rapid.Float64Range(0, 1e9).Draw(t, "idle"),
			IPAddress: text.Draw(t, "ip"), UserAgent: text.Draw(t, "agent"), InteractionCount: rapid.Int64().Draw(t, "count"),
			Version: rapid.Int64().Draw(t, "version"), State: rapid.SampledFrom([]messages.SessionState{"", messages.SessionLive}).Draw(t, "state"),
		}})
	})
	same(t, messages.SessionReply{})
	for _, f := range []float64{0, 1e-6, 9.99e-7, 1e-7, 1e20, 1e21, 123456.789, 3599.123456} { // near the bounds of the notations
		for _, seconds := range []float64{f, -f} {
			same(t, messages.CacheGetReply{CacheEntry: messages.CacheEntry{ExpiresInSeconds: &seconds}})
		}
	}
}

// FuzzDecodeReply: whatever a reply is, reading by hand does not panic, and where the library can read it, the outcome is the same.
func FuzzDecodeReply(f *testing.F) {
	for _, text := range []string{
		`{"found":true,"value":{"a":[1,"}"]},"version":7,"expires_at":"2026-11-23T22:16:38.805274Z","expires_in_seconds":1.5}`,
		`{"found":false}`, `{"found":true,"found":}`, `{"":0}`, `{"found":true`, `{"version":+1}`, `{"expires_in_seconds":Inf}`, `{"value":"\""}`, `{}`, ``,
		`{"found" : true}`, `{"later":{"a":1},"found":true}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var library, ours messages.CacheGetReply
		err := json.Unmarshal(text, &library, jsontext.AllowInvalidUTF8(true), jsontext.PreserveRawStrings(true))
		if read := messages.DecodeReply(text, &ours); err == nil {
			require.NoError(t, read)
			require.Equal(t, library, ours)
		}
	})
}

// FuzzDecodeGet: what a request is, or what is wrong with it, is the same whether it is read by hand or by the library.
func FuzzDecodeGet(f *testing.F) {
	for _, text := range []string{
		`{"key":"k"}`, `{"key":"é"}`, `{"key":""}`, "{\"key\":\"a\nb\"}", "{\"key\":\"\xff\"}", `{"key":"\n"}`, `{"key":"k","lease":true}`, `{"key":"k"}}`,
		`{"key":"k","key":"j"}`, `{"key":7}`, `{"kez":"k"}`, `{"key":"k"`, `{"key":"k",}`, `{"key":"k"x}`, `{"key":"k" }`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var ours messages.CacheGet
		var library struct {
			Key          string  `json:"key"`
			Lease        bool    `json:"lease,omitzero"`
			StaleSeconds float64 `json:"stale_seconds,omitzero"`
		}
		want, got := messages.Decode(text, &library), messages.Decode(text, &ours)
		require.Equal(t, want, got)
		if want == nil {
			require.Equal(t, messages.CacheGet(library), ours)
		}
	})
}
