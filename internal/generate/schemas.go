package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/invopop/jsonschema"

	"github.com/ai-cherry/morello/messages"
)

// writeSchemas writes <folder>/<endpoint>.{request,reply}.json anew.
func writeSchemas(reflector *reflector, folder string) error {
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for _, endpoint := range messages.Endpoints() {
		if err := writeJSON(filepath.Join(folder, endpoint.Name+".request.json"), reflector.received(endpoint.Request)); err != nil {
			return err
		}
		if err := writeJSON(filepath.Join(folder, endpoint.Name+".reply.json"), reflector.sent(endpoint.Reply)); err != nil {
			return err
		}
	}
	return nil
}

// writeJSON writes a value, indented, as a file. Its text depends on the value only.
func writeJSON(file string, value any) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, text.Bytes(), 0o644)
}

// reflector makes JSON Schemas of the types of package messages; the comments there are the descriptions.
type reflector struct{ comments map[string]string }

// newReflector reads the comments. here is the import path of the current folder: the library joins it with messagesFolder.
func newReflector(here, messagesFolder string) (*reflector, error) {
	var reader jsonschema.Reflector
	if err := reader.AddGoComments(here, messagesFolder, jsonschema.WithFullComment()); err != nil {
		return nil, fmt.Errorf("reading the comments of package messages: %w", err)
	}
	return &reflector{comments: reader.CommentMap}, nil
}

// received returns the schema of what Morello receives: it refuses fields that it does not know. Of raw bytes it is the schema of
// their own headers, beside which there are others.
func (r *reflector) received(t reflect.Type) *jsonschema.Schema {
	return r.schema(t, messages.IsRaw(t))
}

// sent returns the schema of what Morello sends: a caller ignores fields that it does not know.
func (r *reflector) sent(t reflect.Type) *jsonschema.Schema { return r.schema(t, true) }

func (r *reflector) schema(t reflect.Type, openEnded bool) *jsonschema.Schema {
	library := jsonschema.Reflector{
		Anonymous: true, ExpandedStruct: true, DoNotReference: true, AllowAdditionalProperties: openEnded, CommentMap: r.comments,
	}
	library.Mapper = mapper(&library)
	return library.ReflectFromType(t)
}

// mapper returns the schemas of the types that the library does not know: raw JSON, which may be anything, maps of
// pointers, whose values may be null, and the codes of errors.
func mapper(library *jsonschema.Reflector) func(reflect.Type) *jsonschema.Schema {
	return func(t reflect.Type) *jsonschema.Schema {
		switch {
		case t == reflect.TypeFor[jsontext.Value]():
			return &jsonschema.Schema{Description: "Any JSON value."}
		case t == reflect.TypeFor[messages.Code]():
			return &jsonschema.Schema{Type: "string", Enum: anySlice(messages.Codes())}
		case t == reflect.TypeFor[messages.Outcome]():
			return &jsonschema.Schema{Type: "string", Enum: []any{messages.OutcomeNotApplied, messages.OutcomeUnknown}}
		case t.Kind() == reflect.Map && t.Elem().Kind() == reflect.Pointer:
			element := library.ReflectFromType(t.Elem())
			element.Version = ""
			return &jsonschema.Schema{Type: "object", AdditionalProperties: &jsonschema.Schema{
				AnyOf: []*jsonschema.Schema{element, {Type: "null"}},
			}}
		}
		return nil
	}
}

func anySlice[T any](list []T) []any {
	result := make([]any, len(list))
	for i, element := range list {
		result[i] = element
	}
	return result
}
