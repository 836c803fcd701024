package cache

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/postgres"
)

// SetDurable makes entries and their tags outlive a crash of PostgreSQL, or not, and reports whether that is a change. A
// change rewrites the tables and blocks the cache meanwhile. It is idempotent; "morello migrate up" calls it. Leases are
// never durable.
func SetDurable(ctx context.Context, db postgres.Querier, durable bool) (changed bool, err error) {
	is, err := isDurable(ctx, db)
	if err != nil || is == durable {
		return false, err
	}
	mode := "UNLOGGED"
	if durable {
		mode = "LOGGED"
	}
	batch := &pgx.Batch{} // one transaction
	for _, table := range []string{"cache_entry", "cache_tag"} {
		batch.Queue(`ALTER TABLE morello.` + table + ` SET ` + mode)
	}
	if err := db.SendBatch(ctx, batch).Close(); err != nil {
		return false, fmt.Errorf("making the cache %s: %w", mode, err)
	}
	return true, nil
}

// Durable reports whether entries outlive a crash of PostgreSQL.
func (s *Service) Durable(ctx context.Context) (bool, error) {
	return postgres.Read(ctx, s.pool, isDurable)
}

func isDurable(ctx context.Context, db postgres.Querier) (bool, error) {
	const sql = `SELECT bool_and(relpersistence = 'p') FROM pg_class WHERE oid IN ('morello.cache_entry'::regclass, 'morello.cache_tag'::regclass)`
	var durable bool
	err := db.QueryRow(ctx, sql).Scan(&durable)
	return durable, err
}
