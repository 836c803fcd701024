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
	rawBody      encoding = iota // column body
	zstdBody                     // column body, in a frame of zstd (RFC 8878)
	utf8Text                     // column text holds the characters of a string; the body has no escapes that are not needed
	asciiText                    // the same, where the body has \u and four digits for all that is not ASCII
	utf8Strings                  // column text holds the strings of a leaf, spelled as in utf8Text, and column body what is around them
	asciiStrings                 // the same, spelled as in asciiText
	formBits     = 7
)

const (
	searchableBit encoding = 8 << iota // the chunk is searchable
	packedBit                          // with the encodings of strings: column body is in a frame of zstd
	filledBit                          // column text ends with a mark and spaces that mean nothing
	maxEncoding   = filledBit<<1 - 1
)

// PostgreSQL compresses what a row holds if the row has more than fullRow bytes (TOAST_TUPLE_THRESHOLD, with pages of 8 KiB). A text
// of minFilled bytes or more, but fewer, is filled up with spaces, of which the compression leaves some 20 bytes.
const (
	minFilled = 512
	fullRow   = 2032
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
const smallBody = 128

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
		if r.writeText(c) {
			return r
		}
	}
	r.pack(c.body, zstdBody)
	return r
}

// writeText writes what search finds in a chunk, and reports whether the body can be made of it.
func (r *row) writeText(c *freshChunk) bool {
	if c.isText {
		plain := unescape(c.body)
		form, ok := spellingOf(plain, c.body)
		r.Encoding |= form
		r.fill(storable(plain))
		return ok
	}
	if c.isLeaf() {
		frame, plain := takeStrings(c.body)
		if form, ok := spellingOfStrings(frame, plain, c.body); ok {
			r.Encoding |= form
			r.fill(plain)
			r.pack(frame, packedBit)
			return true
		}
	}
	r.fill(c.inlineStrings())
	return false
}

// pack writes what becomes smaller by it in a frame of zstd.
func (r *row) pack(body []byte, ifPacked encoding) {
	r.Body = body
	if len(body) >= smallBody {
		if small := compressor.EncodeAll(body, nil); len(small) < len(body) {
			r.Body = small
			r.Encoding |= ifPacked
		}
	}
}

// fill writes a text so that PostgreSQL compresses it where that is worth it.
func (r *row) fill(plain string) {
	if room := fullRow - len(plain) - len(stringMark); len(plain) >= minFilled && room >= 0 {
		plain += stringMark + strings.Repeat(" ", room)
		r.Encoding |= filledBit
	}
	r.Text = &plain
}

// plainText is the text without what it is filled with.
func (r *row) plainText() (string, error) {
	if r.Encoding&filledBit == 0 {
		return *r.Text, nil
	}
	end := strings.LastIndex(*r.Text, stringMark)
	if end < 0 {
		return "", errMalformed
	}
	return (*r.Text)[:end], nil
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
	form := r.Encoding & formBits
	switch {
	case r.Encoding > maxEncoding:
	case form == rawBody:
		return r.Body, nil
	case form == zstdBody:
		return decompressor.DecodeAll(r.Body, nil)
	case r.Text != nil && form <= asciiStrings:
		plain, err := r.plainText()
		if err != nil || form < utf8Strings {
			return spell(nil, plain, form), err
		}
		frame := r.Body
		if r.Encoding&packedBit != 0 {
			if frame, err = decompressor.DecodeAll(r.Body, nil); err != nil {
				return nil, err
			}
		}
		return putStrings(frame, plain, form)
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
		if bytes.Equal(spell(nil, plain, spelling), written) {
			return spelling, true
		}
	}
	return 0, false
}

// spellingOfStrings returns how putStrings makes the body of what takeStrings took out of it, if it can.
func spellingOfStrings(frame []byte, plain string, body []byte) (encoding, bool) {
	if bytes.IndexByte(body, '\\') < 0 {
		return utf8Strings, true
	}
	if strings.IndexByte(plain, 0) >= 0 {
		return 0, false
	}
	for _, spelling := range []encoding{utf8Strings, asciiStrings} {
		if got, err := putStrings(frame, plain, spelling); err == nil && bytes.Equal(got, body) {
			return spelling, true
		}
	}
	return 0, false
}

const hexDigits = "0123456789abcdef"

// spell writes characters as most programs do: in utf8Text as JSON.stringify of ECMAScript, and in asciiText as json.dumps of
// Python, which escapes all that is not ASCII. It appends to written.
func spell(written []byte, plain string, spelling encoding) []byte {
	written = slices.Grow(written, len(plain)+len(plain)/16)
	asIs := &asIsInUTF8
	if spelling == asciiText {
		asIs = &asIsInASCII
	}
	for {
		end := 0
		for end < len(plain) && asIs[plain[end]] {
			end++
		}
		written = append(written, plain[:end]...)
		if end == len(plain) {
			return written
		}
		length := 1
		switch c := plain[end]; {
		case c == '"' || c == '\\':
			written = append(written, '\\', c)
		case c < utf8.RuneSelf:
			written = appendControl(written, c)
		default:
			var r rune
			r, length = utf8.DecodeRuneInString(plain[end:])
			written = appendEscape(written, r)
		}
		plain = plain[end+length:]
	}
}

// The bytes that stand for themselves in each spelling.
var asIsInUTF8, asIsInASCII = func() (inUTF8, inASCII [256]bool) {
	for c := range 256 {
		inUTF8[c] = c >= ' ' && c != '"' && c != '\\'
		inASCII[c] = inUTF8[c] && c < 0x7f
	}
	return inUTF8, inASCII
}()

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

// takeStrings takes the values that are strings out of the text of values, elements or members, so that they are empty there, and
// returns them plain, with marks between them. Names of members stay.
func takeStrings(body []byte) (frame []byte, plain string) {
	frame = make([]byte, 0, 256)
	found := make([]byte, 0, len(body))
	count := 0
	for {
		start := bytes.IndexByte(body, '"')
		if start < 0 {
			return append(frame, body...), string(found)
		}
		end := stringEnd(body, start)
		if end < len(body) && body[end] == ':' {
			frame = append(frame, body[:end]...)
		} else {
			frame = append(append(frame, body[:start]...), `""`...)
			if count++; count > 1 {
				found = append(found, stringMark...)
			}
			if value := body[start:end]; bytes.IndexByte(value, '\\') < 0 {
				found = append(found, value[1:len(value)-1]...)
			} else {
				found, _ = jsontext.AppendUnquote(found, value) // lone surrogates become U+FFFD
			}
		}
		body = body[end:]
	}
}

// putStrings is the reverse of takeStrings: it writes the strings where the empty ones stand.
func putStrings(frame []byte, plain string, spelling encoding) ([]byte, error) {
	body := make([]byte, 0, len(frame)+len(plain)+len(plain)/16)
	isOver := false
	for {
		start := bytes.IndexByte(frame, '"')
		if start < 0 {
			if !isOver && plain != "" {
				return nil, errMalformed
			}
			return append(body, frame...), nil
		}
		end := stringEnd(frame, start)
		body = append(body, frame[:start+1]...)
		if end == len(frame) || frame[end] != ':' {
			if isOver || end != start+2 {
				return nil, errMalformed
			}
			var next string
			var more bool
			next, plain, more = strings.Cut(plain, stringMark)
			isOver = !more
			body = spell(body, next, spelling-utf8Strings+utf8Text)
		}
		body = append(body, frame[start+1:end]...)
		frame = frame[end:]
	}
}

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
