package snapshot

import (
	"context"
	"encoding/hex"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// VerifyArgs are the arguments of the job that verifies chunks.
type VerifyArgs struct {
	OfTenant string `json:"of_tenant,omitempty"` // all when empty
	AgentID  string `json:"agent_id,omitempty"`
}

// Kind names the job.
func (VerifyArgs) Kind() string { return "snapshot_verify" }

// Verify inserts the job that reads stored chunks again.
func (s *Service) Verify(ctx context.Context, tenant string, m messages.SnapshotVerify) (messages.SnapshotVerifyReply, error) {
	return postgres.InTx(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (messages.SnapshotVerifyReply, error) {
		id, err := s.cfg.InsertJob(ctx, db, VerifyArgs{m.Tenant, m.AgentID})
		return messages.SnapshotVerifyReply{JobID: id}, err
	})
}

const (
	verifyBatch = 500
	// maxNamed bounds the bad chunks that the result names.
	maxNamed = 100
)

// verified is the result of the job, as far as it is.
type verified struct {
	Checked int64      `json:"checked"`
	Damaged int64      `json:"damaged"`
	Missing int64      `json:"missing"` // to which a chunk or a snapshot refers
	Bad     []badChunk `json:"bad"`     // the first of both
	Tenant  string     `json:"tenant,omitempty"`
	After   string     `json:"after,omitempty"` // the last chunk that was checked
}

type badChunk struct {
	Tenant  string `json:"tenant"`
	Hash    string `json:"hash"`
	Problem string `json:"problem"`
}

func (v *verified) note(tenant string, hash Hash, problem error) {
	if errors.Is(problem, errMissing) {
		v.Missing++
	} else {
		v.Damaged++
	}
	if len(v.Bad) < maxNamed {
		v.Bad = append(v.Bad, badChunk{tenant, hash.String(), problem.Error()})
	}
}

// NewVerify returns what the job does: it goes through the chunks in the order of tenants and hashes, and compares each with its
// hash. What it has found stands in its result, from which it goes on. With an agent it looks at the trees of its snapshots.
func NewVerify(args VerifyArgs) jobs.Step {
	v := &verification{args: args}
	return v.step
}

type verification struct {
	args   VerifyArgs
	hashes []Hash // of the agent, sorted; read at first
	known  bool
}

func (v *verification) step(ctx context.Context, db postgres.Querier) (jobs.Counts, bool, error) {
	found := verified{Bad: []badChunk{}, Tenant: v.args.OfTenant}
	if _, err := jobs.Result(ctx, &found); err != nil {
		return nil, false, err
	}
	begun := found.After != ""
	batch, err := v.next(ctx, db, &found)
	if err != nil {
		return nil, false, err
	}
	if !begun {
		if err := v.roots(ctx, db, &found); err != nil {
			return nil, false, err
		}
	}
	for _, r := range batch {
		v.checkRow(r, &found)
	}
	if err := missingChildren(ctx, db, batch, &found); err != nil {
		return nil, false, err
	}
	jobs.Report(ctx, messages.JobProgress{Done: found.Checked, Unit: "chunks"})
	return nil, len(batch) == verifyBatch, jobs.SetResult(ctx, found)
}

type tenantRow struct {
	tenant string
	row
}

func (v *verification) checkRow(r tenantRow, found *verified) {
	found.Checked++
	hash, _, err := r.decode()
	var f *fault
	if errors.As(err, &f) {
		found.note(r.tenant, hash, f.why)
	}
	found.Tenant, found.After = r.tenant, hash.String()
}

// next reads the chunks after the last ones.
func (v *verification) next(ctx context.Context, db postgres.Querier, found *verified) ([]tenantRow, error) {
	const sql = `
		SELECT c.tenant, ` + chunkColumns + ` FROM morello.snapshot_chunk AS c
		WHERE (c.tenant, c.hash) > ($1, $2) AND ($3 = '' OR c.tenant = $3) AND ($4::bytea[] IS NULL OR c.hash = ANY ($4))
		ORDER BY c.tenant, c.hash LIMIT $5`
	last, err := hex.DecodeString(found.After)
	if err != nil {
		return nil, err
	}
	var wanted [][]byte
	if v.args.AgentID != "" {
		if err := v.readHashes(ctx, db); err != nil {
			return nil, err
		}
		rest := after(v.hashes, found.After)
		wanted = asBytes(rest[:min(verifyBatch, len(rest))])
	}
	rows, err := db.Query(ctx, sql, postgres.PlanEachTime, found.Tenant, last, v.args.OfTenant, wanted, verifyBatch)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (r tenantRow, err error) {
		err = row.Scan(&r.tenant, &r.Hash, &r.Encoding, &r.Nodes, &r.Leaves, &r.Body, &r.Text)
		return r, err
	})
}

func (v *verification) readHashes(ctx context.Context, db postgres.Querier) (err error) {
	if v.known {
		return nil
	}
	const roots = `SELECT DISTINCT content_hash FROM morello.snapshot WHERE tenant = $1 AND agent_id = $2`
	rows, err := db.Query(ctx, treeSQL(roots)+` SELECT c.hash FROM reached, `+chunkOf(`reached`)+` ORDER BY c.hash`,
		v.args.OfTenant, v.args.AgentID)
	if err != nil {
		return err
	}
	v.hashes, err = pgx.CollectRows(rows, scanHash)
	v.known = err == nil
	return err
}

// roots looks for snapshots without a root.
func (v *verification) roots(ctx context.Context, db postgres.Querier, found *verified) error {
	const sql = `
		SELECT s.tenant, s.content_hash FROM morello.snapshot AS s
		WHERE ($1 = '' OR s.tenant = $1) AND ($2 = '' OR s.agent_id = $2)
			AND NOT EXISTS (SELECT FROM morello.snapshot_chunk AS c WHERE c.tenant = s.tenant AND c.hash = s.content_hash)
		GROUP BY s.tenant, s.content_hash`
	rows, err := db.Query(ctx, sql, postgres.PlanEachTime, v.args.OfTenant, v.args.AgentID)
	return noteMissing(rows, err, found)
}

// missingChildren looks for references to what is not there.
func missingChildren(ctx context.Context, db postgres.Querier, batch []tenantRow, found *verified) error {
	const sql = `
		SELECT DISTINCT parent.tenant, child FROM unnest($1::text[], $2::bytea[]) AS parent (tenant, children), morello.snapshot_hashes(parent.children) AS child
		WHERE NOT EXISTS (SELECT FROM morello.snapshot_chunk AS c WHERE c.tenant = parent.tenant AND c.hash = child)`
	var tenants []string
	var children [][]byte
	for _, r := range batch {
		if joined := append(append([]byte{}, r.Nodes...), r.Leaves...); len(joined) > 0 {
			tenants, children = append(tenants, r.tenant), append(children, joined)
		}
	}
	rows, err := db.Query(ctx, sql, tenants, children)
	return noteMissing(rows, err, found)
}

func noteMissing(rows pgx.Rows, err error, found *verified) error {
	if err != nil {
		return err
	}
	var tenant string
	var joined []byte
	_, err = pgx.ForEachRow(rows, []any{&tenant, &joined}, func() error {
		var hash Hash
		copy(hash[:], joined)
		found.note(tenant, hash, errMissing)
		return nil
	})
	return err
}
