package snapshot

import (
	"context"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/ai-cherry/morello/internal/postgres"
)

// rope is a stretch of a document of which not all chunks have been read: a value, an item of a list, or several items.
type rope []segment

// isRun reports whether the rope is a reference to items of a list.
func (r rope) isRun() bool { return len(r) == 1 && (r[0].kind == elements || r[0].kind == members) }

func (r rope) isValueRef() bool { return len(r) == 1 && r[0].kind == value }

// size is how long the text is.
func (r rope) size() (size int64) {
	for _, part := range r {
		size += part.size
	}
	return size
}

// items is how many items of a list the rope stands for.
func (r rope) items() int {
	if r.isRun() {
		return r[0].count
	}
	return 1
}

// key is equal for ropes that are certainly equal.
func (r rope) key() string {
	var key []byte
	for _, part := range r {
		if part.kind == literal {
			key = append(key, part.bytes...)
			continue
		}
		key = append(append(append(key, 0, byte(part.kind)), part.hash[:]...), 0) // 0 is in no literal
	}
	return string(key)
}

// refs appends the chunks that the rope refers to.
func (r rope) refs(found []Hash) []Hash {
	for _, part := range r {
		if part.kind != literal {
			found = append(found, part.hash)
		}
	}
	return found
}

// list takes the brackets off an array or an object, and returns its items; kind is the bracket.
func (r rope) list() (items []rope, kind byte) {
	if len(r) == 0 || r[0].kind != literal {
		return nil, 0
	}
	kind = r[0].bytes[0]
	if kind != '[' && kind != '{' {
		return nil, 0
	}
	inner := slices.Clone(r)
	inner[0].bytes = inner[0].bytes[1:]
	last := &inner[len(inner)-1]
	last.bytes = last.bytes[:len(last.bytes)-1]
	return inner.split(), kind
}

// split cuts items apart at the commas between them.
func (r rope) split() (items []rope) {
	var item rope
	depth, inString := 0, false
	for _, part := range r {
		if part.kind != literal {
			item = append(item, part)
			continue
		}
		start := 0
		for at := 0; at < len(part.bytes); at++ {
			switch c := part.bytes[at]; {
			case inString && c == '\\':
				at++
			case c == '"':
				inString = !inString
			case inString:
			case c == '[' || c == '{':
				depth++
			case c == ']' || c == '}':
				depth--
			case c == ',' && depth == 0:
				items = append(items, item.with(part.bytes[start:at]))
				item, start = nil, at+1
			}
		}
		item = item.with(part.bytes[start:])
	}
	if len(item) > 0 {
		items = append(items, item)
	}
	return items
}

// with appends a literal.
func (r rope) with(text []byte) rope {
	if len(text) == 0 {
		return r
	}
	return append(r, segment{kind: literal, bytes: text, size: int64(len(text))})
}

// member takes the name off a member of an object.
func (r rope) member() (name string, value rope) {
	end := stringEnd(r[0].bytes, 0)
	name = unescape(r[0].bytes[1 : end-1])
	return name, append(rope(nil).with(r[0].bytes[end+1:]), r[1:]...)
}

// reader reads chunks when they are needed.
type reader struct {
	db     postgres.Querier
	tenant string
	chunks chunks
}

func newReader(db postgres.Querier, tenant string) *reader {
	return &reader{db, tenant, chunks{}}
}

// load reads those chunks that are not there yet, in one round trip.
func (r *reader) load(ctx context.Context, hashes []Hash) error {
	var absent []Hash
	for _, hash := range hashes {
		if r.chunks[hash] == nil && !slices.Contains(absent, hash) {
			absent = append(absent, hash)
		}
	}
	if len(absent) == 0 {
		return nil
	}
	found, err := readChunks(ctx, r.db, r.tenant, absent)
	for hash, c := range found {
		r.chunks[hash] = c
	}
	return err
}

// open replaces references to values and runs by what they refer to.
func (r *reader) open(ctx context.Context, ropes ...*rope) error {
	for {
		var hashes []Hash
		for _, some := range ropes {
			if some.isValueRef() || some.isRun() {
				hashes = (*some).refs(hashes)
			}
		}
		if len(hashes) == 0 {
			return nil
		}
		if err := r.load(ctx, hashes); err != nil {
			return err
		}
		for _, some := range ropes {
			if !some.isValueRef() && !some.isRun() {
				continue
			}
			c := r.chunks[(*some)[0].hash]
			if c == nil {
				return &fault{(*some)[0].hash, errMissing}
			}
			parts, err := c.segments()
			if err != nil {
				return &fault{(*some)[0].hash, err}
			}
			*some = parts
		}
	}
}

// expand replaces each run of a list, as far as they are wanted, by its items or by the runs that it consists of.
func (r *reader) expand(ctx context.Context, items []rope, wanted func(rope) bool) (expanded []rope, err error) {
	var hashes []Hash
	for _, item := range items {
		if item.isRun() && wanted(item) {
			hashes = item.refs(hashes)
		}
	}
	if err := r.load(ctx, hashes); err != nil {
		return nil, err
	}
	for _, item := range items {
		if !item.isRun() || !wanted(item) {
			expanded = append(expanded, item)
			continue
		}
		c := r.chunks[item[0].hash]
		if c == nil {
			return nil, &fault{item[0].hash, errMissing}
		}
		parts, err := c.segments()
		if err != nil {
			return nil, &fault{item[0].hash, err}
		}
		expanded = append(expanded, rope(parts).split()...)
	}
	return expanded, nil
}

// texts reads all that some ropes stand for, in one round trip.
func (r *reader) texts(ctx context.Context, ropes []rope) ([]jsontext.Value, error) {
	var roots []Hash
	for _, some := range ropes {
		roots = some.refs(roots)
	}
	all := chunks{}
	if len(roots) > 0 {
		var err error
		if all, err = readTree(ctx, r.db, r.tenant, roots...); err != nil {
			return nil, err
		}
	}
	texts := make([]jsontext.Value, len(ropes))
	for i, some := range ropes {
		text := make([]byte, 0, some.size())
		for _, part := range some {
			var err error
			if part.kind == literal {
				text = append(text, part.bytes...)
			} else if text, err = all.append(text, part.hash); err != nil {
				return nil, err
			}
		}
		texts[i] = text
	}
	return texts, nil
}
