package bench

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
)

// relationSize is what a table or an index takes on disk: the rows or the index, free space and visibility maps, and for a table
// what is stored beside its rows (TOAST) with the index of that.
type relationSize struct {
	Store    string `json:"store"`
	Relation string `json:"relation"`
	Kind     string `json:"kind"` // table or index
	Search   bool   `json:"search_only,omitempty"`
	Written  int64  `json:"bytes_as_written"`
	Vacuumed int64  `json:"bytes_after_vacuum"`
}

// measureSizes measures the tables of a schema as they were written and after a plain VACUUM, whose maps are included.
func measureSizes(ctx context.Context, store, url, like string) (sizes []relationSize, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	written, err := relationSizes(ctx, conn, store, like)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, `VACUUM`); err != nil {
		return nil, err
	}
	sizes, err = relationSizes(ctx, conn, store, like)
	for i := range sizes {
		sizes[i].Written, sizes[i].Vacuumed = written[i].Written, sizes[i].Written
	}
	return sizes, err
}

func relationSizes(ctx context.Context, conn *pgx.Conn, store, like string) ([]relationSize, error) {
	const sql = `
		WITH measured AS (
			SELECT oid, relname FROM pg_class WHERE relkind = 'r' AND relnamespace::regnamespace || '.' || relname LIKE $2
		)
		SELECT $1::text, relname::text, 'table', relname = 'snapshot_text', pg_table_size(oid) FROM measured
		UNION ALL
		SELECT $1::text, i.relname::text, 'index', measured.relname = 'snapshot_text' OR am.amname = 'gin', pg_total_relation_size(i.oid)
		FROM measured JOIN pg_index ON indrelid = measured.oid JOIN pg_class AS i ON i.oid = indexrelid JOIN pg_am AS am ON am.oid = i.relam
		ORDER BY 3 DESC, 2`
	rows, err := conn.Query(ctx, sql, store, like)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (r relationSize, err error) {
		return r, row.Scan(&r.Store, &r.Relation, &r.Kind, &r.Search, &r.Written)
	})
}

// totals adds up a store's relations, without those that only search needs and with them, after a VACUUM.
func totals(sizes []relationSize, store string) (without, with int64) {
	for _, r := range sizes {
		if r.Store != store {
			continue
		}
		with += r.Vacuumed
		if !r.Search {
			without += r.Vacuumed
		}
	}
	return without, with
}
