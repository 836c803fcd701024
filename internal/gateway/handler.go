package gateway

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/messages"
)

// maxBodyBytes is the max_payload of our NATS configuration.
const maxBodyBytes = 8 << 20

// Handler serves POST /v1/<tenant>/<capability>/<operation>: the body is the request, the answer the reply, and an error
// code answers with its number as the status. The optional headers of a request are those of NATS.
//
// The order of the checks is part of the contract: who calls, before what is called.
func Handler(conn *bus.Conn, cfg config.Config) http.Handler {
	h := &handler{conn: conn, cfg: cfg}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/{tenant}/{capability}/{operation}", h.call)
	mux.HandleFunc("/v1/{tenant}/{capability}/{operation}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", http.MethodPost)
		writeStatus(w, http.StatusMethodNotAllowed, &messages.Error{Code: messages.CodeInvalid, Message: "operations are called with POST"})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, &messages.Error{Code: messages.CodeNotFound, Message: "no such path: operations are POST /v1/<tenant>/<capability>/<operation>"})
	})
	// A web page in the operator's browser must not be able to call what listens on loopback.
	return http.NewCrossOriginProtection().Handler(mux)
}

type handler struct {
	conn *bus.Conn
	cfg  config.Config
}

func (h *handler) call(w http.ResponseWriter, r *http.Request) {
	reply, err := h.forward(w, r)
	if err != nil {
		writeError(w, messages.AsError(err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(reply)
}

func (h *handler) forward(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	tenant := r.PathValue("tenant")
	if err := h.authorize(r, tenant); err != nil {
		return nil, err
	}
	endpoint, known := messages.EndpointByName(r.PathValue("capability") + "." + r.PathValue("operation"))
	if !known {
		return nil, &messages.Error{Code: messages.CodeNotFound, Message: "there is no such operation"}
	}
	if err := endpoint.CheckScope(tenant); err != nil {
		return nil, err
	}
	ctx, cancel, err := withDeadline(r)
	if err != nil {
		return nil, err
	}
	defer cancel()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if err != nil {
		return nil, bodyError(err)
	}
	return h.conn.CallRaw(ctx, endpoint, tenant, body, bus.Headers{
		IdempotencyKey: r.Header.Get(messages.HeaderIdempotencyKey),
		Actor:          r.Header.Get(messages.HeaderActor),
		Traceparent:    r.Header.Get(messages.HeaderTraceparent),
	})
}

// authorize checks the bearer token. The operator's tenant wants the operator's token, always; tenants want either, if
// one is configured. Without one only loopback reaches us, and the host must be loopback's too: else a web page whose
// name was made to resolve to 127.0.0.1 could call.
func (h *handler) authorize(r *http.Request, tenant string) error {
	token, given := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	operator := given && equalSecret(token, h.cfg.HTTPOperatorToken)
	switch {
	case tenant == messages.TenantAdmin && !given:
		return &messages.Error{Code: messages.CodeUnauthorized, Message: "the operator's token is needed: Authorization: Bearer <MORELLO_HTTP_OPERATOR_TOKEN>"}
	case tenant == messages.TenantAdmin && !operator:
		return &messages.Error{Code: messages.CodeForbidden, Message: "this is not the operator's token"}
	case h.cfg.HTTPToken == "" && !isLoopback(r.Host):
		return &messages.Error{Code: messages.CodeForbidden, Message: "without a token the gateway answers only to localhost, 127.0.0.1 and [::1]"}
	case h.cfg.HTTPToken == "" || operator || given && equalSecret(token, h.cfg.HTTPToken):
		return nil
	case !given:
		return &messages.Error{Code: messages.CodeUnauthorized, Message: "a token is needed: Authorization: Bearer <MORELLO_HTTP_TOKEN>"}
	default:
		return &messages.Error{Code: messages.CodeUnauthorized, Message: "the token is not valid"}
	}
}

// equalSecret compares in constant time, whatever the lengths. No token equals an empty secret.
func equalSecret(token, secret string) bool {
	a, b := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(secret))
	return secret != "" && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

func isLoopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.Trim(hostport, "[]")
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// withDeadline gives the request the deadline that its header names; without one the endpoint's own applies.
func withDeadline(r *http.Request) (context.Context, context.CancelFunc, error) {
	text := r.Header.Get(messages.HeaderTimeout)
	if text == "" {
		return r.Context(), func() {}, nil
	}
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms < 1 {
		return nil, nil, messages.Invalid(messages.HeaderTimeout, "must be a whole number of milliseconds, 1 or more")
	}
	timeout := time.Duration(min(ms, messages.MaxTimeout.Milliseconds())) * time.Millisecond
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	return ctx, cancel, nil
}

func bodyError(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return messages.TooLarge("", maxBodyBytes, "the request is too large")
	}
	return messages.Invalid("", "the body could not be read")
}

func writeError(w http.ResponseWriter, failure *messages.Error) {
	if failure.Code == messages.CodeUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if ms := failure.Details.RetryAfterMS; ms > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt((ms+999)/1000, 10))
	}
	writeStatus(w, failure.Code.Number(), failure)
}

func writeStatus(w http.ResponseWriter, status int, failure *messages.Error) {
	body, err := messages.Encode(failure.Body(false))
	if err != nil {
		status = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
