package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

const (
	// createAttempts: the second one knows what the first relied on in vain; a third is for a deletion in between.
	createAttempts = 3
	// maxSent bounds what one statement writes, in bytes before they are encoded; larger snapshots take several, in one transaction.
	maxSent = 4 << 20
)

// grace is how long a chunk that no snapshot holds stays after it was touched. What was touched within half of it may be relied
// on.
const (
	grace  = `interval '1 hour'`
	lately = `clock_timestamp() - ` + grace + ` / 2`
)

// SQLSTATEs of the refusals of queueSnapshot.
const (
	headMoved   = "MO001"
	baseMissing = "MO002"
)

// creation is a snapshot that is to be stored.
type creation struct {
	messages.SnapshotCreate
	tenant   string
	document jsontext.Value
	sha256   [sha256.Size]byte
}

// Create stores a state as the head of its agent.
func (s *Service) Create(ctx context.Context, tenant string, m messages.SnapshotCreate) (messages.SnapshotReply, error) {
	ctx, cancel := context.WithTimeout(ctx, messages.SnapshotTimeLimit)
	defer cancel()
	m.SnapshotID, m.ParentID = strings.ToLower(m.SnapshotID), strings.ToLower(m.ParentID) // as PostgreSQL writes them
	c := &creation{SnapshotCreate: m, tenant: tenant}
	if err := s.readData(ctx, c); err != nil {
		return messages.SnapshotReply{}, err
	}
	release, err := s.holdLarge(ctx, int64(len(c.document)))
	if err != nil {
		return messages.SnapshotReply{}, err
	}
	defer release()
	if c.SnapshotID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return messages.SnapshotReply{}, fmt.Errorf("making an id: %w", err)
		}
		c.SnapshotID = id.String()
	}
	for attempt := 1; ; attempt++ {
		reply, err := s.tryCreate(ctx, c)
		switch {
		case postgres.SQLState(err) != baseMissing:
			return reply, err
		case attempt == createAttempts:
			return reply, messages.Unavailable("the snapshots that it follows are being deleted", messages.OutcomeNotApplied, err)
		}
	}
}

// readData takes the document from the request or from a transfer.
func (s *Service) readData(ctx context.Context, c *creation) (err error) {
	field := "data"
	if c.DataTransferID != "" {
		field = "data_transfer_id"
		var data []byte
		if data, err = s.cfg.TakeTransfer(ctx, c.tenant, c.DataTransferID); err == nil {
			c.document, err = messages.ReadDocument(field, data)
		}
	} else {
		c.document, err = messages.Compact(c.Data)
	}
	if err == nil && len(c.document) > messages.MaxSnapshotBytes {
		err = messages.TooLarge(field, messages.MaxSnapshotBytes, fmt.Sprintf("the document has %d bytes", len(c.document)))
	}
	c.sha256 = sha256.Sum256(c.document)
	return err
}

// tryCreate cuts the document, and stores what the base of the agent lacks.
func (s *Service) tryCreate(ctx context.Context, c *creation) (messages.SnapshotReply, error) {
	agent := agentKey{c.tenant, c.AgentID}
	base, err := s.baseFor(ctx, c)
	if err != nil {
		return messages.SnapshotReply{}, err
	}
	made := build(c.document, base.has)
	ran := false
	reply, err := s.store(ctx, c, made, base, &ran)
	switch {
	case err == nil && ran:
		s.bases.put(agent, newBase(reply.Snapshot.SnapshotID, made.hashes))
		bus.Emit(s.cfg.Events, messages.SnapshotCreatedEvent, c.tenant, ref(reply.Snapshot))
	case postgres.ViolatedConstraint(err) == "snapshot_pkey":
		return s.repeated(ctx, c, made.root, err)
	case postgres.SQLState(err) == headMoved:
		return s.overtaken(ctx, c, made.root)
	case postgres.SQLState(err) == baseMissing:
		s.bases.forget(agent)
	}
	return reply, err
}

// baseFor returns the snapshot whose chunks need not be sent: the parent that the request names, or what is known to be, or to
// have been, the agent's head. Only if nothing is known it asks.
func (s *Service) baseFor(ctx context.Context, c *creation) (*base, error) {
	known := s.bases.get(agentKey{c.tenant, c.AgentID})
	w := newest(c.AgentID, "")
	if c.ParentID != "" {
		w = byID(c.ParentID)
	}
	if known != nil && (c.ParentID == "" || c.ParentID == known.snapshotID) {
		return known, nil
	}
	return postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (*base, error) {
		return readBase(ctx, db, c.tenant, c.AgentID, w, c.ParentID)
	})
}

// readBase reads a snapshot and the hashes of its tree, in one statement, so that they belong together though the head may move. An
// agent without a snapshot has no base; a parent that is not there is not found.
func readBase(ctx context.Context, db postgres.Querier, tenant, agentID string, w which, parentID string) (*base, error) {
	of := ` FROM morello.snapshot WHERE tenant = $1 AND ` + w.sql
	sql := treeSQL(`SELECT content_hash`+of) + `
		SELECT snapshot_id::text, agent_id, NULL::bytea` + of + `
		UNION ALL
		SELECT NULL, NULL, hash FROM reached`
	rows, err := db.Query(ctx, sql, append([]any{tenant}, w.args...)...)
	if err != nil {
		return nil, err
	}
	var id, owner string
	var hashes []Hash
	var foundID, foundOwner *string
	var joined []byte
	_, err = pgx.ForEachRow(rows, []any{&foundID, &foundOwner, &joined}, func() error {
		if foundID != nil {
			id, owner = *foundID, *foundOwner
			return nil
		}
		var hash Hash
		copy(hash[:], joined)
		hashes = append(hashes, hash)
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case id == "" && parentID != "":
		return nil, notFound("parent_id")
	case id == "":
		return nil, nil //nolint:nilnil // no base is a base without chunks
	case owner != agentID:
		return nil, messages.Invalid("parent_id", "is a snapshot of another agent")
	}
	return newBase(id, hashes), nil
}

// store writes the snapshot: in one round trip, if it is not large. ran tells that it did, and not an earlier request with the
// same idempotency key.
func (s *Service) store(ctx context.Context, c *creation, made *tree, base *base, ran *bool) (messages.SnapshotReply, error) {
	sent := divide(made)
	in := postgres.InStatement[messages.SnapshotReply]
	if len(sent) > 1 {
		in = postgres.InTx[messages.SnapshotReply]
	}
	return in(ctx, s.pool, c.tenant, func(ctx context.Context, db postgres.Querier) (messages.SnapshotReply, error) {
		*ran = true
		batch := &pgx.Batch{}
		queueHead(batch, c)
		last := len(sent) - 1
		var before int64 // bytes that the sendings before the last added
		for _, hashes := range sent[:last] {
			queueChunks(batch, c, newSending(made, hashes), &before)
			if err := db.SendBatch(ctx, batch).Close(); err != nil {
				return messages.SnapshotReply{}, err
			}
			batch = &pgx.Batch{}
		}
		snapshot := c.snapshot(made)
		queueSnapshot(batch, c, base, newSending(made, sent[last]), before, &snapshot)
		err := db.SendBatch(ctx, batch).Close()
		return messages.SnapshotReply{Snapshot: snapshot}, err
	})
}

// snapshot is what the request says of the snapshot, and what the document does. The rest is decided by the statement.
func (c *creation) snapshot(made *tree) messages.Snapshot {
	metadata := c.Metadata
	if metadata.Kind() != '{' {
		metadata = jsontext.Value(`{}`)
	}
	return messages.Snapshot{
		SnapshotID: c.SnapshotID, AgentID: c.AgentID, UserID: c.UserID, Label: c.Label, Metadata: metadata,
		VectorIDs: append([]string{}, c.VectorIDs...), ContentHash: made.root.String(), DocumentSHA256: hex.EncodeToString(c.sha256[:]),
		SizeBytes: int64(len(c.document)), PartiallyIndexed: made.partiallyIndexed,
	}
}

// moveHead makes the snapshot $3 the head of the agent $2, if its head is $4 now, or whatever it is when that is empty.
const moveHead = `
	INSERT INTO morello.snapshot_head AS h (tenant, agent_id, snapshot_id, last_at)
	SELECT $1, $2, $3::uuid, clock_timestamp()
	WHERE $4 IN ('', '` + messages.NoSnapshot + `') OR EXISTS (SELECT FROM morello.snapshot_head WHERE tenant = $1 AND agent_id = $2)
	ON CONFLICT (tenant, agent_id) DO UPDATE
		SET snapshot_id = excluded.snapshot_id, previous_id = h.snapshot_id,
			last_at = greatest(clock_timestamp(), h.last_at + interval '1 microsecond')
		WHERE $4 = '' OR coalesce(h.snapshot_id::text, '` + messages.NoSnapshot + `') = lower($4)`

// queueHead moves the head, under whose lock all that follows happens, unless it is not the one that the request wants.
func queueHead(batch *pgx.Batch, c *creation) {
	postgres.PinPlans(batch)
	batch.Queue(moveHead, c.tenant, c.AgentID, c.SnapshotID, c.IfHead)
}

// relies are the snapshots that must be there: the base, and the parent that the request names.
func (c *creation) relies(base *base) []string {
	needed := []string{}
	if base != nil {
		needed = append(needed, base.snapshotID)
	}
	if c.ParentID != "" && !slices.Contains(needed, c.ParentID) {
		needed = append(needed, c.ParentID)
	}
	return needed
}

// storing writes the chunks in the arguments $3 to $8 that the tenant does not have, and touches those that were not touched
// lately, as the package comment explains. It takes them in the order of their hashes, so that two creations with the same chunks never wait
// for each other in a circle. It also notes that the agent has the texts.
const (
	storing = `
		sent AS MATERIALIZED (
			SELECT * FROM unnest($3::bytea[], $4::smallint[], $5::bytea[], $6::bytea[], $7::bytea[], $8::text[])
				AS sent (hash, encoding, nodes, leaves, body, text)
		), stored AS (
			INSERT INTO morello.snapshot_chunk AS c (tenant, hash, touched_at, encoding, nodes, leaves, body, text)
			SELECT $1, hash, clock_timestamp(), encoding, nodes, leaves, body, text FROM sent
			WHERE NOT EXISTS (
				SELECT FROM morello.snapshot_chunk AS c WHERE c.tenant = $1 AND c.hash = sent.hash AND c.touched_at > ` + lately + `
			)
			ORDER BY hash
			ON CONFLICT (tenant, hash) DO UPDATE SET touched_at = excluded.touched_at WHERE c.touched_at <= ` + lately + `
			RETURNING xmax = 0 AS added, ` + chunkBytes + ` AS bytes
		), found_by AS (
			INSERT INTO morello.snapshot_text (tenant, hash, agent_id)
			SELECT $1, hash, $2 FROM sent WHERE text IS NOT NULL ORDER BY hash
			ON CONFLICT DO NOTHING
		)`
	addedBytes = `(SELECT coalesce(sum(bytes), 0) FROM stored WHERE added)`
)

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

// sending is the chunks that one statement writes, by column. They are encoded when their turn comes: all at once they would be
// the document once more.
type sending struct {
	hashes        [][]byte
	encodings     []int16
	nodes, leaves [][]byte
	bodies        [][]byte
	texts         []*string
}

func newSending(made *tree, hashes []Hash) *sending {
	s := &sending{}
	for _, hash := range hashes {
		r := encode(hash, made.fresh[hash])
		s.hashes, s.encodings = append(s.hashes, r.Hash), append(s.encodings, int16(r.Encoding))
		s.nodes, s.leaves = append(s.nodes, r.Nodes), append(s.leaves, r.Leaves)
		s.bodies, s.texts = append(s.bodies, r.Body), append(s.texts, r.Text)
	}
	return s
}

func (s *sending) args(c *creation, more ...any) []any {
	return append([]any{c.tenant, c.AgentID, s.hashes, s.encodings, s.nodes, s.leaves, s.bodies, s.texts}, more...)
}

// queueChunks writes chunks, and adds up what they cost.
func queueChunks(batch *pgx.Batch, c *creation, s *sending, added *int64) {
	batch.Queue(`WITH `+storing+` SELECT `+addedBytes, s.args(c)...).QueryRow(func(row pgx.Row) error {
		var bytes int64
		err := row.Scan(&bytes)
		*added += bytes
		return err
	})
}

// queueSnapshot writes the last chunks and the snapshot, whose parent is the head before if the request names none. It locks what
// the creation relies on until the commit, and refuses if that is gone or the head was not moved.
func queueSnapshot(batch *pgx.Batch, c *creation, base *base, s *sending, before int64, made *messages.Snapshot) {
	const sql = `
		WITH ` + storing + `, locked AS MATERIALIZED (
			SELECT FROM morello.snapshot WHERE tenant = $1 AND agent_id = $2 AND snapshot_id = ANY ($20::uuid[])
			FOR KEY SHARE
		), checked AS MATERIALIZED (
			SELECT CASE
				WHEN NOT EXISTS (SELECT FROM morello.snapshot_head WHERE tenant = $1 AND agent_id = $2 AND snapshot_id = $9::uuid)
					THEN morello.refuse('` + headMoved + `')
				WHEN (SELECT count(*) FROM locked) < cardinality($20::uuid[]) THEN morello.refuse('` + baseMissing + `')
			END
		), made AS (
			INSERT INTO morello.snapshot (
				tenant, snapshot_id, agent_id, user_id, parent_id, ancestor_id, label, metadata, vector_ids, size_bytes,
				content_hash, document_sha256, document_bytes, stored_bytes, partially_indexed, restored_from, created_at)
			SELECT $1, $9::uuid, $2, nullif($10, ''), coalesce(nullif($11, '')::uuid, h.previous_id), coalesce(nullif($11, '')::uuid, h.previous_id),
				nullif($12, ''), $13::text::jsonb, $14, octet_length($13::text) + octet_length(array_to_string($14::text[], '')),
				decode($15, 'hex'), $16, $17, $18::bigint + ` + addedBytes + `, $19, NULL, h.last_at
			FROM morello.snapshot_head AS h WHERE h.tenant = $1 AND h.agent_id = $2
			RETURNING coalesce(parent_id::text, '') AS parent_id, stored_bytes, created_at, metadata
		)
		SELECT parent_id, stored_bytes, created_at, metadata FROM checked LEFT JOIN made ON true`
	args := s.args(c, made.SnapshotID, made.UserID, c.ParentID, made.Label, string(made.Metadata), made.VectorIDs,
		made.ContentHash, c.sha256[:], made.SizeBytes, before, made.PartiallyIndexed, c.relies(base))
	batch.Queue(sql, args...).QueryRow(func(row pgx.Row) error {
		return row.Scan(&made.ParentID, &made.StoredBytes, &made.CreatedAt, (*[]byte)(&made.Metadata))
	})
}

// repeated answers a request whose snapshot_id is taken: with that snapshot if it is the same, which changes nothing.
func (s *Service) repeated(ctx context.Context, c *creation, root Hash, cause error) (messages.SnapshotReply, error) {
	return postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (messages.SnapshotReply, error) {
		found, err := find(ctx, db, c.tenant, byID(c.SnapshotID), "snapshot_id")
		if err == nil && (found.AgentID != c.AgentID || rootOf(found) != root) {
			err = &messages.Error{
				Code: messages.CodeConflict, Message: "is that of a snapshot with other content already",
				Details: messages.ErrorDetails{Field: "snapshot_id"}, Cause: cause,
			}
		}
		return messages.SnapshotReply{Snapshot: found}, err
	})
}

// overtaken answers a request that wants another head than there is: with the head's name, unless it is its own repetition.
func (s *Service) overtaken(ctx context.Context, c *creation, root Hash) (messages.SnapshotReply, error) {
	if reply, err := s.repeated(ctx, c, root, nil); err == nil {
		return reply, nil
	}
	return postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (reply messages.SnapshotReply, err error) {
		const sql = `SELECT coalesce((SELECT snapshot_id::text FROM morello.snapshot_head WHERE tenant = $1 AND agent_id = $2), '')`
		var head string
		if err = db.QueryRow(ctx, sql, c.tenant, c.AgentID).Scan(&head); err == nil {
			err = headConflict(head)
		}
		return reply, err
	})
}

func headConflict(head string) error {
	message := "the agent has no head"
	if head != "" {
		message = "the agent's head is " + head
	}
	return &messages.Error{Code: messages.CodeConflict, Message: message, Details: messages.ErrorDetails{Field: "if_head", SnapshotID: head}}
}
