package session

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

const (
	cleanupBatch  = 1000
	secondsPerDay = 24 * 60 * 60
)

// CleanupInactive marks the tenant's sessions that have expired, and removes those that ended long ago.
func (s *Service) CleanupInactive(ctx context.Context, tenant string, m messages.SessionCleanupInactive) (messages.SessionCleanupInactiveReply, error) {
	days := float64(messages.DefaultSessionRetentionDays)
	if m.OlderThanDays != nil {
		days = *m.OlderThanDays
	}
	if m.DryRun {
		return postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (messages.SessionCleanupInactiveReply, error) {
			return countInactive(ctx, db, tenant, days)
		})
	}
	c := tenantCleanup{tenant: tenant, days: days, from: longAgo}
	return postgres.InBatches(ctx, s.pool, postgres.Batches[messages.SessionCleanupInactiveReply]{
		Tenant: tenant, Timeout: messages.SessionCleanupInactiveEndpoint.Timeout, Step: c.step,
		SetMore: func(reply *messages.SessionCleanupInactiveReply, more bool) { reply.More = more },
		Committed: func() {
			s.announce(messages.SessionExpiredEvent, tenant, c.expired)
			c.expired = nil
		},
	})
}

// tenantCleanup first marks, and then removes what expired, and then what was deleted: an index has each in the order of updates.
type tenantCleanup struct {
	tenant  string
	days    float64
	phase   cleanupPhase
	from    pgtype.Timestamptz
	expired []messages.SessionRef // that were marked and not announced yet
}

type cleanupPhase int

const (
	marking cleanupPhase = iota
	removingExpired
	removingDeleted
)

func (c *tenantCleanup) step(ctx context.Context, db postgres.Querier, reply *messages.SessionCleanupInactiveReply) (more bool, err error) {
	var looked int64
	if c.phase == marking {
		did, err := markExpired(ctx, db, c.from, &c.tenant)
		if err != nil {
			return false, err
		}
		looked, c.from = int64(did.looked), did.last
		c.expired = append(c.expired, did.marked[c.tenant]...)
		reply.ExpiredMarked += int64(len(did.marked[c.tenant]))
	} else {
		did, err := removeOfTenant(ctx, db, c.tenant, c.phase == removingDeleted, c.from, c.days)
		if err != nil {
			return false, err
		}
		looked, c.from = did.looked, did.last
		reply.Deleted += did.removed
	}
	if looked == cleanupBatch {
		return true, nil
	}
	c.phase, c.from = c.phase+1, longAgo
	return c.phase <= removingDeleted, nil
}

// countInactive counts what a clean-up would do at this moment.
func countInactive(ctx context.Context, db postgres.Querier, tenant string, days float64) (reply messages.SessionCleanupInactiveReply, err error) {
	const sql = `
		WITH expired AS MATERIALIZED (
			SELECT ` + diesAt + ` <= now() - make_interval(secs => $2) AS old FROM morello.session AS s
			WHERE s.tenant = $1 AND s.ended_at IS NULL AND s.sweep_after <= now() AND ` + diesAt + ` <= now()
		)
		SELECT (SELECT count(*) FROM expired), (SELECT count(*) FROM expired WHERE old) + (
			SELECT count(*) FROM morello.session AS s WHERE s.tenant = $1 AND s.deleted IN (false, true) AND ` + isOver + `
		)`
	err = db.QueryRow(ctx, sql, tenant, days*secondsPerDay).Scan(&reply.ExpiredMarked, &reply.Deleted)
	return reply, err
}

// isOver says that a session ended longer ago than so many seconds. No session is updated after its end, so that the index of
// ended sessions by their update finds them.
const isOver = `
	s.ended_at IS NOT NULL AND s.updated_at <= now() - make_interval(secs => $2) AND s.ended_at <= now() - make_interval(secs => $2)`

// marked is what a batch of the marking did.
type marked struct {
	looked int
	last   pgtype.Timestamptz
	marked map[string][]messages.SessionRef // by tenant
}

// markExpired looks at the sessions whose sweep_after has passed, from where the batch before ended, of one tenant or of all. It
// marks those that have expired, with the moment at which they did, and tells the rest, which was used or renewed meanwhile,
// when to be looked at again. Sessions that are locked are left for the next time: it waits for nobody.
func markExpired(ctx context.Context, db postgres.Querier, from pgtype.Timestamptz, tenant *string) (marked, error) {
	const sql = `
		WITH due AS MATERIALIZED (
			SELECT s.tenant, s.session_id, s.user_id, s.agent_id, s.sweep_after, ` + diesAt + ` AS dies_at
			FROM morello.session AS s
			WHERE s.ended_at IS NULL AND s.sweep_after >= $1 AND s.sweep_after <= now() AND ($3::text IS NULL OR s.tenant = $3)
			ORDER BY s.sweep_after LIMIT $2
			FOR NO KEY UPDATE SKIP LOCKED
		), marked AS (
			UPDATE morello.session AS s SET ended_at = due.dies_at FROM due
			WHERE s.tenant = due.tenant AND s.session_id = due.session_id AND due.dies_at <= now()
		), rearmed AS (
			UPDATE morello.session AS s SET sweep_after = due.dies_at FROM due
			WHERE s.tenant = due.tenant AND s.session_id = due.session_id AND due.dies_at > now()
		)
		SELECT tenant, session_id::text, coalesce(user_id, ''), coalesce(agent_id, ''), sweep_after, dies_at <= now()
		FROM due ORDER BY sweep_after`
	did := marked{last: from, marked: map[string][]messages.SessionRef{}}
	rows, err := db.Query(ctx, sql, from, cleanupBatch, tenant)
	if err != nil {
		return did, err
	}
	var of string
	var r messages.SessionRef
	var expired bool
	_, err = pgx.ForEachRow(rows, []any{&of, &r.SessionID, &r.UserID, &r.AgentID, &did.last, &expired}, func() error {
		did.looked++
		if expired {
			did.marked[of] = append(did.marked[of], r)
		}
		return nil
	})
	return did, err
}

// removed is what a batch of the removal did.
type removed struct {
	looked, removed int64
	last            pgtype.Timestamptz
}

// removeDue removes the sessions of "due", with their tokens.
const removeDue = `removed AS (
			DELETE FROM morello.session AS s USING due WHERE s.tenant = due.tenant AND s.session_id = due.session_id
			RETURNING s.session_id
		), tokens AS (
			DELETE FROM morello.session_token AS t USING due WHERE t.tenant = due.tenant AND t.session_id = due.session_id
		)
		SELECT count(*), (SELECT count(*) FROM removed), coalesce(max(at), $1) FROM due`

// removeOfAll removes sessions of all tenants that ended so many days ago, from where the batch before ended.
func removeOfAll(ctx context.Context, db postgres.Querier, from pgtype.Timestamptz, days float64) (did removed, err error) {
	const sql = `
		WITH due AS MATERIALIZED (
			SELECT s.tenant, s.session_id, s.ended_at AS at FROM morello.session AS s
			WHERE s.ended_at >= $1 AND s.ended_at <= now() - make_interval(secs => $2)
			ORDER BY s.ended_at LIMIT $3
			FOR UPDATE SKIP LOCKED
		), ` + removeDue
	err = db.QueryRow(ctx, sql, from, days*secondsPerDay, cleanupBatch).Scan(&did.looked, &did.removed, &did.last)
	return did, err
}

// removeOfTenant is removeOfAll for one tenant, and for those that were deleted or those that were not.
func removeOfTenant(
	ctx context.Context, db postgres.Querier, tenant string, deleted bool, from pgtype.Timestamptz, days float64,
) (did removed, err error) {
	const sql = `
		WITH due AS MATERIALIZED (
			SELECT s.tenant, s.session_id, s.updated_at AS at FROM morello.session AS s
			WHERE s.tenant = $4 AND s.deleted = $5 AND s.updated_at >= $1 AND ` + isOver + `
			ORDER BY s.updated_at LIMIT $3
			FOR UPDATE SKIP LOCKED
		), ` + removeDue
	err = db.QueryRow(ctx, sql, from, days*secondsPerDay, cleanupBatch, tenant, deleted).Scan(&did.looked, &did.removed, &did.last)
	return did, err
}
