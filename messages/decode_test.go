package messages_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/messages"
)

// decode does what a worker does with a body: Decode, then Validate.
func decode(t *testing.T, endpoint messages.EndpointInfo, body string) (any, error) {
	t.Helper()
	request := reflect.New(endpoint.Request)
	if err := messages.Decode([]byte(body), request.Interface()); err != nil {
		return nil, err
	}
	return request.Elem().Interface(), request.Interface().(interface{ Validate() error }).Validate()
}

var (
	get       = messages.CacheGetEndpoint.Info()
	set       = messages.CacheSetEndpoint.Info()
	getMany   = messages.CacheGetManyEndpoint.Info()
	setMany   = messages.CacheSetManyEndpoint.Info()
	remove    = messages.CacheDeleteEndpoint.Info()
	touch     = messages.CacheTouchEndpoint.Info()
	increment = messages.CacheIncrementEndpoint.Info()
)

// nested returns arrays that are nested so deep.
func nested(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

// list returns n times the element, as an array.
func list(n int, element string) string {
	return "[" + strings.TrimSuffix(strings.Repeat(element+",", n), ",") + "]"
}

func keyOf(n int) string { return strings.Repeat("k", n) }

const tenYears = "315360000"

// TestDecodeRefuses: what is wrong is refused with the path of the field, and the message names the limit.
func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		endpoint       messages.EndpointInfo
		body           string
		field, message string // the message contains this
	}{
		// the body as a whole
		{"malformed", get, `{"key":}`, "key", "malformed JSON at byte 7"},
		{"cut off", get, `{"key":"k"`, "", "malformed JSON at byte 10"},
		{"single quotes", get, `{'key':"k"}`, "", "malformed JSON at byte 1"},
		{"trailing comma", get, `{"key":"k",}`, "", "malformed JSON at byte 10"},
		{"comment", get, `{"key":"k"/*x*/}`, "", "malformed JSON at byte 10"},
		{"control character in a string", get, "{\"key\":\"a\nb\"}", "key", "malformed JSON"},
		{"unknown escape", get, `{"key":"\x41"}`, "key", "malformed JSON"},
		{"trailing bytes", get, `{"key":"k"} x`, "", "malformed JSON at byte 12"},
		{"second object", get, `{"key":"k"}{}`, "", "malformed JSON at byte 11"},
		{"NUL after the object", get, "{\"key\":\"k\"}\x00", "", "malformed JSON at byte 11"},
		{"array", get, `[{"key":"k"}]`, "", "must be one JSON object"},
		{"string", get, `"key"`, "", "must be one JSON object"},
		{"null", get, `null`, "", "must be one JSON object"},
		{"number", get, ` 1 `, "", "must be one JSON object"},
		{"byte order mark", get, "\ufeff{}", "", "must be one JSON object"},
		{"white space that is not JSON's", get, "\v", "", "must be one JSON object"},
		{"no-break space", get, "\u00a0", "", "must be one JSON object"},
		{"invalid UTF-8 in a string", get, "{\"key\":\"a\xffb\"}", "", "valid UTF-8"},
		{"invalid UTF-8 in a value", set, "{\"key\":\"k\",\"value\":\"\xc3\"}", "", "valid UTF-8"},
		{"invalid UTF-8 in a name", get, "{\"key\":\"k\",\"\xff\":1}", "", "valid UTF-8"},
		{"surrogate as UTF-8", get, "{\"key\":\"\xed\xa0\x80\"}", "", "valid UTF-8"},
		{"overlong UTF-8", get, "{\"key\":\"\xc0\x80\"}", "", "valid UTF-8"},

		// members
		{"unknown field", get, `{"key":"k","kee":1}`, "kee", "unknown field"},
		{"unknown field, other case", get, `{"Key":"k"}`, "Key", "unknown field"},
		{"unknown field, nested", setMany, `{"entries":[{"key":"k","value":1},{"key":"l","value":1,"ttl":1}]}`, "entries[1].ttl", "unknown field"},
		{"unknown field, endless", get, `{"` + keyOf(5000) + `":1}`, keyOf(200) + "…", "unknown field"},
		{"repeated member", get, `{"key":"k","key":"k"}`, "key", "repeated"},
		{"repeated member, escaped", get, `{"key":"k","\u006bey":"k"}`, "key", "repeated"},
		{"repeated member, in an entry", setMany, `{"entries":[{"key":"k","key":"l","value":1}]}`, "entries[0].key", "repeated"},
		{"repeated member, in a value", set, `{"key":"k","value":{"a":{"b":1,"b":2}}}`, "value.a.b", "repeated"},
		{"repeated member, escaped in a value", set, `{"key":"k","value":[0,{"a":1,"\u0061":2}]}`, "value[1].a", "repeated"},
		{"lone surrogate in a name", get, `{"\ud800":1}`, "�", "lone surrogate"},
		{"lone surrogate in a name of a value", set, `{"key":"k","value":{"a":[{"b\udfff":1}]}}`, "value.a[0].b�", "lone surrogate"},
		{"lone surrogate in a key", get, `{"key":"a\ud800b"}`, "key", "lone surrogate"},
		{"lone surrogate in a key, low one first", get, `{"key":"\udc00\ud800"}`, "key", "lone surrogate"},
		{"lone surrogate in a key, upper case", get, `{"key":"\uDBFFx"}`, "key", "lone surrogate"},
		{"lone surrogate in a tag", set, `{"key":"k","value":1,"tags":["a","\ud800"]}`, "tags[1]", "lone surrogate"},
		{"lone surrogate in a list of keys", getMany, `{"keys":["a","b","\ud800"]}`, "keys[2]", "lone surrogate"},
		{"lone surrogate in an entry", setMany, `{"entries":[{"key":"\ud800","value":1}]}`, "entries[0].key", "lone surrogate"},

		// types
		{"number for a string", get, `{"key":1}`, "key", "must be a string"},
		{"number for a string beside surrogates", set, `{"value":"\ud800","key":1}`, "key", "must be a string"},
		{"object for a string", getMany, `{"keys":["a",{}]}`, "keys[1]", "must be a string"},
		{"string for a bool", set, `{"key":"k","value":1,"no_expiry":"true"}`, "no_expiry", "must be true or false"},
		{"number for a bool", set, `{"key":"k","value":1,"if_absent":1}`, "if_absent", "must be true or false"},
		{"string for a number", touch, `{"key":"k","ttl_seconds":"60"}`, "ttl_seconds", "must be a number"},
		{"NaN for a number", touch, `{"key":"k","ttl_seconds":NaN}`, "ttl_seconds", "malformed JSON"},
		{"spelled NaN for a number", touch, `{"key":"k","ttl_seconds":"NaN"}`, "ttl_seconds", "must be a number"},
		{"Infinity for a number", touch, `{"key":"k","ttl_seconds":Infinity}`, "ttl_seconds", "malformed JSON"},
		{"leading zero", touch, `{"key":"k","ttl_seconds":01}`, "", "malformed JSON"},
		{"leading plus", touch, `{"key":"k","ttl_seconds":+1}`, "ttl_seconds", "malformed JSON"},
		{"string for a whole number", set, `{"key":"k","value":1,"if_version":"1"}`, "if_version", "must be a whole number within 64 bits"},
		{"fraction for a whole number", set, `{"key":"k","value":1,"if_version":1.5}`, "if_version", "must be a whole number within 64 bits"},
		{"exponent for a whole number", increment, `{"key":"k","delta":1e30}`, "delta", "must be a whole number within 64 bits"},
		{"whole number over 64 bits", increment, `{"key":"k","initial":9223372036854775808}`, "initial", "must be a whole number within 64 bits"},
		{"whole number under 64 bits", increment, `{"key":"k","delta":-9223372036854775809}`, "delta", "must be a whole number within 64 bits"},
		{"string for an array", getMany, `{"keys":"k"}`, "keys", "must be an array"},
		{"object for an array", set, `{"key":"k","value":1,"tags":{"0":"t"}}`, "tags", "must be an array"},
		{"string for an object", setMany, `{"entries":["k"]}`, "entries[0]", "must be an object"},
		{"array for an object", setMany, `{"entries":[[]]}`, "entries[0]", "must be an object"},

		// what is missing
		{"empty body", get, ``, "key", "missing or empty; it must have 1 to 512 bytes"},
		{"white space for a body", get, " \r\n\t", "key", "missing"},
		{"empty object", set, `{}`, "key", "missing"},
		{"null for the key", get, `{"key":null}`, "key", "missing"},
		{"null for the key beside surrogates", set, `{"key":null,"value":"\ud800"}`, "key", "missing"},
		{"no value", set, `{"key":"k"}`, "value", "missing; null is a value"},
		{"no keys", getMany, `{}`, "keys", "has 0 elements; it must have 1 to 1000"},
		{"null for the keys", getMany, `{"keys":null}`, "keys", "1 to 1000"},
		{"null for a key of many", getMany, `{"keys":["a",null]}`, "keys[1]", "missing"},
		{"null for an entry", setMany, `{"entries":[null]}`, "entries[0].key", "missing"},
		{"no value in an entry", setMany, `{"entries":[{"key":"k","value":1},{"key":"l"}]}`, "entries[1].value", "missing"},

		// bounds
		{"empty key", get, `{"key":""}`, "key", "1 to 512"},
		{"key of 513 bytes", get, `{"key":"` + keyOf(513) + `"}`, "key", "has 513 bytes; it must have 1 to 512"},
		{"key of 257 characters and 514 bytes", get, `{"key":"` + strings.Repeat("é", 257) + `"}`, "key", "has 514 bytes"},
		{"NUL in a key", get, `{"key":"a\u0000b"}`, "key", "U+0000"},
		{"NUL in a key of many", getMany, `{"keys":["a","\u0000"]}`, "keys[1]", "U+0000"},
		{"long key of an entry", setMany, `{"entries":[{"key":"a","value":1},{"key":"b","value":1},{"key":"c","value":1},{"key":"` + keyOf(513) + `","value":1}]}`, "entries[3].key", "1 to 512"},
		{"no keys in the list", getMany, `{"keys":[]}`, "keys", "1 to 1000"},
		{"1001 keys", getMany, `{"keys":` + list(1001, `"k"`) + `}`, "keys", "has 1001 elements; it must have 1 to 1000"},
		{"1001 keys to delete", messages.CacheDeleteManyEndpoint.Info(), `{"keys":` + list(1001, `"k"`) + `}`, "keys", "1 to 1000"},
		{"no entries in the list", setMany, `{"entries":[]}`, "entries", "1 to 1000"},
		{"1001 entries", setMany, `{"entries":` + list(1001, `{"key":"k","value":1}`) + `}`, "entries", "1 to 1000"},
		{"33 tags", set, `{"key":"k","value":1,"tags":` + list(33, `"t"`) + `}`, "tags", "has 33 tags; it may have 32 at most"},
		{"33 tags for all entries", setMany, `{"entries":[{"key":"k","value":1}],"tags":` + list(33, `"t"`) + `}`, "tags", "32 at most"},
		{"33 tags of an entry", setMany, `{"entries":[{"key":"k","value":1,"tags":` + list(33, `"t"`) + `}]}`, "entries[0].tags", "32 at most"},
		{"tag of 129 bytes", set, `{"key":"k","value":1,"tags":["t","` + keyOf(129) + `"]}`, "tags[1]", "has 129 bytes; it must have 1 to 128"},
		{"empty tag", set, `{"key":"k","value":1,"tags":[""]}`, "tags[0]", "1 to 128"},
		{"empty tag of an entry", setMany, `{"entries":[{"key":"k","value":1,"tags":["a",""]}]}`, "entries[0].tags[1]", "1 to 128"},
		{"NUL in a tag", set, `{"key":"k","value":1,"tags":["\u0000"]}`, "tags[0]", "U+0000"},
		{"TTL of 0", set, `{"key":"k","value":1,"ttl_seconds":0}`, "ttl_seconds", "more than 0 and at most " + tenYears + " (10 years)"},
		{"TTL of minus 0", set, `{"key":"k","value":1,"ttl_seconds":-0}`, "ttl_seconds", "more than 0"},
		{"TTL that is 0 in 64 bits", set, `{"key":"k","value":1,"ttl_seconds":1e-400}`, "ttl_seconds", "more than 0"},
		{"negative TTL", touch, `{"key":"k","ttl_seconds":-1}`, "ttl_seconds", "more than 0"},
		{"TTL over ten years", increment, `{"key":"k","ttl_seconds":315360000.1}`, "ttl_seconds", "at most " + tenYears},
		{"TTL over all numbers", set, `{"key":"k","value":1,"ttl_seconds":1e400}`, "ttl_seconds", "a number of at most ±1.8e308"},
		{"TTL under all numbers", set, `{"key":"k","value":1,"ttl_seconds":-1e400}`, "ttl_seconds", "a number of at most ±1.8e308"},
		{"TTL of 0 for all entries", setMany, `{"entries":[{"key":"k","value":1}],"ttl_seconds":0}`, "ttl_seconds", "at most " + tenYears},
		{"TTL of 0 of an entry", setMany, `{"entries":[{"key":"k","value":1,"ttl_seconds":0}]}`, "entries[0].ttl_seconds", "at most " + tenYears},
		{"negative version", set, `{"key":"k","value":1,"if_version":-1}`, "if_version", "must be 0 or more"},
		{"deletion of version 0", remove, `{"key":"k","if_version":0}`, "if_version", "must be 1 or more"},
		{"513 deep", set, `{"key":"k","value":` + nested(512) + `}`, "", "nested 512 deep at most"},
		{"513 deep, of objects", set, `{"key":"k","value":` + strings.Repeat(`{"a":`, 512) + "1" + strings.Repeat("}", 513), "", "512 deep"},
		{"513 deep outside of a value", get, `{"key":` + nested(512) + `}`, "", "512 deep"},
		{"513 deep, never closed", set, `{"key":"k","value":` + strings.Repeat("[", 512), "", "512 deep"},
		{"200 000 deep", set, `{"key":"k","value":` + nested(200_000) + `}`, "", "512 deep"},

		// contradictions
		{"no expiry and a TTL", set, `{"key":"k","value":1,"no_expiry":true,"ttl_seconds":1}`, "no_expiry", "excludes ttl_seconds"},
		{"absent and a version", set, `{"key":"k","value":1,"if_absent":true,"if_version":1}`, "if_absent", "excludes if_version"},
		{"absent and version 0", set, `{"key":"k","value":1,"if_absent":true,"if_version":0}`, "if_absent", "excludes if_version"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := decode(t, c.endpoint, c.body)
			var failure *messages.Error
			require.ErrorAs(t, err, &failure)
			require.Equal(t, messages.CodeInvalid, failure.Code)
			require.Equal(t, c.field, failure.Details.Field)
			require.Contains(t, failure.Message, c.message)
			require.Less(t, len(failure.Message), 200, "no caller can make it long")
		})
	}
}

// TestDecodeRefusesLargeValues: bytes over a limit are too_large, not invalid.
func TestDecodeRefusesLargeValues(t *testing.T) {
	t.Parallel()
	text := func(bytes int) string { return `"` + strings.Repeat("v", bytes-2) + `"` }
	for _, c := range []struct {
		endpoint    messages.EndpointInfo
		body, field string
	}{
		{set, `{"key":"k","value":%s}`, "value"},
		{setMany, `{"entries":[{"key":"k","value":1},{"key":"l","value":%s}]}`, "entries[1].value"},
	} {
		_, err := decode(t, c.endpoint, fmt.Sprintf(c.body, text(messages.MaxCacheValueBytes)))
		require.NoError(t, err, "4 MiB are allowed")
		_, err = decode(t, c.endpoint, fmt.Sprintf(c.body, text(messages.MaxCacheValueBytes+1)))
		var failure *messages.Error
		require.ErrorAs(t, err, &failure)
		require.Equal(t, messages.CodeTooLarge, failure.Code)
		require.Equal(t, c.field, failure.Details.Field)
		require.Equal(t, "the value has 4194305 bytes, the limit is 4194304 bytes", failure.Message)
	}
}

// TestDecodeAccepts: what lies on the bounds, and what looks wrong and is not.
func TestDecodeAccepts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		endpoint messages.EndpointInfo
		body     string
		want     any // nil: that it is accepted says it all
	}{
		{"white space around it", get, " \r\n\t{ \"key\" : \"k\" }\n", messages.CacheGet{Key: "k"}},
		{"escaped name", get, `{"\u006bey":"k"}`, messages.CacheGet{Key: "k"}},
		{"key of 512 bytes", get, `{"key":"` + keyOf(512) + `"}`, messages.CacheGet{Key: keyOf(512)}},
		{"key of 256 characters and 512 bytes", get, `{"key":"` + strings.Repeat("é", 256) + `"}`, messages.CacheGet{Key: strings.Repeat("é", 256)}},
		{"surrogate pair in a key", get, `{"key":"\ud83d\ude00"}`, messages.CacheGet{Key: "😀"}},
		{"escaped backslash before a u", get, `{"key":"\\ud800"}`, messages.CacheGet{Key: `\ud800`}},
		{"replacement character in a key", get, `{"key":"�"}`, messages.CacheGet{Key: "�"}},
		{"null for what may be absent", set, `{"key":"k","value":1,"ttl_seconds":null,"no_expiry":null,"tags":null,"if_absent":null,"if_version":null}`, messages.CacheSet{Key: "k", Value: []byte(`1`)}},
		{"null beside surrogates", set, `{"key":"\ud83d\ude00","value":1,"ttl_seconds":null,"tags":["\ud83d\ude00"]}`, messages.CacheSet{Key: "😀", Value: []byte(`1`), Tags: []string{"😀"}}},
		{"null is a value", set, `{"key":"k","value":null}`, messages.CacheSet{Key: "k", Value: []byte(`null`)}},
		{"lone surrogate in a value", set, `{"key":"k","value":["\ud800",{"a":"\uDFFF"}]}`, messages.CacheSet{Key: "k", Value: []byte(`["\ud800",{"a":"\uDFFF"}]`)}},
		{"NUL in a value", set, `{"key":"k","value":"\u0000"}`, messages.CacheSet{Key: "k", Value: []byte(`"\u0000"`)}},
		{"names that differ in case only", set, `{"key":"k","value":{"a":1,"A":2}}`, messages.CacheSet{Key: "k", Value: []byte(`{"a":1,"A":2}`)}},
		{"number beyond 64 bits in a value", set, `{"key":"k","value":1e400}`, messages.CacheSet{Key: "k", Value: []byte(`1e400`)}},
		{"TTL of a nanosecond", touch, `{"key":"k","ttl_seconds":1e-9}`, messages.CacheTouch{Key: "k", TTLSeconds: new(1e-9)}},
		{"TTL of ten years", touch, `{"key":"k","ttl_seconds":` + tenYears + `}`, messages.CacheTouch{Key: "k", TTLSeconds: new(315360000.0)}},
		{"32 tags of 128 bytes", set, `{"key":"k","value":1,"tags":` + list(32, `"`+keyOf(128)+`"`) + `}`, nil},
		{"no tags", set, `{"key":"k","value":1,"tags":[]}`, messages.CacheSet{Key: "k", Value: []byte(`1`), Tags: []string{}}},
		{"1000 keys", getMany, `{"keys":` + list(1000, `"k"`) + `}`, nil},
		{"1000 entries", setMany, `{"entries":` + list(1000, `{"key":"k","value":1}`) + `}`, nil},
		{"version 0", set, `{"key":"k","value":1,"if_version":0}`, messages.CacheSet{Key: "k", Value: []byte(`1`), IfVersion: new(int64(0))}},
		{"largest whole number", increment, `{"key":"k","delta":9223372036854775807,"initial":-9223372036854775808}`, messages.CacheIncrement{Key: "k", Delta: new(int64(9223372036854775807)), Initial: -9223372036854775808}},
		{"delta of 0", increment, `{"key":"k","delta":0}`, messages.CacheIncrement{Key: "k", Delta: new(int64(0))}},
		{"512 deep", set, `{"key":"k","value":` + nested(511) + `}`, messages.CacheSet{Key: "k", Value: []byte(nested(511))}},
		{"512 deep, much beside it", set, `{"key":"k","value":[` + strings.Repeat("[],", 1000) + nested(510) + `]}`, nil},
		{"brackets in strings", set, `{"key":"k","value":"` + strings.Repeat(`[{\"\\`, 1000) + `"}`, nil},
		{"brackets in names", set, `{"key":"k","value":{"` + strings.Repeat("[", 1000) + `":1}}`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			request, err := decode(t, c.endpoint, c.body)
			require.NoError(t, err)
			if c.want != nil {
				require.Equal(t, c.want, request)
			}
		})
	}
}
