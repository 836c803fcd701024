package registry_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/registry"
	"github.com/ai-cherry/morello/messages"
)

// TestHistoriesAreLinearizable records what concurrent callers saw of a few agents, and has porcupine look for an order of the
// operations, one after the other, that explains all answers. In the model an update at a
// version changes that version only, and a conflict names another than the wanted one.
func TestHistoriesAreLinearizable(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const callers, agents, rounds = 10, 30, 10
	start := time.Now()
	var mu sync.Mutex
	var history []porcupine.Operation
	var crowd sync.WaitGroup
	for caller := range callers {
		crowd.Go(func() {
			h := &historian{service: f.Service, random: rand.New(rand.NewPCG(5, uint64(caller)))}
			for i := range agents * rounds {
				q := h.next(fmt.Sprint("agent-", i/rounds), fmt.Sprintf("%d.%d", caller, i))
				call := time.Since(start).Nanoseconds()
				a, err := h.perform(t.Context(), q)
				if err != nil {
					t.Error(q, err)
					return
				}
				returned := time.Since(start).Nanoseconds()
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: caller, Input: q, Call: call, Output: a, Return: returned})
				mu.Unlock()
			}
		})
	}
	crowd.Wait()
	require.Equal(t, porcupine.Ok, porcupine.CheckOperationsTimeout(agentModel, history, time.Minute))
	outcomes := map[string]int{}
	for _, op := range history {
		a := op.Output.(answer)
		outcomes[op.Input.(question).kind+" "+string(a.code)]++
	}
	require.Len(t, outcomes, 11, "every kind of operation has ended in each of its ways: %v", outcomes)
}

// TestTheModelCanFail: an update that was lost, and one of a version that was not there, are found.
func TestTheModelCanFail(t *testing.T) {
	t.Parallel()
	check := func(ops ...porcupine.Operation) bool {
		for i := range ops {
			ops[i].Call, ops[i].Return = int64(10*i), int64(10*i+5)
		}
		return porcupine.CheckOperations(agentModel, ops)
	}
	create := porcupine.Operation{Input: question{kind: "create", text: "a"}, Output: answer{version: 1, text: "a"}}
	update := func(at, version int64) porcupine.Operation {
		return porcupine.Operation{Input: question{kind: "if_version", text: "b", version: at}, Output: answer{version: version, text: "b"}}
	}
	require.True(t, check(create, update(1, 2), update(2, 3)))
	require.False(t, check(create, update(1, 2), update(1, 3)))
	require.False(t, check(create, update(1, 2), porcupine.Operation{Input: question{kind: "get"}, Output: answer{version: 1, text: "a"}}))
}

type question struct {
	kind, id, text string
	version        int64 // if_version
}

// answer is a version with its description, or the code of a failure with the version that it names.
type answer struct {
	code    messages.Code
	version int64
	text    string
}

// historian is a caller that remembers the version that it saw last.
type historian struct {
	service *registry.Service
	random  *rand.Rand
	seen    int64
}

func (h *historian) next(id, text string) question {
	kinds := []string{"create", "create", "get", "get", "update", "if_version", "if_version", "if_version", "if_version", "delete"}
	q := question{kind: kinds[h.random.IntN(len(kinds))], id: id, text: text}
	if q.kind == "if_version" {
		q.version = max(1, h.seen+h.random.Int64N(4)/2) // sometimes one that may come yet
	}
	return q
}

func (h *historian) perform(ctx context.Context, q question) (answer, error) {
	var r messages.AgentReply
	var err error
	switch q.kind {
	case "create":
		r, err = h.service.CreateAgent(ctx, tenant, messages.AgentCreate{AgentID: q.id, Name: q.id, Description: q.text})
	case "get":
		r, err = h.service.GetAgent(ctx, tenant, messages.AgentGet{AgentID: q.id})
	case "delete":
		deleted, err := h.service.DeleteAgent(ctx, tenant, messages.AgentDelete{AgentID: q.id})
		if err == nil && !deleted.Deleted {
			return answer{code: messages.CodeNotFound}, nil
		}
		return answer{}, err
	default:
		m := messages.AgentUpdate{AgentID: q.id, Description: &q.text}
		if q.kind == "if_version" {
			m.IfVersion = &q.version
		}
		r, err = h.service.UpdateAgent(ctx, tenant, m)
	}
	if err == nil {
		h.seen = r.Agent.Version
		return answer{version: r.Agent.Version, text: r.Agent.Description}, nil
	}
	failure := messages.AsError(err)
	if failure.Code != messages.CodeConflict && failure.Code != messages.CodeNotFound {
		return answer{}, err
	}
	return answer{code: failure.Code, version: failure.Details.Version}, nil
}

// agentState is an agent as the contract describes it; version 0 when there is none.
type agentState struct {
	version int64
	text    string
}

var agentModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byID := map[string][]porcupine.Operation{}
		for _, op := range history {
			id := op.Input.(question).id
			byID[id] = append(byID[id], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range byID {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return agentState{} },
	Step: func(state, input, output any) (bool, any) {
		s, q, a := state.(agentState), input.(question), output.(answer)
		want, next := s.step(q)
		return a == want, next
	},
}

// step returns the answer that the contract gives, and the state after it.
func (s agentState) step(q question) (answer, agentState) {
	there := s.version > 0
	switch {
	case q.kind == "create" && there:
		return answer{code: messages.CodeConflict}, s
	case q.kind != "create" && !there:
		return answer{code: messages.CodeNotFound}, s
	case q.kind == "get":
		return answer{version: s.version, text: s.text}, s
	case q.kind == "delete":
		return answer{}, agentState{}
	case q.kind == "if_version" && q.version != s.version:
		return answer{code: messages.CodeConflict, version: s.version}, s
	}
	s = agentState{version: s.version + 1, text: q.text}
	return answer{version: s.version, text: s.text}, s
}
