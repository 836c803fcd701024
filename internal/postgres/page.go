package postgres

import (
	"context"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/ai-cherry/morello/messages"
)

// PlanEachTime as the first argument of a query has it planned anew with its arguments. A list with filters that may be
// absent, as in ($3 IS NULL OR status = $3), is one statement then, whose conditions on absent filters vanish in the plan; a
// plan for all arguments would use no index.
const PlanEachTime = pgx.QueryExecModeCacheDescribe

// PageSQL makes the statement of a list of its candidates: a SELECT of rows with a column size_bytes, without ORDER BY and
// LIMIT. It reads the columns of the first $2 rows in order, or as many as have 1 MiB together; one row is a page, whatever
// its size. Of rows that do not fit, nothing but the size is read. CollectPage reads its result.
func PageSQL(columns, order, candidates string) string {
	return `
		SELECT ` + columns + `, found
		FROM (
			SELECT *, row_number() OVER page AS place, sum(size_bytes) OVER page AS bytes, count(*) OVER () AS found
			FROM (` + candidates + ` ORDER BY ` + order + ` LIMIT $2 + 1) AS candidate
			WINDOW page AS (ORDER BY ` + order + `)
		) AS sized
		WHERE place <= $2 AND (place = 1 OR bytes <= ` + strconv.Itoa(messages.MaxPageBytes) + `)
		ORDER BY place`
}

// CollectPage reads the rows of a page, and reports whether there are more. scan scans the columns and what follows them.
func CollectPage[Row any](rows pgx.Rows, scan func(row pgx.CollectableRow, following ...any) (Row, error)) (page []Row, more bool, err error) {
	var found int
	page, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (Row, error) { return scan(row, &found) })
	return page, found > len(page), err
}

// ReadPage reads the page of a list after the cursor, and makes the cursor of the next one, empty when there is none. The list
// names what a cursor is valid for, as in EncodeCursor. read gets the place where the page begins, whose zero is the
// beginning of the list; placeOf is the place of a row.
func ReadPage[Row, Place any](
	ctx context.Context, pool *Pool, list any, cursor string,
	read func(ctx context.Context, db Querier, from Place) (page []Row, more bool, err error), placeOf func(last Row) Place,
) (page []Row, next string, err error) {
	var from Place
	if err := DecodeCursor(cursor, list, &from); err != nil {
		return nil, "", err
	}
	more := false
	page, err = Read(ctx, pool, func(ctx context.Context, db Querier) (rows []Row, err error) {
		rows, more, err = read(ctx, db, from)
		return rows, err
	})
	if err == nil && more {
		next, err = EncodeCursor(list, placeOf(page[len(page)-1]))
	}
	return append([]Row{}, page...), next, err
}

// Listing is what a cursor is valid for.
type Listing struct {
	Operation, Tenant string
	Filters           any
}

// Place is where a page of a list begins whose order is time and id, newest first: after this row.
type Place struct {
	At time.Time `json:"at"`
	ID string    `json:"id"`
}

// Before returns the place as arguments. All rows come before the end of an empty one, which is the first page; id is then any
// valid one.
func (p Place) Before(id string) (pgtype.Timestamptz, string) {
	if p.At.IsZero() {
		return pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}, id
	}
	return pgtype.Timestamptz{Time: p.At, Valid: true}, p.ID
}
