package messages_test

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/messages"
)

// stripWhiteSpace removes the white space between the tokens of a JSON text. It knows of JSON only where strings begin
// and end, and shares nothing with what it is held against.
func stripWhiteSpace(text []byte) []byte {
	var stripped []byte
	inString, escaped := false, false
	for _, c := range text {
		if !inString && (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
			continue
		}
		switch {
		case escaped:
			escaped = false
		case inString && c == '\\':
			escaped = true
		case c == '"':
			inString = !inString
		}
		stripped = append(stripped, c)
	}
	return stripped
}

// TestCompact: white space goes, tokens stay as they are spelled.
func TestCompact(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, value, want string }{
		{"fraction of zero", ` 1.0 `, `1.0`},
		{"exponent", "[1e400,\t-0, 1E+2]", `[1e400,-0,1E+2]`},
		{"big integer", ` 123456789012345678901234567890`, `123456789012345678901234567890`},
		{"escapes", ` "\u00e9\/\u0041\n\ud83d\ude00" `, `"\u00e9\/\u0041\n\ud83d\ude00"`},
		{"characters", ` "é\t😀" `, `"é\t😀"`},
		{"lone surrogate", ` ["\ud800"]`, `["\ud800"]`},
		{"NUL escaped", ` "\u0000"`, `"\u0000"`},
		{"white space in strings", `{ "a b" : "  \" , " }`, `{"a b":"  \" , "}`},
		{"markup", ` "<&>"`, `"<&>"`},
		{"all kinds of white space", "{\r\n\t\"a\" :\n[ ]\r, \"b\":{ }}", `{"a":[],"b":{}}`},
		{"order of members", `{"b": 1, "a": 2}`, `{"b":1,"a":2}`},
		{"nothing to do", `{"a":[1,2]}`, `{"a":[1,2]}`},
		{"literals", ` [ null , true , false ] `, `[null,true,false]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			value := jsontext.Value(c.value)
			compact, err := messages.Compact(value)
			require.NoError(t, err)
			require.Equal(t, c.want, string(compact))
			require.Equal(t, c.value, string(value), "what was given is left alone")

			var request messages.CacheSet
			require.NoError(t, messages.Decode([]byte(`{"key":"k","value":`+c.value+`}`), &request))
			encoded, err := messages.Encode(messages.CacheEntry{Value: request.Value})
			require.NoError(t, err)
			require.Equal(t, `{"value":`+c.want+`}`, string(encoded), "nor does a reply respell it")
			stored, err := messages.Compact(request.Value)
			require.NoError(t, err)
			encoded, err = messages.Encode(messages.CacheGetReply{Found: true, CacheEntry: messages.CacheEntry{Value: stored}})
			require.NoError(t, err)
			require.Equal(t, `{"found":true,"value":`+c.want+`}`, string(encoded), "nor does the reply to a get")
		})
	}
}

func TestCompactRefusesWhatIsNoJSON(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{ "a"`, ` `, `1 2`} {
		_, err := messages.Compact(jsontext.Value(text))
		var failure *messages.Error
		require.ErrorAs(t, err, &failure, text)
		require.Equal(t, messages.CodeInvalid, failure.Code, text)
	}
}

func TestEncodeIsDeterministic(t *testing.T) {
	t.Parallel()
	reply := messages.CacheGetManyReply{Entries: map[string]*messages.CacheEntry{"b": nil, "a": nil, "é": nil, "c": nil}}
	for range 20 {
		body, err := messages.Encode(reply)
		require.NoError(t, err)
		require.Equal(t, `{"entries":{"a":null,"b":null,"c":null,"é":null}}`, string(body))
	}
}

func TestEncodeRefusesRawValuesThatAreNoJSON(t *testing.T) {
	t.Parallel()
	_, err := messages.Encode(messages.CacheEntry{Value: jsontext.Value(`{"a"`)})
	require.ErrorContains(t, err, "encoding messages.CacheEntry")
}

// TestDecodeReply: a caller of yesterday understands the worker of tomorrow.
func TestDecodeReply(t *testing.T) {
	t.Parallel()
	var reply messages.CacheSetReply
	require.NoError(t, messages.DecodeReply([]byte(`{"stored":true,"version":7,"shard":{"name":"x"}}`), &reply))
	require.Equal(t, messages.CacheSetReply{Stored: true, Version: 7}, reply)
	for _, text := range []string{``, `{`, `{"stored":1}`, `{} {}`} {
		require.ErrorContains(t, messages.DecodeReply([]byte(text), &reply), "decoding a reply", text)
	}
}

// FuzzDecode: no body makes Decode panic. What it accepts is the same after another round, its key is text, and the tokens
// of its value are those of the body.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		``, ` `, `{}`, `null`, `[]`, `"a"`, `{"key":"k","value":1}`, `{"key":"k","value": { "a" : [ 1.0 , 1e400 , "\u00e9\/" ] } }`,
		`{"key":"\ud83d\ude00","value":"\ud800"}`, `{"key":"\ud800","value":1}`, `{"key":"k","value":{"\ud800":1}}`,
		`{"key":"k","value":null,"ttl_seconds":1e-9,"tags":["a","b"],"if_version":9007199254740993}`,
		`{"key":"k","value":1,"ttl_seconds":1e400}`, `{"key":"k","value":-0,"no_expiry":true,"if_absent":true,"tags":[]}`,
		`{"key":"k","\u006bey":"k"}`, `{"key":"k","value":{"a":1,"\u0061":2}}`, "{\"key\":\"\xff\"}", `{"value":` + strings.Repeat("[", 512) + `}`,
		`{"key":"k","value":"` + strings.Repeat("[", 600) + `"}`, "\ufeff{}", "\u00a0", "\v", `{"key":"a\u0000b","value":"\\\"[{"}`, `{"key":1.5}`,
		`{"key":"k","value":1}{}`, `{"tags":{"0":1}}`, `{"ttl_seconds":NaN}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		given := bytes.Clone(body)
		var request messages.CacheSet
		err := messages.Decode(body, &request)
		require.Equal(t, given, body, "the body is left alone")
		if err != nil {
			var failure *messages.Error
			require.ErrorAs(t, err, &failure)
			require.Equal(t, messages.CodeInvalid, failure.Code)
			require.LessOrEqual(t, len(failure.Details.Field), 210)
			return
		}
		if request.Value == nil {
			require.Error(t, request.Validate())
			request.Value = jsontext.Value("null")
		}
		compact, err := messages.Compact(request.Value)
		require.NoError(t, err)
		require.Equal(t, string(stripWhiteSpace(request.Value)), string(compact))
		require.True(t, len(stripWhiteSpace(body)) == 0 || bytes.Contains(append(stripWhiteSpace(body), "null"...), compact))
		request.Value = compact

		encoded, err := messages.Encode(request)
		require.NoError(t, err)
		var again messages.CacheSet
		require.NoError(t, messages.Decode(encoded, &again), string(encoded))
		require.Equal(t, request, again)
	})
}

// FuzzValidTenant holds the loop of ValidTenant against the expression of the contract.
func FuzzValidTenant(f *testing.F) {
	pattern := regexp.MustCompile(messages.TenantPattern)
	for _, seed := range []string{
		"", "a", "0", "-", "a-", "-a", "demo", "Demo", "a.b", "a b", "a\n", "*", ">", "_admin", "é", "a\x00", "\xff", "a/b", "..", "gateway",
		strings.Repeat("a", 63), strings.Repeat("a", 64), "a" + strings.Repeat("-", 62), "a_b", "a{b", "a`b", "a@b", "a:b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		require.Equal(t, pattern.MatchString(name), messages.ValidTenant(name), "%q", name)
	})
}
