package session_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/internal/session"
	"github.com/ai-cherry/morello/messages"
)

const day = 24 * time.Hour

func TestCleanupInactive(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var ids []string
	for range 8 {
		ids = append(ids, f.create(t, messages.SessionCreate{TTLSeconds: new(1000.0)}).Session.SessionID)
	}
	// 0, 1 live; 2 expired now; 3 expired 40 days ago, not marked; 4 deleted now; 5 deleted 31 days ago; 6 deleted 29 days ago.
	f.age(t, ids[2], 2000*time.Second)
	f.age(t, ids[3], 40*day)
	for _, id := range ids[4:7] {
		_, err := f.Delete(t.Context(), tenant, messages.SessionDelete{SessionID: id})
		require.NoError(t, err)
	}
	f.age(t, ids[5], 31*day)
	f.age(t, ids[6], 29*day)
	_, err := f.Create(t.Context(), "other", messages.SessionCreate{TTLSeconds: new(1.0)})
	require.NoError(t, err)
	f.exec(t, `UPDATE morello.session SET expires_at = now() - interval '50 days', sweep_after = now() - interval '50 days' WHERE tenant = 'other'`)

	want := messages.SessionCleanupInactiveReply{ExpiredMarked: 2, Deleted: 2}
	for _, dry := range []bool{true, true, false} {
		got, err := f.CleanupInactive(t.Context(), tenant, messages.SessionCleanupInactive{DryRun: dry})
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	require.EqualValues(t, 7, f.count(t, `SELECT count(*) FROM morello.session`))
	require.EqualValues(t, 7, f.count(t, `SELECT count(*) FROM morello.session_token`), "tokens go with their session")
	again, err := f.CleanupInactive(t.Context(), tenant, messages.SessionCleanupInactive{})
	require.NoError(t, err)
	require.Zero(t, again)

	zero := messages.SessionCleanupInactive{OlderThanDays: new(0.0)}
	all, err := f.CleanupInactive(t.Context(), tenant, zero)
	require.NoError(t, err)
	require.Equal(t, messages.SessionCleanupInactiveReply{Deleted: 3}, all)
	require.Len(t, f.list(t, messages.SessionList{State: messages.SessionAll}).Sessions, 3, "live sessions stay, whatever the days")
	require.EqualValues(t, 1, f.count(t, `SELECT count(*) FROM morello.session WHERE tenant = 'other' AND ended_at IS NULL`))
}

// TestCleanupRearms: a session that was renewed after its sweep_after was set is looked at and told when to be looked at again.
func TestCleanupRearms(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.create(t, messages.SessionCreate{TTLSeconds: new(1000.0)}).Session
	f.age(t, s.SessionID, 900*time.Second)
	f.update(t, messages.SessionUpdate{SessionID: s.SessionID})
	f.exec(t, `UPDATE morello.session SET sweep_after = sweep_after - interval '200 seconds'`)
	cleaned, err := f.CleanupInactive(t.Context(), tenant, messages.SessionCleanupInactive{})
	require.NoError(t, err)
	require.Zero(t, cleaned)
	require.EqualValues(t, 1, f.count(t, `SELECT count(*) FROM morello.session WHERE sweep_after = expires_at AND ended_at IS NULL`))
}

// TestCleanupInBatches: more than a batch of each kind.
func TestCleanupInBatches(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.fill(t, 2500, `now() - interval '40 days'`)
	cleaned, err := f.CleanupInactive(t.Context(), tenant, messages.SessionCleanupInactive{})
	require.NoError(t, err)
	require.Equal(t, messages.SessionCleanupInactiveReply{ExpiredMarked: 2500, Deleted: 2500}, cleaned)
}

// fill stores sessions that began at a moment, with a TTL of a day, in one statement.
func (f fixture) fill(t *testing.T, n int, at string) {
	t.Helper()
	f.exec(t, fmt.Sprintf(`
		INSERT INTO morello.session (tenant, session_id, user_id, agent_id, data, metadata, size_bytes, ttl, created_at, updated_at, last_seen_at,
			expires_at, absolute_expires_at, sweep_after)
		SELECT '%s', gen_random_uuid(), 'u' || i %% 1000, 'a' || i %% 7, '{}', '{}', 4, interval '1 day', at, at, at, at + interval '1 day', at + interval '30 days', at + interval '1 day'
		FROM generate_series(1, %d) AS i, LATERAL (SELECT %s - i * interval '1 millisecond' AS at) AS moment`, tenant, n, at))
}

func TestDeleteUser(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.fill(t, 2500, `now()`)
	f.exec(t, `UPDATE morello.session SET user_id = 'u'`)
	spared := f.create(t, messages.SessionCreate{UserID: "u"})
	other := f.create(t, messages.SessionCreate{UserID: "v"})
	reply, err := f.DeleteUser(t.Context(), tenant, messages.SessionDeleteUser{UserID: "u", ExceptSessionID: spared.Session.SessionID})
	require.NoError(t, err)
	require.Equal(t, messages.SessionDeleteUserReply{Deleted: 2500}, reply)
	f.requireOpens(t, spared.Token, spared.Session.SessionID)
	f.requireOpens(t, other.Token, other.Session.SessionID)
}

func TestBulkDelete(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b, c := f.create(t, messages.SessionCreate{}).Session, f.create(t, messages.SessionCreate{}).Session, f.create(t, messages.SessionCreate{}).Session
	_, err := f.BulkDelete(t.Context(), "other", messages.SessionBulkDelete{SessionIDs: []string{a.SessionID}})
	require.NoError(t, err)
	reply, err := f.BulkDelete(t.Context(), tenant, messages.SessionBulkDelete{SessionIDs: []string{a.SessionID, b.SessionID, a.SessionID, "0196f3c2-7b1e-7c3a-9f0e-0f6a3d1c2b4a"}})
	require.NoError(t, err)
	require.EqualValues(t, 2, reply.Deleted)
	f.get(t, c.SessionID)
}

// TestDeleteOfAgent: in batches, each told before it is committed, and while nobody waits for it; one that cannot be told is undone,
// and told again.
func TestDeleteOfAgent(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	another := connect(t, f.url)
	want := map[string]int{}
	for range 5 {
		want[f.create(t, messages.SessionCreate{AgentID: "a", UserID: "u"}).Session.SessionID] = 1
	}
	kept := f.create(t, messages.SessionCreate{AgentID: "b"}).Session
	foreign, err := f.Create(t.Context(), "other", messages.SessionCreate{AgentID: "a"})
	require.NoError(t, err)
	told, calls := map[string]int{}, 0
	deleteSome := session.NewDeleteOfAgent(func(_ context.Context, of string, sessions messages.SessionRefs) error {
		require.Equal(t, tenant, of)
		require.LessOrEqual(t, len(sessions.Sessions), 2)
		_, err := another.Exec(t.Context(), `SELECT FROM morello.session FOR UPDATE NOWAIT`)
		require.NoError(t, err, "none is locked")
		if calls++; calls == 2 {
			return errors.New("NATS is away")
		}
		for _, s := range sessions.Sessions {
			require.Equal(t, messages.SessionRef{SessionID: s.SessionID, UserID: "u", AgentID: "a"}, s)
			told[s.SessionID]++
		}
		return nil
	})
	var total, failures int64
	for more := true; more; {
		err := pgx.BeginFunc(t.Context(), f.db, func(tx pgx.Tx) error {
			deleted, again, err := deleteSome(t.Context(), tx, tenant, "a", 2)
			if err == nil {
				total, more = total+deleted, again
			}
			return err
		})
		if err != nil {
			failures++
			require.EqualValues(t, 2, f.count(t, `SELECT count(*) FROM morello.session WHERE deleted`), "undone")
		}
	}
	require.EqualValues(t, 5, total)
	require.EqualValues(t, 1, failures)
	require.Equal(t, want, told)
	f.get(t, kept.SessionID)
	_, err = f.Get(t.Context(), "other", messages.SessionGet{SessionID: foreign.Session.SessionID})
	require.NoError(t, err)
}

// step runs a job until it has no more to do, as the scheduler does.
func (f fixture) runJob(t *testing.T, cfg session.CleanupConfig) jobs.Counts {
	t.Helper()
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: f.url, Program: "test", Instance: "job"})
	require.NoError(t, err)
	defer pool.Close()
	total, step := jobs.Counts{}, session.NewCleanup(cfg).NewRun()
	for more := true; more; {
		did, err := postgres.InTx(t.Context(), pool, messages.TenantAdmin, func(ctx context.Context, db postgres.Querier) (did jobs.Counts, err error) {
			did, more, err = step(ctx, db)
			return did, err
		})
		require.NoError(t, err)
		for name, n := range did {
			total[name] += n
		}
	}
	return total
}

// TestCleanupJob: all tenants, in batches, each expired session told once for batch and tenant.
func TestCleanupJob(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.fill(t, 1500, `now() - interval '2 days'`)
	f.fill(t, 1200, `now() - interval '33 days'`)
	_, err := f.Create(t.Context(), "other", messages.SessionCreate{UserID: "o", AgentID: "a"})
	require.NoError(t, err)
	f.exec(t, `UPDATE morello.session SET expires_at = now() - interval '1 day', sweep_after = now() - interval '1 day' WHERE tenant = 'other'`)
	live := f.create(t, messages.SessionCreate{}).Session
	told := map[string]int{}
	counts := f.runJob(t, session.CleanupConfig{Expired: func(_ context.Context, of string, expired messages.SessionRefs) error {
		require.LessOrEqual(t, len(expired.Sessions), 1000)
		for _, s := range expired.Sessions {
			require.NotEmpty(t, s.UserID)
			require.NotEmpty(t, s.AgentID)
			told[of+s.SessionID]++
		}
		return nil
	}})
	require.Equal(t, jobs.Counts{"expired_marked": 2701, "deleted": 1200}, counts)
	require.Len(t, told, 2701)
	f.get(t, live.SessionID)
	require.EqualValues(t, 1501, f.count(t, `SELECT count(*) FROM morello.session WHERE ended_at IS NOT NULL AND NOT deleted`))
	require.Equal(t, jobs.Counts{"expired_marked": 0, "deleted": 0}, f.runJob(t, session.CleanupConfig{}))
}

// TestUntoldIsUnmarked: if the event cannot be published the sessions are not marked, and told the next time.
func TestUntoldIsUnmarked(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.fill(t, 10, `now() - interval '2 days'`)
	step := session.NewCleanup(session.CleanupConfig{Expired: func(context.Context, string, messages.SessionRefs) error { return errors.New("no stream") }}).NewRun()
	err := pgx.BeginFunc(t.Context(), f.db, func(tx pgx.Tx) error {
		_, _, err := step(t.Context(), tx)
		return err
	})
	require.ErrorContains(t, err, "no stream")
	require.Zero(t, f.count(t, `SELECT count(*) FROM morello.session WHERE ended_at IS NOT NULL`))
	require.EqualValues(t, 10, f.runJob(t, session.CleanupConfig{})["expired_marked"])
}

// TestTouchesAndCleanupNeverDeadlock: many sessions that are touched, deleted, rotated and cleaned at once, in all orders.
func TestTouchesAndCleanupNeverDeadlock(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	services := []*session.Service{f.Service, newService(t, f.url, session.Config{})}
	var made []messages.SessionCreateReply
	for range 60 {
		made = append(made, f.create(t, messages.SessionCreate{UserID: "u", IdleTimeoutSeconds: new(1.0), TTLSeconds: new(1.0)}))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	var crowd sync.WaitGroup
	work := func(do func(i int) error) {
		crowd.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := do(i); err != nil && ctx.Err() == nil && messages.AsError(err).Code != messages.CodeNotFound {
					t.Error(err)
				}
			}
		})
	}
	for w := range 8 {
		work(func(i int) error {
			_, err := services[w%2].GetByToken(ctx, tenant, messages.SessionGetByToken{Token: made[(i*(w+1))%60].Token})
			return err
		})
		work(func(i int) error {
			_, err := services[w%2].Touch(ctx, tenant, messages.SessionTouch{SessionID: made[(i*(w+7))%60].Session.SessionID})
			return err
		})
	}
	work(func(int) error {
		_, err := services[0].CleanupInactive(ctx, tenant, messages.SessionCleanupInactive{})
		return err
	})
	work(func(i int) error {
		ids := []string{made[(i+9)%60].Session.SessionID, made[i%60].Session.SessionID, made[(i+31)%60].Session.SessionID}
		if i%40 != 39 {
			ids = []string{"0196f3c2-7b1e-7c3a-9f0e-0f6a3d1c2b4a"}
		}
		_, err := services[1].BulkDelete(ctx, tenant, messages.SessionBulkDelete{SessionIDs: ids})
		return err
	})
	work(func(i int) error {
		_, err := services[1].Create(ctx, tenant, messages.SessionCreate{UserID: "u", MaxPerUser: new(50)})
		return err
	})
	work(func(i int) error {
		_, err := services[0].Rotate(ctx, tenant, messages.SessionRotate{Token: made[i%60].Token})
		return err
	})
	crowd.Wait()
	require.Zero(t, f.count(t, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`))
}
