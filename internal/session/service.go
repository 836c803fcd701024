package session

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// Config sets up a Service.
type Config struct {
	// Events publishes what happened to sessions, after it is durable. Defaults to nothing.
	Events *bus.Publisher
}

// Service answers the operations of sessions. All methods are safe for concurrent use. Close it at the end.
type Service struct {
	pool    *postgres.Pool
	events  *bus.Publisher
	lookups *postgres.Batcher[lookup, opened]
	touches *postgres.Batcher[sessionKey, bool]
	updates *postgres.Batcher[change, changed]
}

// New returns a service.
func New(pool *postgres.Pool, cfg Config) *Service {
	s := &Service{pool: pool, events: cfg.Events}
	s.lookups = s.newLookupBatcher()
	s.touches = newTouchBatcher(pool)
	s.updates = newUpdateBatcher(pool)
	return s
}

// Close ends the work at hand. Call it when no request can come any more.
func (s *Service) Close() {
	s.lookups.Close()
	s.touches.Close()
	s.updates.Close()
}

// Pieces of SQL that several statements share, about the row s.
const (
	// diesAt is when a session ends by itself, as things stand. It only ever moves forward. least ignores NULL.
	diesAt = `least(s.expires_at, s.last_seen_at + s.idle + least(interval '60 seconds', s.idle / 10))`

	isLive = `s.ended_at IS NULL AND ` + diesAt + ` > now()`

	// isDue says that last_seen_at is so old that a touch is to be written.
	isDue = `s.last_seen_at <= now() - least(interval '60 seconds', coalesce(s.idle, s.ttl) / 10)`

	// held is the one session of a statement under its lock, or nothing if it has ended. Its time is read after the lock was
	// had: who waited for it does not revive what has died meanwhile.
	held = `
		locked AS MATERIALIZED (
			SELECT s.* FROM morello.session AS s
			WHERE s.tenant = $1 AND s.session_id = $2 AND s.ended_at IS NULL
			FOR NO KEY UPDATE
		), held AS MATERIALIZED (
			SELECT s.*, ` + diesAt + ` AS dies_at, clock_timestamp() AS now FROM locked AS s
		)`

	// facts, state and objects are what sessionTargets takes.
	facts = `
		s.session_id::text, coalesce(s.user_id, ''), coalesce(s.agent_id, ''),
		s.created_at, s.updated_at, s.last_seen_at, s.expires_at, s.absolute_expires_at, s.ttl, s.idle,
		coalesce(s.ip_address, ''), coalesce(s.user_agent, ''), s.interaction_count, s.version`
	state   = `, CASE WHEN s.deleted THEN 'deleted' WHEN s.ended_at IS NULL AND ` + diesAt + ` > now() THEN 'live' ELSE 'expired' END`
	columns = facts + state
	objects = `, s.data, s.metadata`
)

func sessionTargets(s *messages.Session) []any {
	return append(factTargets(s), &s.State, (*[]byte)(&s.Data), (*[]byte)(&s.Metadata))
}

func factTargets(s *messages.Session) []any {
	return []any{
		&s.SessionID, &s.UserID, &s.AgentID,
		&s.CreatedAt, &s.UpdatedAt, &s.LastSeenAt, &s.ExpiresAt, &s.AbsoluteExpiresAt, (*seconds)(&s.TTLSeconds), (*seconds)(&s.IdleTimeoutSeconds),
		&s.IPAddress, &s.UserAgent, &s.InteractionCount, &s.Version,
	}
}

// seconds reads an interval, which PostgreSQL would convert by way of a numeric; 0 for NULL.
type seconds float64

// ScanInterval implements pgtype.IntervalScanner. None of our intervals has months.
func (s *seconds) ScanInterval(v pgtype.Interval) error {
	if v.Months != 0 {
		return fmt.Errorf("an interval of %d months has no length", v.Months)
	}
	*s = seconds(float64(v.Days)*secondsPerDay + float64(v.Microseconds)/1e6)
	return nil
}

func scanSession(row pgx.CollectableRow) (messages.Session, error) {
	var session messages.Session
	err := row.Scan(sessionTargets(&session)...)
	return session, err
}

// sessionKey is an id with its tenant.
type sessionKey struct{ tenant, id string }

// maxSessionBytes is what a session takes in a reply, at most.
const maxSessionBytes = messages.MaxSessionDataBytes + messages.MaxMetadataBytes

// Get returns a live session, without touching it.
func (s *Service) Get(ctx context.Context, tenant string, m messages.SessionGet) (messages.SessionReply, error) {
	const sql = `SELECT ` + columns + objects + ` FROM morello.session AS s WHERE s.tenant = $1 AND s.session_id = $2 AND ` + isLive
	if err := bus.Reserve(ctx, maxSessionBytes); err != nil {
		return messages.SessionReply{}, err
	}
	return postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (messages.SessionReply, error) {
		rows, err := db.Query(ctx, sql, tenant, m.SessionID)
		if err != nil {
			return messages.SessionReply{}, err
		}
		found, err := pgx.CollectRows(rows, scanSession)
		if err == nil && len(found) == 0 {
			err = messages.SessionNotFound()
		}
		return messages.SessionReply{Session: postgres.Only(found)}, err
	})
}

// ref names a session in an event.
func ref(s messages.Session) messages.SessionRef {
	return messages.SessionRef{SessionID: s.SessionID, UserID: s.UserID, AgentID: s.AgentID}
}
