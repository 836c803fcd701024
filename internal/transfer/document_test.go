package transfer_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/messages"
)

// TestOffer: a document of any size is stored in parts that together are it, whatever it is read from.
func TestOffer(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for size, parts := range map[int]int{
		0: 0, 1: 1, messages.TransferPartBytes: 1, messages.TransferPartBytes + 1: 2, 3*messages.TransferPartBytes + 9: 4,
	} {
		document := random(size)
		offered, err := f.Offer(t.Context(), tenant, iotest.HalfReader(bytes.NewReader(document)))
		require.NoError(t, err)
		hash := sha256.Sum256(document)
		require.Equal(t, messages.DataTransfer{
			TransferID: offered.TransferID, Parts: parts, SizeBytes: int64(size), SHA256: hex.EncodeToString(hash[:]),
		}, offered)
		require.Equal(t, uuid.Version(7), uuid.MustParse(offered.TransferID).Version())
		var got []byte
		for part := range parts {
			data, n := f.get(t, offered.TransferID, part)
			require.Equal(t, parts, n)
			got = append(got, data...)
		}
		require.True(t, bytes.Equal(document, got))
	}
}

// TestOfferLeavesNothingBehind of a document that does not fit into the quota, or cannot be read; the key of the request is not
// taken for its parts.
func TestOfferLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	broken := errors.New("the source is gone")
	_, err := f.Offer(t.Context(), tenant, io.MultiReader(bytes.NewReader(random(1<<20)), iotest.ErrReader(broken)))
	require.ErrorIs(t, err, broken)
	require.Zero(t, f.usage(t, tenant))

	_, err = f.db.Exec(t.Context(), `INSERT INTO morello.transfer_usage VALUES ('full', $1)`, messages.MaxTransferBytes-1<<20)
	require.NoError(t, err)
	_, err = f.Offer(t.Context(), "full", bytes.NewReader(random(1<<20+1)))
	require.Equal(t, messages.CodeQuotaExceeded, failure(t, err).Code)
	_, err = f.Offer(keyed(t.Context(), "once", 1), "full", bytes.NewReader(random(1<<20)))
	require.NoError(t, err)
}

// TestOpen: the size comes first, then part by part; who stops early reads no more.
func TestOpen(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := newID()
	f.put(t, id, 0, []byte("abc"))
	f.put(t, id, 1, []byte("de"))
	size, parts, err := f.Open(t.Context(), tenant, id)
	require.NoError(t, err)
	require.EqualValues(t, 5, size)
	for range 2 {
		var got []string
		for part, err := range parts {
			require.NoError(t, err)
			got = append(got, string(part))
		}
		require.Equal(t, []string{"abc", "de"}, got)
	}
	for part, err := range parts {
		require.NoError(t, err)
		require.Equal(t, "abc", string(part))
		break
	}
	_, _, err = f.Open(t.Context(), tenant, newID())
	requireFailure(t, messages.CodeNotFound, "data_transfer_id", err)
}

// TestChangedWhileRead: a part that is no longer what it was when the document was opened is no silent mixture.
func TestChangedWhileRead(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for what, change := range map[string]func(id string){
		"another length": func(id string) { f.put(t, id, 1, []byte("longer")) },
		"deleted": func(id string) {
			_, err := f.Delete(t.Context(), tenant, messages.TransferDelete{TransferID: id})
			require.NoError(t, err)
		},
	} {
		id := newID()
		f.put(t, id, 0, []byte("abc"))
		f.put(t, id, 1, []byte("de"))
		_, parts, err := f.Open(t.Context(), tenant, id)
		require.NoError(t, err)
		seen := 0
		for part, err := range parts {
			if seen++; seen == 1 {
				require.Equal(t, "abc", string(part))
				change(id)
				continue
			}
			requireFailure(t, messages.CodeConflict, "data_transfer_id", err)
			require.ErrorContains(t, err, "part 1", what)
		}
		require.Equal(t, 2, seen)
	}
}

// TestTakeEndsWithItsContext: a caller that has gone is no longer read for.
func TestTakeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := newID()
	f.put(t, id, 0, []byte("abc"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := f.Take(ctx, tenant, id)
	require.Equal(t, messages.CodeDeadlineExceeded, messages.AsError(err).Code)
}
