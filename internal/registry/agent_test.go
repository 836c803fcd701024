package registry_test

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/bus/bustest"
	"github.com/ai-cherry/morello/internal/registry"
	"github.com/ai-cherry/morello/messages"
)

func TestCreateAndGetAgent(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	bare := f.createAgent(t, messages.AgentCreate{Name: "bare"})
	require.EqualValues(t, 7, uuid.MustParse(bare.AgentID).Version())
	require.WithinDuration(t, time.Now(), bare.CreatedAt, time.Minute)
	require.WithinDuration(t, bare.CreatedAt, bare.UpdatedAt, time.Second)
	require.Equal(t, messages.Agent{
		AgentID: bare.AgentID, Name: "bare", Capabilities: []byte(`[]`), AutonomyLevel: 1, ModelConfig: []byte(`{}`),
		Status: messages.AgentActive, Metadata: []byte(`{}`), Version: 1, CreatedAt: bare.CreatedAt, UpdatedAt: bare.UpdatedAt,
	}, bare)
	full := f.createAgent(t, messages.AgentCreate{
		AgentID: "a-1", Name: "full", Description: "does all", Type: "worker", Capabilities: []byte(`"any value"`), AutonomyLevel: new(0),
		ModelConfig: []byte(`{"b": 1.50, "a": "x  y"}`), Status: new(messages.AgentArchived), Metadata: []byte(`null`),
	})
	require.Equal(t, `{"a":"x  y","b":1.50}`, string(full.ModelConfig))
	require.Equal(t, `{}`, string(full.Metadata), "null means absent where an object is wanted")
	require.Equal(t, `null`, string(f.createAgent(t, messages.AgentCreate{Name: "null", Capabilities: []byte(`null`)}).Capabilities))
	for _, m := range []messages.AgentGet{{AgentID: "a-1"}, {Name: "full"}} {
		got, err := f.GetAgent(t.Context(), tenant, m)
		require.NoError(t, err)
		require.Equal(t, full, got.Agent)
	}
	for field, m := range map[string]messages.AgentGet{"agent_id": {AgentID: "full"}, "name": {Name: "a-1"}} {
		_, err := f.GetAgent(t.Context(), tenant, m)
		requireFailure(t, messages.CodeNotFound, field, err)
	}
	_, err := f.GetAgent(t.Context(), "other", messages.AgentGet{AgentID: "a-1"})
	requireFailure(t, messages.CodeNotFound, "agent_id", err)
}

// TestNamesAreText: what would be SQL, a pattern or a path is a name like any other.
func TestNamesAreText(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	names := []string{`'; DROP TABLE morello.agent; --`, `" OR 1=1`, `%`, `_`, `\`, `$1`, `../x`, "ü", "u\u0308", "A", "a", " ", "\n", strings.Repeat("n", 200)}
	for _, name := range names {
		f.createAgent(t, messages.AgentCreate{AgentID: name, Name: name, Type: name, Description: name})
	}
	for _, name := range names {
		for _, m := range []messages.AgentGet{{AgentID: name}, {Name: name}} {
			got, err := f.GetAgent(t.Context(), tenant, m)
			require.NoError(t, err, "%q", name)
			require.Equal(t, name, got.Agent.AgentID)
		}
		_, err := f.UpdateAgent(t.Context(), tenant, messages.AgentUpdate{AgentID: name, Status: new(messages.AgentInactive)})
		require.NoError(t, err)
		listed, err := f.ListAgents(t.Context(), tenant, messages.AgentList{Type: name})
		require.NoError(t, err)
		require.Len(t, listed.Agents, 1, "%q", name)
		_, err = f.ListAgents(t.Context(), tenant, messages.AgentList{Query: name})
		require.NoError(t, err)
	}
	require.Equal(t, len(names), f.count(t, `SELECT count(*) FROM morello.agent WHERE status = 'inactive'`))
}

func TestAgentConflicts(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.createAgent(t, messages.AgentCreate{AgentID: "a", Name: "one"})
	f.createAgent(t, messages.AgentCreate{AgentID: "b", Name: "two"})
	for field, m := range map[string]messages.AgentCreate{"agent_id": {AgentID: "a", Name: "three"}, "name": {AgentID: "c", Name: "one"}} {
		_, err := f.CreateAgent(t.Context(), tenant, m)
		requireFailure(t, messages.CodeConflict, field, err)
	}
	_, err := f.UpdateAgent(t.Context(), tenant, messages.AgentUpdate{AgentID: "b", Name: new("one")})
	requireFailure(t, messages.CodeConflict, "name", err)
	_, err = f.UpdateAgent(t.Context(), tenant, messages.AgentUpdate{AgentID: "b", Name: new("two")}) // its own
	require.NoError(t, err)
	_, err = f.CreateAgent(t.Context(), "other", messages.AgentCreate{AgentID: "a", Name: "one"})
	require.NoError(t, err)
	require.Len(t, f.trail(t), 4, "what failed left no entry")
}

func TestUpdateAgent(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	first := f.createAgent(t, messages.AgentCreate{
		AgentID: "a", Name: "one", Description: "text", Type: "t", Capabilities: []byte(`[1]`), ModelConfig: []byte(`{"m":1}`), Metadata: []byte(`{"x":1}`),
	})
	update := func(m messages.AgentUpdate) messages.Agent {
		m.AgentID = "a"
		require.NoError(t, m.Validate())
		reply, err := f.UpdateAgent(t.Context(), tenant, m)
		require.NoError(t, err)
		return reply.Agent
	}
	want := first
	for i, step := range []struct {
		update messages.AgentUpdate
		apply  func(a *messages.Agent)
	}{
		{messages.AgentUpdate{Status: new(messages.AgentInactive)}, func(a *messages.Agent) { a.Status = messages.AgentInactive }},
		{messages.AgentUpdate{Name: new("two"), IfVersion: new(int64(2))}, func(a *messages.Agent) { a.Name = "two" }},
		{messages.AgentUpdate{Description: new("")}, func(a *messages.Agent) { a.Description = "" }},
		{messages.AgentUpdate{Type: new("")}, func(a *messages.Agent) { a.Type = "" }},
		{messages.AgentUpdate{Capabilities: []byte(`null`)}, func(a *messages.Agent) { a.Capabilities = []byte(`null`) }},
		{messages.AgentUpdate{AutonomyLevel: new(0)}, func(a *messages.Agent) { a.AutonomyLevel = 0 }},
		{messages.AgentUpdate{ModelConfig: []byte(`{}`), Metadata: []byte(`null`)}, func(a *messages.Agent) { a.ModelConfig = []byte(`{}`) }},
		{messages.AgentUpdate{Metadata: []byte(`{"y":[2]}`)}, func(a *messages.Agent) { a.Metadata = []byte(`{"y":[2]}`) }}, // replaced, not merged
	} {
		got := update(step.update)
		step.apply(&want)
		require.False(t, got.UpdatedAt.Before(want.UpdatedAt))
		want.Version, want.UpdatedAt = int64(i+2), got.UpdatedAt
		require.Equal(t, want, got)
	}
	stored, err := f.GetAgent(t.Context(), tenant, messages.AgentGet{AgentID: "a"})
	require.NoError(t, err)
	require.Equal(t, want, stored.Agent)

	_, err = f.UpdateAgent(t.Context(), tenant, messages.AgentUpdate{AgentID: "a", Name: new("three"), IfVersion: new(int64(3))})
	requireFailure(t, messages.CodeConflict, "if_version", err)
	require.EqualValues(t, 9, failure(t, err).Details.Version)
	for _, version := range []*int64{nil, new(int64(1))} {
		_, err = f.UpdateAgent(t.Context(), tenant, messages.AgentUpdate{AgentID: "b", Name: new("three"), IfVersion: version})
		requireFailure(t, messages.CodeNotFound, "agent_id", err)
		_, err = f.UpdateAgent(t.Context(), "other", messages.AgentUpdate{AgentID: "a", Name: new("three"), IfVersion: version})
		requireFailure(t, messages.CodeNotFound, "agent_id", err)
	}
}

// TestFiftyParallelCreates: of 50 who want one name, and of 50 who want one id, exactly one gets it, with one entry in the
// audit trail each.
func TestFiftyParallelCreates(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for field, request := range map[string]func(i int) messages.AgentCreate{
		"name":     func(int) messages.AgentCreate { return messages.AgentCreate{Name: "wanted"} },
		"agent_id": func(i int) messages.AgentCreate { return messages.AgentCreate{AgentID: "wanted", Name: fmt.Sprint(i)} },
	} {
		var won, lost atomic.Int32
		var crowd sync.WaitGroup
		for i := range 50 {
			crowd.Go(func() {
				_, err := f.CreateAgent(t.Context(), tenant, request(i))
				known := messages.AsError(err)
				switch {
				case err == nil:
					won.Add(1)
				case known.Code == messages.CodeConflict && known.Details.Field == field:
					lost.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		crowd.Wait()
		require.EqualValues(t, 1, won.Load())
		require.EqualValues(t, 49, lost.Load())
	}
	require.Len(t, f.trail(t), 2)
	require.Equal(t, 2, f.count(t, `SELECT count(*) FROM morello.agent`))
}

// TestCompareAndSet: 16 callers count together by compare-and-set; no count is lost, and the trail has one entry for each.
func TestCompareAndSet(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.createAgent(t, messages.AgentCreate{AgentID: "a", Name: "n", Metadata: []byte(`{"n":0}`)})
	const callers, each = 16, 10
	var crowd sync.WaitGroup
	for range callers {
		crowd.Go(func() {
			for done := 0; done < each; {
				got, err := f.GetAgent(t.Context(), tenant, messages.AgentGet{AgentID: "a"})
				if err != nil {
					t.Error(err)
					return
				}
				next := fmt.Appendf(nil, `{"n":%d}`, got.Agent.Version)
				_, err = f.UpdateAgent(t.Context(), tenant, messages.AgentUpdate{AgentID: "a", IfVersion: &got.Agent.Version, Metadata: next})
				switch known := messages.AsError(err); {
				case err == nil:
					done++
				case known.Code != messages.CodeConflict || known.Details.Version <= got.Agent.Version:
					t.Error(err)
					return
				}
			}
		})
	}
	crowd.Wait()
	got, err := f.GetAgent(t.Context(), tenant, messages.AgentGet{AgentID: "a"})
	require.NoError(t, err)
	require.EqualValues(t, callers*each+1, got.Agent.Version)
	require.Equal(t, fmt.Sprintf(`{"n":%d}`, callers*each), string(got.Agent.Metadata))
	require.Len(t, f.trail(t), callers*each+1)
	require.Equal(t, callers*each, f.count(t, `SELECT count(DISTINCT details -> 'version') FROM morello.audit_entry WHERE event_type = 'agent.updated'`))
}

func TestAuditTrailOfAgents(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := messages.WithCall(t.Context(), &messages.Call{Actor: "ada"})
	_, err := f.CreateAgent(ctx, tenant, messages.AgentCreate{AgentID: "a", Name: "n", Metadata: []byte(`{"secret":1}`)})
	require.NoError(t, err)
	_, err = f.UpdateAgent(t.Context(), tenant, messages.AgentUpdate{AgentID: "a", Status: new(messages.AgentInactive), Metadata: []byte(`{"secret":2}`)})
	require.NoError(t, err)
	for range 2 { // the second finds nothing
		_, err = f.DeleteAgent(ctx, tenant, messages.AgentDelete{AgentID: "a"})
		require.NoError(t, err)
	}
	_, err = f.UpdateAgent(ctx, tenant, messages.AgentUpdate{AgentID: "a", Name: new("m")})
	require.Error(t, err)
	require.Equal(t, []string{
		`acme agent.created ada agent a {"name": "n", "version": 1}`,
		`acme agent.updated agent a {"name": "n", "fields": ["status", "metadata"], "version": 2}`,
		`acme agent.deleted ada agent a {"name": "n", "version": 2}`,
	}, f.trail(t))
}

// TestNoChangeWithoutItsEntry: where the entry cannot be written, nothing is changed and no event goes out.
func TestNoChangeWithoutItsEntry(t *testing.T) {
	t.Parallel()
	events := bustest.NewEvents(t, discard)
	f := newFixture(t, func(cfg *registry.Config) {
		cfg.Events = events.Publisher
		cfg.Audit = func(source string) string {
			return `INSERT INTO morello.audit_entry (tenant, event_type, actor, resource_type, resource_id)
				SELECT tenant, event_type, CASE WHEN actor = 'ada' THEN actor END, resource_type, resource_id FROM ` + source
		}
	})
	allowed := messages.WithCall(t.Context(), &messages.Call{Actor: "ada"})
	before, err := f.CreateAgent(allowed, tenant, messages.AgentCreate{AgentID: "a", Name: "n"})
	require.NoError(t, err)
	_, err = f.CreateAgent(t.Context(), tenant, messages.AgentCreate{AgentID: "b", Name: "m"})
	require.Equal(t, messages.CodeInternal, messages.AsError(err).Code)
	_, err = f.UpdateAgent(t.Context(), tenant, messages.AgentUpdate{AgentID: "a", Name: new("m")})
	require.Equal(t, messages.CodeInternal, messages.AsError(err).Code)
	for _, cascade := range []bool{false, true} {
		_, err = f.DeleteAgent(t.Context(), tenant, messages.AgentDelete{AgentID: "a", Cascade: cascade})
		require.Equal(t, messages.CodeInternal, messages.AsError(err).Code)
	}
	after, err := f.GetAgent(t.Context(), tenant, messages.AgentGet{AgentID: "a"})
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.Equal(t, 1, f.count(t, `SELECT count(*) FROM morello.agent`))
	require.Equal(t, 0, f.count(t, `SELECT count(*) FROM river.river_job`))
	require.Len(t, events.All(t), 1)
}

// TestIdempotencyKeysAndEvents: a repeated request gets its first reply, has no second effect and publishes no second
// event. Events name what changed and hold no data.
func TestIdempotencyKeysAndEvents(t *testing.T) {
	t.Parallel()
	events := bustest.NewEvents(t, discard)
	f := newFixture(t, func(cfg *registry.Config) { cfg.Events = events.Publisher })
	for range 2 {
		created, err := f.CreateAgent(keyed(t.Context(), "1", 1), tenant, messages.AgentCreate{Name: "n", Metadata: []byte(`{"secret":1}`)})
		require.NoError(t, err)
		id := created.Agent.AgentID
		updated, err := f.UpdateAgent(keyed(t.Context(), "2", 2), tenant, messages.AgentUpdate{AgentID: id, Status: new(messages.AgentInactive)})
		require.NoError(t, err)
		require.EqualValues(t, 2, updated.Agent.Version)
		deleted, err := f.DeleteAgent(keyed(t.Context(), "3", 3), tenant, messages.AgentDelete{AgentID: id, Cascade: true})
		require.NoError(t, err)
		require.True(t, deleted.Deleted)
		require.EqualValues(t, 1, deleted.JobID)

		workflow, err := f.CreateWorkflow(keyed(t.Context(), "4", 4), tenant, messages.WorkflowCreate{Name: "w", Definition: []byte(`"secret"`)})
		require.NoError(t, err)
		wid := workflow.Workflow.WorkflowID
		_, err = f.UpdateWorkflow(keyed(t.Context(), "5", 5), tenant, messages.WorkflowUpdate{WorkflowID: wid, Tags: []string{"t"}})
		require.NoError(t, err)
		gone, err := f.DeleteWorkflow(keyed(t.Context(), "6", 6), tenant, messages.WorkflowDelete{WorkflowID: wid})
		require.NoError(t, err)
		require.True(t, gone.Deleted)
		require.Equal(t, []string{
			`morello.events.v1.acme.agent.created {"agent_id":"` + id + `","name":"n","status":"active","version":1}`,
			`morello.events.v1.acme.agent.updated {"agent_id":"` + id + `","name":"n","status":"inactive","version":2}`,
			`morello.events.v1.acme.agent.deleted {"agent_id":"` + id + `","name":"n","status":"inactive","version":2}`,
			`morello.events.v1.acme.workflow.created {"workflow_id":"` + wid + `","name":"w","status":"draft","version":1}`,
			`morello.events.v1.acme.workflow.updated {"workflow_id":"` + wid + `","name":"w","status":"draft","version":2}`,
			`morello.events.v1.acme.workflow.deleted {"workflow_id":"` + wid + `","name":"w","status":"draft","version":2}`,
		}, events.All(t))
	}
	require.Len(t, f.trail(t), 6)
	require.Equal(t, 1, f.count(t, `SELECT count(*) FROM river.river_job`))
	_, err := f.CreateAgent(keyed(t.Context(), "1", 9), tenant, messages.AgentCreate{Name: "other"})
	requireFailure(t, messages.CodeConflict, messages.HeaderIdempotencyKey, err)
}

func TestLargeAgents(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i, size := range []int{60 << 10, 64 << 10, messages.MaxRegistryJSONBytes} { // around what is read at once, and the largest
		value := jsontext.Value(`{"x":"` + strings.Repeat("v", size-len(`{"x":""}`)) + `"}`)
		created := f.createAgent(t, messages.AgentCreate{AgentID: fmt.Sprint(i), Name: fmt.Sprint(i), Capabilities: value, ModelConfig: value})
		got, err := f.GetAgent(t.Context(), tenant, messages.AgentGet{AgentID: fmt.Sprint(i)})
		require.NoError(t, err)
		require.Equal(t, created, got.Agent)
		require.True(t, bytes.Equal(value, got.Agent.ModelConfig))
	}
}

// TestJSONBHoldsWhatValidateAllows: what Validate lets pass PostgreSQL stores, and what it refuses as more than jsonb can
// hold PostgreSQL refuses too.
func TestJSONBHoldsWhatValidateAllows(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.createAgent(t, messages.AgentCreate{AgentID: "a", Name: "n"})
	for _, c := range []struct {
		value string
		held  bool
	}{
		{`1e131071`, true},
		{`1e131072`, false},
		{`-1e131071`, true},
		{`0.001e131074`, true},
		{`0.001e131075`, false},
		{strings.Repeat("9", 131072), true},
		{strings.Repeat("9", 131073), false},
		{`1e-16383`, true},
		{`1e-16384`, false},
		{`0e-16384`, false},
		{`0.` + strings.Repeat("0", 16382) + `1`, true},
		{`0.` + strings.Repeat("0", 16383) + `1`, false},
		{`1.5e-16382`, true},
		{`1.5e-16383`, false},
		{`0e100000`, true},
		{`1e99999999999999999999`, false},
		{`1e-99999999999999999999`, false},
		{`"\u0000"`, false},
		{`"\\u0000"`, true},
		{`{"a\u0000":1}`, false},
		{`"\ud800"`, false},
		{`"\udc00\ud800"`, false},
		{`"\ud83d\ude00"`, true},
		{`[[null,true,"",{}]]`, true},
	} {
		m := messages.AgentUpdate{AgentID: "a", Capabilities: []byte(`[` + c.value + `]`)}
		shown := c.value[:min(len(c.value), 30)]
		_, err := f.db.Exec(t.Context(), `SELECT $1::text::jsonb`, string(m.Capabilities))
		require.Equal(t, c.held, err == nil, "PostgreSQL, %s: %v", shown, err)
		err = m.Validate()
		require.Equal(t, c.held, err == nil, "Validate, %s: %v", shown, err)
		if c.held {
			_, err := f.UpdateAgent(t.Context(), tenant, m)
			require.NoError(t, err, shown)
			continue
		}
		require.Equal(t, messages.CodeInvalid, failure(t, err).Code)
		require.Contains(t, failure(t, err).Details.Field, "capabilities[0]")
	}
}
