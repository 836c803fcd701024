package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/invopop/jsonschema"

	"github.com/ai-cherry/morello/messages"
)

// The schemas of headers in the AsyncAPI document.
const (
	readHeaders   = "headers.read"
	mutateHeaders = "headers.mutate"
	errorHeaders  = "headers.error"
	keptHeaders   = "headers.kept_event"
	// batched follows the name where a message may carry several requests.
	batched = "_batched"
)

// requestHeaders names the schema of the headers of an endpoint's request.
func requestHeaders(e messages.EndpointInfo) string {
	name := readHeaders
	if e.Mutates {
		name = mutateHeaders
	}
	if e.Batched {
		name += batched
	}
	return name
}

// addHeaders adds the schemas of all headers. The values of NATS headers are text.
func addHeaders(schemas map[string]*jsonschema.Schema) {
	schemas[readHeaders] = optionalHeaders(callHeaders())
	schemas[mutateHeaders] = optionalHeaders(append(callHeaders(), idempotencyKey()))
	schemas[readHeaders+batched] = optionalHeaders(append(callHeaders(), batchHeader()))
	schemas[mutateHeaders+batched] = optionalHeaders(append(callHeaders(), idempotencyKey(), batchHeader()))
	schemas[keptHeaders] = optionalHeaders([]header{{"Nats-Msg-Id", &jsonschema.Schema{
		Description: fmt.Sprintf("<tenant>:<event>:<id>. Within %.0f hours the stream keeps one message of an id.", messages.EventDuplicateWindow.Hours()),
	}}})
	schemas[errorHeaders] = optionalHeaders(failureHeaders())
	schemas[errorHeaders].Required = []string{messages.HeaderErrorCode, messages.HeaderError}
}

func idempotencyKey() header {
	return header{messages.HeaderIdempotencyKey, &jsonschema.Schema{
		MinLength: length(1), MaxLength: length(messages.MaxIdempotencyKeyBytes),
		Description: fmt.Sprintf("Makes repetition safe: within %.0f hours the same request gets the first reply and has no second effect.",
			messages.IdempotencyWindow.Hours()),
	}}
}

func batchHeader() header {
	return header{messages.HeaderBatch, &jsonschema.Schema{
		Pattern: "^[1-9][0-9]*$",
		Description: fmt.Sprintf("How many requests the message carries, up to %d: the payload is then an array of them, and that of the reply an array of "+
			"their replies, in which a failure is told by its member error. It excludes %s.", messages.MaxBatchRequests, messages.HeaderIdempotencyKey),
	}}
}

type header struct {
	name   string
	schema *jsonschema.Schema
}

// callHeaders are the headers that every request may carry.
func callHeaders() []header {
	return []header{
		{messages.HeaderTimeout, &jsonschema.Schema{
			Pattern: "^[1-9][0-9]*$",
			Description: fmt.Sprintf("What is left of the caller's deadline, in milliseconds. More than %d counts as that; "+
				"without it the operation's x-timeout-ms holds.", messages.MaxTimeout.Milliseconds()),
		}},
		{messages.HeaderActor, &jsonschema.Schema{
			MaxLength:   length(messages.MaxActorBytes),
			Description: fmt.Sprintf("On whose behalf the caller acts, for the audit trail: up to %d bytes.", messages.MaxActorBytes),
		}},
		{messages.HeaderTraceparent, &jsonschema.Schema{
			Pattern:     "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
			Description: "The trace context of the caller, as W3C has it. A malformed one is ignored.",
		}},
	}
}

// failureHeaders are the headers of a failed request, as the NATS service API (ADR-32) names them.
func failureHeaders() []header {
	var numbers []any
	var codes []string
	for _, code := range messages.Codes() {
		if number := strconv.Itoa(code.Number()); len(numbers) == 0 || numbers[len(numbers)-1] != number {
			numbers = append(numbers, number)
		}
		codes = append(codes, string(code))
	}
	return []header{
		{messages.HeaderErrorCode, &jsonschema.Schema{Enum: numbers, Description: "The status number of the code, as HTTP has them."}},
		{messages.HeaderError, &jsonschema.Schema{
			Pattern: "^(" + strings.Join(codes, "|") + "): ", Description: "<code>: <message>.",
		}},
	}
}

func optionalHeaders(headers []header) *jsonschema.Schema {
	object := &jsonschema.Schema{Type: "object", Properties: jsonschema.NewProperties()}
	for _, h := range headers {
		h.schema.Type = "string"
		object.Properties.Set(h.name, h.schema)
	}
	return object
}

// withHeaders adds the headers of another schema to one.
func withHeaders(schema, others *jsonschema.Schema) *jsonschema.Schema {
	for name, header := range others.Properties.FromOldest() {
		schema.Properties.Set(name, header)
	}
	return schema
}

func length(n uint64) *uint64 { return &n }
