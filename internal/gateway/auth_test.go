package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/messages"
)

const (
	token         = "token-of-the-tenants"
	operatorToken = "token-of-the-operator"
)

// TestOperator: the operator's tenant wants the operator's token, with or without a token for the others, and who has
// none does not learn which operations there are.
func TestOperator(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]config.Config{
		"both tokens":         {HTTPToken: token, HTTPOperatorToken: operatorToken},
		"operator token only": {HTTPOperatorToken: operatorToken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, _ := serve(t, cfg, getOf(tenantGet))
			for _, operation := range []string{"cache/get", "cache/fetch"} {
				for _, c := range []struct {
					authorization string
					status        int
					code          messages.Code
				}{
					{"", 401, messages.CodeUnauthorized},
					{"Basic " + operatorToken, 401, messages.CodeUnauthorized},
					{operatorToken, 401, messages.CodeUnauthorized},
					{"Bearer ", 403, messages.CodeForbidden},
					{"Bearer " + token, 403, messages.CodeForbidden},
					{"Bearer " + operatorToken + "x", 403, messages.CodeForbidden},
					{"Bearer " + operatorToken[1:], 403, messages.CodeForbidden},
					{"Bearer " + strings.ToUpper(operatorToken), 403, messages.CodeForbidden},
				} {
					got := ask(t, http.MethodPost, url+"/v1/_admin/"+operation, `{}`, "Authorization", c.authorization)
					require.Equal(t, c.status, got.status, "%q %s", c.authorization, operation)
					require.Equal(t, c.code, got.failure(t).Code)
					require.Equal(t, c.status == http.StatusUnauthorized, got.header.Get("WWW-Authenticate") == "Bearer")
				}
			}
			got := ask(t, http.MethodPost, url+"/v1/_admin/cache/fetch", `{}`, "Authorization", "Bearer "+operatorToken)
			require.Equal(t, http.StatusNotFound, got.status)
			got = ask(t, http.MethodPost, url+"/v1/_admin/cache/get", `{}`, "Authorization", "bearer "+operatorToken)
			require.Equal(t, http.StatusForbidden, got.status)
			require.Contains(t, got.failure(t).Message, "under a tenant", "the token was right, the tenant is not")
		})
	}
}

// TestNoOperatorToken: where none is set, no token is the operator's, the empty one included.
func TestNoOperatorToken(t *testing.T) {
	t.Parallel()
	url, _ := serve(t, config.Config{HTTPToken: token}, getOf(tenantGet))
	for _, authorization := range []string{"Bearer ", "Bearer", "Bearer " + token} {
		got := ask(t, http.MethodPost, url+"/v1/_admin/cache/get", `{}`, "Authorization", authorization)
		require.Equal(t, http.StatusForbidden, got.status, authorization)
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	url, _ := serve(t, config.Config{HTTPToken: token, HTTPOperatorToken: operatorToken}, getOf(tenantGet))
	for _, c := range []struct {
		authorization string
		status        int
	}{
		{"", 401},
		{"Basic " + token, 401},
		{"Bearer ", 401},
		{"Bearer  " + token, 401},
		{"Bearer " + token + "x", 401},
		{"Bearer " + token, 200},
		{"bearer " + token, 200},
		{"Bearer " + operatorToken, 200},
	} {
		got := ask(t, http.MethodPost, url+"/v1/acme/cache/get", `{"key":"k"}`, "Authorization", c.authorization, "Host", "morello.example.com")
		require.Equal(t, c.status, got.status, c.authorization)
		if c.status == http.StatusUnauthorized {
			require.Equal(t, messages.CodeUnauthorized, got.failure(t).Code)
			require.NotContains(t, got.body, token)
		}
	}
	got := ask(t, http.MethodPost, url+"/v1/acme/cache/fetch", `{}`)
	require.Equal(t, http.StatusUnauthorized, got.status, "who has no token does not learn which operations there are")
}

// TestHost: a page whose name was made to resolve to 127.0.0.1 sends its own name as the host.
func TestHost(t *testing.T) {
	t.Parallel()
	url, _ := serve(t, config.Config{}, getOf(tenantGet))
	for host, status := range map[string]int{
		"localhost": 200, "localhost:8080": 200, "LOCALHOST:1": 200, "127.0.0.1": 200, "127.8.8.8:80": 200, "[::1]": 200, "[::1]:8080": 200,
		"evil.example": 403, "evil.example:8080": 403, "localhost.evil.example": 403, "10.0.0.1": 403, "0.0.0.0:8080": 403, "[::]:8080": 403,
		"127.0.0.1.evil.example": 403, "169.254.169.254": 403,
	} {
		got := ask(t, http.MethodPost, url+"/v1/acme/cache/get", `{"key":"k"}`, "Host", host)
		require.Equal(t, status, got.status, host)
		if status == http.StatusForbidden {
			require.Equal(t, messages.CodeForbidden, got.failure(t).Code, host)
		}
	}
}

// TestCrossOrigin: a page in the operator's browser cannot call what listens on his loopback, with or without a token.
func TestCrossOrigin(t *testing.T) {
	t.Parallel()
	url, _ := serve(t, config.Config{}, getOf(tenantGet))
	for _, c := range []struct {
		name    string
		headers []string
		status  int
	}{
		{"no browser", nil, 200},
		{"cross-site", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"same-site", []string{"Sec-Fetch-Site", "same-site"}, 403},
		{"same origin", []string{"Sec-Fetch-Site", "same-origin"}, 200},
		{"the user himself", []string{"Sec-Fetch-Site", "none"}, 200},
		{"another origin", []string{"Origin", "https://evil.example"}, 403},
		{"a page without origin", []string{"Origin", "null"}, 403},
		{"another port", []string{"Origin", "http://127.0.0.1:1"}, 403},
		{"its own origin", []string{"Origin", url}, 200},
	} {
		got := ask(t, http.MethodPost, url+"/v1/acme/cache/get", `{"key":"k"}`, c.headers...)
		require.Equal(t, c.status, got.status, c.name)
		if c.status == http.StatusForbidden {
			require.Equal(t, messages.CodeForbidden, got.failure(t).Code, c.name)
		}
	}
}
