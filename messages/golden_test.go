package messages_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/messages"
)

// golden is a message of the contract with its files: <name>.json and, for what excludes each other, <name>.<variant>.json.
type golden struct {
	name   string
	typ    reflect.Type
	decode func(body []byte, message any) error
	schema string
}

func goldens() []golden {
	list := []golden{{name: "error", typ: reflect.TypeFor[messages.ErrorReply](), decode: messages.DecodeReply}}
	for _, e := range messages.Endpoints() {
		list = append(list,
			golden{e.Name + ".request", e.Request, messages.Decode, messages.RequestSchema(e.Name)},
			golden{e.Name + ".reply", e.Reply, messages.DecodeReply, messages.ReplySchema(e.Name)})
	}
	for _, e := range messages.Events() {
		list = append(list, golden{name: e.Name + ".event", typ: e.Body, decode: messages.DecodeReply})
	}
	return list
}

func (g golden) files(t *testing.T) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for _, pattern := range []string{g.name + ".json", g.name + ".*.json"} {
		names, err := filepath.Glob(filepath.Join("testdata", pattern))
		require.NoError(t, err)
		for _, name := range names {
			text, err := os.ReadFile(name)
			require.NoError(t, err)
			files[filepath.Base(name)] = text
		}
	}
	require.Contains(t, files, g.name+".json")
	return files
}

// nothingRequired are the messages whose fields are all optional.
var nothingRequired = []string{
	"cache.keys.request", "cache.clear.request", "cache.info.request",
	"agent.get.request", "agent.list.request", "workflow.get.request", "workflow.list.request", "audit.query.request",
	"session.create.request", "session.list.request",
	"system.job_list.request",
	"snapshot.list.request", "snapshot.stats.request", "snapshot.cleanup.request", "snapshot.restore.request", "snapshot.verify.request",
	"session.active_count.request", "session.cleanup_inactive.request", "session.analytics.request",
}

// TestGoldens: every message reads as its type, and is written as the same text.
func TestGoldens(t *testing.T) {
	t.Parallel()
	for _, g := range goldens() {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			shown := map[string]bool{}
			for file, text := range g.files(t) {
				message := reflect.New(g.typ)
				require.NoError(t, g.decode(text, message.Interface()), file)
				if messages.IsRaw(g.typ) {
					message = g.overTheWire(t, message.Elem().Interface().(messages.Raw))
				}
				if request, ok := message.Interface().(interface{ Validate() error }); ok {
					require.NoError(t, request.Validate(), file)
				}
				encoded, err := messages.Encode(message.Elem().Interface())
				require.NoError(t, err, file)
				require.Equal(t, string(stripWhiteSpace(text)), string(encoded), file)
				noteFields(g.typ.Name(), message.Elem(), shown)
			}
			for field, isShown := range shown {
				require.True(t, isShown, "no golden of %s shows %s", g.name, field)
			}
		})
	}
}

// overTheWire returns what arrives of a raw message, with some bytes as its body.
func (g golden) overTheWire(t *testing.T, sent messages.Raw) (arrived reflect.Value) {
	t.Helper()
	unpack := messages.UnpackReply
	if strings.HasSuffix(g.name, ".request") {
		unpack = messages.UnpackRequest
	}
	_, headers, err := messages.Pack(sent)
	require.NoError(t, err)
	arrived = reflect.New(g.typ)
	require.NoError(t, unpack([]byte("\x00\xff"), func(name string) string { return headers[name] }, arrived.Interface()))
	raw := arrived.Elem().Interface().(messages.Raw)
	require.Equal(t, "\x00\xff", string(raw.RawBody()))
	require.Equal(t, headers, raw.RawHeaders())
	return arrived
}

// TestRequestsAreValidated: TestGoldens validates what has a Validate, so every request type must.
func TestRequestsAreValidated(t *testing.T) {
	t.Parallel()
	for _, e := range messages.Endpoints() {
		require.Implements(t, (*interface{ Validate() error })(nil), reflect.Zero(e.Request).Interface(), e.Name)
	}
}

// noteFields notes for every field below a value whether it has been seen with a value other than its zero.
func noteFields(path string, value reflect.Value, shown map[string]bool) {
	switch {
	case value.Kind() == reflect.Pointer && !value.IsNil():
		noteFields(path, value.Elem(), shown)
	case value.Kind() == reflect.Slice && value.Type().Elem().Kind() != reflect.Uint8:
		for i := range value.Len() {
			noteFields(path+"[]", value.Index(i), shown)
		}
	case value.Kind() == reflect.Map:
		for _, key := range value.MapKeys() {
			noteFields(path+"{}", value.MapIndex(key), shown)
		}
	case value.Kind() == reflect.Struct:
		for field := range value.Type().Fields() {
			if !field.IsExported() || field.Tag.Get("json") == "-" { // the bytes of a raw message
				continue
			}
			name, part := path+"."+field.Name, value.FieldByIndex(field.Index)
			shown[name] = shown[name] || !part.IsZero()
			noteFields(name, part, shown)
		}
	}
}

func TestNoteFieldsFindsWhatIsMissing(t *testing.T) {
	t.Parallel()
	shown := map[string]bool{}
	noteFields("m", reflect.ValueOf(messages.CacheSetMany{Entries: []messages.CacheSetEntry{{Key: "k"}, {Tags: []string{"t"}}}}), shown)
	require.Equal(t, map[string]bool{
		"m.Entries": true, "m.TTLSeconds": false, "m.Tags": false,
		"m.Entries[].Key": true, "m.Entries[].Value": false, "m.Entries[].TTLSeconds": false, "m.Entries[].NoExpiry": false, "m.NoExpiry": false, "m.Entries[].Tags": true,
	}, shown)
}

func TestEveryGoldenHasItsMessage(t *testing.T) {
	t.Parallel()
	var wanted, found []string
	for _, g := range goldens() {
		wanted = slices.AppendSeq(wanted, maps.Keys(g.files(t)))
	}
	names, err := filepath.Glob("testdata/*.json")
	require.NoError(t, err)
	for _, name := range names {
		found = append(found, filepath.Base(name))
	}
	require.ElementsMatch(t, wanted, found)
}

// TestSchemas: every request and reply has a JSON Schema that accepts its goldens, and no other is left over.
func TestSchemas(t *testing.T) {
	t.Parallel()
	var wanted, found []string
	for _, g := range goldens() {
		kind := g.name[strings.LastIndexByte(g.name, '.')+1:]
		if kind != "request" && kind != "reply" {
			continue
		}
		wanted = append(wanted, g.name+".json")
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			schema := compileSchema(t, g.schema)
			for file, text := range g.files(t) {
				require.NoError(t, schema.Validate(parse(t, string(text))), file)
			}
			unknown := parse(t, string(g.files(t)[g.name+".json"])).(map[string]any)
			unknown["unknown"] = true
			require.Equal(t, kind == "request" && !messages.IsRaw(g.typ), schema.Validate(unknown) != nil, "requests are strict, replies may grow")
			if !slices.Contains(nothingRequired, g.name) {
				require.Error(t, schema.Validate(map[string]any{}), "every message has a field that it must have")
			}
		})
	}
	files, err := filepath.Glob("schemas/*.json")
	require.NoError(t, err)
	for _, file := range files {
		found = append(found, filepath.Base(file))
	}
	require.ElementsMatch(t, wanted, found)
	require.Empty(t, messages.RequestSchema("cache.fetch"))
}

// TestSchemasRefuse: the schemas know the limits that JSON Schema can express. Lengths they count in characters, not bytes.
func TestSchemasRefuse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ endpoint, request string }{
		{"cache.get", `{"key":""}`},
		{"cache.get", fmt.Sprintf(`{"key":%q}`, strings.Repeat("k", 513))},
		{"cache.set", `{"key":"k"}`},
		{"cache.set", `{"key":"k","value":1,"ttl_seconds":0}`},
		{"cache.set", `{"key":"k","value":1,"ttl_seconds":315360001}`},
		{"cache.set", `{"key":"k","value":1,"if_version":-1}`},
		{"cache.set", `{"key":"k","value":1,"if_version":1.5}`},
		{"cache.set", `{"key":"k","value":1,"tags":"t"}`},
		{"cache.set_many", `{"entries":[]}`},
		{"cache.set_many", `{"entries":[{"key":"k"}]}`},
		{"cache.set_many", `{"entries":[{"key":"k","value":1,"more":1}]}`},
		{"cache.get_many", `{"keys":[]}`},
		{"cache.delete", `{"key":"k","if_version":0}`},
		{"agent.create", `{}`},
		{"agent.create", `{"name":"n","autonomy_level":6}`},
		{"agent.create", `{"name":"n","status":"gone"}`},
		{"agent.update", `{"agent_id":"a","if_version":0}`},
		{"workflow.create", `{"name":"n"}`},
		{"workflow.list", `{"status":"done"}`},
		{"audit.log", `{"event_type":"e","actor":"a","resource_type":"t"}`},
		{"snapshot.create", `{"data":1}`},
		{"snapshot.create", `{"agent_id":"a","data_transfer_id":"x"}`},
		{"snapshot.get", `{"snapshot_id":"x"}`},
		{"snapshot.search", `{"query":""}`},
		{"snapshot.cleanup", `{"older_than_days":-1}`},
		{"snapshot.cleanup", `{"keep_minimum":10001}`},
		{"snapshot.restore", `{"agent_id":"a","at":"yesterday"}`},
	} {
		require.Error(t, compileSchema(t, messages.RequestSchema(c.endpoint)).Validate(parse(t, c.request)), "%s %.100s", c.endpoint, c.request)
	}
}

func compileSchema(t *testing.T, text string) *jsonschema.Schema {
	t.Helper()
	require.NotEmpty(t, text)
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	require.NoError(t, compiler.AddResource("message.json", parse(t, text)))
	schema, err := compiler.Compile("message.json")
	require.NoError(t, err)
	return schema
}

func parse(t *testing.T, text string) any {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	require.NoError(t, err)
	return value
}

// TestErrorGoldens: the error replies are what Error.Body makes.
func TestErrorGoldens(t *testing.T) {
	t.Parallel()
	for file, body := range map[string]messages.ErrorReply{
		"error.json": messages.Invalid("entries[3].key", "has %d bytes; it must have 1 to %d", 513, 512).Body(true),
		"error.unavailable.json": (&messages.Error{
			Code: messages.CodeUnavailable, Message: "PostgreSQL cannot be reached",
			Details: messages.ErrorDetails{Outcome: messages.OutcomeNotApplied},
		}).Body(false),
		"error.overloaded.json": (&messages.Error{
			Code: messages.CodeOverloaded, Message: "this worker has its limit of 1024 requests at work",
			Details: messages.ErrorDetails{RetryAfterMS: 100},
		}).Body(false),
		"error.conflict.json": (&messages.Error{
			Code: messages.CodeConflict, Message: "has version 4, not 3", Details: messages.ErrorDetails{Field: "if_version", Version: 4},
		}).Body(true),
		"error.head.json": (&messages.Error{
			Code: messages.CodeConflict, Message: "the agent's head is 019a0d2e-5c5b-7a3e-9d2a-2f8f6f1f0c11",
			Details: messages.ErrorDetails{Field: "if_head", SnapshotID: "019a0d2e-5c5b-7a3e-9d2a-2f8f6f1f0c11"},
		}).Body(true),
		"error.internal.json": (&messages.Error{
			Code: messages.CodeInternal, Message: "internal error",
			Details: messages.ErrorDetails{ErrorID: "0196f3c2-7b1e-7c3a-9f0e-0f6a3d1c2b4a"},
		}).Body(true),
	} {
		text, err := os.ReadFile(filepath.Join("testdata", file))
		require.NoError(t, err)
		encoded, err := messages.Encode(body)
		require.NoError(t, err)
		require.Equal(t, string(stripWhiteSpace(text)), string(encoded), file)
	}
}
