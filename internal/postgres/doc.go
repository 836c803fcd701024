// Package postgres is how everything reaches PostgreSQL: the pool, migrations, transactions with idempotency, the map from
// PostgreSQL's errors to the contract's codes, the lease that tells who is at work, and the batcher that turns the
// requests of many callers into one statement.
//
// An exported operation of a capability opens with Read, InStatement or InTx; what runs SQL below it takes a Querier.
package postgres
