package worker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

// TestTokensThatOpenNothing: the replies to every kind of wrong token are the same bytes, headers included, and among many good
// look-ups of others each gets its own answer.
func TestTokensThatOpenNothing(t *testing.T) {
	t.Parallel()
	cfg := config.Config{DatabaseURL: devtest.Database(t), NATSURL: devtest.NATS(t).URL()}
	start(t, cfg)
	conn := connect(t, cfg.NATSURL)
	nc, err := nats.Connect(cfg.NATSURL)
	require.NoError(t, err)
	defer nc.Close()
	create := func(ttl float64) messages.SessionCreateReply {
		reply, err := bus.Call(t.Context(), conn, messages.SessionCreateEndpoint, "acme", messages.SessionCreate{TTLSeconds: &ttl})
		require.NoError(t, err)
		return reply
	}
	live, deleted, expired, reused := create(1000), create(1000), create(0.000001), create(1000)
	_, err = bus.Call(t.Context(), conn, messages.SessionDeleteEndpoint, "acme", messages.SessionDelete{SessionID: deleted.Session.SessionID})
	require.NoError(t, err)
	rotated, err := bus.Call(t.Context(), conn, messages.SessionRotateEndpoint, "acme", messages.SessionRotate{Token: reused.Token, GraceSeconds: new(0.0)})
	require.NoError(t, err)
	_, err = bus.Call(t.Context(), conn, messages.SessionGetByTokenEndpoint, "acme", messages.SessionGetByToken{Token: rotated.Token})
	require.NoError(t, err)

	ask := func(tenant, token string) *nats.Msg {
		body, err := messages.Encode(messages.SessionGetByToken{Token: token})
		require.NoError(t, err)
		reply, err := nc.Request(messages.SessionGetByTokenEndpoint.Info().Subject(tenant), body, 10*time.Second)
		require.NoError(t, err)
		return reply
	}
	want := ask("acme", strings.Repeat("A", 43))
	require.Equal(t, `{"error":{"code":"not_found","message":"there is no such live session","retryable":false,"details":{}}}`, string(want.Data))
	for _, token := range []string{
		live.Token[:42], live.Token + "=", "' OR '1'='1", "\x00", "%", deleted.Token, expired.Token, reused.Token, rotated.Token, live.Session.SessionID,
	} {
		got := ask("acme", token)
		require.Equal(t, string(want.Data), string(got.Data))
		require.Equal(t, want.Header, got.Header)
		require.Contains(t, string(ask("acme", live.Token).Data), live.Session.SessionID)
	}
	require.Equal(t, string(want.Data), string(ask("other", live.Token).Data))
}
