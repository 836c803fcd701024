package snapshot

import (
	"bytes"
	"encoding/binary"
	"math"
)

// Sizes that shape trees. They are no part of the format: a reader needs none of them. A change of one makes the next snapshot of
// each agent store its whole document anew, once.
const (
	// shortString is how long a string must be to become a chunk of its own; a reference costs about as much.
	shortString = 64
	// inlineValue is how large a value, encoded, may be to stay in the chunk of what holds it.
	inlineValue = 512
	// wholeNode is how large an array or an object, encoded, may be without being cut into runs.
	wholeNode = 2048
	// Runs have minRun bytes, and on the average runTarget more; maxRun ends one in any case. In a list that grows at its end
	// the last run and the list of runs are written anew each time: about 1 KiB each is the least of both together for lists of
	// some hundred elements.
	minRun    = 256
	runTarget = 768
	maxRun    = 4096
	// maxIndexed bounds the text of one document that search finds. The rest is stored the same, and not indexed.
	maxIndexed = 4 << 20
)

// tree is a document cut into chunks.
type tree struct {
	root   Hash
	hashes []Hash           // of all chunks, each once
	fresh  map[Hash]*pruned // the chunks that were not known
	// partiallyIndexed says that there is more text than search finds.
	partiallyIndexed bool
}

// pruned is a chunk, and whether it holds a part of one string.
type pruned struct {
	chunk
	isText bool
}

// build cuts a document, which must be valid JSON without white space. Chunks that are known are named only.
func build(document []byte, known func(Hash) bool) *tree {
	b := builder{document: document, known: known, seen: map[Hash]bool{}, tree: tree{fresh: map[Hash]*pruned{}}}
	var whole run
	b.value(&whole, 0)
	b.root = b.emit(whole, value).hash
	return &b.tree
}

type builder struct {
	tree
	document []byte
	known    func(Hash) bool
	seen     map[Hash]bool
	indexed  int // bytes of text in searchable chunks
}

// piece is a part of a run: a range of the document, or a reference to a chunk.
type piece struct {
	kind       refKind
	node       bool
	start, end int // of a literal
	count      int // of a reference, as what follows
	size       int64
	hash       Hash
}

// run is a stretch of the document: an item of a list, or several.
type run struct {
	pieces []piece
	comma  int // where the comma before it stands, if there is one
	count  int // items
	bytes  int // of its encoding, about
	size   int64
}

const refBytes = 36

func (r *run) literal(start, end int) {
	r.size += int64(end - start)
	r.bytes += end - start
	if last := len(r.pieces) - 1; last >= 0 && r.pieces[last].kind == literal && r.pieces[last].end == start {
		r.pieces[last].end = end
		return
	}
	r.pieces = append(r.pieces, piece{kind: literal, start: start, end: end})
}

func (r *run) ref(p piece) {
	r.size += p.size
	r.bytes += refBytes
	r.pieces = append(r.pieces, p)
}

func (r *run) add(p piece) {
	if p.kind == literal {
		r.literal(p.start, p.end)
		return
	}
	r.ref(p)
}

// join appends a run, after the comma that stands before it.
func (r *run) join(next run) {
	switch {
	case len(r.pieces) == 0:
		r.comma = next.comma
	case next.comma > 0:
		r.literal(next.comma, next.comma+1)
	}
	for _, p := range next.pieces {
		r.add(p)
	}
	r.count += next.count
}

func (r *run) isRef() bool { return len(r.pieces) == 1 && r.pieces[0].kind != literal }

// emit makes a chunk of a run and returns the reference to it.
func (b *builder) emit(r run, kind refKind) piece {
	c := b.encode(r)
	p := piece{kind: kind, node: !c.isLeaf(), count: r.count, size: r.size, hash: c.hash()}
	if kind == value {
		p.count = 1
	}
	b.note(p.hash, pruned{chunk: c})
	return p
}

func (b *builder) note(hash Hash, c pruned) {
	if b.seen[hash] {
		return
	}
	b.seen[hash] = true
	b.hashes = append(b.hashes, hash)
	if !b.known(hash) {
		b.fresh[hash] = &c
	}
}

// encode writes a run as a chunk.
func (b *builder) encode(r run) (c chunk) {
	inline := 0
	for _, p := range r.pieces {
		inline += p.end - p.start
	}
	c.searchable = b.mayIndex(inline)
	if len(r.pieces) == 1 && r.pieces[0].kind == literal {
		c.body = b.document[r.pieces[0].start:r.pieces[0].end]
		return c
	}
	c.body = make([]byte, 0, inline+8*len(r.pieces))
	for _, p := range r.pieces {
		switch {
		case p.kind == literal:
			c.body = appendLiteral(c.body, b.document[p.start:p.end])
			continue
		case p.node:
			c.nodes = append(c.nodes, p.hash)
		default:
			c.leaves = append(c.leaves, p.hash)
		}
		c.body = appendRef(c.body, segment{kind: p.kind, node: p.node, count: p.count, size: p.size})
	}
	return c
}

// mayIndex takes so many bytes from what may be indexed of the document.
func (b *builder) mayIndex(size int) bool {
	b.indexed += size
	if b.indexed > maxIndexed {
		b.partiallyIndexed = true
	}
	return !b.partiallyIndexed
}

// value appends the value that begins at pos to a run, and returns where it ends.
func (b *builder) value(dst *run, pos int) (end int) {
	switch b.document[pos] {
	case '[':
		return b.list(dst, pos, ']', elements)
	case '{':
		return b.list(dst, pos, '}', members)
	case '"':
		end = stringEnd(b.document, pos)
		b.text(dst, pos+1, end-1)
		return end
	}
	for end = pos; end < len(b.document) && !endsScalar(b.document[end]); end++ {
	}
	dst.literal(pos, end)
	return end
}

func endsScalar(c byte) bool { return c == ',' || c == ']' || c == '}' }

// stringEnd returns where the string that begins at pos ends.
func stringEnd(document []byte, pos int) int {
	for pos++; ; pos++ {
		pos += bytes.IndexByte(document[pos:], '"')
		escapes := 0
		for document[pos-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return pos + 1
		}
	}
}

// child is value, where a large value becomes a chunk of its own.
func (b *builder) child(dst *run, pos int) (end int) {
	var v run
	end = b.value(&v, pos)
	if v.bytes > inlineValue && !v.isRef() {
		dst.ref(b.emit(v, value))
		return end
	}
	for _, p := range v.pieces {
		dst.add(p)
	}
	return end
}

// list appends an array or an object.
func (b *builder) list(dst *run, pos int, closing byte, kind refKind) (end int) {
	dst.literal(pos, pos+1)
	items := sequence{builder: b, kind: kind}
	for comma := 0; b.document[pos+1] != closing; comma = pos {
		item := run{comma: comma, count: 1}
		pos++
		if kind == members {
			value := stringEnd(b.document, pos) + 1
			item.literal(pos, value)
			pos = value
		}
		pos = b.child(&item, pos)
		items.add(0, item)
		if b.document[pos] == closing {
			pos--
			break
		}
	}
	items.end(dst)
	dst.literal(pos+1, pos+2)
	return pos + 2
}

// text appends a string, its quotes included, whose characters are in [from, to).
func (b *builder) text(dst *run, from, to int) {
	if to-from < shortString {
		dst.literal(from-1, to+1)
		return
	}
	dst.literal(from-1, from)
	parts := sequence{builder: b, kind: text}
	for from < to {
		length := cutText(b.document[from:to])
		c := chunk{body: b.document[from : from+length], searchable: b.mayIndex(length)}
		hash := c.hash()
		b.note(hash, pruned{chunk: c, isText: true})
		part := run{}
		part.ref(piece{kind: text, size: int64(length), hash: hash})
		parts.add(0, part)
		from += length
	}
	parts.end(dst)
	dst.literal(to, to+1)
}

// sequence cuts a list of items into runs where the items themselves say so, that a change moves only the cuts near it. When
// the list is larger than wholeNode, each run becomes a chunk and the references are a list in turn, one level up. It is a
// prolly tree (https://docs.dolthub.com/architecture/storage-engine/prolly-tree), made as the items come.
type sequence struct {
	*builder
	kind   refKind
	levels []*level
}

type level struct {
	closed []run // not chunks yet, because the list may be small
	open   run
	bytes  int  // of both
	large  bool // closed runs become chunks at once
}

func (s *sequence) add(depth int, item run) {
	if depth == len(s.levels) {
		s.levels = append(s.levels, &level{})
	}
	l := s.levels[depth]
	l.bytes += item.bytes + 1
	cut := s.cutsAfter(l.open.bytes, item)
	l.open.join(item)
	if cut {
		l.closed, l.open = append(l.closed, l.open), run{}
	}
	if l.large = l.large || l.bytes > wholeNode; l.large {
		s.lift(depth)
	}
}

// lift makes chunks of the closed runs of a level.
func (s *sequence) lift(depth int) {
	l := s.levels[depth]
	for _, r := range l.closed {
		up := run{comma: r.comma, count: r.count}
		up.ref(s.emit(r, s.kind))
		s.add(depth+1, up)
	}
	l.closed = nil
}

// end appends what is left at the top of the levels.
func (s *sequence) end(dst *run) {
	for depth := 0; depth < len(s.levels); depth++ {
		l := s.levels[depth]
		if !l.large {
			for _, r := range append(l.closed, l.open) {
				items := run{}
				items.join(r)
				appendItems(dst, items, r.comma)
			}
			return
		}
		if len(l.open.pieces) > 0 {
			l.closed, l.open = append(l.closed, l.open), run{}
		}
		s.lift(depth)
	}
}

func appendItems(dst *run, items run, comma int) {
	if comma > 0 && len(items.pieces) > 0 {
		dst.literal(comma, comma+1)
	}
	for _, p := range items.pieces {
		dst.add(p)
	}
}

// cutsAfter decides by the item alone, but for the bounds, whether a run of so many bytes ends with it.
func (s *sequence) cutsAfter(size int, item run) bool {
	after := size + item.bytes
	if after >= maxRun {
		return true
	}
	return after >= minRun && s.digest(item) < math.MaxUint64/runTarget*uint64(min(item.bytes, runTarget))
}

// digest is FNV-1a (RFC 9923) of an item, mixed once more because its high bits hardly depend on the last bytes.
func (s *sequence) digest(item run) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211
	sum := uint64(offset)
	for _, p := range item.pieces {
		if p.kind != literal {
			sum ^= binary.LittleEndian.Uint64(p.hash[:])
			sum *= prime
			continue
		}
		for _, c := range s.document[p.start:p.end] {
			sum ^= uint64(c)
			sum *= prime
		}
	}
	return mix(sum)
}

// mix is the finaliser of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
