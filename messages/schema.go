package messages

import "embed"

// schemas holds the JSON Schema of every request and reply, made by "make generate" from the types of this package.
//
//go:embed schemas/*.json
var schemas embed.FS

// RequestSchema returns the JSON Schema of the request of an endpoint.
func RequestSchema(endpoint string) string { return schema(endpoint + ".request.json") }

// ReplySchema returns the JSON Schema of the reply of an endpoint.
func ReplySchema(endpoint string) string { return schema(endpoint + ".reply.json") }

// schema returns an embedded file. That there is one for every endpoint is a test of this package.
func schema(file string) string {
	text, err := schemas.ReadFile("schemas/" + file)
	if err != nil {
		return ""
	}
	return string(text)
}
