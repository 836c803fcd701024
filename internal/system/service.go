package system

import (
	"context"
	"fmt"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// Config sets up a Service.
type Config struct {
	// Audit returns the statement that appends an entry to the audit trail for each row of a common table expression with
	// the columns tenant, event_type, actor, resource_type, resource_id and details. Required.
	Audit func(source string) string
	// Jobs cancels jobs and has them run again. Required.
	Jobs *jobs.Inserter
}

// Service answers the operations of the system. All methods are safe for concurrent use.
type Service struct {
	pool *postgres.Pool
	jobs *jobs.Inserter
	// audited is the statement that appends the rows of the common table expression "entry" to the audit trail.
	audited string
}

// New returns a service.
func New(pool *postgres.Pool, cfg Config) *Service {
	return &Service{pool: pool, jobs: cfg.Jobs, audited: cfg.Audit("entry")}
}

// JobGet returns a job.
func (s *Service) JobGet(ctx context.Context, tenant string, m messages.SystemJobGet) (messages.JobReply, error) {
	return postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (messages.JobReply, error) {
		job, err := jobs.Get(ctx, db, tenant, m.JobID)
		return messages.JobReply{Job: job}, err
	})
}

type (
	// list is what a cursor of JobList is valid for, place where its page begins: after this job.
	list struct {
		Operation, Tenant string
		Filters           messages.SystemJobList
	}
	place struct {
		ID int64 `json:"id"`
	}
)

// JobList lists jobs, newest first.
func (s *Service) JobList(ctx context.Context, tenant string, m messages.SystemJobList) (messages.SystemJobListReply, error) {
	whose := tenant
	switch {
	case m.Tenant == "" || m.Tenant == tenant:
	case tenant == messages.TenantAdmin:
		whose = m.Tenant
	default:
		return messages.SystemJobListReply{}, &messages.Error{
			Code: messages.CodeForbidden, Message: "only the operator lists the jobs of others", Details: messages.ErrorDetails{Field: "tenant"},
		}
	}
	here := list{messages.SystemJobListEndpoint.Name, tenant, m}
	here.Filters.Page = messages.Page{}
	if err := bus.Reserve(ctx, messages.MaxPageBytes); err != nil {
		return messages.SystemJobListReply{}, err
	}
	page, next, err := postgres.ReadPage(ctx, s.pool, here, m.Cursor,
		func(ctx context.Context, db postgres.Querier, from place) ([]messages.Job, bool, error) {
			return jobs.List(ctx, db, whose, m, from.ID)
		}, func(last messages.Job) place { return place{last.JobID} })
	return messages.SystemJobListReply{Jobs: page, NextCursor: next}, err
}

// JobCancel cancels a job that is not over.
func (s *Service) JobCancel(ctx context.Context, tenant string, m messages.SystemJobCancel) (messages.JobReply, error) {
	return s.change(ctx, tenant, m.JobID, "job.cancelled", func(ctx context.Context, db postgres.Querier, _ messages.Job) error {
		return s.jobs.Cancel(ctx, db, m.JobID)
	})
}

// JobRetry has a job run again that is not completed.
func (s *Service) JobRetry(ctx context.Context, tenant string, m messages.SystemJobRetry) (messages.JobReply, error) {
	return s.change(ctx, tenant, m.JobID, "job.retried", func(ctx context.Context, db postgres.Querier, job messages.Job) error {
		if job.State == messages.JobCompleted {
			return &messages.Error{
				Code: messages.CodeConflict, Message: "the job is completed", Details: messages.ErrorDetails{Field: "job_id"},
			}
		}
		return s.jobs.Retry(ctx, db, m.JobID)
	})
}

// change changes a job of the tenant, with an entry in its audit trail if that made a difference, and returns it as it is then.
func (s *Service) change(
	ctx context.Context, tenant string, jobID int64, event string,
	do func(ctx context.Context, db postgres.Querier, job messages.Job) error,
) (messages.JobReply, error) {
	return postgres.InTx(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (reply messages.JobReply, err error) {
		before, err := jobs.Get(ctx, db, tenant, jobID)
		if err != nil {
			return reply, err
		}
		if err := do(ctx, db, before); err != nil {
			return reply, err
		}
		reply.Job, err = jobs.Get(ctx, db, tenant, jobID)
		if err == nil && (reply.Job.State != before.State || reply.Job.CancelRequested != before.CancelRequested) {
			err = s.audit(ctx, db, tenant, event, before)
		}
		return reply, err
	})
}

// audit appends an entry about a job, as it was before.
func (s *Service) audit(ctx context.Context, db postgres.Querier, tenant, event string, job messages.Job) error {
	sql := `
		WITH entry AS (
			SELECT $1::text AS tenant, $2::text AS event_type, $3::text AS actor, 'job' AS resource_type, $4::text AS resource_id,
				jsonb_build_object('kind', $5::text, 'state', $6::text) AS details
		) ` + s.audited
	_, err := db.Exec(ctx, sql, tenant, event, messages.CallFrom(ctx).Actor, fmt.Sprint(job.JobID), job.Kind, string(job.State))
	return err
}
