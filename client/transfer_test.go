package client_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/client"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

func randomBytes(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(data) // it never fails
	return data
}

// offer is what a reply would offer of a document that was uploaded.
func offer(id string, document []byte) messages.DataTransfer {
	hash := sha256.Sum256(document)
	return messages.DataTransfer{
		TransferID: id, Parts: (len(document) + 524287) / 524288, SizeBytes: int64(len(document)), SHA256: hex.EncodeToString(hash[:]),
	}
}

// TestUploadAndDownload: a document of any size comes back, through a real worker, once.
func TestUploadAndDownload(t *testing.T) {
	t.Parallel()
	c := connect(t, client.Config{URL: startStack(t)}).Transfer()
	for _, size := range []int{1, 524288, 524289, 5 << 20} {
		document := randomBytes(size)
		ctx := client.WithIdempotencyKey(t.Context(), "of the request that names the transfer")
		id, err := c.Upload(ctx, iotest.HalfReader(bytes.NewReader(document)))
		require.NoError(t, err)
		got, err := c.Download(ctx, offer(id, document))
		require.NoError(t, err)
		require.True(t, bytes.Equal(document, got), "%d bytes", size)
		deleted, err := c.Delete(t.Context(), messages.TransferDelete{TransferID: id})
		require.NoError(t, err)
		require.False(t, deleted.Deleted, "it is deleted by then")
		_, err = c.Download(ctx, offer(id, document))
		requireCode(t, messages.CodeNotFound, err)
	}
	_, err := c.Upload(t.Context(), bytes.NewReader(nil))
	requireCode(t, messages.CodeInvalid, err)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Upload(ended, bytes.NewReader([]byte("nobody waits")))
	requireCode(t, messages.CodeDeadlineExceeded, err)
}

// TestDownloadFindsDamage: what is not what was offered is no document.
func TestDownloadFindsDamage(t *testing.T) {
	t.Parallel()
	c := connect(t, client.Config{URL: startStack(t)}).Transfer()
	document := randomBytes(600_000)
	id, err := c.Upload(t.Context(), bytes.NewReader(document))
	require.NoError(t, err)
	for what, change := range map[string]func(o *messages.DataTransfer){
		"another hash":  func(o *messages.DataTransfer) { o.SHA256 = o.SHA256[1:] + "0" },
		"a byte less":   func(o *messages.DataTransfer) { o.SizeBytes-- },
		"one part only": func(o *messages.DataTransfer) { o.SizeBytes, o.Parts = 1000, 1 },
	} {
		offered := offer(id, document)
		change(&offered)
		_, err = c.Download(t.Context(), offered)
		requireCode(t, messages.CodeInternal, err)
		require.ErrorContains(t, err, "damaged", what)
	}
	for what, change := range map[string]func(o *messages.DataTransfer){
		"parts that do not fit": func(o *messages.DataTransfer) { o.Parts++ },
		"no size":               func(o *messages.DataTransfer) { o.SizeBytes = -1 },
		"any size":              func(o *messages.DataTransfer) { o.SizeBytes = 1 << 62 },
	} {
		offered := offer(id, document)
		change(&offered)
		_, err = c.Download(t.Context(), offered)
		require.Equal(t, "data_transfer", requireCode(t, messages.CodeInvalid, err).Field, what)
	}
	_, err = c.Download(t.Context(), offer(id, document)) // none of them deleted it
	require.NoError(t, err)
}

// TestUploadThatFails leaves nothing behind.
func TestUploadThatFails(t *testing.T) {
	t.Parallel()
	natsURL := devtest.NATS(t).URL()
	puts := respond(t, natsURL, "transfer.put", func(int, *nats.Msg) *messages.Error { return nil })
	deletes := respond(t, natsURL, "transfer.delete", func(int, *nats.Msg) *messages.Error { return nil })
	c := connect(t, client.Config{URL: natsURL}).Transfer()
	broken := errors.New("the disk is gone")
	_, err := c.Upload(t.Context(), io.MultiReader(bytes.NewReader(make([]byte, 1<<20)), iotest.ErrReader(broken)))
	require.ErrorIs(t, err, broken)
	require.Len(t, puts, 2)
	require.Contains(t, string((<-deletes).Data), (<-puts).Header.Get("Morello-Transfer"))
}

// TestUploadIsRepeated: a part whose fate is unknown is sent again, without a key; one that is refused ends the upload.
func TestUploadIsRepeated(t *testing.T) {
	t.Parallel()
	natsURL := devtest.NATS(t).URL()
	seen := respond(t, natsURL, "transfer.put", func(n int, _ *nats.Msg) *messages.Error {
		switch n {
		case 1:
			return failure(messages.CodeUnavailable, messages.ErrorDetails{Outcome: messages.OutcomeUnknown})
		case 2:
			return nil
		}
		return failure(messages.CodeQuotaExceeded, messages.ErrorDetails{})
	})
	respond(t, natsURL, "transfer.delete", func(int, *nats.Msg) *messages.Error { return nil })
	c := connect(t, client.Config{URL: natsURL}).Transfer()
	_, err := c.Upload(t.Context(), bytes.NewReader([]byte("one part")))
	require.NoError(t, err)
	require.Len(t, seen, 2)
	require.Equal(t, (<-seen).Data, (<-seen).Data)
	_, err = c.Upload(t.Context(), bytes.NewReader(make([]byte, 1<<20)))
	requireCode(t, messages.CodeQuotaExceeded, err)
}

// TestUploadEndsWithItsContext: nothing more is read or sent.
func TestUploadEndsWithItsContext(t *testing.T) {
	t.Parallel()
	natsURL := devtest.NATS(t).URL()
	ctx, cancel := context.WithCancel(t.Context())
	respond(t, natsURL, "transfer.put", func(int, *nats.Msg) *messages.Error { cancel(); return errSilence })
	deletes := respond(t, natsURL, "transfer.delete", func(int, *nats.Msg) *messages.Error { return nil })
	c := connect(t, client.Config{URL: natsURL}).Transfer()
	endless := readerFunc(func(p []byte) (int, error) { return len(p), nil })
	_, err := c.Upload(ctx, endless)
	requireCode(t, messages.CodeDeadlineExceeded, err)
	require.Len(t, deletes, 1)
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
