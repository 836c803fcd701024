package session

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// Touch notes that a live session is in use; of one that is not live it answers touched:false.
func (s *Service) Touch(ctx context.Context, tenant string, m messages.SessionTouch) (messages.SessionTouchReply, error) {
	key := newSessionKey(tenant, m.SessionID)
	if messages.Keyed(ctx) {
		return postgres.InTx(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (messages.SessionTouchReply, error) {
			touched, err := touchSessions(ctx, db, []sessionKey{key})
			return messages.SessionTouchReply{Touched: touched[key]}, err
		})
	}
	touched, err := s.touches.Do(ctx, key)
	return messages.SessionTouchReply{Touched: touched}, err
}

// beginTouch is Touch without waiting.
func (s *Service) beginTouch(d bus.Deferred[messages.SessionTouchReply], tenant string, m messages.SessionTouch) {
	s.touches.Submit(d.Deadline(), newSessionKey(tenant, m.SessionID), func(touched bool, err error) {
		d.Reply(messages.SessionTouchReply{Touched: touched}, err)
	})
}

// newSessionKey spells the id as PostgreSQL does.
func newSessionKey(tenant, id string) sessionKey { return sessionKey{tenant, strings.ToLower(id)} }

// newTouchBatcher returns the batcher of Touch. Equal ids share one touch.
func newTouchBatcher(pool *postgres.Pool) *postgres.Batcher[sessionKey, bool] {
	run := func(ctx context.Context, keys []sessionKey, results []postgres.Result[bool]) error {
		return pool.WithBatchConn(ctx, func(ctx context.Context, db postgres.Querier) error {
			touched, err := touchSessions(ctx, db, keys)
			for i, key := range keys {
				results[i].Value = touched[key]
			}
			return err
		})
	}
	return postgres.NewBatcher(postgres.BatcherConfig[sessionKey]{}, run)
}

// touchSessions notes that sessions are in use, and returns which of them are live. It writes where that is due, and looks
// again under the lock.
func touchSessions(ctx context.Context, db postgres.Querier, keys []sessionKey) (map[sessionKey]bool, error) {
	const sql = `
		WITH live AS MATERIALIZED (
			SELECT s.tenant, s.session_id, ` + isDue + ` AS due
			FROM unnest($1::text[], $2::uuid[]) AS wanted (tenant, session_id)
			JOIN morello.session AS s ON s.tenant = wanted.tenant AND s.session_id = wanted.session_id
			WHERE ` + isLive + `
		), held AS MATERIALIZED (
			SELECT s.tenant, s.session_id
			FROM live JOIN morello.session AS s ON s.tenant = live.tenant AND s.session_id = live.session_id
			WHERE live.due AND ` + isLive + `
			ORDER BY s.tenant, s.session_id
			FOR NO KEY UPDATE OF s
		), touched AS (
			UPDATE morello.session AS s SET last_seen_at = greatest(s.last_seen_at, now())
			FROM held
			WHERE s.tenant = held.tenant AND s.session_id = held.session_id
				AND s.ended_at IS NULL AND ` + diesAt + ` > clock_timestamp() AND ` + isDue + `
		)
		SELECT tenant, session_id::text FROM live`
	touched := make(map[sessionKey]bool, len(keys))
	var tenants, ids []string
	for _, key := range keys {
		if _, seen := touched[key]; !seen {
			touched[key] = false
			tenants, ids = append(tenants, key.tenant), append(ids, key.id)
		}
	}
	rows, err := db.Query(ctx, sql, tenants, ids)
	if err != nil {
		return nil, err
	}
	var key sessionKey
	_, err = pgx.ForEachRow(rows, []any{&key.tenant, &key.id}, func() error {
		touched[key] = true
		return nil
	})
	return touched, err
}

// Extend adds to the expiry of a live session, not past its absolute one.
func (s *Service) Extend(ctx context.Context, tenant string, m messages.SessionExtend) (messages.SessionExtendReply, error) {
	const sql = `
		WITH ` + held + `
		UPDATE morello.session AS s SET expires_at = least(s.absolute_expires_at, s.expires_at + make_interval(secs => $3))
		FROM held
		WHERE s.tenant = $1 AND s.session_id = $2 AND held.dies_at > held.now
		RETURNING s.expires_at`
	add := messages.TTL(m.AdditionalSeconds, messages.DefaultSessionExtension).Seconds()
	return postgres.InStatement(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (messages.SessionExtendReply, error) {
		var expiresAt time.Time
		err := db.QueryRow(ctx, sql, tenant, m.SessionID, add).Scan(&expiresAt)
		if errors.Is(err, pgx.ErrNoRows) {
			err = messages.SessionNotFound()
		}
		return messages.SessionExtendReply{ExpiresAt: expiresAt}, err
	})
}
