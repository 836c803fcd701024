package session

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// sessionList is what a cursor of List is valid for.
type sessionList struct {
	Operation, Tenant, UserID, AgentID string
	State                              messages.SessionState
}

// listPlace is where a page ends, and the moment of the first page.
type listPlace struct {
	AsOf, UpdatedAt time.Time
	SessionID       string
}

// List returns a page of sessions, the most recently updated first.
func (s *Service) List(ctx context.Context, tenant string, m messages.SessionList) (messages.SessionListReply, error) {
	list := sessionList{messages.SessionListEndpoint.Name, tenant, m.UserID, m.AgentID, m.State}
	reply := messages.SessionListReply{Sessions: []messages.Session{}}
	var after listPlace
	if err := postgres.DecodeCursor(m.Cursor, list, &after); err != nil {
		return reply, err
	}
	if m.Cursor != "" && (messages.SessionGet{SessionID: after.SessionID}).Validate() != nil {
		return reply, messages.Invalid("cursor", "is not a cursor of this list")
	}
	if err := bus.Reserve(ctx, messages.MaxPageBytes+maxSessionBytes); err != nil {
		return reply, err
	}
	page, err := postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (sessionPage, error) {
		return readPage(ctx, db, tenant, m, after)
	})
	if err != nil {
		return reply, err
	}
	if page.more {
		last := page.sessions[len(page.sessions)-1]
		reply.NextCursor, err = postgres.EncodeCursor(list, listPlace{page.asOf, last.UpdatedAt, last.SessionID})
	}
	reply.Sessions = append(reply.Sessions, page.sessions...)
	return reply, err
}

// sessionPage is a page, and whether it is followed by another.
type sessionPage struct {
	sessions []messages.Session
	asOf     time.Time
	more     bool
}

// readPage reads up to a page of the sessions that have not ended, of those that expired and of those that were deleted, each from
// its own index, and merges them. What lies behind 1 MiB of data is not read.
func readPage(ctx context.Context, db postgres.Querier, tenant string, m messages.SessionList, after listPlace) (sessionPage, error) {
	asOf := pgtype.Timestamptz{Time: after.AsOf, Valid: m.Cursor != ""}
	updatedAt := pgtype.Timestamptz{Time: after.UpdatedAt, Valid: true}
	if m.Cursor == "" {
		updatedAt, after.SessionID = pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}, highestID
	}
	rows, err := db.Query(ctx, listSQL(m), tenant, m.UserID, m.AgentID, asOf, updatedAt, after.SessionID, m.Size()+1, messages.MaxPageBytes)
	if err != nil {
		return sessionPage{}, err
	}
	var page sessionPage
	var session messages.Session
	var before int64
	_, err = pgx.ForEachRow(rows, append([]any{&page.asOf, &before}, sessionTargets(&session)...), func() error {
		page.more = page.more || len(page.sessions) == m.Size() || before >= messages.MaxPageBytes
		if !page.more {
			page.sessions = append(page.sessions, session)
		}
		session.Data, session.Metadata = nil, nil
		return nil
	})
	return page, err
}

// listSQL puts the statement together from constants. The filters stand in it only when they are given: as parameters that may
// be empty they would keep PostgreSQL from the index of users or agents.
func listSQL(m messages.SessionList) string {
	const place = `
			WHERE s.tenant = $1 AND (s.updated_at, s.session_id) < ($5, $6::uuid) AND s.updated_at <= coalesce($4, now())`
	const order = ` ORDER BY s.updated_at DESC, s.session_id DESC LIMIT $7`
	filter := whose(m.UserID, m.AgentID)
	var parts []string
	for _, part := range listParts[m.State] {
		parts = append(parts, `(SELECT s.* FROM `+part.from+` AS s`+place+filter+` AND `+part.where+order+`)`)
	}
	return `
		SELECT coalesce($4, now()), s.before, ` + columns + `,
			CASE WHEN s.before < $8 THEN s.data END, CASE WHEN s.before < $8 THEN s.metadata END
		FROM (
			SELECT s.*, sum(s.size_bytes) OVER (ORDER BY s.updated_at DESC, s.session_id DESC) - s.size_bytes AS before
			FROM (
				SELECT s.* FROM (
				` + strings.Join(parts, `
				UNION ALL
				`) + `
				) AS s` + order + `
			) AS s
		) AS s
		ORDER BY s.updated_at DESC, s.session_id DESC`
}

// listPart are sessions that one index has in the order of a list.
type listPart struct{ from, where string }

// The parts of the lists. What has expired and is not marked yet are few; they are found by their sweep_after, before which none
// is dead, and then sorted: OFFSET 0 keeps PostgreSQL from going through all that live in the order of the list.
var (
	live     = listPart{`morello.session`, `s.ended_at IS NULL AND ` + diesAt + ` > now()`}
	notEnded = listPart{`morello.session`, `s.ended_at IS NULL`}
	unmarked = listPart{
		`(SELECT * FROM morello.session WHERE tenant = $1 AND ended_at IS NULL AND sweep_after <= now() OFFSET 0)`, diesAt + ` <= now()`,
	}
	expired = listPart{`morello.session`, `s.ended_at IS NOT NULL AND NOT s.deleted`}
	deleted = listPart{`morello.session`, `s.ended_at IS NOT NULL AND s.deleted`}

	listParts = map[messages.SessionState][]listPart{
		"":                      {live},
		messages.SessionLive:    {live},
		messages.SessionExpired: {unmarked, expired},
		messages.SessionDeleted: {deleted},
		messages.SessionAll:     {notEnded, expired, deleted},
	}
)

// whose narrows to a user ($2), an agent ($3), both or neither; the parameters are text, and are used, in any case.
func whose(userID, agentID string) string {
	filter := ` AND s.user_id = $2::text`
	if userID == "" {
		filter = ` AND $2::text = ''`
	}
	if agentID == "" {
		return filter + ` AND $3::text = ''`
	}
	return filter + ` AND s.agent_id = $3::text`
}
