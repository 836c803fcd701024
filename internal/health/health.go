// Package health serves /livez and /readyz, and asks another process for them.
package health

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	readHeaderTimeout = 5 * time.Second
	checkTimeout      = 2 * time.Second
	shutdownTimeout   = 2 * time.Second
	maxReasonBytes    = 1 << 10
)

// Check reports why the program cannot do its work at the moment; nil when it can.
type Check func(ctx context.Context) error

// Server answers health questions.
type Server struct {
	http *http.Server
	addr string
	done chan struct{}
}

// Serve listens on the address. /livez is 200 as long as the process runs; /readyz is 200 when ready reports no error,
// else 503 with its text.
func Serve(ctx context.Context, addr string, ready Check) (*Server, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("health endpoints: %w (MORELLO_HEALTH_ADDR sets another address, or off)", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.Handle("GET /readyz", Ready(ready))
	s := &Server{
		http: &http.Server{Handler: mux, ReadHeaderTimeout: readHeaderTimeout},
		addr: listener.Addr().String(), done: make(chan struct{}),
	}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(listener) // always an error: that Close was called
	}()
	return s, nil
}

// Ready returns the handler of /readyz.
func Ready(check Check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
		defer cancel()
		if err := check(ctx); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
}

// Addr returns the address that the server listens on.
func (s *Server) Addr() string { return s.addr }

// Close stops the server.
func (s *Server) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	_ = s.http.Shutdown(ctx)
	<-s.done
}

// Ask asks the process that listens on the address whether it is ready. It is what "<program> health" does in images
// that have no shell.
func Ask(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return err
	}
	// Not the default client: that one would ask a proxy for an address such as 0.0.0.0:8081.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(response.Body, maxReasonBytes))
		return fmt.Errorf("not ready: %s: %s", response.Status, strings.TrimSpace(string(why)))
	}
	return nil
}
