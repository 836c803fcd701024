package snapshot_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/internal/snapshot"
	"github.com/ai-cherry/morello/messages"
)

// sweepStep does one step of a sweep in a transaction, as the job does.
func (f fixture) sweepStep(t require.TestingT, step jobs.Step) (jobs.Counts, bool) {
	var did jobs.Counts
	more, err := postgres.InTx(f.ctx, f.pool, "", func(ctx context.Context, db postgres.Querier) (more bool, err error) {
		did, more, err = step(ctx, db)
		return more, err
	})
	require.NoError(t, err)
	return did, more
}

func newSweep() jobs.Step { return snapshot.NewSweep(time.Hour).NewRun() }

// sweepAll runs a sweep to its end, and returns how many chunks it removed.
func (f fixture) sweepAll(t require.TestingT) (removed int64) {
	step := newSweep()
	for more := true; more; {
		var did jobs.Counts
		did, more = f.sweepStep(t, step)
		removed += did["removed"]
	}
	return removed
}

// pass lets time pass, for all that sweeps look at.
func (f fixture) pass(t require.TestingT, d time.Duration) {
	for _, sql := range []string{
		`UPDATE morello.snapshot_chunk SET touched_at = touched_at - $1::interval`,
		`UPDATE morello.snapshot_sweep SET started_at = started_at - $1::interval`,
		`UPDATE morello.snapshot_garbage SET deleted_at = deleted_at - $1::interval`,
	} {
		_, err := f.db.Exec(f.ctx, sql, d)
		require.NoError(t, err)
	}
}

const (
	unreachableSQL = `
		WITH RECURSIVE reached (hash) AS (
			SELECT content_hash FROM morello.snapshot WHERE tenant = 'acme'
			UNION
			SELECT child FROM reached JOIN morello.snapshot_chunk AS c USING (hash), morello.snapshot_hashes(coalesce(c.nodes, '') || coalesce(c.leaves, '')) AS child
			WHERE c.tenant = 'acme'
		)
		SELECT count(*) FROM morello.snapshot_chunk WHERE tenant = 'acme' AND hash NOT IN (SELECT hash FROM reached)`
	textsOfNothing = `SELECT count(*) FROM morello.snapshot_text AS t WHERE NOT EXISTS (SELECT FROM morello.snapshot_chunk AS c WHERE c.tenant = t.tenant AND c.hash = t.hash)`
)

func TestSweep(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.create(t, "a", conversation(60))
	second := f.create(t, "a", conversation(61))
	gone := f.create(t, "b", `{"only here":"`+strings.Repeat("quite long ", 30)+`"}`)
	f.pass(t, 2*time.Hour)
	require.Zero(t, f.sweepAll(t)) // nothing was deleted
	f.delete(t, gone.SnapshotID)
	f.delete(t, f.create(t, "b", `["`+strings.Repeat("of this hour ", 30)+`"]`).SnapshotID)
	require.EqualValues(t, 2, f.sweepAll(t))
	require.EqualValues(t, 1, f.count(t, `SELECT count(*) FROM morello.snapshot_garbage`)) // there is more to come
	f.pass(t, 2*time.Hour)
	require.EqualValues(t, 2, f.sweepAll(t))
	for _, table := range []string{"garbage", "sweep", "mark"} {
		require.Zero(t, f.count(t, `SELECT count(*) FROM morello.snapshot_`+table), table)
	}
	require.Zero(t, f.count(t, unreachableSQL))
	require.Zero(t, f.count(t, textsOfNothing))
	require.Equal(t, conversation(61), f.data(t, second.SnapshotID))
}

// After a crash the marks are gone with the note of where the sweep stands: it begins anew, and removes nothing by marks that are
// not there.
func TestSweepAfterACrash(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	kept := f.create(t, "a", conversation(60))
	f.delete(t, f.create(t, "a", conversation(61)).SnapshotID)
	f.pass(t, 2*time.Hour)
	step := newSweep()
	for f.count(t, `SELECT count(*) FROM morello.snapshot_sweep WHERE marked`) == 0 {
		f.sweepStep(t, step)
	}
	f.exec(t, `TRUNCATE morello.snapshot_sweep, morello.snapshot_mark`) // what recovery does to UNLOGGED tables
	f.sweepStep(t, step)
	require.Positive(t, f.sweepAll(t))
	require.Equal(t, conversation(60), f.data(t, kept.SnapshotID))
}

// Creations, deletions, sweeps that stall at any step or die, and time, in any order, through two workers that know nothing of each
// other: no chunk of a snapshot is ever removed, and in the end none is there that no snapshot holds.
func TestSweepModel(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	rapid.Check(t, func(rt *rapid.T) {
		f.exec(t, `TRUNCATE morello.snapshot, morello.snapshot_head, morello.snapshot_chunk, morello.snapshot_text, morello.snapshot_garbage, morello.snapshot_sweep, morello.snapshot_mark`)
		workers := []*snapshot.Service{f.another(), f.another()}
		live := map[string]string{}   // documents by id
		agents := map[string]string{} // by id
		step := newSweep()
		rt.Repeat(map[string]func(*rapid.T){
			"create": func(t *rapid.T) {
				m := messages.SnapshotCreate{AgentID: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "agent"), Data: jsontext.Value(pieces(t))}
				if parents := slices.Sorted(maps.Keys(live)); len(parents) > 0 && rapid.IntRange(0, 3).Draw(t, "fork") == 0 {
					m.ParentID = rapid.SampledFrom(parents).Draw(t, "parent")
					m.AgentID = agents[m.ParentID]
				}
				reply, err := workers[rapid.IntRange(0, 1).Draw(t, "worker")].Create(f.ctx, tenant, m)
				require.NoError(t, err)
				live[reply.Snapshot.SnapshotID], agents[reply.Snapshot.SnapshotID] = string(m.Data), m.AgentID
			},
			"delete": func(t *rapid.T) {
				ids := slices.Sorted(maps.Keys(live))
				if len(ids) == 0 {
					return
				}
				id := rapid.SampledFrom(ids).Draw(t, "deleted")
				_, err := f.Delete(f.ctx, tenant, messages.SnapshotDelete{SnapshotID: id})
				require.NoError(t, err)
				delete(live, id)
			},
			"sweep some": func(t *rapid.T) {
				for range rapid.IntRange(1, 4).Draw(t, "steps") {
					if _, more := f.sweepStep(t, step); !more {
						step = newSweep()
					}
				}
				for id, document := range live {
					reply, err := f.Get(f.ctx, tenant, messages.SnapshotGet{SnapshotID: id})
					require.NoError(t, err)
					require.Equal(t, document, string(reply.Data))
				}
			},
			"sweeper dies": func(*rapid.T) { step = newSweep() },
			"time": func(t *rapid.T) {
				f.pass(t, time.Duration(rapid.SampledFrom([]int{5, 20, 40, 70, 200}).Draw(t, "minutes"))*time.Minute)
			},
		})
		for range 2 {
			f.pass(rt, 2*time.Hour)
			f.sweepAll(rt)
		}
		require.Zero(rt, f.count(t, unreachableSQL))
		require.Zero(rt, f.count(t, textsOfNothing))
	})
}

// pieces draws a document of a few long strings out of few, in lists that are long enough for runs, so that chunks come again, alone and
// with others.
func pieces(t *rapid.T) string {
	var members []string
	for n := range rapid.IntRange(1, 2).Draw(t, "lists") {
		var list []string
		for range rapid.IntRange(1, 16).Draw(t, "length") {
			list = append(list, fmt.Sprintf(`"%s"`, strings.Repeat(fmt.Sprintf("piece %d ", rapid.IntRange(0, 7).Draw(t, "piece")), 12)))
		}
		members = append(members, fmt.Sprintf(`"%d":[%s]`, n, strings.Join(list, ",")))
	}
	return "{" + strings.Join(members, ",") + "}"
}

// A creation that stalls in the middle of its transaction, while a sweep runs from beginning to end: what it relied on stays.
func TestSweepBesideAStalledCreation(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.exec(t, `CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END'`)
	f.exec(t, `CREATE TRIGGER stall BEFORE INSERT ON morello.snapshot FOR EACH ROW EXECUTE FUNCTION stall()`)
	old := strings.Repeat("old words that were there before ", 20)
	for round := range 3 {
		doc := fmt.Sprintf(`["%s","round %d"]`, old, round)
		f.delete(t, f.create(t, "x", `["`+old+`"]`).SnapshotID) // its chunks are garbage, and come again in the creation
		first := f.create(t, "a", conversation(40+round))
		f.pass(t, map[int]time.Duration{0: 20 * time.Minute, 1: 45 * time.Minute, 2: 2 * time.Hour}[round])
		f.exec(t, `SELECT pg_advisory_lock(1)`)
		var group sync.WaitGroup
		var grown, again messages.SnapshotReply
		var errs [2]error
		group.Go(func() {
			grown, errs[0] = f.Create(f.ctx, tenant, messages.SnapshotCreate{AgentID: "a", Data: jsontext.Value(conversation(41 + round))})
		})
		group.Go(func() {
			again, errs[1] = f.Create(f.ctx, tenant, messages.SnapshotCreate{AgentID: "b", Data: jsontext.Value(doc)})
		})
		require.Eventually(t, func() bool {
			return f.count(t, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted`) == 2
		}, 10*time.Second, time.Millisecond)
		f.sweepAll(t)
		f.exec(t, `SELECT pg_advisory_unlock(1)`)
		group.Wait()
		require.NoError(t, errs[0])
		require.NoError(t, errs[1])
		f.sweepAll(t)
		require.Equal(t, conversation(41+round), f.data(t, grown.Snapshot.SnapshotID))
		require.Equal(t, doc, f.data(t, again.Snapshot.SnapshotID))
		require.Equal(t, first.SnapshotID, grown.Snapshot.ParentID)
	}
}
