package audit

import (
	"context"
	"net/netip"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// Service answers the operations of the audit trail. All methods are safe for concurrent use.
type Service struct{ pool *postgres.Pool }

// New returns a service.
func New(pool *postgres.Pool) *Service { return &Service{pool} }

const entryColumns = `entry_id, event_type, actor, resource_type, resource_id, details, coalesce(ip_address, ''), coalesce(user_agent, ''), created_at`

// Log appends an entry, with an id and a time of the database's.
func (s *Service) Log(ctx context.Context, tenant string, m messages.AuditLog) (messages.AuditLogReply, error) {
	const sql = `
		INSERT INTO morello.audit_entry (tenant, event_type, actor, resource_type, resource_id, details, ip_address, user_agent)
		VALUES ($1, $2, $3, $4, $5, coalesce(nullif($6, 'null'::jsonb), '{}'), nullif($7, ''), nullif($8, ''))
		RETURNING ` + entryColumns
	return postgres.InStatement(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (messages.AuditLogReply, error) {
		var details *string
		if m.Details != nil {
			details = new(string(m.Details))
		}
		rows, err := db.Query(ctx, sql, tenant, m.EventType, m.Actor, m.ResourceType, m.ResourceID, details, usualSpelling(m.IPAddress), m.UserAgent)
		if err != nil {
			return messages.AuditLogReply{}, err
		}
		entry, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (messages.AuditEntry, error) { return scanEntry(row) })
		return messages.AuditLogReply{Entry: entry}, err
	})
}

// usualSpelling makes one text of all the spellings of an address. What is none was refused by Validate.
func usualSpelling(ipAddress string) string {
	addr, err := netip.ParseAddr(ipAddress)
	if err != nil {
		return ""
	}
	return addr.String()
}

// scanEntry scans the entryColumns and what follows them.
func scanEntry(row pgx.CollectableRow, following ...any) (messages.AuditEntry, error) {
	var e messages.AuditEntry
	var details []byte
	err := row.Scan(append([]any{
		&e.EntryID, &e.EventType, &e.Actor, &e.ResourceType, &e.ResourceID, &details, &e.IPAddress, &e.UserAgent, &e.CreatedAt,
	}, following...)...)
	if err != nil {
		return e, err
	}
	e.Details, err = messages.Compact(details)
	return e, err
}

type (
	// list is what a cursor of Query is valid for, place where its page begins: after this entry.
	list struct {
		Operation, Tenant string
		Filters           messages.AuditQuery
	}
	place struct {
		At time.Time `json:"at"`
		ID uuid.UUID `json:"id"`
	}
)

// Query lists entries, newest first: a range of the index of one of the filters, or of the primary key; by details, that or what
// their index has, whatever promises less work. Bounds of time leave the other partitions alone.
func (s *Service) Query(ctx context.Context, tenant string, m messages.AuditQuery) (messages.AuditQueryReply, error) {
	here := list{messages.AuditQueryEndpoint.Name, tenant, m}
	here.Filters.Page = messages.Page{}
	if err := bus.Reserve(ctx, messages.MaxPageBytes); err != nil {
		return messages.AuditQueryReply{}, err
	}
	entries, next, err := postgres.ReadPage(ctx, s.pool, here, m.Cursor,
		func(ctx context.Context, db postgres.Querier, from place) ([]messages.AuditEntry, bool, error) {
			return queryEntries(ctx, db, tenant, m, from)
		}, func(last messages.AuditEntry) place { return place{last.CreatedAt, uuid.MustParse(last.EntryID)} })
	return messages.AuditQueryReply{Entries: entries, NextCursor: next}, err
}

// querySQL says of the place twice when its page begins, because partitions are not pruned by a comparison of rows.
var querySQL = postgres.PageSQL(entryColumns, `created_at DESC, entry_id DESC`, `
	SELECT * FROM morello.audit_entry
	WHERE tenant = $1
		AND ($3 = '' OR event_type = $3)
		AND ($4 = '' OR actor = $4)
		AND ($5 = '' OR resource_type = $5)
		AND ($6 = '' OR resource_id = $6)
		AND ($7 = '' OR ip_address = $7)
		AND ($8 = '' OR user_agent = $8)
		AND created_at >= $9 AND created_at < $10
		AND created_at <= $11 AND (created_at, entry_id) < ($11, $12)
		AND ($13::jsonb IS NULL OR jsonb_set('{}', ARRAY[tenant], details) @> jsonb_set('{}', ARRAY[$1], $13))`)

func queryEntries(ctx context.Context, db postgres.Querier, tenant string, m messages.AuditQuery, from place) ([]messages.AuditEntry, bool, error) {
	after, before := timeOr(m.After, pgtype.NegativeInfinity), timeOr(m.Before, pgtype.Infinity)
	at := timeOr(&from.At, pgtype.Finite)
	if from.At.IsZero() { // the first page
		at, from.ID = timeOr(nil, pgtype.Infinity), uuid.Max
	}
	details, err := containing(m.Details)
	if err != nil {
		return nil, false, err
	}
	rows, err := db.Query(ctx, querySQL, postgres.PlanEachTime, tenant, m.Size(), m.EventType, m.Actor, m.ResourceType, m.ResourceID,
		usualSpelling(m.IPAddress), m.UserAgent, after, before, at, from.ID, details)
	if err != nil {
		return nil, false, err
	}
	return postgres.CollectPage(rows, scanEntry)
}

// containing returns what details have to contain, or nil if all do.
func containing(details jsontext.Value) (*string, error) {
	compact, err := messages.Compact(details)
	if err != nil || len(compact) == 0 || string(compact) == `null` || string(compact) == `{}` {
		return nil, err
	}
	return new(string(compact)), nil
}

// timeOr returns a time, or an infinite one for nil.
func timeOr(t *time.Time, otherwise pgtype.InfinityModifier) pgtype.Timestamptz {
	if t == nil {
		return pgtype.Timestamptz{InfinityModifier: otherwise, Valid: true}
	}
	return pgtype.Timestamptz{Time: *t, Valid: true}
}
