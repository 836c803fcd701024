package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
)

// mirror passes a Maven repository on to embedded-postgres, whose downloads know no context and whose errors do not say
// what went wrong: a mirror ends with its context, and remembers.
type mirror struct {
	url       string
	server    *http.Server
	transport *http.Transport
	serving   sync.WaitGroup

	mu      sync.Mutex
	failure error // of the first download that failed
}

func startMirror(ctx context.Context, repositoryURL string) (*mirror, error) {
	repository, err := url.Parse(repositoryURL)
	if err != nil {
		return nil, fmt.Errorf("devstack: repository: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("devstack: %w", err)
	}
	m := &mirror{url: "http://" + listener.Addr().String(), transport: http.DefaultTransport.(*http.Transport).Clone()}
	m.server = &http.Server{
		BaseContext: func(net.Listener) context.Context { return ctx },
		Handler: &httputil.ReverseProxy{
			Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(repository) },
			Transport:      m.transport,
			ModifyResponse: m.checkResponse,
			ErrorHandler:   m.refuse,
			ErrorLog:       log.New(io.Discard, "", 0),
		},
	}
	m.serving.Go(func() { _ = m.server.Serve(listener) })
	return m, nil
}

// checkResponse remembers a refused archive; its checksum, the other file asked for, is optional.
func (m *mirror) checkResponse(response *http.Response) error {
	if response.StatusCode != http.StatusOK && strings.HasSuffix(response.Request.URL.Path, ".jar") {
		m.remember(fmt.Errorf("GET %s: %s", response.Request.URL, response.Status))
	}
	return nil
}

// refuse answers when the repository cannot be reached.
func (m *mirror) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if cause := context.Cause(r.Context()); cause != nil && errors.Is(err, context.Canceled) {
		err = cause
	}
	m.remember(fmt.Errorf("GET %s: %w", r.URL, err))
	w.WriteHeader(http.StatusBadGateway)
}

func (m *mirror) remember(failure error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failure == nil {
		m.failure = failure
	}
}

// close ends the mirror and returns the first failure of a download.
func (m *mirror) close() error {
	_ = m.server.Close()
	m.serving.Wait()
	m.transport.CloseIdleConnections()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failure
}
