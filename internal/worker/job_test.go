package worker_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

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
	startScheduler(t, cfg)
	require.Eventually(t, func() bool {
		reply, err = bus.Call(ctx, conn, messages.SystemJobGetEndpoint, "acme", get)
		return err == nil && reply.Job.State == messages.JobCompleted
	}, time.Minute, 20*time.Millisecond)
	require.Equal(t, "agent_cascade", reply.Job.Kind)
	require.Equal(t, &messages.JobProgress{Done: 3}, reply.Job.Progress)
	require.JSONEq(t, `{"deleted":3}`, string(reply.Job.Result))
	operators, err := bus.Call(ctx, conn, messages.SystemJobGetEndpoint, messages.TenantAdmin, get)
	require.NoError(t, err)
	require.Equal(t, reply, operators)
	_, err = bus.Call(ctx, conn, messages.SystemJobGetEndpoint, "other", get)
	require.Equal(t, messages.CodeNotFound, messages.AsError(err).Code)
}
