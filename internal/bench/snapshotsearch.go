package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/messages"
)

const (
	searchTenant  = tenant + "-search"
	searchCallers = 8
	// A searched agent has perAgent snapshots; each adds addedMessages to the one before.
	perAgent      = 10
	addedMessages = 10
	// bookWords of a message are of the book, in its order; one more is of searchWords[0], and one of searchWords[1].
	bookWords = 12
)

// vocabulary is made-up words, each of which is in about the same number of messages.
type vocabulary struct {
	prefix string
	words  int // in proportion to the number of messages
}

// word returns one of the words.
func (v vocabulary) word(random uint64, n int) string {
	return fmt.Sprintf("%s%d", v.prefix, random%uint64(max(1, n/v.words)))
}

// searchWords: of the first a word is in about 100 messages, of the second in about 850.
var searchWords = [2]vocabulary{{"rare", 100}, {"seldom", 850}}

// search measures searches among many snapshots.
func (r *snapshotsRun) search(ctx context.Context) error {
	if r.Searched == 0 {
		return nil
	}
	begin := time.Now()
	if err := r.withWorker(ctx, func() error { return r.fillSearched(ctx) }); err != nil {
		return err
	}
	r.show("search: vacuum")
	filled := time.Since(begin)
	if err := r.exec(ctx, `VACUUM ANALYZE morello.snapshot, morello.snapshot_chunk, morello.snapshot_text`); err != nil {
		return err
	}
	total := r.Searched * addedMessages
	r.report.add(comparison{Measure: fmt.Sprintf("filling %d snapshots with %d messages, creates a second", r.Searched, total), Ours: float64(r.Searched) / filled.Seconds()})
	return r.withWorker(ctx, func() error {
		var seldom float64
		for _, kind := range []struct {
			name  string
			query func(random uint64) string
			aim   comparison
		}{
			{"word in about 100 messages", func(random uint64) string { return searchWords[0].word(random, total) }, comparison{AtMost: 50}},
			{"word in about 850 messages", func(random uint64) string { return searchWords[1].word(random, total) }, comparison{AtMost: 50}},
			{"a common word", func(random uint64) string { return commonWords[random%uint64(len(commonWords))] }, comparison{RatioAtMost: 4}},
			{"two common words", func(random uint64) string {
				return "the " + commonWords[random%uint64(len(commonWords))]
			}, comparison{RatioAtMost: 4}},
		} {
			r.show("search: %s", kind.name)
			p50, p95, capped, err := r.measureSearches(ctx, kind.query)
			if err != nil {
				return err
			}
			kind.aim.Measure, kind.aim.Ours = fmt.Sprintf("search, %s (%.0f %% capped), p95 ms", kind.name, 100*capped), p95
			if kind.aim.RatioAtMost > 0 {
				kind.aim.Beside, kind.aim.Other = "word in about 850", seldom
			}
			r.report.add(kind.aim)
			r.report.add(comparison{Measure: fmt.Sprintf("search, %s, p50 ms", kind.name), Ours: p50})
			if kind.aim.AtMost > 0 {
				seldom = max(seldom, p95)
			}
		}
		return nil
	})
}

// commonWords are in thousands of messages.
var commonWords = []string{
	"light", "rays", "the", "glass", "colours", "angle", "refraction", "prism", "red", "of", "water", "reflected", "experiment", "surface", "blue",
	"air", "and", "figure", "distance", "incidence",
}

// fillSearched stores conversations of short messages, all different, with many agents.
func (r *snapshotsRun) fillSearched(ctx context.Context) error {
	book, err := readBook()
	if err != nil {
		return err
	}
	words := strings.Fields(book)
	agents := (r.Searched + perAgent - 1) / perAgent
	var next, stored atomic.Int64
	errs := make([]error, searchCallers)
	var crowd sync.WaitGroup
	for caller := range searchCallers {
		crowd.Go(func() {
			for agent := int(next.Add(1)) - 1; agent < agents && errs[caller] == nil && ctx.Err() == nil; agent = int(next.Add(1)) - 1 {
				errs[caller] = r.fillAgent(ctx, agent, words, &stored)
			}
		})
	}
	crowd.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}

func (r *snapshotsRun) fillAgent(ctx context.Context, agent int, words []string, stored *atomic.Int64) error {
	random := rand.New(rand.NewPCG(uint64(agent), 1))
	total := r.Searched * addedMessages
	state := []byte(`{"messages":[`)
	for n := range perAgent {
		for i := range addedMessages {
			if n+i > 0 {
				state = append(state, ',')
			}
			at := random.IntN(len(words) - bookWords)
			text := strings.Join(append(slices.Clone(words[at:at+bookWords]), searchWords[0].word(random.Uint64(), total),
				searchWords[1].word(random.Uint64(), total), fmt.Sprintf("no %d", (agent*perAgent+n)*addedMessages+i)), " ")
			quoted, err := messages.Encode(text)
			if err != nil {
				return err
			}
			state = fmt.Appendf(state, `{"role":"user","content":%s}`, quoted)
		}
		data := fmt.Appendf(nil, `%s],"step":%d}`, state, n)
		request := messages.SnapshotCreate{AgentID: fmt.Sprintf("agent-%d", agent), UserID: fmt.Sprintf("user-%d", agent/10), Data: data}
		if _, err := bus.Call(ctx, r.conn, messages.SnapshotCreateEndpoint, searchTenant, request); err != nil {
			return err
		}
		if done := stored.Add(1); done%1000 == 0 {
			r.show("search: storing snapshots: %d of %d", done, r.Searched)
		}
	}
	return nil
}

// measureSearches searches, one after the other, for what query says.
func (r *snapshotsRun) measureSearches(ctx context.Context, query func(random uint64) string) (p50, p95, capped float64, err error) {
	random := rand.New(rand.NewPCG(3, 4))
	var took []time.Duration
	for i := -r.Searches / 10; i < r.Searches; i++ {
		request := messages.SnapshotSearch{Query: query(random.Uint64())}
		begin := time.Now()
		reply, err := bus.Call(ctx, r.conn, messages.SnapshotSearchEndpoint, searchTenant, request)
		if err != nil {
			return 0, 0, 0, err
		}
		if len(reply.Hits) == 0 {
			return 0, 0, 0, fmt.Errorf("a search for %q found nothing", request.Query)
		}
		if i < 0 {
			continue
		}
		took = append(took, time.Since(begin))
		if reply.Capped {
			capped++
		}
	}
	slices.Sort(took)
	at := func(share float64) float64 {
		return float64(took[int(share*float64(len(took)-1))].Microseconds()) / 1000
	}
	return at(0.5), at(0.95), capped / float64(len(took)), nil
}
