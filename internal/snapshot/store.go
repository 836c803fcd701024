package snapshot

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// maxSent bounds what one statement writes, in bytes before they are encoded; larger snapshots take several, in one transaction.
const maxSent = 4 << 20

// grace is how long a chunk that no snapshot holds stays after it was touched. What was touched within half of it may be relied
// on.
const (
	grace  = `interval '1 hour'`
	lately = `clock_timestamp() - ` + grace + ` / 2`
)

// baseMissing is the SQLSTATE of storing on a base that was deleted in the last moment.
const baseMissing = "MO002"

// addition is a creation whose document is cut.
type addition struct {
	*creation
	made   *tree
	base   *base  // which keeps the chunks that are not fresh; nil if all are
	last   []Hash // the fresh ones that are written with the snapshot
	before int64  // bytes that those written earlier added
}

// store writes a snapshot: in one round trip, if it is not large. ran tells that it did, and not an earlier request with the same
// idempotency key.
func (s *Service) store(ctx context.Context, a *addition, sent [][]Hash, ran *bool) (messages.SnapshotReply, error) {
	in := postgres.InStatement[messages.SnapshotReply]
	if len(sent) > 1 {
		in = postgres.InTx[messages.SnapshotReply]
	}
	return in(ctx, s.pool, a.tenant, func(ctx context.Context, db postgres.Querier) (messages.SnapshotReply, error) {
		*ran = true
		batch := &pgx.Batch{}
		postgres.PinPlans(batch)
		queueHeads(batch, []*addition{a})
		last := len(sent) - 1
		for _, hashes := range sent[:last] {
			queueChunks(batch, a, hashes)
			if err := db.SendBatch(ctx, batch).Close(); err != nil {
				return messages.SnapshotReply{}, err
			}
			batch = &pgx.Batch{}
		}
		a.last = sent[last]
		snapshots := []messages.Snapshot{{}}
		queueSnapshots(batch, []*addition{a}, snapshots)
		err := db.SendBatch(ctx, batch).Close()
		if err == nil && snapshots[0].SnapshotID == "" {
			err = errNotMade
		}
		return messages.SnapshotReply{Snapshot: snapshots[0]}, err
	})
}

// moveHeads makes each snapshot the head of its agent, if the agent has the head that it wants now, what it relies on is there, and
// it is not there itself. What it wants is in the column previous_id of the row that is proposed: NULL is any, NoSnapshot none.
var moveHeads = `
	INSERT INTO morello.snapshot_head AS h (tenant, agent_id, snapshot_id, previous_id, last_at)
	SELECT c.tenant, c.agent_id, c.snapshot_id, c.wanted, clock_timestamp()
	FROM unnest($1::text[], $2::text[], $3::uuid[], $4::uuid[], $5::uuid[]) AS c (tenant, agent_id, snapshot_id, wanted, base)
	WHERE NOT ` + isThere(`c.snapshot_id`) + ` AND (c.base IS NULL OR ` + isThere(`c.base`) + `)
		AND (c.wanted IS NULL OR c.wanted = '` + messages.NoSnapshot + `'
			OR coalesce((SELECT true FROM morello.snapshot_head AS h WHERE h.tenant = c.tenant AND h.agent_id = c.agent_id), false))
	ORDER BY c.tenant COLLATE "C", c.agent_id COLLATE "C"
	ON CONFLICT (tenant, agent_id) DO UPDATE
		SET snapshot_id = excluded.snapshot_id, previous_id = h.snapshot_id,
			last_at = greatest(clock_timestamp(), h.last_at + interval '1 microsecond')
		WHERE excluded.previous_id IS NULL OR excluded.previous_id = coalesce(h.snapshot_id, '` + messages.NoSnapshot + `')`

// isThere asks for a snapshot of the tenant of the row c. Unlike EXISTS, and a join, it cannot be planned as one pass over the whole
// table, which is the cheapest when the table is small, and is kept when it has grown.
func isThere(id string) string {
	return `coalesce((SELECT true FROM morello.snapshot AS s WHERE s.tenant = c.tenant AND s.snapshot_id = ` + id + `), false)`
}

// queueHeads moves heads, under whose locks all that follows happens.
func queueHeads(batch *pgx.Batch, list []*addition) {
	var tenants, agents, ids []string
	var wanted, bases []*string
	for _, a := range list {
		tenants, agents, ids = append(tenants, a.tenant), append(agents, a.AgentID), append(ids, a.SnapshotID)
		wanted, bases = append(wanted, orNull(a.IfHead)), append(bases, a.base.id())
	}
	batch.Queue(moveHeads, tenants, agents, ids, wanted, bases)
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// storing writes the chunks in the arguments $1 to $8 that the tenant does not have, and touches those that were not touched lately,
// as the package comment explains; but only those that a creation wants which stands in the common table expression creation. Bit n
// of wanted says that the creation of bit n has the chunk. It takes them in the order of their hashes, so that two transactions with
// the same chunks never wait for each other in a circle. It also notes that the agents have the texts. cost is what each creation
// added: a chunk that several have counts for the first.
const storing = `
	sent AS MATERIALIZED (
		SELECT s.*, s.wanted & (SELECT bit_or(bit) FROM creation) AS won
		FROM unnest($1::text[], $2::bytea[], $3::smallint[], $4::bytea[], $5::bytea[], $6::bytea[], $7::text[], $8::bigint[])
			AS s (tenant, hash, encoding, nodes, leaves, body, text, wanted)
		WHERE s.wanted & (SELECT bit_or(bit) FROM creation) <> 0
	), stored AS (
		INSERT INTO morello.snapshot_chunk AS c (tenant, hash, touched_at, encoding, nodes, leaves, body, text)
		SELECT tenant, hash, clock_timestamp(), encoding, nodes, leaves, body, text FROM sent
		WHERE coalesce((SELECT c.touched_at <= ` + lately + ` FROM morello.snapshot_chunk AS c WHERE c.tenant = sent.tenant AND c.hash = sent.hash), true)
		ORDER BY tenant COLLATE "C", hash
		ON CONFLICT (tenant, hash) DO UPDATE SET touched_at = excluded.touched_at WHERE c.touched_at <= ` + lately + `
		RETURNING tenant, hash, CASE WHEN xmax = 0 THEN ` + chunkBytes + ` END AS bytes
	), found_by AS (
		INSERT INTO morello.snapshot_text (tenant, hash, agent_id)
		SELECT c.tenant, hash, agent_id FROM sent JOIN creation AS c ON sent.won & c.bit <> 0 WHERE text IS NOT NULL
		ORDER BY c.tenant COLLATE "C", hash, agent_id COLLATE "C"
		ON CONFLICT DO NOTHING
	), cost AS MATERIALIZED (
		SELECT bit, sum(bytes) AS bytes FROM (
			SELECT max(won & -won) AS bit, sum(bytes) AS bytes FROM (
				SELECT tenant, hash, won, 0 AS bytes FROM sent
				UNION ALL
				SELECT tenant, hash, 0, bytes FROM stored
			) AS either GROUP BY tenant, hash
		) AS chunk GROUP BY bit
	)`

// queueChunks writes chunks of a large snapshot ahead of it, and adds up what they cost.
func queueChunks(batch *pgx.Batch, a *addition, hashes []Hash) {
	const sql = `
		WITH creation AS MATERIALIZED (SELECT 1::bigint AS bit, $9::text AS tenant, $10::text AS agent_id), ` + storing + `
		SELECT coalesce(sum(bytes), 0)::bigint FROM cost`
	var s sending
	s.add(a, hashes, 1)
	batch.Queue(sql, append(s.columns(), a.tenant, a.AgentID)...).QueryRow(func(row pgx.Row) error {
		var bytes int64
		err := row.Scan(&bytes)
		a.before += bytes
		return err
	})
}

// snapshotsSQL writes the last chunks and the snapshots of those creations whose heads were moved, by this transaction, and returns
// what was decided of them: a creation that is repeated may find its snapshot as the head. The parent is the head before if the request
// names none. It ends the transaction if a base is not there any more.
var snapshotsSQL = `
	WITH creation AS MATERIALIZED (
		SELECT 1::bigint << (c.n - 1)::integer AS bit, c.*, h.last_at,
			coalesce(c.parent_id, nullif(h.previous_id, '` + messages.NoSnapshot + `')) AS follows
		FROM unnest($9::text[], $10::text[], $11::uuid[], $12::text[], $13::uuid[], $14::text[], $15::text[], $16::text[], $17::integer[],
				$18::bytea[], $19::bytea[], $20::bigint[], $21::bigint[], $22::boolean[], $23::uuid[])
			WITH ORDINALITY AS c (tenant, agent_id, snapshot_id, user_id, parent_id, label, metadata, vector_ids, size_bytes,
				content_hash, document_sha256, document_bytes, before, partially_indexed, base, n)
		JOIN LATERAL (
			SELECT h.*, h.xmin = pg_current_xact_id()::xid AS moved FROM morello.snapshot_head AS h
			WHERE h.tenant = c.tenant AND h.agent_id = c.agent_id OFFSET 0
		) AS h ON h.snapshot_id = c.snapshot_id AND h.moved
	), ` + storing + `, checked AS MATERIALIZED (
		SELECT CASE WHEN EXISTS (SELECT FROM creation AS c WHERE c.base IS NOT NULL AND NOT ` + isThere(`c.base`) + `)
			THEN morello.refuse('` + baseMissing + `') END
	), made AS (
		INSERT INTO morello.snapshot (
			tenant, snapshot_id, agent_id, user_id, parent_id, ancestor_id, label, metadata, vector_ids, size_bytes,
			content_hash, document_sha256, document_bytes, stored_bytes, partially_indexed, restored_from, created_at)
		SELECT tenant, snapshot_id, agent_id, user_id, follows, follows, label, metadata::jsonb, vector_ids::text[], size_bytes,
			content_hash, document_sha256, document_bytes, before + coalesce((SELECT bytes FROM cost WHERE cost.bit = c.bit), 0),
			partially_indexed, NULL, last_at
		FROM checked, creation AS c
		ORDER BY tenant COLLATE "C", snapshot_id
		RETURNING tenant, snapshot_id, parent_id, stored_bytes, created_at, metadata
	)
	SELECT tenant, snapshot_id::text, coalesce(parent_id::text, ''), stored_bytes, created_at, metadata FROM made`

// queueSnapshots writes snapshots whose heads are moved, and fills in those of the snapshots that were made.
func queueSnapshots(batch *pgx.Batch, list []*addition, snapshots []messages.Snapshot) {
	var chunks sending
	var of additions
	for n, a := range list {
		chunks.add(a, a.last, 1<<n)
		of.add(a)
	}
	batch.Queue(snapshotsSQL, append(chunks.columns(), of.columns()...)...).Query(func(rows pgx.Rows) error {
		var tenant string
		var m messages.Snapshot
		_, err := pgx.ForEachRow(rows, []any{&tenant, &m.SnapshotID, &m.ParentID, &m.StoredBytes, &m.CreatedAt, (*[]byte)(&m.Metadata)}, func() error {
			n := slices.IndexFunc(list, func(a *addition) bool { return a.tenant == tenant && a.SnapshotID == m.SnapshotID })
			snapshots[n] = list[n].snapshot()
			snapshots[n].ParentID, snapshots[n].StoredBytes, snapshots[n].CreatedAt = m.ParentID, m.StoredBytes, m.CreatedAt
			snapshots[n].Metadata = m.Metadata
			return nil
		})
		return err
	})
}

// additions are snapshots by column.
type additions struct {
	tenants, agents, ids   []string
	users, parents, labels []*string
	metadata, vectorIDs    []string
	sizes                  []int32
	roots, sums            [][]byte
	documentBytes, before  []int64
	partial                []bool
	bases                  []*string
}

func (l *additions) add(a *addition) {
	metadata, vectorIDs, size := string(a.metadata()), postgres.ArrayLiteral(a.VectorIDs), 0
	for _, id := range a.VectorIDs {
		size += len(id)
	}
	l.tenants, l.agents, l.ids = append(l.tenants, a.tenant), append(l.agents, a.AgentID), append(l.ids, a.SnapshotID)
	l.users, l.parents, l.labels = append(l.users, orNull(a.UserID)), append(l.parents, orNull(a.ParentID)), append(l.labels, orNull(a.Label))
	l.metadata, l.vectorIDs, l.sizes = append(l.metadata, metadata), append(l.vectorIDs, vectorIDs), append(l.sizes, int32(len(metadata)+size))
	l.roots, l.sums = append(l.roots, a.made.root[:]), append(l.sums, a.sha256[:])
	l.documentBytes, l.before = append(l.documentBytes, int64(len(a.document))), append(l.before, a.before)
	l.partial, l.bases = append(l.partial, a.made.partiallyIndexed), append(l.bases, a.base.id())
}

func (l *additions) columns() []any {
	return []any{
		l.tenants, l.agents, l.ids, l.users, l.parents, l.labels, l.metadata, l.vectorIDs, l.sizes,
		l.roots, l.sums, l.documentBytes, l.before, l.partial, l.bases,
	}
}

// divide returns the chunks of a tree that were not known, in the order of their hashes, by the statements that write them. There is
// one at least.
func divide(made *tree) [][]Hash {
	all := slices.SortedFunc(maps.Keys(made.fresh), compareHashes)
	var sent [][]Hash
	first, bytes := 0, 0
	for i, hash := range all {
		if bytes > maxSent {
			sent = append(sent, all[first:i])
			first, bytes = i, 0
		}
		bytes += made.fresh[hash].size()
	}
	return append(sent, all[first:])
}

// sending is the chunks that one statement writes.
type sending struct{ chunks []sentChunk }

type sentChunk struct {
	tenant string
	hash   Hash
	*freshChunk
	wanted int64 // bits of the creations that have it
}

func (s *sending) add(a *addition, hashes []Hash, bit int64) {
	for _, hash := range hashes {
		s.chunks = append(s.chunks, sentChunk{a.tenant, hash, a.made.fresh[hash], bit})
	}
}

// columns returns the chunks, each once, by column. They are encoded when their turn comes: all at once they would be the document
// once more.
func (s *sending) columns() []any {
	slices.SortStableFunc(s.chunks, func(a, b sentChunk) int {
		return cmp.Or(strings.Compare(a.tenant, b.tenant), compareHashes(a.hash, b.hash))
	})
	var tenants []string
	var hashes, nodes, leaves, bodies [][]byte
	var encodings []int16
	var texts []*string
	var wanted []int64
	for i, c := range s.chunks {
		if i > 0 && s.chunks[i-1].hash == c.hash && s.chunks[i-1].tenant == c.tenant {
			wanted[len(wanted)-1] |= c.wanted
			continue
		}
		r := encode(c.hash, c.freshChunk)
		tenants, hashes, encodings = append(tenants, c.tenant), append(hashes, r.Hash), append(encodings, int16(r.Encoding))
		nodes, leaves = append(nodes, r.Nodes), append(leaves, r.Leaves)
		bodies, texts, wanted = append(bodies, r.Body), append(texts, r.Text), append(wanted, c.wanted)
	}
	return []any{tenants, hashes, encodings, nodes, leaves, bodies, texts, wanted}
}
