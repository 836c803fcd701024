package gateway

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/messages"
)

const (
	// maxBodyBytes is the max_payload of our NATS configuration.
	maxBodyBytes = 8 << 20
	// bodyTimeout is how long a caller may take to send a body.
	bodyTimeout = 30 * time.Second
)

// Handler serves POST /v1/<tenant>/<capability>/<operation>: the body is the request, the answer the reply, and an error
// code answers with its number as the status. Headers are those of NATS, the optional ones of a request and those of raw bytes.
//
// The order of the checks is part of the contract: who calls, before what is called.
func Handler(conn *bus.Conn, cfg config.Config) http.Handler {
	h := &handler{conn: conn, cfg: cfg}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/{tenant}/{capability}/{operation}", h.call)
	mux.HandleFunc("/v1/{tenant}/{capability}/{operation}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", http.MethodPost)
		failure := &messages.Error{Code: messages.CodeInvalid, Message: "operations are called with POST"}
		writeFailure(w, http.StatusMethodNotAllowed, failure, false)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, &messages.Error{Code: messages.CodeNotFound, Message: "no such path: operations are POST /v1/<tenant>/<capability>/<operation>"})
	})
	// A web page in the operator's browser must not be able to call what listens on loopback.
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, &messages.Error{Code: messages.CodeForbidden, Message: "a browser asks for a page of another origin"})
	}))
	return protection.Handler(mux)
}

type handler struct {
	conn *bus.Conn
	cfg  config.Config
}

func (h *handler) call(w http.ResponseWriter, r *http.Request) {
	endpoint, err := h.admit(r)
	if err != nil {
		writeError(w, messages.AsError(err))
		return
	}
	headers, err := readHeaders(r, endpoint)
	if err != nil {
		writeError(w, messages.AsError(err))
		return
	}
	reply, err := h.forward(w, r, endpoint, headers)
	if err != nil {
		failure := messages.AsError(err)
		writeFailure(w, failure.Code.Number(), failure, endpoint.Repeatable(headers.IdempotencyKey != ""))
		return
	}
	w.Header().Set("Content-Type", contentType(endpoint.RawReply))
	for name, value := range reply.Raw {
		w.Header().Set(name, value)
	}
	_, _ = w.Write(reply.Body)
}

// contentType of a message, which is raw bytes if it has headers of its own.
func contentType(rawHeaders []string) string {
	if rawHeaders != nil {
		return messages.ContentTypeRaw
	}
	return "application/json"
}

// admit checks who calls, and then what is called.
func (h *handler) admit(r *http.Request) (messages.EndpointInfo, error) {
	tenant := r.PathValue("tenant")
	if err := h.authorize(r, tenant); err != nil {
		return messages.EndpointInfo{}, err
	}
	endpoint, known := messages.EndpointByName(r.PathValue("capability") + "." + r.PathValue("operation"))
	if !known {
		return endpoint, &messages.Error{Code: messages.CodeNotFound, Message: "there is no such operation"}
	}
	return endpoint, endpoint.CheckScope(tenant)
}

// readHeaders takes the headers of the operation. What a worker would refuse in them it refuses itself, but for an idempotency
// key that is empty or there twice: that one does not get through.
func readHeaders(r *http.Request, endpoint messages.EndpointInfo) (bus.Headers, error) {
	headers := bus.Headers{
		IdempotencyKey: r.Header.Get(messages.HeaderIdempotencyKey),
		Actor:          r.Header.Get(messages.HeaderActor),
		Traceparent:    r.Header.Get(messages.HeaderTraceparent),
		Raw:            make(map[string]string, len(endpoint.RawRequest)),
	}
	for _, name := range endpoint.RawRequest {
		headers.Raw[name] = r.Header.Get(name)
	}
	if keys := r.Header.Values(messages.HeaderIdempotencyKey); len(keys) > 1 || len(keys) == 1 && keys[0] == "" {
		return headers, messages.Invalid(messages.HeaderIdempotencyKey, "must be one key of 1 to %d characters", messages.MaxIdempotencyKeyBytes)
	}
	return headers, nil
}

func (h *handler) forward(w http.ResponseWriter, r *http.Request, endpoint messages.EndpointInfo, headers bus.Headers) (bus.Answer, error) {
	ctx, cancel, err := withDeadline(r)
	if err != nil {
		return bus.Answer{}, err
	}
	defer cancel()
	body, err := readBody(w, r)
	if err != nil {
		return bus.Answer{}, err
	}
	return h.conn.Exchange(ctx, endpoint, r.PathValue("tenant"), body, headers)
}

// readBody reads the body within bodyTimeout: a caller that sends it byte by byte must not hold a connection for ever.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout)) // every connection of net/http can
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if err != nil {
		return nil, bodyError(err)
	}
	_ = control.SetReadDeadline(time.Time{}) // else the context of the request would end with it
	return body, nil
}

// authorize checks the bearer token. The operator's tenant wants the operator's token, always; tenants want either, if
// one is configured. Without one only loopback reaches us, and the host must be loopback's too: else a web page whose
// name was made to resolve to 127.0.0.1 could call.
func (h *handler) authorize(r *http.Request, tenant string) error {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	given := strings.EqualFold(scheme, "Bearer")
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
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
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
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &messages.Error{Code: messages.CodeDeadlineExceeded, Message: fmt.Sprintf("the body did not come within %s", bodyTimeout)}
	}
	return messages.Invalid("", "the body could not be read")
}

// writeError answers what has not reached an operation.
func writeError(w http.ResponseWriter, failure *messages.Error) {
	writeFailure(w, failure.Code.Number(), failure, false)
}

// writeFailure writes the error object. A request that is idempotent may be repeated after more kinds of failure.
func writeFailure(w http.ResponseWriter, status int, failure *messages.Error, idempotent bool) {
	if failure.Code == messages.CodeUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if ms := failure.Details.RetryAfterMS; ms > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt((ms+999)/1000, 10))
	}
	body, err := messages.Encode(failure.Body(idempotent))
	if err != nil {
		status = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
