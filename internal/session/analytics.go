package session

import (
	"context"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// ActiveCount counts live sessions. It reads those that have not ended, however many have.
func (s *Service) ActiveCount(ctx context.Context, tenant string, m messages.SessionActiveCount) (messages.SessionActiveCountReply, error) {
	return postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (messages.SessionActiveCountReply, error) {
		return countActive(ctx, db, tenant, m)
	})
}

func countActive(ctx context.Context, db postgres.Querier, tenant string, m messages.SessionActiveCount) (reply messages.SessionActiveCountReply, err error) {
	const sql = `
		SELECT count(*), count(DISTINCT s.user_id), count(DISTINCT s.agent_id), coalesce(avg(s.interaction_count), 0)::float8
		FROM morello.session AS s
		WHERE s.tenant = $1 AND ` + isLive
	row := db.QueryRow(ctx, sql+whose(m.UserID, m.AgentID), tenant, m.UserID, m.AgentID)
	err = row.Scan(&reply.TotalActive, &reply.UniqueUsers, &reply.UniqueAgents, &reply.AvgInteractions)
	return reply, err
}

const (
	defaultAnalyticsHours = 24
	defaultAnalyticsTop   = 10
)

// Analytics describes the sessions that began within the last hours. One statement reads each of them once.
func (s *Service) Analytics(ctx context.Context, tenant string, m messages.SessionAnalytics) (messages.SessionAnalyticsReply, error) {
	hours, top := orDefault(m.TimeRangeHours, defaultAnalyticsHours), orDefault(m.Top, defaultAnalyticsTop)
	return postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (messages.SessionAnalyticsReply, error) {
		reply := messages.SessionAnalyticsReply{TimeRangeHours: hours}
		n := &reply.Statistics
		err := db.QueryRow(ctx, analyticsSQL, tenant, hours, top).Scan(&reply.Timestamp, &n.TotalSessions, &n.ActiveSessions, &n.ExpiredSessions,
			&n.DeletedSessions, &n.UniqueUsers, &n.UniqueAgents, &n.AvgDurationMinutes, &n.P95DurationMinutes,
			&n.AvgInteractions, &n.MaxInteractions, &reply.ByHour, &reply.TopUsers, &reply.TopAgents)
		return reply, err
	})
}

const analyticsSQL = `
	WITH begun AS MATERIALIZED (
		SELECT s.user_id, s.agent_id, s.interaction_count, date_trunc('hour', s.created_at, 'UTC') AS hour, s.deleted, ` + isLive + ` AS live,
			(extract(epoch FROM s.last_seen_at - s.created_at) / 60)::float8 AS minutes
		FROM morello.session AS s
		WHERE s.tenant = $1 AND s.created_at > now() - make_interval(hours => $2)
	)
	SELECT now(), count(*), count(*) FILTER (WHERE live), count(*) FILTER (WHERE NOT live AND NOT deleted), count(*) FILTER (WHERE deleted),
		count(DISTINCT user_id), count(DISTINCT agent_id),
		coalesce(avg(minutes), 0), coalesce(percentile_cont(0.95) WITHIN GROUP (ORDER BY minutes), 0),
		coalesce(avg(interaction_count), 0)::float8, coalesce(max(interaction_count), 0), (
			SELECT coalesce(json_agg(h ORDER BY h.hour), '[]')
			FROM (SELECT hour, count(*) AS sessions FROM begun GROUP BY hour) AS h
		), (
			SELECT coalesce(json_agg(u ORDER BY u.sessions DESC, u.interactions DESC, u.user_id), '[]') FROM (
				SELECT user_id, count(*) AS sessions, sum(interaction_count)::bigint AS interactions FROM begun
				WHERE user_id IS NOT NULL GROUP BY user_id ORDER BY 2 DESC, 3 DESC, 1 LIMIT $3
			) AS u
		), (
			SELECT coalesce(json_agg(a ORDER BY a.sessions DESC, a.interactions DESC, a.agent_id), '[]') FROM (
				SELECT agent_id, count(*) AS sessions, sum(interaction_count)::bigint AS interactions FROM begun
				WHERE agent_id IS NOT NULL GROUP BY agent_id ORDER BY 2 DESC, 3 DESC, 1 LIMIT $3
			) AS a
		)
	FROM begun`

func orDefault(n *int, otherwise int) int {
	if n == nil {
		return otherwise
	}
	return *n
}
