package snapshot

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"strconv"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/semaphore"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

const (
	// smallDocument is read with the snapshot, in one round trip; for a larger one there must be memory first.
	smallDocument = 1 << 20
	// copies of a document are in memory at a time, at most, when it is cut or put together.
	copies = 3
	// defaultLargeBytes has room for one document of 64 MiB.
	defaultLargeBytes = copies * maxDocument
	// defaultBaseBytes is what a worker remembers of trees.
	defaultBaseBytes = 64 << 20
)

// Config sets up a Service.
type Config struct {
	// Events publishes what happened to snapshots, after it is durable. Defaults to nothing.
	Events *bus.Publisher
	// InsertJob inserts a job in the transaction that it is given, and returns its id. Required for restore and verify.
	InsertJob func(ctx context.Context, db postgres.Querier, args jobs.Args) (jobID int64, err error)
	// TakeTransfer returns the document of a transfer. Required for data_transfer_id.
	TakeTransfer func(ctx context.Context, tenant, transferID string) ([]byte, error)
	// OfferTransfer stores a document that is too large for a reply. Required for such documents.
	OfferTransfer func(ctx context.Context, tenant string, document io.Reader) (messages.DataTransfer, error)
	// LargeBytes bounds the memory for documents over 1 MiB that are read or written at a time; it must have room for three copies
	// of the largest. Defaults to 192 MiB.
	LargeBytes int64
	// BaseBytes bounds what is remembered of the trees of recent heads. Defaults to 64 MiB.
	BaseBytes int64
}

// Service answers the operations of snapshots. All methods are safe for concurrent use. Close it at the end.
type Service struct {
	pool     *postgres.Pool
	cfg      Config
	large    *semaphore.Weighted
	bases    *bases
	together *postgres.Batcher[*addition, messages.Snapshot]
}

// New returns a service.
func New(pool *postgres.Pool, cfg Config) *Service {
	if cfg.LargeBytes <= 0 {
		cfg.LargeBytes = defaultLargeBytes
	}
	if cfg.BaseBytes <= 0 {
		cfg.BaseBytes = defaultBaseBytes
	}
	s := &Service{pool: pool, cfg: cfg, large: semaphore.NewWeighted(cfg.LargeBytes), bases: newBases(cfg.BaseBytes)}
	s.together = s.newTogether()
	return s
}

// Close ends the work at hand. Call it when no request can come any more.
func (s *Service) Close() { s.together.Close() }

// holdLarge waits for the memory that a document takes.
func (s *Service) holdLarge(ctx context.Context, size int64) (release func(), err error) {
	if size <= smallDocument {
		return func() {}, nil
	}
	size = min(copies*size, s.cfg.LargeBytes)
	if err := s.large.Acquire(ctx, size); err != nil {
		return nil, err
	}
	return func() { s.large.Release(size) }, nil
}

// columns are what scanSnapshot takes.
const columns = `
	snapshot_id::text, agent_id, coalesce(user_id, ''), coalesce(parent_id::text, ''), coalesce(label, ''), metadata, vector_ids,
	encode(content_hash, 'hex'), encode(document_sha256, 'hex'), document_bytes, stored_bytes, created_at, partially_indexed,
	coalesce(restored_from::text, '')`

func scanSnapshot(row pgx.CollectableRow, following ...any) (messages.Snapshot, error) {
	var s messages.Snapshot
	err := row.Scan(append([]any{
		&s.SnapshotID, &s.AgentID, &s.UserID, &s.ParentID, &s.Label, (*[]byte)(&s.Metadata), &s.VectorIDs,
		&s.ContentHash, &s.DocumentSHA256, &s.SizeBytes, &s.StoredBytes, &s.CreatedAt, &s.PartiallyIndexed, &s.RestoredFrom,
	}, following...)...)
	return s, err
}

func collectSnapshots(rows pgx.Rows) ([]messages.Snapshot, error) {
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (messages.Snapshot, error) { return scanSnapshot(row) })
}

func notFound(field string) error {
	return &messages.Error{Code: messages.CodeNotFound, Message: "there is no such snapshot", Details: messages.ErrorDetails{Field: field}}
}

// which selects one snapshot of the tenant $1, by the arguments that follow.
type which struct {
	sql  string
	args []any
}

func byID(id string) which { return which{`snapshot_id = $2`, []any{id}} }

// newest is the head of an agent, or its newest snapshot of a user.
func newest(agentID, userID string) which {
	if userID == "" {
		return which{`snapshot_id = (SELECT snapshot_id FROM morello.snapshot_head WHERE tenant = $1 AND agent_id = $2)`, []any{agentID}}
	}
	return which{`snapshot_id = (
		SELECT snapshot_id FROM morello.snapshot WHERE tenant = $1 AND agent_id = $2 AND user_id = $3
		ORDER BY created_at DESC LIMIT 1)`, []any{agentID, userID}}
}

// find reads one snapshot.
func find(ctx context.Context, db postgres.Querier, tenant string, w which, field string) (messages.Snapshot, error) {
	rows, err := db.Query(ctx, `SELECT `+columns+` FROM morello.snapshot WHERE tenant = $1 AND `+w.sql, append([]any{tenant}, w.args...)...)
	if err != nil {
		return messages.Snapshot{}, err
	}
	found, err := collectSnapshots(rows)
	if err == nil && len(found) == 0 {
		err = notFound(field)
	}
	return postgres.Only(found), err
}

// Get returns a snapshot with its data, or a part of them.
func (s *Service) Get(ctx context.Context, tenant string, m messages.SnapshotGet) (messages.SnapshotDataReply, error) {
	if m.Path != "" {
		return s.getPath(ctx, tenant, m)
	}
	return s.read(ctx, tenant, byID(m.SnapshotID), "snapshot_id")
}

// Latest returns the newest snapshot of an agent.
func (s *Service) Latest(ctx context.Context, tenant string, m messages.SnapshotLatest) (messages.SnapshotDataReply, error) {
	if m.WithData == nil || *m.WithData {
		return s.read(ctx, tenant, newest(m.AgentID, m.UserID), "agent_id")
	}
	return postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (messages.SnapshotDataReply, error) {
		found, err := find(ctx, db, tenant, newest(m.AgentID, m.UserID), "agent_id")
		return messages.SnapshotDataReply{Snapshot: found}, err
	})
}

// read reads a snapshot with its document. When chunks are missing because the head has moved on between two statements, it reads
// what was the head; when because the snapshot was deleted, it is not there.
func (s *Service) read(ctx context.Context, tenant string, w which, field string) (messages.SnapshotDataReply, error) {
	if err := bus.Reserve(ctx, smallDocument); err != nil {
		return messages.SnapshotDataReply{}, err
	}
	found, document, err := s.readWhole(ctx, tenant, w, field)
	if errors.Is(err, errMissing) {
		found, document, err = s.readWhole(ctx, tenant, byID(found.SnapshotID), field)
	}
	if err != nil {
		return messages.SnapshotDataReply{}, damage(err)
	}
	return s.answer(ctx, tenant, found, document)
}

// readWhole reads a small document in one round trip with its snapshot, and a large one when there is memory for it.
func (s *Service) readWhole(ctx context.Context, tenant string, w which, field string) (found messages.Snapshot, document []byte, err error) {
	type whole struct {
		snapshot messages.Snapshot
		chunks   chunks
	}
	small, err := postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (whole, error) {
		snapshot, all, err := findWhole(ctx, db, tenant, w, field)
		return whole{snapshot, all}, err
	})
	if err != nil {
		return small.snapshot, nil, err
	}
	size, root := small.snapshot.SizeBytes, rootOf(small.snapshot)
	if size <= smallDocument {
		document, err = small.chunks.join(root, size)
		return small.snapshot, document, err
	}
	release, err := s.holdLarge(ctx, size)
	if err != nil {
		return small.snapshot, nil, err
	}
	defer release()
	document, err = postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) ([]byte, error) {
		return assemble(ctx, db, tenant, root, size)
	})
	return small.snapshot, document, err
}

// findWhole reads a snapshot and, if it is small, all its chunks.
func findWhole(ctx context.Context, db postgres.Querier, tenant string, w which, field string) (found messages.Snapshot, all chunks, err error) {
	args := append([]any{tenant}, w.args...)
	batch := &pgx.Batch{}
	batch.Queue(`SELECT `+columns+` FROM morello.snapshot WHERE tenant = $1 AND `+w.sql, args...).Query(func(rows pgx.Rows) error {
		list, err := collectSnapshots(rows)
		if err == nil && len(list) == 0 {
			return notFound(field)
		}
		found = postgres.Only(list)
		return err
	})
	roots := `SELECT content_hash FROM morello.snapshot WHERE tenant = $1 AND document_bytes <= ` + strconv.Itoa(smallDocument) + ` AND ` + w.sql
	batch.Queue(chunksSQL(roots), args...).Query(func(rows pgx.Rows) (err error) {
		all, err = collectChunks(rows)
		return err
	})
	err = db.SendBatch(ctx, batch).Close()
	return found, all, err
}

// answer puts the data into a reply, or offers them as a transfer.
func (s *Service) answer(ctx context.Context, tenant string, found messages.Snapshot, data []byte) (messages.SnapshotDataReply, error) {
	reply := messages.SnapshotDataReply{Snapshot: found}
	if len(data) <= messages.MaxReplyBytes-messages.MaxPageBytes*2 {
		reply.Data = data
		return reply, nil
	}
	offer, err := s.cfg.OfferTransfer(ctx, tenant, bytes.NewReader(data))
	reply.DataTransfer = &offer
	return reply, err
}

// damage makes of a chunk that cannot be used the failure that names it.
func damage(err error) error {
	var f *fault
	if errors.As(err, &f) {
		return &messages.Error{Code: messages.CodeInternal, Message: f.Error() + "; the data are not served", Cause: err}
	}
	return err
}

// named is a snapshot and the field of the request that names it.
type named struct{ field, id string }

// damageOrDeletion is damage of what was read in several statements: a chunk may be missing because a snapshot was deleted, and
// swept, between them.
func (s *Service) damageOrDeletion(ctx context.Context, tenant string, err error, read ...named) error {
	if !errors.Is(err, errMissing) {
		return damage(err)
	}
	for _, n := range read {
		_, gone := postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (messages.Snapshot, error) {
			return find(ctx, db, tenant, byID(n.id), n.field)
		})
		if gone != nil {
			return gone
		}
	}
	return damage(err)
}

func isFault(err error) bool { return errors.As(err, new(*fault)) }

func rootOf(s messages.Snapshot) (root Hash) {
	_, _ = hex.Decode(root[:], []byte(s.ContentHash))
	return root
}

func ref(s messages.Snapshot) messages.SnapshotRef {
	return messages.SnapshotRef{SnapshotID: s.SnapshotID, AgentID: s.AgentID, UserID: s.UserID, ParentID: s.ParentID}
}
