package system_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/messages"
)

// TestWhoseJobs: a tenant sees its own jobs, the operator all; what it may not see is as if it were not there.
func TestWhoseJobs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	mine, others, operators := f.insert(t, args{"acme", "a"}), f.insert(t, args{"other", "a"}), f.insert(t, args{"", "b"})
	job := f.get(t, "acme", mine)
	require.WithinDuration(t, time.Now(), job.CreatedAt, time.Minute)
	job.CreatedAt, job.ScheduledAt = time.Time{}, time.Time{}
	require.Equal(t, messages.Job{JobID: mine, Tenant: "acme", Kind: "a", State: messages.JobAvailable, MaxAttempts: 25}, job)
	for _, id := range []int64{mine, others, operators} {
		require.Equal(t, id, f.get(t, messages.TenantAdmin, id).JobID)
	}
	for _, id := range []int64{others, operators, 999} {
		ref := messages.JobRef{JobID: id}
		_, err := f.JobGet(t.Context(), "acme", messages.SystemJobGet{JobRef: ref})
		requireFailure(t, messages.CodeNotFound, "job_id", err)
		_, err = f.JobCancel(t.Context(), "acme", messages.SystemJobCancel{JobRef: ref})
		requireFailure(t, messages.CodeNotFound, "job_id", err)
		_, err = f.JobRetry(t.Context(), "acme", messages.SystemJobRetry{JobRef: ref})
		requireFailure(t, messages.CodeNotFound, "job_id", err)
	}
	require.Equal(t, messages.JobAvailable, f.get(t, messages.TenantAdmin, others).State)
	require.Empty(t, f.trail(t))
}

// TestJobList: newest first, by kind, state and tenant, each once over the pages.
func TestJobList(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i := range 7 {
		id := f.insert(t, args{"acme", "a"})
		if i%2 == 0 {
			f.set(t, id, messages.JobCompleted)
		}
	}
	b, other := f.insert(t, args{"acme", "b"}), f.insert(t, args{"other", "a"})
	list := func(tenant string, m messages.SystemJobList) (ids []int64) {
		require.NoError(t, m.Validate())
		for {
			reply, err := f.JobList(t.Context(), tenant, m)
			require.NoError(t, err)
			for _, job := range reply.Jobs {
				ids = append(ids, job.JobID)
			}
			if m.Cursor = reply.NextCursor; m.Cursor == "" {
				return ids
			}
			require.Len(t, reply.Jobs, m.Size())
		}
	}
	require.Equal(t, []int64{b, 7, 6, 5, 4, 3, 2, 1}, list("acme", messages.SystemJobList{}))
	require.Equal(t, []int64{b, 7, 6, 5, 4, 3, 2, 1}, list("acme", messages.SystemJobList{Tenant: "acme", Page: messages.Page{Limit: new(3)}}))
	require.Equal(t, []int64{7, 5, 3, 1}, list("acme", messages.SystemJobList{Kind: "a", State: messages.JobCompleted, Page: messages.Page{Limit: new(2)}}))
	require.Equal(t, []int64{other}, list("other", messages.SystemJobList{}))
	require.Equal(t, []int64{other, b, 7}, list(messages.TenantAdmin, messages.SystemJobList{})[:3])
	require.Equal(t, []int64{other}, list(messages.TenantAdmin, messages.SystemJobList{Tenant: "other"}))
	require.Empty(t, list("nobody", messages.SystemJobList{}))

	_, err := f.JobList(t.Context(), "other", messages.SystemJobList{Tenant: "acme"})
	requireFailure(t, messages.CodeForbidden, "tenant", err)
	page, err := f.JobList(t.Context(), "acme", messages.SystemJobList{Page: messages.Page{Limit: new(1)}})
	require.NoError(t, err)
	_, err = f.JobList(t.Context(), "other", messages.SystemJobList{Page: messages.Page{Cursor: page.NextCursor}})
	requireFailure(t, messages.CodeInvalid, "cursor", err)
	requireFailure(t, messages.CodeInvalid, "state", messages.SystemJobList{State: "done"}.Validate())
}

// TestCancelAndRetry: in each state, with what is in the trail of it.
func TestCancelAndRetry(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := messages.WithCall(t.Context(), &messages.Call{Actor: "ada"})
	for _, c := range []struct{ before, cancelled, retried messages.JobState }{
		{messages.JobAvailable, messages.JobCancelled, messages.JobAvailable},
		{messages.JobScheduled, messages.JobCancelled, messages.JobAvailable},
		{messages.JobRetryable, messages.JobCancelled, messages.JobAvailable},
		{messages.JobRunning, messages.JobRunning, messages.JobRunning},
		{messages.JobCancelled, messages.JobCancelled, messages.JobAvailable},
		{messages.JobDiscarded, messages.JobDiscarded, messages.JobAvailable},
		{messages.JobCompleted, messages.JobCompleted, ""},
	} {
		var wanted []string
		entry := func(event string, id int64) string {
			return fmt.Sprintf(`acme job.%s ada job %d {"kind": "a", "state": "%s"}`, event, id, c.before)
		}
		id := f.insert(t, args{"acme", "a"})
		f.set(t, id, c.before)
		reply, err := f.JobCancel(ctx, "acme", messages.SystemJobCancel{JobRef: messages.JobRef{JobID: id}})
		require.NoError(t, err)
		require.Equal(t, c.cancelled, reply.Job.State, c.before)
		require.Equal(t, c.before == messages.JobRunning, reply.Job.CancelRequested)
		require.Equal(t, f.get(t, "acme", id), reply.Job)
		if c.cancelled != c.before || c.before == messages.JobRunning {
			wanted = append(wanted, entry("cancelled", id))
		}

		id = f.insert(t, args{"acme", "a"})
		f.set(t, id, c.before)
		reply, err = f.JobRetry(ctx, "acme", messages.SystemJobRetry{JobRef: messages.JobRef{JobID: id}})
		if c.retried == "" {
			requireFailure(t, messages.CodeConflict, "job_id", err)
		} else {
			require.NoError(t, err)
			require.Equal(t, c.retried, reply.Job.State, c.before)
			if c.retried != c.before {
				wanted = append(wanted, entry("retried", id))
			}
		}
		trail := f.trail(t)
		require.Equal(t, wanted, append([]string(nil), trail[len(trail)-len(wanted):]...), c.before)
	}
	operators := f.insert(t, args{"", "b"})
	_, err := f.JobCancel(t.Context(), messages.TenantAdmin, messages.SystemJobCancel{JobRef: messages.JobRef{JobID: operators}})
	require.NoError(t, err)
	require.True(t, slices.Contains(f.trail(t), fmt.Sprintf(`_admin job.cancelled job %d {"kind": "b", "state": "available"}`, operators)))
	require.Len(t, f.trail(t), 4+4+1)
}

// TestListUsesAnIndex: the jobs of one tenant among those of many are found, not searched for.
func TestListUsesAnIndex(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	_, err := f.db.Exec(t.Context(), `
		INSERT INTO river.river_job (args, kind, max_attempts)
		SELECT jsonb_build_object('tenant', 'tenant-' || n % 1000), 'a', 25 FROM generate_series(1, 5000) AS n`)
	require.NoError(t, err)
	_, err = f.db.Exec(t.Context(), `VACUUM ANALYZE river.river_job`)
	require.NoError(t, err)
	_, err = f.JobList(t.Context(), "tenant-7", messages.SystemJobList{})
	require.NoError(t, err)
	f.pool.Close() // its connections tell their statistics at their end
	require.Eventually(t, func() bool {
		var scans int64
		err := f.db.QueryRow(t.Context(), `SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'river_job_args_index'`).Scan(&scans)
		return err == nil && scans == 1
	}, time.Minute, 20*time.Millisecond)
}
