package snapshot

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// createAttempts: the second one knows what the first relied on in vain; a third is for a deletion in between.
const createAttempts = 3

// errNotMade says that a creation was refused, as moveHeads has it.
var errNotMade = errors.New("the snapshot was not made")

// errOutdated says that what a creation relied on is not there any more.
var errOutdated = errors.New("the base is gone")

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
		case !errors.Is(err, errOutdated):
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
	base, err := s.baseFor(ctx, c)
	if err != nil {
		return messages.SnapshotReply{}, err
	}
	a := &addition{creation: c, made: build(c.document, base.has), base: base}
	sent := divide(a.made)
	if a.fitsTogether(ctx, sent) {
		a.last = sent[0]
		snapshot, err := s.together.Do(ctx, a)
		if !errors.Is(err, errAlone) {
			return messages.SnapshotReply{Snapshot: snapshot}, err
		}
	}
	ran := false
	reply, err := s.store(ctx, a, sent, &ran)
	switch {
	case err == nil && ran:
		s.created(a, reply.Snapshot)
	case postgres.ViolatedConstraint(err) == "snapshot_pkey", errors.Is(err, errNotMade):
		return s.refused(ctx, a, err)
	case postgres.SQLState(err) == baseMissing:
		return reply, s.outdated(a, err)
	}
	return reply, err
}

// created notes and tells that a snapshot was stored.
func (s *Service) created(a *addition, snapshot messages.Snapshot) {
	s.bases.put(agentKey{a.tenant, a.AgentID}, newBase(snapshot.SnapshotID, a.made.hashes))
	bus.Emit(s.cfg.Events, messages.SnapshotCreatedEvent, a.tenant, ref(snapshot))
}

// outdated forgets the base of an agent.
func (s *Service) outdated(a *addition, cause error) error {
	s.bases.forget(agentKey{a.tenant, a.AgentID})
	return fmt.Errorf("%w: %w", errOutdated, cause)
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

// snapshot is what the request says of the snapshot, and what the document does. The rest is decided when it is stored.
func (a *addition) snapshot() messages.Snapshot {
	return messages.Snapshot{
		SnapshotID: a.SnapshotID, AgentID: a.AgentID, UserID: a.UserID, Label: a.Label, Metadata: a.metadata(),
		VectorIDs: append([]string{}, a.VectorIDs...), ContentHash: a.made.root.String(), DocumentSHA256: hex.EncodeToString(a.sha256[:]),
		SizeBytes: int64(len(a.document)), PartiallyIndexed: a.made.partiallyIndexed,
	}
}

func (c *creation) metadata() jsontext.Value {
	if c.Metadata.Kind() != '{' {
		return jsontext.Value(`{}`)
	}
	return c.Metadata
}

// refused answers a creation that was not stored: with the snapshot of its id if that is the same, as of a request that is repeated;
// with the head's name if it wants another; otherwise it has relied on what is not there any more.
func (s *Service) refused(ctx context.Context, a *addition, cause error) (messages.SnapshotReply, error) {
	return postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (reply messages.SnapshotReply, err error) {
		const sql = `SELECT coalesce((SELECT snapshot_id::text FROM morello.snapshot_head WHERE tenant = $1 AND agent_id = $2), '')`
		reply.Snapshot, err = find(ctx, db, a.tenant, byID(a.SnapshotID), "snapshot_id")
		isTaken := err == nil
		if isTaken && reply.Snapshot.AgentID == a.AgentID && reply.Snapshot.DocumentSHA256 == hex.EncodeToString(a.sha256[:]) {
			return reply, nil
		}
		var head string
		if err = db.QueryRow(ctx, sql, a.tenant, a.AgentID).Scan(&head); err != nil {
			return reply, err
		}
		switch {
		case a.IfHead != "" && !strings.EqualFold(a.IfHead, cmp.Or(head, messages.NoSnapshot)):
			return messages.SnapshotReply{}, headConflict(head)
		case isTaken:
			return messages.SnapshotReply{}, &messages.Error{
				Code: messages.CodeConflict, Message: "is that of a snapshot with other content already",
				Details: messages.ErrorDetails{Field: "snapshot_id"}, Cause: cause,
			}
		}
		return messages.SnapshotReply{}, s.outdated(a, cause)
	})
}

func headConflict(head string) error {
	message := "the agent has no head"
	if head != "" {
		message = "the agent's head is " + head
	}
	return &messages.Error{Code: messages.CodeConflict, Message: message, Details: messages.ErrorDetails{Field: "if_head", SnapshotID: head}}
}
