package health_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/health"
)

func TestMain(m *testing.M) { devtest.Main(m, nil) }

func serve(t *testing.T, ready health.Check) *health.Server {
	t.Helper()
	server, err := health.Serve(t.Context(), "127.0.0.1:0", ready)
	require.NoError(t, err)
	t.Cleanup(server.Close)
	return server
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(text)
}

func TestReady(t *testing.T) {
	t.Parallel()
	server := serve(t, func(context.Context) error { return nil })
	status, body := get(t, "http://"+server.Addr()+"/readyz")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "ok\n", body)
	require.NoError(t, health.Ask(t.Context(), server.Addr()))
}

// TestNotReady: the process lives and says why it cannot work.
func TestNotReady(t *testing.T) {
	t.Parallel()
	server := serve(t, func(context.Context) error { return errors.New("NATS cannot be reached") })
	status, body := get(t, "http://"+server.Addr()+"/readyz")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Equal(t, "NATS cannot be reached\n", body)
	status, _ = get(t, "http://"+server.Addr()+"/livez")
	require.Equal(t, http.StatusOK, status)
	err := health.Ask(t.Context(), server.Addr())
	require.ErrorContains(t, err, "not ready")
	require.ErrorContains(t, err, "NATS cannot be reached")
}

func TestUnknownPath(t *testing.T) {
	t.Parallel()
	server := serve(t, func(context.Context) error { return nil })
	status, _ := get(t, "http://"+server.Addr()+"/healthz")
	require.Equal(t, http.StatusNotFound, status)
}

// TestCheckIsBounded: a check that hangs is told to end, or a probe would pile up behind it.
func TestCheckIsBounded(t *testing.T) {
	t.Parallel()
	recorder := httptest.NewRecorder()
	bounded := false
	health.Ready(func(ctx context.Context) error {
		_, bounded = ctx.Deadline()
		return nil
	}).ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
	require.Equal(t, http.StatusOK, recorder.Code)
	require.True(t, bounded)
}

func TestAskNobody(t *testing.T) {
	t.Parallel()
	server := serve(t, func(context.Context) error { return nil })
	server.Close()
	require.ErrorContains(t, health.Ask(t.Context(), server.Addr()), "connection refused")
}

// TestAskOfEveryAddress: a server on all addresses is asked on this machine; "off" is no address.
func TestAskOfEveryAddress(t *testing.T) {
	t.Parallel()
	server, err := health.Serve(t.Context(), ":0", func(context.Context) error { return nil })
	require.NoError(t, err)
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Addr())
	require.NoError(t, err)
	for _, addr := range []string{":" + port, "0.0.0.0:" + port} {
		require.NoError(t, health.Ask(t.Context(), addr), addr)
	}
}

func TestTakenPort(t *testing.T) {
	t.Parallel()
	server := serve(t, func(context.Context) error { return nil })
	_, err := health.Serve(t.Context(), server.Addr(), func(context.Context) error { return nil })
	require.ErrorContains(t, err, "address already in use")
	require.ErrorContains(t, err, server.Addr())
	require.ErrorContains(t, err, "MORELLO_HEALTH_ADDR sets another address, or off")
}
