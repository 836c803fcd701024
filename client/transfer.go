package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/ai-cherry/morello/messages"
)

const (
	// partsInFlight is how many parts of one document are on their way at once.
	partsInFlight = 4
	// tidyTimeout bounds the removal of parts that nobody needs; they expire all the same.
	tidyTimeout = 2 * time.Second
)

// Transfer has the operations on documents that are too large for one message. Upload and Download do all that is needed.
type Transfer struct{ client *Client }

// Transfer returns the operations on transfers.
func (c *Client) Transfer() Transfer { return Transfer{c} }

// Put stores a part of a document. It may be repeated: the last of a part stays.
func (t Transfer) Put(ctx context.Context, request messages.TransferPut) (messages.TransferPutReply, error) {
	return Call(ctx, t.client, messages.TransferPutEndpoint, request)
}

// Get returns the bytes of a part; not_found when it is not there, or has expired.
func (t Transfer) Get(ctx context.Context, request messages.TransferGet) (messages.TransferGetReply, error) {
	return Call(ctx, t.client, messages.TransferGetEndpoint, request)
}

// Delete deletes all parts of a transfer.
func (t Transfer) Delete(ctx context.Context, request messages.TransferDelete) (messages.TransferDeleteReply, error) {
	return Call(ctx, t.client, messages.TransferDeleteEndpoint, request)
}

// Upload stores a document in parts and returns the id to name in a request, as data_transfer_id. The request may be repeated for
// an hour; Delete makes room earlier. Four parts are on their way at once, so that it holds as many in memory; each has the
// deadline of a call. The idempotency key of the context is left to that request. What was stored of a document that failed is
// deleted. An empty document is invalid.
func (t Transfer) Upload(ctx context.Context, document io.Reader) (transferID string, err error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("making an id: %w", err)
	}
	if err := t.upload(WithIdempotencyKey(ctx, ""), id.String(), document); err != nil {
		t.tidy(ctx, id.String())
		return "", err
	}
	return id.String(), nil
}

// upload ends at the first failure of a part, and when the caller's context does.
func (t Transfer) upload(ctx context.Context, id string, document io.Reader) error {
	parts, partsCtx := errgroup.WithContext(ctx)
	parts.SetLimit(partsInFlight)
	err := eachPart(partsCtx, document, func(part int, data []byte) {
		parts.Go(func() error {
			_, err := t.Put(partsCtx, messages.TransferPut{TransferID: id, Part: part, Data: data})
			return err
		})
	})
	if failed := parts.Wait(); failed != nil {
		return failed
	}
	return err
}

// eachPart cuts a document into parts, each in memory of its own.
func eachPart(ctx context.Context, document io.Reader, do func(part int, data []byte)) error {
	for part := 0; ; part++ {
		if ctx.Err() != nil {
			return ended(ctx.Err())
		}
		data := make([]byte, messages.TransferPartBytes)
		n, err := io.ReadFull(document, data)
		if n > 0 {
			do(part, data[:n])
		}
		switch {
		case n == 0 && part == 0 && errors.Is(err, io.EOF):
			return messages.Invalid("", "the document is empty")
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading the document: %w", err)
		}
	}
}

// Download returns a document that a reply offered as data_transfer, after it has compared it with its SHA-256, and deletes it.
// Four parts are on their way at once; each has the deadline of a call. A part that is not there, because an hour has passed or
// somebody has downloaded it before, is not_found.
func (t Transfer) Download(ctx context.Context, offered messages.DataTransfer) ([]byte, error) {
	if offered.SizeBytes < 0 || offered.SizeBytes > messages.MaxTransferBytes || offered.Parts != partsOf(offered.SizeBytes) {
		return nil, messages.Invalid("data_transfer", "is no offer of Morello: %d parts of %d bytes", offered.Parts, offered.SizeBytes)
	}
	document := make([]byte, offered.SizeBytes)
	parts, partsCtx := errgroup.WithContext(ctx)
	parts.SetLimit(partsInFlight)
	for part := range offered.Parts {
		parts.Go(func() error { return t.download(partsCtx, offered.TransferID, part, document) })
	}
	if err := parts.Wait(); err != nil {
		return nil, err
	}
	if hash := sha256.Sum256(document); hex.EncodeToString(hash[:]) != offered.SHA256 {
		return nil, damaged(offered.TransferID, "its SHA-256 is another")
	}
	t.tidy(ctx, offered.TransferID)
	return document, nil
}

func partsOf(sizeBytes int64) int {
	return int((sizeBytes + messages.TransferPartBytes - 1) / messages.TransferPartBytes)
}

// download reads a part into its place in the document.
func (t Transfer) download(ctx context.Context, id string, part int, document []byte) error {
	reply, err := t.Get(ctx, messages.TransferGet{TransferID: id, Part: part})
	if err != nil {
		return err
	}
	place := document[part*messages.TransferPartBytes:]
	if want := min(len(place), messages.TransferPartBytes); len(reply.Data) != want {
		return damaged(id, fmt.Sprintf("part %d has %d bytes, not %d", part, len(reply.Data), want))
	}
	copy(place, reply.Data)
	return nil
}

func damaged(id, why string) error {
	return &messages.Error{Code: messages.CodeInternal, Message: fmt.Sprintf("the document of transfer %s is damaged: %s", id, why)}
}

// tidy deletes a transfer that nobody needs any more, also for a caller that has gone.
func (t Transfer) tidy(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(WithIdempotencyKey(context.WithoutCancel(ctx), ""), tidyTimeout)
	defer cancel()
	if _, err := t.Delete(ctx, messages.TransferDelete{TransferID: id}); err != nil {
		t.client.log.Debug("a transfer was left to expire", "transfer_id", id, "error", err)
	}
}
