// Command generate writes what is derived from the contract in package messages: the JSON Schema of every request and
// reply, and the table of operations in the README. "make generate" runs it in the folder messages.
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
	if err := writeSchemas("messages"); err != nil {
		return err
	}
	return writeOperations("README.md")
}
