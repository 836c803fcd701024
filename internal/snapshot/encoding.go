package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/klauspost/compress/zstd"
)

// encoding says how the body of a chunk is kept in its row.
type encoding int16

const (
	rawBody   encoding = iota // column body
	zstdBody                  // column body, in a frame of zstd (RFC 8878)
	utf8Text                  // column text holds the characters of a string; the body has no escapes that are not needed
	asciiText                 // the same, where the body has \u and four digits for all that is not ASCII
	// searchableBit is set for searchable chunks.
	searchableBit encoding = 8
)

// row is a chunk as it is stored, but for its tenant.
type row struct {
	Hash     []byte
	Encoding encoding
	Nodes    []byte // hashes, one after the other; nil for none
	Leaves   []byte
	Body     []byte  // nil if Text has it
	Text     *string // what search finds in the chunk; nil for nothing
}

// columns are where chunkColumns are scanned to.
func (r *row) columns() []any {
	return []any{&r.Hash, &r.Encoding, &r.Nodes, &r.Leaves, &r.Body, &r.Text}
}

// smallBody is what zstd hardly makes smaller.
const smallBody = 48

var (
	compressor   = must(zstd.NewWriter(nil, zstd.WithEncoderConcurrency(2), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true)))
	decompressor = must(zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(maxBody)))
)

// maxBody is more than any chunk's body has: a number or the name of a member may be as long as a document, and stays in one piece.
const maxBody = maxDocument + 1<<20

func must[T any](made T, err error) T {
	if err != nil {
		panic(err) // the options are constants
	}
	return made
}

// encode writes a chunk as a row.
func encode(hash Hash, c *freshChunk) row {
	r := row{Hash: hash[:], Nodes: appendHashes(nil, c.nodes), Leaves: appendHashes(nil, c.leaves)}
	if c.searchable {
		r.Encoding = searchableBit
		if c.isText {
			plain := unescape(c.body)
			if spelling, ok := spellingOf(plain, c.body); ok {
				r.Encoding |= spelling
				r.Text = &plain
				return r
			}
			r.Text = new(storable(plain))
		} else if found := c.inlineStrings(); found != "" {
			r.Text = &found
		}
	}
	r.Body = c.body
	if len(c.body) >= smallBody {
		if small := compressor.EncodeAll(c.body, nil); len(small) < len(c.body) {
			r.Body = small
			r.Encoding |= zstdBody
		}
	}
	return r
}

// decode reads a chunk from its row, and compares it with its hash.
func (r *row) decode() (hash Hash, c *chunk, err error) {
	copy(hash[:], r.Hash)
	if len(r.Hash) != len(hash) {
		return hash, nil, &fault{hash, errDamaged}
	}
	c = &chunk{searchable: r.Encoding&searchableBit != 0}
	err = errors.Join(decodeHashes(r.Nodes, &c.nodes), decodeHashes(r.Leaves, &c.leaves))
	if err == nil {
		c.body, err = r.decodeBody()
	}
	if err != nil || c.hash() != hash {
		return hash, nil, &fault{hash, errDamaged}
	}
	return hash, c, nil
}

func decodeHashes(joined []byte, list *[]Hash) (err error) {
	*list, err = splitHashes(joined)
	return err
}

func (r *row) decodeBody() ([]byte, error) {
	form := r.Encoding &^ searchableBit
	switch {
	case form == rawBody:
		return r.Body, nil
	case form == zstdBody:
		return decompressor.DecodeAll(r.Body, nil)
	case r.Text != nil && (form == utf8Text || form == asciiText):
		return spell(*r.Text, form), nil
	}
	return nil, fmt.Errorf("encoding %d", r.Encoding)
}

// unescape returns the characters of a string as it is written. Lone surrogates become U+FFFD.
func unescape(written []byte) string {
	if bytes.IndexByte(written, '\\') < 0 {
		return string(written)
	}
	quoted := slices.Concat([]byte{'"'}, written, []byte{'"'})
	plain, _ := jsontext.AppendUnquote(nil, quoted)
	return string(plain)
}

// spellingOf returns the spelling in which the characters are written like this, if there is one.
func spellingOf(plain string, written []byte) (encoding, bool) {
	if len(plain) == len(written) {
		return utf8Text, true // no escapes
	}
	if strings.IndexByte(plain, 0) >= 0 {
		return 0, false // PostgreSQL's text cannot hold it
	}
	for _, spelling := range []encoding{utf8Text, asciiText} {
		if bytes.Equal(spell(plain, spelling), written) {
			return spelling, true
		}
	}
	return 0, false
}

const hexDigits = "0123456789abcdef"

// spell writes characters as most programs do: in utf8Text as JSON.stringify of ECMAScript, and in asciiText as json.dumps of
// Python, which escapes all that is not ASCII.
func spell(plain string, spelling encoding) []byte {
	written := make([]byte, 0, len(plain)+len(plain)/16)
	for pos := 0; pos < len(plain); {
		c := plain[pos]
		if c >= utf8.RuneSelf && spelling == asciiText {
			r, length := utf8.DecodeRuneInString(plain[pos:])
			written = appendEscape(written, r)
			pos += length
			continue
		}
		pos++
		switch {
		case c == '"' || c == '\\':
			written = append(written, '\\', c)
		case c >= ' ' && (c != 0x7f || spelling == utf8Text):
			written = append(written, c)
		default:
			written = appendControl(written, c)
		}
	}
	return written
}

func appendControl(written []byte, c byte) []byte {
	if at := strings.IndexByte("\b\t\n\f\r", c); at >= 0 {
		return append(written, '\\', "btnfr"[at])
	}
	return append(written, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}

// appendEscape writes \u and four digits, twice for what UTF-16 needs two of.
func appendEscape(written []byte, r rune) []byte {
	if r > 0xffff {
		r -= 0x10000
		written = appendEscape(written, 0xd800+r>>10)
		r = 0xdc00 + r&0x3ff
	}
	return append(written, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}

// storable leaves out what PostgreSQL's text cannot hold.
func storable(plain string) string { return strings.ReplaceAll(plain, "\x00", " ") }

// stringMark stands between the strings of a chunk in the column text. It is no part of a word.
const stringMark = "\x1f"

// inlineStrings returns the strings, each once, that stand in the body of the chunk itself; the names of members are none.
func (c *chunk) inlineStrings() string {
	parts, err := c.segments()
	if err != nil {
		return "" // never of what build made
	}
	var found []string
	for i, part := range parts {
		from := 0
		if i > 0 && parts[i-1].kind == text && part.kind == literal {
			from = 1 // the quote after a long string
		}
		found = appendStrings(found, part.bytes[min(from, len(part.bytes)):])
	}
	slices.Sort(found)
	return strings.Join(slices.Compact(found), stringMark)
}

// appendStrings appends the values of strings in a literal. A quote at its end opens a long string, which is not in it.
func appendStrings(found []string, written []byte) []string {
	for {
		start := bytes.IndexByte(written, '"')
		if start < 0 || start == len(written)-1 {
			return found
		}
		end := stringEnd(written, start)
		if isName := end < len(written) && written[end] == ':'; !isName && end-start > 2 {
			plain := storable(unescape(written[start+1 : end-1]))
			found = append(found, strings.ReplaceAll(plain, stringMark, " "))
		}
		written = written[end:]
	}
}
