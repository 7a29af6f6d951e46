package server_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"

	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/graph"
)

// An everything writes documents that ask for all there is, so that no field is forgotten when
// the schema grows.
type everything struct {
	depth     int
	arguments map[string]string // by "field.argument" or ".argument", as they are written
	fragments map[string]string
}

func newEverything(arguments map[string]string) *everything {
	all := map[string]string{"checkIn.input": `{country: "IT"}`, "testList.country": `"IT"`}
	maps.Copy(all, arguments)
	return &everything{depth: 3, arguments: all, fragments: map[string]string{}}
}

// document asks for a root field and all below it.
func (e *everything) document(operation string, f *ast.FieldDefinition) string {
	clear(e.fragments)
	var b strings.Builder
	fmt.Fprintf(&b, "%s { %s }\n", operation, e.field("", f, e.depth))
	for _, name := range slices.Sorted(maps.Keys(e.fragments)) {
		fmt.Fprintf(&b, "fragment %s %s\n", name, e.fragments[name])
	}
	return b.String()
}

// subscription asks for a field of the type Subscription and what is below it, as deep as aliases
// allow.
func (e *everything) subscription(t *testing.T, f *ast.FieldDefinition) string {
	t.Helper()
	for depth := e.depth; ; depth-- {
		shallow := *e
		shallow.depth = depth
		d, err := parser.ParseQuery(&ast.Source{Input: shallow.document("subscription", f)})
		if err != nil {
			t.Fatal(err)
		}
		aliases := 0
		for _, fragment := range d.Fragments {
			for _, s := range fragment.SelectionSet {
				if field, ok := s.(*ast.Field); ok && field.Alias != field.Name {
					aliases++
				}
			}
		}
		if aliases <= 30 || depth == 1 {
			return d.Fragments[0].Position.Src.Input
		}
	}
}

// ask asks for a root field and what is below it, as deep as the price allows.
func (e *everything) ask(t *testing.T, a *api, token string, f *ast.FieldDefinition) answer {
	t.Helper()
	for depth := e.depth; ; depth-- {
		shallow := *e
		shallow.depth = depth
		r := a.do(t, token, shallow.document("query", f), nil)
		if depth == 1 || len(r.Errors) == 0 || r.Errors[0].Extensions.Code != fault.QueryTooCostly {
			return r
		}
	}
}

func (e *everything) field(alias string, f *ast.FieldDefinition, depth int) string {
	out := alias + f.Name
	var args []string
	for _, a := range f.Arguments {
		v, ok := e.arguments[f.Name+"."+a.Name]
		if !ok {
			v, ok = e.arguments["."+a.Name]
		}
		if ok {
			args = append(args, a.Name+": "+v)
		}
	}
	if len(args) > 0 {
		out += "(" + strings.Join(args, ", ") + ")"
	}
	if d := graph.Schema().Types[f.Type.Name()]; d.IsCompositeType() {
		out += " { ..." + e.fragment(d, depth, false) + " }"
	}
	return out
}

// fragment is the name of one that asks for all of a type, to that depth of entities. Where it is one of many that an
// entity may be, its type and id are asked for once for all of them: no key may be selected more than 20 times.
func (e *everything) fragment(d *ast.Definition, depth int, oneOfMany bool) string {
	name := fmt.Sprintf("%s_%d", d.Name, depth)
	if oneOfMany {
		name = "a_" + name
	}
	if _, ok := e.fragments[name]; ok {
		return name
	}
	e.fragments[name] = "" // it is being written
	var lines []string
	if !oneOfMany {
		lines = append(lines, "__typename")
	}
	if d.IsAbstractType() {
		for _, p := range graph.Schema().PossibleTypes[d.Name] {
			lines = append(lines, "..."+e.fragment(p, depth, true))
		}
	}
	below := depth
	if slices.Contains(d.Interfaces, "Node") {
		below--
	}
	for _, f := range d.Fields {
		if strings.HasPrefix(f.Name, "__") || oneOfMany && f.Name == "id" {
			continue
		}
		leaf := !graph.Schema().Types[f.Type.Name()].IsCompositeType()
		if leaf || below > 0 {
			alias := ""
			if oneOfMany && ambiguous(f) {
				alias = d.Name + "_" + f.Name + ": "
			}
			lines = append(lines, e.field(alias, f, below))
		}
	}
	e.fragments[name] = "on " + d.Name + " { " + strings.Join(lines, " ") + " }"
	return name
}

// ambiguous reports whether entities have fields of this name with different types or
// arguments, which cannot stand beside each other.
func ambiguous(f *ast.FieldDefinition) bool {
	for _, d := range graph.Schema().PossibleTypes["Node"] {
		if other := d.Fields.ForName(f.Name); other != nil && (other.Type.String() != f.Type.String() || len(other.Arguments) != len(f.Arguments)) {
			return true
		}
	}
	return false
}

func rootFields(d *ast.Definition) (all []*ast.FieldDefinition) {
	for _, f := range d.Fields {
		if !strings.HasPrefix(f.Name, "__") {
			all = append(all, f)
		}
	}
	return all
}

// staffOnly are the root fields that everybody else is refused.
var staffOnly = []string{"alertChanged", "alerts", "auditLog", "digests", "investigations", "silences", "tasks", "urlPriorities", "waitlist", "webhooks", "workflows"}

// refused reports whether a query is for staff alone, and fails unless it was then refused.
func (r answer) refused(t *testing.T, f *ast.FieldDefinition) bool {
	t.Helper()
	if !slices.Contains(staffOnly, f.Name) {
		return false
	}
	if len(r.Errors) != 1 || r.Data != nil || r.Errors[0].Extensions.Code != fault.Forbidden && r.Errors[0].Extensions.Code != fault.Unauthenticated {
		t.Errorf("%s is for staff alone, and answered %.2000s", f.Name, r.Raw)
	}
	return true
}

// inside reports whether the text occurs in what an entity says, but not in the lists that it
// leads to, as its country's coverage has.
func inside(v any, text string) bool {
	switch v := v.(type) {
	case string:
		return strings.Contains(v, text)
	case object:
		for k, child := range v {
			if !strings.HasSuffix(k, "edges") && k != "coverage" && inside(child, text) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, func(child any) bool { return inside(child, text) })
	}
	return false
}

// together finds what says both, entity by entity.
func together(v any, a, b string) (found []any) {
	switch v := v.(type) {
	case object:
		kind, _ := v["__typename"].(string)
		alone := []string{
			"Probe", "Measurement", "Event", "Heartbeat", "ProbeStateChange", "MeasurementScored", "Viewer",
			"Coverage", "CoverageChange", "Replacement",
		}
		if slices.Contains(alone, kind) && inside(v, a) && inside(v, b) {
			return []any{v}
		}
		for _, child := range v {
			found = append(found, together(child, a, b)...)
		}
	case []any:
		for _, child := range v {
			found = append(found, together(child, a, b)...)
		}
	}
	return found
}

func TestEverything(t *testing.T) {
	t.Parallel()
	a := start(t)
	p := a.register(t, "IT", 30722)
	uid := str(t, a.submit(t, p.secret, body(nil)), "measurement", "uid")
	e := newEverything(map[string]string{
		".first": "3", ".code": `"IT"`, ".asn": "30722", "probe.id": quoted(p.id), "node.id": quoted("msm_" + uid), ".uid": quoted(uid),
		".ids": fmt.Sprintf(`["msm_%s", %q, "evt_1", "cty_IT", "net_30722"]`, uid, p.id),
	})
	ids := map[string]string{} // of entities, to their types
	for _, f := range rootFields(graph.Schema().Query) {
		r := e.ask(t, a, p.secret, f)
		if r.refused(t, f) {
			continue
		}
		if len(r.Errors) > 0 {
			t.Fatalf("%s: %.3000s", f.Name, r.Raw)
		}
		collect(r.Data, ids)
	}
	kinds := map[string]bool{}
	for id, kind := range ids {
		kinds[kind] = true
		got := a.ask(t, p.secret, "query ($id: ID!) { node(id: $id) { __typename id } nodes(ids: [$id]) { id } }", object{"id": id})
		equal(t, got, object{"node": object{"__typename": kind, "id": id}, "nodes": []any{object{"id": id}}})
	}
	for _, kind := range []string{"Probe", "Measurement", "Country", "Network", "Event"} {
		if !kinds[kind] {
			t.Errorf("no %s was seen among %v", kind, ids)
		}
	}

	t.Run("the id of a token is found by staff alone", func(t *testing.T) {
		t.Parallel()
		admin := a.issue(t, "ADMIN")
		made := a.ask(t, admin, `mutation { createToken(input: {role: RESEARCHER, name: "Ada"}) { token { id } secret } }`, nil)
		id := str(t, made, "createToken", "token", "id")
		const document = "query ($id: ID!) { node(id: $id) { __typename id ... on Token { name role } } }"
		equal(t, a.ask(t, admin, document, object{"id": id}), object{"node": object{"__typename": "Token", "id": id, "name": "Ada", "role": "RESEARCHER"}})
		for _, token := range []string{"", p.secret, str(t, made, "createToken", "secret")} {
			equal(t, a.ask(t, token, document, object{"id": id}), object{"node": nil})
		}
	})
}

// collect gathers the ids of all entities in an answer.
func collect(v any, ids map[string]string) {
	switch v := v.(type) {
	case object:
		kind, _ := v["__typename"].(string)
		if id, ok := v["id"].(string); ok {
			ids[id] = kind
		}
		for _, child := range v {
			collect(child, ids)
		}
	case []any:
		for _, child := range v {
			collect(child, ids)
		}
	}
}
