package transfer_test

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/messages"
)

// random returns so many bytes, of a kind that no compression shortens.
func random(n int) []byte {
	source := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)})
	data := make([]byte, n)
	_, _ = source.Read(data) // it never fails
	return data
}

// TestPartsInAnyOrder: parts come at the same time, out of order and twice, and are one document afterwards.
func TestPartsInAnyOrder(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	document, id := random(5*messages.TransferPartBytes+17), newID()
	var all sync.WaitGroup
	for _, part := range append(rand.Perm(6), rand.Perm(6)...) {
		all.Go(func() {
			from := part * messages.TransferPartBytes
			to := min(from+messages.TransferPartBytes, len(document))
			_, err := f.Put(t.Context(), tenant, messages.TransferPut{TransferID: id, Part: part, Data: document[from:to]})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for range 2 { // it may be read again
		taken, err := f.Take(t.Context(), tenant, id)
		require.NoError(t, err)
		require.True(t, bytes.Equal(document, taken))
	}
	data, parts := f.get(t, id, 5)
	require.Equal(t, 6, parts)
	require.Equal(t, document[5*messages.TransferPartBytes:], data)
	require.EqualValues(t, 5*messages.TransferPartBytes+messages.TransferPartMinBytes, f.usage(t, tenant))
}

// TestPutReplaces: the last of a part stays, and counts as what it is.
func TestPutReplaces(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := newID()
	for _, size := range []int{1, 10_000, messages.TransferPartBytes, 5000, 4096, 4097} {
		f.put(t, id, 0, random(size))
		data, _ := f.get(t, id, 0)
		require.Equal(t, random(size), data)
		require.EqualValues(t, max(size, messages.TransferPartMinBytes), f.usage(t, tenant))
	}
}

// TestQuotaHoldsExactly: of twenty who put at once until they are refused, exactly as many parts are in as fit; one that is
// replaced by one as large still is, and what is deleted makes room.
func TestQuotaHoldsExactly(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const fit = messages.MaxTransferBytes / messages.TransferPartBytes
	part := random(messages.TransferPartBytes)
	var stored atomic.Int64
	var crowd sync.WaitGroup
	ids := make([]string, 20)
	for i := range ids {
		ids[i] = newID()
		crowd.Go(func() {
			for n := range fit {
				_, err := f.Put(t.Context(), tenant, messages.TransferPut{TransferID: ids[i], Part: n, Data: part})
				if err != nil {
					if known := messages.AsError(err); known.Code != messages.CodeQuotaExceeded || known.Retryable(true) {
						t.Error(err)
					}
					return
				}
				stored.Add(1)
			}
		})
	}
	crowd.Wait()
	require.EqualValues(t, fit, stored.Load())
	require.EqualValues(t, messages.MaxTransferBytes, f.usage(t, tenant))
	f.put(t, ids[0], 0, part)
	_, err := f.Put(t.Context(), tenant, messages.TransferPut{TransferID: newID(), Data: []byte("one byte more")})
	require.Equal(t, messages.CodeQuotaExceeded, failure(t, err).Code)
	_, err = f.Put(t.Context(), "other", messages.TransferPut{TransferID: newID(), Data: []byte("another tenant")})
	require.NoError(t, err)
	for _, id := range ids {
		deleted, err := f.Delete(t.Context(), tenant, messages.TransferDelete{TransferID: id})
		require.NoError(t, err)
		require.True(t, deleted.Deleted)
	}
	require.Zero(t, f.usage(t, tenant))
	f.put(t, newID(), 0, part)
}
