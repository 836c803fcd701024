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

// Update merges into the data and metadata of a live session, renews it and counts, as asked; all or nothing. Small updates are
// made in batches; what a batch could not make is made alone.
func (s *Service) Update(ctx context.Context, tenant string, m messages.SessionUpdate) (messages.SessionReply, error) {
	c := change{tenant, m}
	if messages.Keyed(ctx) || c.bytes() > maxBatched {
		return s.updateAlone(ctx, c)
	}
	made, err := s.updates.Do(ctx, c)
	if err == nil && !made.done {
		return s.updateAlone(ctx, c)
	}
	return messages.SessionReply{Session: made.Session}, err
}

// beginUpdate is Update without waiting.
func (s *Service) beginUpdate(d bus.Deferred[messages.SessionReply], tenant string, m messages.SessionUpdate) {
	c := change{tenant, m}
	alone := func(ctx context.Context) (messages.SessionReply, error) { return s.updateAlone(ctx, c) }
	if c.bytes() > maxBatched {
		d.Go(alone)
		return
	}
	s.updates.Submit(d.Deadline(), c, func(made changed, err error) {
		if err == nil && !made.done {
			d.Go(alone)
			return
		}
		d.Reply(messages.SessionReply{Session: made.Session}, err)
	})
}

// updateAlone makes an update in a statement of its own, which waits for the lock of the session.
func (s *Service) updateAlone(ctx context.Context, c change) (messages.SessionReply, error) {
	if err := bus.Reserve(ctx, maxSessionBytes); err != nil {
		return messages.SessionReply{}, err
	}
	return postgres.InStatement(ctx, s.pool, c.tenant, func(ctx context.Context, db postgres.Querier) (messages.SessionReply, error) {
		var session messages.Session
		v, err := update(ctx, db, c, &session)
		if err == nil {
			err = v.failure(c.SessionUpdate)
		}
		return messages.SessionReply{Session: session}, err
	})
}

// update merges under the lock of the row, so that of two at the same time the second goes on from what the first left. It
// reads what it merged, measures it, and writes it only if all is well.
func update(ctx context.Context, db postgres.Querier, c change, session *messages.Session) (verdict, error) {
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
	args := []any{
		c.tenant, c.SessionID, objectOr(c.Data, nil), objectOr(c.Metadata, nil), string(c.Merge), c.IfVersion,
		messages.MaxSessionDataBytes, messages.MaxMetadataBytes, c.renews(), c.count(),
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
