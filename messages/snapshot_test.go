package messages_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/messages"
)

const snapshotID = "019a52f0-1c00-7c3a-9f0e-0f6a3d1c2b4a"

// TestSnapshotRequests decodes and validates requests as a worker does.
func TestSnapshotRequests(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("u", 201)
	id := `"snapshot_id":"` + snapshotID + `"`
	for _, c := range []struct {
		request    interface{ Validate() error }
		body       string
		field, say string
	}{
		{request: &messages.SnapshotCreate{}, body: `{"agent_id":"a","data":null}`},
		{request: &messages.SnapshotCreate{}, body: `{"agent_id":"a","data":"\ud800\u0000","metadata":null,"vector_ids":null}`},
		{request: &messages.SnapshotCreate{}, body: `{"agent_id":"a","data_transfer_id":"` + snapshotID + `","if_head":"` + messages.NoSnapshot + `"}`},
		{request: &messages.SnapshotCreate{}, body: `{"agent_id":"a","data":` + strings.Repeat("[", 511) + strings.Repeat("]", 511) + `}`},
		{request: &messages.SnapshotCreate{}, body: `{"agent_id":"a","data":1,"vector_ids":["v"` + strings.Repeat(`,"v"`, messages.MaxVectorIDs-1) + `]}`},
		{&messages.SnapshotCreate{}, `{"data":1}`, "agent_id", "missing"},
		{&messages.SnapshotCreate{}, `{"agent_id":"` + long + `","data":1}`, "agent_id", "1 to 200"},
		{&messages.SnapshotCreate{}, `{"agent_id":"a\u0000","data":1}`, "agent_id", "U+0000"},
		{&messages.SnapshotCreate{}, `{"agent_id":"\ud800","data":1}`, "agent_id", "lone surrogate"},
		{&messages.SnapshotCreate{}, `{"agent_id":"a","user_id":"` + long + `","data":1}`, "user_id", "1 to 200"},
		{&messages.SnapshotCreate{}, `{"agent_id":"a"}`, "data", "exactly one of data and data_transfer_id"},
		{&messages.SnapshotCreate{}, `{"agent_id":"a","data":null,"data_transfer_id":"` + snapshotID + `"}`, "data", "exactly one"},
		{&messages.SnapshotCreate{}, `{"agent_id":"a","data":{"x":{"y":1,"y":2}}}`, "data.x.y", "repeated"},
		{&messages.SnapshotCreate{}, `{"agent_id":"a","data":` + strings.Repeat("[", 512) + strings.Repeat("]", 512) + `}`, "", "512 deep"},
		{&messages.SnapshotCreate{}, `{"agent_id":"a","data_transfer_id":"x"}`, "data_transfer_id", "no UUID"},
		{&messages.SnapshotCreate{}, `{"agent_id":"a","data":1,"vector_ids":["v",""]}`, "vector_ids[1]", "empty"},
		{&messages.SnapshotCreate{}, `{"agent_id":"a","data":1,"vector_ids":["` + long + `"]}`, "vector_ids[0]", "1 to 200"},
		{&messages.SnapshotCreate{}, `{"agent_id":"a","data":1,"vector_ids":["v"` + strings.Repeat(`,"v"`, messages.MaxVectorIDs) + `]}`, "vector_ids", "10000 at most"},
		{&messages.SnapshotCreate{}, `{"agent_id":"a","data":1,"metadata":[]}`, "metadata", "must be an object"},
		{&messages.SnapshotCreate{}, `{"agent_id":"a","data":1,"metadata":{"a":"\u0000"}}`, "metadata.a", "U+0000"},
		{&messages.SnapshotCreate{}, `{"agent_id":"a","data":1,"label":"` + long + `"}`, "label", "1 to 200"},
		{&messages.SnapshotCreate{}, `{"agent_id":"a","data":1,"parent_id":"x"}`, "parent_id", "no UUID"},
		{&messages.SnapshotCreate{}, `{"agent_id":"a","data":1,"if_head":"none"}`, "if_head", "no UUID"},
		{&messages.SnapshotCreate{}, `{"agent_id":"a","data":1,"snapshot_id":"7"}`, "snapshot_id", "no UUID"},
		{&messages.SnapshotCreate{}, `{"agent_id":"a","data":1,"snapshot_id":"` + messages.NoSnapshot + `"}`, "snapshot_id", "must not be"},
		{request: &messages.SnapshotGet{}, body: `{` + id + `,"path":""}`},
		{request: &messages.SnapshotGet{}, body: `{` + id + `,"path":"/"}`},
		{request: &messages.SnapshotGet{}, body: `{` + id + `,"path":"/a~1b/~0/\u0000/-"}`},
		{request: &messages.SnapshotGet{}, body: `{` + id + `,"path":"/` + strings.Repeat("x", 4095) + `"}`},
		{&messages.SnapshotGet{}, `{}`, "snapshot_id", "missing"},
		{&messages.SnapshotGet{}, `{"snapshot_id":"x"}`, "snapshot_id", "no UUID"},
		{&messages.SnapshotGet{}, `{` + id + `,"path":"a"}`, "path", "JSON Pointer"},
		{&messages.SnapshotGet{}, `{` + id + `,"path":"$.a"}`, "path", "JSON Pointer"},
		{&messages.SnapshotGet{}, `{` + id + `,"path":"/a~"}`, "path", "JSON Pointer"},
		{&messages.SnapshotGet{}, `{` + id + `,"path":"/a~2"}`, "path", "JSON Pointer"},
		{&messages.SnapshotGet{}, `{` + id + `,"path":"/` + strings.Repeat("x", 4096) + `"}`, "path", "4096 at most"},
		{request: &messages.SnapshotLatest{}, body: `{"agent_id":"a","with_data":null}`},
		{&messages.SnapshotLatest{}, `{"user_id":"u"}`, "agent_id", "missing"},
		{&messages.SnapshotLatest{}, `{"agent_id":"a","user_id":"` + long + `"}`, "user_id", "1 to 200"},
		{request: &messages.SnapshotList{}, body: ``},
		{&messages.SnapshotList{}, `{"agent_id":"` + long + `"}`, "agent_id", "1 to 200"},
		{&messages.SnapshotList{}, `{"user_id":"` + long + `"}`, "user_id", "1 to 200"},
		{&messages.SnapshotList{}, `{"label":"\u0000"}`, "label", "U+0000"},
		{&messages.SnapshotList{}, `{"limit":0}`, "limit", "1 to 1000"},
		{&messages.SnapshotList{}, `{"created_after":"yesterday"}`, "created_after", "a time such as"},
		{&messages.SnapshotHistory{}, `{}`, "snapshot_id", "missing"},
		{&messages.SnapshotHistory{}, `{` + id + `,"limit":1001}`, "limit", "1 to 1000"},
		{&messages.SnapshotDiff{}, `{"to_snapshot_id":"` + snapshotID + `"}`, "from_snapshot_id", "missing"},
		{&messages.SnapshotDiff{}, `{"from_snapshot_id":"` + snapshotID + `","to_snapshot_id":"x"}`, "to_snapshot_id", "no UUID"},
		{&messages.SnapshotSearch{}, `{}`, "query", "missing"},
		{&messages.SnapshotSearch{}, `{"query":"` + strings.Repeat("q", 1001) + `"}`, "query", "1 to 1000"},
		{&messages.SnapshotSearch{}, `{"query":"a\u0000"}`, "query", "U+0000"},
		{&messages.SnapshotSearch{}, `{"query":"a","agent_id":"` + long + `"}`, "agent_id", "1 to 200"},
		{&messages.SnapshotSearch{}, `{"query":"a","limit":-1}`, "limit", "1 to 1000"},
		{request: &messages.SnapshotStats{}, body: ``},
		{&messages.SnapshotStats{}, `{"agent_id":"` + long + `"}`, "agent_id", "1 to 200"},
		{&messages.SnapshotDelete{}, `{}`, "snapshot_id", "missing"},
		{&messages.SnapshotDelete{}, `{"snapshot_id":"x"}`, "snapshot_id", "no UUID"},
		{request: &messages.SnapshotCleanup{}, body: `{"older_than_days":0,"keep_minimum":0}`},
		{&messages.SnapshotCleanup{}, `{"older_than_days":-0.1}`, "older_than_days", "0 to 3650"},
		{&messages.SnapshotCleanup{}, `{"older_than_days":3650.1}`, "older_than_days", "0 to 3650"},
		{&messages.SnapshotCleanup{}, `{"keep_minimum":-1}`, "keep_minimum", "0 to 10000"},
		{&messages.SnapshotCleanup{}, `{"keep_minimum":10001}`, "keep_minimum", "0 to 10000"},
		{&messages.SnapshotCleanup{}, `{"agent_id":"` + long + `"}`, "agent_id", "1 to 200"},
		{request: &messages.SnapshotRestore{}, body: `{` + id + `}`},
		{request: &messages.SnapshotRestore{}, body: `{"agent_id":"a","at":"2026-01-01T00:00:00Z","target_agent_id":"b"}`},
		{&messages.SnapshotRestore{}, `{}`, "snapshot_id", "exactly one"},
		{&messages.SnapshotRestore{}, `{` + id + `,"agent_id":"a","at":"2026-01-01T00:00:00Z"}`, "snapshot_id", "exactly one"},
		{&messages.SnapshotRestore{}, `{"agent_id":"a"}`, "at", "must be given with agent_id"},
		{&messages.SnapshotRestore{}, `{` + id + `,"at":"2026-01-01T00:00:00Z"}`, "at", "only with it"},
		{&messages.SnapshotRestore{}, `{"snapshot_id":"x"}`, "snapshot_id", "no UUID"},
		{&messages.SnapshotRestore{}, `{"agent_id":"` + long + `","at":"2026-01-01T00:00:00Z"}`, "agent_id", "1 to 200"},
		{&messages.SnapshotRestore{}, `{` + id + `,"target_agent_id":"` + long + `"}`, "target_agent_id", "1 to 200"},
		{request: &messages.SnapshotVerify{}, body: ``},
		{&messages.SnapshotVerify{}, `{"tenant":"_admin"}`, "tenant", "no name"},
		{&messages.SnapshotVerify{}, `{"agent_id":"a"}`, "agent_id", "needs a tenant"},
		{&messages.SnapshotVerify{}, `{"tenant":"acme","agent_id":"` + long + `"}`, "agent_id", "1 to 200"},
	} {
		err := messages.Decode([]byte(c.body), c.request)
		if err == nil {
			err = c.request.Validate()
		}
		name := fmt.Sprintf("%T %.80s", c.request, c.body)
		if c.say == "" {
			require.NoError(t, err, name)
			continue
		}
		require.Error(t, err, name)
		failure := messages.AsError(err)
		require.Equal(t, messages.CodeInvalid, failure.Code, "%s: %s", name, err)
		require.Equal(t, c.field, failure.Details.Field, name)
		require.Contains(t, failure.Message, c.say, name)
	}
}

// TestReadDocumentKeeps what a document says, token by token.
func TestReadDocumentKeeps(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", messages.MaxNesting) + strings.Repeat("]", messages.MaxNesting)
	for document, want := range map[string]string{
		` null `: `null`, `"a"`: `"a"`, "\r\n\t[ 1 ,\t2 ]\n": `[1,2]`,
		`12345678901234567890123456789`:             `12345678901234567890123456789`,
		`[1.0, 1e400, -0, 1E+2, 0.10]`:              `[1.0,1e400,-0,1E+2,0.10]`,
		`{ "b" : 1 , "a" : 2 }`:                     `{"b":1,"a":2}`,
		`{"\u0062":1,"":"\u0000"}`:                  `{"\u0062":1,"":"\u0000"}`,
		`["\ud800", "\udc00\ud800x"]`:               `["\ud800","\udc00\ud800x"]`,
		`{"\ud83d\ude00" : 1}`:                      `{"\ud83d\ude00":1}`,
		`["\/\u00E9\u00e9é", "\"", "\\", " \\\" "]`: `["\/\u00E9\u00e9é","\"","\\"," \\\" "]`,
		deep: deep,
	} {
		got, err := messages.ReadDocument("data", []byte(document))
		require.NoError(t, err, document)
		require.Equal(t, want, string(got))
	}
}

// TestReadDocumentRefuses what a request refuses, and names the field.
func TestReadDocumentRefuses(t *testing.T) {
	t.Parallel()
	for document, say := range map[string]string{
		``: "malformed", ` `: "malformed", `{`: "malformed", `[1,]`: "malformed", `nul`: "malformed", `"a`: "malformed", "\"\n\"": "malformed",
		`[1] 2`: "something follows", `{}{}`: "something follows", `1 }`: "malformed", `null,`: "malformed", "1\x00": "malformed",
		`{"a":1,"a":2}`:       "a: the member is repeated",
		`{"a":1,"\u0061":2}`:  "a: the member is repeated",
		`[{"b":{"":1,"":2}}]`: "repeated",
		`{"\ud800":1}`:        "lone surrogate",
		`[{"x\uDFFF":1}]`:     "lone surrogate",
		"\"\xff\"":            "UTF-8",
		"\"\xed\xa0\x80\"":    "UTF-8",
		"\xef\xbb\xbf1":       "malformed", // a byte order mark
		strings.Repeat("[", messages.MaxNesting+1) + strings.Repeat("]", messages.MaxNesting+1):                  "512 deep",
		strings.Repeat(`{"a":`, messages.MaxNesting+1) + "1" + strings.Repeat("}", messages.MaxNesting+1):        "512 deep",
		`{"a":"` + strings.Repeat("[", 600) + `"` + strings.Repeat(`,"b":[`, 1) + strings.Repeat("[", 512) + "1": "512 deep",
	} {
		_, err := messages.ReadDocument("data_transfer_id", []byte(document))
		require.Error(t, err, document)
		failure := messages.AsError(err)
		require.Equal(t, messages.CodeInvalid, failure.Code)
		require.Equal(t, "data_transfer_id", failure.Details.Field, document)
		require.Contains(t, failure.Message, say, document)
	}
}

// FuzzReadDocument: a document is taken if a request that holds it is, and the same is left of it. It may be one level deeper.
func FuzzReadDocument(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1, "\ud800", {"b":null}]}`, `[1] 2`, `{"a":1,"a":2}`, " \"\\\\\" ", `1e400`, `{"\ud800":1}`, "\xff", strings.Repeat("[", 513), ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		var request messages.CacheSet
		wanted := messages.Decode(slices.Concat([]byte(`{"value":`), document, []byte(`}`)), &request)
		got, err := messages.ReadDocument("data", bytes.Clone(document))
		if wanted != nil || len(request.Value) == 0 {
			if err == nil {
				require.Contains(t, fmt.Sprint(wanted), "512 deep")
			}
			return
		}
		if request.Key != "" || request.NoExpiry || request.Tags != nil || request.Lease != "" || request.IfAbsent || request.TTLSeconds != nil || request.IfVersion != nil {
			return // the document ended the value and named another field
		}
		require.NoError(t, err)
		want := request.Value.Clone()
		require.NoError(t, want.Compact(jsontext.AllowInvalidUTF8(true), jsontext.PreserveRawStrings(true)))
		require.Equal(t, string(want), string(got))
	})
}
