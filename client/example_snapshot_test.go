package client_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/ai-cherry/morello/client"
	"github.com/ai-cherry/morello/messages"
)

func ExampleClient_Snapshot() {
	url, stop := exampleStack()
	defer stop()
	ctx := context.Background()
	c, err := client.Connect(ctx, client.Config{URL: url, Tenant: "demo"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = c.Close(ctx) }()
	snapshots := c.Snapshot()

	first, err := snapshots.Create(ctx, messages.SnapshotCreate{AgentID: "planner", Label: "begun", Data: []byte(`{"goal":"a trip","turns":["to Lisbon"]}`)})
	fmt.Println(first.Snapshot.SizeBytes, err)
	second, err := snapshots.Create(ctx, messages.SnapshotCreate{
		AgentID: "planner", Data: []byte(`{"goal":"a trip","turns":["to Lisbon","in May?"]}`), IfHead: first.Snapshot.SnapshotID,
	})
	fmt.Println(second.Snapshot.ParentID == first.Snapshot.SnapshotID, err)

	latest, err := snapshots.Latest(ctx, messages.SnapshotLatest{AgentID: "planner"})
	fmt.Println(string(latest.Data), err)

	diff, err := snapshots.Diff(ctx, messages.SnapshotDiff{FromSnapshotID: first.Snapshot.SnapshotID, ToSnapshotID: second.Snapshot.SnapshotID})
	for _, change := range diff.Changes {
		fmt.Println(change.Op, change.Path, string(change.Value), err)
	}

	history, err := snapshots.History(ctx, messages.SnapshotHistory{SnapshotID: second.Snapshot.SnapshotID})
	fmt.Println(len(history.Snapshots), history.Snapshots[1].Label, err)

	// Another, who goes on from the first state, overwrites nothing, and is told which state there is.
	_, err = snapshots.Create(ctx, messages.SnapshotCreate{AgentID: "planner", Data: []byte(`{"goal":"another"}`), IfHead: first.Snapshot.SnapshotID})
	var failure *messages.Error
	fmt.Println(errors.As(err, &failure), failure.Code, failure.Details.SnapshotID == second.Snapshot.SnapshotID)
	// Output:
	// 39 <nil>
	// true <nil>
	// {"goal":"a trip","turns":["to Lisbon","in May?"]} <nil>
	// add /turns/1 "in May?" <nil>
	// 2 begun <nil>
	// true conflict true
}
