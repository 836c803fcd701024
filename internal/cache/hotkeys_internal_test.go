package cache

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestSketch holds the sketch against true counts: it is bounded, it never counts too little, what it is sure of is no
// more than the truth, and no key that is frequent enough is missing.
func TestSketch(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := newHotKeys()
		truth := map[entryKey]int64{}
		notes := rapid.IntRange(1, 6*maxHotKeys).Draw(t, "notes")
		keys := rapid.IntRange(1, 3*maxHotKeys).Draw(t, "keys")
		skew := rapid.IntRange(1, 5).Draw(t, "skew")
		for i := range notes {
			key := entryKey{"acme", fmt.Sprint(i * i % keys / skew)}
			truth[key]++
			h.note(key)
		}
		require.LessOrEqual(t, len(h.slots), maxHotKeys)
		require.Len(t, h.least, len(h.slots))
		for key, slot := range h.slots {
			require.Equal(t, key, slot.entryKey)
			require.GreaterOrEqual(t, slot.count, truth[key])
			require.LessOrEqual(t, slot.count-slot.surplus, truth[key])
		}
		for key, n := range truth {
			if n > int64(notes/maxHotKeys) {
				require.Contains(t, h.slots, key)
			}
		}
		taken := h.take()
		require.LessOrEqual(t, len(taken), maxHotFlushed)
		for i := 1; i < len(taken); i++ {
			require.GreaterOrEqual(t, taken[i-1].count, taken[i].count)
		}
		require.Empty(t, h.slots)
	})
}
