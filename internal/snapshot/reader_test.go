package snapshot

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
)

// given to the reader: a document as it is stored.
type storedDocument struct {
	Root   []byte      `json:"root"`
	Bytes  int         `json:"bytes"`
	SHA256 []byte      `json:"sha256"`
	Rows   []storedRow `json:"rows"`
}

type storedRow struct {
	Hash     []byte   `json:"hash"`
	Encoding encoding `json:"encoding"`
	Nodes    []byte   `json:"nodes"`
	Leaves   []byte   `json:"leaves"`
	Body     []byte   `json:"body"`
	Text     *string  `json:"text"`
}

func rowsOf(document []byte) storedDocument {
	made := build(document, nothing)
	sum := sha256.Sum256(document)
	given := storedDocument{Root: made.root[:], Bytes: len(document), SHA256: sum[:]}
	for hash, c := range made.fresh {
		given.Rows = append(given.Rows, storedRow(encode(hash, c)))
	}
	return given
}

// TestSecondReader: docs/snapshot-format.md is all that a reader needs to know.
func TestSecondReader(t *testing.T) {
	t.Parallel()
	documents := []string{
		`null`, `1.0`, `""`, `[]`, `{}`, `"a"`, exampleDocument, string(conversation(100)), wide(5000),
		`"` + strings.Repeat(`\"quick\" f\u00f6x\n\/ \u0041\u00E9\u00e9 é 漢字 😀 \ud83d\ude00 \ud800 \udc00\u0000 `, 300) + `"`,
		`"` + strings.Repeat(`caf\u00e9 \u007f\u001f \ud83d\ude00 \b\f\r\t`, 300) + `"`, `"` + strings.Repeat("plain é 漢字 😀 \u2028 \x7f ", 300) + `"`,
		"[" + strings.Repeat("1.0,1e400,-0,", 20_000) + "0]", strings.Repeat("[", 512) + strings.Repeat("]", 512), strings.Repeat("7", 1<<20),
		strings.Repeat(`{"a":"`+strings.Repeat("x ", 50)+`","b":[`+strings.Repeat("1,", 300), 200) + "1" + strings.Repeat("]}", 200),
		`[{"na\"me:":"x: \"y\"","":"","é":"a","n":[1,"",{"deep":"\\"}],"said":"` + strings.Repeat("many words ", 60) + `"}]`,
		`[{"ascii":"` + strings.Repeat(`\u00e9\n`, 20) + `","` + strings.Repeat("name ", 40) + `":"b"}]`,
		`[{"neither":"` + strings.Repeat(`\u00E9\/\u001f`, 20) + `"}]`,
	}
	var given []storedDocument
	forms, flags := map[encoding]bool{}, encoding(0)
	for _, document := range documents {
		given = append(given, rowsOf([]byte(document)))
		for _, r := range given[len(given)-1].Rows {
			forms[r.Encoding&formBits] = true
			flags |= r.Encoding &^ formBits
		}
	}
	require.Len(t, forms, 6, "every encoding occurs")
	require.Equal(t, searchableBit|packedBit|filledBit, flags, "with every flag")
	damaged, incomplete, later := rowsOf([]byte(exampleDocument)), rowsOf([]byte(exampleDocument)), rowsOf([]byte(exampleDocument))
	damaged.Rows[0].Encoding ^= searchableBit
	incomplete.Rows = incomplete.Rows[:1]
	later.Rows[0].Encoding = 6
	given = append(given, damaged, incomplete, later)

	file := filepath.Join(t.TempDir(), "documents.json")
	text, err := json.Marshal(given)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, text, 0o600))
	var got []string
	require.NoError(t, json.Unmarshal([]byte(devtest.Node(t, devtest.NodeFolder(t, "reader", "reader.js"), nil, "reader.js", file)), &got))
	require.Len(t, got, len(given))
	for i, document := range documents {
		require.Equal(t, base64.StdEncoding.EncodeToString([]byte(document)), got[i], "%.100s", document)
	}
	require.Contains(t, got[len(documents)], "is damaged")
	require.Contains(t, got[len(documents)+1], "is missing")
	require.Contains(t, got[len(documents)+2], "later version")
}

const exampleDocument = `{"note":"My Design in this Book is not to explain the Properties of Light by Hypotheses, but to propose and prove them by ` +
	`Reason and Experiments:\nIn order to which I shall premise the following Definitions and Axioms. (Isaac Newton: Opticks, London 1704)","n":1.0}`

// TestExamplesOfTheFormat: the examples in docs/snapshot-format.md are what the code writes.
func TestExamplesOfTheFormat(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/snapshot-format.md")
	require.NoError(t, err)
	readable := strings.NewReplacer("\n", "⏎", stringMark, "␟")
	const small = `{"role":"user","content":"Say \"hi\""}`
	whole := build([]byte(small), nothing)
	require.Len(t, whole.hashes, 1)
	smallRow := encode(whole.root, whole.fresh[whole.root])

	made := build([]byte(exampleDocument), nothing)
	require.Len(t, made.hashes, 2)
	leaf, root := made.fresh[made.hashes[0]], made.fresh[made.root]
	leafRow, rootRow := encode(made.hashes[0], leaf), encode(made.root, root)
	require.NotNil(t, leafRow.Text)
	require.Nil(t, rootRow.Text)
	require.Equal(t, strings.ReplaceAll(*leafRow.Text, "\n", `\n`), string(leaf.body))
	for _, part := range []string{
		fmt.Sprintf("of %d bytes `%s`", len(small), small),
		fmt.Sprintf("hash     %s\nencoding %d\nbody     %s\ntext     %s\npreimage 01 00 00 %x\n",
			whole.root, smallRow.Encoding, smallRow.Body, readable.Replace(*smallRow.Text), small),
		"```json\n" + exampleDocument + "\n```",
		fmt.Sprintf("of %d bytes", len(exampleDocument)),
		fmt.Sprintf("hash     %s\nencoding %d\ntext     %s\npreimage 01 00 00 ", made.hashes[0], leafRow.Encoding, readable.Replace(*leafRow.Text)),
		fmt.Sprintf("hash     %s\nencoding %d\nleaves   %x\nbody     %x\npreimage 00 00 01 %x %x\n", made.root, rootRow.Encoding, rootRow.Leaves, rootRow.Body, rootRow.Leaves, root.body),
	} {
		require.Contains(t, string(page), part)
	}
	parts, err := root.segments()
	require.NoError(t, err)
	require.Len(t, parts, 3)
	require.EqualValues(t, 246, parts[1].size)
}
