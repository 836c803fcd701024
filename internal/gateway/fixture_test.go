package gateway_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/gateway"
	"github.com/ai-cherry/morello/messages"
)

func TestMain(m *testing.M) { devtest.Main(m, nil) }

const closeTimeout = 10 * time.Second

// startGateway runs a gateway on a free port, and returns its URL and a function that stops it and returns what Run did.
func startGateway(t *testing.T, cfg config.Config) (url string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	if cfg.HTTPAddr == "" {
		cfg.HTTPAddr = "127.0.0.1:0"
	}
	if cfg.HealthAddr == "" {
		cfg.HealthAddr = config.HealthOff
	}
	ready, ended := make(chan string, 1), make(chan struct{})
	var err error
	go func() {
		defer close(ended)
		err = gateway.Run(ctx, gateway.Config{
			Config: cfg, Log: slog.New(slog.DiscardHandler), OnReady: func(addr string) { ready <- addr },
		})
	}()
	stop = func() error {
		cancel()
		<-ended
		return err
	}
	t.Cleanup(func() { require.NoError(t, stop()) })
	select {
	case addr := <-ready:
		return "http://" + addr, stop
	case <-ended:
		require.FailNow(t, "the gateway ended", "%v", err)
		return "", nil
	}
}

// serve starts NATS, a worker that serves the bindings, and a gateway before it.
func serve(t *testing.T, cfg config.Config, bindings ...bus.Binding) (url, natsURL string) {
	t.Helper()
	cfg.NATSURL = devtest.NATS(t).URL()
	startWorker(t, cfg.NATSURL, bindings...)
	url, _ = startGateway(t, cfg)
	return url, cfg.NATSURL
}

func startWorker(t *testing.T, natsURL string, bindings ...bus.Binding) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	conn, err := bus.Connect(t.Context(), bus.ConnConfig{URL: natsURL, Program: "worker", Instance: "one", Log: log})
	require.NoError(t, err)
	server := bus.NewServer(conn, bus.ServerConfig{Program: "worker", Instance: "one", Version: config.Version, Log: log}, bindings)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		require.NoError(t, server.Drain(ctx))
		require.NoError(t, conn.Close(ctx))
	})
	require.NoError(t, server.Start())
}

// getOf and setOf serve cache.get, which reads, and cache.set, which mutates, with a function of the test.
func getOf(operation func(ctx context.Context, tenant string, m messages.CacheGet) (messages.CacheGetReply, error)) bus.Binding {
	return bus.Bind(messages.CacheGetEndpoint, operation)
}

func setOf(operation func(ctx context.Context, tenant string, m messages.CacheSet) (messages.CacheSetReply, error)) bus.Binding {
	return bus.Bind(messages.CacheSetEndpoint, operation)
}

// tenantGet answers with the tenant as the value.
func tenantGet(_ context.Context, tenant string, _ messages.CacheGet) (messages.CacheGetReply, error) {
	return messages.CacheGetReply{Found: true, CacheEntry: messages.CacheEntry{Value: []byte(`"` + tenant + `"`)}}, nil
}

// answer is an HTTP response that was read.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask sends a request without following redirects. Headers come as name, value, name, value; Host is the host.
func ask(t *testing.T, method, url, body string, headers ...string) answer {
	t.Helper()
	result, err := send(t.Context(), method, url, body, headers...)
	require.NoError(t, err)
	return result
}

func send(ctx context.Context, method, url, body string, headers ...string) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewBufferString(body))
	if err != nil {
		return answer{}, err
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Add(headers[i], headers[i+1])
		if headers[i] == "Host" {
			request.Host = headers[i+1]
		}
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(text)}, err
}

// failure returns the error object of an answer that is one.
func (a answer) failure(t *testing.T) messages.ErrorBody {
	t.Helper()
	require.Equal(t, "application/json", a.header.Get("Content-Type"))
	var reply messages.ErrorReply
	require.NoError(t, messages.DecodeReply([]byte(a.body), &reply), a.body)
	require.NotEmpty(t, reply.Error.Message)
	return reply.Error
}
