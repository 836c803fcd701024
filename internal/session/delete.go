package session

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// deleteBatch is how many sessions are ended in one transaction, and named in one event.
const deleteBatch = 1000

// Delete ends a live session for good. Of one that is not live it answers deleted:false.
func (s *Service) Delete(ctx context.Context, tenant string, m messages.SessionDelete) (messages.SessionDeleteReply, error) {
	reply, err := s.BulkDelete(ctx, tenant, messages.SessionBulkDelete{SessionIDs: []string{m.SessionID}})
	return messages.SessionDeleteReply{Deleted: reply.Deleted == 1}, err
}

// BulkDelete ends the live ones of some sessions, all at once.
func (s *Service) BulkDelete(ctx context.Context, tenant string, m messages.SessionBulkDelete) (messages.SessionBulkDeleteReply, error) {
	var ended []messages.SessionRef
	reply, err := postgres.InStatement(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (reply messages.SessionBulkDeleteReply, err error) {
		ended, err = endSessions(ctx, db, tenant, m.SessionIDs)
		return messages.SessionBulkDeleteReply{Deleted: int64(len(ended))}, err
	})
	if err == nil {
		s.announce(messages.SessionDeletedEvent, tenant, ended)
	}
	return reply, err
}

// endSessions deletes the live ones among the sessions and returns them. It locks in the order of the ids, and looks at the
// clock after it has the lock.
func endSessions(ctx context.Context, db postgres.Querier, tenant string, ids []string) ([]messages.SessionRef, error) {
	const sql = `
		WITH held AS MATERIALIZED (
			SELECT s.session_id, ` + diesAt + ` AS dies_at FROM morello.session AS s
			WHERE s.tenant = $1 AND s.session_id = ANY ($2::uuid[]) AND s.ended_at IS NULL
			ORDER BY s.session_id
			FOR NO KEY UPDATE
		)
		UPDATE morello.session AS s SET ended_at = clock_timestamp(), deleted = true
		FROM held
		WHERE s.tenant = $1 AND s.session_id = held.session_id AND held.dies_at > clock_timestamp()
		RETURNING s.session_id::text, coalesce(s.user_id, ''), coalesce(s.agent_id, '')`
	rows, err := db.Query(ctx, sql, tenant, ids)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[messages.SessionRef])
}

// DeleteUser ends the live sessions of a user, but for one if it is named, in batches that each begin after the last session of
// the one before.
func (s *Service) DeleteUser(ctx context.Context, tenant string, m messages.SessionDeleteUser) (messages.SessionDeleteUserReply, error) {
	pick := pick{tenant: tenant, whose: ofUser, owner: m.UserID, except: m.ExceptSessionID, after: beginning, limit: deleteBatch}
	var ended []messages.SessionRef
	return postgres.InBatches(ctx, s.pool, postgres.Batches[messages.SessionDeleteUserReply]{
		Tenant: tenant, Timeout: messages.SessionDeleteUserEndpoint.Timeout,
		Step: func(ctx context.Context, db postgres.Querier, reply *messages.SessionDeleteUserReply) (bool, error) {
			live, last, err := pickSessions(ctx, db, pick)
			if err != nil || len(live) == 0 {
				return false, err
			}
			batch, err := endSessions(ctx, db, tenant, idsOf(live))
			pick.after, ended = last, append(ended, batch...)
			reply.Deleted += int64(len(batch))
			return len(live) == deleteBatch, err
		},
		SetMore: func(reply *messages.SessionDeleteUserReply, more bool) { reply.More = more },
		Committed: func() {
			s.announce(messages.SessionDeletedEvent, tenant, ended)
			ended = nil
		},
	})
}

// NewDeleteOfAgent returns what ends up to limit of the live sessions of an agent in the transaction that it is given, and reports
// whether there may be more. Who deletes an agent with what is its calls it until there are none. deleted publishes which are to end.
// It is called before they are locked, so that nobody waits for the stream, and its error undoes the batch: so the event comes at
// least once, and of a job that is cancelled after it it may tell of sessions that live on.
func NewDeleteOfAgent(
	deleted func(ctx context.Context, tenant string, sessions messages.SessionRefs) error,
) func(ctx context.Context, db postgres.Querier, tenant, agentID string, limit int) (n int64, more bool, err error) {
	return func(ctx context.Context, db postgres.Querier, tenant, agentID string, limit int) (int64, bool, error) {
		pick := pick{tenant: tenant, whose: ofAgent, owner: agentID, after: beginning, limit: min(limit, deleteBatch)}
		live, _, err := pickSessions(ctx, db, pick)
		if err != nil || len(live) == 0 {
			return 0, false, err
		}
		if err := deleted(ctx, tenant, messages.SessionRefs{Sessions: live}); err != nil {
			return 0, false, err
		}
		ended, err := endSessions(ctx, db, tenant, idsOf(live))
		return int64(len(ended)), len(live) == pick.limit, err
	}
}

// pick says which live sessions to pick.
type pick struct {
	tenant, whose, owner, except string
	after                        place
	limit                        int
}

// Whose sessions to pick.
const (
	ofUser  = `s.user_id = $2`
	ofAgent = `s.agent_id = $2`
)

// place is a place in the order of updates.
type place struct {
	updatedAt pgtype.Timestamptz
	id        string
}

const (
	lowestID  = "00000000-0000-0000-0000-000000000000"
	highestID = "ffffffff-ffff-ffff-ffff-ffffffffffff"
)

var (
	longAgo   = pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true}
	beginning = place{longAgo, lowestID}
)

// pickSessions returns live sessions in the order of their updates, without locking them, and the place of the last. A session that is
// updated meanwhile moves on in that order, and is met again.
func pickSessions(ctx context.Context, db postgres.Querier, p pick) (live []messages.SessionRef, last place, err error) {
	const sql = `
		SELECT s.session_id::text, coalesce(s.user_id, ''), coalesce(s.agent_id, ''), s.updated_at FROM morello.session AS s
		WHERE s.tenant = $1 AND (s.updated_at, s.session_id) > ($3, $4::uuid) AND ` + isLive + `
			AND s.session_id IS DISTINCT FROM nullif($6, '')::uuid AND `
	const order = ` ORDER BY s.updated_at, s.session_id LIMIT $5`
	rows, err := db.Query(ctx, sql+p.whose+order, p.tenant, p.owner, p.after.updatedAt, p.after.id, p.limit, p.except)
	if err != nil {
		return nil, last, err
	}
	var ref messages.SessionRef
	_, err = pgx.ForEachRow(rows, []any{&ref.SessionID, &ref.UserID, &ref.AgentID, &last.updatedAt}, func() error {
		live, last.id = append(live, ref), ref.SessionID
		return nil
	})
	return live, last, err
}

func idsOf(sessions []messages.SessionRef) []string {
	ids := make([]string, len(sessions))
	for i, s := range sessions {
		ids[i] = s.SessionID
	}
	return ids
}

// announce tells of sessions to which the same has happened together.
func (s *Service) announce(event messages.Event[messages.SessionRefs], tenant string, sessions []messages.SessionRef) {
	for some := range slices.Chunk(sessions, deleteBatch) {
		bus.Emit(s.events, event, tenant, messages.SessionRefs{Sessions: some})
	}
}
