package session

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// change is an update with its tenant.
type change struct {
	tenant string
	messages.SessionUpdate
}

func (c change) bytes() int { return len(c.Data) + len(c.Metadata) }

// changed is the session as an update left it; not done when the batch could not make the update.
type changed struct {
	messages.Session
	done bool
}

// newUpdateBatcher returns the batcher of Update. One batch at a time: two wait for the disk twice, take more of PostgreSQL for each
// update, and meet each other's locks (measured: as many updates, at a sixth more).
func newUpdateBatcher(pool *postgres.Pool) *postgres.Batcher[change, changed] {
	run := func(ctx context.Context, changes []change, results []postgres.Result[changed]) error {
		return pool.WithBatchConn(ctx, func(ctx context.Context, db postgres.Querier) error {
			return updateSessions(ctx, db, changes, results)
		})
	}
	return postgres.NewBatcher(postgres.BatcherConfig[change]{Bytes: change.bytes, Slots: 1}, run)
}

// updateSessions makes those updates that meet no obstacle, all in one statement; why the others were not made is found by update. It
// waits for no lock, and leaves what is locked, so that neither a slow session keeps the rest waiting nor two batches each other; it
// leaves what is large, so that a batch stays small. Of several updates of one session it makes one: PostgreSQL updates a row once in a
// statement. The clock is read when all locks are held.
func updateSessions(ctx context.Context, db postgres.Querier, changes []change, results []postgres.Result[changed]) error {
	const sql = `
		WITH locked AS MATERIALIZED (
			SELECT w.*, s.data AS old_data, s.metadata AS old_metadata, ` + diesAt + ` AS dies_at
			FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::boolean[], $8::integer[]) WITH ORDINALITY
				AS w (tenant, session_id, data, metadata, merge, if_version, renew, counted, place)
			JOIN morello.session AS s ON s.tenant = w.tenant AND s.session_id = w.session_id
			WHERE s.ended_at IS NULL AND (w.if_version IS NULL OR s.version = w.if_version) AND s.size_bytes <= $9
			FOR NO KEY UPDATE OF s SKIP LOCKED
		), clock AS MATERIALIZED (
			SELECT clock_timestamp() AS now FROM (SELECT count(*) FROM locked) AS all_locked
		), merged AS MATERIALIZED (
			SELECT l.place, l.tenant, l.session_id, l.renew, l.counted, clock.now,
				CASE WHEN l.data IS NULL THEN l.old_data WHEN l.merge = 'deep' THEN morello.json_merge_patch(l.old_data, l.data::jsonb)
					WHEN l.merge = 'replace' THEN l.data::jsonb ELSE l.old_data || l.data::jsonb END AS data,
				CASE WHEN l.metadata IS NULL THEN l.old_metadata WHEN l.merge = 'deep' THEN morello.json_merge_patch(l.old_metadata, l.metadata::jsonb)
					WHEN l.merge = 'replace' THEN l.metadata::jsonb ELSE l.old_metadata || l.metadata::jsonb END AS metadata
			FROM clock, locked AS l
			WHERE l.dies_at > clock.now
		), measured AS MATERIALIZED (
			SELECT m.*, octet_length(m.data::text) AS data_length, octet_length(m.metadata::text) AS metadata_length FROM merged AS m
		)
		UPDATE morello.session AS s SET
			data = m.data, metadata = m.metadata, size_bytes = m.data_length + m.metadata_length,
			last_seen_at = CASE WHEN m.renew THEN greatest(s.last_seen_at, m.now) ELSE s.last_seen_at END,
			expires_at = CASE WHEN m.renew THEN greatest(s.expires_at, least(s.absolute_expires_at, m.now + s.ttl)) ELSE s.expires_at END,
			interaction_count = s.interaction_count + m.counted, version = s.version + 1, updated_at = m.now
		FROM measured AS m
		WHERE s.tenant = m.tenant AND s.session_id = m.session_id AND m.data_length <= $9 AND m.metadata_length <= $10
		RETURNING m.place,` + facts + objects
	w := newWantedChanges(changes)
	rows, err := db.Query(ctx, sql,
		w.tenants, w.ids, w.data, w.metadata, w.merges, w.versions, w.renewals, w.counted, maxBatched, messages.MaxMetadataBytes)
	if err != nil {
		return err
	}
	var place int // counted from 1
	c := changed{done: true}
	c.State = messages.SessionLive
	targets := append([]any{&place}, factTargets(&c.Session)...)
	_, err = pgx.ForEachRow(rows, append(targets, (*[]byte)(&c.Data), (*[]byte)(&c.Metadata)), func() error {
		results[place-1].Value = c
		c.Data, c.Metadata = nil, nil
		return nil
	})
	return err
}

// wantedChanges are some updates, turned by 90 degrees.
type wantedChanges struct {
	tenants, ids, merges []string
	data, metadata       []*string // nil for what is not given
	versions             []*int64  // nil for any
	renewals             []bool
	counted              []int
}

func newWantedChanges(changes []change) (w wantedChanges) {
	for _, c := range changes {
		w.tenants, w.ids, w.merges = append(w.tenants, c.tenant), append(w.ids, c.SessionID), append(w.merges, string(c.Merge))
		w.data, w.metadata = append(w.data, objectOr(c.Data, nil)), append(w.metadata, objectOr(c.Metadata, nil))
		w.versions, w.renewals, w.counted = append(w.versions, c.IfVersion), append(w.renewals, c.renews()), append(w.counted, c.count())
	}
	return w
}

func (c change) renews() bool { return c.Renew == nil || *c.Renew }

// count is by how much the update counts.
func (c change) count() int {
	if c.CountInteraction {
		return 1
	}
	return 0
}
