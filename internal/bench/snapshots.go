package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	gojson "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/messages"
)

// SnapshotsConfig of RunSnapshots.
type SnapshotsConfig struct {
	Config
	// Turns of the conversation, one snapshot each. Defaults to 200.
	Turns int
	// Repeats are how often the conversation is stored for the times of creations, each time for another tenant, who has none of it
	// yet. Defaults to 5.
	Repeats int
	// Reads of the latest state, in each round. Defaults to 50.
	Reads int
	// SmallCallers store small states at the same time, for an agent each. Defaults to 8.
	SmallCallers int
	// Searched is the number of snapshots to search in, with ten messages of their own each; 0 leaves searching out.
	Searched int
	// Searches of each kind. Defaults to 200.
	Searches int
	// NoLangGraph leaves LangGraph out.
	NoLangGraph bool
}

func (c *SnapshotsConfig) setDefaults() {
	c.Config.setDefaults()
	orDefault := func(n *int, value int) {
		if *n <= 0 {
			*n = value
		}
	}
	orDefault(&c.Turns, 200)
	orDefault(&c.Repeats, 5)
	orDefault(&c.Reads, 50)
	orDefault(&c.SmallCallers, 8)
	orDefault(&c.Searches, 200)
}

// The stores that are measured.
const (
	ours        = "morello"
	plainTable  = "jsonb table"
	lgDefault   = "LangGraph"
	lgDelta     = "LangGraph, delta"
	reader      = "reader" // the agent whose states are stored
	plainSchema = "public"
)

// schemas of LangGraph's modes in its database.
var schemas = map[string]string{lgDefault: "whole", lgDelta: "delta"}

// snapshotsRun is a run: what is stored, and what was measured so far.
type snapshotsRun struct {
	SnapshotsConfig
	*stack
	*progress
	turns     []turn
	states    []jsontext.Value
	langgraph *langgraph // nil: left out
	report    snapshotsReport
}

// snapshotParts in the order in which they are measured.
var snapshotParts = []struct {
	name    string
	always  bool // stores what others read
	measure func(*snapshotsRun, context.Context) error
}{
	{"sizes", true, (*snapshotsRun).sizes},
	{"create", false, (*snapshotsRun).creations},
	{"latest", false, (*snapshotsRun).latest},
	{"small", false, (*snapshotsRun).small},
	{"diff", false, (*snapshotsRun).diff},
	{"search", false, (*snapshotsRun).search},
}

// SnapshotPartNames lists the parts of RunSnapshots, for help texts.
func SnapshotPartNames() []string {
	var names []string
	for _, part := range snapshotParts {
		names = append(names, part.name)
	}
	return names
}

// RunSnapshots measures snapshots of a conversation that grows beside a table with a jsonb column and beside the checkpointer of
// LangGraph, on the same PostgreSQL.
func RunSnapshots(ctx context.Context, cfg SnapshotsConfig) error {
	cfg.setDefaults()
	for _, name := range cfg.Only {
		if !slices.Contains(SnapshotPartNames(), name) {
			return fmt.Errorf("there is no part %q; there are: %s", name, strings.Join(SnapshotPartNames(), ", "))
		}
	}
	r := &snapshotsRun{SnapshotsConfig: cfg}
	var err error
	if r.turns, err = conversation(cfg.Turns); err != nil {
		return err
	}
	if r.states, err = states(r.turns); err != nil {
		return err
	}
	return withStack(ctx, cfg.Config, func(s *stack, p *progress) error {
		r.stack, r.progress = s, p
		if err := r.prepare(ctx); err != nil {
			return err
		}
		for _, part := range snapshotParts {
			if len(cfg.Only) > 0 && !slices.Contains(cfg.Only, part.name) && !part.always {
				continue
			}
			if err := part.measure(r, ctx); err != nil {
				return fmt.Errorf("%s: %w", part.name, err)
			}
		}
		p.clear()
		if cfg.JSON {
			encoder := json.NewEncoder(cfg.Out)
			encoder.SetIndent("", "  ")
			return encoder.Encode(r.report)
		}
		return r.report.write(cfg.Out)
	})
}

// prepare makes the databases beside ours, and installs LangGraph.
func (r *snapshotsRun) prepare(ctx context.Context) error {
	if err := r.conn.EnsureEventStream(ctx); err != nil { // without it every event is waited for, and logged as lost
		return err
	}
	if err := r.postgres.CreateDatabase(ctx, "plain", ""); err != nil {
		return err
	}
	if r.NoLangGraph {
		return nil
	}
	r.show("installing LangGraph")
	dir, err := installLangGraph(ctx)
	if err != nil {
		return err
	}
	if err := r.postgres.CreateDatabase(ctx, "langgraph", ""); err != nil {
		return err
	}
	r.langgraph = &langgraph{dir, r.postgres.URL("langgraph")}
	for _, schema := range schemas {
		if err := r.langgraph.run(ctx, schema, map[string]any{"command": "setup"}, &struct{}{}); err != nil {
			return err
		}
	}
	text, err := gojson.Marshal(r.turns)
	if err != nil {
		return err
	}
	if err := os.Chmod(r.dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(r.turnsFile(), text, 0o600)
}

func (r *snapshotsRun) turnsFile() string { return filepath.Join(r.dir, "turns.json") }

// withWorker has a worker run meanwhile.
func (r *snapshotsRun) withWorker(ctx context.Context, do func() error) error {
	worker, err := r.startRole(ctx, RoleWorker)
	if err != nil {
		return err
	}
	defer r.stopRole(worker)
	return do()
}

// sizes stores the conversation in each store, and measures what that takes.
func (r *snapshotsRun) sizes(ctx context.Context) error {
	stores := []struct {
		name, url, like string
		fill            func(context.Context) error
	}{
		{ours, r.databaseURL(), `morello.snapshot%`, func(ctx context.Context) error {
			return r.withWorker(ctx, func() error { _, err := r.converse(ctx, tenant); return err })
		}},
		{plainTable, r.postgres.URL("plain"), `public.%`, r.fillPlain},
		{lgDefault, r.postgres.URL("langgraph"), schemas[lgDefault] + `.%`, func(ctx context.Context) error { _, err := r.checkpoint(ctx, lgDefault, reader); return err }},
		{lgDelta, r.postgres.URL("langgraph"), schemas[lgDelta] + `.%`, func(ctx context.Context) error { _, err := r.checkpoint(ctx, lgDelta, reader); return err }},
	}
	for _, store := range stores {
		if r.langgraph == nil && schemas[store.name] != "" {
			continue
		}
		r.show("%s: storing %d turns", store.name, len(r.turns))
		if err := store.fill(ctx); err != nil {
			return fmt.Errorf("%s: %w", store.name, err)
		}
		measured, err := measureSizes(ctx, store.name, store.url, store.like)
		if err != nil {
			return err
		}
		r.report.Relations = append(r.report.Relations, measured...)
	}
	r.reportSizes()
	return nil
}

func (r *snapshotsRun) reportSizes() {
	const megabyte = 1e6
	without, with := totals(r.report.Relations, ours)
	plain, _ := totals(r.report.Relations, plainTable)
	mb := func(n int64) float64 { return float64(n) / megabyte }
	r.report.add(comparison{Measure: "on disk without search, MB", Ours: mb(without), AtMost: 1})
	r.report.add(comparison{Measure: "on disk with search, MB", Ours: mb(with), AtMost: 2})
	r.report.add(comparison{Measure: "on disk without search, MB", Ours: mb(without), Beside: plainTable, Other: mb(plain), RatioAtMost: 1. / 20})
	r.report.add(comparison{Measure: "on disk with search, MB", Ours: mb(with), Beside: plainTable, Other: mb(plain)})
	for _, name := range []string{lgDefault, lgDelta} {
		if other, _ := totals(r.report.Relations, name); other > 0 {
			r.report.add(comparison{Measure: "on disk without search, MB", Ours: mb(without), Beside: name, Other: mb(other)})
		}
	}
}

// converse stores the conversation turn by turn, and returns how long each creation took.
func (r *snapshotsRun) converse(ctx context.Context, tenant string) ([]time.Duration, error) {
	took := make([]time.Duration, len(r.states))
	for i, state := range r.states {
		begin := time.Now()
		if _, err := bus.Call(ctx, r.conn, messages.SnapshotCreateEndpoint, tenant, messages.SnapshotCreate{AgentID: reader, Data: state}); err != nil {
			return nil, err
		}
		took[i] = time.Since(begin)
	}
	reply, err := bus.Call(ctx, r.conn, messages.SnapshotLatestEndpoint, tenant, messages.SnapshotLatest{AgentID: reader})
	if err == nil && string(reply.Data) != string(r.states[len(r.states)-1]) {
		err = errors.New("the latest state is not the one that was stored last")
	}
	return took, err
}

// fillPlain stores each state whole, as a row.
func (r *snapshotsRun) fillPlain(ctx context.Context) (err error) {
	conn, err := pgx.Connect(ctx, r.postgres.URL("plain"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	if _, err := conn.Exec(ctx, `CREATE TABLE state (id bigint PRIMARY KEY, state jsonb NOT NULL)`); err != nil {
		return err
	}
	for i, state := range r.states {
		if _, err := conn.Exec(ctx, `INSERT INTO state (id, state) VALUES ($1, $2::text::jsonb)`, i, string(state)); err != nil {
			return err
		}
	}
	return nil
}

// milliseconds is what the script measured.
type milliseconds struct {
	MS []float64 `json:"ms"`
}

func (m milliseconds) durations() []time.Duration {
	made := make([]time.Duration, len(m.MS))
	for i, ms := range m.MS {
		made[i] = time.Duration(ms * float64(time.Millisecond))
	}
	return made
}

// checkpoint has LangGraph store the conversation, and returns how long each put took.
func (r *snapshotsRun) checkpoint(ctx context.Context, mode, thread string) ([]time.Duration, error) {
	var took milliseconds
	err := r.langgraph.run(ctx, schemas[mode], map[string]any{
		"command": "conversation", "turns": r.turnsFile(), "isDelta": mode == lgDelta, "thread": thread,
	}, &took)
	return took.durations(), err
}

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
	conn, err := pgx.Connect(ctx, r.databaseURL())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	ids, tree, err := r.late(ctx, conn)
	if err != nil {
		return err
	}
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

// late returns the last states of the conversation, newest first, and how many chunks the tree of the newest has.
func (r *snapshotsRun) late(ctx context.Context, conn *pgx.Conn) (ids []string, tree int64, err error) {
	const some = 20
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
