package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ai-cherry/morello/messages"
)

// Read runs fn, which changes nothing, on a connection of the pool. Every failure of PostgreSQL is unavailable with the
// outcome not_applied: a read may always be repeated.
func Read[Reply any](ctx context.Context, pool *Pool, fn func(ctx context.Context, db Querier) (Reply, error)) (Reply, error) {
	var reply Reply
	err := pool.withConn(ctx, func(conn *pgxpool.Conn) (err error) {
		reply, err = fn(ctx, conn)
		return err
	})
	return reply, mapError(ctx, err, true)
}

// InStatement runs fn, in which one statement, or one batch of statements, makes all the changes, so that it needs no
// transaction around it. A request with an
// idempotency key is run by InTx instead, because its reply must be stored with its effect.
func InStatement[Reply any](
	ctx context.Context, pool *Pool, tenant string, fn func(ctx context.Context, db Querier) (Reply, error),
) (Reply, error) {
	if messages.Keyed(ctx) {
		return InTx(ctx, pool, tenant, fn)
	}
	var reply Reply
	err := pool.withConn(ctx, func(conn *pgxpool.Conn) (err error) {
		reply, err = fn(ctx, conn)
		return err
	})
	return reply, mapError(ctx, err, false)
}

// InTx runs fn in a transaction, which is committed when fn returns no error. When the request carries an idempotency
// key, the transaction first claims it and last stores the reply: the same request again gets that reply and fn does not
// run, another request with the same key is conflict, and one that comes while the first is at work waits for its end.
// An error stores nothing.
func InTx[Reply any](
	ctx context.Context, pool *Pool, tenant string, fn func(ctx context.Context, db Querier) (Reply, error),
) (Reply, error) {
	var reply Reply
	err := pool.withConn(ctx, func(conn *pgxpool.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) (err error) {
			if !messages.Keyed(ctx) {
				reply, err = fn(ctx, tx)
				return err
			}
			reply, err = once(ctx, tx, tenant, fn)
			return err
		})
	})
	return reply, mapError(ctx, err, false)
}

// Only returns the first of the rows that were collected, or nothing's zero: for statements that return one row or none.
func Only[Row any](rows []Row) (first Row) {
	if len(rows) > 0 {
		first = rows[0]
	}
	return first
}
