package transfer_test

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/transfer"
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

// TestTenantsAreApart: the same id is another transfer under another tenant.
func TestTenantsAreApart(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := newID()
	f.put(t, id, 0, []byte("of acme"))
	_, err := f.Get(t.Context(), "other", messages.TransferGet{TransferID: id})
	requireFailure(t, messages.CodeNotFound, "transfer_id", err)
	_, err = f.Take(t.Context(), "other", id)
	requireFailure(t, messages.CodeNotFound, "data_transfer_id", err)
	deleted, err := f.Delete(t.Context(), "other", messages.TransferDelete{TransferID: id})
	require.NoError(t, err)
	require.False(t, deleted.Deleted)
	_, err = f.Put(t.Context(), "other", messages.TransferPut{TransferID: id, Data: []byte("of other")})
	require.NoError(t, err)
	data, parts := f.get(t, id, 0)
	require.Equal(t, "of acme", string(data))
	require.Equal(t, 1, parts)
	require.Equal(t, f.usage(t, tenant), f.usage(t, "other"))
}

// TestGaps: who reads a document learns which part is missing; single parts can be read all the same.
func TestGaps(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := newID()
	for _, part := range []int{4, 1, 0} {
		f.put(t, id, part, []byte("x"))
	}
	_, err := f.Take(t.Context(), tenant, id)
	requireFailure(t, messages.CodeInvalid, "data_transfer_id", err)
	require.ErrorContains(t, err, "part 2 is missing")
	_, parts := f.get(t, id, 4)
	require.Equal(t, 5, parts)
	_, err = f.Get(t.Context(), tenant, messages.TransferGet{TransferID: id, Part: 2})
	requireFailure(t, messages.CodeNotFound, "transfer_id", err)
}

// TestExpiry: an hour after it was put a part is gone, for everybody, and can be put again.
func TestExpiry(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := newID()
	f.put(t, id, 0, []byte("old"))
	f.age(t, messages.TransferTTL-time.Minute)
	f.put(t, id, 1, []byte("young"))
	taken, err := f.Take(t.Context(), tenant, id)
	require.NoError(t, err)
	require.Equal(t, "oldyoung", string(taken))
	f.age(t, time.Minute)
	_, err = f.Get(t.Context(), tenant, messages.TransferGet{TransferID: id})
	requireFailure(t, messages.CodeNotFound, "transfer_id", err)
	_, err = f.Take(t.Context(), tenant, id)
	require.ErrorContains(t, err, "part 0 is missing")
	f.age(t, messages.TransferTTL)
	_, err = f.Take(t.Context(), tenant, id)
	requireFailure(t, messages.CodeNotFound, "data_transfer_id", err)
	f.put(t, id, 0, []byte("new"))
	_, parts := f.get(t, id, 0)
	require.Equal(t, 1, parts, "what has expired is no part of it")
	deleted, err := f.Delete(t.Context(), tenant, messages.TransferDelete{TransferID: id})
	require.NoError(t, err)
	require.True(t, deleted.Deleted)
	require.Zero(t, f.usage(t, tenant))

	f.put(t, id, 0, []byte("left to expire"))
	f.age(t, messages.TransferTTL)
	deleted, err = f.Delete(t.Context(), tenant, messages.TransferDelete{TransferID: id})
	require.NoError(t, err)
	require.False(t, deleted.Deleted)
	require.Zero(t, f.usage(t, tenant))
}

// TestIdempotencyKeys: with a key a part is stored once, and another part under it is a conflict.
func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id, ctx := newID(), keyed(t.Context(), "once", 1)
	put := messages.TransferPut{TransferID: id, Data: []byte("first")}
	first, err := f.Put(ctx, tenant, put)
	require.NoError(t, err)
	f.put(t, id, 0, []byte("in between"))
	again, err := f.Put(ctx, tenant, put)
	require.NoError(t, err)
	require.Equal(t, first, again)
	data, _ := f.get(t, id, 0)
	require.Equal(t, "in between", string(data))
	_, err = f.Put(keyed(t.Context(), "once", 2), tenant, put)
	requireFailure(t, messages.CodeConflict, "Idempotency-Key", err)
	for range 2 {
		deleted, err := f.Delete(keyed(t.Context(), "delete", 3), tenant, messages.TransferDelete{TransferID: id})
		require.NoError(t, err)
		require.True(t, deleted.Deleted)
	}
	require.Zero(t, f.usage(t, tenant))
}

// TestCrowd: the count stays that of the parts while parts of few ids are put, replaced and deleted by many at once, and the job
// removes what has expired.
func TestCrowd(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ids := []string{newID(), newID(), newID()}
	tenants := []string{"a", "b"}
	cleaner, cleaning := transfer.NewCleanup(time.Minute).NewRun, make(chan struct{})
	var crowd, cleanup sync.WaitGroup
	cleanup.Go(func() {
		for {
			select {
			case <-cleaning:
				return
			default:
			}
			if err := f.clean(t.Context(), cleaner()); err != nil {
				t.Error(err)
			}
		}
	})
	for range 8 {
		crowd.Go(func() {
			for range 60 {
				tenant, id := tenants[rand.IntN(len(tenants))], ids[rand.IntN(len(ids))]
				var err error
				switch rand.IntN(6) {
				case 0:
					_, err = f.Delete(t.Context(), tenant, messages.TransferDelete{TransferID: id})
				case 1:
					err = f.expire(t.Context(), tenant, id)
				default:
					_, err = f.Put(t.Context(), tenant, messages.TransferPut{TransferID: id, Part: rand.IntN(4), Data: random(1 + rand.IntN(20_000))})
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	crowd.Wait()
	close(cleaning)
	cleanup.Wait()
	for _, tenant := range tenants {
		f.usage(t, tenant)
	}
}
