package snapshot

import (
	"hash/crc32"
	"math"
)

// sequence cuts a list of items into runs where the items themselves say so, that a change moves only the cuts near it. When
// the list is larger than wholeNode, each run becomes a chunk and the references are a list in turn, one level up. It is a
// prolly tree (https://docs.dolthub.com/architecture/storage-engine/prolly-tree), made as the items come.
type sequence struct {
	*builder
	kind  refKind
	base  int // the place of its first level among those of the builder
	depth int // how many levels there are
}

type level struct {
	closed []run // not chunks yet, because the list may be small
	open   run
	weight int    // of the items in open
	total  int    // of all items
	large  bool   // closed runs become chunks at once
	window uint64 // hash of the last items, those that stand for about 64 bytes of the document
}

func (s *sequence) level(depth int) *level {
	if depth < s.depth {
		return s.levels[s.base+depth]
	}
	s.depth++
	if s.used++; s.used > len(s.levels) {
		s.levels = append(s.levels, &level{})
	}
	l := s.levels[s.used-1]
	*l = level{closed: l.closed[:0], open: s.takeRun()}
	return l
}

func (s *sequence) add(depth int, item *run) {
	l := s.level(depth)
	weight := item.weight()
	l.weight, l.total = l.weight+weight, l.total+weight
	cut := s.cutsAfter(l, item, weight)
	l.open.join(item)
	if cut {
		l.closed, l.open, l.weight = append(l.closed, l.open), s.takeRun(), 0
	}
	if l.large = l.large || l.total > wholeNode; l.large {
		s.lift(depth)
	}
}

// lift makes chunks of the closed runs of a level.
func (s *sequence) lift(depth int) {
	l := s.level(depth)
	for i := range l.closed {
		r := &l.closed[i]
		up := s.takeRun()
		up.comma, up.count = r.comma, r.count
		up.ref(s.emit(r, s.kind))
		s.giveRun(*r)
		s.add(depth+1, &up)
		s.giveRun(up)
	}
	l.closed = l.closed[:0]
}

// end appends the top of the levels and then, level by level down, what comes after their last cuts: where a list grows. In chunks
// of their own these few items would be written anew each time just the same.
func (s *sequence) end(dst *run) {
	for depth := s.depth - 1; depth >= 0; depth-- {
		l := s.level(depth)
		l.closed = append(l.closed, l.open)
		for i := range l.closed {
			r := &l.closed[i]
			if len(r.pieces) > 0 && r.comma > 0 {
				dst.literal(r.comma, r.comma+1)
			}
			dst.add(r)
			s.giveRun(*r)
		}
	}
	s.used = s.base
}

// cutsAfter decides whether the open run, whose weight has grown by an item's, ends with it: by the item alone, but for the bounds of the run; by the ones before
// it too where it is small, because there are only so many different small ones, and perhaps none of them would end a run.
func (s *sequence) cutsAfter(l *level, item *run, weight int) bool {
	l.window = l.window<<(item.size+1) + s.digest(item) // nothing is left of a window that is shifted by 64 or more
	if l.weight >= maxRun {
		return true
	}
	return l.weight >= minRun && l.window < math.MaxUint64/runTarget*uint64(min(weight, runTarget))
}

// digest is CRC-32C of an item, mixed because the high bits decide.
func (s *sequence) digest(item *run) uint64 {
	var sum uint32
	for i := range item.pieces {
		p := &item.pieces[i]
		if p.kind == literal || p.isOpen {
			sum = crc32.Update(sum, castagnoli, s.document[p.start:p.end])
		} else {
			sum = crc32.Update(sum, castagnoli, p.hash[:])
		}
	}
	return mix(uint64(sum))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// mix is the finaliser of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
