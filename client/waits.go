package client

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/ai-cherry/morello/messages"
)

// computingKey is the key of the context of a compute function, under which its computation stands.
type computingKey struct{}

// waitGraph says which computations of this process wait for which keys, to find a circle before anybody waits in it.
type waitGraph struct {
	mu    sync.Mutex
	edges map[string]map[string]int // from the key of a computation to those that it asked for, with how often
}

// enter notes that the computation of the context, if there is one, waits for a key until leave is called. It refuses a wait that would
// close a circle.
func (g *waitGraph) enter(ctx context.Context, key string) (leave func(), err error) {
	asking, ok := ctx.Value(computingKey{}).(*computation)
	if !ok {
		return func() {}, nil
	}
	from := asking.options.Key
	g.mu.Lock()
	defer g.mu.Unlock()
	if circle := g.path(key, from, map[string]bool{}); circle != nil {
		return nil, messages.Invalid("key", "its computation would wait for itself: %s", describe(append([]string{from}, circle...)))
	}
	if g.edges == nil {
		g.edges = map[string]map[string]int{}
	}
	if g.edges[from] == nil {
		g.edges[from] = map[string]int{}
	}
	g.edges[from][key]++
	return func() { g.leave(from, key) }, nil
}

func (g *waitGraph) leave(from, key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.edges[from][key]--; g.edges[from][key] == 0 {
		delete(g.edges[from], key)
	}
	if len(g.edges[from]) == 0 {
		delete(g.edges, from)
	}
}

// path returns the keys on a way along the waits, both ends included; nil if there is none but over keys that were visited.
func (g *waitGraph) path(from, to string, visited map[string]bool) []string {
	visited[from] = true
	if from == to {
		return []string{to}
	}
	for next := range g.edges[from] {
		if !visited[next] {
			if way := g.path(next, to, visited); way != nil {
				return append([]string{from}, way...)
			}
		}
	}
	return nil
}

// maxNamedKeys bounds the keys that an error names.
const maxNamedKeys = 8

// describe says in words which key asks for which.
func describe(circle []string) string {
	if over := len(circle) - maxNamedKeys; over > 0 {
		circle = slices.Concat(circle[:maxNamedKeys-1], []string{fmt.Sprintf("%d more", over)}, circle[len(circle)-1:])
	}
	quoted := make([]string, len(circle))
	for i, key := range circle {
		quoted[i] = fmt.Sprintf("%q", key)
	}
	return strings.Join(quoted, " asks for ")
}
