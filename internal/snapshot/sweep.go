package snapshot

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

const (
	clearBatch  = 10_000
	expandBatch = 200
	sweepBatch  = 1000
)

// Sweep removes the chunks that no snapshot holds, by the protocol of the package comment.
type Sweep struct{}

// Kind names the job.
func (Sweep) Kind() string { return "chunk_sweep" }

// NewSweep returns the job. It looks at the tenants of which something was deleted.
func NewSweep(every time.Duration) jobs.Periodic {
	return jobs.Periodic{Every: every, Event: messages.ChunkSweepEvent, NewRun: func() jobs.Step { return new(sweep).step }}
}

// sweep goes through the tenants in their order. What it has done of a tenant stands in the database, so that another run goes on
// where one has ended.
type sweep struct {
	begun  bool
	tenant string // none when all have been swept
	swept  bool   // all but the marks
}

// step does one batch.
func (s *sweep) step(ctx context.Context, db postgres.Querier) (jobs.Counts, bool, error) {
	if !s.begun {
		if err := s.next(ctx, db); err != nil {
			return nil, false, err
		}
		s.begun = true
	}
	if s.tenant == "" {
		return nil, false, nil
	}
	stands, err := readState(ctx, db, s.tenant)
	switch {
	case err != nil:
		return nil, false, err
	case stands == nil:
		return nil, true, s.clear(ctx, db)
	case !stands.Marked:
		return nil, true, expand(ctx, db, s.tenant)
	}
	counts, done, err := removeDead(ctx, db, s.tenant, *stands)
	s.swept = done
	return counts, true, err
}

// next goes on to the next tenant with garbage; to none after the last.
func (s *sweep) next(ctx context.Context, db postgres.Querier) error {
	const sql = `SELECT coalesce((SELECT tenant FROM morello.snapshot_garbage WHERE tenant > $1 ORDER BY tenant LIMIT 1), '')`
	s.swept = false
	return db.QueryRow(ctx, sql, s.tenant).Scan(&s.tenant)
}

// sweepState is where the sweep of a tenant stands.
type sweepState struct {
	StartedAt time.Time
	Marked    bool
	After     []byte
}

func readState(ctx context.Context, db postgres.Querier, tenant string) (*sweepState, error) {
	const sql = `SELECT started_at, marked, after FROM morello.snapshot_sweep WHERE tenant = $1 FOR UPDATE`
	rows, err := db.Query(ctx, sql, tenant)
	if err != nil {
		return nil, err
	}
	found, err := pgx.CollectRows(rows, pgx.RowToAddrOfStructByPos[sweepState])
	return postgres.Only(found), err
}

// clear removes the marks of the sweep before. Without any the next one begins; after one, the next tenant is looked for.
func (s *sweep) clear(ctx context.Context, db postgres.Querier) error {
	const sql = `
		DELETE FROM morello.snapshot_mark WHERE tenant = $1 AND (open, hash) IN (
			SELECT open, hash FROM morello.snapshot_mark WHERE tenant = $1 ORDER BY open, hash LIMIT $2)`
	tag, err := db.Exec(ctx, sql, s.tenant, clearBatch)
	switch {
	case err != nil || tag.RowsAffected() > 0:
		return err
	case s.swept:
		return s.next(ctx, db)
	}
	return begin(ctx, db, s.tenant)
}

// begin notes the time, and then marks the roots of all snapshots, and what was touched within the grace, in one statement, which
// sees one state of the database, later than that time.
func begin(ctx context.Context, db postgres.Querier, tenant string) error {
	const note = `INSERT INTO morello.snapshot_sweep (tenant, started_at) VALUES ($1, clock_timestamp())`
	if _, err := db.Exec(ctx, note, tenant); err != nil {
		return err
	}
	const mark = `
		INSERT INTO morello.snapshot_mark (tenant, hash, open)
		SELECT $1, content_hash, true FROM morello.snapshot WHERE tenant = $1
		UNION
		SELECT $1, c.hash, true FROM morello.snapshot_chunk AS c JOIN morello.snapshot_sweep AS s USING (tenant)
		WHERE c.tenant = $1 AND c.touched_at >= s.started_at - ` + grace
	_, err := db.Exec(ctx, mark, tenant)
	return err
}

// expand marks the children of some chunks; when there are no more, all that is reached is marked.
func expand(ctx context.Context, db postgres.Querier, tenant string) error {
	sql := `
		WITH batch AS MATERIALIZED (
			DELETE FROM morello.snapshot_mark WHERE tenant = $1 AND open AND hash IN (
				SELECT hash FROM morello.snapshot_mark WHERE tenant = $1 AND open ORDER BY hash LIMIT $2)
			RETURNING hash
		), marked (hash, open) AS (
			SELECT hash, false FROM batch
			UNION
			SELECT child, false FROM batch, ` + chunkOf(`batch`) + `, morello.snapshot_hashes(c.leaves) AS child
			UNION
			SELECT child, true FROM batch, ` + chunkOf(`batch`) + `, morello.snapshot_hashes(c.nodes) AS child
			WHERE NOT EXISTS (SELECT FROM morello.snapshot_mark AS m WHERE m.tenant = $1 AND NOT m.open AND m.hash = child)
		), noted AS (
			INSERT INTO morello.snapshot_mark (tenant, hash, open) SELECT $1, hash, open FROM marked ORDER BY open, hash
			ON CONFLICT (tenant, open, hash) DO NOTHING
		)
		SELECT count(*) FROM batch`
	const done = `UPDATE morello.snapshot_sweep SET marked = true WHERE tenant = $1`
	var opened int64
	if err := db.QueryRow(ctx, sql, tenant, expandBatch).Scan(&opened); err != nil || opened > 0 {
		return err
	}
	_, err := db.Exec(ctx, done, tenant)
	return err
}

// removeDead deletes the dead ones among the next chunks. It waits for nobody: what another transaction has locked is being touched.
func removeDead(ctx context.Context, db postgres.Querier, tenant string, s sweepState) (counts jobs.Counts, done bool, err error) {
	const sql = `
		WITH looked AS MATERIALIZED (
			SELECT hash FROM morello.snapshot_chunk WHERE tenant = $1 AND hash > $2 ORDER BY hash LIMIT $4
		), dead AS MATERIALIZED (
			SELECT c.hash FROM looked JOIN morello.snapshot_chunk AS c ON c.tenant = $1 AND c.hash = looked.hash
			WHERE c.touched_at < $3::timestamptz - ` + grace + `
				AND NOT EXISTS (SELECT FROM morello.snapshot_mark AS m WHERE m.tenant = $1 AND NOT m.open AND m.hash = c.hash)
			ORDER BY c.hash FOR UPDATE OF c SKIP LOCKED
		), gone AS (
			DELETE FROM morello.snapshot_chunk AS c USING dead WHERE c.tenant = $1 AND c.hash = dead.hash
			RETURNING ` + chunkBytes + ` AS bytes
		), texts AS (
			DELETE FROM morello.snapshot_text AS t USING dead WHERE t.tenant = $1 AND t.hash = dead.hash
		), stands AS (
			UPDATE morello.snapshot_sweep SET after = (SELECT hash FROM looked ORDER BY hash DESC LIMIT 1) WHERE tenant = $1 AND EXISTS (SELECT FROM looked)
		)
		SELECT (SELECT count(*) FROM looked), (SELECT count(*) FROM gone), (SELECT coalesce(sum(bytes), 0) FROM gone)`
	var looked, removed, freed int64
	if err := db.QueryRow(ctx, sql, tenant, s.After, s.StartedAt, sweepBatch).Scan(&looked, &removed, &freed); err != nil {
		return nil, false, err
	}
	counts = jobs.Counts{"removed": removed, "freed_bytes": freed}
	if looked == sweepBatch {
		return counts, false, nil
	}
	return counts, true, end(ctx, db, tenant, s)
}

// end forgets where the sweep stands, and the garbage if all of it was old enough.
func end(ctx context.Context, db postgres.Querier, tenant string, s sweepState) error {
	const stands = `DELETE FROM morello.snapshot_sweep WHERE tenant = $1`
	const garbage = `DELETE FROM morello.snapshot_garbage WHERE tenant = $1 AND deleted_at < $2::timestamptz - ` + grace
	if _, err := db.Exec(ctx, stands, tenant); err != nil {
		return err
	}
	_, err := db.Exec(ctx, garbage, tenant, s.StartedAt)
	return err
}
