package messages

import (
	"maps"
	"reflect"
	"slices"
)

// Raw is a message whose body is bytes as they are; what else it says stands in headers of its own. Any other message is one
// JSON object. In JSON, where schemas and examples describe it, a raw message has only its headers.
type Raw interface {
	// RawBody returns the bytes.
	RawBody() []byte
	// RawHeaders returns the values of the headers by name. Those of a zero value name them all.
	RawHeaders() map[string]string
}

// rawReader is a pointer to a raw message. header returns the value of a header, empty when it is not there.
type rawReader interface {
	readRaw(body []byte, header func(name string) string) error
}

// ContentTypeRaw is the content type of raw bytes, where one is wanted.
const ContentTypeRaw = "application/octet-stream"

// Pack writes a request or a reply: as a JSON object, or as raw bytes with headers.
func Pack(message any) (body []byte, headers map[string]string, err error) {
	if raw, ok := message.(Raw); ok {
		return raw.RawBody(), raw.RawHeaders(), nil
	}
	body, err = Encode(message)
	return body, nil, err
}

// UnpackRequest reads what Pack wrote; a JSON object as Decode does. Raw bytes are not copied.
func UnpackRequest(body []byte, header func(name string) string, request any) error {
	if raw, ok := request.(rawReader); ok {
		return raw.readRaw(body, header)
	}
	return Decode(body, request)
}

// UnpackReply reads what Pack wrote; a JSON object as DecodeReply does. Raw bytes are not copied.
func UnpackReply(body []byte, header func(name string) string, reply any) error {
	if raw, ok := reply.(rawReader); ok {
		return raw.readRaw(body, header)
	}
	return DecodeReply(body, reply)
}

// rawHeaders returns the sorted names of the headers of a raw message; nil for any other.
func rawHeaders[Message any]() []string {
	var zero Message
	raw, ok := any(zero).(Raw)
	if !ok {
		return nil
	}
	return slices.Sorted(maps.Keys(raw.RawHeaders()))
}

// IsRaw reports whether messages of a type are raw.
func IsRaw(message reflect.Type) bool { return message.Implements(reflect.TypeFor[Raw]()) }
