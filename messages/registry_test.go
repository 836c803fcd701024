package messages_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/messages"
)

// text returns a JSON string of so many bytes, quotes included.
func text(bytes int) string { return `"` + strings.Repeat("v", bytes-2) + `"` }

// TestRegistryAndAuditRefuse: what is wrong with agents, workflows and audit entries is refused with the path of the field,
// and the message says the limit.
func TestRegistryAndAuditRefuse(t *testing.T) {
	t.Parallel()
	const invalid, tooLarge = messages.CodeInvalid, messages.CodeTooLarge
	log := `{"event_type":"e","actor":"a","resource_type":"t","resource_id":"r",%s}`
	for _, c := range []struct {
		endpoint, body string
		code           messages.Code
		field, message string // the message contains this
	}{
		{"agent.create", `{}`, invalid, "name", "missing or empty; it must have 1 to 200 bytes"},
		{"agent.create", `{"name":` + text(203) + `}`, invalid, "name", "has 201 bytes; it must have 1 to 200"},
		{"agent.create", `{"name":"a\u0000"}`, invalid, "name", "U+0000"},
		{"agent.create", `{"name":"\ud800"}`, invalid, "name", "lone surrogate"},
		{"agent.create", `{"name":"n","agent_id":` + text(203) + `}`, invalid, "agent_id", "1 to 200"},
		{"agent.create", `{"name":"n","agent_id":"\u0000"}`, invalid, "agent_id", "U+0000"},
		{"agent.create", `{"name":"n","agent_id":7}`, invalid, "agent_id", "must be a string"},
		{"agent.create", `{"name":"n","type":` + text(203) + `}`, invalid, "type", "1 to 200"},
		{"agent.create", `{"name":"n","description":` + text(16387) + `}`, tooLarge, "description", "has 16385 bytes, the limit is 16384 bytes"},
		{"agent.create", `{"name":"n","description":"a\u0000"}`, invalid, "description", "U+0000"},
		{"agent.create", `{"name":"n","autonomy_level":6}`, invalid, "autonomy_level", "must be 0 to 5"},
		{"agent.create", `{"name":"n","autonomy_level":-1}`, invalid, "autonomy_level", "must be 0 to 5"},
		{"agent.create", `{"name":"n","autonomy_level":1.5}`, invalid, "autonomy_level", "whole number"},
		{"agent.create", `{"name":"n","status":"gone"}`, invalid, "status", "must be active, inactive or archived"},
		{"agent.create", `{"name":"n","status":""}`, invalid, "status", "must be active"},
		{"agent.create", `{"name":"n","model_config":[]}`, invalid, "model_config", "must be an object"},
		{"agent.create", `{"name":"n","metadata":"x"}`, invalid, "metadata", "must be an object"},
		{"agent.create", `{"name":"n","metadata":{"a":` + text(16379) + `}}`, tooLarge, "metadata", "has 16385 bytes, the limit is 16384"},
		{"agent.create", `{"name":"n","capabilities":` + text(1<<20+1) + `}`, tooLarge, "capabilities", "the limit is 1048576 bytes"},
		{"agent.create", `{"name":"n","capabilities":[1,["\u0000"]]}`, invalid, "capabilities[1][0]", "U+0000"},
		{"agent.create", `{"name":"n","metadata":{"a\u0000b":1}}`, invalid, "metadata.a\uFFFDb", "U+0000"},
		{"agent.create", `{"name":"n","metadata":{"a":[{"b":"\ud800"}]}}`, invalid, "metadata.a[0].b", "lone surrogate"},
		{"agent.create", `{"name":"n","metadata":{"a":1e131072}}`, invalid, "metadata.a", "131072 digits before and 16383"},
		{"agent.create", `{"name":"n","capabilities":[` + strings.TrimSuffix(strings.Repeat("1e131071,", 9), ",") + `]}`, tooLarge, "capabilities", "with its numbers written out"},
		{"agent.create", `{"name":"n","version":1}`, invalid, "version", "unknown field"},
		{"agent.get", `{}`, invalid, "agent_id", "exactly one of agent_id and name"},
		{"agent.get", `{"agent_id":"a","name":"n"}`, invalid, "agent_id", "exactly one"},
		{"agent.get", `{"name":"\u0000"}`, invalid, "name", "U+0000"},
		{"agent.update", `{"name":"n"}`, invalid, "agent_id", "missing"},
		{"agent.update", `{"agent_id":"a"}`, invalid, "", "names no field to change"},
		{"agent.update", `{"agent_id":"a","if_version":1}`, invalid, "", "names no field to change"},
		{"agent.update", `{"agent_id":"a","name":null,"metadata":null,"model_config":null}`, invalid, "", "names no field to change"},
		{"agent.update", `{"agent_id":"a","name":"n","if_version":0}`, invalid, "if_version", "must be 1 or more"},
		{"agent.update", `{"agent_id":"a","name":""}`, invalid, "name", "1 to 200"},
		{"agent.update", `{"agent_id":"a","created_at":"2026-01-01T00:00:00Z"}`, invalid, "created_at", "unknown field"},
		{"agent.update", `{"agent_id":"a","tenant":"other"}`, invalid, "tenant", "unknown field"},
		{"agent.update", `{"agent_id":"a","autonomy_level":6}`, invalid, "autonomy_level", "0 to 5"},
		{"agent.list", `{"status":"draft"}`, invalid, "status", "must be active"},
		{"agent.list", `{"query":` + text(1003) + `}`, invalid, "query", "1 to 1000"},
		{"agent.list", `{"query":"\u0000"}`, invalid, "query", "U+0000"},
		{"agent.list", `{"limit":0}`, invalid, "limit", "1 to 1000"},
		{"agent.list", `{"limit":1001}`, invalid, "limit", "1 to 1000"},
		{"agent.delete", `{"agent_id":""}`, invalid, "agent_id", "missing"},
		{"agent.delete", `{"agent_id":"a","cascade":"yes"}`, invalid, "cascade", "true or false"},
		{"workflow.create", `{"name":"n"}`, invalid, "definition", "is missing; null is a value"},
		{"workflow.create", `{"name":"n","definition":` + text(1<<20+1) + `}`, tooLarge, "definition", "1048576"},
		{"workflow.create", `{"name":"n","definition":"\u0000"}`, invalid, "definition", "U+0000"},
		{"workflow.create", `{"name":"n","definition":1,"status":"done"}`, invalid, "status", "draft, active, paused, completed or failed"},
		{"workflow.create", `{"name":"n","definition":1,"tags":` + list(33, `"t"`) + `}`, invalid, "tags", "32 at most"},
		{"workflow.create", `{"name":"n","definition":1,"tags":["a",` + text(131) + `]}`, invalid, "tags[1]", "1 to 128"},
		{"workflow.create", `{"name":"n","definition":1,"created_by":` + text(203) + `}`, invalid, "created_by", "1 to 200"},
		{"workflow.update", `{"workflow_id":"w","created_by":"eve"}`, invalid, "created_by", "unknown field"},
		{"workflow.update", `{"workflow_id":"w","tags":null}`, invalid, "", "names no field"},
		{"workflow.list", `{"tag":` + text(131) + `}`, invalid, "tag", "1 to 128"},
		{"workflow.delete", `{"workflow_id":"w","cascade":true}`, invalid, "cascade", "unknown field"},
		{"audit.log", `{"actor":"a","resource_type":"t","resource_id":"r"}`, invalid, "event_type", "1 to 200"},
		{"audit.log", `{"event_type":"e","resource_type":"t","resource_id":"r"}`, invalid, "actor", "missing"},
		{"audit.log", `{"event_type":"e","actor":"a","resource_type":"t"}`, invalid, "resource_id", "missing"},
		{"audit.log", fmt.Sprintf(log, `"details":[]`), invalid, "details", "must be an object"},
		{"audit.log", fmt.Sprintf(log, `"details":{"a":`+text(65531)+`}`), tooLarge, "details", "has 65537 bytes, the limit is 65536"},
		{"audit.log", fmt.Sprintf(log, `"details":{"a":"\u0000"}`), invalid, "details.a", "U+0000"},
		{"audit.log", fmt.Sprintf(log, `"ip_address":"localhost"`), invalid, "ip_address", "must be an IP address"},
		{"audit.log", fmt.Sprintf(log, `"ip_address":"fe80::1%eth0"`), invalid, "ip_address", "without a zone"},
		{"audit.log", fmt.Sprintf(log, `"user_agent":`+text(1027)), invalid, "user_agent", "1 to 1024"},
		{"audit.log", fmt.Sprintf(log, `"created_at":"2020-01-01T00:00:00Z"`), invalid, "created_at", "unknown field"},
		{"audit.query", `{"after":"yesterday"}`, invalid, "after", "a time such as 2026-01-31T09:30:00Z"},
		{"audit.query", `{"before":1700000000}`, invalid, "before", "a time such as"},
		{"audit.query", `{"after":"2026-01-02T00:00:00Z","before":"2026-01-02T00:00:00Z"}`, invalid, "after", "earlier than before"},
		{"audit.query", `{"ip_address":"1.2.3"}`, invalid, "ip_address", "IP address"},
		{"audit.query", `{"details":["a"]}`, invalid, "details", "must be an object"},
		{"audit.query", `{"details":{"a":"\u0000"}}`, invalid, "details.a", "U+0000"},
		{"audit.query", `{"details":{"a":"` + strings.Repeat("x", messages.MaxAuditFilterBytes) + `"}}`, messages.CodeTooLarge, "details", "4096"},
	} {
		endpoint, ok := messages.EndpointByName(c.endpoint)
		require.True(t, ok)
		shown := c.endpoint + " " + c.body[:min(len(c.body), 80)]
		_, err := decode(t, endpoint, c.body)
		var failure *messages.Error
		require.ErrorAs(t, err, &failure, shown)
		require.Equal(t, c.code, failure.Code, shown)
		require.Equal(t, c.field, failure.Details.Field, shown)
		require.Contains(t, failure.Message, c.message, shown)
	}
}

// TestRegistryAndAuditAccept: what lies on the bounds.
func TestRegistryAndAuditAccept(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ endpoint, body string }{
		{"agent.create", `{"name":` + text(202) + `,"agent_id":` + text(202) + `,"description":` + text(16386) + `,"autonomy_level":5}`},
		{"agent.create", `{"name":"n","metadata":{"a":` + text(16378) + `},"capabilities":` + text(1<<20) + `}`},
		{"agent.create", `{"name":"n","metadata":null,"model_config":null,"status":null,"autonomy_level":0}`},
		{"agent.update", `{"agent_id":"a","capabilities":null}`},
		{"agent.update", `{"agent_id":"a","description":""}`},
		{"agent.list", `{"query":` + text(1002) + `,"limit":1000}`},
		{"workflow.create", `{"name":"n","definition":null,"tags":` + list(32, `"t"`) + `}`},
		{"workflow.update", `{"workflow_id":"w","tags":[]}`},
		{"audit.log", `{"event_type":"e","actor":"a","resource_type":"t","resource_id":"r","details":{"a":` + text(65530) + `},"ip_address":"::1","user_agent":` + text(514) + `}`},
		{"audit.query", `{"after":"2026-01-02T00:00:00Z","before":"2026-01-02T00:00:00.000001+00:00"}`},
	} {
		endpoint, ok := messages.EndpointByName(c.endpoint)
		require.True(t, ok)
		_, err := decode(t, endpoint, c.body)
		require.NoError(t, err, "%s %.80s", c.endpoint, c.body)
	}
}
