package registry_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/messages"
)

func TestCreateAndGetWorkflow(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	bare := f.createWorkflow(t, messages.WorkflowCreate{Name: "n", Definition: []byte(`null`)})
	require.EqualValues(t, 7, uuid.MustParse(bare.WorkflowID).Version())
	require.Equal(t, messages.Workflow{
		WorkflowID: bare.WorkflowID, Name: "n", Definition: []byte(`null`), Status: messages.WorkflowDraft, Tags: []string{},
		Metadata: []byte(`{}`), Version: 1, CreatedAt: bare.CreatedAt, UpdatedAt: bare.UpdatedAt,
	}, bare)
	full := f.createWorkflow(t, messages.WorkflowCreate{
		WorkflowID: "w", Name: "n", Description: "d", Definition: []byte(`[1, {"a": 2.0}]`), Status: new(messages.WorkflowPaused),
		Tags: []string{"z", `{"a",\b}`, "z", "NULL"}, CreatedBy: "ada", Metadata: []byte(`{"m":1}`),
	})
	require.Equal(t, `[1,{"a":2.0}]`, string(full.Definition))
	require.Equal(t, []string{"z", `{"a",\b}`, "NULL"}, full.Tags)
	require.Equal(t, "ada", full.CreatedBy)
	for _, m := range []messages.WorkflowGet{{WorkflowID: "w"}, {Name: "n"}} { // of several the most recent
		got, err := f.GetWorkflow(t.Context(), tenant, m)
		require.NoError(t, err)
		require.Equal(t, full, got.Workflow)
	}
	_, err := f.CreateWorkflow(t.Context(), tenant, messages.WorkflowCreate{WorkflowID: "w", Name: "x", Definition: []byte(`1`)})
	requireFailure(t, messages.CodeConflict, "workflow_id", err)
	for field, m := range map[string]messages.WorkflowGet{"workflow_id": {WorkflowID: "x"}, "name": {Name: "x"}} {
		_, err = f.GetWorkflow(t.Context(), tenant, m)
		requireFailure(t, messages.CodeNotFound, field, err)
	}
	_, err = f.GetWorkflow(t.Context(), "other", messages.WorkflowGet{WorkflowID: "w"})
	requireFailure(t, messages.CodeNotFound, "workflow_id", err)

	large := f.createWorkflow(t, messages.WorkflowCreate{Name: "large", Definition: []byte(`"` + strings.Repeat("v", messages.MaxRegistryJSONBytes-2) + `"`)})
	got, err := f.GetWorkflow(t.Context(), tenant, messages.WorkflowGet{Name: "large"})
	require.NoError(t, err)
	require.Equal(t, large, got.Workflow)
}

func TestUpdateAndDeleteWorkflow(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	want := f.createWorkflow(t, messages.WorkflowCreate{WorkflowID: "w", Name: "n", Description: "d", Tags: []string{"a"}, Metadata: []byte(`{"m":1}`)})
	for i, step := range []struct {
		update messages.WorkflowUpdate
		apply  func(w *messages.Workflow)
	}{
		{messages.WorkflowUpdate{Name: new("m"), IfVersion: new(int64(1))}, func(w *messages.Workflow) { w.Name = "m" }},
		{messages.WorkflowUpdate{Description: new("")}, func(w *messages.Workflow) { w.Description = "" }},
		{messages.WorkflowUpdate{Definition: []byte(`null`)}, func(w *messages.Workflow) { w.Definition = []byte(`null`) }},
		{messages.WorkflowUpdate{Status: new(messages.WorkflowFailed)}, func(w *messages.Workflow) { w.Status = messages.WorkflowFailed }},
		{messages.WorkflowUpdate{Tags: []string{"b", "a", "b"}}, func(w *messages.Workflow) { w.Tags = []string{"b", "a"} }},
		{messages.WorkflowUpdate{Metadata: []byte(`{}`)}, func(w *messages.Workflow) { w.Metadata = []byte(`{}`) }},
		{messages.WorkflowUpdate{Tags: []string{}}, func(w *messages.Workflow) { w.Tags = []string{} }},
	} {
		step.update.WorkflowID = "w"
		require.NoError(t, step.update.Validate())
		got, err := f.UpdateWorkflow(t.Context(), tenant, step.update)
		require.NoError(t, err)
		step.apply(&want)
		want.Version, want.UpdatedAt = int64(i+2), got.Workflow.UpdatedAt
		require.Equal(t, want, got.Workflow)
		require.ElementsMatch(t, want.Tags, f.tags(t))
	}
	_, err := f.UpdateWorkflow(t.Context(), tenant, messages.WorkflowUpdate{WorkflowID: "w", Name: new("x"), IfVersion: new(int64(1))})
	requireFailure(t, messages.CodeConflict, "if_version", err)
	require.EqualValues(t, 8, failure(t, err).Details.Version)
	_, err = f.UpdateWorkflow(t.Context(), "other", messages.WorkflowUpdate{WorkflowID: "w", Name: new("x")})
	requireFailure(t, messages.CodeNotFound, "workflow_id", err)

	_, err = f.UpdateWorkflow(t.Context(), tenant, messages.WorkflowUpdate{WorkflowID: "w", Tags: []string{"c"}})
	require.NoError(t, err)
	for _, is := range []bool{true, false} {
		deleted, err := f.DeleteWorkflow(t.Context(), tenant, messages.WorkflowDelete{WorkflowID: "w"})
		require.NoError(t, err)
		require.Equal(t, is, deleted.Deleted)
	}
	require.Empty(t, f.tags(t))
	trail := f.trail(t)
	require.Len(t, trail, 10)
	require.Equal(t, `acme workflow.created workflow w {"name": "n", "version": 1}`, trail[0])
	require.Equal(t, `acme workflow.updated workflow w {"name": "m", "fields": ["name"], "version": 2}`, trail[1])
	require.Equal(t, `acme workflow.deleted workflow w {"name": "m", "version": 9}`, trail[9])
}

// tags returns the tags in the side table.
func (f fixture) tags(t *testing.T) []string {
	t.Helper()
	rows, err := f.db.Query(t.Context(), `SELECT tag FROM morello.workflow_tag`)
	require.NoError(t, err)
	tags, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return tags
}

// TestTagsUnderConcurrency: updates of one workflow that overlap leave it to be found by each of its tags, and by no other.
func TestTagsUnderConcurrency(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.createWorkflow(t, messages.WorkflowCreate{WorkflowID: "w", Name: "n"})
	var crowd sync.WaitGroup
	for i := range 8 {
		crowd.Go(func() {
			for j := range 20 {
				tags := []string{"all", fmt.Sprint("tag-", (i+j)%5), fmt.Sprint("tag-", (i*j)%7)}
				if _, err := f.UpdateWorkflow(t.Context(), tenant, messages.WorkflowUpdate{WorkflowID: "w", Tags: tags}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	crowd.Wait()
	f.exec(t, `INSERT INTO morello.workflow_tag SELECT tenant, workflow_id, 'tag-stale', created_at FROM morello.workflow`) // at worst
	listed, err := f.ListWorkflows(t.Context(), tenant, messages.WorkflowList{Tag: "tag-stale"})
	require.NoError(t, err)
	require.Empty(t, listed.Workflows)
	got, err := f.GetWorkflow(t.Context(), tenant, messages.WorkflowGet{WorkflowID: "w"})
	require.NoError(t, err)
	for i := range 7 {
		tag := fmt.Sprint("tag-", i)
		listed, err := f.ListWorkflows(t.Context(), tenant, messages.WorkflowList{Tag: tag})
		require.NoError(t, err)
		if strings.Contains(fmt.Sprint(got.Workflow.Tags), tag) {
			require.Equal(t, []messages.Workflow{got.Workflow}, listed.Workflows, tag)
		} else {
			require.Empty(t, listed.Workflows, tag)
		}
	}
	_, err = f.DeleteWorkflow(t.Context(), tenant, messages.WorkflowDelete{WorkflowID: "w"})
	require.NoError(t, err)
	require.Empty(t, f.tags(t), "what overlapping updates left behind went with the workflow")
}
