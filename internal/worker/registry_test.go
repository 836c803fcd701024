package worker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

// TestRegistryOverNATS: what a caller sees of agents, workflows and the audit trail: conflicts with their details, the
// actor of the header in the trail, refusals of what jsonb cannot hold, no operation that would change the trail.
func TestRegistryOverNATS(t *testing.T) {
	t.Parallel()
	cfg := config.Config{DatabaseURL: devtest.Database(t), NATSURL: devtest.NATS(t).URL()}
	start(t, cfg)
	nc, err := nats.Connect(cfg.NATSURL)
	require.NoError(t, err)
	defer nc.Close()
	call := func(operation, body string) string {
		reply, err := nc.RequestMsg(&nats.Msg{
			Subject: "morello.v1.acme." + operation, Data: []byte(body), Header: nats.Header{messages.HeaderActor: {"ada"}},
		}, 10*time.Second)
		require.NoError(t, err)
		return string(reply.Data)
	}
	require.Contains(t, call("agent.create", `{"agent_id":"a","name":"n","metadata":{"x":1.50}}`), `"metadata":{"x":1.50},"version":1`)
	for request, want := range map[[2]string]string{
		{"agent.create", `{"agent_id":"a","name":"m"}`}:                       `"code":"conflict","message":"is that of an agent already","retryable":false,"details":{"field":"agent_id"}`,
		{"agent.create", `{"name":"n"}`}:                                      `"code":"conflict","message":"is that of another agent already","retryable":false,"details":{"field":"name"}`,
		{"agent.update", `{"agent_id":"a","name":"m","if_version":7}`}:        `"message":"has version 1, not 7","retryable":false,"details":{"field":"if_version","version":1}`,
		{"agent.update", `{"agent_id":"a","colour":"red"}`}:                   `"message":"unknown field","retryable":false,"details":{"field":"colour"}`,
		{"agent.get", `{"agent_id":"b"}`}:                                     `"code":"not_found"`,
		{"agent.create", `{"name":"x","capabilities":["\u0000"]}`}:            `"details":{"field":"capabilities[0]"}`,
		{"workflow.create", `{"name":"w","definition":{"a":1e999999}}`}:       `"details":{"field":"definition.a"}`,
		{"audit.log", `{"event_type":"e","actor":"a","resource_type":"t"}`}:   `"details":{"field":"resource_id"}`,
		{"audit.query", `{"cursor":"x"}`}:                                     `"details":{"field":"cursor"}`,
		{"workflow.list", `{"cursor":"` + strings.Repeat("A", 5000) + `"}`}:   `"details":{"field":"cursor"}`,
		{"workflow.delete", `{"workflow_id":"'; DROP TABLE morello.agent;"}`}: `{"deleted":false}`,
	} {
		require.Contains(t, call(request[0], request[1]), want, "%s %.100s", request[0], request[1])
	}
	require.Contains(t, call("audit.query", `{"resource_type":"agent"}`), `"event_type":"agent.created","actor":"ada","resource_type":"agent","resource_id":"a","details":{"name":"n","version":1}`)
	for _, operation := range []string{"audit.update", "audit.delete", "audit.clear"} {
		_, err := nc.Request("morello.v1.acme."+operation, nil, time.Second)
		require.ErrorIs(t, err, nats.ErrNoResponders, operation)
	}
}
