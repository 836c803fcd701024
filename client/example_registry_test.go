package client_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/ai-cherry/morello/client"
	"github.com/ai-cherry/morello/messages"
)

func ExampleClient_Agent() {
	url, stop := exampleStack()
	defer stop()
	ctx := context.Background()
	c, err := client.Connect(ctx, client.Config{URL: url, Tenant: "demo"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = c.Close(ctx) }()

	created, err := c.Agent().Create(ctx, messages.AgentCreate{AgentID: "agent-7", Name: "librarian", Type: "researcher"})
	fmt.Println(created.Agent.Status, created.Agent.Version, err)

	archived := messages.AgentArchived
	changed, err := c.Agent().Update(ctx, messages.AgentUpdate{AgentID: "agent-7", IfVersion: &created.Agent.Version, Status: &archived})
	fmt.Println(changed.Agent.Status, changed.Agent.Version, err)

	// Another, who still has the first version, overwrites nothing.
	active := messages.AgentActive
	_, err = c.Agent().Update(ctx, messages.AgentUpdate{AgentID: "agent-7", IfVersion: &created.Agent.Version, Status: &active})
	var failure *messages.Error
	fmt.Println(errors.As(err, &failure), failure.Code, failure.Details.Version)

	found, err := c.Agent().List(ctx, messages.AgentList{Type: "researcher", Query: "librarian"})
	fmt.Println(len(found.Agents), err)

	deleted, err := c.Agent().Delete(ctx, messages.AgentDelete{AgentID: "agent-7", Cascade: true}) // a job deletes its sessions
	fmt.Println(deleted.Deleted, deleted.JobID > 0, err)
	// Output:
	// active 1 <nil>
	// archived 2 <nil>
	// true conflict 2
	// 1 <nil>
	// true true <nil>
}

func ExampleClient_Workflow() {
	url, stop := exampleStack()
	defer stop()
	ctx := context.Background()
	c, err := client.Connect(ctx, client.Config{URL: url, Tenant: "demo"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = c.Close(ctx) }()

	created, err := c.Workflow().Create(ctx, messages.WorkflowCreate{
		WorkflowID: "digest", Name: "morning digest", Definition: []byte(`{"steps":["read","sum up"]}`), Tags: []string{"daily"},
	})
	fmt.Println(created.Workflow.Status, created.Workflow.Version, err)

	active := messages.WorkflowActive
	changed, err := c.Workflow().Update(ctx, messages.WorkflowUpdate{WorkflowID: "digest", Status: &active})
	fmt.Println(changed.Workflow.Status, changed.Workflow.Version, err)

	got, err := c.Workflow().Get(ctx, messages.WorkflowGet{Name: "morning digest"})
	fmt.Println(string(got.Workflow.Definition), err)
	// Output:
	// draft 1 <nil>
	// active 2 <nil>
	// {"steps":["read","sum up"]} <nil>
}

func ExampleClient_Audit() {
	url, stop := exampleStack()
	defer stop()
	ctx := context.Background()
	c, err := client.Connect(ctx, client.Config{URL: url, Tenant: "demo"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = c.Close(ctx) }()

	// A change of the registry writes its own entry, in the name of the actor.
	_, err = c.Agent().Create(client.WithActor(ctx, "ada"), messages.AgentCreate{AgentID: "agent-7", Name: "librarian"})
	fmt.Println(err)
	_, err = c.Audit().Log(ctx, messages.AuditLog{
		EventType: "report.published", Actor: "agent-7", ResourceType: "report", ResourceID: "2026-11", Details: []byte(`{"pages":12}`),
	})
	fmt.Println(err)

	trail, err := c.Audit().Query(ctx, messages.AuditQuery{})
	fmt.Println(err)
	for _, entry := range trail.Entries { // the newest first
		fmt.Println(entry.Actor, entry.EventType, entry.ResourceID)
	}
	// Output:
	// <nil>
	// <nil>
	// <nil>
	// agent-7 report.published 2026-11
	// ada agent.created agent-7
}
