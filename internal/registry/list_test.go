package registry_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/internal/registry"
	"github.com/ai-cherry/morello/messages"
)

func (f fixture) agents(t *testing.T, m messages.AgentList) messages.AgentListReply {
	t.Helper()
	require.NoError(t, m.Validate())
	reply, err := f.ListAgents(t.Context(), tenant, m)
	require.NoError(t, err)
	return reply
}

func (f fixture) workflows(t *testing.T, m messages.WorkflowList) messages.WorkflowListReply {
	t.Helper()
	require.NoError(t, m.Validate())
	reply, err := f.ListWorkflows(t.Context(), tenant, m)
	require.NoError(t, err)
	return reply
}

func agentIDs(agents []messages.Agent) string {
	var ids []string
	for _, a := range agents {
		ids = append(ids, a.AgentID)
	}
	return strings.Join(ids, " ")
}

func workflowIDs(workflows []messages.Workflow) string {
	var ids []string
	for _, w := range workflows {
		ids = append(ids, w.WorkflowID)
	}
	return strings.Join(ids, " ")
}

func TestListAgents(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	require.Equal(t, messages.AgentListReply{Agents: []messages.Agent{}}, f.agents(t, messages.AgentList{}))
	f.createAgent(t, messages.AgentCreate{AgentID: "a", Name: "Paper reader", Description: "Reads long papers, with sources.", Type: "researcher"})
	f.createAgent(t, messages.AgentCreate{AgentID: "b", Name: "weekly-report_writer", Description: "Writes reports for acme", Type: "writer"})
	f.createAgent(t, messages.AgentCreate{AgentID: "c", Name: "Translator", Description: "Übersetzt papers", Type: "writer", Status: new(messages.AgentInactive)})
	_, err := f.CreateAgent(t.Context(), "other", messages.AgentCreate{AgentID: "x", Name: "Paper reader", Type: "writer"})
	require.NoError(t, err)
	for _, c := range []struct {
		m    messages.AgentList
		want string
	}{
		{messages.AgentList{}, "c b a"}, // most recently created first
		{messages.AgentList{Status: new(messages.AgentActive)}, "b a"},
		{messages.AgentList{Status: new(messages.AgentArchived)}, ""},
		{messages.AgentList{Type: "writer"}, "c b"},
		{messages.AgentList{Type: "Writer"}, ""},
		{messages.AgentList{Type: "writer", Status: new(messages.AgentInactive)}, "c"},
		{messages.AgentList{Query: "papers"}, "c a"},
		{messages.AgentList{Query: "PAPERS sources"}, "a"}, // all words, in name or description
		{messages.AgentList{Query: "sources papers"}, "a"},
		{messages.AgentList{Query: `"long papers"`}, "a"},
		{messages.AgentList{Query: `"papers long"`}, ""},
		{messages.AgentList{Query: "translator or sources"}, "c a"},
		{messages.AgentList{Query: "papers -sources"}, "c"},
		{messages.AgentList{Query: "-papers"}, "b"},
		{messages.AgentList{Query: "report"}, "b"}, // a part of a hyphenated name
		{messages.AgentList{Query: "übersetzt"}, "c"},
		{messages.AgentList{Query: "paper"}, "a"}, // words are not stemmed: of c there is only "papers"
		{messages.AgentList{Query: "papers", Type: "writer", Status: new(messages.AgentInactive)}, "c"},
		{messages.AgentList{Query: "acme"}, "b"}, // the tenant's name is a word like any other
		{messages.AgentList{Query: "other"}, ""},
		{messages.AgentList{Query: "!!! --- &|"}, ""},              // no word finds nothing
		{messages.AgentList{Query: `' | ' acme' & <-> :* (`}, "b"}, // no operators but those of web searches
		{messages.AgentList{Query: strings.Repeat("x ", 500)}, ""},
	} {
		require.Equal(t, c.want, agentIDs(f.agents(t, c.m).Agents), "%+v", c.m)
	}
}

func TestListWorkflows(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	odd := `it's a "tag" \ & | ! ' :*`
	f.createWorkflow(t, messages.WorkflowCreate{WorkflowID: "a", Name: "Weekly report", Tags: []string{"weekly", "sales"}})
	f.createWorkflow(t, messages.WorkflowCreate{WorkflowID: "b", Name: "Weekly backup", Tags: []string{"weekly"}, Status: new(messages.WorkflowActive)})
	f.createWorkflow(t, messages.WorkflowCreate{WorkflowID: "c", Name: "Report", Description: "once", Tags: []string{odd}})
	_, err := f.CreateWorkflow(t.Context(), "other", messages.WorkflowCreate{WorkflowID: "a", Name: "Weekly", Definition: []byte(`1`), Tags: []string{"weekly"}})
	require.NoError(t, err)
	for _, c := range []struct {
		m    messages.WorkflowList
		want string
	}{
		{messages.WorkflowList{}, "c b a"},
		{messages.WorkflowList{Status: new(messages.WorkflowDraft)}, "c a"},
		{messages.WorkflowList{Tag: "weekly"}, "b a"},
		{messages.WorkflowList{Tag: "sales"}, "a"},
		{messages.WorkflowList{Tag: "Weekly"}, ""},
		{messages.WorkflowList{Tag: "weekly", Status: new(messages.WorkflowActive)}, "b"},
		{messages.WorkflowList{Query: "report"}, "c a"},
		{messages.WorkflowList{Query: "report", Tag: "weekly"}, "a"},
		{messages.WorkflowList{Query: "once", Tag: odd}, "c"},
		{messages.WorkflowList{Query: "report", Tag: odd}, "c"},
		{messages.WorkflowList{Tag: odd}, "c"},
		{messages.WorkflowList{Query: "weekly or once", Tag: "sales"}, "a"},
		{messages.WorkflowList{Query: "sales"}, ""}, // a tag is no word
		{messages.WorkflowList{Query: "report", Tag: "weekly", Status: new(messages.WorkflowActive)}, ""},
	} {
		require.Equal(t, c.want, workflowIDs(f.workflows(t, c.m).Workflows), "%+v", c.m)
	}
}

// TestPagesAreStable: what is there throughout comes exactly once, though rows are created, changed and deleted between the
// pages, and many were created at one time.
func TestPagesAreStable(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i := range 40 {
		f.createAgent(t, messages.AgentCreate{AgentID: fmt.Sprintf("%02d", i), Name: fmt.Sprint(i), Type: "t"})
		f.createWorkflow(t, messages.WorkflowCreate{WorkflowID: fmt.Sprintf("%02d", i), Name: fmt.Sprint(i), Tags: []string{"t"}})
	}
	for _, table := range []string{"agent", "workflow", "workflow_tag"} { // ten of a time
		f.exec(t, `UPDATE morello.`+table+` SET created_at = timestamptz '2026-01-01' - make_interval(hours => right(`+strings.TrimSuffix(table, "_tag")+`_id, 1)::int / 3)`)
	}
	page := func(agents messages.AgentList, workflows messages.WorkflowList) (ids, next [2]string) {
		a, w := f.agents(t, agents), f.workflows(t, workflows)
		return [2]string{agentIDs(a.Agents), workflowIDs(w.Workflows)}, [2]string{a.NextCursor, w.NextCursor}
	}
	agents, workflows := messages.AgentList{Type: "t"}, messages.WorkflowList{Tag: "t"}
	agents.Limit, workflows.Limit = new(6), new(6)
	var seen [2][]string
	for n := 0; ; n++ {
		ids, next := page(agents, workflows)
		for i := range seen {
			seen[i] = append(seen[i], strings.Fields(ids[i])...)
		}
		if next == [2]string{} {
			break
		}
		agents.Cursor, workflows.Cursor = next[0], next[1]
		first := strings.Fields(ids[0])[0] // on a page that was read already
		_, err := f.DeleteAgent(t.Context(), tenant, messages.AgentDelete{AgentID: first})
		require.NoError(t, err)
		_, err = f.DeleteWorkflow(t.Context(), tenant, messages.WorkflowDelete{WorkflowID: first})
		require.NoError(t, err)
		_, err = f.UpdateAgent(t.Context(), tenant, messages.AgentUpdate{AgentID: strings.Fields(ids[0])[1], Name: new(fmt.Sprint("changed-", n))})
		require.NoError(t, err)
		f.createAgent(t, messages.AgentCreate{Name: fmt.Sprint("new-", n), Type: "t"})
		f.createWorkflow(t, messages.WorkflowCreate{Name: "new", Tags: []string{"t"}})
	}
	for i := range seen {
		require.Len(t, seen[i], 40)
		distinct := map[string]bool{}
		for _, id := range seen[i] {
			distinct[id] = true
		}
		require.Len(t, distinct, 40)
	}
}

func TestPageEndsAtOneMiB(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i, size := range []int{600 << 10, 300 << 10, 200 << 10, messages.MaxRegistryJSONBytes, 10} {
		f.createAgent(t, messages.AgentCreate{AgentID: fmt.Sprint(i), Name: fmt.Sprint(i), Capabilities: []byte(`"` + strings.Repeat("x", size-2) + `"`)})
	}
	var pages []string
	for m := (messages.AgentList{}); ; {
		reply := f.agents(t, m)
		pages = append(pages, agentIDs(reply.Agents))
		if m.Cursor = reply.NextCursor; m.Cursor == "" {
			break
		}
	}
	require.Equal(t, []string{"4", "3", "2 1", "0"}, pages) // one that is larger than a page is a page
}

func TestCursors(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i := range 3 {
		f.createAgent(t, messages.AgentCreate{Name: fmt.Sprint(i), Type: "t"})
		f.createWorkflow(t, messages.WorkflowCreate{Name: fmt.Sprint(i), Tags: []string{"t"}})
	}
	one := messages.Page{Limit: new(1)}
	cursor := f.agents(t, messages.AgentList{Type: "t", Page: one}).NextCursor
	ofWorkflows := f.workflows(t, messages.WorkflowList{Page: one}).NextCursor
	require.NotEmpty(t, cursor)
	for name, c := range map[string]struct {
		tenant string
		m      messages.AgentList
		cursor string
	}{
		"garbage":           {tenant, messages.AgentList{Type: "t"}, "not a cursor"},
		"base64 of garbage": {tenant, messages.AgentList{Type: "t"}, "AAAAAAAAAAAAAAAA"},
		"cut off":           {tenant, messages.AgentList{Type: "t"}, cursor[:14]},
		"another operation": {tenant, messages.AgentList{}, ofWorkflows},
		"another tenant":    {"other", messages.AgentList{Type: "t"}, cursor},
		"another type":      {tenant, messages.AgentList{Type: "u"}, cursor},
		"another status":    {tenant, messages.AgentList{Type: "t", Status: new(messages.AgentActive)}, cursor},
		"another query":     {tenant, messages.AgentList{Type: "t", Query: "x"}, cursor},
	} {
		c.m.Cursor = c.cursor
		_, err := f.ListAgents(t.Context(), c.tenant, c.m)
		require.Equal(t, messages.CodeInvalid, messages.AsError(err).Code, name)
		requireFailure(t, messages.CodeInvalid, "cursor", err)
	}
	_, err := f.ListWorkflows(t.Context(), tenant, messages.WorkflowList{Page: messages.Page{Cursor: cursor}})
	requireFailure(t, messages.CodeInvalid, "cursor", err)
	require.Len(t, f.agents(t, messages.AgentList{Type: "t", Page: messages.Page{Cursor: cursor}}).Agents, 2)
}

// TestListsUseIndexes: no list, with whatever filter, reads a table from end to end, beside a tenant ten times as large.
func TestListsUseIndexes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.exec(t, `INSERT INTO morello.agent (tenant, agent_id, name, description, type, capabilities, autonomy_level, model_config, status, metadata, created_at)
		SELECT CASE WHEN n % 11 = 0 THEN 'acme' ELSE 'large' END, 'a' || n, 'name ' || n, 'common words and rare' || n % 997, 'type-' || n % 50, '[]', 1, '{}',
			CASE WHEN n % 100 = 0 THEN 'inactive' ELSE 'active' END, '{}', now() - make_interval(secs => n) FROM generate_series(1, 20000) AS n`)
	f.exec(t, `INSERT INTO morello.workflow (tenant, workflow_id, name, description, definition, status, tags, created_by, metadata, created_at)
		SELECT tenant, agent_id, name, description, '{}', CASE status WHEN 'active' THEN 'active' ELSE 'failed' END, ARRAY[type], '', '{}', created_at FROM morello.agent`)
	f.exec(t, `INSERT INTO morello.workflow_tag SELECT tenant, workflow_id, tags[1], created_at FROM morello.workflow`)
	f.exec(t, `ANALYZE morello.agent, morello.workflow, morello.workflow_tag`)
	first := pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}
	var none *string
	for name, c := range map[string]struct {
		sql, index string
		args       []any
	}{
		"agents":             {registry.AgentsSQL, "agent_created_at", []any{none, "", ""}},
		"agents by status":   {registry.AgentsSQL, "agent_status", []any{new("inactive"), "", ""}},
		"agents by type":     {registry.AgentsSQL, "agent_type", []any{none, "type-7", ""}},
		"agents by words":    {registry.AgentsSQL, "agent_words", []any{none, "", "rare77"}},
		"agents by absence":  {registry.AgentsSQL, "agent_", []any{none, "", "-common"}},
		"workflows":          {registry.WorkflowsSQL, "workflow_created_at", []any{none, "", ""}},
		"workflows by state": {registry.WorkflowsSQL, "workflow_status", []any{new("failed"), "", ""}},
		"workflows by words": {registry.WorkflowsSQL, "workflow_words", []any{none, "rare77", ""}},
		"words and a tag":    {registry.WorkflowsSQL, "workflow_words", []any{none, "common", "type-7"}},
		"workflows by tag":   {registry.TaggedSQL, "workflow_tag_tag", []any{none, "type-7"}},
	} {
		plan := f.explain(t, c.sql, append([]any{tenant, 100, first, ""}, c.args...)...)
		require.NotContains(t, plan, "Seq Scan", "%s:\n%s", name, plan)
		require.Contains(t, plan, c.index, "%s:\n%s", name, plan)
	}
}

func (f fixture) explain(t *testing.T, sql string, args ...any) string {
	t.Helper()
	rows, err := f.db.Query(t.Context(), `EXPLAIN `+sql, append([]any{postgres.PlanEachTime}, args...)...)
	require.NoError(t, err)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return strings.Join(lines, "\n")
}
