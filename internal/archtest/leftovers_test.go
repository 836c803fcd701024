package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// checkPackageComments: one file of every package says what the package is, and begins as godoc expects.
func checkPackageComments(t *tree) []string {
	var faults []string
	for _, p := range t.packages {
		var comments []string
		for _, file := range p.code() {
			if text := file.ast.Doc.Text(); strings.TrimSpace(text) != "" {
				comments = append(comments, text)
			}
		}
		if len(comments) != 1 {
			faults = append(faults, fmt.Sprintf("%s: has %d package comments, not one", p.dir, len(comments)))
			continue
		}
		name := p.code()[0].ast.Name.Name
		start := "Package " + name
		if name == "main" {
			start = "Command " + path.Base(p.dir)
		}
		if rest, ok := strings.CutPrefix(comments[0], start); !ok || !strings.ContainsAny(rest[:1], " \n") {
			faults = append(faults, fmt.Sprintf("%s: the package comment does not begin %q", p.dir, start))
		}
	}
	return faults
}

var (
	// These are put together here so that the rule does not find itself.
	outside    = []byte("../" + "shared")
	unfinished = regexp.MustCompile(`\b(` + "TO" + "DO|FIX" + "ME" + `)\b`)
)

// checkLeftovers: no file refers to what lies outside the repository, no Go file holds a note of unfinished work.
func checkLeftovers(t *tree) []string {
	var faults []string
	for _, name := range slices.Sorted(maps.Keys(t.content)) {
		for i, line := range bytes.Split(t.content[name], []byte("\n")) {
			if bytes.Contains(line, outside) {
				faults = append(faults, fmt.Sprintf("%s:%d: refers to %s, which is no part of the repository", name, i+1, outside))
			}
			if note := unfinished.Find(line); note != nil && path.Ext(name) == ".go" {
				faults = append(faults, fmt.Sprintf("%s:%d: %s: finish it or write it down where it is planned", name, i+1, note))
			}
		}
	}
	return faults
}

// checkDependencies: docs/dependencies.md names every direct dependency of go.mod.
func checkDependencies(t *tree) []string {
	const document = "docs/dependencies.md"
	var faults []string
	for _, dependency := range directDependencies(string(t.content["go.mod"])) {
		named := regexp.MustCompile(`(^|[^\w./-])` + regexp.QuoteMeta(dependency) + `($|[^\w/-])`)
		if !named.Match(t.content[document]) {
			faults = append(faults, document+": does not name "+dependency+", which go.mod requires")
		}
	}
	return faults
}

func directDependencies(gomod string) []string {
	var dependencies []string
	block := false
	for line := range strings.Lines(gomod) {
		line = strings.TrimSpace(line)
		single, isSingle := strings.CutPrefix(line, "require ")
		switch {
		case line == "require (":
			block = true
			continue
		case line == ")":
			block = false
		case isSingle:
			line = single
		}
		fields := strings.Fields(line)
		if (block || isSingle) && len(fields) >= 2 && !strings.HasPrefix(line, "//") && !strings.HasSuffix(line, "// indirect") {
			dependencies = append(dependencies, fields[0])
		}
	}
	return dependencies
}

// environmentReaders may read the environment: internal/config for the programs, the others for PATH, HOME and the like.
var environmentReaders = []string{"internal/config", "internal/devstack", "cmd"}

var environmentFunctions = []string{"Getenv", "LookupEnv", "Environ", "ExpandEnv"}

// checkEnvironment: settings come from internal/config; no other code looks them up itself.
func checkEnvironment(t *tree) []string {
	var faults []string
	for _, p := range t.packages {
		if below(p.dir, environmentReaders...) {
			continue
		}
		for _, file := range p.code() {
			imports := file.imports()
			for imported := range imports {
				if below(imported, "github.com/caarlos0/env") {
					faults = append(faults, file.path+": imports "+imported+": only internal/config reads the environment")
				}
			}
			ast.Inspect(file.ast, func(n ast.Node) bool {
				expression, _ := n.(ast.Expr)
				for _, library := range []string{"os", "syscall"} {
					if name, ok := selected(expression, imports[library]); ok && slices.Contains(environmentFunctions, name) {
						faults = append(faults, fmt.Sprintf("%s: %s.%s: only internal/config reads the environment", file.path, library, name))
					}
				}
				return true
			})
		}
	}
	return faults
}
