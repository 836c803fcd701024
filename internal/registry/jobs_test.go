package registry_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/internal/registry"
	"github.com/ai-cherry/morello/messages"
)

// deleteOwned deletes an agent's rows of a table of the test's.
func deleteOwned(table string) registry.DeleteOwned {
	return func(ctx context.Context, db postgres.Querier, tenant, agentID string, limit int) (int64, bool, error) {
		tag, err := db.Exec(ctx, `DELETE FROM `+table+` WHERE ctid = ANY (ARRAY(SELECT ctid FROM `+table+` WHERE tenant = $1 AND agent_id = $2 LIMIT $3))`,
			tenant, agentID, limit)
		return tag.RowsAffected(), tag.RowsAffected() == int64(limit), err
	}
}

// own creates two tables of what agents own: so many rows of the agent, and one of another and of another tenant.
func (f fixture) own(t *testing.T, n int) {
	t.Helper()
	for _, table := range []string{"one", "two"} {
		f.exec(t, `CREATE TABLE `+table+` AS SELECT 'acme'::text AS tenant, 'a'::text AS agent_id FROM generate_series(1, `+"$1::int"+`)`, n)
		f.exec(t, `INSERT INTO `+table+` VALUES ('acme', 'b'), ('other', 'a')`)
	}
}

func (f fixture) startJobs(t *testing.T, owned ...registry.DeleteOwned) {
	t.Helper()
	set := jobs.NewSet(f.pool, nil, discard)
	jobs.AddBatched(set, registry.NewCascade(owned...))
	client, err := jobs.Start(t.Context(), jobs.Config{DatabaseURL: f.url, Instance: "one", Log: discard}, set)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, client.Stop(ctx))
	})
}

func (f fixture) waitForJob(t *testing.T, id int64) {
	t.Helper()
	require.Eventually(t, func() bool {
		var state string
		err := f.db.QueryRow(t.Context(), `SELECT state FROM river.river_job WHERE id = $1`, id).Scan(&state)
		return err == nil && state == "completed"
	}, time.Minute, 50*time.Millisecond)
}

// TestCascadeGoesOnAfterACrash: the job fails after a batch was committed and in the middle of another; run again it
// deletes the rest, and only what is the agent's.
func TestCascadeGoesOnAfterACrash(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.own(t, 1200)
	var calls atomic.Int32
	crash := func(ctx context.Context, db postgres.Querier, tenant, agentID string, limit int) (int64, bool, error) {
		deleted, more, err := deleteOwned("two")(ctx, db, tenant, agentID, limit)
		if calls.Add(1) == 2 {
			return 0, false, errors.New("the process died here")
		}
		return deleted, more, err
	}
	f.createAgent(t, messages.AgentCreate{AgentID: "a", Name: "n"})
	deleted, err := f.DeleteAgent(t.Context(), tenant, messages.AgentDelete{AgentID: "a", Cascade: true})
	require.NoError(t, err)
	require.True(t, deleted.Deleted)
	require.Equal(t, 1202, f.count(t, `SELECT count(*) FROM one`), "a request deletes nothing of it itself")
	f.startJobs(t, deleteOwned("one"), crash)
	f.waitForJob(t, deleted.JobID)
	require.Equal(t, 2, f.count(t, `SELECT count(*) FROM one`))
	require.Equal(t, 2, f.count(t, `SELECT count(*) FROM two`))
	require.Equal(t, 2, f.count(t, `SELECT attempt FROM river.river_job WHERE id = $1`, deleted.JobID))
	require.EqualValues(t, 2+2, calls.Load()) // 500, then what was rolled back; 500, 200
	require.JSONEq(t, `{"tenant":"acme","agent_id":"a"}`, f.text(t, `SELECT args::text FROM river.river_job WHERE id = $1`, deleted.JobID))
}

func (f fixture) text(t *testing.T, sql string, args ...any) (text string) {
	t.Helper()
	require.NoError(t, f.db.QueryRow(t.Context(), sql, args...).Scan(&text))
	return text
}

// TestCascadeOfWhatIsNotRegistered: an agent need not be registered to own something. The trail says what was asked for.
func TestCascadeOfWhatIsNotRegistered(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.own(t, 3)
	deleted, err := f.DeleteAgent(t.Context(), tenant, messages.AgentDelete{AgentID: "a", Cascade: true})
	require.NoError(t, err)
	require.False(t, deleted.Deleted)
	require.Equal(t, []string{`acme agent.deleted agent a {"job_id": 1}`}, f.trail(t))
	f.startJobs(t, deleteOwned("one"))
	f.waitForJob(t, deleted.JobID)
	require.Equal(t, 2, f.count(t, `SELECT count(*) FROM one`))
	require.Equal(t, 5, f.count(t, `SELECT count(*) FROM two`))
}

func TestCascadeOfNothing(t *testing.T) {
	t.Parallel()
	did, more, err := registry.NewCascade()(registry.AgentCascade{Tenant: "acme", AgentID: "a"})(t.Context(), nil)
	require.NoError(t, err)
	require.False(t, more)
	require.Empty(t, did)
}

// TestDeleteWithoutCascade leaves what the agent owns, and inserts no job.
func TestDeleteWithoutCascade(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.createAgent(t, messages.AgentCreate{AgentID: "a", Name: "n"})
	for _, is := range []bool{true, false} {
		deleted, err := f.DeleteAgent(t.Context(), tenant, messages.AgentDelete{AgentID: "a"})
		require.NoError(t, err)
		require.Equal(t, messages.AgentDeleteReply{Deleted: is}, deleted)
	}
	require.Equal(t, 0, f.count(t, `SELECT count(*) FROM river.river_job`))
	f.createAgent(t, messages.AgentCreate{AgentID: "a", Name: "n"}) // both are free again
}
