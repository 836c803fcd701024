package postgres_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

type counted struct {
	Count int    `json:"count"`
	Token string `json:"token"`
}

// increment adds to the counter of a tenant, an effect that is seen when it happens twice.
func increment(ctx context.Context, db postgres.Querier) (counted, error) {
	const sql = `
		INSERT INTO morello.cache_counter AS c (tenant, hits) VALUES ('effect', 1)
		ON CONFLICT (tenant) DO UPDATE SET hits = c.hits + 1 RETURNING hits`
	reply := counted{Token: "a secret token"}
	return reply, db.QueryRow(ctx, sql).Scan(&reply.Count)
}

func keyed(ctx context.Context, key string, fingerprint byte) context.Context {
	return messages.WithCall(ctx, &messages.Call{Endpoint: "cache.set", IdempotencyKey: key, Fingerprint: [32]byte{fingerprint}})
}

func TestIdempotencyKeyRunsOnce(t *testing.T) {
	t.Parallel()
	pool := openPool(t, devtest.Database(t), 4)
	for range 3 {
		reply, err := postgres.InTx(keyed(t.Context(), "k", 1), pool, "acme", increment)
		require.NoError(t, err)
		require.Equal(t, counted{1, "a secret token"}, reply)
	}
	_, err := postgres.InTx(keyed(t.Context(), "k", 2), pool, "acme", increment) // another body
	require.Equal(t, messages.CodeConflict, failure(t, err).Code)
	require.Equal(t, messages.HeaderIdempotencyKey, failure(t, err).Details.Field)

	reply, err := postgres.InStatement(keyed(t.Context(), "k", 2), pool, "other", increment) // another tenant's key is another key
	require.NoError(t, err)
	require.Equal(t, 2, reply.Count)
	reply, err = postgres.InStatement(t.Context(), pool, "acme", increment) // no key
	require.NoError(t, err)
	require.Equal(t, 3, reply.Count)
}

func TestIdempotencyKeyUnderConcurrency(t *testing.T) {
	t.Parallel()
	pool := openPool(t, devtest.Database(t), 8)
	var callers sync.WaitGroup
	for range 32 {
		callers.Go(func() {
			reply, err := postgres.InTx(keyed(t.Context(), "k", 1), pool, "acme", increment)
			require.NoError(t, err)
			require.Equal(t, 1, reply.Count)
		})
	}
	callers.Wait()
}

func TestErrorsStoreNothing(t *testing.T) {
	t.Parallel()
	pool := openPool(t, devtest.Database(t), 4)
	_, err := postgres.InTx(keyed(t.Context(), "k", 1), pool, "acme", func(ctx context.Context, db postgres.Querier) (counted, error) {
		if _, err := increment(ctx, db); err != nil {
			return counted{}, err
		}
		return counted{}, errors.New("after the effect")
	})
	require.ErrorContains(t, err, "after the effect")
	reply, err := postgres.InTx(keyed(t.Context(), "k", 2), pool, "acme", increment) // the key is free, the effect undone
	require.NoError(t, err)
	require.Equal(t, 1, reply.Count)
}

func TestStoredRepliesAreSealed(t *testing.T) {
	t.Parallel()
	url := devtest.Database(t)
	pool := openPool(t, url, 4)
	_, err := postgres.InTx(keyed(t.Context(), "the idempotency key", 1), pool, "acme", increment)
	require.NoError(t, err)
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.Background())) }()
	var row string
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT encode(reply, 'escape') || encode(key_hash, 'escape') FROM morello.idempotency_key`).Scan(&row))
	require.NotContains(t, row, "secret")
	require.NotContains(t, row, "idempotency key")
	require.Greater(t, len(row), 50)

	_, err = conn.Exec(t.Context(), `UPDATE morello.idempotency_key SET reply = '\xdeadbeef'`)
	require.NoError(t, err)
	_, err = postgres.InTx(keyed(t.Context(), "the idempotency key", 1), pool, "acme", increment)
	require.ErrorContains(t, err, "does not open")
}

func TestIdempotencyWindow(t *testing.T) {
	t.Parallel()
	url := devtest.Database(t)
	pool := openPool(t, url, 4)
	for _, key := range []string{"old", "new"} {
		_, err := postgres.InTx(keyed(t.Context(), key, 1), pool, "acme", increment)
		require.NoError(t, err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.Background())) }()
	_, err = conn.Exec(t.Context(), `
		UPDATE morello.idempotency_key SET created_at = now() - interval '24 hours 1 second' WHERE key_hash = sha256('old')`)
	require.NoError(t, err)
	reply, err := postgres.InTx(keyed(t.Context(), "old", 9), pool, "acme", increment) // free again, for another body too
	require.NoError(t, err)
	require.Equal(t, 3, reply.Count)

	_, err = conn.Exec(t.Context(), `
		UPDATE morello.idempotency_key SET created_at = now() - interval '25 hours' WHERE key_hash = sha256('old')`)
	require.NoError(t, err)
	removed, err := postgres.CleanIdempotencyKeys(t.Context(), conn, 1000)
	require.NoError(t, err)
	require.EqualValues(t, 1, removed)
}

func TestPoolServesMoreCallersThanConnections(t *testing.T) {
	t.Parallel()
	pool := openPool(t, devtest.Database(t), 2)
	var most, now atomic.Int64
	var callers sync.WaitGroup
	for range 50 {
		callers.Go(func() {
			_, err := postgres.Read(t.Context(), pool, func(ctx context.Context, db postgres.Querier) (int, error) {
				defer now.Add(-1)
				most.Store(max(most.Load(), now.Add(1)))
				_, err := db.Exec(ctx, `SELECT pg_sleep(0.001)`)
				return 0, err
			})
			require.NoError(t, err)
		})
	}
	callers.Wait()
	require.LessOrEqual(t, most.Load(), int64(2))
}

// TestCancelledQueriesKeepTheirConnection: a caller that goes away must not cost a connection, or time-outs become storms of
// logins.
func TestCancelledQueriesKeepTheirConnection(t *testing.T) {
	t.Parallel()
	pool := openPool(t, devtest.Database(t), 1)
	pid := func(ctx context.Context, db postgres.Querier) (int, error) {
		var pid int
		return pid, db.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&pid)
	}
	before, err := postgres.Read(t.Context(), pool, pid)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err = postgres.Read(ctx, pool, func(ctx context.Context, db postgres.Querier) (int, error) {
		_, err := db.Exec(ctx, `SELECT pg_sleep(60)`)
		return 0, err
	})
	require.Equal(t, messages.CodeDeadlineExceeded, failure(t, err).Code)
	after, err := postgres.Read(t.Context(), pool, pid)
	require.NoError(t, err)
	require.Equal(t, before, after)
}

func TestPostgresIsKilled(t *testing.T) {
	t.Parallel()
	server := devtest.Server(t)
	pool := openPool(t, server.URL("morello"), 4)
	_, err := postgres.InTx(keyed(t.Context(), "k", 1), pool, "acme", increment)
	require.NoError(t, err)

	broken := make(chan error, 1)
	go func() {
		_, err := postgres.InStatement(t.Context(), pool, "acme", func(ctx context.Context, db postgres.Querier) (int, error) {
			_, err := db.Exec(ctx, `SELECT pg_sleep(60)`)
			return 0, err
		})
		broken <- err
	}()
	require.Eventually(t, func() bool {
		asleep, err := postgres.Read(t.Context(), pool, func(ctx context.Context, db postgres.Querier) (asleep bool, err error) {
			const sql = `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep')`
			return asleep, db.QueryRow(ctx, sql).Scan(&asleep)
		})
		return err == nil && asleep
	}, 10*time.Second, 5*time.Millisecond)
	require.NoError(t, server.Kill())
	known := failure(t, <-broken)
	require.Equal(t, messages.CodeUnavailable, known.Code)
	require.Equal(t, messages.OutcomeUnknown, known.Details.Outcome, "%#v", known.Cause)

	require.Eventually(t, func() bool { // once the dead connections are noticed, it is certain that nothing was sent
		_, err := postgres.InStatement(t.Context(), pool, "acme", increment)
		require.Equal(t, messages.CodeUnavailable, failure(t, err).Code)
		return postgres.NotApplied(err)
	}, 10*time.Second, time.Millisecond)

	require.NoError(t, server.Restart(t.Context()))
	reply, err := postgres.InTx(keyed(t.Context(), "k", 1), pool, "acme", increment) // acknowledged, so still there
	require.NoError(t, err)
	require.Equal(t, 1, reply.Count)
}

// TestNoTransactionOutlivesItsProcess: what is read in a transaction to be recent still is when it commits, also if the process
// freezes in between; the sweep of chunks counts on that.
func TestNoTransactionOutlivesItsProcess(t *testing.T) {
	t.Parallel()
	pool := openPool(t, devtest.Database(t), 2)
	type limits struct{ statement, idle string }
	got, err := postgres.InTx(t.Context(), pool, "", func(ctx context.Context, db postgres.Querier) (limits, error) {
		var l limits
		const sql = `SELECT current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout')`
		err := db.QueryRow(ctx, sql).Scan(&l.statement, &l.idle)
		return l, err
	})
	require.NoError(t, err)
	require.Equal(t, limits{"5min", "5min"}, got)
}
