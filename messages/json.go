package messages

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// decodeOptions: raw values keep the spelling of their tokens, escapes and lone surrogates included. The decoder's own
// check of UTF-8 would refuse the latter, so Decode checks the bytes itself.
var decodeOptions = json.JoinOptions(
	json.RejectUnknownMembers(true),
	jsontext.AllowInvalidUTF8(true),
	jsontext.PreserveRawStrings(true),
)

// lenientOptions are for replies: callers ignore fields that they do not know yet.
var lenientOptions = json.JoinOptions(
	jsontext.AllowInvalidUTF8(true),
	jsontext.PreserveRawStrings(true),
)

var encodeOptions = json.JoinOptions(
	json.Deterministic(true),
	jsontext.AllowInvalidUTF8(true),
	jsontext.PreserveRawStrings(true),
)

// Decode reads a request: exactly one JSON object in UTF-8; an empty body is {}. Unknown fields, repeated members,
// wrong types, lone surrogates in a member name, nesting over MaxNesting and trailing bytes are invalid, and the
// error names the field.
func Decode(body []byte, request any) error {
	trimmed := bytes.TrimLeft(body, jsonSpace)
	if len(trimmed) == 0 {
		body, trimmed = []byte("{}"), []byte("{}")
	}
	if err := checkText(body); err != nil {
		return err
	}
	if frequent, ok := request.(frequentReader); ok && frequent.readJSON(body) {
		return nil
	}
	if trimmed[0] != '{' {
		return Invalid("", "the body must be one JSON object")
	}
	options := decodeOptions
	if mayHoldSurrogates(body) {
		if err := checkNames(body); err != nil {
			return err
		}
		options = json.JoinOptions(decodeOptions, strictStrings)
	}
	if err := json.Unmarshal(body, request, options); err != nil {
		return decodeError(err)
	}
	return nil
}

// DecodeReply reads a reply. Unlike Decode it ignores unknown fields: workers are upgraded before callers.
func DecodeReply(body []byte, reply any) error {
	if frequent, ok := reply.(frequentReader); ok && frequent.readJSON(body) {
		return nil
	}
	if err := json.Unmarshal(body, reply, lenientOptions); err != nil {
		return fmt.Errorf("decoding a reply: %w", err)
	}
	return nil
}

// Encode writes a request or a reply. Raw values are written as they are.
func Encode(message any) ([]byte, error) {
	if frequent, ok := message.(appender); ok {
		if text, ok := frequent.appendJSON(); ok {
			return text, nil
		}
	}
	body, err := json.Marshal(message, encodeOptions)
	if err != nil {
		return nil, fmt.Errorf("encoding %T: %w", message, err)
	}
	return body, nil
}

// Compact returns the value without the white space between its tokens; the tokens stay as they are spelled.
func Compact(value jsontext.Value) (jsontext.Value, error) {
	if isCompact(value) {
		return value, nil
	}
	compact := value.Clone()
	if err := compact.Compact(jsontext.AllowInvalidUTF8(true), jsontext.PreserveRawStrings(true)); err != nil {
		return nil, decodeError(err)
	}
	return compact, nil
}

// isCompact reports whether there is certainly no white space outside of strings.
func isCompact(value []byte) bool {
	for {
		before, _, isMore := bytes.Cut(value, []byte{'"'})
		for _, c := range before {
			if c <= ' ' {
				return false
			}
		}
		if !isMore {
			return true
		}
		value = value[len(before):]
		value = value[StringLength(value):]
	}
}

// checkText checks what the decoder is told not to, or does not know: UTF-8 and depth.
func checkText(body []byte) error {
	if !utf8.Valid(body) {
		return Invalid("", "the body must be valid UTF-8")
	}
	if tooDeep(body) {
		return Invalid("", "objects and arrays may be nested %d deep at most", MaxNesting)
	}
	return nil
}

// tooDeep reports whether brackets outside of strings are open more than MaxNesting deep. Most bodies have fewer
// brackets in all, which is seen without looking at strings.
func tooDeep(body []byte) bool {
	if bytes.Count(body, []byte{'{'})+bytes.Count(body, []byte{'['}) <= MaxNesting {
		return false
	}
	depth := 0
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '"':
			i += StringLength(body[i:]) - 1
		case '{', '[':
			if depth++; depth > MaxNesting {
				return true
			}
		case '}', ']':
			depth--
		}
	}
	return false
}

// mayHoldSurrogates reports whether the text holds an escape of the range U+D000 to U+DFFF, as few do.
func mayHoldSurrogates(body []byte) bool {
	return bytes.Contains(body, []byte(`\ud`)) || bytes.Contains(body, []byte(`\uD`))
}

// checkNames refuses lone surrogates in member names: two names that differ there would decode to the same one.
func checkNames(body []byte) error {
	decoder := jsontext.NewDecoder(bytes.NewBuffer(body), jsontext.AllowInvalidUTF8(true), jsontext.PreserveRawStrings(true))
	for {
		if kind, length := decoder.StackIndex(decoder.StackDepth()); kind != '{' || length%2 != 0 || decoder.PeekKind() != '"' {
			if _, err := decoder.ReadToken(); err != nil {
				return nil // the end, or an error that the decoding itself reports
			}
			continue
		}
		name, err := decoder.ReadValue()
		if err != nil {
			return nil
		}
		if _, err := jsontext.AppendUnquote(nil, name); err != nil {
			return Invalid(fieldPath(decoder.StackPointer()), "a member name must not hold a lone surrogate")
		}
	}
}

var errLoneSurrogate = errors.New("lone surrogate")

// strictStrings refuses lone surrogates in fields of type string, which PostgreSQL could not hold and which would all
// become the same replacement character. Raw values keep theirs.
var strictStrings = json.WithUnmarshalers(json.UnmarshalFromFunc(func(decoder *jsontext.Decoder, field *string) error {
	if decoder.PeekKind() != '"' {
		return errors.ErrUnsupported
	}
	raw, err := decoder.ReadValue()
	if err != nil {
		return err
	}
	text, err := jsontext.AppendUnquote(nil, raw)
	if err != nil {
		return errLoneSurrogate
	}
	*field = string(text)
	return nil
}))

// decodeError turns an error of the JSON library into one that names the field and says what is wrong with it.
func decodeError(err error) *Error {
	var semantic *json.SemanticError
	var syntactic *jsontext.SyntacticError
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName) && errors.As(err, &syntactic):
		return Invalid(fieldPath(syntactic.JSONPointer), "the member is repeated")
	case errors.As(err, &semantic) && errors.Is(err, json.ErrUnknownName):
		return Invalid(fieldPath(semantic.JSONPointer), "unknown field")
	case errors.As(err, &semantic) && errors.Is(err, errLoneSurrogate):
		return Invalid(fieldPath(semantic.JSONPointer), "must not hold a lone surrogate")
	case errors.As(err, &semantic):
		return Invalid(fieldPath(semantic.JSONPointer), "must be %s", typeName(semantic.GoType))
	case errors.As(err, &syntactic):
		return Invalid(fieldPath(syntactic.JSONPointer), "malformed JSON at byte %d: %s", syntactic.ByteOffset, plainText(syntactic.Err))
	default:
		return Invalid("", "malformed JSON")
	}
}

func plainText(err error) string {
	return strings.TrimPrefix(err.Error(), "jsontext: ")
}

// fieldPath writes a JSON Pointer the way people write a path: /entries/3/key becomes entries[3].key.
func fieldPath(pointer jsontext.Pointer) string {
	var path strings.Builder
	for token := range pointer.Tokens() {
		if token != "" && strings.Trim(token, "0123456789") == "" {
			path.WriteString("[" + token + "]")
			continue
		}
		if path.Len() > 0 {
			path.WriteByte('.')
		}
		path.WriteString(token)
	}
	return limitField(path.String())
}

// limitField cuts a path that a caller could otherwise make as long as a message.
func limitField(path string) string {
	const limit = 200
	if len(path) <= limit {
		return path
	}
	return strings.ToValidUTF8(path[:limit], "") + "…"
}

// typeName says in JSON's words what a Go type takes.
func typeName(t reflect.Type) string {
	if t == nil {
		return "of another type"
	}
	if t == reflect.TypeFor[time.Time]() {
		return "a time such as 2026-01-31T09:30:00Z (RFC 3339)"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem())
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number within 64 bits"
	case reflect.Float64:
		return "a number of at most ±1.8e308"
	case reflect.Slice:
		return "an array"
	default:
		return "an object"
	}
}
