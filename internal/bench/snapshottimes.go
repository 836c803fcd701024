package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/messages"
)

// creations measures what a creation takes early and late in a conversation.
func (r *snapshotsRun) creations(ctx context.Context) error {
	const early, near = 10, 2 // turns 8 to 12
	var first, last, firstPut, lastPut []time.Duration
	pick := func(took []time.Duration, first, last *[]time.Duration) {
		if len(took) <= early+near {
			return
		}
		*first = append(*first, took[early-near-1:early+near]...)
		*last = append(*last, took[len(took)-2*near-1:]...)
	}
	for i := range r.Repeats {
		r.show("creations: conversation %d of %d", i+1, r.Repeats)
		err := r.withWorker(ctx, func() error {
			took, err := r.converse(ctx, fmt.Sprintf("%s-%d", tenant, i))
			pick(took, &first, &last)
			return err
		})
		if err != nil {
			return err
		}
		if r.langgraph == nil {
			continue
		}
		took, err := r.checkpoint(ctx, lgDefault, fmt.Sprintf("%s-%d", reader, i))
		if err != nil {
			return err
		}
		pick(took, &firstPut, &lastPut)
	}
	late := len(r.turns)
	r.report.add(comparison{
		Measure: fmt.Sprintf("create at turn %d, p50 ms", late), Ours: median(last), Beside: fmt.Sprintf("at turn %d", early), Other: median(first), RatioAtMost: 3,
	})
	if r.langgraph != nil {
		r.report.add(comparison{Measure: fmt.Sprintf("create at turn %d, p50 ms", early), Ours: median(first), Beside: lgDefault + " put", Other: median(firstPut)})
		r.report.add(comparison{Measure: fmt.Sprintf("create at turn %d, p50 ms", late), Ours: median(last), Beside: lgDefault + " put", Other: median(lastPut)})
	}
	return nil
}

// median in milliseconds.
func median(of []time.Duration) float64 {
	if len(of) == 0 {
		return 0
	}
	return float64(slices.Sorted(slices.Values(of))[len(of)/2].Microseconds()) / 1000
}

// latest measures reading the newest state.
func (r *snapshotsRun) latest(ctx context.Context) error {
	var raw, parsed []time.Duration
	others := map[string][]time.Duration{}
	read := func() error {
		for i := -3; i < r.Reads; i++ {
			begin := time.Now()
			reply, err := bus.Call(ctx, r.conn, messages.SnapshotLatestEndpoint, tenant, messages.SnapshotLatest{AgentID: reader})
			if err != nil {
				return err
			}
			whole := time.Since(begin)
			var values any
			if err := json.Unmarshal(reply.Data, &values); err != nil {
				return err
			}
			if i >= 0 {
				raw, parsed = append(raw, whole), append(parsed, time.Since(begin))
			}
		}
		return nil
	}
	for round := range r.Rounds {
		r.show("latest: round %d of %d", round+1, r.Rounds)
		if err := r.withWorker(ctx, read); err != nil {
			return err
		}
		if r.langgraph == nil {
			continue
		}
		for mode, schema := range schemas {
			var took milliseconds
			input := map[string]any{"command": "latest", "isDelta": mode == lgDelta, "thread": reader, "times": r.Reads}
			if err := r.langgraph.run(ctx, schema, input, &took); err != nil {
				return err
			}
			others[mode] = append(others[mode], took.durations()...)
		}
	}
	last := fmt.Sprintf("latest of %d kB, p50 ms", len(r.states[len(r.states)-1])/1000)
	if r.langgraph == nil {
		r.report.add(comparison{Measure: last, Ours: median(raw)})
		return nil
	}
	r.report.add(comparison{Measure: last, Ours: median(raw), Beside: lgDefault + " getTuple", Other: median(others[lgDefault]), RatioAtMost: 0.25})
	r.report.add(comparison{Measure: last + ", decoded", Ours: median(parsed), Beside: lgDefault + " getTuple", Other: median(others[lgDefault])})
	r.report.add(comparison{Measure: last + ", decoded", Ours: median(parsed), Beside: lgDelta, Other: median(others[lgDelta])})
	return nil
}

const smallMessage = "Where did we leave off yesterday, and which of the two experiments with the prism should I repeat first?"

// small measures small states of several agents at a time.
func (r *snapshotsRun) small(ctx context.Context) error {
	var rates, others []float64
	var all measurement
	otherCPU := map[string]float64{}
	slice := r.Duration / time.Duration(r.Rounds)
	for round := range r.Rounds {
		r.show("small states, %d callers: round %d of %d", r.SmallCallers, round+1, r.Rounds)
		err := r.withWorker(ctx, func() error {
			create := r.createSmall(round)
			if _, err := load(ctx, r.SmallCallers, slice/4, create); err != nil {
				return err
			}
			before := r.cpu()
			m, err := load(ctx, r.SmallCallers, slice, create)
			m.cpu = r.cpu().since(before)
			rates = append(rates, m.rates...)
			all.add(m)
			return err
		})
		if err != nil {
			return err
		}
		if r.langgraph == nil {
			continue
		}
		var measured struct {
			PerSecond float64 `json:"per_second"`
			CPU       float64 `json:"cpu_us"` // of node, for each put
		}
		before := r.cpu()
		err = r.langgraph.run(ctx, schemas[lgDefault], map[string]any{
			"command": "small", "prefix": fmt.Sprintf("small-%d", round), "callers": r.SmallCallers, "seconds": slice.Seconds(), "message": smallMessage,
		}, &measured)
		if err != nil {
			return err
		}
		others = append(others, measured.PerSecond)
		const withWarmUp = 1.25
		postgres := float64(r.cpu().since(before)["postgres"].Microseconds()) / (measured.PerSecond * slice.Seconds() * withWarmUp)
		otherCPU["node"] += measured.CPU / float64(r.Rounds)
		otherCPU["postgres, about"] += postgres / float64(r.Rounds)
	}
	c := comparison{Measure: fmt.Sprintf("small creates a second, %d callers", r.SmallCallers), Ours: slices.Sorted(slices.Values(rates))[len(rates)/2]}
	c.CPU, c.OtherCPU = all.cpu.perOperation(all.operations), otherCPU
	if len(others) > 0 {
		c.Beside, c.Other, c.RatioAtLeast = lgDefault+" put", slices.Sorted(slices.Values(others))[len(others)/2], 1
	}
	r.report.add(c)
	return nil
}

// createSmall stores a state of one message in place of the one before, for one of the callers' agents at a time.
func (r *snapshotsRun) createSmall(round int) operation {
	agents := make(chan int, r.SmallCallers)
	for n := range r.SmallCallers {
		agents <- n
	}
	var step atomic.Int64
	return func(ctx context.Context, _ uint64) error {
		agent := <-agents
		defer func() { agents <- agent }()
		i := step.Add(1)
		data := fmt.Appendf(nil, `{"messages":[{"role":"user","content":"%d %d %d %s"}],"step":%d}`, round, agent, i, smallMessage, i)
		request := messages.SnapshotCreate{AgentID: fmt.Sprintf("small-%d-%d", round, agent), Data: data}
		_, err := bus.Call(ctx, r.conn, messages.SnapshotCreateEndpoint, tenant+"-small", request)
		return err
	}
}

// diff counts the chunks that are read to compare states one turn apart.
func (r *snapshotsRun) diff(ctx context.Context) error {
	ids, tree, err := r.late(ctx)
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, r.databaseURL())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	before, err := r.chunkReads(ctx, conn)
	if err != nil {
		return err
	}
	var took []time.Duration
	random := rand.New(rand.NewPCG(1, 2))
	err = r.withWorker(ctx, func() error {
		for range r.Reads {
			at := random.IntN(len(ids) - 1)
			request := messages.SnapshotDiff{FromSnapshotID: ids[at+1], ToSnapshotID: ids[at]}
			begin := time.Now()
			if _, err := bus.Call(ctx, r.conn, messages.SnapshotDiffEndpoint, tenant, request); err != nil {
				return err
			}
			took = append(took, time.Since(begin))
		}
		return nil
	})
	if err != nil {
		return err
	}
	after, err := r.chunkReads(ctx, conn)
	share := float64(after-before) / float64(r.Reads) / float64(tree)
	r.report.add(comparison{Measure: fmt.Sprintf("diff of one turn: chunks read, of %d", tree), Ours: share, AtMost: 0.05})
	r.report.add(comparison{Measure: "diff of one turn, p50 ms", Ours: median(took)})
	return err
}

// late returns the last states of the conversation, newest first, and how many chunks the tree of the newest has. Its connection
// ends before reads are counted: it reads chunks, too.
func (r *snapshotsRun) late(ctx context.Context) (ids []string, tree int64, err error) {
	const some = 20
	conn, err := pgx.Connect(ctx, r.databaseURL())
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	rows, err := conn.Query(ctx, `SELECT snapshot_id::text FROM morello.snapshot WHERE tenant = $1 AND agent_id = $2 ORDER BY created_at DESC LIMIT $3`, tenant, reader, some)
	if err != nil {
		return nil, 0, err
	}
	if ids, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		return nil, 0, err
	}
	const sql = `
		WITH RECURSIVE reached (hash) AS (
			SELECT content_hash FROM morello.snapshot WHERE tenant = $1 AND snapshot_id = $2::uuid
			UNION
			SELECT child FROM reached JOIN morello.snapshot_chunk AS c ON c.tenant = $1 AND c.hash = reached.hash,
				LATERAL morello.snapshot_hashes(coalesce(c.nodes, '') || coalesce(c.leaves, '')) AS child
		)
		SELECT count(*) FROM reached`
	return ids, tree, conn.QueryRow(ctx, sql, tenant, ids[0]).Scan(&tree)
}

// chunkReads returns how many rows of chunks PostgreSQL has counted as read, when the connections that read them are gone.
func (r *snapshotsRun) chunkReads(ctx context.Context, conn *pgx.Conn) (reads int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	if err := conn.QueryRow(ctx, `SELECT pg_stat_clear_snapshot()::text`).Scan(new(string)); err != nil {
		return 0, err
	}
	const others = `SELECT count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()`
	for left := 1; left > 0; {
		if err := conn.QueryRow(ctx, others).Scan(&left); err != nil {
			return 0, err
		}
	}
	const sql = `SELECT coalesce(idx_tup_fetch, 0) + seq_tup_read FROM pg_stat_user_tables WHERE relid = 'morello.snapshot_chunk'::regclass`
	return reads, conn.QueryRow(ctx, sql).Scan(&reads)
}
