package gateway_test

import (
	"context"
	"fmt"
	"net/http"
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

// TestSuccess: bodies pass in both directions as they are.
func TestSuccess(t *testing.T) {
	t.Parallel()
	url, _ := serve(t, config.Config{},
		getOf(func(_ context.Context, tenant string, m messages.CacheGet) (messages.CacheGetReply, error) {
			return messages.CacheGetReply{Found: true, CacheEntry: messages.CacheEntry{Value: []byte(`[1.0,"\u00e9<` + tenant + m.Key + `"]`), Version: 7}}, nil
		}),
		setOf(func(_ context.Context, _ string, m messages.CacheSet) (messages.CacheSetReply, error) {
			return messages.CacheSetReply{Stored: string(m.Value) == `{"a": 1e400}`, Version: 8}, nil
		}))
	got := ask(t, http.MethodPost, url+"/v1/acme/cache/get", `{"key":"k"}`)
	require.Equal(t, http.StatusOK, got.status)
	require.Equal(t, "application/json", got.header.Get("Content-Type"))
	require.Equal(t, `{"found":true,"value":[1.0,"\u00e9<acmek"],"version":7}`, got.body)

	got = ask(t, http.MethodPost, url+"/v1/acme/cache/set", `{"key":"k","value":{"a": 1e400}}`, "Content-Type", "text/plain")
	require.Equal(t, http.StatusOK, got.status)
	require.Equal(t, `{"stored":true,"version":8}`, got.body)
}

// TestRawBytes: bytes and their headers pass in both directions.
func TestRawBytes(t *testing.T) {
	t.Parallel()
	const id = "0196f3c2-7b1e-7c3a-9f0e-0f6a3d1c2b4a"
	puts := make(chan messages.TransferPut, 1)
	url, _ := serve(t, config.Config{},
		bus.Bind(messages.TransferPutEndpoint, func(_ context.Context, _ string, m messages.TransferPut) (messages.TransferPutReply, error) {
			puts <- m
			return messages.TransferPutReply{ReceivedBytes: len(m.Data)}, nil
		}),
		bus.Bind(messages.TransferGetEndpoint, func(context.Context, string, messages.TransferGet) (messages.TransferGetReply, error) {
			return messages.TransferGetReply{Parts: 3, Data: []byte("\x00\xff")}, nil
		}))
	got := ask(t, http.MethodPost, url+"/v1/acme/transfer/put", "\xff\x00{", "Morello-Transfer", id, "Morello-Part", "2", "Content-Type", "application/octet-stream")
	require.Equal(t, `{"received_bytes":3}`, got.body)
	require.Equal(t, "application/json", got.header.Get("Content-Type"))
	require.Equal(t, messages.TransferPut{TransferID: id, Part: 2, Data: []byte("\xff\x00{")}, <-puts)
	got = ask(t, http.MethodPost, url+"/v1/acme/transfer/get", `{"transfer_id":"`+id+`"}`)
	require.Equal(t, "\x00\xff", got.body)
	require.Equal(t, "application/octet-stream", got.header.Get("Content-Type"))
	require.Equal(t, "3", got.header.Get("Morello-Parts"))
	got = ask(t, http.MethodPost, url+"/v1/acme/transfer/put", "x", "Morello-Transfer", id)
	require.Equal(t, http.StatusBadRequest, got.status)
	require.Equal(t, "Morello-Part", got.failure(t).Details.Field)
}

// TestErrorCodes: every code has its status, and arrives whole.
func TestErrorCodes(t *testing.T) {
	t.Parallel()
	details := messages.ErrorDetails{Field: "entries[3].key", Outcome: messages.OutcomeUnknown, RetryAfterMS: 1500}
	fail := func(key string) error {
		return &messages.Error{Code: messages.Code(key), Message: "it is " + key, Details: details}
	}
	url, _ := serve(t, config.Config{},
		getOf(func(_ context.Context, _ string, m messages.CacheGet) (messages.CacheGetReply, error) {
			return messages.CacheGetReply{}, fail(m.Key)
		}),
		setOf(func(_ context.Context, _ string, m messages.CacheSet) (messages.CacheSetReply, error) {
			return messages.CacheSetReply{}, fail(m.Key)
		}))
	for _, c := range []struct {
		code   messages.Code
		status int
		// retryable: of a change without a key, of a read or of a change with one
		plain, idempotent bool
	}{
		{messages.CodeInvalid, 400, false, false},
		{messages.CodeUnauthorized, 401, false, false},
		{messages.CodeForbidden, 403, false, false},
		{messages.CodeNotFound, 404, false, false},
		{messages.CodeConflict, 409, false, false},
		{messages.CodeTooLarge, 413, false, false},
		{messages.CodeQuotaExceeded, 429, true, true},
		{messages.CodeInternal, 500, false, false},
		{messages.CodeOverloaded, 503, true, true},
		{messages.CodeUnavailable, 503, false, true},
		{messages.CodeDeadlineExceeded, 504, false, true},
	} {
		t.Run(string(c.code), func(t *testing.T) {
			t.Parallel()
			requireFailure := func(got answer, retryable bool) {
				require.Equal(t, c.status, got.status)
				require.Equal(t, "2", got.header.Get("Retry-After"), "whole seconds, rounded up")
				failure := got.failure(t)
				failure.Details.ErrorID = "" // of internal
				require.Equal(t, messages.ErrorBody{Code: c.code, Message: "it is " + string(c.code), Retryable: retryable, Details: details}, failure)
			}
			get, set := fmt.Sprintf(`{"key":%q}`, c.code), fmt.Sprintf(`{"key":%q,"value":1}`, c.code)
			requireFailure(ask(t, http.MethodPost, url+"/v1/acme/cache/get", get), c.idempotent)
			requireFailure(ask(t, http.MethodPost, url+"/v1/acme/cache/set", set), c.plain)
			requireFailure(ask(t, http.MethodPost, url+"/v1/acme/cache/set", set, "Idempotency-Key", "once"), c.idempotent)
		})
	}
}

// TestInternalErrorsAreHidden: the text of what broke stays with the worker; the caller gets the id to ask by.
func TestInternalErrorsAreHidden(t *testing.T) {
	t.Parallel()
	url, _ := serve(t, config.Config{}, getOf(func(context.Context, string, messages.CacheGet) (messages.CacheGetReply, error) {
		return messages.CacheGetReply{}, fmt.Errorf("password authentication failed")
	}))
	got := ask(t, http.MethodPost, url+"/v1/acme/cache/get", `{"key":"k"}`)
	require.Equal(t, http.StatusInternalServerError, got.status)
	require.NotContains(t, got.body, "password")
	require.NotEmpty(t, got.failure(t).Details.ErrorID)
}

func TestInvalidRequests(t *testing.T) {
	t.Parallel()
	url, _ := serve(t, config.Config{}, getOf(tenantGet))
	for body, field := range map[string]string{``: "key", `{"key":"k","more":1}`: "more", `[]`: "", `{"key":"k"`: ""} {
		got := ask(t, http.MethodPost, url+"/v1/acme/cache/get", body)
		require.Equal(t, http.StatusBadRequest, got.status, body)
		require.Equal(t, messages.CodeInvalid, got.failure(t).Code, body)
		require.Equal(t, field, got.failure(t).Details.Field, body)
	}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	url, _ := serve(t, config.Config{}, getOf(tenantGet))
	for _, c := range []struct {
		method, path string
		status       int
		code         messages.Code
	}{
		{http.MethodPost, "/v1/acme/cache/fetch", 404, messages.CodeNotFound},
		{http.MethodPost, "/v1/acme/cash/get", 404, messages.CodeNotFound},
		{http.MethodPost, "/v1/acme/cache/get%00", 404, messages.CodeNotFound},
		{http.MethodPost, "/v1/acme/cache/*", 404, messages.CodeNotFound},
		{http.MethodPost, "/v1/acme/cache.get", 404, messages.CodeNotFound},
		{http.MethodPost, "/v1/acme/cache/get/", 404, messages.CodeNotFound},
		{http.MethodPost, "/v2/acme/cache/get", 404, messages.CodeNotFound},
		{http.MethodPost, "/", 404, messages.CodeNotFound},
		{http.MethodGet, "/", 404, messages.CodeNotFound},
		{http.MethodGet, "/v1/acme/cache/get", 405, messages.CodeInvalid},
		{http.MethodPut, "/v1/acme/cache/get", 405, messages.CodeInvalid},
		{http.MethodOptions, "/v1/acme/cache/get", 405, messages.CodeInvalid},
	} {
		got := ask(t, c.method, url+c.path, `{"key":"k"}`)
		require.Equal(t, c.status, got.status, "%s %s", c.method, c.path)
		require.Equal(t, c.code, got.failure(t).Code, "%s %s", c.method, c.path)
		if c.status == http.StatusMethodNotAllowed {
			require.Equal(t, "POST", got.header.Get("Allow"))
		}
	}
}

func TestLargeBodies(t *testing.T) {
	t.Parallel()
	url, _ := serve(t, config.Config{}, getOf(tenantGet))
	body := func(size int) string { return `{"key":"k"}` + strings.Repeat(" ", size-len(`{"key":"k"}`)) }
	const limit = 8 << 20
	got := ask(t, http.MethodPost, url+"/v1/acme/cache/get", body(limit-1024))
	require.Equal(t, http.StatusOK, got.status, got.body)
	got = ask(t, http.MethodPost, url+"/v1/acme/cache/get", body(limit+1))
	require.Equal(t, http.StatusRequestEntityTooLarge, got.status)
	require.Equal(t, messages.CodeTooLarge, got.failure(t).Code)
	require.Contains(t, got.failure(t).Message, "8388608 bytes")
}

// TestHeaders: what a request may bring besides its body reaches the operation.
func TestHeaders(t *testing.T) {
	t.Parallel()
	type seen struct {
		call messages.Call
		left time.Duration
	}
	calls := make(chan seen, 1)
	url, _ := serve(t, config.Config{}, setOf(func(ctx context.Context, _ string, _ messages.CacheSet) (messages.CacheSetReply, error) {
		deadline, _ := ctx.Deadline()
		calls <- seen{*messages.CallFrom(ctx), time.Until(deadline)}
		return messages.CacheSetReply{}, nil
	}))
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	set := func(headers ...string) answer {
		return ask(t, http.MethodPost, url+"/v1/acme/cache/set", `{"key":"k","value":1}`, headers...)
	}
	require.Equal(t, http.StatusOK, set("idempotency-key", "order-7", "morello-actor", "agent-7", "traceparent", trace, "morello-timeout-ms", "60000").status)
	got := <-calls
	require.Equal(t, "order-7", got.call.IdempotencyKey)
	require.Equal(t, "agent-7", got.call.Actor)
	require.Equal(t, trace, got.call.Traceparent)
	require.Greater(t, got.left, 30*time.Second)
	require.LessOrEqual(t, got.left, time.Minute)

	require.Equal(t, http.StatusOK, set().status)
	got = <-calls
	require.Equal(t, messages.Call{Endpoint: "cache.set"}, got.call)
	require.LessOrEqual(t, got.left, messages.CacheSetEndpoint.Timeout, "without a header the deadline is the endpoint's")

	for _, c := range []struct {
		name    string
		headers []string
	}{
		{messages.HeaderTimeout, []string{"Morello-Timeout-Ms", "soon"}},
		{messages.HeaderTimeout, []string{"Morello-Timeout-Ms", "0"}},
		{messages.HeaderTimeout, []string{"Morello-Timeout-Ms", "1.5"}},
		{messages.HeaderIdempotencyKey, []string{"Idempotency-Key", ""}},
		{messages.HeaderIdempotencyKey, []string{"Idempotency-Key", "a", "Idempotency-Key", "b"}},
		{messages.HeaderIdempotencyKey, []string{"Idempotency-Key", strings.Repeat("k", 129)}},
		{messages.HeaderActor, []string{"Morello-Actor", strings.Repeat("a", 201)}},
	} {
		got := set(c.headers...)
		require.Equal(t, http.StatusBadRequest, got.status, c.headers)
		require.Equal(t, c.name, got.failure(t).Details.Field)
	}
	require.Empty(t, calls, "none of these reached the operation")
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	url, _ := serve(t, config.Config{}, getOf(func(ctx context.Context, _ string, _ messages.CacheGet) (messages.CacheGetReply, error) {
		<-ctx.Done()
		return messages.CacheGetReply{}, ctx.Err()
	}))
	got := ask(t, http.MethodPost, url+"/v1/acme/cache/get", `{"key":"k"}`, "Morello-Timeout-Ms", "50")
	require.Equal(t, http.StatusGatewayTimeout, got.status)
	require.Equal(t, messages.CodeDeadlineExceeded, got.failure(t).Code)
	require.True(t, got.failure(t).Retryable, "a read may be repeated")
}

func TestNoWorker(t *testing.T) {
	t.Parallel()
	url, _ := startGateway(t, config.Config{NATSURL: devtest.NATS(t).URL()})
	got := ask(t, http.MethodPost, url+"/v1/acme/cache/set", `{"key":"k","value":1}`)
	require.Equal(t, http.StatusServiceUnavailable, got.status)
	failure := got.failure(t)
	require.Equal(t, messages.CodeUnavailable, failure.Code)
	require.Equal(t, messages.OutcomeNotApplied, failure.Details.Outcome)
	require.True(t, failure.Retryable)
}

// TestTenants: a name that is none is refused here; nothing of it becomes part of a NATS subject.
func TestTenants(t *testing.T) {
	t.Parallel()
	url, natsURL := serve(t, config.Config{}, getOf(tenantGet))
	nc, err := nats.Connect(natsURL)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	requests, err := nc.SubscribeSync("morello.>")
	require.NoError(t, err)
	require.NoError(t, nc.Flush())

	for _, tenant := range []string{
		"*", "%2A", ">", "%3E", "ACME", "Acme", strings.Repeat("a", 64), "a%2Fb", "a%2fb", "a.b", "a%2Eb", "%2e%2e", "..%2Facme", "_other",
		"-a", "a_b", "%20", "acme%20", "acme%0a", "acme%00", "%c3%a9", "acme.cache.get%20", "%ff",
	} {
		got := ask(t, http.MethodPost, url+"/v1/"+tenant+"/cache/get", `{"key":"k"}`)
		require.Equal(t, http.StatusBadRequest, got.status, tenant)
		require.Equal(t, messages.CodeInvalid, got.failure(t).Code, tenant)
		require.Equal(t, "tenant", got.failure(t).Details.Field, tenant)
		require.Contains(t, got.failure(t).Message, "^[a-z0-9][a-z0-9-]{0,62}$", tenant)
	}
	for _, path := range []string{"/v1/../cache/get", "/v1//cache/get", "/v1/./cache/get", "/v1/acme/../../v1/cache/get"} {
		got := ask(t, http.MethodPost, url+path, `{"key":"k"}`)
		require.NotEqual(t, http.StatusOK, got.status, path)
	}
	for _, tenant := range []string{"acme", "0", "a-", strings.Repeat("a", 63), "gateway", "%61cme"} {
		require.Equal(t, http.StatusOK, ask(t, http.MethodPost, url+"/v1/"+tenant+"/cache/get", `{"key":"k"}`).status, tenant)
	}
	require.NoError(t, nc.Flush())
	for _, tenant := range []string{"acme", "0", "a-", strings.Repeat("a", 63), "gateway", "acme"} {
		msg, err := requests.NextMsg(closeTimeout)
		require.NoError(t, err)
		require.Equal(t, "morello.v1."+tenant+".cache.get", msg.Subject)
	}
	left, _, err := requests.Pending()
	require.NoError(t, err)
	require.Zero(t, left, "nothing else reached NATS")
}
