package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

func TestMain(m *testing.M) { devtest.Main(m, nil) }

const document = "../../docs/asyncapi.json"

// checked is what the parser of the AsyncAPI initiative says of a document; see asyncapi/check.js.
type checked struct {
	Errors     []string        `json:"errors"`
	Operations []readOperation `json:"operations"`
}

// readOperation is an operation as the parser has read it.
type readOperation struct {
	Name          string   `json:"name"`
	Action        string   `json:"action"`
	Addresses     []string `json:"addresses"`
	Stream        string   `json:"stream"`
	Tenant        string   `json:"tenant"`
	Headers       []string `json:"headers"`
	Replies       []string `json:"replies"`
	ReplyLocation string   `json:"reply_location"`
}

// check has the parser read documents.
func check(t *testing.T, files ...string) []checked {
	t.Helper()
	args := []string{"check.js"}
	for _, file := range files {
		absolute, err := filepath.Abs(file)
		require.NoError(t, err)
		args = append(args, absolute)
	}
	var results []checked
	out := devtest.Node(t, devtest.NodeFolder(t, "asyncapi", "check.js"), nil, args...)
	require.NoError(t, json.Unmarshal([]byte(out), &results))
	require.Len(t, results, len(files))
	return results
}

// newWriter returns the writer of a new document.
func newWriter(t *testing.T) *asyncAPIWriter {
	t.Helper()
	reflector, err := newReflector("github.com/ai-cherry/morello/internal/generate", "../../messages")
	require.NoError(t, err)
	return &asyncAPIWriter{doc: newAsyncAPI(), reflector: reflector, goldens: "../../messages/testdata"}
}

// write writes the document of a writer, and returns the name of the file.
func write(t *testing.T, w *asyncAPIWriter) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "asyncapi.json")
	require.NoError(t, writeJSON(file, w.doc))
	return file
}

// TestDocument: the parser of the AsyncAPI initiative finds no fault in the document, and reads out of it the operations
// and events of the tables and nothing else; an operation of the operator has one subject and no parameter. It does find each
// fault of a document that is broken, so that none found means something.
func TestDocument(t *testing.T) {
	t.Parallel()
	files := []string{document}
	for _, fault := range faults {
		w := newWriter(t)
		require.NoError(t, w.add())
		fault.breakIt(w.doc)
		files = append(files, write(t, w))
	}
	results := check(t, files...)

	require.Empty(t, results[0].Errors)
	require.ElementsMatch(t, operationsOfTables(), results[0].Operations)
	for i, got := range results[1:] {
		require.Contains(t, strings.Join(got.Errors, "\n"), faults[i].message)
	}
}

// faults break a document, each in its way, with a part of what the parser says.
var faults = []struct {
	breakIt func(doc *asyncAPI)
	message string
}{
	{func(doc *asyncAPI) { delete(doc.Channels, "cache.get.reply") }, "channels/cache.get.reply"},
	{func(doc *asyncAPI) { delete(doc.Components.Schemas, "error") }, "components/schemas/error"},
	{func(doc *asyncAPI) { doc.Components.Schemas["cache.get.request"].Type = "objekt" }, "type"},
	{func(doc *asyncAPI) { doc.Operations["cache.get"].Reply.Address.Location = "reply" }, "location"},
	{func(doc *asyncAPI) {
		o := doc.Operations["cache.get"]
		o.Action = "answer"
		doc.Operations["cache.get"] = o
	}, "action"},
}

func operationsOfTables() []readOperation {
	var list []readOperation
	for _, e := range messages.Endpoints() {
		list = append(list, operationOf(e))
	}
	for _, e := range messages.Events() {
		o := readOperation{
			Name: e.Name + ".event", Action: "send", Addresses: []string{e.Subject("{tenant}")},
			Tenant: "^[a-z0-9][a-z0-9-]{0,62}$|^_admin$", Headers: []string{}, Replies: []string{},
		}
		if e.Kept {
			o.Stream, o.Headers = "MORELLO_EVENTS", []string{"Nats-Msg-Id"}
		}
		list = append(list, o)
	}
	return list
}

func operationOf(e messages.EndpointInfo) readOperation {
	o := readOperation{
		Name: e.Name, Action: "receive", Addresses: []string{e.Subject("{tenant}")}, Tenant: "^[a-z0-9][a-z0-9-]{0,62}$",
		Headers: []string{"Morello-Timeout-Ms", "Morello-Actor", "traceparent"},
		Replies: []string{e.Name + ".reply", "error"}, ReplyLocation: "$message.header#/reply",
	}
	if e.Mutates {
		o.Headers = append(o.Headers, "Idempotency-Key")
	}
	if e.Batched {
		o.Headers = append(o.Headers, "Morello-Batch")
	}
	if e.Name == "snapshot.verify" {
		o.Addresses, o.Tenant = []string{"morello.v1._admin.snapshot.verify"}, ""
	}
	if e.Capability() == "system" || e.Name == "audit.query" {
		o.Tenant += "|^_admin$"
	}
	if e.Name == "transfer.put" {
		o.Headers = append([]string{"Morello-Transfer", "Morello-Part"}, o.Headers...)
	}
	return o
}

// TestExamples: the examples, which the parser leaves alone, fit the schemas, read as draft 7, which is what AsyncAPI's own
// dialect is built on.
func TestExamples(t *testing.T) {
	t.Parallel()
	w := newWriter(t)
	require.NoError(t, w.add())
	for name, message := range w.doc.Components.Messages {
		schema := compile(t, w.doc.Components.Schemas[name])
		for _, example := range message.Examples {
			if message.ContentType == "application/octet-stream" { // its examples are of the headers
				require.Nil(t, example.Payload, name)
				require.NoError(t, compile(t, w.doc.Components.Schemas[name+".headers"]).Validate(decoded(t, example.Headers)), example.Name)
				continue
			}
			require.NoError(t, schema.Validate(decoded(t, example.Payload)), example.Name)
		}
	}
	require.Error(t, compile(t, w.doc.Components.Schemas["transfer.put.request.headers"]).Validate(decoded(t, []byte(`{"Morello-Part":"0"}`))))
	schema := compile(t, w.doc.Components.Schemas["cache.get.request"])
	require.Error(t, schema.Validate(decoded(t, []byte(`{"key":""}`))))
}

func compile(t *testing.T, schema any) *jsonschema.Schema {
	t.Helper()
	text, err := json.Marshal(schema)
	require.NoError(t, err)
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft7)
	require.NoError(t, compiler.AddResource("payload.json", decoded(t, text)))
	compiled, err := compiler.Compile("payload.json")
	require.NoError(t, err)
	return compiled
}

func decoded(t *testing.T, text []byte) any {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	return value
}

// TestCurrent: the document is what the tables make, each time anew.
func TestCurrent(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile(document)
	require.NoError(t, err)
	for range 2 {
		w := newWriter(t)
		require.NoError(t, w.add())
		got, err := os.ReadFile(write(t, w))
		require.NoError(t, err)
		require.Equal(t, string(want), string(got), "run make generate")
	}
}

// TestMissingExample: a message without a golden one is an error, not a message without examples.
func TestMissingExample(t *testing.T) {
	t.Parallel()
	w := newWriter(t)
	w.goldens = t.TempDir()
	require.ErrorIs(t, w.add(), os.ErrNotExist)
}
