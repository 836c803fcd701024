package snapshot_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/snapshot"
	"github.com/ai-cherry/morello/messages"
)

// transactions is how many transactions have written the snapshots that there are.
func (f fixture) transactions(t testing.TB) int64 {
	t.Helper()
	return f.count(t, `SELECT count(DISTINCT xmin::text) FROM morello.snapshot`)
}

// requireWhole looks at what must hold whoever has stored what together with whom: each snapshot but the first of an agent follows the
// one before, later than it; heads are the newest; and what was added is what is there.
func (f fixture) requireWhole(t testing.TB) {
	t.Helper()
	require.Zero(t, f.count(t, `
		SELECT count(*) FROM (
			SELECT parent_id, lag(snapshot_id) OVER of_agent AS before, created_at, lag(created_at) OVER of_agent AS earlier
			FROM morello.snapshot WINDOW of_agent AS (PARTITION BY tenant, agent_id ORDER BY created_at)
		) AS s WHERE parent_id IS DISTINCT FROM before OR created_at <= earlier`), "chains")
	require.Zero(t, f.count(t, `
		SELECT count(*) FROM morello.snapshot_head AS h
		WHERE snapshot_id IS DISTINCT FROM (SELECT snapshot_id FROM morello.snapshot AS s
			WHERE s.tenant = h.tenant AND s.agent_id = h.agent_id ORDER BY created_at DESC LIMIT 1)`), "heads")
	require.Equal(t, f.count(t, `SELECT sum(stored_bytes) FROM morello.snapshot`), f.count(t, `
		SELECT sum(`+rowBytes+`)
		FROM morello.snapshot_chunk`), "stored bytes")
}

// TestSmallCreationsAreStoredTogether: those of many agents, with texts that they share and texts of their own, by two services; every
// one that was acknowledged is there and equal.
func TestSmallCreationsAreStoredTogether(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	services := []*snapshot.Service{f.Service, f.another()}
	const agents, turns = 24, 8
	var made sync.Map // the data of each, by id
	var group sync.WaitGroup
	for agent := range agents {
		group.Go(func() {
			var messagesSoFar []string
			for turn := range turns {
				messagesSoFar = append(messagesSoFar, message(turn), message(1000*(agent+1)+turn))
				data := `{"messages":[` + strings.Join(messagesSoFar, ",") + `]}`
				reply, err := services[(agent+turn)%2].Create(t.Context(), tenant, messages.SnapshotCreate{
					AgentID: fmt.Sprintf("agent-%d", agent), UserID: fmt.Sprintf("user-%d", agent%3), Data: jsontext.Value(data),
					Metadata: jsontext.Value(fmt.Sprintf(`{"turn":%d}`, turn)), VectorIDs: []string{`a"b\`, fmt.Sprint(turn)},
				})
				require.NoError(t, err)
				require.Equal(t, []string{`a"b\`, fmt.Sprint(turn)}, reply.Snapshot.VectorIDs)
				require.JSONEq(t, fmt.Sprintf(`{"turn":%d}`, turn), string(reply.Snapshot.Metadata))
				made.Store(reply.Snapshot.SnapshotID, data)
			}
		})
	}
	group.Wait()
	require.EqualValues(t, agents*turns, f.count(t, `SELECT count(*) FROM morello.snapshot`))
	require.Less(t, f.transactions(t), int64(agents*turns*3/4), "most share a transaction")
	made.Range(func(id, data any) bool {
		require.Equal(t, data, f.data(t, id.(string)))
		return true
	})
	f.requireWhole(t)
}

// TestRefusalsAmongOthers: one that is refused keeps no other from being stored, and learns why; nothing of it is left.
func TestRefusalsAmongOthers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	taken := f.create(t, "taken", `{"n":1}`)
	head := f.create(t, "moved", `{"n":1}`)
	type outcome struct {
		reply messages.SnapshotReply
		err   error
	}
	for round := range 12 {
		base := f.create(t, "based", fmt.Sprintf(`{"of":%d}`, round))
		requests := map[string]messages.SnapshotCreate{
			"taken":  {AgentID: "taken", SnapshotID: taken.SnapshotID, Data: jsontext.Value(fmt.Sprintf(`{"other":%d}`, round))},
			"again":  {AgentID: "taken", SnapshotID: taken.SnapshotID, Data: jsontext.Value(`{"n":1}`)},
			"moved":  {AgentID: "moved", IfHead: uuid.NewString(), Data: jsontext.Value(`{"n":2}`)},
			"none":   {AgentID: "none", IfHead: base.SnapshotID, Data: jsontext.Value(`{"n":2}`)},
			"based":  {AgentID: "based", ParentID: base.SnapshotID, Data: jsontext.Value(`{"n":3}`)},
			"parent": {AgentID: "based", ParentID: uuid.NewString(), Data: jsontext.Value(`{"n":3}`)},
		}
		for good := range 12 {
			name := fmt.Sprintf("good-%d", good)
			requests[name] = messages.SnapshotCreate{AgentID: name, Data: jsontext.Value(fmt.Sprintf(`{"round":%d,"of":%d}`, round, good))}
		}
		if round%2 == 1 { // gone for whom the service remembers it as its base
			_, err := f.another().Delete(t.Context(), tenant, messages.SnapshotDelete{SnapshotID: base.SnapshotID})
			require.NoError(t, err)
		}
		var mu sync.Mutex
		outcomes := map[string]outcome{}
		var group sync.WaitGroup
		for name, request := range requests {
			group.Go(func() {
				reply, err := f.Create(t.Context(), tenant, request)
				mu.Lock()
				defer mu.Unlock()
				outcomes[name] = outcome{reply, err}
			})
		}
		group.Wait()
		for name, got := range outcomes {
			switch {
			case name == "taken":
				require.Equal(t, messages.ErrorDetails{Field: "snapshot_id"}, failure(t, got.err).Details)
			case name == "moved":
				require.Equal(t, messages.ErrorDetails{Field: "if_head", SnapshotID: head.SnapshotID}, failure(t, got.err).Details)
			case name == "none":
				require.Equal(t, messages.CodeConflict, failure(t, got.err).Code)
			case name == "parent", name == "based" && round%2 == 1:
				require.Equal(t, messages.CodeNotFound, failure(t, got.err).Code)
				require.Equal(t, "parent_id", failure(t, got.err).Details.Field)
			case name == "again":
				require.NoError(t, got.err)
				require.Equal(t, taken.SnapshotID, got.reply.Snapshot.SnapshotID)
			default:
				require.NoError(t, got.err, name)
				require.Equal(t, string(requests[name].Data), f.data(t, got.reply.Snapshot.SnapshotID))
			}
		}
	}
	require.EqualValues(t, 2, f.count(t, `SELECT count(*) FROM morello.snapshot WHERE agent_id IN ('taken', 'moved', 'none')`))
	require.Less(t, f.transactions(t), f.count(t, `SELECT count(*) FROM morello.snapshot`))
	require.Zero(t, f.count(t, `SELECT count(*) FROM morello.snapshot_head WHERE agent_id = 'none'`))
}

// TestConnectionsBreakAmongOthers: a connection is cut while what it stores waits for a head, together with others or alone. Who gets an
// error is not told that it was stored; who gets none, has it; and nothing is there by half.
func TestConnectionsBreakAmongOthers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const agents = 8
	for agent := range agents {
		f.create(t, fmt.Sprint(agent), `{}`)
	}
	made := map[string]string{} // the data of each, by id
	failures := 0
	for round := range 5 {
		lock, err := f.db.Begin(t.Context())
		require.NoError(t, err)
		_, err = lock.Exec(t.Context(), `SELECT FROM morello.snapshot_head WHERE agent_id = '0' FOR UPDATE`)
		require.NoError(t, err)
		var mu sync.Mutex
		var group sync.WaitGroup
		for agent := range agents {
			group.Go(func() {
				data := fmt.Sprintf(`{"round":%d,"agent":%d}`, round, agent)
				reply, err := f.Create(t.Context(), tenant, messages.SnapshotCreate{AgentID: fmt.Sprint(agent), Data: jsontext.Value(data)})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					made[reply.Snapshot.SnapshotID] = data
					return
				}
				failures++
				var known *messages.Error
				if !errors.As(err, &known) || known.Code != messages.CodeUnavailable {
					t.Errorf("a broken connection is answered by %v", err)
				}
			})
		}
		require.Eventually(t, func() bool {
			var cut bool
			_, err := lock.Exec(t.Context(), `SELECT pg_stat_clear_snapshot()`)
			if err == nil {
				err = lock.QueryRow(t.Context(), `
					SELECT coalesce(bool_or(pg_terminate_backend(pid)), false) FROM pg_stat_activity
					WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&cut)
			}
			return err == nil && cut
		}, 20*time.Second, time.Millisecond)
		require.NoError(t, lock.Rollback(t.Context()))
		group.Wait()
	}
	require.Positive(t, failures)
	fresh := newFixtureOn(t, f.url) // without connections that are cut, and nobody has noticed yet
	for id, data := range made {
		require.Equal(t, data, fresh.data(t, id))
	}
	require.EqualValues(t, agents+len(made), f.count(t, `SELECT count(*) FROM morello.snapshot`))
	f.requireWhole(t)
}

// TestRepeatedAmongOthers: many repeat the same creations at the same time, in two services, while others go on from them. Each has one
// effect, and no head goes back.
func TestRepeatedAmongOthers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	services := []*snapshot.Service{f.Service, f.another()}
	for round := range 15 {
		id, agent := uuid.NewString(), fmt.Sprint(round%3)
		request := messages.SnapshotCreate{AgentID: agent, SnapshotID: id, Data: jsontext.Value(fmt.Sprintf(`{"round":%d}`, round))}
		var group sync.WaitGroup
		for caller := range 10 {
			group.Go(func() {
				reply, err := services[caller%2].Create(t.Context(), tenant, request)
				require.NoError(t, err)
				require.Equal(t, id, reply.Snapshot.SnapshotID)
				_, err = services[caller%2].Create(t.Context(), tenant, messages.SnapshotCreate{AgentID: agent, Data: jsontext.Value(fmt.Sprintf(`[%d,%d]`, round, caller))})
				require.NoError(t, err)
			})
		}
		group.Wait()
	}
	require.EqualValues(t, 15*11, f.count(t, `SELECT count(*) FROM morello.snapshot`))
	f.requireWhole(t)
}
