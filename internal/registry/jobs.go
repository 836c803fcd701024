package registry

import (
	"context"

	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
)

// AgentCascade are the arguments of the job that deletes what an agent owns.
type AgentCascade struct {
	Tenant  string `json:"tenant"`
	AgentID string `json:"agent_id"`
}

// Kind names the job.
func (AgentCascade) Kind() string { return "agent_cascade" }

// cascadeBatch bounds the rows that go in one transaction.
const cascadeBatch = 500

// DeleteOwned deletes up to limit things of one kind that an agent owns, in the transaction that it is given, and reports
// whether there are more. Called again it finds nothing of what is gone.
type DeleteOwned func(ctx context.Context, db postgres.Querier, tenant, agentID string, limit int) (deleted int64, more bool, err error)

// NewCascade returns what the job does: it calls each of the functions until there is no more, one batch in a transaction.
func NewCascade(owned ...DeleteOwned) func(args AgentCascade) jobs.Step {
	return func(args AgentCascade) jobs.Step {
		steps := []jobs.Step{func(context.Context, postgres.Querier) (jobs.Counts, bool, error) { return nil, false, nil }}
		for _, deleteOwned := range owned {
			steps = append(steps, func(ctx context.Context, db postgres.Querier) (jobs.Counts, bool, error) {
				deleted, more, err := deleteOwned(ctx, db, args.Tenant, args.AgentID, cascadeBatch)
				return jobs.Counts{"deleted": deleted}, more, err
			})
		}
		return jobs.InTurn(steps...)
	}
}
