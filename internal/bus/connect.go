package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
)

const (
	// pingInterval finds a dead server within a minute; the library's two minutes are longer than any request.
	pingInterval = 20 * time.Second
	// connectRetry is the longest pause between two attempts to reach NATS at start.
	connectRetry = 5 * time.Second
)

// ConnConfig says which NATS to use and as whom.
type ConnConfig struct {
	// URL of one or more servers, separated by commas. Defaults to nats://127.0.0.1:4222.
	URL string
	// Creds is the path of a credentials file; empty for none.
	Creds string
	// CA is the path of a root certificate file; empty for the system's.
	CA string
	// Program and Instance name the connection and its inboxes: _INBOX._<program>.<instance>.>. No tenant's name begins
	// with an underscore, so no tenant can be granted them.
	Program  string
	Instance string
	// Log defaults to slog.Default.
	Log *slog.Logger
}

// Conn is a connection to NATS.
type Conn struct {
	nc     *nats.Conn
	log    *slog.Logger
	closed chan struct{}
}

// Connect connects, trying again until the context ends. An established connection reconnects by itself, for ever.
func Connect(ctx context.Context, cfg ConnConfig) (*Conn, error) {
	cfg = cfg.withDefaults()
	var conn *Conn
	attempt := func() (err error) {
		conn, err = ConnectOnce(cfg)
		return err
	}
	wait := backoff.NewExponentialBackOff(backoff.WithMaxInterval(connectRetry), backoff.WithMaxElapsedTime(0))
	notify := func(err error, next time.Duration) {
		cfg.Log.Warn("NATS cannot be reached; trying again", "error", err, "url", redact(cfg.URL), "after", next)
	}
	if err := backoff.RetryNotify(attempt, backoff.WithContext(wait, ctx), notify); err != nil {
		return nil, fmt.Errorf("connecting to NATS at %s: %w", redact(cfg.URL), err)
	}
	return conn, nil
}

// ConnectOnce makes one attempt, which takes two seconds at most for each server.
func ConnectOnce(cfg ConnConfig) (*Conn, error) {
	cfg = cfg.withDefaults()
	conn := &Conn{log: cfg.Log, closed: make(chan struct{})}
	nc, err := nats.Connect(cfg.URL, conn.options(cfg)...)
	var malformed *url.Error
	switch {
	case errors.As(err, &malformed): // its text quotes the URL, password included
		return nil, errors.New("the URL is malformed: want nats://user:password@host:port")
	case err != nil:
		return nil, err
	}
	conn.nc = nc
	return conn, nil
}

func (cfg ConnConfig) withDefaults() ConnConfig {
	if cfg.URL == "" {
		cfg.URL = nats.DefaultURL
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return cfg
}

func (c *Conn) options(cfg ConnConfig) []nats.Option {
	options := []nats.Option{
		nats.Name("morello/" + cfg.Program + "/" + cfg.Instance),
		nats.CustomInboxPrefix("_INBOX._" + cfg.Program + "." + cfg.Instance),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.PingInterval(pingInterval),
		// What cannot be sent now fails now: a request that leaves late is one whose caller has gone.
		nats.ReconnectBufSize(-1),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			c.log.Warn("NATS reported an error", "error", err, "subject", subject)
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil { // none: we are closing it
				c.log.Warn("disconnected from NATS", "error", err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { c.log.Info("reconnected to NATS") }),
		nats.ClosedHandler(func(*nats.Conn) { close(c.closed) }),
	}
	if cfg.Creds != "" {
		options = append(options, nats.UserCredentials(cfg.Creds))
	}
	if cfg.CA != "" {
		options = append(options, nats.RootCAs(cfg.CA))
	}
	return options
}

// Closed is closed when the connection has ended for good. Before Close that is a reason to exit.
func (c *Conn) Closed() <-chan struct{} { return c.closed }

// Connected reports whether the connection stands at this moment.
func (c *Conn) Connected() bool { return c.nc.IsConnected() }

// Close sends what is buffered, closes the connection and waits for the end of it, or of the context.
func (c *Conn) Close(ctx context.Context) error {
	if err := c.nc.Drain(); err != nil {
		c.nc.Close()
	}
	select {
	case <-c.closed:
		return nil
	case <-ctx.Done():
		c.nc.Close()
		return fmt.Errorf("draining the NATS connection: %w", ctx.Err())
	}
}

// redact removes user names and passwords from a list of URLs.
func redact(urls string) string {
	parts := strings.Split(urls, ",")
	for i, part := range parts {
		scheme, rest, found := strings.Cut(part, "://")
		if at := strings.LastIndexByte(rest, '@'); found && at >= 0 {
			parts[i] = scheme + "://" + rest[at+1:]
		}
	}
	return strings.Join(parts, ",")
}
