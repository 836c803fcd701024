package cache

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/ai-cherry/morello/internal/postgres"
)

const (
	// One in hotSampling reads is noted.
	hotSampling = 32
	// maxHotKeys bounds the sketch, for all tenants together.
	maxHotKeys = 1024
	// hotFlushes is how many periods of the counters pass between two flushes of the sketch.
	hotFlushes = 5
	// maxHotFlushed bounds the rows of one flush, minHotSamples what is worth one.
	maxHotFlushed = 128
	minHotSamples = 2
	// hotHalfLife, in seconds, is how fast reads are forgotten.
	hotHalfLife = `60`
	// decayed is what is left of the reads of the row h.
	decayed = `h.reads * power(0.5, extract(epoch FROM now() - h.noted_at)::float8 / ` + hotHalfLife + `)`
)

// hotKeys finds the keys that are read most among samples, in bounded memory: the Space-Saving sketch of Metwally, Agrawal
// and El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams", 2005. When it is full, the least
// frequent key makes room for a new one, which inherits its count as a possible error.
type hotKeys struct {
	mu    sync.Mutex
	slots map[entryKey]*hotSlot
	least hotHeap
}

// hotSlot is a key with the number of its samples, of which surplus may be another key's.
type hotSlot struct {
	entryKey
	count, surplus int64
	index          int // in the heap
}

func newHotKeys() *hotKeys { return &hotKeys{slots: map[entryKey]*hotSlot{}} }

// sample notes a read of the key, one in hotSampling.
func (h *hotKeys) sample(key entryKey) {
	if rand.Uint32()%hotSampling == 0 {
		h.note(key)
	}
}

func (h *hotKeys) note(key entryKey) {
	h.mu.Lock()
	defer h.mu.Unlock()
	slot, known := h.slots[key]
	switch {
	case known:
		slot.count++
	case len(h.least) < maxHotKeys:
		slot = &hotSlot{entryKey: key, count: 1}
		h.slots[key] = slot
		heap.Push(&h.least, slot)
		return
	default:
		slot = h.least[0]
		delete(h.slots, slot.entryKey)
		slot.entryKey, slot.surplus = key, slot.count
		slot.count++
		h.slots[key] = slot
	}
	heap.Fix(&h.least, slot.index)
}

// take empties the sketch and returns the hottest keys of which it is sure.
func (h *hotKeys) take() []hotSlot {
	h.mu.Lock()
	slots := h.least
	h.slots, h.least = map[entryKey]*hotSlot{}, nil
	h.mu.Unlock()
	var sure []hotSlot
	for _, slot := range slots {
		if slot.count-slot.surplus >= minHotSamples {
			sure = append(sure, *slot)
		}
	}
	slices.SortFunc(sure, func(a, b hotSlot) int { return int(b.count - a.count) })
	return sure[:min(len(sure), maxHotFlushed)]
}

// flush adds what was sampled to the table. Samples of a flush that fails are lost: others follow.
func (h *hotKeys) flush(ctx context.Context, pool *postgres.Pool) error {
	hot := h.take()
	if len(hot) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, counterTimeout)
	defer cancel()
	_, err := postgres.InStatement(ctx, pool, "", func(ctx context.Context, db postgres.Querier) (struct{}, error) {
		return struct{}{}, addHotKeys(ctx, db, hot)
	})
	return err
}

func addHotKeys(ctx context.Context, db postgres.Querier, hot []hotSlot) error {
	const sql = `
		INSERT INTO morello.cache_hot_key AS h (tenant, key, reads, noted_at)
		SELECT tenant, key, reads, now() FROM unnest($1::text[], $2::text[], $3::float8[]) AS i (tenant, key, reads)
		ON CONFLICT (tenant, key) DO UPDATE SET reads = ` + decayed + ` + excluded.reads, noted_at = excluded.noted_at`
	slices.SortFunc(hot, func(a, b hotSlot) int { return a.compare(b.entryKey) }) // so that two workers cannot wait for each other
	tenants, keys, reads := make([]string, len(hot)), make([]string, len(hot)), make([]float64, len(hot))
	for i, slot := range hot {
		tenants[i], keys[i], reads[i] = slot.tenant, slot.key, float64(slot.count*hotSampling)
	}
	_, err := db.Exec(ctx, sql, tenants, keys, reads)
	return err
}

// sweepHotKeys forgets keys that were not noted for ten half-lives, a bounded number.
func sweepHotKeys(ctx context.Context, db postgres.Querier, batch int) (int64, error) {
	const sql = `
		DELETE FROM morello.cache_hot_key
		WHERE ctid = ANY (ARRAY(
			SELECT ctid FROM morello.cache_hot_key
			WHERE noted_at < now() - 10 * make_interval(secs => ` + hotHalfLife + `)
			LIMIT $1 FOR UPDATE SKIP LOCKED))`
	tag, err := db.Exec(ctx, sql, batch)
	return tag.RowsAffected(), err
}

// hotHeap has the least frequent key on top.
type hotHeap []*hotSlot

func (h hotHeap) Len() int           { return len(h) }
func (h hotHeap) Less(i, j int) bool { return h[i].count < h[j].count }
func (h hotHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is for the package heap.
func (h *hotHeap) Push(x any) {
	slot := x.(*hotSlot)
	slot.index = len(*h)
	*h = append(*h, slot)
}

// Pop is for the package heap, whose interface wants it; nothing is ever popped.
func (h *hotHeap) Pop() any {
	last := len(*h) - 1
	slot := (*h)[last]
	*h = (*h)[:last]
	return slot
}
