package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/semaphore"

	"github.com/ai-cherry/morello/messages"
)

const (
	defaultMaxInFlight = 1024
	defaultMaxBytes    = 128 << 20
	// pendingMessages and pendingBytes bound what the library buffers for a subscription. Handing over never waits, so
	// this only fills when the process is starved of CPU; the library's 500 000 would then be minutes of stale work.
	pendingMessages = 4096
	pendingBytes    = 64 << 20
)

// ServerConfig sizes a server.
type ServerConfig struct {
	// Program, Instance and Version appear in discovery. Version is semantic, as ADR-32 requires.
	Program  string
	Instance string
	Version  string
	// MaxInFlight is how many requests may be at work or waiting for PostgreSQL. Defaults to 1024.
	MaxInFlight int
	// MaxPerTenant is how many of them may be one tenant's. Defaults to half of MaxInFlight.
	MaxPerTenant int
	// MaxRequestBytes is how many bytes the bodies of the requests at work may have together, half of them for one
	// tenant; a single request is let in all the same. MaxReplyBytes is how many operations may reserve for large
	// replies at once; see Reserve. Both default to 128 MiB.
	MaxRequestBytes int64
	MaxReplyBytes   int64
	// Log defaults to slog.Default.
	Log *slog.Logger
}

// Server answers the requests of a set of endpoints until it is drained.
type Server struct {
	conn      *Conn
	cfg       ServerConfig
	log       *slog.Logger
	startedAt time.Time
	endpoints []*endpoint
	control   []*nats.Subscription
	verbs     map[string]ControlFunc
	admission admission
	replies   *semaphore.Weighted // bytes of large replies
	handlers  sync.WaitGroup
	work      context.Context // the parent of every request's context; ends when draining gives up
	giveUp    context.CancelFunc
	dropped   dropped
}

// dropped counts requests that were not answered, on purpose.
type dropped struct {
	replySubject atomic.Int64 // the reply subject was missing, or no inbox
	expired      atomic.Int64 // the deadline had passed before the work began
}

// NewServer returns a server of the bindings. It does nothing before Start.
func NewServer(conn *Conn, cfg ServerConfig, bindings []Binding) *Server {
	if cfg.MaxInFlight <= 0 {
		cfg.MaxInFlight = defaultMaxInFlight
	}
	if cfg.MaxPerTenant <= 0 {
		cfg.MaxPerTenant = max(1, cfg.MaxInFlight/2)
	}
	cfg.MaxRequestBytes = cmp.Or(max(0, cfg.MaxRequestBytes), defaultMaxBytes)
	cfg.MaxReplyBytes = cmp.Or(max(0, cfg.MaxReplyBytes), defaultMaxBytes)
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	s := &Server{conn: conn, cfg: cfg, log: cfg.Log, startedAt: time.Now().UTC(), verbs: map[string]ControlFunc{}}
	s.admission = newAdmission(cfg)
	s.replies = semaphore.NewWeighted(cfg.MaxReplyBytes)
	s.work, s.giveUp = context.WithCancel(context.Background())
	for _, binding := range bindings {
		s.endpoints = append(s.endpoints, &endpoint{Binding: binding, server: s, closed: make(chan struct{})})
	}
	s.HandleControl(messages.ControlPing, s.pong)
	return s
}

// Start subscribes to every endpoint, to control messages and to discovery, and returns when NATS knows of it.
func (s *Server) Start() error {
	for _, e := range s.endpoints {
		if err := e.subscribe(); err != nil {
			return fmt.Errorf("subscribing to %s: %w", e.Endpoint.WorkerSubject(), err)
		}
	}
	if err := s.subscribeControl(); err != nil {
		return err
	}
	if err := s.subscribeDiscovery(); err != nil {
		return err
	}
	return s.conn.nc.Flush()
}

// Drain stops taking requests, answers those that were taken, and returns when the last is answered. When the context
// ends first, the contexts of the rest are cancelled, they are waited for, and an error says so.
func (s *Server) Drain(ctx context.Context) error {
	defer s.giveUp()
	var errs []error
	for _, e := range s.endpoints {
		if e.sub != nil {
			errs = append(errs, ignoreClosed(e.sub.Drain()))
		}
	}
	for _, e := range s.endpoints {
		if e.sub == nil {
			continue
		}
		select {
		case <-e.closed:
		case <-ctx.Done():
			errs = append(errs, fmt.Errorf("draining %s: %w", e.Endpoint.Name, ctx.Err()))
		}
	}
	for _, sub := range s.control {
		errs = append(errs, ignoreClosed(sub.Unsubscribe()))
	}
	stop := context.AfterFunc(ctx, s.giveUp)
	s.handlers.Wait()
	if !stop() {
		errs = append(errs, fmt.Errorf("waiting for requests at work: %w", ctx.Err()))
	}
	return errors.Join(errs...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrBadSubscription) {
		return nil
	}
	return err
}

// InFlight returns how many requests are at work or waiting.
func (s *Server) InFlight() int64 { return s.admission.requestsAtWork() }

// Dropped returns how many requests were left unanswered: for their reply subject, for their deadline, and by the
// NATS library because its buffer was full.
func (s *Server) Dropped() (replySubject, expired, buffer int64) {
	for _, e := range s.endpoints {
		if n, err := e.sub.Dropped(); err == nil {
			buffer += int64(n)
		}
	}
	return s.dropped.replySubject.Load(), s.dropped.expired.Load(), buffer
}

// endpoint is a Binding at work.
type endpoint struct {
	Binding
	server *Server
	sub    *nats.Subscription
	closed chan struct{}
	stats  stats
}

func (e *endpoint) subscribe() error {
	sub, err := e.server.conn.nc.QueueSubscribe(e.Endpoint.WorkerSubject(), messages.QueueGroup, e.receive)
	if err != nil {
		return err
	}
	e.sub = sub
	sub.SetClosedHandler(func(string) { close(e.closed) })
	return sub.SetPendingLimits(pendingMessages, pendingBytes)
}

// mayReplyTo reports whether a worker may publish to the reply subject that a caller named: only to an inbox.
// _R_. is what NATS itself makes of one across an account's service import.
func mayReplyTo(subject string) bool {
	return strings.HasPrefix(subject, "_INBOX.") || strings.HasPrefix(subject, "_R_.")
}

// nuidLength is the length of the random token that follows _INBOX. where no prefix was chosen.
const nuidLength = 22

// isInboxOfOther reports whether the reply subject is the inbox of another tenant, to whom a caller could so have a
// worker send what looks like a reply. A token that may be random is given the benefit of the doubt.
func isInboxOfOther(subject, tenant string) bool {
	owner, _, _ := strings.Cut(strings.TrimPrefix(subject, "_INBOX."), ".")
	return owner != tenant && len(owner) != nuidLength && messages.ValidTenant(owner)
}
