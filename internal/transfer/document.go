package transfer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// field is what requests name a transfer in.
const field = "data_transfer_id"

// Open returns the size of a document that a caller has put, and its parts in their order, each read when its turn comes. It
// first takes the memory for the whole document (bus.Reserve), so call it once in a request. Nothing is deleted: the same can be
// read again. A transfer that is not there is not_found, one with a gap invalid, naming the part that is missing. A part is valid
// until the next is read; after an error there is none.
//
// No connection is held between parts. So a part may be put again or deleted after Open: one that is gone or has another length
// is conflict, another of the same length is read in its place.
func (s *Service) Open(ctx context.Context, tenant, transferID string) (sizeBytes int64, parts iter.Seq2[[]byte, error], err error) {
	sizes, err := s.sizes(ctx, tenant, transferID)
	if err != nil {
		return 0, nil, err
	}
	for _, size := range sizes {
		sizeBytes += int64(size)
	}
	if err := bus.Reserve(ctx, sizeBytes); err != nil {
		return 0, nil, err
	}
	return sizeBytes, func(yield func([]byte, error) bool) {
		for part, size := range sizes {
			data, err := s.part(ctx, tenant, transferID, part, size)
			if !yield(data, err) || err != nil {
				return
			}
		}
	}, nil
}

// Take returns the whole of a document that a caller has put. It is Open for who needs it in one piece.
func (s *Service) Take(ctx context.Context, tenant, transferID string) ([]byte, error) {
	sizeBytes, parts, err := s.Open(ctx, tenant, transferID)
	if err != nil {
		return nil, err
	}
	document := make([]byte, 0, sizeBytes)
	for part, err := range parts {
		if err != nil {
			return nil, err
		}
		document = append(document, part...)
	}
	return document, nil
}

// sizes returns the sizes of the parts, which are there without a gap.
func (s *Service) sizes(ctx context.Context, tenant, transferID string) ([]int, error) {
	const sql = `
		SELECT part, octet_length(data) FROM morello.transfer_part
		WHERE tenant = $1 AND transfer_id = $2 AND expires_at > now() ORDER BY part`
	return postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (sizes []int, err error) {
		rows, err := db.Query(ctx, sql, tenant, transferID)
		if err != nil {
			return nil, err
		}
		var part, size int
		_, err = pgx.ForEachRow(rows, []any{&part, &size}, func() error {
			if part != len(sizes) {
				return messages.Invalid(field, "part %d is missing", len(sizes))
			}
			sizes = append(sizes, size)
			return nil
		})
		if err == nil && len(sizes) == 0 {
			err = notFound(field, "there is no such transfer; it lives for an hour")
		}
		return sizes, err
	})
}

// part reads a part that had so many bytes.
func (s *Service) part(ctx context.Context, tenant, transferID string, part, size int) ([]byte, error) {
	const sql = `
		SELECT data FROM morello.transfer_part
		WHERE tenant = $1 AND transfer_id = $2 AND part = $3 AND octet_length(data) = $4`
	return postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (data []byte, err error) {
		err = db.QueryRow(ctx, sql, tenant, transferID, part, size).Scan(&data)
		if errors.Is(err, pgx.ErrNoRows) {
			err = &messages.Error{
				Code: messages.CodeConflict, Message: fmt.Sprintf("part %d was changed or deleted while it was read", part),
				Details: messages.ErrorDetails{Field: field},
			}
		}
		return data, err
	})
}

// Offer stores a document for the caller to read in parts, because it is too large for one reply. It counts in the tenant's
// quota: quota_exceeded leaves nothing behind. It holds one part in memory, and is not undone when the caller fails later.
func (s *Service) Offer(ctx context.Context, tenant string, document io.Reader) (messages.DataTransfer, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return messages.DataTransfer{}, fmt.Errorf("making an id: %w", err)
	}
	offered := messages.DataTransfer{TransferID: id.String()}
	if err := s.offer(ctx, tenant, document, &offered); err != nil {
		return messages.DataTransfer{}, errors.Join(err, s.withdraw(ctx, tenant, offered))
	}
	return offered, nil
}

// offer notes in offered what it has stored.
func (s *Service) offer(ctx context.Context, tenant string, document io.Reader, offered *messages.DataTransfer) error {
	ctx = messages.WithCall(ctx, &messages.Call{}) // the key of the request is for its own change
	buffer, hash := make([]byte, messages.TransferPartBytes), sha256.New()
	for {
		n, err := io.ReadFull(document, buffer)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("reading the document: %w", err)
		}
		if n == 0 {
			break
		}
		part := messages.TransferPut{TransferID: offered.TransferID, Part: offered.Parts, Data: buffer[:n]}
		if _, err := s.Put(ctx, tenant, part); err != nil {
			return err
		}
		hash.Write(buffer[:n])
		offered.Parts++
		offered.SizeBytes += int64(n)
	}
	offered.SHA256 = hex.EncodeToString(hash.Sum(nil))
	return nil
}

// withdrawTimeout bounds the removal of an offer that failed; it expires all the same.
const withdrawTimeout = 2 * time.Second

func (s *Service) withdraw(ctx context.Context, tenant string, offered messages.DataTransfer) error {
	if offered.Parts == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(messages.WithCall(context.WithoutCancel(ctx), &messages.Call{}), withdrawTimeout)
	defer cancel()
	_, err := s.Delete(ctx, tenant, messages.TransferDelete{TransferID: offered.TransferID})
	return err
}
