package worker_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/scheduler"
	"github.com/ai-cherry/morello/messages"
)

// startScheduler runs a scheduler until the test ends.
func startScheduler(t *testing.T, cfg config.Config) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cfg.HealthAddr = config.HealthOff
	ended := make(chan error, 1)
	go func() { ended <- scheduler.Run(ctx, scheduler.Config{Config: cfg, Log: slog.New(slog.DiscardHandler)}) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-ended) })
}

// TestFollowAJob: who deletes an agent with what it owns follows the job by its id to its result; the operator can too, another
// tenant cannot.
func TestFollowAJob(t *testing.T) {
	t.Parallel()
	cfg, err := config.Load()
	require.NoError(t, err)
	cfg.DatabaseURL, cfg.NATSURL = devtest.Database(t), devtest.NATS(t).URL()
	start(t, cfg)
	conn, ctx := connect(t, cfg.NATSURL), t.Context()
	for range 3 {
		_, err := bus.Call(ctx, conn, messages.SessionCreateEndpoint, "acme", messages.SessionCreate{AgentID: "a"})
		require.NoError(t, err)
	}
	deleted, err := bus.Call(ctx, conn, messages.AgentDeleteEndpoint, "acme", messages.AgentDelete{AgentID: "a", Cascade: true})
	require.NoError(t, err)
	get := messages.SystemJobGet{JobRef: messages.JobRef{JobID: deleted.JobID}}
	reply, err := bus.Call(ctx, conn, messages.SystemJobGetEndpoint, "acme", get)
	require.NoError(t, err)
	require.Equal(t, messages.JobAvailable, reply.Job.State)
	nc, err := nats.Connect(cfg.NATSURL)
	require.NoError(t, err)
	defer nc.Close()
	ended, err := nc.SubscribeSync(messages.SessionDeletedEvent.Info().Subject("acme"))
	require.NoError(t, err)
	startScheduler(t, cfg)
	require.Eventually(t, func() bool {
		reply, err = bus.Call(ctx, conn, messages.SystemJobGetEndpoint, "acme", get)
		return err == nil && reply.Job.State == messages.JobCompleted
	}, time.Minute, 20*time.Millisecond)
	require.Equal(t, "agent_cascade", reply.Job.Kind)
	require.Equal(t, &messages.JobProgress{Done: 3}, reply.Job.Progress)
	require.JSONEq(t, `{"deleted":3}`, string(reply.Job.Result))
	event, err := ended.NextMsg(10 * time.Second)
	require.NoError(t, err)
	require.Equal(t, 3, strings.Count(string(event.Data), `"agent_id":"a"`), "%s", event.Data)
	operators, err := bus.Call(ctx, conn, messages.SystemJobGetEndpoint, messages.TenantAdmin, get)
	require.NoError(t, err)
	require.Equal(t, reply, operators)
	_, err = bus.Call(ctx, conn, messages.SystemJobGetEndpoint, "other", get)
	require.Equal(t, messages.CodeNotFound, messages.AsError(err).Code)
}

// TestOperatorsTrail: what the operator does to a job stands in a trail of the operator's own, in which only the operator reads; and
// nobody writes into it by a request.
func TestOperatorsTrail(t *testing.T) {
	t.Parallel()
	cfg := config.Config{DatabaseURL: devtest.Database(t), NATSURL: devtest.NATS(t).URL()}
	start(t, cfg)
	conn, ctx := connect(t, cfg.NATSURL), t.Context()
	deleted, err := bus.Call(ctx, conn, messages.AgentDeleteEndpoint, "acme", messages.AgentDelete{AgentID: "a", Cascade: true})
	require.NoError(t, err)
	_, err = bus.Call(ctx, conn, messages.SystemJobCancelEndpoint, messages.TenantAdmin, messages.SystemJobCancel{JobRef: messages.JobRef{JobID: deleted.JobID}})
	require.NoError(t, err)
	filter := messages.AuditQuery{EventType: "job.cancelled", Details: []byte(`{"kind":"agent_cascade"}`)}
	operators, err := bus.Call(ctx, conn, messages.AuditQueryEndpoint, messages.TenantAdmin, filter)
	require.NoError(t, err)
	require.Len(t, operators.Entries, 1)
	require.Equal(t, fmt.Sprint(deleted.JobID), operators.Entries[0].ResourceID)
	tenants, err := bus.Call(ctx, conn, messages.AuditQueryEndpoint, "acme", messages.AuditQuery{})
	require.NoError(t, err)
	require.Len(t, tenants.Entries, 1)
	require.Equal(t, "agent.deleted", tenants.Entries[0].EventType)
	_, err = bus.Call(ctx, conn, messages.AuditLogEndpoint, messages.TenantAdmin, messages.AuditLog{EventType: "e", Actor: "a", ResourceType: "t", ResourceID: "r"})
	require.Equal(t, messages.CodeForbidden, messages.AsError(err).Code)
}
