package messages_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/messages"
)

const sessionID = "0196f3c2-7b1e-7c3a-9f0e-0f6a3d1c2b4a"

// filled returns an object of exactly so many bytes.
func filled(bytes int) string { return `{"x":"` + strings.Repeat("y", bytes-len(`{"x":""}`)) + `"}` }

// TestSessionRequests decodes and validates requests as a worker does.
func TestSessionRequests(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("u", 201)
	id := `"session_id":"` + sessionID + `"`
	for _, c := range []struct {
		request    interface{ Validate() error }
		body       string
		code       messages.Code
		field, say string
	}{
		{request: &messages.SessionCreate{}, body: ``},
		{request: &messages.SessionCreate{}, body: `{"data":null,"metadata":null,"ttl_seconds":null}`},
		{request: &messages.SessionCreate{}, body: `{"data":` + filled(256<<10) + `,"metadata":` + filled(16<<10) + `}`},
		{request: &messages.SessionCreate{}, body: `{"data":{ "white" : "space does not count" ` + strings.Repeat(" ", 256<<10) + `}}`},
		{&messages.SessionCreate{}, `{"data":` + filled(256<<10+1) + `}`, messages.CodeTooLarge, "data", "262145 bytes, the limit is 262144 bytes"},
		{&messages.SessionCreate{}, `{"metadata":` + filled(16<<10+1) + `}`, messages.CodeTooLarge, "metadata", "limit is 16384"},
		{&messages.SessionCreate{}, `{"data":{"n":[` + strings.Repeat("1e131000,", 10) + `1]}}`, messages.CodeTooLarge, "data", ""},
		{&messages.SessionCreate{}, `{"data":[]}`, messages.CodeInvalid, "data", "must be an object"},
		{&messages.SessionCreate{}, `{"data":"{}"}`, messages.CodeInvalid, "data", "must be an object"},
		{&messages.SessionCreate{}, `{"metadata":7}`, messages.CodeInvalid, "metadata", "must be an object"},
		{&messages.SessionCreate{}, `{"data":{"a":"x\u0000"}}`, messages.CodeInvalid, "data.a", "U+0000"},
		{&messages.SessionCreate{}, `{"data":{"\u0000":1}}`, messages.CodeInvalid, "data.\uFFFD", "U+0000"},
		{request: &messages.SessionCreate{}, body: `{"data":{"a":"\\u0000"}}`},
		{&messages.SessionCreate{}, `{"data":{"a":"\ud800"}}`, messages.CodeInvalid, "data.a", "lone surrogate"},
		{request: &messages.SessionCreate{}, body: `{"data":{"a":"\ud83d\ude00"}}`},
		{&messages.SessionCreate{}, `{"data":{"a":1e999999999999}}`, messages.CodeInvalid, "data.a", "131072 digits"},
		{&messages.SessionCreate{}, `{"data":{"a":1e-16384}}`, messages.CodeInvalid, "data.a", "16383"},
		{&messages.SessionCreate{}, `{"data":{"a":1,"a":2}}`, messages.CodeInvalid, "data.a", "repeated"},
		{&messages.SessionCreate{}, `{"user_id":"` + long + `"}`, messages.CodeInvalid, "user_id", "1 to 200"},
		{&messages.SessionCreate{}, `{"agent_id":"a\u0000"}`, messages.CodeInvalid, "agent_id", "U+0000"},
		{&messages.SessionCreate{}, `{"ttl_seconds":0}`, messages.CodeInvalid, "ttl_seconds", "more than 0"},
		{&messages.SessionCreate{}, `{"ttl_seconds":-1}`, messages.CodeInvalid, "ttl_seconds", ""},
		{&messages.SessionCreate{}, `{"idle_timeout_seconds":-1}`, messages.CodeInvalid, "idle_timeout_seconds", ""},
		{&messages.SessionCreate{}, `{"absolute_ttl_seconds":1e300}`, messages.CodeInvalid, "absolute_ttl_seconds", ""},
		{&messages.SessionCreate{}, `{"idle_timeout_seconds":86401}`, messages.CodeInvalid, "idle_timeout_seconds", "at most ttl_seconds, 86400"},
		{&messages.SessionCreate{}, `{"ttl_seconds":2592001}`, messages.CodeInvalid, "ttl_seconds", "absolute_ttl_seconds"},
		{&messages.SessionCreate{}, `{"absolute_ttl_seconds":100}`, messages.CodeInvalid, "ttl_seconds", ""},
		{request: &messages.SessionCreate{}, body: `{"ttl_seconds":100,"absolute_ttl_seconds":100,"idle_timeout_seconds":100}`},
		{&messages.SessionCreate{}, `{"ip_address":"localhost"}`, messages.CodeInvalid, "ip_address", ""},
		{&messages.SessionCreate{}, `{"ip_address":"fe80::1%\u0000"}`, messages.CodeInvalid, "ip_address", ""},
		{&messages.SessionCreate{}, `{"user_agent":"` + strings.Repeat("x", 1025) + `"}`, messages.CodeInvalid, "user_agent", "1024"},
		{&messages.SessionCreate{}, `{"on_limit":"reject"}`, messages.CodeInvalid, "on_limit", "max_per_user"},
		{&messages.SessionCreate{}, `{"max_per_user":1}`, messages.CodeInvalid, "max_per_user", "user_id"},
		{&messages.SessionCreate{}, `{"max_per_user":0,"user_id":"u"}`, messages.CodeInvalid, "max_per_user", "1 to 10000"},
		{&messages.SessionCreate{}, `{"max_per_user":1,"user_id":"u","on_limit":"panic"}`, messages.CodeInvalid, "on_limit", "evict_oldest or reject"},
		{&messages.SessionGet{}, `{}`, messages.CodeInvalid, "session_id", "missing"},
		{&messages.SessionGet{}, `{"session_id":"7"}`, messages.CodeInvalid, "session_id", "no UUID"},
		{&messages.SessionGet{}, `{"session_id":"' OR 1=1 --"}`, messages.CodeInvalid, "session_id", "no UUID"},
		{&messages.SessionGet{}, `{"session_id":"{0196f3c2-7b1e-7c3a-9f0e-0f6a3d1c2b4a}"}`, messages.CodeInvalid, "session_id", "no UUID"},
		{&messages.SessionGetByToken{}, `{}`, messages.CodeInvalid, "token", "missing"},
		{request: &messages.SessionGetByToken{}, body: `{"token":"';DROP TABLE session;--"}`},
		{&messages.SessionUpdate{}, `{` + id + `,"data":[1]}`, messages.CodeInvalid, "data", "must be an object"},
		{&messages.SessionUpdate{}, `{` + id + `,"data":` + filled(256<<10+1) + `}`, messages.CodeTooLarge, "data", ""},
		{&messages.SessionUpdate{}, `{` + id + `,"data":{},"merge":"sideways"}`, messages.CodeInvalid, "merge", "shallow, deep or replace"},
		{&messages.SessionUpdate{}, `{` + id + `,"merge":"replace"}`, messages.CodeInvalid, "merge", "belongs to data"},
		{&messages.SessionUpdate{}, `{` + id + `,"if_version":0}`, messages.CodeInvalid, "if_version", ""},
		{request: &messages.SessionUpdate{}, body: `{` + id + `}`},
		{&messages.SessionTouch{}, `{"session_id":""}`, messages.CodeInvalid, "session_id", ""},
		{&messages.SessionExtend{}, `{` + id + `,"additional_seconds":-5}`, messages.CodeInvalid, "additional_seconds", ""},
		{&messages.SessionRotate{}, `{"token":"t","grace_seconds":-1}`, messages.CodeInvalid, "grace_seconds", "0 to 3600"},
		{&messages.SessionRotate{}, `{"token":"t","grace_seconds":3601}`, messages.CodeInvalid, "grace_seconds", ""},
		{request: &messages.SessionRotate{}, body: `{"token":"t","grace_seconds":0}`},
		{&messages.SessionDelete{}, `{"session_id":"x"}`, messages.CodeInvalid, "session_id", ""},
		{&messages.SessionBulkDelete{}, `{"session_ids":[]}`, messages.CodeInvalid, "session_ids", "1 to 1000"},
		{&messages.SessionBulkDelete{}, `{"session_ids":["` + sessionID + `","x"]}`, messages.CodeInvalid, "session_ids[1]", "no UUID"},
		{&messages.SessionBulkDelete{}, `{"session_ids":["a"` + strings.Repeat(`,"a"`, 1000) + `]}`, messages.CodeInvalid, "session_ids", "1 to 1000"},
		{&messages.SessionDeleteUser{}, `{}`, messages.CodeInvalid, "user_id", ""},
		{&messages.SessionDeleteUser{}, `{"user_id":"u","except_session_id":"x"}`, messages.CodeInvalid, "except_session_id", ""},
		{&messages.SessionList{}, `{"state":"dead"}`, messages.CodeInvalid, "state", "live, expired, deleted or all"},
		{&messages.SessionList{}, `{"limit":1001}`, messages.CodeInvalid, "limit", ""},
		{&messages.SessionList{}, `{"user_id":"` + long + `"}`, messages.CodeInvalid, "user_id", ""},
		{&messages.SessionActiveCount{}, `{"agent_id":"` + long + `"}`, messages.CodeInvalid, "agent_id", ""},
		{&messages.SessionCleanupInactive{}, `{"older_than_days":-0.1}`, messages.CodeInvalid, "older_than_days", ""},
		{request: &messages.SessionCleanupInactive{}, body: `{"older_than_days":0}`},
		{&messages.SessionAnalytics{}, `{"time_range_hours":8785}`, messages.CodeInvalid, "time_range_hours", "1 to 8784"},
		{&messages.SessionAnalytics{}, `{"top":0}`, messages.CodeInvalid, "top", "1 to 100"},
	} {
		err := messages.Decode([]byte(c.body), c.request)
		if err == nil {
			err = c.request.Validate()
		}
		name := fmt.Sprintf("%T %.80s", c.request, c.body)
		if c.code == "" {
			require.NoError(t, err, name)
			continue
		}
		require.Error(t, err, name)
		failure := messages.AsError(err)
		require.Equal(t, c.code, failure.Code, "%s: %s", name, err)
		require.Equal(t, c.field, failure.Details.Field, name)
		require.Contains(t, failure.Message, c.say, name)
	}
}
