package graph_test

import (
	"flag"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/formatter"

	"github.com/openvantage/vantage/engine"
	"github.com/openvantage/vantage/graph"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// An element is one named thing of the schema that a reader of the manual meets.
type element struct {
	kind, path, name, description string
}

// definitions are our own types by name, without those of GraphQL itself.
func definitions() iter.Seq[*ast.Definition] {
	return func(yield func(*ast.Definition) bool) {
		types := graph.Schema().Types
		for _, name := range slices.Sorted(maps.Keys(types)) {
			if d := types[name]; !d.BuiltIn && !strings.HasPrefix(name, "__") && !yield(d) {
				return
			}
		}
	}
}

// fields are the fields of a type, without those that introspection adds.
func fields(d *ast.Definition) iter.Seq[*ast.FieldDefinition] {
	return func(yield func(*ast.FieldDefinition) bool) {
		for _, f := range d.Fields {
			if !strings.HasPrefix(f.Name, "__") && !yield(f) {
				return
			}
		}
	}
}

// directives are our own.
func directives() []*ast.DirectiveDefinition {
	var own []*ast.DirectiveDefinition
	for _, d := range graph.Schema().Directives {
		if d.Name == "cost" || d.Name == "listSize" {
			own = append(own, d)
		}
	}
	return own
}

func elements() (all []element) {
	for d := range definitions() {
		all = append(all, element{string(d.Kind), d.Name, d.Name, d.Description})
		for f := range fields(d) {
			path := d.Name + "." + f.Name
			all = append(all, element{"FIELD", path, f.Name, f.Description})
			for _, a := range f.Arguments {
				all = append(all, element{"ARGUMENT", path + "(" + a.Name + ")", a.Name, a.Description})
			}
		}
		for _, v := range d.EnumValues {
			all = append(all, element{"VALUE", d.Name + "." + v.Name, v.Name, v.Description})
		}
	}
	for _, d := range directives() {
		all = append(all, element{"DIRECTIVE", "@" + d.Name, d.Name, d.Description})
		for _, a := range d.Arguments {
			all = append(all, element{"ARGUMENT", "@" + d.Name + "(" + a.Name + ")", a.Name, a.Description})
		}
	}
	return all
}

func TestDescriptions(t *testing.T) {
	t.Parallel()
	firstSentence := regexp.MustCompile("^(?s)[A-Z`].*?[.?!](\\s|$)")
	found := elements()
	if len(found) < 300 {
		t.Fatalf("the schema has %d elements: the walk misses some", len(found))
	}
	for _, e := range found {
		if !firstSentence.MatchString(e.description) {
			t.Errorf("%s: %q does not begin with a full sentence", e.path, e.description)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	pascal, camel := regexp.MustCompile(`^[A-Z][A-Za-z0-9]*$`), regexp.MustCompile(`^[a-z][A-Za-z0-9]*$`)
	shapes := map[string]*regexp.Regexp{
		"FIELD": camel, "ARGUMENT": camel, "DIRECTIVE": camel, "VALUE": regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$`),
	}
	prefixed := regexp.MustCompile(`^(get|list|query|fetch)[A-Z]`)
	for _, e := range elements() {
		shape, ok := shapes[e.kind]
		if !ok {
			shape = pascal
		}
		if !shape.MatchString(e.name) {
			t.Errorf("%s is not written as a %s is", e.path, e.kind)
		}
		if e.kind == "FIELD" && prefixed.MatchString(e.name) {
			t.Errorf("%s says how, not what", e.path)
		}
		owner, _, _ := strings.Cut(e.path, ".")
		if own := strings.ToLower(owner[:1]) + owner[1:]; e.kind == "FIELD" && strings.HasPrefix(e.name, own) && e.name != own {
			t.Errorf("%s repeats the name of its type", e.path)
		}
	}
}

func TestReachable(t *testing.T) {
	t.Parallel()
	s := graph.Schema()
	seen := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		d := s.Types[name]
		if seen[name] || d == nil {
			return
		}
		seen[name] = true
		for _, f := range d.Fields {
			visit(f.Type.Name())
			for _, a := range f.Arguments {
				visit(a.Type.Name())
			}
		}
		for _, i := range d.Interfaces {
			visit(i)
		}
		for _, m := range s.PossibleTypes[name] {
			visit(m.Name)
		}
	}
	for _, root := range []*ast.Definition{s.Query, s.Mutation, s.Subscription} {
		visit(root.Name)
	}
	for d := range definitions() {
		if !seen[d.Name] {
			t.Errorf("%s cannot be reached from a root", d.Name)
		}
	}
}

func isEntity(d *ast.Definition) bool {
	return d != nil && d.Kind == ast.Object && slices.Contains(d.Interfaces, "Node")
}

func isConnection(name string) bool { return strings.HasSuffix(name, "Connection") }

// outputs are the fields of what is answered, with their path.
func outputs() iter.Seq2[string, *ast.FieldDefinition] {
	return func(yield func(string, *ast.FieldDefinition) bool) {
		for d := range definitions() {
			if d.Kind != ast.Object && d.Kind != ast.Interface {
				continue
			}
			for f := range fields(d) {
				if !yield(d.Name+"."+f.Name, f) {
					return
				}
			}
		}
	}
}

func TestLists(t *testing.T) {
	t.Parallel()
	bounded := regexp.MustCompile(`(?i)(at most|up to) [0-9,]+`)
	s := graph.Schema()
	connections := 0
	sized := map[string]bool{} // by the field that returns their type
	for _, f := range outputs() {
		if size := f.Directives.ForName("listSize"); size != nil {
			if names := size.Arguments.ForName("sizedFields"); names != nil {
				for _, child := range names.Value.Children {
					sized[f.Type.Name()+"."+child.Value.Raw] = true
				}
			}
		}
	}
	for path, f := range outputs() {
		item := s.Types[f.Type.Name()]
		if f.Type.Elem != nil {
			// Null stands for an id that finds nothing, so that answers keep the order of the question.
			if !f.Type.Elem.NonNull && path != "Query.nodes" {
				t.Errorf("%s has items that may be null", path)
			}
			if !isConnection(strings.TrimSuffix(path, ".edges")) && !bounded.MatchString(f.Description) {
				t.Errorf("%s is a plain list, and %q does not say how long it can be", path, f.Description)
			}
			if isConnection(strings.TrimSuffix(path, ".edges")) && !bounded.MatchString(f.Description) {
				t.Errorf("%s does not say how long a page can be", path)
			}
			size := f.Directives.ForName("listSize")
			if short := strings.Contains(f.Description, "at most 1 thing"); size == nil && item.IsCompositeType() && !sized[path] && !short {
				t.Errorf("%s has no @listSize, so its cost is unknown", path)
			}
			if size != nil && (value(size, "slicingArguments") == "") != (value(size, "requireOneSlicingArgument") == "false") {
				t.Errorf("%s must ask for a slicing argument if it has any", path)
			}
			continue
		}
		if !isConnection(item.Name) {
			continue
		}
		connections++
		if !f.Type.NonNull {
			t.Errorf("%s may be null", path)
		}
		for name, kind := range map[string]string{"first": "Int", "after": "Cursor", "last": "Int", "before": "Cursor"} {
			if a := f.Arguments.ForName(name); a == nil || a.Type.String() != kind {
				t.Errorf("%s has no argument %s: %s", path, name, kind)
			}
		}
		size, cost := f.Directives.ForName("listSize"), f.Directives.ForName("cost")
		if size == nil || value(size, "slicingArguments") != `["first","last"]` || value(size, "sizedFields") != `["edges"]` {
			t.Errorf("%s has not the @listSize of a connection", path)
		}
		if cost == nil {
			t.Errorf("%s has no @cost", path)
		}
		edge := s.Types[item.Fields.ForName("edges").Type.Name()]
		if item.Fields.ForName("pageInfo").Type.String() != "PageInfo!" || edge.Fields.ForName("cursor").Type.String() != "Cursor!" ||
			!isEntity(s.Types[edge.Fields.ForName("node").Type.Name()]) && item.Name != "TestListEntryConnection" { // a line of a list is nothing by itself
			t.Errorf("%s is not a connection as Relay has it", item.Name)
		}
	}
	if connections == 0 {
		t.Error("no connection was looked at")
	}
}

// value is an argument of a directive as it is written, "" when it is absent.
func value(d *ast.Directive, name string) string {
	if a := d.Arguments.ForName(name); a != nil {
		return a.Value.String()
	}
	return ""
}

func TestMutations(t *testing.T) {
	t.Parallel()
	s := graph.Schema()
	for f := range fields(s.Mutation) {
		x := strings.ToUpper(f.Name[:1]) + f.Name[1:]
		if len(f.Arguments) != 1 || f.Arguments[0].Name != "input" || f.Arguments[0].Type.String() != x+"Input!" {
			t.Errorf("%s does not take one input: %sInput!", f.Name, x)
			continue
		}
		if key := s.Types[x+"Input"].Fields.ForName("idempotencyKey"); key == nil || key.Type.String() != "String" {
			t.Errorf("%sInput has no idempotencyKey", x)
		}
		if f.Type.String() != x+"Payload!" {
			t.Errorf("%s returns %s, want %sPayload!", f.Name, f.Type, x)
			continue
		}
		if e := s.Types[x+"Payload"].Fields.ForName("userErrors"); e == nil || e.Type.String() != "[UserError!]!" {
			t.Errorf("%sPayload has no userErrors: [UserError!]!", x)
		}
		if f.Directives.ForName("cost") == nil {
			t.Errorf("%s has no @cost", f.Name)
		}
	}
}

func TestScalars(t *testing.T) {
	t.Parallel()
	for d := range definitions() {
		if d.Kind != ast.Scalar {
			continue
		}
		if by := d.Directives.ForName("specifiedBy"); by == nil || !strings.Contains(value(by, "url"), "https://") {
			t.Errorf("%s does not say what specifies it", d.Name)
		}
	}

	t.Run("JSON is only what somebody else wrote, and what a rule looked at", func(t *testing.T) {
		t.Parallel()
		allowed := []string{"Measurement.body", "OfflineCause.inputs", "Scores.analysis", "Scores.extra", "Scores.verbatim"}
		var found []string
		for d := range definitions() {
			for f := range fields(d) {
				if f.Type.Name() == "JSON" {
					found = append(found, d.Name+"."+f.Name)
				}
				for _, a := range f.Arguments {
					if a.Type.Name() == "JSON" {
						t.Errorf("%s.%s takes JSON", d.Name, f.Name)
					}
				}
			}
		}
		if diff := cmp.Diff(allowed, found); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("the raw body has its size and its hash beside it", func(t *testing.T) {
		t.Parallel()
		m := graph.Schema().Types["Measurement"]
		for name, kind := range map[string]string{"bodySizeBytes": "Int!", "bodySha256": "String!"} {
			if f := m.Fields.ForName(name); f == nil || f.Type.String() != kind {
				t.Errorf("there is no %s: %s", name, kind)
			}
		}
	})
}

// closedEnums will get no new value, and why.
var closedEnums = map[string]string{
	"OrderDirection":    "there are two ways to sort",
	"MeasurementFormat": "an input: what clients send, not what they must understand",
}

func TestEnums(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for d := range definitions() {
		if d.Kind != ast.Enum {
			continue
		}
		open := regexp.MustCompile(`New (values|codes) may be added\.`).MatchString(d.Description)
		_, closed := closedEnums[d.Name]
		used[d.Name] = true
		if open == closed {
			t.Errorf("%s: open %v, in the list of closed ones %v", d.Name, open, closed)
		}
	}
	for name := range closedEnums {
		if !used[name] {
			t.Errorf("%s is no enum", name)
		}
	}
}

func TestNullability(t *testing.T) {
	t.Parallel()
	always := []string{"ID", "Cursor"} // leaf ids; timestamps and enums may be absent by their meaning
	for path, f := range outputs() {
		if slices.Contains(always, f.Type.Name()) && !f.Type.NonNull && f.Type.Elem == nil && !strings.HasPrefix(path, "PageInfo.") {
			t.Errorf("%s may be null", path)
		}
		if f.Type.Name() == "Int" && regexp.MustCompile(`(?i)(seq|uptime|queueDepth|population)$`).MatchString(path) {
			t.Errorf("%s does not fit in 32 bits", path)
		}
	}

	t.Run("what is looked up by a key may be absent", func(t *testing.T) {
		t.Parallel()
		looked := 0
		for f := range fields(graph.Schema().Query) {
			// An input is a question, such as that of checkIn, and no key.
			if !slices.ContainsFunc(f.Arguments, func(a *ast.ArgumentDefinition) bool { return a.Type.NonNull && a.Type.Elem == nil && a.Name != "input" }) {
				continue
			}
			looked++
			if f.Type.NonNull {
				t.Errorf("Query.%s is looked up by a key and may not be null", f.Name)
			}
		}
		if looked < 5 {
			t.Errorf("only %d fields are looked up by a key", looked)
		}
	})
}

func TestSubscriptions(t *testing.T) {
	t.Parallel()
	s := graph.Schema()
	for f := range fields(s.Subscription) {
		payload := s.Types[f.Type.Name()]
		for name, kind := range map[string]string{"cursor": "Cursor!", "seq": "BigInt!", "occurredAt": "DateTime!"} {
			if p := payload.Fields.ForName(name); p == nil || p.Type.String() != kind {
				t.Errorf("%s, of Subscription.%s, has no %s: %s", payload.Name, f.Name, name, kind)
			}
		}
		if !regexp.MustCompile(`(?i)delivered|replayed|at most once`).MatchString(f.Description) {
			t.Errorf("Subscription.%s does not say what is delivered: %q", f.Name, f.Description)
		}
		if a := f.Arguments.ForName("filter"); a != nil && !strings.HasSuffix(a.Type.Name(), "Filter") {
			t.Errorf("Subscription.%s is filtered by %s", f.Name, a.Type)
		}
	}
	for name, query := range map[string]string{
		"probeStateChanged": "probes", "heartbeatReceived": "probes", "measurementScored": "measurements", "events": "events",
	} {
		a, b := s.Subscription.Fields.ForName(name).Arguments.ForName("filter"), s.Query.Fields.ForName(query).Arguments.ForName("filter")
		if a.Type.String() != b.Type.String() {
			t.Errorf("%s is filtered by %s, and the query %s by %s", name, a.Type, query, b.Type)
		}
	}
}

func TestEntities(t *testing.T) {
	t.Parallel()
	noPage := map[string]string{
		"Token": "nobody cites a credential", "Webhook": "nor where events go", "Silence": "it is of use to operators, while it lasts",
		"Digest": "it speaks of alerts, which have pages", "TestListVersion": "its source is where it is cited from",
		"UrlPriority":       "it is of use to operators, while it holds",
		"FaultyMeasurement": "its measurement has one",
	}
	entities := 0
	for d := range definitions() {
		if !isEntity(d) {
			continue
		}
		entities++
		page := d.Fields.ForName("url")
		if page == nil {
			page = d.Fields.ForName("permalink")
		}
		if ok := page != nil && page.Type.String() == "URL!"; ok == (noPage[d.Name] != "") {
			t.Errorf("%s: a url or permalink %v, in the list of exceptions %v", d.Name, ok, noPage[d.Name] != "")
		}
	}
	if entities < 5 {
		t.Errorf("only %d entities were found", entities)
	}
}

func TestOrders(t *testing.T) {
	t.Parallel()
	for path, f := range outputs() {
		by := f.Arguments.ForName("orderBy")
		if by == nil {
			continue
		}
		input := graph.Schema().Types[by.Type.Name()]
		field, direction := input.Fields.ForName("field"), input.Fields.ForName("direction")
		if field == nil || graph.Schema().Types[field.Type.Name()].Kind != ast.Enum || direction == nil ||
			direction.Type.String() != "OrderDirection!" || len(input.Fields) != 2 {
			t.Errorf("%s is not ordered by a field and a direction", path)
		}
		if !strings.Contains(by.Description, "ties are broken by") {
			t.Errorf("%s does not say what makes its order total", path)
		}
	}
}

// A question writes the document that asks for everything below a root field once: all that its
// object has, the largest page of its lists, and of the items all but further lists of
// entities, histories, and what takes a query of its own.
type question struct{ strings.Builder }

func (q *question) field(f *ast.FieldDefinition, alias string, path []string) {
	d := graph.Schema().Types[f.Type.Name()]
	fmt.Fprintf(q, "%s: %s", alias, f.Name)
	if args := arguments(f); args != "" {
		fmt.Fprintf(q, "(%s)", args)
	}
	if !d.IsCompositeType() {
		q.WriteByte(' ')
		return
	}
	kinds := []*ast.Definition{d}
	if d.IsAbstractType() {
		kinds = slices.DeleteFunc(slices.Clone(graph.Schema().PossibleTypes[d.Name]), func(k *ast.Definition) bool { return slices.Contains(path, k.Name) })
	}
	q.WriteString(" { __typename ")
	for _, k := range kinds {
		fmt.Fprintf(q, "... on %s { __typename ", k.Name)
		for child := range fields(k) {
			of := graph.Schema().Types[child.Type.Name()]
			list := isConnection(of.Name) || child.Type.Elem != nil && (isEntity(of) || child.Arguments.ForName("since") != nil) ||
				of.IsCompositeType() && child.Directives.ForName("cost") != nil || of.Name == "Coverage" // which has many lists
			if item := len(path) > 0 || f.Type.Elem != nil; list && item && child.Name != "edges" || slices.Contains(path, of.Name) {
				continue
			}
			q.field(child, k.Name+"_"+child.Name, append(slices.Clone(path), d.Name, k.Name))
		}
		q.WriteString("} ")
	}
	q.WriteString("} ")
}

// arguments gives a field what it must have, and the largest page.
func arguments(f *ast.FieldDefinition) string {
	var given []string
	for _, a := range f.Arguments {
		switch {
		case a.Name == "first":
			given = append(given, "first: 100")
		case a.Type.NonNull && a.Type.Elem != nil:
			given = append(given, a.Name+": ["+strings.Repeat(example(a.Type.Elem)+" ", 100)+"]")
		case a.Type.NonNull:
			given = append(given, a.Name+": "+example(a.Type))
		}
	}
	return strings.Join(given, ", ")
}

// example is a value of an input type.
func example(kind *ast.Type) string {
	d := graph.Schema().Types[kind.Name()]
	switch {
	case kind.Elem != nil:
		return "[]"
	case d.Kind == ast.Enum:
		return d.EnumValues[0].Name
	case d.Kind == ast.InputObject:
		var given []string
		for _, f := range d.Fields {
			if f.Type.NonNull && f.DefaultValue == nil {
				given = append(given, f.Name+": "+example(f.Type))
			}
		}
		return "{" + strings.Join(given, ", ") + "}"
	case d.Name == "Boolean":
		return "true"
	case d.Name == "Int" || d.Name == "Float":
		return "1"
	}
	return `"x"`
}

func TestCost(t *testing.T) {
	t.Parallel()
	s := graph.Schema()
	for operation, root := range map[string]*ast.Definition{"query": s.Query, "mutation": s.Mutation, "subscription": s.Subscription} {
		for f := range fields(root) {
			t.Run(fmt.Sprintf("%s.%s stays below the limit", root.Name, f.Name), func(t *testing.T) {
				t.Parallel()
				var q question
				q.field(f, "all", nil)
				document := operation + " { " + q.String() + "}"
				points, err := engine.Cost(s, document, nil)
				if err != nil {
					t.Fatalf("%v in %.500s", err, document)
				}
				t.Logf("at most %d points", points)
				if points > engine.DefaultLimits.Cost {
					t.Errorf("it can cost %d points, more than %d: %.500s", points, engine.DefaultLimits.Cost, document)
				}
				if operation == "mutation" && points < 2 {
					t.Error("it costs nothing")
				}
			})
		}
	}

	for name, c := range map[string]struct {
		document string
		want     int // negative for what is above the limit
	}{
		"a page of measurements costs a point for each object": {
			"{ measurements(first: 100) { pageInfo { endCursor } edges { cursor node { uid anomaly probe { id } country { name } network { asn } } } } }", 2 + 100*4,
		},
		"a board of all probes costs a point for each object": {
			"{ probeBoard { cursor cells { id state country { code } network { asn } } } }", 51 + 5000*3,
		},
		"a page of the log with the subjects of its events": {
			"{ events(first: 100) { edges { node { id subject { ... on Probe { id country { code } network { asn } } } } } } }", 1 + 100*14,
		},
		"a page of probes with why they are silent": {
			"{ probes(first: 100) { edges { node { id offlineCause { cause explanation evidence { kind } nearestChange { explanation } } } } } }", 1 + 100*4,
		},
		"a page of each cell of a board is too much": {
			"{ probeBoard { cells { country { measurements(first: 100) { edges { node { uid } } } } } } }", -1,
		},
		"a page of a page of a page is too much": {
			"{ probes(first: 100) { edges { node { country { probes(first: 100) { edges { node { network { measurements(first: 100) { edges { node { uid } } } } } } } } } } } }", -1,
		},
		"a page of each of a page is not": {
			"{ probes(first: 100) { edges { node { country { measurements(first: 10) { edges { node { uid } } } } } } } }", 1 + 100*(1+1+2+10),
		},
		"ids are paid one by one": {`{ nodes(ids: ["a", "b", "c"]) { id } }`, 1 + 3},
		"raw bodies cost more":    {`{ measurements(first: 10) { edges { node { body } } } }`, 2 + 10*51},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			points, err := engine.Cost(s, c.document, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.want < 0 && points <= engine.DefaultLimits.Cost || c.want >= 0 && points != c.want {
				t.Errorf("%d points, want %d", points, c.want)
			}
		})
	}
}

func TestSDL(t *testing.T) {
	t.Parallel()
	sdl := graph.SDL()

	t.Run("it is the reviewed one", func(t *testing.T) {
		t.Parallel()
		golden := filepath.Join("testdata", "schema.graphql")
		if *update {
			if err := os.WriteFile(golden, []byte(sdl), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), sdl); diff != "" {
			t.Errorf("the schema has changed; run go test ./graph -update and have the difference reviewed (-reviewed +present):\n%s", diff)
		}
	})

	t.Run("it reads back as itself", func(t *testing.T) {
		t.Parallel()
		s, err := gqlparser.LoadSchema(&ast.Source{Name: "schema.graphql", Input: sdl})
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		formatter.NewFormatter(&b, formatter.WithIndent("  ")).FormatSchema(s)
		if diff := cmp.Diff(sdl, b.String()); diff != "" {
			t.Error(diff)
		}
	})
}
