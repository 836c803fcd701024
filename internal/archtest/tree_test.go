package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

const module = "github.com/ai-cherry/morello"

// tree is a repository, read and parsed once.
type tree struct {
	content  map[string][]byte // every regular file by its slash-separated path
	packages []*pkg            // by dir
}

// pkg is one folder with Go files.
type pkg struct {
	dir   string
	files []source
}

type source struct {
	path string
	test bool
	ast  *ast.File
}

// ignoredDirs are folders that .gitignore names, and git's own.
var ignoredDirs = []string{".git", ".morello", "bin", "dist"}

func readTree(files fs.FS) (*tree, error) {
	result := &tree{content: map[string][]byte{}}
	byDir := map[string]*pkg{}
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (slices.Contains(ignoredDirs, name) || path.Base(name) == "node_modules"):
			return fs.SkipDir
		case !entry.Type().IsRegular():
			return nil
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		result.content[name] = text
		if path.Ext(name) != ".go" || outsideBuild(name) {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := path.Dir(name)
		if byDir[dir] == nil {
			byDir[dir] = &pkg{dir: dir}
			result.packages = append(result.packages, byDir[dir])
		}
		byDir[dir].files = append(byDir[dir].files, source{path: name, test: strings.HasSuffix(name, "_test.go"), ast: file})
		return nil
	})
	slices.SortFunc(result.packages, func(a, b *pkg) int { return strings.Compare(a.dir, b.dir) })
	return result, err
}

// outsideBuild reports whether the go command ignores the file because of a folder that it lies in.
func outsideBuild(name string) bool {
	for _, part := range strings.Split(path.Dir(name), "/") {
		if part == "testdata" || part == "vendor" || part[0] == '_' || (part[0] == '.' && part != ".") {
			return true
		}
	}
	return false
}

// code returns the files of the package that are no tests.
func (p *pkg) code() []source {
	return slices.DeleteFunc(slices.Clone(p.files), func(s source) bool { return s.test })
}

// find returns the package in a folder, empty if there is none.
func (t *tree) find(dir string) *pkg {
	for _, p := range t.packages {
		if p.dir == dir {
			return p
		}
	}
	return &pkg{dir: dir}
}

// imports returns what the file imports, each path with the name that the file uses for it.
func (s source) imports() map[string]string {
	result := map[string]string{}
	for _, spec := range s.ast.Imports {
		imported := importPath(spec)
		result[imported] = path.Base(imported)
		if spec.Name != nil {
			result[imported] = spec.Name.Name
		}
	}
	return result
}

func importPath(spec *ast.ImportSpec) string {
	imported, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		return spec.Path.Value
	}
	return imported
}

// selected returns the name after the dot if the expression is <qualifier>.<name>.
func selected(expression ast.Expr, qualifier string) (string, bool) {
	selector, ok := expression.(*ast.SelectorExpr)
	if !ok {
		return "", false
	}
	left, ok := selector.X.(*ast.Ident)
	return selector.Sel.Name, ok && qualifier != "" && left.Name == qualifier
}

// below reports whether dir is one of the folders or lies in one.
func below(dir string, folders ...string) bool {
	return slices.ContainsFunc(folders, func(folder string) bool {
		return dir == folder || strings.HasPrefix(dir, folder+"/")
	})
}
