package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// RunGrowth measures gets on a cache of each number of rows, in turns, each in a database of its own: whether the cache
// becomes slower as it grows.
func RunGrowth(ctx context.Context, cfg Config, rows []int) error {
	cfg.setDefaults()
	var cases []benchCase
	for _, n := range slices.Sorted(slices.Values(rows)) {
		cases = append(cases, benchCase{fmt.Sprintf("get, %d rows", n), overGrown(n)})
	}
	return runCases(ctx, cfg, cases)
}

// overGrown measures gets of random keys among so many rows.
func overGrown(rows int) func(context.Context, Config, *stack, *progress) (*running, error) {
	fill := func(s *stack, ctx context.Context, cfg Config, p *progress) error {
		return s.fill(ctx, rows, cfg.ValueBytes, p)
	}
	return over(RoleWorker, fill, func(cfg Config, s *stack) (operation, int) {
		cfg.Keys = rows
		return rawGet(cfg, s)
	})
}

// fill has roles work on a database with so many live entries, made at first use.
func (s *stack) fill(ctx context.Context, rows, valueBytes int, p *progress) error {
	name := "rows_" + strconv.Itoa(rows)
	if s.filled[name] {
		s.database = name
		return nil
	}
	if err := s.createDatabase(ctx, name); err != nil {
		return err
	}
	if err := s.insert(ctx, insertion{key: "key-", rows: rows, valueBytes: valueBytes, left: 24 * time.Hour}, p); err != nil {
		return err
	}
	s.filled[name] = true
	return s.vacuum(ctx)
}

// insertion describes rows that are written without a worker, because millions of them are only the scenery.
type insertion struct {
	key        string // is followed by the number of the row, from 0
	rows       int
	valueBytes int
	left       time.Duration // until they expire; negative for expired ones
}

func (s *stack) insert(ctx context.Context, i insertion, p *progress) (err error) {
	const sql = `
		INSERT INTO morello.cache_entry (tenant, key, value, version, ttl, expires_at, sweep_after, created_at)
		SELECT $1, $2 || n, $3, 1, '1 day', now() + $4::interval, now() + $4::interval + '300 seconds', now()
		FROM generate_series($5::bigint, $6::bigint) AS n`
	conn, err := pgx.Connect(ctx, s.databaseURL())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	const chunk = 250_000
	for first := 0; first < i.rows; first += chunk {
		p.show("inserting rows: %d of %d", first, i.rows)
		last := min(first+chunk, i.rows) - 1
		if _, err := conn.Exec(ctx, sql, tenant, i.key, []byte(benchValue(i.valueBytes)), i.left, first, last); err != nil {
			return err
		}
	}
	return nil
}
