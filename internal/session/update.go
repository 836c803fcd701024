package session

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// Update merges into the data and metadata of a live session, renews it and counts, as asked; all or nothing.
func (s *Service) Update(ctx context.Context, tenant string, m messages.SessionUpdate) (messages.SessionReply, error) {
	if err := bus.Reserve(ctx, maxSessionBytes); err != nil {
		return messages.SessionReply{}, err
	}
	return postgres.InStatement(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (messages.SessionReply, error) {
		var session messages.Session
		v, err := update(ctx, db, tenant, m, &session)
		if err == nil {
			err = v.failure(m)
		}
		return messages.SessionReply{Session: session}, err
	})
}

// update merges under the lock of the row, so that of two at the same time the second goes on from what the first left. It
// reads what it merged, measures it, and writes it only if all is well.
func update(ctx context.Context, db postgres.Querier, tenant string, m messages.SessionUpdate, session *messages.Session) (verdict, error) {
	const sql = `
		WITH ` + held + `, merged AS MATERIALIZED (
			SELECT held.version, held.now, held.dies_at,
				CASE WHEN $3::jsonb IS NULL THEN NULL WHEN $5 = 'deep' THEN morello.json_merge_patch(held.data, $3)
					WHEN $5 = 'replace' THEN $3 ELSE held.data || $3 END AS data,
				CASE WHEN $4::jsonb IS NULL THEN NULL WHEN $5 = 'deep' THEN morello.json_merge_patch(held.metadata, $4)
					WHEN $5 = 'replace' THEN $4 ELSE held.metadata || $4 END AS metadata
			FROM held
		), measured AS MATERIALIZED (
			SELECT m.*, octet_length(m.data::text) AS data_length, octet_length(m.metadata::text) AS metadata_length FROM merged AS m
		), judged AS MATERIALIZED (
			SELECT m.*, CASE
				WHEN m.dies_at <= m.now THEN 'not_found'
				WHEN m.version <> $6::bigint THEN 'conflict'
				WHEN m.data_length > $7::integer AND morello.json_bytes(m.data) > $7 THEN 'data'
				WHEN m.metadata_length > $8::integer AND morello.json_bytes(m.metadata) > $8 THEN 'metadata'
				ELSE '' END AS verdict
			FROM measured AS m
		), updated AS (
			UPDATE morello.session AS s SET
				data = CASE WHEN $3::jsonb IS NULL THEN s.data ELSE j.data END,
				metadata = CASE WHEN $4::jsonb IS NULL THEN s.metadata ELSE j.metadata END,
				size_bytes = coalesce(j.data_length, octet_length(s.data::text)) + coalesce(j.metadata_length, octet_length(s.metadata::text)),
				last_seen_at = CASE WHEN $9 THEN greatest(s.last_seen_at, j.now) ELSE s.last_seen_at END,
				expires_at = CASE WHEN $9 THEN greatest(s.expires_at, least(s.absolute_expires_at, j.now + s.ttl)) ELSE s.expires_at END,
				interaction_count = s.interaction_count + $10::integer,
				version = s.version + 1, updated_at = j.now
			FROM judged AS j
			WHERE s.tenant = $1 AND s.session_id = $2 AND j.verdict = ''
			RETURNING s.*
		)
		SELECT j.verdict, j.version, ` + columns + objects + `
		FROM judged AS j, LATERAL (SELECT * FROM updated UNION ALL SELECT * FROM locked WHERE j.verdict <> '') AS s`
	counted := 0
	if m.CountInteraction {
		counted = 1
	}
	args := []any{
		tenant, m.SessionID, objectOr(m.Data, nil), objectOr(m.Metadata, nil), string(m.Merge), m.IfVersion,
		messages.MaxSessionDataBytes, messages.MaxMetadataBytes, m.Renew == nil || *m.Renew, counted,
	}
	var v verdict
	err := db.QueryRow(ctx, sql, args...).Scan(append([]any{&v.kind, &v.version}, sessionTargets(session)...)...)
	if errors.Is(err, pgx.ErrNoRows) {
		return verdict{kind: "not_found"}, nil
	}
	return v, err
}

// verdict says why an update changes nothing; empty when it does.
type verdict struct {
	kind    string
	version int64 // that was found
}

func (v verdict) failure(m messages.SessionUpdate) error {
	switch v.kind {
	case "":
		return nil
	case "conflict":
		return &messages.Error{
			Code: messages.CodeConflict, Details: messages.ErrorDetails{Field: "if_version"},
			Message: fmt.Sprintf("the session has version %d, not %d", v.version, *m.IfVersion),
		}
	case "data":
		return messages.TooLarge("data", messages.MaxSessionDataBytes, "merged with what is there it would be too large")
	case "metadata":
		return messages.TooLarge("metadata", messages.MaxMetadataBytes, "merged with what is there it would be too large")
	}
	return messages.SessionNotFound()
}
