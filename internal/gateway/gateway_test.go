package gateway_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/gateway"
	"github.com/ai-cherry/morello/internal/health"
	"github.com/ai-cherry/morello/messages"
)

func listen(t *testing.T) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String()
}

// TestRunRefuses: what cannot be served is said at once, before NATS is looked for.
func TestRunRefuses(t *testing.T) {
	t.Parallel()
	taken := listen(t)
	for _, c := range []struct {
		name    string
		cfg     config.Config
		message []string
	}{
		{"all addresses without a token", config.Config{HTTPAddr: "0.0.0.0:0"}, []string{"MORELLO_HTTP_TOKEN must be set to listen on 0.0.0.0:0", "only loopback"}},
		{"no address without a token", config.Config{HTTPAddr: ":0"}, []string{"MORELLO_HTTP_TOKEN must be set"}},
		{"an operator's token is none for tenants", config.Config{HTTPAddr: "[::]:0", HTTPOperatorToken: operatorToken}, []string{"MORELLO_HTTP_TOKEN must be set"}},
		{"taken port", config.Config{HTTPAddr: taken}, []string{taken, "address already in use", "MORELLO_HTTP_ADDR sets another address"}},
		{"no such port", config.Config{HTTPAddr: "127.0.0.1:99999"}, []string{"99999", "MORELLO_HTTP_ADDR"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.cfg.NATSURL, c.cfg.HealthAddr = "nats://127.0.0.1:1", config.HealthOff
			err := gateway.Run(t.Context(), gateway.Config{Config: c.cfg, Log: slog.New(slog.DiscardHandler)})
			require.ErrorContains(t, err, "gateway: ")
			for _, part := range c.message {
				require.ErrorContains(t, err, part)
			}
		})
	}
}

func TestTakenHealthPort(t *testing.T) {
	t.Parallel()
	taken := listen(t)
	err := gateway.Run(t.Context(), gateway.Config{
		Config: config.Config{HTTPAddr: "127.0.0.1:0", HealthAddr: taken, NATSURL: devtest.NATS(t).URL()}, Log: slog.New(slog.DiscardHandler),
	})
	require.ErrorContains(t, err, taken)
	require.ErrorContains(t, err, "MORELLO_HEALTH_ADDR sets another address, or off")
}

// TestBeyondLoopback: with a token it may listen where others reach it.
func TestBeyondLoopback(t *testing.T) {
	t.Parallel()
	url, _ := serve(t, config.Config{HTTPAddr: "0.0.0.0:0", HTTPToken: token}, getOf(tenantGet))
	url = strings.Replace(url, "[::]", "127.0.0.1", 1)
	got := ask(t, http.MethodPost, url+"/v1/acme/cache/get", `{"key":"k"}`, "Authorization", "Bearer "+token)
	require.Equal(t, http.StatusOK, got.status)
}

// TestEndDuringStart: who is told to stop while NATS cannot be reached has not failed.
func TestEndDuringStart(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	require.NoError(t, gateway.Run(ctx, gateway.Config{
		Config: config.Config{HTTPAddr: "127.0.0.1:0", HealthAddr: config.HealthOff, NATSURL: "nats://127.0.0.1:1"}, Log: slog.New(slog.DiscardHandler),
	}))
}

// TestStop: a request at work when the gateway is told to stop is answered, and nobody else is let in.
func TestStop(t *testing.T) {
	t.Parallel()
	began, goOn := make(chan struct{}), make(chan struct{})
	natsURL := devtest.NATS(t).URL()
	startWorker(t, natsURL, getOf(func(ctx context.Context, tenant string, m messages.CacheGet) (messages.CacheGetReply, error) {
		close(began)
		<-goOn
		return tenantGet(ctx, tenant, m)
	}))
	url, stop := startGateway(t, config.Config{NATSURL: natsURL})
	type result struct {
		answer answer
		err    error
	}
	answered, stopped := make(chan result, 1), make(chan error, 1)
	go func() {
		got, err := send(t.Context(), http.MethodPost, url+"/v1/acme/cache/get", `{"key":"k"}`, "Morello-Timeout-Ms", "60000")
		answered <- result{got, err}
	}()
	<-began
	go func() { stopped <- stop() }()
	require.Eventually(t, func() bool {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	}, closeTimeout, 5*time.Millisecond, "the port is closed while the request is at work")
	require.Empty(t, stopped)
	close(goOn)
	got := <-answered
	require.NoError(t, got.err)
	require.Equal(t, http.StatusOK, got.answer.status)
	require.Equal(t, `{"found":true,"value":"acme"}`, got.answer.body)
	require.NoError(t, <-stopped)
}

// TestHealth: the gateway is ready as long as NATS is there.
func TestHealth(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	broker := devtest.NATS(t)
	startGateway(t, config.Config{NATSURL: broker.URL(), HealthAddr: addr})
	require.NoError(t, health.Ask(t.Context(), addr))
	broker.Shutdown()
	require.Eventually(t, func() bool {
		err := health.Ask(t.Context(), addr)
		return err != nil && strings.Contains(err.Error(), "NATS cannot be reached")
	}, closeTimeout, 5*time.Millisecond)
}

// freeAddr returns an address that nobody listened on a moment ago: Run does not say where its health endpoints are.
func freeAddr(t *testing.T) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	return listener.Addr().String()
}
