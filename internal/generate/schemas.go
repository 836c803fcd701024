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

// writeSchemas writes messages/schemas/<endpoint>.{request,reply}.json anew.
func writeSchemas(messagesFolder string) error {
	folder := filepath.Join(messagesFolder, "schemas")
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for _, endpoint := range messages.Endpoints() {
		// A worker refuses fields that it does not know; a caller ignores them.
		if err := writeSchema(messagesFolder, endpoint.Name+".request", endpoint.Request, false); err != nil {
			return err
		}
		if err := writeSchema(messagesFolder, endpoint.Name+".reply", endpoint.Reply, true); err != nil {
			return err
		}
	}
	return nil
}

func writeSchema(messagesFolder, name string, t reflect.Type, openEnded bool) error {
	reflector := jsonschema.Reflector{
		Anonymous: true, ExpandedStruct: true, DoNotReference: true, AllowAdditionalProperties: openEnded,
	}
	reflector.Mapper = mapper(&reflector)
	if err := reflector.AddGoComments("github.com/ai-cherry/morello", messagesFolder, jsonschema.WithFullComment()); err != nil {
		return fmt.Errorf("reading the comments of package messages: %w", err)
	}
	text, err := json.Marshal(reflector.ReflectFromType(t))
	if err != nil {
		return fmt.Errorf("schema of %s: %w", name, err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, text, "", "  "); err != nil {
		return err
	}
	indented.WriteByte('\n')
	return os.WriteFile(filepath.Join(messagesFolder, "schemas", name+".json"), indented.Bytes(), 0o644)
}

// mapper returns the schemas of the types that the reflector does not know: raw JSON, which may be anything, and maps
// of pointers, whose values may be null.
func mapper(reflector *jsonschema.Reflector) func(reflect.Type) *jsonschema.Schema {
	return func(t reflect.Type) *jsonschema.Schema {
		switch {
		case t == reflect.TypeFor[jsontext.Value]():
			return &jsonschema.Schema{Description: "Any JSON value."}
		case t.Kind() == reflect.Map && t.Elem().Kind() == reflect.Pointer:
			element := reflector.ReflectFromType(t.Elem())
			element.Version = ""
			return &jsonschema.Schema{Type: "object", AdditionalProperties: &jsonschema.Schema{
				AnyOf: []*jsonschema.Schema{element, {Type: "null"}},
			}}
		}
		return nil
	}
}
