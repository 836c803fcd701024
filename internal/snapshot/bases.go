package snapshot

import (
	"bytes"
	"container/list"
	"crypto/sha256"
	"slices"
	"sync"
)

// base is a snapshot of an agent of which the chunks are known: while it is there, they are.
type base struct {
	snapshotID string
	hashes     []Hash // sorted
}

func newBase(snapshotID string, hashes []Hash) *base {
	slices.SortFunc(hashes, compareHashes)
	return &base{snapshotID, hashes}
}

func compareHashes(a, b Hash) int { return bytes.Compare(a[:], b[:]) }

// has reports whether the snapshot has a chunk. No base has none.
func (b *base) has(hash Hash) bool {
	if b == nil {
		return false
	}
	_, found := slices.BinarySearchFunc(b.hashes, hash, compareHashes)
	return found
}

// id returns the id of the snapshot; nil of no base.
func (b *base) id() *string {
	if b == nil {
		return nil
	}
	return &b.snapshotID
}

// bases remembers the last known snapshots of the agents that were used most recently, within a bound of memory. What it
// says may be old: who relies on a base looks, under the lock of the head, whether it is there.
type bases struct {
	mu     sync.Mutex
	free   int64
	recent *list.List // of remembered; the one used last is in front
	known  map[agentKey]*list.Element
}

type agentKey struct{ tenant, agentID string }

type remembered struct {
	agentKey
	base *base
}

func newBases(bytes int64) *bases {
	return &bases{free: bytes, recent: list.New(), known: map[agentKey]*list.Element{}}
}

func (b *bases) get(key agentKey) *base {
	b.mu.Lock()
	defer b.mu.Unlock()
	element := b.known[key]
	if element == nil {
		return nil
	}
	b.recent.MoveToFront(element)
	return element.Value.(*remembered).base
}

func (b *bases) put(key agentKey, made *base) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remove(b.known[key])
	b.known[key] = b.recent.PushFront(&remembered{key, made})
	b.free -= made.bytes()
	for b.free < 0 {
		b.remove(b.recent.Back())
	}
}

func (b *bases) forget(key agentKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remove(b.known[key])
}

func (b *bases) remove(element *list.Element) {
	if element == nil {
		return
	}
	gone := b.recent.Remove(element).(*remembered)
	delete(b.known, gone.agentKey)
	b.free += gone.base.bytes()
}

// bytes is what remembering takes, about.
func (b *base) bytes() int64 {
	const around = 512
	return around + sha256.Size*int64(cap(b.hashes))
}
