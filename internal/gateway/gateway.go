// Package gateway composes the gateway: every operation of the contract over HTTP. It only sends NATS requests; it has no
// data of its own and no way to the database.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/health"
)

const (
	program           = "gateway"
	readHeaderTimeout = 5 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 16 << 10
	// stopTimeout is how long requests at work may take when the gateway stops.
	stopTimeout  = 20 * time.Second
	closeTimeout = 5 * time.Second
)

// Config of a gateway.
type Config struct {
	config.Config
	// OnReady is called once with the address that the gateway listens on.
	OnReady func(addr string)
	// Log defaults to slog.Default.
	Log *slog.Logger
}

// Run serves HTTP until the context ends, and then answers what it has taken. It refuses to listen beyond loopback
// without a token: whoever reaches it could read every tenant.
func Run(ctx context.Context, cfg Config) error {
	log := cfg.Log
	if log == nil {
		log = slog.Default()
	}
	instance := uuid.NewString()
	log = log.With("program", program, "instance", instance)
	ready := false
	onReady := cfg.OnReady
	cfg.OnReady = func(addr string) {
		ready = true
		if onReady != nil {
			onReady(addr)
		}
	}
	if err := run(ctx, cfg, instance, log); err != nil && (ctx.Err() == nil || ready) {
		return fmt.Errorf("gateway: %w", err)
	}
	return nil // a context that ends during the start is a normal end
}

func run(ctx context.Context, cfg Config, instance string, log *slog.Logger) error {
	listener, err := listen(ctx, cfg.Config)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	conn, err := bus.Connect(ctx, bus.ConnConfig{
		URL: cfg.NATSURL, Creds: cfg.NATSCreds, CA: cfg.NATSCA, Program: program, Instance: instance, Log: log,
	})
	if err != nil {
		return err
	}
	ready := func(context.Context) error {
		if !conn.Connected() {
			return errors.New("NATS cannot be reached")
		}
		return nil
	}
	if cfg.HealthAddr != config.HealthOff {
		server, err := health.Serve(ctx, cfg.HealthAddr, ready)
		if err != nil {
			return errors.Join(err, closeConn(ctx, conn))
		}
		defer server.Close()
	}
	server := &http.Server{
		Handler:           Handler(conn, cfg.Config),
		ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	log.Info("gateway is ready", "address", listener.Addr().String())
	cfg.OnReady(listener.Addr().String())
	return errors.Join(serve(ctx, server, listener, conn), closeConn(ctx, conn))
}

// listen opens the port, if a token or loopback makes that safe.
func listen(ctx context.Context, cfg config.Config) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.HTTPAddr)
	if err != nil {
		return nil, fmt.Errorf("%w (MORELLO_HTTP_ADDR sets another address)", err)
	}
	if addr, ok := listener.Addr().(*net.TCPAddr); cfg.HTTPToken == "" && (!ok || !addr.IP.IsLoopback()) {
		return nil, errors.Join(
			fmt.Errorf("MORELLO_HTTP_TOKEN must be set to listen on %s: without a token only loopback is allowed", cfg.HTTPAddr),
			listener.Close())
	}
	return listener, nil
}

func serve(ctx context.Context, server *http.Server, listener net.Listener, conn *bus.Conn) error {
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-conn.Closed():
		return errors.Join(errors.New("NATS closed the connection"), server.Close(), ended(<-failed))
	case <-ctx.Done():
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	err := server.Shutdown(stopCtx)
	if err != nil {
		err = fmt.Errorf("waiting %s for requests at work: %w", stopTimeout, errors.Join(err, server.Close()))
	}
	return errors.Join(err, ended(<-failed))
}

// ended returns nil when the server ended because it was told to.
func ended(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func closeConn(ctx context.Context, conn *bus.Conn) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	return conn.Close(ctx)
}
