// Command generate writes what is derived from the contract in package messages: the JSON Schema of every request and
// reply, the table of operations in the README, and the AsyncAPI document. "make generate" runs it in the folder messages.
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// run generates everything. It is started in a folder of the module's root, as go:generate does.
func run() error {
	if err := os.Chdir(".."); err != nil {
		return err
	}
	reflector, err := newReflector("github.com/ai-cherry/morello", "messages")
	if err != nil {
		return err
	}
	if err := writeSchemas(reflector, "messages/schemas"); err != nil {
		return err
	}
	if err := writeOperations("README.md"); err != nil {
		return err
	}
	return writeAsyncAPI(reflector, "messages/testdata", "docs/asyncapi.json")
}
