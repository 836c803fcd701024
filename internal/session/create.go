package session

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// Create begins a session and returns its token. It is durable when it is answered.
func (s *Service) Create(ctx context.Context, tenant string, m messages.SessionCreate) (messages.SessionCreateReply, error) {
	if err := bus.Reserve(ctx, maxSessionBytes); err != nil {
		return messages.SessionCreateReply{}, err
	}
	n, err := newSession(tenant, m)
	if err != nil {
		return messages.SessionCreateReply{}, err
	}
	var made created
	reply, err := postgres.InStatement(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (_ messages.SessionCreateReply, err error) {
		if m.MaxPerUser == nil {
			made, err = insertSession(ctx, db, n)
		} else {
			made, err = insertWithinLimit(ctx, db, n)
		}
		return messages.SessionCreateReply{Session: made.session, Token: n.token}, err
	})
	if err == nil && made.session.SessionID != "" { // not a repetition
		s.announce(messages.SessionDeletedEvent, tenant, made.evicted)
		bus.Emit(s.events, messages.SessionCreatedEvent, tenant, ref(made.session))
	}
	return reply, err
}

// newRow is a session to be stored.
type newRow struct {
	messages.SessionCreate
	tenant, id, token string
	hash              []byte
}

func newSession(tenant string, m messages.SessionCreate) (newRow, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return newRow{}, fmt.Errorf("making a session id: %w", err)
	}
	n := newRow{SessionCreate: m, tenant: tenant, id: id.String()}
	n.token, n.hash = newToken()
	return n, nil
}

// created is a session that was stored, and those that were deleted for it.
type created struct {
	session messages.Session
	evicted []messages.SessionRef
}

func insertSession(ctx context.Context, db postgres.Querier, n newRow) (created, error) {
	const sql = `WITH ` + insertRow + keepToken + ` SELECT ` + columns + objects + ` FROM inserted AS s`
	var made created
	err := db.QueryRow(ctx, sql, n.args()...).Scan(sessionTargets(&made.session)...)
	return made, err
}

// insertWithinLimit locks the user first, in one round trip with the rest: the statement after the lock sees all that others
// have stored under it. It makes room, or stores nothing if it may not. Rows are locked in the order of their ids, as
// everywhere.
func insertWithinLimit(ctx context.Context, db postgres.Querier, n newRow) (created, error) {
	const lock = `SELECT pg_advisory_xact_lock(hashtextextended($1::text || chr(31) || $2::text, 7))`
	const sql = `
		WITH present AS MATERIALIZED (
			SELECT s.session_id, s.last_seen_at FROM morello.session AS s
			WHERE s.tenant = $1 AND s.user_id = $3 AND ` + isLive + `
		), excess AS MATERIALIZED (
			SELECT s.session_id
			FROM (
				SELECT session_id FROM present ORDER BY last_seen_at, session_id
				LIMIT greatest(0, (SELECT count(*) FROM present) - $13::bigint + 1)
			) AS oldest
			JOIN morello.session AS s ON s.tenant = $1 AND s.session_id = oldest.session_id
			WHERE $14::boolean AND s.ended_at IS NULL
			ORDER BY s.session_id
			FOR NO KEY UPDATE OF s
		), evicted AS (
			UPDATE morello.session AS s SET ended_at = clock_timestamp(), deleted = true
			FROM excess
			WHERE s.tenant = $1 AND s.session_id = excess.session_id AND s.ended_at IS NULL
			RETURNING s.session_id, s.agent_id
		), ` + insertRow + ` WHERE $14 OR (SELECT count(*) FROM present) < $13` + keepToken + `
		SELECT ` + columns + objects + `,
			(SELECT array_agg(session_id::text ORDER BY session_id) FROM evicted),
			(SELECT array_agg(coalesce(agent_id, '') ORDER BY session_id) FROM evicted)
		FROM inserted AS s`
	var made created
	var ids, agents []string
	batch := &pgx.Batch{}
	batch.Queue(lock, n.tenant, n.UserID)
	batch.Queue(sql, append(n.args(), *n.MaxPerUser, n.OnLimit != messages.OnLimitReject)...).QueryRow(func(row pgx.Row) error {
		return row.Scan(append(sessionTargets(&made.session), &ids, &agents)...)
	})
	err := db.SendBatch(ctx, batch).Close()
	if errors.Is(err, pgx.ErrNoRows) {
		err = &messages.Error{
			Code: messages.CodeQuotaExceeded, Details: messages.ErrorDetails{Field: "max_per_user"},
			Message: fmt.Sprintf("the user has %d live sessions already", *n.MaxPerUser),
		}
	}
	for i, id := range ids {
		made.evicted = append(made.evicted, messages.SessionRef{SessionID: id, UserID: n.UserID, AgentID: agents[i]})
	}
	return made, err
}

// args are the parameters of insertRow and keepToken.
func (n newRow) args() []any {
	empty := "{}"
	var idle *float64
	if n.IdleTimeoutSeconds != nil {
		seconds := messages.TTL(n.IdleTimeoutSeconds, 0).Seconds()
		idle = &seconds
	}
	return []any{
		n.tenant, n.id, n.UserID, n.AgentID, objectOr(n.Data, &empty), objectOr(n.Metadata, &empty), n.IPAddress, n.UserAgent,
		messages.TTL(n.TTLSeconds, messages.DefaultSessionTTL).Seconds(), idle,
		messages.TTL(n.AbsoluteTTLSeconds, messages.DefaultSessionAbsoluteTTL).Seconds(), n.hash,
	}
}

// objectOr returns an optional object, or what stands for an absent one.
func objectOr(object jsontext.Value, otherwise *string) *string {
	if len(object) == 0 || object.Kind() == 'n' {
		return otherwise
	}
	text := string(object)
	return &text
}

// insertRow stores the session, keepToken the hash of its token.
const (
	insertRow = `
		life AS MATERIALIZED (
			SELECT clock_timestamp() AS now, make_interval(secs => $9) AS ttl, make_interval(secs => $10) AS idle
		), inserted AS (
			INSERT INTO morello.session AS s (
				tenant, session_id, user_id, agent_id, data, metadata, size_bytes, ip_address, user_agent, ttl, idle,
				created_at, updated_at, last_seen_at, expires_at, absolute_expires_at, sweep_after, current_token)
			SELECT $1, $2::uuid, nullif($3, ''), nullif($4, ''), $5::jsonb, $6::jsonb,
				octet_length($5::jsonb::text) + octet_length($6::jsonb::text), nullif($7, ''), nullif($8, ''), ttl, idle,
				now, now, now, now + ttl, now + make_interval(secs => $11),
				least(now + ttl, now + idle + least(interval '60 seconds', idle / 10)), $12::bytea
			FROM life`

	keepToken = `
			RETURNING s.*
		), token AS (
			INSERT INTO morello.session_token (tenant, token_hash, session_id, generation, used, grace)
			SELECT tenant, $12, session_id, 1, true, interval '0' FROM inserted
		)`
)
