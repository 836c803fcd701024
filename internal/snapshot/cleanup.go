package snapshot

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

const (
	cleanupBatch  = 500
	cleanupAgents = 200 // looked at in one step
	secondsPerDay = 24 * 60 * 60
)

// retention says which snapshots are old, and how many of the newest of each agent stay.
type retention struct {
	agentID string // all when empty
	days    float64
	keep    int
}

func retentionOf(m messages.SnapshotCleanup) retention {
	r := retention{m.AgentID, messages.DefaultSnapshotRetentionDays, messages.DefaultKeptSnapshots}
	if m.OlderThanDays != nil {
		r.days = *m.OlderThanDays
	}
	if m.KeepMinimum != nil {
		r.keep = *m.KeepMinimum
	}
	return r
}

// Cleanup deletes what is old and beyond the newest of its agent.
func (s *Service) Cleanup(ctx context.Context, tenant string, m messages.SnapshotCleanup) (messages.SnapshotCleanupReply, error) {
	r := retentionOf(m)
	if m.DryRun {
		return postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (messages.SnapshotCleanupReply, error) {
			return countOld(ctx, db, tenant, r)
		})
	}
	walk := cleanup{tenant: tenant, retention: r}
	var cleaned []messages.SnapshotRef
	return postgres.InBatches(ctx, s.pool, postgres.Batches[messages.SnapshotCleanupReply]{
		Tenant: tenant, Timeout: messages.SnapshotCleanupEndpoint.Timeout,
		Step: func(ctx context.Context, db postgres.Querier, reply *messages.SnapshotCleanupReply) (bool, error) {
			did, err := walk.step(ctx, db)
			cleaned = append(cleaned, did.gone...)
			reply.Deleted += int64(len(did.gone))
			reply.FreedBytes += did.freed
			reply.KeptByMinimum += did.kept
			return did.more, err
		},
		SetMore: func(reply *messages.SnapshotCleanupReply, more bool) { reply.More = more },
		Committed: func() {
			for some := range slices.Chunk(cleaned, cleanupBatch) {
				bus.Emit(s.cfg.Events, messages.SnapshotCleanedEvent, tenant, messages.SnapshotsCleaned{Snapshots: some})
			}
			cleaned = nil
		},
	})
}

// spareSQL joins agents with up to $4 of their snapshots, the oldest first, that are older than so many seconds ($2), not among the
// $3 newest, not pinned and not the head.
const spareSQL = `
	LATERAL (
		SELECT s.snapshot_id, s.stored_bytes FROM morello.snapshot AS s
		WHERE s.tenant = agent.tenant AND s.agent_id = agent.agent_id AND s.created_at < clock_timestamp() - make_interval(secs => $2)
			AND ($3 = 0 OR s.created_at < (
				SELECT n.created_at FROM morello.snapshot AS n WHERE n.tenant = agent.tenant AND n.agent_id = agent.agent_id
				ORDER BY n.created_at DESC OFFSET greatest($3 - 1, 0) LIMIT 1))
			AND s.label IS DISTINCT FROM '` + messages.PinnedLabel + `' AND s.snapshot_id IS DISTINCT FROM agent.snapshot_id
		ORDER BY s.created_at LIMIT $4
	) AS spare`

// keptSQL counts the old ones among the newest of an agent.
const keptSQL = `(
	SELECT count(*) FROM (
		SELECT n.created_at FROM morello.snapshot AS n WHERE n.tenant = agent.tenant AND n.agent_id = agent.agent_id
		ORDER BY n.created_at DESC LIMIT $3
	) AS newest WHERE created_at < clock_timestamp() - make_interval(secs => $2))`

// countOld counts what a clean-up would do at this moment.
func countOld(ctx context.Context, db postgres.Querier, tenant string, r retention) (reply messages.SnapshotCleanupReply, err error) {
	const sql = `
		WITH agent AS MATERIALIZED (SELECT * FROM morello.snapshot_head WHERE tenant = $1 AND ($5 = '' OR agent_id = $5))
		SELECT count(*), coalesce(sum(spare.stored_bytes), 0)::bigint, (SELECT coalesce(sum(` + keptSQL + `), 0)::bigint FROM agent)
		FROM agent, ` + spareSQL
	err = db.QueryRow(ctx, sql, tenant, r.days*secondsPerDay, r.keep, nil, r.agentID).Scan(&reply.Deleted, &reply.FreedBytes, &reply.KeptByMinimum)
	return reply, err
}

// cleanup goes through the agents of a tenant in their order, some at a time.
type cleanup struct {
	tenant string
	retention
	after string // the last agent that is done
	done  bool   // all are
}

// cleaned is what a step did.
type cleaned struct {
	gone        []messages.SnapshotRef
	freed, kept int64
	more        bool
}

// step deletes up to a batch of snapshots of the next agents. It looks before it locks: most agents have nothing to delete.
func (c *cleanup) step(ctx context.Context, db postgres.Querier) (did cleaned, err error) {
	agents, err := c.agents(ctx, db)
	if err != nil || len(agents) == 0 {
		return did, err
	}
	found, err := c.spare(ctx, db, agents)
	if err == nil && len(found) > 0 {
		if err = lockHeads(ctx, db, c.tenant, owners(found)); err == nil {
			found, err = c.spare(ctx, db, owners(found))
		}
	}
	if err != nil {
		return did, err
	}
	ids := make([]string, len(found))
	for i, s := range found {
		ids[i] = s.ID
		did.freed += s.Bytes
	}
	if did.gone, err = remove(ctx, db, c.tenant, ids); err != nil {
		return did, err
	}
	did.more = true
	if len(found) < cleanupBatch {
		did.kept, err = c.kept(ctx, db, agents)
		c.after, did.more = agents[len(agents)-1], len(agents) == cleanupAgents
	}
	return did, err
}

// agents returns those that are next.
func (c *cleanup) agents(ctx context.Context, db postgres.Querier) ([]string, error) {
	const sql = `
		SELECT agent_id FROM morello.snapshot_head WHERE tenant = $1 AND agent_id > $2 AND ($3 = '' OR agent_id = $3)
		ORDER BY agent_id LIMIT $4`
	rows, err := db.Query(ctx, sql, c.tenant, c.after, c.agentID, cleanupAgents)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

type spare struct {
	ID, AgentID string
	Bytes       int64
}

func owners(found []spare) (agents []string) {
	for _, s := range found {
		if !slices.Contains(agents, s.AgentID) {
			agents = append(agents, s.AgentID)
		}
	}
	return agents
}

const agentsSQL = `WITH agent AS MATERIALIZED (SELECT * FROM morello.snapshot_head WHERE tenant = $1 AND agent_id = ANY ($5))`

func (c *cleanup) spare(ctx context.Context, db postgres.Querier, agents []string) ([]spare, error) {
	const sql = agentsSQL + ` SELECT spare.snapshot_id::text, agent.agent_id, spare.stored_bytes FROM agent, ` + spareSQL + ` LIMIT $4`
	rows, err := db.Query(ctx, sql, c.tenant, c.days*secondsPerDay, c.keep, cleanupBatch, agents)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[spare])
}

func (c *cleanup) kept(ctx context.Context, db postgres.Querier, agents []string) (kept int64, err error) {
	const sql = agentsSQL + ` SELECT coalesce(sum(` + keptSQL + `), 0)::bigint FROM agent WHERE $4::integer IS NOT NULL`
	err = db.QueryRow(ctx, sql, c.tenant, c.days*secondsPerDay, c.keep, cleanupBatch, agents).Scan(&kept)
	return kept, err
}

// CleanupJob deletes old snapshots of all tenants.
type CleanupJob struct{}

// Kind names the job.
func (CleanupJob) Kind() string { return "snapshot_cleanup" }

// CleanupConfig of the job.
type CleanupConfig struct {
	// Every is the period.
	Every time.Duration
	// Cleaned publishes which snapshots were deleted, once for each batch and tenant. It is called before the deletion is committed,
	// and an error undoes it: so the event comes at least once, and after a repetition is true. Defaults to nothing.
	Cleaned func(ctx context.Context, tenant string, gone messages.SnapshotsCleaned) error
}

// NewCleanup returns the job.
func NewCleanup(cfg CleanupConfig) jobs.Periodic {
	if cfg.Cleaned == nil {
		cfg.Cleaned = func(context.Context, string, messages.SnapshotsCleaned) error { return nil }
	}
	return jobs.Periodic{Every: cfg.Every, Event: messages.SnapshotCleanupEvent, NewRun: func() jobs.Step {
		walk := cleanup{retention: retentionOf(messages.SnapshotCleanup{})}
		return func(ctx context.Context, db postgres.Querier) (jobs.Counts, bool, error) {
			if walk.tenant == "" || walk.done {
				if err := walk.nextTenant(ctx, db); err != nil || walk.tenant == "" {
					return nil, false, err
				}
			}
			did, err := walk.step(ctx, db)
			walk.done = !did.more
			if err == nil && len(did.gone) > 0 {
				err = cfg.Cleaned(ctx, walk.tenant, messages.SnapshotsCleaned{Snapshots: did.gone})
			}
			return jobs.Counts{"deleted": int64(len(did.gone)), "freed_bytes": did.freed}, true, err
		}
	}}
}

// nextTenant goes on to the next tenant that has snapshots; to none after the last.
func (c *cleanup) nextTenant(ctx context.Context, db postgres.Querier) error {
	const sql = `SELECT coalesce((SELECT tenant FROM morello.snapshot_head WHERE tenant > $1 ORDER BY tenant LIMIT 1), '')`
	c.after, c.done = "", false
	return db.QueryRow(ctx, sql, c.tenant).Scan(&c.tenant)
}
