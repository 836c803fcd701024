package session

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// maxBatched is the size of data and metadata over which they are read by themselves, so that a batch of many callers stays
// small.
const maxBatched = 64 << 10

// lookup is what GetByToken asks for.
type lookup struct {
	tokenKey
	touch bool
}

// tokenKey is the hash of a token with its tenant.
type tokenKey struct{ tenant, hash string }

// opened is the session that a token opens; without data and metadata when those are too large to come with others.
type opened struct {
	messages.Session
	found bool
	large bool
}

func newLookup(tenant string, m messages.SessionGetByToken) lookup {
	return lookup{tokenKey{tenant, string(hashToken(m.Token))}, m.Touch == nil || *m.Touch}
}

// GetByToken returns the live session that a token opens, and touches it when that is due.
func (s *Service) GetByToken(ctx context.Context, tenant string, m messages.SessionGetByToken) (messages.SessionReply, error) {
	found, err := s.lookups.Do(ctx, newLookup(tenant, m))
	if err == nil && found.large {
		return s.Get(ctx, tenant, messages.SessionGet{SessionID: found.SessionID})
	}
	return found.reply(err)
}

// beginGetByToken is GetByToken without waiting.
func (s *Service) beginGetByToken(d bus.Deferred[messages.SessionReply], tenant string, m messages.SessionGetByToken) {
	s.lookups.Submit(d.Deadline(), newLookup(tenant, m), func(found opened, err error) {
		if err == nil && found.large {
			d.Go(func(ctx context.Context) (messages.SessionReply, error) {
				return s.Get(ctx, tenant, messages.SessionGet{SessionID: found.SessionID})
			})
			return
		}
		d.Reply(found.reply(err))
	})
}

func (o opened) reply(err error) (messages.SessionReply, error) {
	if err == nil && !o.found {
		err = messages.SessionNotFound()
	}
	return messages.SessionReply{Session: o.Session}, err
}

// newLookupBatcher returns the batcher of GetByToken. Equal tokens share one look-up.
func (s *Service) newLookupBatcher() *postgres.Batcher[lookup, opened] {
	run := func(ctx context.Context, lookups []lookup, results []postgres.Result[opened]) error {
		return s.pool.WithBatchConn(ctx, func(ctx context.Context, db postgres.Querier) error {
			found, revoked, err := openSessions(ctx, db, lookups)
			if err != nil {
				return err
			}
			for i, l := range lookups {
				results[i].Value = found[l.tokenKey]
			}
			for key, session := range revoked {
				bus.Emit(s.events, messages.SessionTokenReusedEvent, key.tenant, session)
			}
			return nil
		})
	}
	return postgres.NewBatcher(postgres.BatcherConfig[lookup]{}, run)
}

// openSessions returns the live sessions that the tokens open, and those that it deleted because of a token that came after
// its time. All of it is one statement, whatever is wrong with a token, which writes only if something is to be written:
// last_seen_at when a touch is due, the first use of a token, the end of a session.
//
// What it decides to write it decides again under the lock of the session: of many who find a touch due one writes it. Locks
// are taken in the order of the ids. A token that another has replaced meanwhile is not there any more to be marked as used,
// and opens nothing. That a token is over its time does not change again.
func openSessions(ctx context.Context, db postgres.Querier, lookups []lookup) (map[tokenKey]opened, map[sessionKey]messages.SessionRef, error) {
	const sql = `
		WITH found AS MATERIALIZED (
			SELECT t.token_hash, NOT t.used AS fresh, t.valid_until <= now() AS reused, wanted.touch AND ` + isDue + ` AS due, s.*
			FROM unnest($1::text[], $2::bytea[], $3::boolean[]) AS wanted (tenant, token_hash, touch)
			JOIN morello.session_token AS t ON t.tenant = wanted.tenant AND t.token_hash = wanted.token_hash
			JOIN morello.session AS s ON s.tenant = t.tenant AND s.session_id = t.session_id
			WHERE ` + isLive + `
		), held AS MATERIALIZED (
			SELECT s.tenant, s.session_id, f.reused, f.due
			FROM (
				SELECT tenant, session_id, bool_or(reused) AS reused, bool_or(due) AS due
				FROM found WHERE due OR fresh OR reused GROUP BY tenant, session_id
			) AS f
			JOIN morello.session AS s ON s.tenant = f.tenant AND s.session_id = f.session_id
			WHERE ` + isLive + `
			ORDER BY s.tenant, s.session_id
			FOR NO KEY UPDATE OF s
		), changed AS (
			UPDATE morello.session AS s SET
				last_seen_at = CASE WHEN held.reused THEN s.last_seen_at ELSE greatest(s.last_seen_at, now()) END,
				ended_at = CASE WHEN held.reused THEN clock_timestamp() END, deleted = held.reused
			FROM held
			WHERE s.tenant = held.tenant AND s.session_id = held.session_id
				AND s.ended_at IS NULL AND ` + diesAt + ` > clock_timestamp() AND (held.reused OR held.due AND ` + isDue + `)
			RETURNING s.tenant, s.session_id, s.deleted
		), used AS (
			UPDATE morello.session_token AS t SET used = true
			FROM found AS f JOIN held ON held.tenant = f.tenant AND held.session_id = f.session_id
			WHERE f.fresh AND NOT held.reused AND t.tenant = f.tenant AND t.token_hash = f.token_hash
			RETURNING t.tenant, t.token_hash, t.session_id, t.generation, t.grace
		), aged AS (
			UPDATE morello.session_token AS t SET valid_until = now() + used.grace
			FROM used
			WHERE t.tenant = used.tenant AND t.session_id = used.session_id
				AND t.generation < used.generation AND t.valid_until = 'infinity'
		)
		SELECT s.tenant, s.token_hash, s.due, now(), s.size_bytes > $4, s.reused,
			s.reused AND EXISTS (SELECT FROM changed AS c WHERE c.tenant = s.tenant AND c.session_id = s.session_id AND c.deleted),
			s.fresh AND NOT EXISTS (SELECT FROM used AS u WHERE u.tenant = s.tenant AND u.token_hash = s.token_hash),
			` + columns + `,
			CASE WHEN s.size_bytes <= $4 THEN s.data END, CASE WHEN s.size_bytes <= $4 THEN s.metadata END
		FROM found AS s`
	tenants, hashes, touches := newLookupColumns(lookups)
	rows, err := db.Query(ctx, sql, tenants, hashes, touches, maxBatched)
	if err != nil {
		return nil, nil, err
	}
	found, ended := make(map[tokenKey]opened, len(tenants)), map[sessionKey]messages.SessionRef{}
	var key tokenKey
	var hash []byte
	var now time.Time
	var due, reused, revoked, replaced bool
	o := opened{found: true}
	targets := append([]any{&key.tenant, &hash, &due, &now, &o.large, &reused, &revoked, &replaced}, sessionTargets(&o.Session)...)
	_, err = pgx.ForEachRow(rows, targets, func() error {
		key.hash = string(hash)
		switch hit := o; {
		case revoked:
			ended[sessionKey{key.tenant, hit.SessionID}] = ref(hit.Session)
		case !reused && !replaced:
			if due {
				hit.LastSeenAt = now
			}
			found[key] = hit
		}
		o.Data, o.Metadata = nil, nil
		return nil
	})
	return found, ended, err
}

// newLookupColumns turns the look-ups by 90 degrees, each token once.
func newLookupColumns(lookups []lookup) (tenants []string, hashes [][]byte, touches []bool) {
	place := make(map[tokenKey]int, len(lookups))
	for _, l := range lookups {
		i, seen := place[l.tokenKey]
		if seen {
			touches[i] = touches[i] || l.touch
			continue
		}
		place[l.tokenKey] = len(tenants)
		tenants, hashes, touches = append(tenants, l.tenant), append(hashes, []byte(l.hash)), append(touches, l.touch)
	}
	return tenants, hashes, touches
}
