package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
	"golang.org/x/sync/singleflight"

	"github.com/ai-cherry/morello/messages"
)

const (
	// pingInterval finds a dead server within a minute; the library's two minutes are longer than any request.
	pingInterval = 20 * time.Second
	// reconnectWait is shorter than the library's 2 s, so that the attempts of one call can outlast a restart of NATS.
	reconnectWait = 250 * time.Millisecond
	// connectRetry is the longest pause between two attempts to reach NATS at start.
	connectRetry = time.Second
	// connectTimeout bounds Connect when its context has no deadline.
	connectTimeout = 10 * time.Second
	// defaultAttempts of one call, the first included.
	defaultAttempts = 4
)

// Config of a Client. Only Tenant must be given.
type Config struct {
	// URL of one or more NATS servers, separated by commas, with user and password if they want one:
	// nats://user:password@host:port. Special characters in a password are percent-encoded. Defaults to
	// nats://127.0.0.1:4222.
	URL string
	// Tenant in whose name every call is made: ^[a-z0-9][a-z0-9-]{0,62}$.
	Tenant string
	// Creds is the path of a NATS credentials file. Defaults to none.
	Creds string
	// CA is the path of the root certificate of the NATS servers. Defaults to the system's.
	CA string
	// Name of the connection, as NATS lists it. Defaults to "morello/client".
	Name string
	// Attempts of one call at most, the first included; 1 means no retry. Defaults to 4.
	Attempts int
	// MaxBatch is how many requests of concurrent callers to one operation may go in one message, up to 128
	// ([messages.MaxBatchRequests], the default); 1 sends each by itself.
	MaxBatch int
	// Log defaults to slog.Default.
	Log *slog.Logger
}

// Client calls Morello for one tenant over one connection. It is safe for concurrent use, and meant to be shared.
type Client struct {
	nc        *nats.Conn
	tenant    string
	attempts  int
	maxBatch  int
	log       *slog.Logger
	flights   singleflight.Group // of GetOrCompute, by key
	impatient singleflight.Group // of those who have waited for a flight in vain, by key
	waits     waitGraph

	computations sync.Map // *computation, by key
	gatherers    sync.Map // *gatherer, by the name of the endpoint

	mu      sync.RWMutex // orders calls.Add and closing
	closing bool
	calls   sync.WaitGroup
	giveUp  chan struct{} // closed when Close waits no longer
	closed  chan struct{} // closed when the connection has ended for good
}

// Connect connects, trying again until the context ends, or for 10 seconds if it has no deadline; an attempt under way may
// take the 2 seconds longer that NATS gives to each server. An established connection reconnects by itself, for ever;
// calls meanwhile are unavailable with the outcome not_applied.
//
// Errors are *messages.Error: invalid (a field of Config), unauthorized (the login is refused), forbidden (the login
// is not the tenant's) and unavailable. None of them holds a password.
func Connect(ctx context.Context, cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	c := &Client{
		tenant: cfg.Tenant, attempts: cfg.Attempts, maxBatch: cfg.MaxBatch, log: cfg.Log,
		giveUp: make(chan struct{}), closed: make(chan struct{}),
	}
	if _, given := ctx.Deadline(); !given {
		limited, cancel := context.WithTimeoutCause(ctx, connectTimeout, fmt.Errorf("connect timeout (%s) exceeded", connectTimeout))
		defer cancel()
		ctx = limited
	}
	if err := c.connect(ctx, cfg); err != nil {
		return nil, err
	}
	if err := c.checkInbox(ctx); err != nil {
		c.nc.Close()
		<-c.closed
		return nil, err
	}
	return c, nil
}

func (cfg Config) withDefaults() Config {
	if cfg.URL == "" {
		cfg.URL = nats.DefaultURL
	}
	if cfg.Name == "" {
		cfg.Name = "morello/client"
	}
	if cfg.Attempts == 0 {
		cfg.Attempts = defaultAttempts
	}
	if cfg.MaxBatch == 0 {
		cfg.MaxBatch = messages.MaxBatchRequests
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return cfg
}

func (cfg Config) validate() error {
	if !messages.ValidTenant(cfg.Tenant) {
		return messages.Invalid("tenant", "must match ^[a-z0-9][a-z0-9-]{0,62}$")
	}
	if cfg.Attempts < 1 {
		return messages.Invalid("attempts", "must be 1 or more")
	}
	if cfg.MaxBatch < 1 || cfg.MaxBatch > messages.MaxBatchRequests {
		return messages.Invalid("max_batch", "must be 1 to %d", messages.MaxBatchRequests)
	}
	if err := checkFile("creds", cfg.Creds); err != nil {
		return err
	}
	if err := checkFile("ca", cfg.CA); err != nil {
		return err
	}
	for part := range strings.SplitSeq(cfg.URL, ",") {
		if _, err := parseURL(part); err != nil {
			return err
		}
	}
	return nil
}

// checkFile finds what would otherwise look like a server that cannot be reached.
func checkFile(field, path string) error {
	if path == "" {
		return nil
	}
	if _, err := os.Stat(path); err != nil {
		return messages.Invalid(field, "%v", err)
	}
	return nil
}

// parseURL reads a URL as nats.go does. What cannot be read, and what is taken for a host although it is a part of a
// password, must not reach an error text: so the error is ours.
func parseURL(text string) (*url.URL, error) {
	text = strings.TrimSpace(text)
	if !strings.Contains(text, "://") {
		text = "nats://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || (u.User == nil && strings.Contains(text, "@")) {
		return nil, messages.Invalid("url", "must be nats://user:password@host:port, special characters of the password percent-encoded")
	}
	return u, nil
}

func (c *Client) connect(ctx context.Context, cfg Config) error {
	options := c.options(cfg)
	var last error
	attempt := func() error {
		c.nc, last = nats.Connect(cfg.URL, options...)
		if isAuthError(last) {
			return backoff.Permanent(last)
		}
		return last
	}
	wait := backoff.NewExponentialBackOff(backoff.WithInitialInterval(50*time.Millisecond),
		backoff.WithMaxInterval(connectRetry), backoff.WithMaxElapsedTime(0))
	err := backoff.Retry(attempt, backoff.WithContext(wait, ctx))
	switch {
	case err == nil:
		return nil
	case isAuthError(last):
		return &messages.Error{Code: messages.CodeUnauthorized, Message: fmt.Sprintf("NATS at %s refuses the login: %v", hosts(cfg.URL), last), Cause: last}
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	return messages.Unavailable(fmt.Sprintf("NATS at %s cannot be reached: %v", hosts(cfg.URL), last), messages.OutcomeNotApplied, errors.Join(err, last))
}

func isAuthError(err error) bool {
	return errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) || errors.Is(err, nats.ErrAuthRevoked)
}

func (c *Client) options(cfg Config) []nats.Option {
	options := []nats.Option{
		nats.Name(cfg.Name),
		// The one place where the grants of a tenant let it receive replies.
		nats.CustomInboxPrefix("_INBOX." + cfg.Tenant),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		nats.IgnoreAuthErrorAbort(), // of a connection that stood before: a server that is being set up may refuse for a while
		nats.PingInterval(pingInterval),
		// What cannot be sent now fails now: a request that leaves late is one whose caller has gone.
		nats.ReconnectBufSize(-1),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			c.log.Warn("NATS reported an error", "error", err)
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

// checkInbox asks the server whether replies would arrive. NATS refuses a subscription after the fact, so that calls of
// a login that is another tenant's would only time out.
func (c *Client) checkInbox(ctx context.Context) error {
	inbox, err := c.nc.SubscribeSync(c.nc.NewInbox())
	if err == nil {
		// A refusal comes before the answer to this.
		err = errors.Join(c.nc.FlushWithContext(ctx), inbox.Unsubscribe())
	}
	if err != nil {
		return messages.Unavailable(fmt.Sprintf("NATS cannot be reached: %v", err), messages.OutcomeNotApplied, err)
	}
	if refused := c.nc.LastError(); errors.Is(refused, nats.ErrPermissionViolation) {
		return &messages.Error{Code: messages.CodeForbidden, Message: "this login is not of the tenant " + c.tenant, Cause: refused}
	}
	return nil
}

// hosts returns a list of URLs without user names and passwords.
func hosts(urls string) string {
	var all []string
	for part := range strings.SplitSeq(urls, ",") {
		if u, err := parseURL(part); err == nil {
			all = append(all, u.Host)
		}
	}
	return strings.Join(all, ",")
}

// Close refuses new calls, waits for those under way and for computations in the background, and closes the connection.
// When the context ends before, they fail, and Close returns an error; a compute function that does not heed its context
// may then still run.
func (c *Client) Close(ctx context.Context) error {
	c.mu.Lock()
	first := !c.closing
	c.closing = true
	c.mu.Unlock()
	if !first {
		return nil
	}
	idle := make(chan struct{})
	go func() {
		c.calls.Wait()
		close(idle)
	}()
	var err error
	select {
	case <-idle:
		err = c.nc.Drain()
	case <-ctx.Done():
		err = ctx.Err()
	}
	close(c.giveUp)
	if err == nil {
		select {
		case <-c.closed:
			return nil
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	c.nc.Close()
	<-c.closed
	if errors.Is(err, nats.ErrConnectionReconnecting) {
		return nil // nothing was left to send
	}
	return fmt.Errorf("closing the client: %w", err)
}

// enter lets a call in, unless the client is closing.
func (c *Client) enter() error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closing {
		return closedError()
	}
	c.calls.Add(1)
	return nil
}

func closedError() *messages.Error {
	return messages.Unavailable("the client is closed", messages.OutcomeNotApplied, nats.ErrConnectionClosed)
}

// gaveUp reports whether Close waits no longer.
func (c *Client) gaveUp() bool {
	select {
	case <-c.giveUp:
		return true
	default:
		return false
	}
}
