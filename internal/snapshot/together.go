package snapshot

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

const (
	// smallAddition is how much a creation may write, in bytes, to be stored together with others.
	smallAddition = 64 << 10
	// maxTogether is how many creations are stored together: each has a bit of a bigint that is not the sign.
	maxTogether = 32
)

// errAlone says that a creation is to be stored by itself: the transaction with the others has failed, or it was left out.
var errAlone = errors.New("to be stored alone")

// newTogether returns the batcher of small creations. Those of an agent come one by one, because each follows the one before. What was
// stored is told here: who asked for it may have left.
func (s *Service) newTogether() *postgres.Batcher[*addition, messages.Snapshot] {
	cfg := postgres.BatcherConfig[*addition]{
		MaxItems: maxTogether,
		Linger:   time.Millisecond, // about what a commit takes
		Key:      func(a *addition) any { return agentKey{a.tenant, a.AgentID} },
	}
	return postgres.NewBatcher(cfg, func(ctx context.Context, list []*addition, results []postgres.Result[messages.Snapshot]) error {
		err := storeTogether(ctx, s.pool, list, results)
		for n, a := range list {
			if err == nil && results[n].Err == nil {
				s.created(a, results[n].Value)
			}
		}
		return err
	})
}

// fitsTogether tells whether a creation may be stored together with others.
func (a *addition) fitsTogether(ctx context.Context, sent [][]Hash) bool {
	if messages.Keyed(ctx) || len(sent) > 1 {
		return false
	}
	bytes := len(a.Metadata)
	for _, id := range a.VectorIDs {
		bytes += len(id)
	}
	for _, hash := range sent[0] {
		bytes += a.made.fresh[hash].size()
	}
	return bytes <= smallAddition
}

// storeTogether stores creations in one transaction. What is refused is left out, and the rest is stored. When the transaction fails
// for what one of them holds or meets, nothing is stored, and all are to be stored alone: each then gets its own answer.
func storeTogether(ctx context.Context, pool *postgres.Pool, list []*addition, results []postgres.Result[messages.Snapshot]) error {
	// Who waits for a head holds those of the others. So it waits for what takes a moment, and not for a large creation.
	const impatient = `SELECT set_config('lock_timeout', '50ms', true)`
	snapshots := make([]messages.Snapshot, len(list))
	err := pool.WithBatchConn(ctx, func(ctx context.Context, db postgres.Querier) error {
		batch := &pgx.Batch{}
		batch.Queue(impatient)
		queueHeads(batch, list)
		queueSnapshots(batch, list, snapshots)
		return db.SendBatch(ctx, batch).Close()
	})
	undone := isUndone(err)
	if err != nil && !undone {
		return err
	}
	for n := range list {
		results[n].Value = snapshots[n]
		if undone || snapshots[n].SnapshotID == "" {
			results[n].Err = errAlone
		}
	}
	return nil
}

// isUndone reports whether PostgreSQL refused a transaction for what a creation in it holds or meets: data exceptions (class 22),
// integrity violations (23), deadlocks and the like (40), program limits (54), locks that were not to be had (55), our own refusal.
func isUndone(err error) bool {
	state := postgres.SQLState(err)
	if state == baseMissing {
		return true
	}
	switch state[:min(2, len(state))] {
	case "22", "23", "40", "54", "55":
		return true
	}
	return false
}
