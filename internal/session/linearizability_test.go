package session_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/session"
	"github.com/ai-cherry/morello/messages"
)

// TestHistoriesAreLinearizable records what concurrent callers of two workers saw of some sessions, and has porcupine look for
// an order of the operations, one after the other, that explains all answers. In the model nothing revives a session, and no
// acknowledged merge is lost.
func TestHistoriesAreLinearizable(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	services := []*session.Service{f.Service, newService(t, f.url, session.Config{})}
	const callers, sessions, rounds = 10, 40, 8
	start := time.Now()
	var mu sync.Mutex
	var history []porcupine.Operation
	known := make([]*knownTokens, sessions)
	for i := range known {
		made := f.create(t, messages.SessionCreate{})
		known[i] = &knownTokens{id: made.Session.SessionID, tokens: []string{made.Token}}
	}
	var crowd sync.WaitGroup
	for caller := range callers {
		crowd.Go(func() {
			h := &historian{service: services[caller%2], random: rand.New(rand.NewPCG(11, uint64(caller)))}
			for i := range sessions * rounds {
				of := i / rounds
				q := h.next(of, known[of], fmt.Sprintf("%d.%d", caller, i))
				call := time.Since(start).Nanoseconds()
				a, err := h.perform(t.Context(), q)
				if err != nil {
					t.Error(q, err)
					return
				}
				returned := time.Since(start).Nanoseconds()
				known[of].add(a.token)
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: caller, Input: q, Call: call, Output: a, Return: returned})
				mu.Unlock()
			}
		})
	}
	crowd.Wait()
	f.requireCurrentTokens(t)
	model := sessionModel(known)
	require.Equal(t, porcupine.Ok, porcupine.CheckOperationsTimeout(model, history, time.Minute))
	outcomes := map[string]int{}
	for _, op := range history {
		outcomes[fmt.Sprint(op.Input.(question).kind, op.Output.(answer).ok)]++
	}
	require.GreaterOrEqual(t, len(outcomes), 13, "every kind of operation has succeeded and failed: %v", outcomes)
}

// TestTheModelCanFail: a revival and a lost merge are found.
func TestTheModelCanFail(t *testing.T) {
	t.Parallel()
	model := sessionModel([]*knownTokens{{tokens: []string{"t"}}})
	history := func(ops ...porcupine.Operation) []porcupine.Operation {
		for i := range ops {
			ops[i].Call, ops[i].Return = int64(10*i), int64(10*i+5)
		}
		return ops
	}
	deleted := porcupine.Operation{Input: question{kind: "delete"}, Output: answer{ok: true}}
	require.True(t, porcupine.CheckOperations(model, history(deleted, porcupine.Operation{Input: question{kind: "touch"}, Output: answer{}})))
	require.False(t, porcupine.CheckOperations(model, history(deleted, porcupine.Operation{Input: question{kind: "touch"}, Output: answer{ok: true}})))
	merge := func(key string, version int64) porcupine.Operation {
		return porcupine.Operation{Input: question{kind: "update", key: key, value: "1"}, Output: answer{ok: true, version: version}}
	}
	got := porcupine.Operation{Input: question{kind: "get"}, Output: answer{ok: true, version: 3, data: "b=1;"}}
	require.False(t, porcupine.CheckOperations(model, history(merge("a", 2), merge("b", 3), got)))
}

// knownTokens are the tokens of a session that a caller was told.
type knownTokens struct {
	id     string
	mu     sync.Mutex
	tokens []string
}

func (k *knownTokens) add(token string) {
	if token == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tokens = append(k.tokens, token)
}

// pick prefers the latest: a stale one usually ends the session.
func (k *knownTokens) pick(random *rand.Rand) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n := len(k.tokens); n > 2 && random.IntN(4) > 0 {
		return k.tokens[n-1-random.IntN(2)]
	}
	return k.tokens[random.IntN(len(k.tokens))]
}

type question struct {
	kind, id, token, key, value string
	session                     int
	version                     int64 // if_version, 0 for none
	graceless                   bool
}

type answer struct {
	ok      bool
	version int64
	data    string
	token   string
}

type historian struct {
	service *session.Service
	random  *rand.Rand
	seen    int64
}

func (h *historian) next(of int, known *knownTokens, value string) question {
	kinds := []string{"get", "get", "open", "open", "open", "update", "update", "update", "if_version", "touch", "extend", "rotate", "rotate", "delete"}
	q := question{
		kind: kinds[h.random.IntN(len(kinds))], session: of, id: known.id, token: known.pick(h.random),
		key: fmt.Sprint("k", h.random.IntN(3)), value: value, graceless: h.random.IntN(2) == 0,
	}
	if q.kind == "delete" && h.random.IntN(3) > 0 {
		q.kind = "get"
	}
	if q.kind == "if_version" {
		q.kind, q.version = "update", max(1, h.seen)
	}
	return q
}

func (h *historian) perform(ctx context.Context, q question) (answer, error) {
	var s messages.Session
	var a answer
	var err error
	switch q.kind {
	case "get":
		var r messages.SessionReply
		r, err = h.service.Get(ctx, tenant, messages.SessionGet{SessionID: q.id})
		s = r.Session
	case "open":
		var r messages.SessionReply
		r, err = h.service.GetByToken(ctx, tenant, messages.SessionGetByToken{Token: q.token})
		s = r.Session
	case "update":
		m := messages.SessionUpdate{SessionID: q.id, Data: fmt.Appendf(nil, `{%q:%q}`, q.key, q.value)}
		if q.version > 0 {
			m.IfVersion = &q.version
		}
		var r messages.SessionReply
		r, err = h.service.Update(ctx, tenant, m)
		s = r.Session
	case "touch":
		r, err := h.service.Touch(ctx, tenant, messages.SessionTouch{SessionID: q.id})
		return answer{ok: r.Touched}, err
	case "extend":
		_, err = h.service.Extend(ctx, tenant, messages.SessionExtend{SessionID: q.id})
	case "rotate":
		grace := 3600.0
		if q.graceless {
			grace = 0
		}
		var r messages.SessionRotateReply
		r, err = h.service.Rotate(ctx, tenant, messages.SessionRotate{Token: q.token, GraceSeconds: &grace})
		s, a.token = r.Session, r.Token
	case "delete":
		r, err := h.service.Delete(ctx, tenant, messages.SessionDelete{SessionID: q.id})
		return answer{ok: r.Deleted}, err
	}
	switch code := messages.AsError(orNil(err)).Code; {
	case err == nil:
	case code == messages.CodeNotFound:
		return answer{}, nil
	case code == messages.CodeConflict:
		return answer{version: -1}, nil
	default:
		return answer{}, err
	}
	h.seen = s.Version
	a.ok, a.version, a.data = true, s.Version, flat(s.Data)
	return a, nil
}

func orNil(err error) error {
	if err == nil {
		return context.Canceled
	}
	return err
}

// flat writes data as the model does.
func flat(data []byte) string {
	var members map[string]string
	_ = json.Unmarshal(data, &members)
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(members)) {
		text.WriteString(key + "=" + members[key] + ";")
	}
	return text.String()
}

// sessionState is a session as the contract describes it. Lists of tokens are separated by spaces.
type sessionState struct {
	live      bool
	version   int64
	data      string
	current   string // the token that was last used for the first time
	graced    string // tokens that open the session for a while yet
	over      string // tokens whose time is over
	fresh     string // the token that has not been used
	graceless bool   // its first use ends the current one at once
}

func sessionModel(known []*knownTokens) porcupine.Model {
	first := make([]string, len(known))
	for i, k := range known {
		first[i] = k.tokens[0]
	}
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			parts := make([][]porcupine.Operation, len(known))
			for _, op := range history {
				of := op.Input.(question).session
				parts[of] = append(parts[of], op)
			}
			return parts
		},
		Init: func() any { return sessionState{} },
		Step: func(state, input, output any) (bool, any) {
			s, q := state.(sessionState), input.(question)
			if s.version == 0 {
				s = sessionState{live: true, version: 1, current: first[q.session]}
			}
			return s.step(q, output.(answer))
		},
	}
}

func (s sessionState) step(q question, a answer) (bool, any) {
	if !s.live {
		return !a.ok && a.version == 0, s
	}
	matches := a.ok && a.version == s.version && a.data == s.data
	switch q.kind {
	case "get":
		return matches, s
	case "touch", "extend":
		return a.ok, s
	case "delete":
		s.live = false
		return a.ok, s
	case "update":
		if q.version > 0 && q.version != s.version {
			return !a.ok && a.version == -1, s
		}
		s.version, s.data = s.version+1, merge(s.data, q.key, q.value)
		return a.ok && a.version == s.version && (a.data == "" || a.data == s.data), s
	}
	switch {
	case q.token == s.fresh:
		if s.graceless {
			s.over += " " + s.current
		} else {
			s.graced += " " + s.current
		}
		s.current, s.fresh = q.token, ""
	case contains(s.over, q.token):
		s.live = false
		return !a.ok && a.version == 0, s
	case q.token != s.current && !contains(s.graced, q.token): // it was replaced
		return !a.ok && a.version == 0, s
	}
	if q.kind == "rotate" {
		s.fresh, s.graceless = a.token, q.graceless
	}
	return matches, s
}

func contains(tokens, token string) bool { return slices.Contains(strings.Fields(tokens), token) }

func merge(data, key, value string) string {
	members := map[string]string{key: value}
	for _, member := range strings.Split(strings.TrimSuffix(data, ";"), ";") {
		if name, old, found := strings.Cut(member, "="); found && name != key {
			members[name] = old
		}
	}
	text, _ := json.Marshal(members)
	return flat(text)
}
