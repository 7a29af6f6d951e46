package main_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// write has TestArchitecture bring the tables in ARCHITECTURE.md up to date: go test . -write
var write = flag.Bool("write", false, "write the tables to ARCHITECTURE.md")

const module = "github.com/openvantage/vantage"

// imports holds, for each package, the packages of this module that it may import. Those below
// e2e are tests: they may import what they like, and nobody may import them.
var imports = map[string]string{
	"fault":       "",
	"network":     "fault",
	"country":     "fault",
	"probe":       "country fault network",
	"measurement": "country fault jsonlex network",
	"testlist":    "country fault measurement",
	"access":      "fault network probe",
	"coverage":    "country fault network probe",
	"alert":       "country fault probe",
	"replay":      "alert country coverage fault network probe",

	"archive":     "country fault measurement",
	"jsonlex":     "",
	"geo":         "country network",
	"events":      "alert country coverage measurement network probe",
	"migrations":  "",
	"db":          "access alert archive country coverage events fault measurement migrations network probe testlist",
	"db/embedded": "fault",
	"db/dbtest":   "db db/embedded migrations",
	"notify":      "alert fault",
	"service":     "access alert archive country coverage db events fault measurement network notify probe testlist",
	"jobs":        "db service",

	"engine":      "fault jsonlex",
	"graph":       "access alert country coverage db events fault graph/model measurement network probe",
	"graph/model": "access alert country coverage db events fault measurement network probe testlist",
	"resolvers":   "access alert country coverage db engine events fault graph graph/model measurement network probe service testlist",
	"ooni":        "fault network probe",
	"ooniapi":     "access country db fault measurement network probe service testlist",
	"web":         "",
	"server":      "access archive client country db engine fault geo graph graph/model jobs measurement network notify ooni ooniapi probe resolvers service web",

	"client":     "country fault measurement network probe",
	"simulation": "client country fault measurement network probe",
	"main":       "access archive client country coverage db db/embedded events fault measurement network probe replay server service simulation testlist",

	"country/gen":         "",
	"archive/archivetest": "programtest",
	"client/clienttest":   "fault",
	"notify/notifytest":   "programtest",
	"programtest":         "",
}

// rules are the packages that take values and return values.
var rules = []string{"fault", "country", "network", "probe", "coverage", "alert", "replay", "measurement", "testlist", "access"}

// impure says what a rule must not import, as path.Match has it, nor call.
var (
	impureImports = []string{
		"context", "net", "net/*", "net/*/*", "os", "os/*", "database/*", "database/*/*", "log", "log/*", "syscall", "unsafe",
		"math/rand", "math/rand/*", "crypto/rand", "github.com/jackc/*", "github.com/jackc/*/*", "github.com/jackc/*/*/*",
	}
	impureCalls = map[string][]string{
		"time": {"Now", "Since", "Until", "After", "AfterFunc", "NewTicker", "NewTimer", "Sleep", "Tick"},
	}
)

// A sourceFile is a Go file that is not a test, with its comments.
type sourceFile struct {
	path      string
	generated bool
	*ast.File
}

// source returns the module's packages by their path in the tree; the root's is "main".
var source = sync.OnceValues(func() (map[string][]sourceFile, error) {
	packages := map[string][]sourceFile{}
	err := walk(func(name string) error {
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "tools/") || strings.Contains(name, "testdata/") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := path.Dir(name)
		if dir == "." {
			dir = "main"
		}
		packages[dir] = append(packages[dir], sourceFile{name, ast.IsGenerated(file), file})
		return nil
	})
	return packages, err
})

// walk calls fn with the slash-separated path of every file that belongs to the project.
func walk(fn func(name string) error) error {
	skip := []string{".git", ".cache", "bin", "var", "node_modules", "web/dist"}
	return filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		name = filepath.ToSlash(name)
		switch {
		case err != nil:
			return err
		case d.IsDir() && (slices.Contains(skip, name) || slices.Contains(skip, path.Base(name))):
			return fs.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		return fn(name)
	})
}

func sources(t *testing.T) map[string][]sourceFile {
	t.Helper()
	packages, err := source()
	if err != nil {
		t.Fatal(err)
	}
	return packages
}

func importsOf(t *testing.T, f sourceFile) []string {
	t.Helper()
	var all []string
	for _, spec := range f.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func TestImports(t *testing.T) {
	t.Parallel()
	packages := sources(t)

	t.Run("every import within the module is in the table", func(t *testing.T) {
		t.Parallel()
		for name, files := range packages {
			if name == "e2e" || strings.HasPrefix(name, "e2e/") {
				continue
			}
			allowed, listed := imports[name]
			if !listed {
				t.Errorf("package %s is not in the table of imports", name)
				continue
			}
			unused := strings.Fields(allowed)
			for _, f := range files {
				for _, p := range importsOf(t, f) {
					local, ok := strings.CutPrefix(p, module+"/")
					if !ok {
						continue
					}
					if !slices.Contains(strings.Fields(allowed), local) {
						t.Errorf("%s imports %s, which the table does not allow package %s", f.path, local, name)
					}
					unused = slices.DeleteFunc(unused, func(s string) bool { return s == local })
				}
			}
			for _, local := range unused {
				if packages[local] != nil {
					t.Errorf("the table allows package %s to import %s, and it does not", name, local)
				}
			}
		}
	})
}

func TestArchitecture(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, block := range []struct{ name, want string }{
		{"imports", importTable()},
		{"states", table(t, "probe/testdata/states.md")},
		{"workflows", table(t, "probe/testdata/workflows.md")},
		{"coverage", table(t, "coverage/testdata/states.md")},
	} {
		begin, end := "<!-- "+block.name+" -->\n", "<!-- /"+block.name+" -->"
		before, rest, ok1 := strings.Cut(text, begin)
		shown, after, ok2 := strings.Cut(rest, end)
		if !ok1 || !ok2 {
			t.Fatalf("it has no place for %s, between %q and %q", block.name, strings.TrimSpace(begin), end)
		}
		if *write {
			text = before + begin + block.want + end + after
		} else if diff := cmp.Diff(block.want, shown); diff != "" {
			t.Errorf("run go test . -write\n%s", diff)
		}
	}
	if *write {
		if err := os.WriteFile("ARCHITECTURE.md", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// table is a generated file after the line that says so.
func table(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(b), "-->\n")
	return text
}

// importTable is the table of imports in Markdown.
func importTable() string {
	var b strings.Builder
	b.WriteString("| package | may import |\n|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(imports)) {
		allowed := strings.Join(strings.Fields(imports[name]), "`, `")
		if allowed != "" {
			allowed = "`" + allowed + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", name, allowed)
	}
	return b.String()
}

func TestRulesArePure(t *testing.T) {
	t.Parallel()
	packages := sources(t)
	for _, name := range rules {
		t.Run(name+" asks nobody but its arguments", func(t *testing.T) {
			t.Parallel()
			for _, f := range packages[name] {
				for _, complaint := range impurities(t, f) {
					t.Errorf("%s %s", f.path, complaint)
				}
			}
		})
	}

	t.Run("the test itself finds what it looks for", func(t *testing.T) {
		t.Parallel()
		const bad = "package bad\nimport (\"net/http\"; clock \"time\"; \"github.com/jackc/pgx/v5\")\nvar f, d = clock.Now, clock.Second\n"
		file, err := parser.ParseFile(token.NewFileSet(), "bad.go", bad, 0)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"imports net/http", "imports github.com/jackc/pgx/v5", "uses time.Now"}
		if diff := cmp.Diff(want, impurities(t, sourceFile{File: file})); diff != "" {
			t.Error(diff)
		}
	})
}

func impurities(t *testing.T, f sourceFile) (found []string) {
	t.Helper()
	packageOf := map[string]string{} // local name to path
	for i, p := range importsOf(t, f) {
		local := path.Base(p)
		if f.Imports[i].Name != nil {
			local = f.Imports[i].Name.Name
		}
		packageOf[local] = p
		if slices.ContainsFunc(impureImports, func(pattern string) bool { ok, _ := path.Match(pattern, p); return ok }) {
			found = append(found, "imports "+p)
		}
	}
	ast.Inspect(f.File, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && slices.Contains(impureCalls[packageOf[x.Name]], s.Sel.Name) {
				found = append(found, "uses "+packageOf[x.Name]+"."+s.Sel.Name)
			}
		}
		return true
	})
	return found
}

var sentenceEnd = regexp.MustCompile(`[.?!]\)?(\s|$)`)

func TestPackageComments(t *testing.T) {
	t.Parallel()
	for name, files := range sources(t) {
		t.Run(name+" says what it is for", func(t *testing.T) {
			t.Parallel()
			var comments []string
			for _, f := range files {
				if f.Doc != nil && !f.generated {
					comments = append(comments, f.Doc.Text())
				}
			}
			if len(comments) != 1 {
				t.Fatalf("it has %d package comments, want 1", len(comments))
			}
			want := "Package " + files[0].Name.Name + " "
			switch {
			case name == "main":
				want = "Vantage "
			case files[0].Name.Name == "main":
				command := path.Base(name)
				want = strings.ToUpper(command[:1]) + command[1:] + " "
				comments[0] = strings.Replace(comments[0], "Command "+command, strings.TrimSpace(want), 1)
			}
			if !strings.HasPrefix(comments[0], want) {
				t.Errorf("its comment begins %.40q, want %q", comments[0], want)
			}
			if n := len(sentenceEnd.FindAllString(comments[0], -1)); n < 2 {
				t.Errorf("its comment has %d sentence, want what question it answers and what must not be in it", n)
			}
		})
	}
}

func TestSettingsAreInTheReadme(t *testing.T) {
	t.Parallel()
	files := sources(t)["server"]
	i := slices.IndexFunc(files, func(f sourceFile) bool { return f.path == "server/config.go" })
	if i < 0 {
		t.Fatal("there is no server/config.go")
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	settings := 0
	ast.Inspect(files[i].File, func(n ast.Node) bool {
		field, ok := n.(*ast.Field)
		if !ok || field.Tag == nil {
			return true
		}
		tag, err := strconv.Unquote(field.Tag.Value)
		if err != nil {
			t.Fatal(err)
		}
		names, ok := reflect.StructTag(tag).Lookup("env")
		if !ok {
			return true
		}
		for name := range strings.SplitSeq(names, ",") {
			settings++
			if !regexp.MustCompile(`\b` + regexp.QuoteMeta(name) + `\b`).Match(readme) {
				t.Errorf("README.md does not mention %s", name)
			}
		}
		return true
	})
	if settings == 0 {
		t.Error("server/config.go has no setting with an env tag")
	}
}

// hosts serve packages or parts of pages. A tree that names one builds, or works, only where
// that one is reachable. They are put together here so that this file does not name them.
var hosts = func() []string {
	var all []string
	for domain, names := range map[string]string{
		"org": "proxy.golang sum.golang registry.npmjs deb.debian security.debian pypi",
		"io":  "goproxy registry-1.docker ghcr quay",
		"com": "registry.yarnpkg unpkg cdnjs.cloudflare",
		"net": "cdn.jsdelivr",
		"sh":  "esm",
		"cn":  "goproxy",
	} {
		for name := range strings.FieldsSeq(names) {
			all = append(all, name+"."+domain)
		}
	}
	return all
}()

func TestNoRegistryIsNamed(t *testing.T) {
	t.Parallel()
	quoted := make([]string, len(hosts))
	for i, host := range hosts {
		quoted[i] = regexp.QuoteMeta(host)
	}
	named := regexp.MustCompile(`(?i)\b(` + strings.Join(quoted, "|") + `)\b`)
	read := 0
	err := walk(func(name string) error {
		b, err := os.ReadFile(name)
		if err != nil || !utf8.Valid(b) {
			return err
		}
		read++
		if host := named.Find(b); host != nil {
			t.Errorf("%s names %s", name, host)
		}
		return nil
	})
	if err != nil || read == 0 {
		t.Errorf("read %d files: %v", read, err)
	}
}
