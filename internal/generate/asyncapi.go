package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/invopop/jsonschema"

	"github.com/ai-cherry/morello/messages"
)

const (
	contentType  = "application/json"
	errorMessage = "error"
	// anyTenantPattern is of tenants and of TenantAdmin.
	anyTenantPattern = messages.TenantPattern + "|^" + messages.TenantAdmin + "$"
)

// writeAsyncAPI writes the document of both tables of package messages. Its examples are the golden messages.
func writeAsyncAPI(reflector *reflector, goldens, file string) error {
	w := &asyncAPIWriter{doc: newAsyncAPI(), reflector: reflector, goldens: goldens}
	if err := w.add(); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return writeJSON(file, w.doc)
}

func newAsyncAPI() *asyncAPI {
	return &asyncAPI{
		AsyncAPI: "3.0.0",
		ID:       "https://github.com/ai-cherry/morello",
		Info: info{
			Title: "Morello", Version: messages.ContractVersion,
			Description: "The data plane for AI agents on one PostgreSQL, over NATS. Morello receives a request on a subject that names " +
				"the tenant, and any free worker answers it on the reply subject of the message. What happened is published as an event.\n\n" +
				"The document describes Morello: what it receives a caller sends, and what it sends a caller receives.",
			License: named{"Apache 2.0", "https://www.apache.org/licenses/LICENSE-2.0"},
			Tags:    tags(),
		},
		DefaultContentType: contentType,
		Servers: map[string]server{"nats": {
			Host: "{host}", Protocol: "nats", Description: "Any server of the NATS cluster.",
			Variables: map[string]variable{"host": {Default: "127.0.0.1:4222", Description: "Host and port, as in MORELLO_NATS_URL."}},
		}},
		Channels: map[string]channel{}, Operations: map[string]operation{},
		Components: components{Messages: map[string]message{}, Schemas: map[string]*jsonschema.Schema{}},
	}
}

// tags lists the capabilities in the order of the tables.
func tags() []tag {
	var list []tag
	seen := map[string]bool{}
	add := func(capability string) {
		if !seen[capability] {
			seen[capability] = true
			list = append(list, tag{capability})
		}
	}
	for _, endpoint := range messages.Endpoints() {
		add(endpoint.Capability())
	}
	for _, event := range messages.Events() {
		add(eventCapability(event))
	}
	return list
}

func eventCapability(event messages.EventInfo) string {
	capability, _, _ := strings.Cut(event.Name, ".")
	return capability
}

// asyncAPIWriter fills a document.
type asyncAPIWriter struct {
	doc       *asyncAPI
	reflector *reflector
	goldens   string
}

func (w *asyncAPIWriter) add() error {
	addHeaders(w.doc.Components.Schemas)
	if err := w.addError(); err != nil {
		return err
	}
	for _, endpoint := range messages.Endpoints() {
		if err := w.addEndpoint(endpoint); err != nil {
			return err
		}
	}
	for _, event := range messages.Events() {
		if err := w.addEvent(event); err != nil {
			return err
		}
	}
	return nil
}

func (w *asyncAPIWriter) addEndpoint(e messages.EndpointInfo) error {
	request, answer := e.Name+".request", e.Name+".reply"
	requests := message{Name: request, Title: "Request of " + e.Name, Summary: e.Doc}
	if err := w.addRequest(requests, e); err != nil {
		return err
	}
	replies := message{Name: answer, Title: "Reply of " + e.Name, Summary: "The answer to " + request + "."}
	if err := w.addReply(replies, e); err != nil {
		return err
	}
	w.doc.Channels[request] = requestChannel(e)
	w.doc.Channels[answer] = channel{
		Title:       "Replies of " + e.Name,
		Description: "The reply subject of the request: an inbox of the caller.",
		Messages:    map[string]reference{"reply": ref("components/messages/%s", answer), errorMessage: ref("components/messages/%s", errorMessage)},
	}
	w.doc.Operations[e.Name] = operation{
		Action: "receive", Channel: ref("channels/%s", request), Title: e.Name, Summary: e.Doc, Tags: []tag{{e.Capability()}},
		Bindings: map[string]any{"nats": map[string]string{"queue": messages.QueueGroup, "bindingVersion": "0.1.0"}},
		Messages: []reference{ref("channels/%s/messages/request", request)},
		Reply: &reply{
			Address: replyAddress{
				Location: "$message.header#/reply",
				Description: "The reply subject of the NATS message, which every NATS client has for requests. It must begin with " +
					"_INBOX. or _R_., and not be another tenant's inbox: a request with any other is dropped.",
			},
			Channel:  ref("channels/%s", answer),
			Messages: []reference{ref("channels/%s/messages/reply", answer), ref("channels/%s/messages/%s", answer, errorMessage)},
		},
		TimeoutMS: e.Timeout.Milliseconds(), Mutates: &e.Mutates,
	}
	return nil
}

func (w *asyncAPIWriter) addRequest(m message, e messages.EndpointInfo) error {
	if messages.IsRaw(e.Request) {
		return w.addRaw(m, requestHeaders(e), w.reflector.received(e.Request))
	}
	return w.addMessage(m, requestHeaders(e), w.reflector.received(e.Request))
}

func (w *asyncAPIWriter) addReply(m message, e messages.EndpointInfo) error {
	if messages.IsRaw(e.Reply) {
		return w.addRaw(m, "", w.reflector.sent(e.Reply))
	}
	return w.addMessage(m, "", w.reflector.sent(e.Reply))
}

// requestChannel is the subject of an operation: of every tenant, or of the operator alone.
func requestChannel(e messages.EndpointInfo) channel {
	c := channel{Title: "Requests of " + e.Name, Messages: map[string]reference{"request": ref("components/messages/%s.request", e.Name)}}
	if e.Operator {
		address := e.Subject(messages.TenantAdmin)
		c.Address, c.Description = &address, "For the operator, under the reserved tenant "+messages.TenantAdmin+"."
		return c
	}
	address := e.Subject("{tenant}")
	c.Address = &address
	tenant := parameter{Description: "The tenant, which needs no registration.", Examples: []string{"demo"}, Pattern: messages.TenantPattern}
	if e.Shared {
		tenant = parameter{
			Description: "The tenant, for what is its own, or " + messages.TenantAdmin + ", for the operator.", Examples: tenant.Examples, Pattern: anyTenantPattern,
		}
	}
	c.Parameters = map[string]parameter{"tenant": tenant}
	return c
}

func (w *asyncAPIWriter) addEvent(e messages.EventInfo) error {
	name := e.Name + ".event"
	headers, stream := "", ""
	kept := "Not kept: it reaches who listens at the moment."
	if e.Kept {
		headers, stream = keptHeaders, messages.EventStream
		kept = fmt.Sprintf("Kept for %.0f days in the JetStream stream %s.", messages.EventRetention.Hours()/24, messages.EventStream)
	}
	if err := w.addMessage(message{Name: name, Title: "Event " + e.Name, Summary: e.Doc}, headers, w.reflector.sent(e.Body)); err != nil {
		return err
	}
	address := e.Subject("{tenant}")
	w.doc.Channels[name] = channel{
		Address: &address, Title: "Events " + e.Name, Description: kept, Stream: stream,
		Parameters: map[string]parameter{"tenant": {
			Description: "The tenant, or " + messages.TenantAdmin + " for events of no tenant.", Examples: []string{"demo"},
			Pattern: anyTenantPattern,
		}},
		Messages: map[string]reference{"event": ref("components/messages/%s", name)},
	}
	w.doc.Operations[name] = operation{
		Action: "send", Channel: ref("channels/%s", name), Title: e.Name, Summary: e.Doc, Tags: []tag{{eventCapability(e)}},
		Messages: []reference{ref("channels/%s/messages/event", name)},
	}
	return nil
}

func (w *asyncAPIWriter) addError() error {
	m := message{Name: errorMessage, Title: "Failure", Summary: "The answer to a request that failed, told from a success by its headers."}
	return w.addMessage(m, errorHeaders, w.reflector.sent(reflect.TypeFor[messages.ErrorReply]()))
}

// addMessage adds a message that is JSON, with its payload, examples and headers; headers names a schema, or none.
func (w *asyncAPIWriter) addMessage(m message, headers string, payload *jsonschema.Schema) (err error) {
	if m.Examples, err = readExamples(w.goldens, m.Name, func(text []byte) example { return example{Payload: text} }); err != nil {
		return err
	}
	m.ContentType, m.Payload = contentType, w.addSchema(m.Name, payload)
	if headers != "" {
		r := ref("components/schemas/%s", headers)
		m.Headers = &r
	}
	w.doc.Components.Messages[m.Name] = m
	return nil
}

// addRaw adds a message of raw bytes. Its headers are its own, which the schema and the examples are of, and those of the schema
// that headers names, or none.
func (w *asyncAPIWriter) addRaw(m message, headers string, own *jsonschema.Schema) (err error) {
	if m.Examples, err = readExamples(w.goldens, m.Name, func(text []byte) example { return example{Headers: text} }); err != nil {
		return err
	}
	m.ContentType, m.Payload = messages.ContentTypeRaw, w.addSchema(m.Name, &jsonschema.Schema{
		Type: "string", Format: "binary", Description: "Raw bytes.",
	})
	if headers != "" {
		own = withHeaders(own, w.doc.Components.Schemas[headers])
	}
	r := w.addSchema(m.Name+".headers", own)
	m.Headers = &r
	w.doc.Components.Messages[m.Name] = m
	return nil
}

func (w *asyncAPIWriter) addSchema(name string, schema *jsonschema.Schema) reference {
	schema.Version = "" // of the keywords that are used, AsyncAPI's own dialect means the same
	w.doc.Components.Schemas[name] = schema
	return ref("components/schemas/%s", name)
}

// readExamples returns the golden messages <name>.json and <name>.<variant>.json, each as what is makes of its text.
func readExamples(goldens, name string, is func(text []byte) example) ([]example, error) {
	files := []string{filepath.Join(goldens, name+".json")}
	variants, err := filepath.Glob(filepath.Join(goldens, name+".*.json"))
	if err != nil {
		return nil, err
	}
	var examples []example
	for _, file := range append(files, variants...) {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		e := is(text)
		e.Name = strings.TrimSuffix(filepath.Base(file), ".json")
		examples = append(examples, e)
	}
	return examples, nil
}
