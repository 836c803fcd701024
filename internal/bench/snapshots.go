package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	ours       = "morello"
	plainTable = "jsonb table"
	lgDefault  = "LangGraph"
	lgDelta    = "LangGraph, delta"
	reader     = "reader" // the agent whose states are stored
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
