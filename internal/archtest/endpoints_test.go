package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// checkEndpoints: every endpoint stands in the table of messages.Endpoints once and is bound once, in the endpoints.go
// of a capability.
func checkEndpoints(t *tree) []string {
	endpoints := declaredEndpoints(t)
	inTable := tableEntries(t, endpoints)
	bound, faults := bindings(t, endpoints)
	for _, name := range slices.Sorted(maps.Keys(endpoints)) {
		if n := inTable[name]; n != 1 {
			faults = append(faults, fmt.Sprintf("messages.%s: stands %d times in the table of Endpoints, not once", name, n))
		}
		if places := bound[name]; len(places) != 1 {
			faults = append(faults, fmt.Sprintf("messages.%s: bound %d times by bus.Bind, not once %v", name, len(places), places))
		}
		if endpoints[name] == "" {
			faults = append(faults, fmt.Sprintf("messages.%s: its Name is not written as a string", name))
		}
	}
	return faults
}

// checkGoldens: the request and the reply of every endpoint, the body of every event and the error reply have a golden
// file, <name>.json; fields that exclude each other stand in further ones, <name>.<variant>.json. No other file is there.
func checkGoldens(t *tree) []string {
	const folder = "messages/testdata/"
	var faults []string
	wanted := map[string]bool{}
	for _, name := range goldenNames(t) {
		wanted[name] = true
		if _, ok := t.content[folder+name+".json"]; !ok {
			faults = append(faults, folder+name+".json: missing: every message has a golden file")
		}
	}
	for _, file := range slices.Sorted(maps.Keys(t.content)) {
		name, isGolden := strings.CutSuffix(strings.TrimPrefix(file, folder), ".json")
		if path.Dir(file)+"/" == folder && isGolden && !wanted[name] && !wanted[strings.TrimSuffix(name, path.Ext(name))] {
			faults = append(faults, file+": belongs to no message")
		}
	}
	return faults
}

// goldenNames returns the names of all messages, sorted.
func goldenNames(t *tree) []string {
	names := []string{"error"}
	for _, endpoint := range declaredEndpoints(t) {
		if endpoint != "" {
			names = append(names, endpoint+".request", endpoint+".reply")
		}
	}
	for _, event := range declared(t, "Event") {
		if event != "" {
			names = append(names, event+".event")
		}
	}
	slices.Sort(names)
	return names
}

// declaredEndpoints returns the package-level variables <Something>Endpoint of messages, each with its Name.
func declaredEndpoints(t *tree) map[string]string { return declared(t, "Endpoint") }

// declared returns the package-level variables of messages with a suffix, each with its Name.
func declared(t *tree, suffix string) map[string]string {
	result := map[string]string{}
	for name, value := range packageVars(t.find("messages")) {
		if strings.HasSuffix(name, suffix) {
			result[name] = nameField(value)
		}
	}
	return result
}

// packageVars returns the package-level variables of a package with their values, nil where there is none.
func packageVars(p *pkg) map[string]ast.Expr {
	result := map[string]ast.Expr{}
	for _, file := range p.code() {
		for _, declaration := range file.ast.Decls {
			group, ok := declaration.(*ast.GenDecl)
			if !ok || group.Tok != token.VAR {
				continue
			}
			for _, spec := range group.Specs {
				spec := spec.(*ast.ValueSpec)
				for i, name := range spec.Names {
					result[name.Name] = nil
					if i < len(spec.Values) {
						result[name.Name] = spec.Values[i]
					}
				}
			}
		}
	}
	return result
}

// nameField returns the string of the field Name in a composite literal.
func nameField(value ast.Expr) string {
	literal, ok := value.(*ast.CompositeLit)
	if !ok {
		return ""
	}
	for _, element := range literal.Elts {
		field, ok := element.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		key, isIdent := field.Key.(*ast.Ident)
		text, isText := field.Value.(*ast.BasicLit)
		if isIdent && isText && key.Name == "Name" && text.Kind == token.STRING {
			name, _ := strconv.Unquote(text.Value)
			return name
		}
	}
	return ""
}

// tableEntries counts how often each endpoint is named by the function Endpoints and by the functions and variables of
// messages that it uses.
func tableEntries(t *tree, endpoints map[string]string) map[string]int {
	messages := t.find("messages")
	declarations := map[string]ast.Node{}
	for name, value := range packageVars(messages) {
		if value != nil {
			declarations[name] = value
		}
	}
	for _, file := range messages.code() {
		for _, declaration := range file.ast.Decls {
			if function, ok := declaration.(*ast.FuncDecl); ok && function.Recv == nil && function.Body != nil {
				declarations[function.Name.Name] = function.Body
			}
		}
	}
	counts := map[string]int{}
	var visit func(name string)
	visit = func(name string) {
		node := declarations[name]
		delete(declarations, name)
		if node == nil {
			return
		}
		ast.Inspect(node, func(n ast.Node) bool {
			ident, ok := n.(*ast.Ident)
			if !ok {
				return true
			}
			if _, isEndpoint := endpoints[ident.Name]; isEndpoint {
				counts[ident.Name]++
			} else {
				visit(ident.Name)
			}
			return true
		})
	}
	visit("Endpoints")
	return counts
}

// bindings returns where each endpoint is bound, and the bindings that are not in their place or not of an endpoint.
func bindings(t *tree, endpoints map[string]string) (bound map[string][]string, faults []string) {
	bound = map[string][]string{}
	for _, p := range t.packages {
		if p.dir == "internal/bench" { // its stand-ins answer in the worker's place
			continue
		}
		for _, file := range p.code() {
			for _, argument := range bindArguments(file) {
				name, ok := selected(argument, file.imports()[module+"/messages"])
				if _, declared := endpoints[name]; !ok || !declared {
					faults = append(faults, file.path+": bus.Bind takes an endpoint of messages first, written messages.<Something>Endpoint")
					continue
				}
				bound[name] = append(bound[name], file.path)
				if place, _ := path.Match("internal/*/endpoints.go", file.path); !place {
					faults = append(faults, fmt.Sprintf("%s: binds messages.%s: endpoints are bound in internal/<capability>/endpoints.go", file.path, name))
				}
			}
		}
	}
	return bound, faults
}

// bindArguments returns the first argument of each call of bus.Bind and bus.BindDeferred in the file.
func bindArguments(file source) []ast.Expr {
	var arguments []ast.Expr
	bus := file.imports()[module+"/internal/bus"]
	ast.Inspect(file.ast, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		if name, ok := selected(withoutTypeArguments(call.Fun), bus); ok && (name == "Bind" || name == "BindDeferred") {
			arguments = append(arguments, call.Args[0])
		}
		return true
	})
	return arguments
}

func withoutTypeArguments(function ast.Expr) ast.Expr {
	switch function := function.(type) {
	case *ast.IndexExpr:
		return function.X
	case *ast.IndexListExpr:
		return function.X
	}
	return function
}
