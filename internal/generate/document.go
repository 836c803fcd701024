package main

import (
	"encoding/json"
	"fmt"

	"github.com/invopop/jsonschema"
)

// asyncAPI is a document of AsyncAPI 3.0, as far as we use it. It describes what Morello does: it receives requests and
// sends events. (https://www.asyncapi.com/docs/reference/specification/v3.0.0)
type asyncAPI struct {
	AsyncAPI           string               `json:"asyncapi"`
	ID                 string               `json:"id"`
	Info               info                 `json:"info"`
	DefaultContentType string               `json:"defaultContentType"`
	Servers            map[string]server    `json:"servers"`
	Channels           map[string]channel   `json:"channels"`
	Operations         map[string]operation `json:"operations"`
	Components         components           `json:"components"`
}

type info struct {
	Title       string `json:"title"`
	Version     string `json:"version"`
	Description string `json:"description"`
	License     named  `json:"license"`
	Tags        []tag  `json:"tags"`
}

type named struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

type tag struct {
	Name string `json:"name"`
}

type server struct {
	Host        string              `json:"host"`
	Protocol    string              `json:"protocol"`
	Description string              `json:"description"`
	Variables   map[string]variable `json:"variables"`
}

type variable struct {
	Default     string `json:"default"`
	Description string `json:"description"`
}

// channel is a subject, or, with the address null, the reply subject that a request names.
type channel struct {
	Address     *string              `json:"address"`
	Title       string               `json:"title"`
	Description string               `json:"description,omitempty"`
	Parameters  map[string]parameter `json:"parameters,omitempty"`
	Messages    map[string]reference `json:"messages"`
	Stream      string               `json:"x-stream,omitempty"`
}

// parameter of an address. AsyncAPI 3.0 has no schemas for them: the pattern is an extension.
type parameter struct {
	Description string   `json:"description"`
	Examples    []string `json:"examples"`
	Pattern     string   `json:"x-pattern"`
}

type operation struct {
	Action    string         `json:"action"`
	Channel   reference      `json:"channel"`
	Title     string         `json:"title"`
	Summary   string         `json:"summary"`
	Tags      []tag          `json:"tags"`
	Bindings  map[string]any `json:"bindings,omitempty"`
	Messages  []reference    `json:"messages"`
	Reply     *reply         `json:"reply,omitempty"`
	TimeoutMS int64          `json:"x-timeout-ms,omitempty"`
	Mutates   *bool          `json:"x-mutates,omitempty"`
}

type reply struct {
	Address  replyAddress `json:"address"`
	Channel  reference    `json:"channel"`
	Messages []reference  `json:"messages"`
}

type replyAddress struct {
	Location    string `json:"location"`
	Description string `json:"description"`
}

type components struct {
	Messages map[string]message            `json:"messages"`
	Schemas  map[string]*jsonschema.Schema `json:"schemas"`
}

type message struct {
	Name        string     `json:"name"`
	Title       string     `json:"title"`
	Summary     string     `json:"summary"`
	ContentType string     `json:"contentType"`
	Headers     *reference `json:"headers,omitempty"`
	Payload     reference  `json:"payload"`
	Examples    []example  `json:"examples"`
}

type example struct {
	Name    string          `json:"name"`
	Headers json.RawMessage `json:"headers,omitempty"`
	Payload json.RawMessage `json:"payload,omitempty"`
}

type reference struct {
	Ref string `json:"$ref"`
}

func ref(format string, args ...any) reference { return reference{"#/" + fmt.Sprintf(format, args...)} }
