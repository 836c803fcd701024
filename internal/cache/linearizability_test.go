package cache_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/cache"
	"github.com/ai-cherry/morello/messages"
)

// TestHistoriesAreLinearizable records what concurrent callers of two workers saw of a few keys, and has porcupine look
// for an order of the operations, one after the other, that explains all answers.
func TestHistoriesAreLinearizable(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	services := []*cache.Service{f.Service, newService(t, f.url)}
	const callers, rounds = 12, 80
	start := time.Now()
	var mu sync.Mutex
	var history []porcupine.Operation
	var crowd sync.WaitGroup
	for caller := range callers {
		crowd.Go(func() {
			c := &historian{service: services[caller%2], random: rand.New(rand.NewPCG(7, uint64(caller))), seen: map[string]int64{}, leases: map[string]string{}}
			for i := range rounds {
				in := c.next(caller*rounds + i)
				call := time.Since(start).Nanoseconds()
				out, err := c.perform(t.Context(), in)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: caller, Input: in, Call: call, Output: out, Return: time.Since(start).Nanoseconds()})
				mu.Unlock()
			}
		})
	}
	crowd.Wait()
	require.Less(t, time.Since(start), messages.LeaseTime, "a lease may have lapsed, which the model does not know")
	result := porcupine.CheckOperationsTimeout(cacheModel, history, time.Minute)
	if result == porcupine.Illegal {
		logIllegal(t, history)
	}
	require.Equal(t, porcupine.Ok, result)
}

// logIllegal writes down what was seen of each key for which there is no order.
func logIllegal(t *testing.T, history []porcupine.Operation) {
	t.Helper()
	for _, part := range cacheModel.Partition(history) {
		if porcupine.CheckOperations(cacheModel, part) {
			continue
		}
		for _, op := range part {
			t.Logf("%d-%d caller %d: %+v -> %+v", op.Call, op.Return, op.ClientId, op.Input, op.Output)
		}
	}
}

// TestTheModelCanFail: a lost update is found.
func TestTheModelCanFail(t *testing.T) {
	t.Parallel()
	one, two := answer{value: "1", version: 5, ok: true}, answer{value: "1", version: 6, ok: true}
	history := []porcupine.Operation{
		{ClientId: 0, Input: question{kind: "increment", key: "k"}, Call: 0, Output: one, Return: 10},
		{ClientId: 1, Input: question{kind: "increment", key: "k"}, Call: 0, Output: two, Return: 10},
	}
	require.False(t, porcupine.CheckOperations(cacheModel, history))
}

type question struct {
	kind, key, value, lease string
	version                 int64
}

type answer struct {
	ok      bool // found, stored, deleted
	value   string
	version int64
	lease   string
}

// historian is a caller that remembers what it saw, to use it in conditions.
type historian struct {
	service *cache.Service
	random  *rand.Rand
	seen    map[string]int64
	leases  map[string]string
}

func (h *historian) next(n int) question {
	q := question{key: fmt.Sprint("k", h.random.IntN(3)), value: strconv.Itoa(n)}
	kinds := []string{"get", "get", "lease", "lease", "set", "if_version", "if_version", "increment", "delete", "delete"}
	q.kind = kinds[h.random.IntN(len(kinds))]
	if token := h.leases[q.key]; token != "" && h.random.IntN(2) == 0 {
		q.kind, q.lease = "set_lease", token
		delete(h.leases, q.key)
	}
	if q.kind == "if_version" && h.random.IntN(3) > 0 {
		q.version = h.seen[q.key]
	}
	return q
}

func (h *historian) perform(ctx context.Context, q question) (answer, error) {
	switch q.kind {
	case "get", "lease":
		r, err := h.service.Get(ctx, tenant, messages.CacheGet{Key: q.key, Lease: q.kind == "lease"})
		h.seen[q.key] = r.Version
		if r.Lease != "" {
			h.leases[q.key] = r.Lease
		}
		return answer{r.Found, string(r.Value), r.Version, r.Lease}, err
	case "increment":
		r, err := h.service.Increment(ctx, tenant, messages.CacheIncrement{Key: q.key})
		return answer{ok: true, value: strconv.FormatInt(r.Value, 10), version: r.Version}, err
	case "delete":
		r, err := h.service.Delete(ctx, tenant, messages.CacheDelete{Key: q.key})
		return answer{ok: r.Deleted}, err
	}
	m := messages.CacheSet{Key: q.key, Value: []byte(q.value), Lease: q.lease}
	if q.kind == "if_version" {
		m.IfVersion = &q.version
	}
	r, err := h.service.Set(ctx, tenant, m)
	return answer{ok: r.Stored, version: r.Version}, err
}

// entryState is a key as the contract describes it: there or not, the highest version so far, and the lease.
type entryState struct {
	there   bool
	value   string
	version int64 // the highest that was ever given
	lease   string
}

var cacheModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, op := range history {
			key := op.Input.(question).key
			byKey[key] = append(byKey[key], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return entryState{} },
	Step: func(state, input, output any) (bool, any) {
		return step(state.(entryState), input.(question), output.(answer))
	},
}

func step(s entryState, q question, a answer) (bool, any) {
	current := int64(0)
	if s.there {
		current = s.version
	}
	write := func(value string) (bool, any) {
		return a.version > s.version, entryState{there: true, value: value, version: a.version}
	}
	switch q.kind {
	case "get", "lease":
		if s.there || a.ok {
			return a.ok == s.there && a.value == s.value && a.version == s.version && a.lease == "", s
		}
		if a.lease == "" {
			return true, s
		}
		granted := s.lease == ""
		s.lease = a.lease
		return granted, s
	case "set":
		return write(q.value)
	case "if_version":
		if !a.ok {
			return current != q.version && a.version == current, s
		}
		if current != q.version {
			return false, s
		}
		return write(q.value)
	case "set_lease":
		holds := !s.there && s.lease == q.lease
		if !a.ok {
			return !holds && a.version == current, s
		}
		if !holds {
			return false, s
		}
		return write(q.value)
	case "increment":
		sum := 1
		if s.there {
			n, err := strconv.Atoi(s.value)
			if err != nil {
				return false, s
			}
			sum = n + 1
		}
		if a.value != strconv.Itoa(sum) {
			return false, s
		}
		return write(a.value)
	case "delete":
		if a.ok != s.there {
			return false, s
		}
		return true, entryState{version: s.version}
	}
	return false, s
}
