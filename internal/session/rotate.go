package session

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// rememberedTokens is how many tokens of a session are known at a time, so that a session that is rotated often stays small.
const rememberedTokens = 32

// Rotate gives the live session of a token a new one. That a token opens none is no error of the transaction: the end of a
// session whose token was reused must be kept, and is answered in the same way.
func (s *Service) Rotate(ctx context.Context, tenant string, m messages.SessionRotate) (messages.SessionRotateReply, error) {
	if err := bus.Reserve(ctx, maxSessionBytes); err != nil {
		return messages.SessionRotateReply{}, err
	}
	token, hash := newToken()
	var did rotation
	reply, err := postgres.InStatement(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (reply messages.SessionRotateReply, err error) {
		did, err = rotate(ctx, db, tenant, m, hash)
		if did.rotated {
			reply = messages.SessionRotateReply{Session: did.session, Token: token}
		}
		return reply, err
	})
	switch {
	case err != nil:
		return messages.SessionRotateReply{}, err
	case did.revoked:
		bus.Emit(s.events, messages.SessionTokenReusedEvent, tenant, ref(did.session))
	case did.rotated:
		bus.Emit(s.events, messages.SessionRotatedEvent, tenant, ref(did.session))
	}
	if reply.Token == "" {
		return messages.SessionRotateReply{}, messages.SessionNotFound()
	}
	return reply, nil
}

// rotation is what happened to a session.
type rotation struct {
	session          messages.Session
	rotated, revoked bool
}

// rotate locks the session first, in one round trip with the rest: the statement after the lock sees the tokens as they are.
// There is at most one token that has not been used, of the highest generation. If it is the one that is presented this is its
// first use; if not, the new one takes its place and its generation.
func rotate(ctx context.Context, db postgres.Querier, tenant string, m messages.SessionRotate, newHash []byte) (rotation, error) {
	const lock = `
		SELECT FROM morello.session AS s
		WHERE s.tenant = $1 AND s.ended_at IS NULL
			AND s.session_id = (SELECT session_id FROM morello.session_token WHERE tenant = $1 AND token_hash = $2)
		FOR NO KEY UPDATE`
	const sql = `
		WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now), presented AS MATERIALIZED (
			SELECT t.session_id, t.generation, t.used, t.grace, t.valid_until > clock.now AS valid, clock.now, (
				SELECT max(o.generation) FROM morello.session_token AS o
				WHERE o.tenant = t.tenant AND o.session_id = t.session_id AND (o.used OR o.token_hash = t.token_hash)
			) AS newest
			FROM clock, morello.session_token AS t JOIN morello.session AS s ON s.tenant = t.tenant AND s.session_id = t.session_id
			WHERE t.tenant = $1 AND t.token_hash = $2 AND s.ended_at IS NULL AND ` + diesAt + ` > clock.now
		), changed AS (
			UPDATE morello.session AS s SET
				last_seen_at = CASE WHEN p.valid THEN greatest(s.last_seen_at, p.now) ELSE s.last_seen_at END,
				ended_at = CASE WHEN NOT p.valid THEN p.now END, deleted = NOT p.valid
			FROM presented AS p WHERE s.tenant = $1 AND s.session_id = p.session_id
			RETURNING s.*
		), used AS (
			UPDATE morello.session_token AS t SET used = true
			FROM presented AS p WHERE t.tenant = $1 AND t.token_hash = $2 AND p.valid AND NOT p.used
		), aged AS (
			UPDATE morello.session_token AS t SET valid_until = p.now + p.grace
			FROM presented AS p
			WHERE p.valid AND NOT p.used AND t.tenant = $1 AND t.session_id = p.session_id
				AND t.generation < p.generation AND t.generation > p.newest + 1 - $5 AND t.valid_until = 'infinity'
		), forgotten AS (
			DELETE FROM morello.session_token AS t USING presented AS p
			WHERE p.valid AND t.tenant = $1 AND t.session_id = p.session_id
				AND (t.generation > p.newest OR t.generation <= p.newest + 1 - $5)
		), issued AS (
			INSERT INTO morello.session_token (tenant, token_hash, session_id, generation, used, grace)
			SELECT $1, $3, p.session_id, p.newest + 1, false, make_interval(secs => $4) FROM presented AS p WHERE p.valid
		)
		SELECT NOT s.deleted, s.deleted, ` + columns + objects + ` FROM changed AS s`
	grace := messages.DefaultRotationGrace.Seconds()
	if m.GraceSeconds != nil {
		grace = *m.GraceSeconds
	}
	hash := hashToken(m.Token)
	batch := &pgx.Batch{}
	batch.Queue(lock, tenant, hash)
	var did rotation
	batch.Queue(sql, tenant, hash, newHash, grace, rememberedTokens).Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, append([]any{&did.rotated, &did.revoked}, sessionTargets(&did.session)...), func() error { return nil })
		return err
	})
	return did, db.SendBatch(ctx, batch).Close()
}
