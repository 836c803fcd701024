package transfer_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/internal/transfer"
	"github.com/ai-cherry/morello/messages"
)

// clean runs the steps of a run of the job to their end, each in a transaction.
func (f fixture) clean(ctx context.Context, step jobs.Step) error {
	for more := true; more; {
		var err error
		more, err = postgres.InTx(ctx, f.pool, "", func(ctx context.Context, db postgres.Querier) (bool, error) {
			_, more, err := step(ctx, db)
			return more, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// expire ends the life of the parts of a transfer.
func (f fixture) expire(ctx context.Context, tenant, id string) error {
	_, err := postgres.InTx(ctx, f.pool, tenant, func(ctx context.Context, db postgres.Querier) (struct{}, error) {
		_, err := db.Exec(ctx, `UPDATE morello.transfer_part SET expires_at = now() WHERE tenant = $1 AND transfer_id = $2`, tenant, id)
		return struct{}{}, err
	})
	return err
}

// TestCleanup: what has expired goes, of all tenants, batch by batch, and no longer counts; the rest stays.
func TestCleanup(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i, tenant := range slices.Repeat([]string{"a", "b"}, 120) {
		_, err := f.Put(t.Context(), tenant, messages.TransferPut{TransferID: newID(), Part: i, Data: []byte("x")})
		require.NoError(t, err)
	}
	f.age(t, messages.TransferTTL)
	id := newID()
	_, err := f.Put(t.Context(), "a", messages.TransferPut{TransferID: id, Data: []byte("lives")})
	require.NoError(t, err)
	step := transfer.NewCleanup(time.Minute).NewRun()
	var removed []int64
	for more := true; more; {
		more, err = postgres.InTx(t.Context(), f.pool, "", func(ctx context.Context, db postgres.Querier) (bool, error) {
			did, more, err := step(ctx, db)
			removed = append(removed, did["removed"])
			return more, err
		})
		require.NoError(t, err)
	}
	require.Equal(t, []int64{100, 100, 40}, removed)
	require.EqualValues(t, 4096, f.usage(t, "a"))
	require.Zero(t, f.usage(t, "b"))
	taken, err := f.Take(t.Context(), "a", id)
	require.NoError(t, err)
	require.Equal(t, "lives", string(taken))
}

// TestKilledPostgres: transfers are gone after a crash, with what they counted, and others can be made.
func TestKilledPostgres(t *testing.T) {
	t.Parallel()
	server := devtest.Server(t)
	f := newFixtureOn(t, server.URL("morello"))
	id := newID()
	f.put(t, id, 0, random(messages.TransferPartBytes))
	require.EqualValues(t, messages.TransferPartBytes, f.usage(t, tenant))
	require.NoError(t, server.Kill())
	require.NoError(t, server.Restart(t.Context()))
	require.Eventually(t, func() bool { // connections from before the kill are found broken
		_, err := f.Take(t.Context(), tenant, id)
		return messages.AsError(err).Code == messages.CodeNotFound
	}, time.Minute, 10*time.Millisecond)
	f.db = connect(t, f.url)
	require.Zero(t, f.usage(t, tenant))
	f.put(t, id, 0, []byte("again"))
	require.EqualValues(t, messages.TransferPartMinBytes, f.usage(t, tenant))
}
