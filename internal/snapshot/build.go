package snapshot

import "github.com/ai-cherry/morello/messages"

// Sizes that shape trees. They are no part of the format: a reader needs none of them. A change of one makes the next snapshot of
// each agent store its whole document anew, once.
const (
	// shortString is how long a string must be to become a chunk of its own; a reference costs about as much.
	shortString = 64
	// inlineValue is how large a value, encoded, may be to stay in the chunk of what holds it.
	inlineValue = 128
	// inlineRefs is how many references such a value may have in addition. A list that grows is written anew with what holds it
	// in any case, and a chunk of its own takes as much room as some references.
	inlineRefs = 16
	// wholeDocument is how large a document may be to become one leaf: about what one chunk more takes.
	wholeDocument = 256
	// wholeElement is how large an array or an object that is an element may be, in bytes of the document, to become one leaf, with its
	// strings: so the messages of a conversation do.
	wholeElement = 4096
	// wholeNode is how large an array or an object may be, by the weight of its items, without being cut into runs.
	wholeNode = 1536
	// Runs weigh minRun, and on the average runTarget more; maxRun ends one in any case.
	minRun    = 768
	runTarget = 512
	maxRun    = 4096
	// refBytes is what a reference takes, and refWeight what an item weighs that is one. Where a list grows the references after the last
	// cuts are written anew each time: runs of about six are the least of that and of what each run takes (`morello bench snapshots`).
	refBytes  = 36
	refWeight = 240
	// maxIndexed bounds the text of one document that search finds. The rest is stored the same, and not indexed.
	maxIndexed = 4 << 20
)

// tree is a document cut into chunks.
type tree struct {
	root   Hash
	hashes []Hash               // of all chunks, each once
	fresh  map[Hash]*freshChunk // the chunks that were not known
	// partiallyIndexed says that there is more text than search finds.
	partiallyIndexed bool
}

// freshChunk is a chunk, and whether it holds a part of one string.
type freshChunk struct {
	chunk
	isText bool
}

// build cuts a document, which must be valid JSON without white space. Chunks that are known are named only.
func build(document []byte, known func(Hash) bool) *tree {
	b := builder{document: document, known: known, seen: map[Hash]bool{}, tree: tree{fresh: map[Hash]*freshChunk{}}}
	var whole run
	b.value(&whole, 0)
	if len(document) <= wholeDocument && whole.isOpen() {
		whole.collapse(0)
	}
	root := b.emit(&whole, value)
	b.close(&root)
	b.root = root.hash
	return &b.tree
}

type builder struct {
	tree
	document []byte
	known    func(Hash) bool
	seen     map[Hash]bool
	indexed  int // bytes of text in searchable chunks
	// What lists no longer need is there for the next ones: a document may hold millions.
	spare  []run
	levels []*level // of the lists that are open, the outer ones first; used of them
	used   int
}

// piece is a part of a run: a range of the document, or a reference to a chunk. Whether a leaf is needed is known when the chunk that
// refers to it is made: until then it has no hash, because it may become a part of a larger leaf.
type piece struct {
	kind       refKind
	node       bool
	isOpen     bool // of a reference: a leaf without a hash yet
	start, end int  // of a literal or of an open leaf
	text       int  // of an open leaf: bytes of strings
	count      int  // of a reference, as what follows
	size       int64
	hash       Hash
}

// run is a stretch of the document: an item of a list, or several.
type run struct {
	pieces []piece
	comma  int // where the comma before it stands, if there is one
	count  int // items
	bytes  int // of its encoding, about
	text   int // bytes of strings in the literals; the names of members are none
	size   int64
}

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

// refs counts the references of a run.
func (r *run) refs() (n int) {
	for i := range r.pieces {
		if r.pieces[i].kind != literal {
			n++
		}
	}
	return n
}

// weight is how much an item counts when a list is cut: its bytes, but more if it stands for one chunk, which takes room of its own.
func (r *run) weight() int {
	if r.refs() == 1 {
		return r.bytes - refBytes + refWeight
	}
	return r.bytes
}

// isOpen reports whether all leaves under the run are open, so that it may become one itself.
func (r *run) isOpen() bool {
	for i := range r.pieces {
		if p := &r.pieces[i]; p.kind != literal && !p.isOpen {
			return false
		}
	}
	return true
}

// collapse makes one range of the document, which begins at start, of a value whose leaves are open.
func (r *run) collapse(start int) {
	whole := run{pieces: r.pieces[:0], text: r.text}
	for i := range r.pieces {
		whole.text += r.pieces[i].text
	}
	whole.literal(start, start+int(r.size))
	*r = whole
}

// add appends the pieces of a run.
func (r *run) add(next *run) {
	for i := range next.pieces {
		if p := &next.pieces[i]; p.kind == literal {
			r.literal(p.start, p.end)
		} else {
			r.ref(*p)
		}
	}
	r.text += next.text
}

// join appends a run of items, after the comma that stands before it.
func (r *run) join(next *run) {
	switch {
	case len(r.pieces) == 0:
		r.comma = next.comma
	case next.comma > 0:
		r.literal(next.comma, next.comma+1)
	}
	r.add(next)
	r.count += next.count
}

// takeRun returns an empty run.
func (b *builder) takeRun() run {
	last := len(b.spare) - 1
	if last < 0 {
		return run{}
	}
	r := b.spare[last]
	b.spare = b.spare[:last]
	return r
}

// giveRun takes back a run whose pieces nobody needs any more.
func (b *builder) giveRun(r run) { b.spare = append(b.spare, run{pieces: r.pieces[:0]}) }

// emit makes a chunk of a run, or an open leaf, and returns the reference to it.
func (b *builder) emit(r *run, kind refKind) piece {
	p := piece{kind: kind, count: r.count, size: r.size}
	if kind == value {
		p.count = 1
	}
	if len(r.pieces) == 1 && r.pieces[0].kind == literal {
		p.isOpen, p.start, p.end, p.text = true, r.pieces[0].start, r.pieces[0].end, r.text
		return p
	}
	p.node = true
	p.hash = b.note(b.encode(r), r.text, false)
	return p
}

// close gives an open leaf its hash.
func (b *builder) close(p *piece) {
	if p.isOpen {
		p.hash = b.note(chunk{body: b.document[p.start:p.end]}, p.text, p.kind == text)
		p.isOpen = false
	}
}

// note names a chunk, which has so many bytes of text, and keeps it if it is not known. A chunk without text is not searchable
// wherever it stands, so that it has one name.
func (b *builder) note(c chunk, text int, isText bool) Hash {
	c.searchable = text > 0
	hash := c.hash()
	if c.searchable && !b.seen[hash] {
		if b.indexed += text; b.indexed > maxIndexed {
			b.partiallyIndexed = true
			c.searchable = false
			hash = c.hash()
		}
	}
	if b.seen[hash] {
		return hash
	}
	b.seen[hash] = true
	b.hashes = append(b.hashes, hash)
	if !b.known(hash) {
		b.fresh[hash] = &freshChunk{c, isText}
	}
	return hash
}

// encode writes a run with references as a chunk.
func (b *builder) encode(r *run) (c chunk) {
	inline, nodes, leaves := 0, 0, 0
	for i := range r.pieces {
		switch p := &r.pieces[i]; {
		case p.kind == literal:
			inline += p.end - p.start
		case p.node:
			nodes++
		default:
			leaves++
		}
	}
	c.nodes, c.leaves = make([]Hash, 0, nodes), make([]Hash, 0, leaves)
	c.body = make([]byte, 0, inline+8*len(r.pieces))
	for i := range r.pieces {
		p := &r.pieces[i]
		switch {
		case p.kind == literal:
			c.body = appendLiteral(c.body, b.document[p.start:p.end])
			continue
		case p.node:
			c.nodes = append(c.nodes, p.hash)
		default:
			b.close(p)
			c.leaves = append(c.leaves, p.hash)
		}
		c.body = appendRef(c.body, segment{kind: p.kind, node: p.node, count: p.count, size: p.size})
	}
	return c
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
	end = b.scalarEnd(pos)
	dst.literal(pos, end)
	return end
}

// scalarEnd returns where the number, true, false or null ends that begins at pos.
func (b *builder) scalarEnd(pos int) int {
	for pos++; pos < len(b.document); pos++ {
		if c := b.document[pos]; c == ',' || c == ']' || c == '}' {
			break
		}
	}
	return pos
}

// stringEnd returns where the string that begins at pos ends.
func stringEnd(document []byte, pos int) int { return pos + messages.StringLength(document[pos:]) }

// child is value, where a large value becomes a chunk of its own; an element that is not large becomes one leaf with all strings in it.
func (b *builder) child(dst *run, pos int, of refKind) (end int) {
	switch c := b.document[pos]; {
	case c == '"':
		if end = stringEnd(b.document, pos); end-pos <= wholeText {
			b.text(dst, pos+1, end-1)
			return end
		}
	case c != '[' && c != '{':
		if end = b.scalarEnd(pos); end-pos <= inlineValue {
			dst.literal(pos, end)
			return end
		}
	}
	v := b.takeRun()
	end = b.value(&v, pos)
	refs := v.refs()
	isWhole := of == elements && refs > 0 && end-pos <= wholeElement && v.isOpen()
	if isWhole {
		v.collapse(pos)
	}
	if isWhole || refs > inlineRefs || v.bytes-refs*refBytes > inlineValue {
		dst.ref(b.emit(&v, value))
	} else {
		dst.add(&v)
	}
	b.giveRun(v)
	return end
}

// list appends an array or an object.
func (b *builder) list(dst *run, pos int, closing byte, kind refKind) (end int) {
	dst.literal(pos, pos+1)
	if b.document[pos+1] == closing {
		dst.literal(pos+1, pos+2)
		return pos + 2
	}
	items := sequence{builder: b, kind: kind, base: b.used}
	item := b.takeRun()
	for comma := 0; comma == 0 || b.document[pos] == ','; {
		item = run{pieces: item.pieces[:0], comma: comma, count: 1}
		pos++
		if kind == members {
			value := stringEnd(b.document, pos) + 1
			item.literal(pos, value)
			pos = value
		}
		pos = b.child(&item, pos, kind)
		items.add(0, &item)
		comma = pos
	}
	b.giveRun(item)
	items.end(dst)
	dst.literal(pos, pos+1)
	return pos + 1
}

// text appends a string, its quotes included, whose characters are in [from, to).
func (b *builder) text(dst *run, from, to int) {
	if to-from < shortString {
		dst.literal(from-1, to+1)
		dst.text += to - from
		return
	}
	dst.literal(from-1, from)
	if to-from <= wholeText {
		dst.ref(b.textPart(from, to))
	} else {
		b.longText(dst, from, to)
	}
	dst.literal(to, to+1)
}

func (b *builder) longText(dst *run, from, to int) {
	parts := sequence{builder: b, kind: text, base: b.used}
	part := b.takeRun()
	for from < to {
		length := cutText(b.document[from:to])
		part = run{pieces: part.pieces[:0]}
		part.ref(b.textPart(from, from+length))
		parts.add(0, &part)
		from += length
	}
	b.giveRun(part)
	parts.end(dst)
}

// textPart makes an open leaf of a part of a string.
func (b *builder) textPart(from, to int) piece {
	return piece{kind: text, isOpen: true, start: from, end: to, text: to - from, size: int64(to - from)}
}
