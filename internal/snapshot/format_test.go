package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ai-cherry/morello/messages"
)

func nothing(Hash) bool { return false }

// knows returns what build asks of a document whose earlier state is t.
func (t *tree) knows() func(Hash) bool { return newBase("", slices.Clone(t.hashes)).has }

// stored builds a document, writes its chunks as rows, and reads them back.
func stored(t require.TestingT, document []byte) (*tree, chunks) {
	made := build(document, nothing)
	require.Len(t, made.fresh, len(made.hashes))
	read := chunks{}
	for _, hash := range made.hashes {
		p := made.fresh[hash]
		require.NotNil(t, p, "hashes and chunks are the same")
		require.Equal(t, hash, preimage(&p.chunk))
		r := encode(hash, p)
		got, c, err := r.decode()
		require.NoError(t, err)
		require.Equal(t, hash, got)
		requireChunk(t, &p.chunk, c)
		read[hash] = c
	}
	return made, read
}

// preimage hashes a chunk as docs/snapshot-format.md has it.
func preimage(c *chunk) (sum Hash) {
	digest := sha256.New()
	first := []byte{0}
	if c.searchable {
		first[0] = 1
	}
	digest.Write(first)
	for _, list := range [][]Hash{c.nodes, c.leaves} {
		digest.Write(binary.AppendUvarint(nil, uint64(len(list))))
		for _, hash := range list {
			digest.Write(hash[:])
		}
	}
	digest.Write(c.body)
	return Hash(digest.Sum(nil))
}

func requireChunk(t require.TestingT, want, got *chunk) {
	require.Equal(t, want.searchable, got.searchable)
	require.True(t, slices.Equal(want.nodes, got.nodes))
	require.True(t, slices.Equal(want.leaves, got.leaves))
	require.True(t, bytes.Equal(want.body, got.body))
}

// requireRoundTrip requires of a document all that must be true of any.
func requireRoundTrip(t require.TestingT, document []byte) *tree {
	made, read := stored(t, document)
	got, err := read.join(made.root, int64(len(document)))
	require.NoError(t, err)
	require.True(t, bytes.Equal(document, got), "want %.300s\ngot  %.300s", document, got)
	again := build(document, made.knows())
	require.Equal(t, made.root, again.root)
	require.Empty(t, again.fresh, "nothing changed")
	v := visitor{t: t, made: made, read: read, seen: map[Hash]bool{}}
	size, _ := v.visit(made.root, value)
	require.EqualValues(t, len(document), size)
	require.Len(t, v.seen, len(made.hashes), "every chunk is reached")
	return made
}

// visitor looks at every chunk of a tree.
type visitor struct {
	t    require.TestingT
	made *tree
	read chunks
	seen map[Hash]bool
}

// holes stand for references in what a chunk holds itself.
var holes = map[refKind]string{value: `null`, elements: `null`, members: `"a member":null`, text: "\U000F0000"}

// visit checks a chunk that is referred to as some kind, and returns what it stands for: bytes, and elements or members.
func (v *visitor) visit(hash Hash, kind refKind) (size int64, count int) {
	v.seen[hash] = true
	c := v.read[hash]
	parts, err := c.segments()
	require.NoError(v.t, err)
	var own strings.Builder
	for _, part := range parts {
		if part.kind == literal {
			own.Write(part.bytes)
			size += part.size
			continue
		}
		own.WriteString(holes[part.kind])
		partSize, partCount := v.visit(part.hash, part.kind)
		require.Equal(v.t, part.size, partSize)
		require.Equal(v.t, part.count, partCount)
		require.Equal(v.t, part.node, !v.read[part.hash].isLeaf())
		size += partSize
		if part.kind == kind { // a run of runs
			count += part.count - 1
		}
	}
	strs, items := itemsOf(v.t, own.String(), kind)
	p := v.made.fresh[hash]
	v.checkText(hash, p, strs)
	switch kind {
	case value:
		return size, 1
	case text:
		return size, 0
	}
	return size, count + items
}

// checkText compares what search finds in a chunk with the strings in it.
func (v *visitor) checkText(hash Hash, p *freshChunk, strs []string) {
	r := encode(hash, p)
	switch {
	case p.isText:
		require.LessOrEqual(v.t, len(p.body), maxText+1)
		if p.searchable {
			plain, err := jsontext.AppendUnquote(nil, slices.Concat([]byte(`"`), p.body, []byte(`"`)))
			if err == nil {
				require.Equal(v.t, strings.ReplaceAll(string(plain), "\x00", " "), plainText(v.t, &r))
			}
			require.True(v.t, utf8.ValidString(*r.Text))
		}
	case len(strs) == 0 || v.made.partiallyIndexed && !p.searchable:
		require.Nil(v.t, r.Text, "%q", p.body)
		require.False(v.t, p.searchable, "one name for what has no text")
	default:
		require.True(v.t, p.searchable)
		require.NotNil(v.t, r.Text)
		found := slices.DeleteFunc(strings.Split(plainText(v.t, &r), stringMark), func(s string) bool { return s == "" })
		slices.Sort(strs)
		slices.Sort(found)
		require.Equal(v.t, slices.Compact(strs), slices.Compact(found))
	}
}

func plainText(t require.TestingT, r *row) string {
	plain, err := r.plainText()
	require.NoError(t, err)
	return plain
}

// itemsOf reads what a chunk holds as JSON: its string values, without the empty and those with holes, and how many items there are.
func itemsOf(t require.TestingT, own string, kind refKind) (strs []string, items int) {
	switch kind {
	case elements:
		own = "[" + own + "]"
	case members:
		own = "{" + own + "}"
	case text:
		own = `"` + own + `"`
	}
	decoder := jsontext.NewDecoder(strings.NewReader(own), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	for {
		container, n := decoder.StackIndex(decoder.StackDepth())
		isName := container == '{' && n%2 == 0
		if decoder.StackDepth() == 1 && decoder.PeekKind() != ']' && decoder.PeekKind() != '}' && (container == '[' || isName) {
			items++
		}
		token, err := decoder.ReadToken()
		if errors.Is(err, io.EOF) {
			return strs, items
		}
		require.NoError(t, err, "%q", own)
		if plain := token.String(); token.Kind() == '"' && !isName && plain != "" && !strings.Contains(plain, holes[text]) && kind != text {
			strs = append(strs, strings.NewReplacer("\x00", " ", stringMark, " ").Replace(plain))
		}
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	numbers := "[0" + strings.Repeat(",1.0,1e400,-0,12345678901234567890123456789,1E+2", 2000) + "]"
	words := strings.Repeat(`The \"quick\" brown f\u00f6x\n\/ \u0041\u00E9\u00e9 é 漢字 😀 \ud83d\ude00 \ud800 \udc00\u0000 `, 200)
	for name, document := range map[string]string{
		"number": `1.0`, "null": `null`, "empty string": `""`, "string": `"a"`, "empty array": `[]`, "empty object": `{}`,
		"long string": `"` + words + `"`, "plain long string": `"` + strings.Repeat("one two three ", 5000) + `"`,
		"no white space": `"` + strings.Repeat("abcdefghij", 5000) + `"`, "ideographs": `"` + strings.Repeat("漢字仮名", 5000) + `"`,
		"only escapes": `"` + strings.Repeat(`\\`, 20000) + `"`, "only pairs": `"` + strings.Repeat(`\ud83d\ude00`, 3000) + `"`,
		"only quotes": `"` + strings.Repeat(`\"`, 20000) + `"`, "only NUL": `"` + strings.Repeat(`\u0000`, 3000) + `"`,
		"DEL": `"` + strings.Repeat(`\u007f`, 100) + `"`, "python": `"` + strings.Repeat(`caf\u00e9 \u007f \ud83d\ude00 `, 300) + `"`,
		"numbers": numbers, "ones": "[1" + strings.Repeat(",1", 50_000) + "]", "lists of nothing": "[[]" + strings.Repeat(",[],{}", 5000) + "]",
		"strings of nothing": `[""` + strings.Repeat(`,""`, 5000) + "]", "text twice": `["` + words + `","` + words + `"]`,
		"text and numbers alike": `["` + strings.Repeat("1,2,", 400) + `1",[` + strings.Repeat("1,2,", 400) + "1]]",
		"deep arrays":            strings.Repeat("[", 512) + strings.Repeat("]", 512),
		"deep objects":           strings.Repeat(`{"a":[1,"b",`, 256) + "1" + strings.Repeat("]}", 256),
		"deep and wide":          strings.Repeat(`{"a":"`+strings.Repeat("x ", 50)+`","b":[`+strings.Repeat("1,", 300), 200) + "1" + strings.Repeat("]}", 200),
		"wide":                   wide(20_000), "order": `{"b":1,"a":2,"c":{"z":1,"y":2}}`, "names with escapes": `{"\u0061\"":"\"","":"","\\":"\\"}`,
		"long name": `{"` + strings.Repeat("n", 3<<20) + `":"v","b":"` + strings.Repeat("n", 3000) + `"}`, "long number": strings.Repeat("7", 3<<20),
		"conversation": string(conversation(400)), "marks": `["a\u001fb","\u001f","c"]`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			read, err := messages.ReadDocument("data", []byte(document))
			require.NoError(t, err)
			require.Equal(t, document, string(read), "the test is about documents without white space")
			requireRoundTrip(t, read)
		})
	}
}

func wide(members int) string {
	var b strings.Builder
	b.WriteString(`{"a":0`)
	for i := range members {
		fmt.Fprintf(&b, `,"member %d":{"n":%d,"s":"value %d"}`, i, i*i, i)
	}
	return b.String() + "}"
}

// conversation is one of messages of about 1.2 KB each.
func conversation(count int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"agent":"planner","messages":[`)
	for i := range count {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(message(i))
	}
	b.WriteString(`],"state":{"step":` + strconv.Itoa(count) + `,"done":false}}`)
	return b.Bytes()
}

func message(i int) []byte {
	r := rand.New(rand.NewPCG(uint64(i), 7))
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"id":"msg-%08d","role":%q,"content":"`, i, []string{"user", "assistant"}[i%2])
	for b.Len() < 1150 {
		for range 2 + r.IntN(8) {
			b.WriteByte("etaoinshrdlu"[r.IntN(12)])
		}
		b.WriteString([]string{" ", " ", " ", ", ", `.\n`}[r.IntN(5)])
	}
	fmt.Fprintf(&b, `","at":"2026-11-23T22:%02d:%02dZ","tokens":%d}`, i/60%60, i%60, r.IntN(1000))
	return b.Bytes()
}

// jsonText generates documents without white space, in which everything that JSON allows may occur.
func jsonText(t *rapid.T, depth int) string {
	kinds := 9
	if depth == 0 {
		kinds = 5
	}
	switch rapid.IntRange(0, kinds).Draw(t, "kind") {
	case 0, 1:
		return rapid.SampledFrom([]string{"null", "true", "false", "0", "-0", "1.0", "1e400", "1E-7", "12345678901234567890123", "0.10"}).Draw(t, "scalar")
	case 2:
		return strconv.FormatInt(rapid.Int64().Draw(t, "number"), 10)
	case 3, 4:
		return `"` + characters(t, 12) + `"`
	case 5:
		return `"` + strings.Repeat(characters(t, 30), rapid.IntRange(1, 400).Draw(t, "times")) + `"`
	case 6, 7:
		var list []string
		for range rapid.IntRange(0, 8).Draw(t, "elements") {
			list = append(list, jsonText(t, depth-1))
		}
		times := rapid.SampledFrom([]int{1, 1, 1, 2, 50, 300}).Draw(t, "times")
		joined := strings.Join(list, ",")
		if joined != "" && len(joined) < 20_000/times { // how large a document becomes is not left to chance
			joined += strings.Repeat(","+joined, times-1)
		}
		return "[" + joined + "]"
	default:
		var list []string
		for i := range rapid.IntRange(0, 8).Draw(t, "members") {
			list = append(list, fmt.Sprintf(`"%d%s":%s`, i, characters(t, 5), jsonText(t, depth-1)))
		}
		return "{" + strings.Join(list, ",") + "}"
	}
}

// characters are as they are written between quotes. A lone surrogate at the end is followed by something.
func characters(t *rapid.T, limit int) string {
	return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{
		"a", "word ", " ", "é", "漢", "😀", `\"`, `\\`, `\/`, `\b`, `\f`, `\n`, `\r`, `\t`, `\u0041`, `\u00e9`, `\u00E9`, `\u001f`, `\u007f`, "\x7f",
		`\ud83d\ude00`, `\uD83D\uDE00`, `\u2028`, `{`, `[`, `:`, `,`, "z",
	}), 0, limit).Draw(t, "characters"), "")
}

// TestRoundTripOfRandomDocuments: and a change of one costs no more than what it changes.
func TestRoundTripOfRandomDocuments(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		document := jsonText(t, 5)
		requireRoundTrip(t, []byte(document))
		surrogates := `["` + rapid.SampledFrom([]string{`\ud800`, `\udfff\ud800`, `\u0000`, `\ud800\u0041`}).Draw(t, "odd") + `",` + document + `]`
		requireRoundTrip(t, []byte(surrogates))
	})
}

// FuzzRoundTrip takes any bytes that are a document, and lists of it that are long enough to be cut.
func FuzzRoundTrip(f *testing.F) {
	for _, seed := range []string{
		`null`, `{"a":[1.0,"b\u0000",{"c":1e400}],"":""}`, `"` + strings.Repeat(`x\ud800 `, 30) + `"`, `[[[[]]]]`, `"\\\\\""`, "[\"\x7f\",\"\\u007f\"]",
		`{"a":"` + strings.Repeat("word ", 20) + `"}`,
	} {
		f.Add([]byte(seed), uint8(0))
		f.Add([]byte(seed), uint8(200))
	}
	f.Fuzz(func(t *testing.T, data []byte, times uint8) {
		document, err := messages.ReadDocument("data", bytes.Clone(data))
		if err != nil {
			return
		}
		requireRoundTrip(t, document)
		if times > 0 {
			list := strings.Repeat(string(document)+",", int(times)) + string(document)
			requireRoundTrip(t, []byte("["+list+"]"))
		}
		if document[0] == '"' {
			requireRoundTrip(t, slices.Concat([]byte{'"'}, bytes.Repeat(document[1:len(document)-1], int(times)*20), []byte{'"'}))
		}
	})
}

// FuzzSegments: a body that is not ours is malformed, or is taken apart within its bounds.
func FuzzSegments(f *testing.F) {
	f.Add([]byte("\x90\x01{\"note\":\"\x04\x4f\xa0\x01\",\"n\":1.0}"))
	f.Add([]byte("\x1a\x05\x10,\x14\x05"))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Add([]byte("\x10"))
	f.Fuzz(func(t *testing.T, body []byte) {
		for children := range 3 {
			c := chunk{nodes: make([]Hash, children), leaves: make([]Hash, 1), body: body}
			parts, err := c.segments()
			if err != nil {
				require.ErrorIs(t, err, errMalformed)
				continue
			}
			length, refs := 0, 0
			for _, part := range parts {
				length += len(part.bytes)
				if part.kind != literal {
					refs++
				}
			}
			require.Less(t, length, len(body))
			require.Equal(t, children+1, refs)
		}
	})
}

// TestChangesCostLittle: however long a list or a string is, a change costs the chunks near it and those above.
func TestChangesCostLittle(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	list := func(n int, item func(i int) string) []string {
		items := make([]string, n)
		for i := range items {
			items[i] = item(i)
		}
		return items
	}
	for name, item := range map[string]func(i int) string{
		"messages":      func(i int) string { return string(message(i)) },
		"whole numbers": func(i int) string { return strconv.Itoa(r.IntN(1_000_000)) },
		"digits":        func(int) string { return strconv.Itoa(r.IntN(10)) },
		"booleans":      func(int) string { return strconv.FormatBool(r.IntN(2) == 0) },
		"vectors":       func(int) string { return strconv.FormatFloat(r.Float64()*2-1, 'g', -1, 64) },
		"words":         func(int) string { return fmt.Sprintf("%q", []string{"yes", "no", "perhaps"}[r.IntN(3)]) },
		"small objects": func(i int) string { return fmt.Sprintf(`{"id":%d,"v":%d}`, i, r.IntN(5)) },
		"alike":         func(int) string { return "1" },
	} {
		for _, n := range []int{300, 3_000, 10_000} {
			if name == "messages" {
				n /= 10
			}
			items := list(n, item)
			whole := func(items []string) []byte { return []byte("[" + strings.Join(items, ",") + "]") }
			before := whole(items)
			known := build(before, nothing).knows()
			fresh := func(items []string) int { return len(build(whole(items), known).fresh) }
			worst := map[string]int{}
			for range 7 {
				at := r.IntN(n)
				changed, inserted, removed := slices.Clone(items), slices.Clone(items), slices.Clone(items)
				changed[at] = `"changed"`
				inserted = slices.Insert(inserted, at, `"inserted"`)
				removed = slices.Delete(removed, at, at+1)
				worst["change"] = max(worst["change"], fresh(changed))
				worst["insertion"] = max(worst["insertion"], fresh(inserted))
				worst["removal"] = max(worst["removal"], fresh(removed))
				worst["append"] = max(worst["append"], fresh(append(slices.Clone(items), list(1+r.IntN(3), item)...)))
			}
			t.Logf("%s %d: %v", name, n, worst)
			require.LessOrEqual(t, worst["append"], 8, "%s %d", name, n)
			for _, what := range []string{"change", "insertion", "removal"} {
				require.LessOrEqual(t, worst[what], 24, "%s of %s %d", what, name, n)
			}
		}
	}
}

// TestConversationGrowsByAFewChunks: a message is one leaf, whose row has its text once. With it comes the chunk that holds the end of the
// list, and now and then a run that is full.
func TestConversationGrowsByAFewChunks(t *testing.T) {
	t.Parallel()
	const first, last = 100, 300
	known := build(conversation(first), nothing)
	var leaves, nodes int
	for n := first + 1; n <= last; n++ {
		made := build(conversation(n), known.knows())
		for hash, c := range made.fresh {
			if !c.isLeaf() {
				nodes++
				continue
			}
			leaves++
			r := encode(hash, c)
			require.Equal(t, utf8Strings|searchableBit|filledBit, r.Encoding)
			require.Less(t, len(r.Body), 100, "%s", r.Body)
		}
		known = made
	}
	require.Equal(t, last-first, leaves)
	require.Less(t, nodes, (last-first)*14/10)
}

// TestChangesOfTextCostLittle is the same for long strings.
func TestChangesOfTextCostLittle(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for name, next := range map[string]func() string{
		"words":     func() string { return string("etaoinshrdlu"[r.IntN(12)]) + strings.Repeat(" ", r.IntN(5)/4) },
		"base64":    func() string { return string(rune('A' + r.IntN(26))) },
		"漢字":        func() string { return string(rune(0x4e00 + r.IntN(3000))) },
		"escapes":   func() string { return fmt.Sprintf(`\u%04x`, 0x400+r.IntN(256)) },
		"pairs":     func() string { return fmt.Sprintf(`\ud83d\ude%02x`, r.IntN(64)) },
		"lines":     func() string { return strings.Repeat(string(rune('a'+r.IntN(26))), 30) + `\n` },
		"one space": func() string { return strings.Repeat("x", 200) + string(rune('A'+r.IntN(26))) },
	} {
		for _, size := range []int{10_000, 100_000, 500_000} {
			var parts []string
			for total := 0; total < size; total += len(parts[len(parts)-1]) {
				parts = append(parts, next())
			}
			whole := func(parts ...string) []byte { return []byte(`{"text":"` + strings.Join(parts, "") + `"}`) }
			known := build(whole(parts...), nothing).knows()
			fresh := func(parts []string) int { return len(build(whole(parts...), known).fresh) }
			worst := map[string]int{}
			for range 5 {
				at := r.IntN(len(parts))
				worst["insertion"] = max(worst["insertion"], fresh(slices.Insert(slices.Clone(parts), at, "Inserted")))
				worst["removal"] = max(worst["removal"], fresh(slices.Delete(slices.Clone(parts), at, at+1)))
				worst["append"] = max(worst["append"], fresh(append(slices.Clone(parts), next(), next())))
			}
			t.Logf("%s %d: %v", name, size, worst)
			require.LessOrEqual(t, worst["append"], 8, "%s %d", name, size)
			require.LessOrEqual(t, worst["insertion"], 16, "%s %d", name, size)
			require.LessOrEqual(t, worst["removal"], 16, "%s %d", name, size)
		}
	}
}

// TestCutText: the parts of a string are strings, of the sizes that they should have, and none ends within a character.
func TestCutText(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		written := strings.Repeat(characters(t, 40), rapid.IntRange(0, 500).Draw(t, "times"))
		whole, err := jsontext.AppendUnquote(nil, []byte(`"`+written+`"`))
		require.NoError(t, err)
		var plain []byte
		for rest := written; rest != ""; {
			length := cutText([]byte(rest))
			if length < len(rest) {
				require.GreaterOrEqual(t, length, minText)
			}
			require.LessOrEqual(t, length, maxText+1)
			plain, err = jsontext.AppendUnquote(plain, []byte(`"`+rest[:length]+`"`))
			require.NoError(t, err)
			rest = rest[length:]
		}
		require.Equal(t, string(whole), string(plain))
	})
}

// TestChunkSizes: what is cut is cut into chunks of about a KiB.
func TestChunkSizes(t *testing.T) {
	t.Parallel()
	for name, document := range map[string][]byte{
		"conversation": conversation(2000), "ones": []byte("[1" + strings.Repeat(",1", 500_000) + "]"), "wide": []byte(wide(30_000)),
		"text": []byte(`"` + strings.Repeat("lorem ipsum dolor ", 60_000) + `"`),
	} {
		made := build(document, nothing)
		largest, total := 0, 0
		for _, c := range made.fresh {
			largest, total = max(largest, len(c.body)), total+len(c.body)
		}
		t.Logf("%s: %d bytes, %d chunks, largest %d, mean %d", name, len(document), len(made.fresh), largest, total/len(made.fresh))
		require.LessOrEqual(t, largest, max(maxText+1, maxRun+inlineValue+64), name)
	}
}

// TestIndexedText: a document of more text than search finds says so; numbers, names and what is repeated do not count.
func TestIndexedText(t *testing.T) {
	t.Parallel()
	long := func(seed int) string {
		var b strings.Builder
		for i := range 5 << 16 {
			fmt.Fprintf(&b, "word%06d%d ", i, seed)
		}
		return b.String()[:3<<20]
	}
	a, b := long(1), long(2)
	requireRoundTrip(t, []byte(`["`+a+`","`+a+`","`+a+`"]`))
	require.False(t, build([]byte(`["`+a+`","`+a+`"]`), nothing).partiallyIndexed)
	require.False(t, build([]byte("[1"+strings.Repeat(",1234567", 1<<20)+"]"), nothing).partiallyIndexed)
	made := requireRoundTrip(t, []byte(`["`+a+`","`+b+`","`+a+`"]`))
	require.True(t, made.partiallyIndexed)
	indexed := 0
	for hash, c := range made.fresh {
		if r := encode(hash, c); r.Text != nil {
			indexed += len(plainText(t, &r))
		}
	}
	require.LessOrEqual(t, indexed, maxIndexed)
	require.Greater(t, indexed, maxIndexed-maxText)
}

// TestTextAndNumbersAlike: the characters of a string may be the elements of an array elsewhere; search finds them all the same.
func TestTextAndNumbersAlike(t *testing.T) {
	t.Parallel()
	numbers := []byte(`{"n":[` + strings.Repeat("1,2,3,", 300) + `4]}`)
	known := build(numbers, nothing)
	for _, c := range known.fresh {
		if !c.isLeaf() {
			continue
		}
		again := build([]byte(`{"s":"`+string(c.body)+`"}`), known.knows())
		found := ""
		for hash, c := range again.fresh {
			if r := encode(hash, c); r.Text != nil {
				found += plainText(t, &r)
			}
		}
		require.Equal(t, string(c.body), found)
	}
}

// TestDamageIsFound: a row of which a bit has changed is not read, or reads as the same chunk.
func TestDamageIsFound(t *testing.T) {
	t.Parallel()
	document := []byte(`{"plain":"` + strings.Repeat("one two ", 20) + `","python":"` + strings.Repeat(`\u00e9\n `, 20) + `","odd":"` +
		strings.Repeat(`\/ `, 60) + `","list":[` + strings.Repeat(`1,2.50,"x",`, 300) + `0],"` + strings.Repeat("n", 60) + `":true}`)
	made := build(document, nothing)
	for _, more := range []string{
		`{"small":[1,2]}`, `{"small":["too","small"]}`, `[{"odd":"` + strings.Repeat(`\/ `, 60) + `"}]`, `[{"said":"` + strings.Repeat("one two ", 70) + `"}]`,
		`[{"said":"` + strings.Repeat(`\u00e9\n `, 20) + `","numbers":[` + strings.Repeat(`"",[7],`, 30) + `0]}]`,
	} {
		maps.Copy(made.fresh, build([]byte(more), nothing).fresh)
	}
	forms, flags := map[encoding]bool{}, encoding(0)
	for hash, p := range made.fresh {
		r := encode(hash, p)
		form := r.Encoding & formBits
		forms[form] = true
		flags |= r.Encoding &^ formBits
		for i := range r.Hash {
			requireDamage(t, p, r, func(r *row) { r.Hash = flip(r.Hash, i, 0) }, false)
		}
		for i := range 8 * len(r.Body) {
			requireDamage(t, p, r, func(r *row) { r.Body = flip(r.Body, i/8, i%8) }, form == zstdBody || r.Encoding&packedBit != 0)
		}
		for i := range 8 * len(r.Nodes) {
			requireDamage(t, p, r, func(r *row) { r.Nodes = flip(r.Nodes, i/8, i%8) }, false)
		}
		for i := range 8 * len(r.Leaves) {
			requireDamage(t, p, r, func(r *row) { r.Leaves = flip(r.Leaves, i/8, i%8) }, false)
		}
		if form > zstdBody {
			plain := plainText(t, &r)
			for i := range 8 * len(*r.Text) {
				requireDamage(t, p, r, func(r *row) { r.Text = new(string(flip([]byte(*r.Text), i/8, i%8))) }, i/8 > len(plain))
			}
			requireDamage(t, p, r, func(r *row) { r.Text = nil }, false)
		}
		for i := range 1 << 16 {
			requireDamage(t, p, r, func(r *row) { r.Encoding ^= encoding(i) }, true)
		}
		requireDamage(t, p, r, func(r *row) { r.Hash = append(slices.Clone(r.Hash), 0) }, false)
		requireDamage(t, p, r, func(r *row) { r.Nodes = append(slices.Clone(r.Nodes), 0) }, false)
	}
	require.Len(t, forms, 6, "every encoding occurs")
	require.Equal(t, searchableBit|packedBit|filledBit, flags, "with every flag")
}

func flip(data []byte, at, bit int) []byte {
	data = slices.Clone(data)
	data[at] ^= 1 << bit
	return data
}

// requireDamage damages a row; if harmless it may still read as the same chunk.
func requireDamage(t *testing.T, p *freshChunk, r row, damage func(r *row), harmless bool) {
	t.Helper()
	damage(&r)
	_, c, err := r.decode()
	if harmless && err == nil {
		requireChunk(t, &p.chunk, c)
		return
	}
	var found *fault
	require.ErrorAs(t, err, &found)
	require.Equal(t, errDamaged, found.why)
}

// TestMemory: cutting a document takes less than three times its size, in all, though it may hold millions of values. It does not run in
// parallel, since it counts what the process allocates.
func TestMemory(t *testing.T) {
	const size = 4 << 20
	for name, item := range map[string]string{
		"ones": `1,`, "small objects": `{"id":1234567,"v":0.25},`, "empty arrays": `[],`, "short strings": `"word",`, "nested": `[[[[1]]]],`,
		"texts": `"` + strings.Repeat("words and ", 9) + `",`,
	} {
		var b strings.Builder
		b.WriteByte('[')
		for i := 0; b.Len() < size; i++ {
			b.WriteString(item)
			if i%7 == 0 {
				b.WriteString(strconv.Itoa(i) + ",")
			}
		}
		document := []byte(b.String() + "0]")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		made := build(document, nothing)
		runtime.ReadMemStats(&after)
		used := after.TotalAlloc - before.TotalAlloc
		t.Logf("%s: %d chunks, %.2f times the document", name, len(made.hashes), float64(used)/size)
		require.Less(t, used, uint64(3*size), name)
	}
}

func BenchmarkBuild(b *testing.B) {
	numbers := []byte("[" + strings.Repeat("1,", 4<<20) + "1]")
	for name, document := range map[string][]byte{
		"conversation": conversation(400), "numbers": numbers, "wide": []byte(wide(100_000)),
		"text": []byte(`"` + strings.Repeat("lorem ipsum dolor ", 60_000) + `"`),
	} {
		known := build(document, nothing).knows()
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(document)))
			b.ReportAllocs()
			for b.Loop() {
				build(document, known)
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	document := conversation(400)
	made := build(document, nothing)
	b.Run("encode", func(b *testing.B) {
		b.SetBytes(int64(len(document)))
		b.ReportAllocs()
		for b.Loop() {
			for hash, c := range made.fresh {
				encode(hash, c)
			}
		}
	})
	var rows []row
	for hash, c := range made.fresh {
		rows = append(rows, encode(hash, c))
	}
	b.Run("decode and join", func(b *testing.B) {
		b.SetBytes(int64(len(document)))
		b.ReportAllocs()
		for b.Loop() {
			read := chunks{}
			for i := range rows {
				hash, c, _ := rows[i].decode()
				read[hash] = c
			}
			if _, err := read.join(made.root, int64(len(document))); err != nil {
				b.Fatal(err)
			}
		}
	})
}
