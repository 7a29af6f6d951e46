package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/validator"
	"pgregory.net/rapid"

	"github.com/openvantage/vantage/fault"
)

// explorer is what the explorer page of an application asks: three connections, a few objects,
// some fragments.
const explorer = `query Explorer($first: Int!, $after: Cursor, $id: ID, $more: Boolean = true) {
	people(first: $first, after: $after) { count edges { node { ...Card friends(first: 5) { count edges { node { ...Card } } } } } }
	person(id: $id) { ...Card best @include(if: $more) { ...Card friends(first: $first) { edges { node { name } } } } }
	named { __typename name ... on Robot { maker { name } } }
	either { ... on Person { name } ... on Robot { maker { ...Card } } }
}
fragment Card on Person { __typename name best { name best { name } } }`

// priced returns the price of a document, which must be valid, with variables as they come
// by JSON.
func priced(tb testing.TB, d *documents, text, operation, variables string, l Limits) (price, error) {
	tb.Helper()
	doc, errs := d.get(&Request{Query: text}, Caller{Limits: unlimited})
	if errs != nil {
		tb.Fatalf("%s: %v", text, errs)
	}
	vars := map[string]any{}
	if variables != "" {
		r := json.NewDecoder(strings.NewReader(variables))
		r.UseNumber()
		if err := r.Decode(&vars); err != nil {
			tb.Fatal(err)
		}
	}
	op := doc.ast.Operations.ForName(operation)
	coerced, err := validator.VariableValues(d.schema, op, vars)
	if err != nil {
		tb.Fatalf("%s: %v", variables, err)
	}
	return doc.price(op, coerced, l)
}

func testDocuments(tb testing.TB, trusted map[string]string) *documents {
	tb.Helper()
	d, err := newDocuments(newTestSchema(tb, nil).schema, trusted)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func TestPrice(t *testing.T) {
	t.Parallel()
	d := testDocuments(t, nil)
	for _, c := range []struct {
		name, text, variables string
		want                  int
	}{
		{"an operation costs a point at least", "{ping}", "", 1},
		{"an object costs what its type says, and its field what the field says", "{person{name}}", "", 1 + 1},
		{"an object within an object costs the same", "{person{best{best{name}}}}", "", 1 + 3},
		{"a field that is asked for twice is paid twice", "{person{name} person{best{name}}}", "", 2 + 3},
		{"a page is paid for each item", "{people(first:7){edges{node{name}}}}", "", 1 + 1 + 7*2},
		{"what is beside the items is paid once", "{people(first:7){count edges{node{name}}}}", "", 1 + 1 + 7*2},
		{"a page without items costs the connection", "{people(first:7){count}}", "", 2},
		{"a page from the end is as long", "{people(last:7){edges{node{name}}}}", "", 16},
		{"of two lengths the greater counts", "{people(last:7 first:8){edges{node{name}}}}", "", 18},
		{"a page of unknown length is the largest", "{people{edges{node{name}}}}", "", 202},
		{"a page of no length is the largest", "{people(first:null){edges{node{name}}}}", "", 202},
		{"an empty page costs the connection", "{people(first:0){edges{node{name}}}}", "", 2},
		{"a page of less than nothing does, too", "{people(first:-7){edges{node{name}}}}", "", 2},
		{"a length may be a variable", "query($n:Int){people(first:$n){edges{node{name}}}}", `{"n":7}`, 16},
		{"a variable may have a default", "query($n:Int=7){people(first:$n){edges{node{name}}}}", "", 16},
		{"a variable may be null", "query($n:Int=7){people(first:$n){edges{node{name}}}}", `{"n":null}`, 202},
		{"a variable may be absent", "query($n:Int){people(first:$n){edges{node{name}}}}", "", 202},
		{"a variable may be text, as the validator allows", "query($n:Int){people(first:$n){edges{node{name}}}}", `{"n":"7"}`, 16},
		{"pages multiply", "query($n:Int){people(first:$n){edges{node{friends(first:3){edges{node{name}}}}}}}", `{"n":7}`, 2 + 7*(2+2+3*2)},
		{"a list costs what it is assumed to hold", "{everyone{name}}", "", 5 + 50},
		{"a list of scalars costs nothing", "{echo(list:[1,2])}", "", 1},
		{"an interface costs the dearest of its types", "{named{name}}", "", 3},
		{"of a union the dearest selection counts", "{either{...on Person{name best{best{best{name}}}}...on Robot{name}}}", "", 4},
		{"and with the price of the type", "{either{...on Person{name best{name}}...on Robot{name}}}", "", 3},
		{"a fragment on an interface counts for its types", "{either{...on Named{...on Robot{maker{name}}}}}", "", 4},
		{"fragments cost what is in them, each time", "{person{...A best{...A}}} fragment A on Person{best{name}}", "", 1 + 1 + 1 + 1 + 1},
		{"a connection's items may be in a fragment", "{people(first:7){...A}} fragment A on PersonConnection{count ...on PersonConnection{edges{node{name}}}}", "", 16},
		{"an alias changes nothing", "{people(first:7){a:edges{node{name}}}}", "", 16},
		{"what is left out costs nothing", "{ping person@skip(if:true){name}}", "", 1},
		{"what is not included costs nothing", "{ping ...@include(if:false){person{name}}}", "", 1},
		{"what is included costs the same", "{person@include(if:true)@skip(if:false){name}}", "", 2},
		{"what is left out by a variable costs nothing", "query($a:Boolean!){ping person@skip(if:$a){name}}", `{"a":true}`, 1},
		{"what is not left out by a variable costs the same", "query($a:Boolean!){ping person@skip(if:$a){name}}", `{"a":false}`, 2},
		{"a spread may be left out", "query($a:Boolean!){people(first:7){...A@include(if:$a)}} fragment A on PersonConnection{edges{node{name}}}", `{"a":false}`, 2},
		{"a mutation costs its own weight", `mutation{set(value:"a")}`, "", 10},
		{"a subscription costs one event", "subscription{ticks{seq}}", "", 1},
		{"the type of an object costs nothing", "{__typename person{__typename}}", "", 2},
		{"a scalar may cost", "{large(bytes:1)}", "", 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, err := priced(t, d, c.text, "", c.variables, DefaultLimits)
			if err != nil || p.requested != c.want {
				t.Errorf("%s costs %d, %v; want %d", c.text, p.requested, err, c.want)
			}
		})
	}

	t.Run("an operation above the limit is refused with both numbers", func(t *testing.T) {
		t.Parallel()
		l := DefaultLimits
		l.Cost = 201
		_, err := priced(t, d, "{people{edges{node{name}}}}", "", "", l)
		if !fault.Is(err, fault.QueryTooCostly) || fault.Of(err).Field != "query" || !strings.Contains(fault.Of(err).Message, "202") || !strings.Contains(fault.Of(err).Message, "201") {
			t.Error(err)
		}
		l.Cost = 202
		if _, err := priced(t, d, "{people{edges{node{name}}}}", "", "", l); err != nil {
			t.Error(err)
		}
	})

	t.Run("points never overflow", func(t *testing.T) {
		t.Parallel()
		deep := "name"
		for range 5 {
			deep = "friends(first:$n){edges{node{" + deep + "}}}"
		}
		for _, n := range []string{"2147483647", `"9223372036854775807"`, "1000000000"} {
			p, err := priced(t, d, "query($n:Int){people(first:$n){edges{node{"+deep+"}}}}", "", `{"n":`+n+`}`, DefaultLimits)
			if !fault.Is(err, fault.QueryTooCostly) || p.requested < DefaultLimits.Cost {
				t.Errorf("%s: %d, %v", n, p.requested, err)
			}
		}
	})

	t.Run("each operation of a document has its own price", func(t *testing.T) {
		t.Parallel()
		text := "query a{...F} query b{...F ...F a:person{name}} fragment F on Query{person{name}}"
		for operation, want := range map[string]int{"a": 2, "b": 6} {
			if p, err := priced(t, d, text, operation, "", DefaultLimits); err != nil || p.requested != want {
				t.Errorf("%s costs %d, %v", operation, p.requested, err)
			}
		}
	})
}

// odd is a schema of what is rare.
func odd(tb testing.TB, sdl string) *ast.Schema {
	tb.Helper()
	directives, _, _ := strings.Cut(testSDL, "scalar Cursor")
	s, err := gqlparser.LoadSchema(&ast.Source{Input: directives + sdl})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestCost(t *testing.T) {
	t.Parallel()
	s := odd(t, `type Query {
			sized(n: Int = 7): [A!]! @listSize(slicingArguments: ["n"])
			ids(ids: [ID!]): [A!]! @listSize(slicingArguments: ["ids"], assumedSize: 3)
			unknown: [A!]!
			priced(a: Int @cost(weight: "11"), b: Int): Int
			page(n: Int): Page! @listSize(slicingArguments: ["n"], sizedFields: ["items"])
			color: Color @cost(weight: "2"), colors: [Color!]! @listSize(assumedSize: 5)
			either: Either
		}
		type A { a: A }
		type Page @cost(weight: "0") { items: [A!]! @cost(weight: "13") }
		enum Color @cost(weight: "3") { RED }
		interface Either { page(n: Int): Page }
		type One implements Either { page(n: Int): Page @listSize(slicingArguments: ["n"], sizedFields: ["items"]) }
		type Two implements Either { page(n: Int): Page @listSize(assumedSize: 4, sizedFields: ["items"]) @cost(weight: "50") }`)
	for _, c := range []struct {
		name, text string
		vars       map[string]any
		want       int
	}{
		{"a slicing argument may have a default", "{sized{__typename}}", nil, 7},
		{"which counts when its variable is absent", "query($n:Int){sized(n:$n){__typename}}", nil, 7},
		{"and not when it is there", "query($n:Int){sized(n:$n){__typename}}", map[string]any{"n": 2}, 2},
		{"a slicing argument may be a list", `{ids(ids:["a" "b"]){__typename}}`, nil, 2},
		{"or a variable that is one", `query($i:[ID!]){ids(ids:$i){__typename}}`, map[string]any{"i": []any{"a", "b", "c", "d"}}, 4},
		{"or is not there", "{ids{__typename}}", nil, 3},
		{"a list that says nothing of its length has ten items", "{unknown{a{__typename}}}", nil, 10 * 2},
		{"an argument costs when it is given", "{priced(a:1 b:1)}", nil, 11},
		{"and not otherwise", "{priced(b:1)}", nil, 1},
		{"the field of the items costs once", "{page(n:2){items{__typename}}}", nil, 13 + 2},
		{"scalars and their fields cost what they say", "{color colors}", nil, 2 + 3 + 5*3},
		{"a constant may be the dearest", "query($n:Int){either{page(n:$n){items{__typename}}}}", map[string]any{"n": 1}, 1 + 50 + 13 + 4},
		{"and may not be", "query($n:Int){either{page(n:$n){items{__typename}}}}", map[string]any{"n": 80}, 1 + 13 + 80},
		{"fragments that double 70 times cost all that can be", "{unknown{...F0}}" + strings.ReplaceAll(doubling(70, "a{...FNEXT}b:a{...FNEXT}"), "on Person{name}", "on A{a{__typename}}"), nil, most},
		{"introspection costs something", "{__type(name:\"A\"){name}}", nil, 50},
		{"and more for each object: types have three fields in the mean", "{__type(name:\"A\"){name fields{name type{...F}}}}fragment F on __Type{ofType{name ofType{name}}}", nil, 50 + 3*4/describedPerPoint},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := strings.ReplaceAll(c.text, "on Person", "on A")
			if got, err := Cost(s, text, c.vars); err != nil || got != c.want {
				t.Errorf("%.200s costs %d, %v; want %d", text, got, err, c.want)
			}
		})
	}

	t.Run("what cannot be read has no cost", func(t *testing.T) {
		t.Parallel()
		if _, err := Cost(s, "{", nil); !fault.Is(err, fault.ParseFailed) {
			t.Error(err)
		}
		if _, err := Cost(s, "query($n:Int!){sized(n:$n){__typename}}", nil); err == nil {
			t.Error("a variable that must be there is not missed")
		}
	})

	t.Run("a list whose items cost one thing here and another there is not paid back", func(t *testing.T) {
		t.Parallel()
		d, err := newDocuments(odd(t, `type Query { either: Either } interface Either { list(n: Int): [Node!]! } interface Node { n: Int }
			type A implements Node { n: Int } type B implements Node @cost(weight: "9") { n: Int }
			type One implements Either { list(n: Int): [A!]! @listSize(slicingArguments: ["n"]) }
			type Two implements Either { list(n: Int): [B!]! @listSize(slicingArguments: ["n"]) }`), nil)
		if err != nil {
			t.Fatal(err)
		}
		p, err := priced(t, d, "{either{list(n:3){n}}}", "", "", unlimited)
		if err != nil || p.requested != 1+3*9 {
			t.Fatal(p.requested, err)
		}
		bill := &tab{price: &p}
		for f := range p.plan.lists {
			returned(bill, f, 0)
		}
		if bill.actual() != p.requested {
			t.Errorf("%d of %d points", bill.actual(), p.requested)
		}
	})
}

func TestTariff(t *testing.T) {
	t.Parallel()
	for name, sdl := range map[string]string{
		"a weight that is no number":          `type Query { a: Int @cost(weight: "x") }`,
		"a weight below zero":                 `type Query { a: Int @cost(weight: "-1") }`,
		"a weight of a type that is too high": `type Query { a: A } type A @cost(weight: "99999999999") { a: Int }`,
		"a weight of an argument":             `type Query { a(b: Int @cost(weight: "")): Int }`,
		"an assumed size below zero":          `type Query { a: [Int] @listSize(assumedSize: -1) }`,
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			if _, err := newDocuments(odd(t, sdl), nil); err == nil {
				t.Error("it is accepted")
			}
		})
	}
}

// expand is the cost of a selection by its definition: everything is written out, and nothing
// remembered.
func expand(s *ast.Schema, set ast.SelectionSet, object *ast.Definition, vars map[string]any, sized []string) (once, each int) {
	left := func(ds ast.DirectiveList) bool {
		for _, d := range ds {
			v, _ := d.Arguments[0].Value.Value(vars)
			if v == (d.Name == "skip") {
				return true
			}
		}
		return false
	}
	matches := func(cond string) bool {
		if cond == "" || cond == object.Name {
			return true
		}
		for _, d := range s.PossibleTypes[cond] {
			if d == object {
				return true
			}
		}
		return false
	}
	weigh := func(ds ast.DirectiveList, otherwise int) int {
		if d := ds.ForName("cost"); d != nil {
			n, _ := strconv.Atoi(d.Arguments[0].Value.Raw)
			return n
		}
		return otherwise
	}
	for _, sel := range set {
		switch sel := sel.(type) {
		case *ast.InlineFragment:
			if !left(sel.Directives) && matches(sel.TypeCondition) {
				o, e := expand(s, sel.SelectionSet, object, vars, sized)
				once, each = once+o, each+e
			}
		case *ast.FragmentSpread:
			if !left(sel.Directives) && matches(sel.Definition.TypeCondition) {
				o, e := expand(s, sel.Definition.SelectionSet, object, vars, sized)
				once, each = once+o, each+e
			}
		case *ast.Field:
			if left(sel.Directives) || sel.Name == "__typename" {
				continue
			}
			def := object.Fields.ForName(sel.Name)
			result, list := s.Types[def.Type.Name()], def.Directives.ForName("listSize")
			n, inner := 1, []string(nil)
			if list != nil {
				n = 100
				if a := list.Arguments.ForName("assumedSize"); a != nil {
					n, _ = strconv.Atoi(a.Value.Raw)
				}
				given := -1
				if a := list.Arguments.ForName("slicingArguments"); a != nil {
					for _, child := range a.Value.Children {
						if v, ok := sel.ArgumentMap(vars)[child.Value.Raw].(int64); ok {
							given = max(given, int(max(v, 0)))
						}
					}
				}
				if given >= 0 {
					n = given
				}
				if a := list.Arguments.ForName("sizedFields"); a != nil {
					for _, child := range a.Value.Children {
						inner = append(inner, child.Value.Raw)
					}
				}
			}
			objects := []*ast.Definition{result}
			if result.IsAbstractType() {
				objects = s.PossibleTypes[result.Name]
			}
			o, e := 0, 0
			for _, object := range objects {
				oo, ee := expand(s, sel.SelectionSet, object, vars, inner)
				if result.IsCompositeType() {
					oo += weigh(object.Directives, 1)
				}
				o, e = max(o, oo), max(e, ee)
			}
			isSized := false
			for _, name := range sized {
				isSized = isSized || name == sel.Name
			}
			switch own := weigh(def.Directives, 0); {
			case isSized:
				once, each = once+own, each+o
			case inner != nil:
				once += own + o + n*e
			default:
				once += own + n*o
			}
		}
	}
	return once, each
}

// leads are the fields of the test schema that sketches use, with the type of those that lead
// on.
var leads = map[string][][2]string{
	"Query":  {{"person", "Person"}, {"people(first: N)", "PersonConnection"}, {"named", "Named"}, {"either", "Either"}, {"everyone", "Person"}, {"ping"}},
	"Person": {{"friends(first: N)", "PersonConnection"}, {"best", "Person"}, {"name"}}, "Robot": {{"maker", "Person"}, {"name"}},
	"Named": {{"name"}}, "Either": {{"__typename"}}, "PersonConnection": {{"edges", "PersonEdge"}, {"count"}}, "PersonEdge": {{"node", "Person"}},
}

// A sketch draws documents that fit the test schema, with fragments, conditions and variables.
type sketch struct {
	t       *rapid.T
	types   []string // of the fragments so far
	aliases int
}

func (s *sketch) document() string {
	var bodies []string
	for range rapid.IntRange(0, 4).Draw(s.t, "fragments") {
		on := rapid.SampledFrom([]string{"Query", "Person", "Named", "Robot", "PersonConnection", "PersonEdge", "Either"}).Draw(s.t, "on")
		bodies = append(bodies, fmt.Sprintf("fragment F%d on %s%s", len(bodies), on, s.selection(on, 3)))
		s.types = append(s.types, on) // a fragment uses those before it
	}
	text := s.selection("Query", 5)
	for i := len(bodies) - 1; i >= 0; i-- {
		if strings.Contains(text, fmt.Sprintf("...F%d ", i)) {
			text += bodies[i]
		}
	}
	var variables string
	for _, v := range []string{"$a: Boolean!", "$b: Boolean!", "$n: Int", "$m: Int = 4"} {
		if strings.Contains(text, v[:2]) {
			variables += v + " "
		}
	}
	if variables != "" {
		variables = "(" + variables + ")"
	}
	return "query" + variables + text
}

func (s *sketch) selection(on string, depth int) string {
	var b strings.Builder
	b.WriteString("{__typename ")
	for range rapid.IntRange(0, 3).Draw(s.t, "selections") {
		condition := rapid.SampledFrom([]string{"", "", "", " @skip(if: $a)", " @include(if: $a)", " @include(if: $b) @skip(if: $a)", " @skip(if: true)"}).Draw(s.t, "condition")
		switch rapid.IntRange(0, 4).Draw(s.t, "kind") {
		case 0:
			to := on
			if on == "Named" || on == "Either" {
				to = rapid.SampledFrom([]string{"Named", "Person", "Robot"}).Draw(s.t, "type")
			}
			if depth > 0 {
				fmt.Fprintf(&b, "...on %s%s%s ", to, condition, s.selection(to, depth-1))
			}
		case 1:
			for i, name := range s.types {
				if name == on {
					fmt.Fprintf(&b, "...F%d %s ", i, condition)
				}
			}
		default:
			if depth == 0 {
				continue
			}
			f := rapid.SampledFrom(leads[on]).Draw(s.t, "field")
			s.aliases++
			name := strings.ReplaceAll(f[0], "N", rapid.SampledFrom([]string{"0", "1", "3", "-2", "null", "$n", "$m"}).Draw(s.t, "first"))
			fmt.Fprintf(&b, "x%d: %s%s", s.aliases, name, condition)
			if f[1] != "" {
				b.WriteString(s.selection(f[1], depth-1))
			}
			b.WriteByte(' ')
		}
	}
	return b.String() + "}"
}

func TestPriceIsThatOfTheWholeExpansion(t *testing.T) {
	t.Parallel()
	d := testDocuments(t, nil)
	rapid.Check(t, func(rt *rapid.T) {
		text := (&sketch{t: rt}).document()
		doc, errs := d.get(&Request{Query: text}, Caller{Limits: unlimited})
		if errs != nil {
			rt.Fatalf("%s: %v", text, errs)
		}
		op := doc.ast.Operations[0]
		vars := map[string]any{"a": rapid.Bool().Draw(rt, "a"), "b": rapid.Bool().Draw(rt, "b"), "m": int64(4)}
		if rapid.Bool().Draw(rt, "given") {
			vars["n"] = int64(rapid.IntRange(-1, 5).Draw(rt, "n"))
		}
		want, _ := expand(d.schema, op.SelectionSet, d.schema.Query, vars, nil)
		got, err := doc.price(op, vars, unlimited)
		if err != nil || got.requested != max(want, 1) {
			rt.Fatalf("%s\nwith %v costs %d, %v; written out %d", text, vars, got.requested, err, want)
		}
	})
}

// returned tells a tab what the resolver of a field does.
func returned(t *tab, f *ast.Field, n int) {
	ctx := context.WithValue(context.Background(), tabKey{}, t)
	Returned(graphql.WithFieldContext(ctx, &graphql.FieldContext{Field: graphql.CollectedField{Field: f}}), n)
}

func TestReturned(t *testing.T) {
	t.Parallel()
	d := testDocuments(t, nil)
	nested := "query($n:Int $a:Boolean=true){people(first:$n){edges{node{name friends(first:3)@include(if:$a){edges{node{name}}}}}}}"
	for _, c := range []struct {
		name, text, variables string
		returned              map[string][]int
		want                  int
	}{
		{"what was not returned is paid back", "{people(first:7){edges{node{name}}}}", "", map[string][]int{"people": {2}}, 2 + 2*2},
		{"a full page costs what was asked", "{people(first:7){edges{node{name}}}}", "", map[string][]int{"people": {7}}, 16},
		{"more than was asked costs no more", "{people(first:7){edges{node{name}}}}", "", map[string][]int{"people": {70}}, 16},
		{"a list that tells nothing is not paid back", "{people(first:7){edges{node{name}}}}", "", nil, 16},
		{"of a page in a page both are paid back", nested, `{"n":7}`, map[string][]int{"people": {2}, "friends": {3, 1}}, 2 + 2*(2+2) + 3*2 + 1*2},
		{"a page within none is paid back with it", nested, `{"n":7}`, map[string][]int{"people": {0}}, 2},
		{"what was left out is not paid back", nested, `{"n":7,"a":false}`, map[string][]int{"people": {6}}, 2 + 6*2},
		{"a plain list is paid back", "{everyone{name best{name}}}", "", map[string][]int{"everyone": {1}}, 5 + 2},
		{
			"a page in a fragment is paid back in each place", "{a:person{...F} b:person{...F}} fragment F on Person{friends(first:5){edges{node{name}}}}", "",
			map[string][]int{"friends": {1, 2}},
			2*(2+2) + 3*2,
		},
		{"something is always paid", "{people(first:7){edges{node{name}}}}", "", map[string][]int{"people": {0, 0, 0}}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, err := priced(t, d, c.text, "", c.variables, DefaultLimits)
			if err != nil {
				t.Fatal(err)
			}
			bill := &tab{price: &p, variables: map[string]any{"n": int64(7)}}
			for f := range p.plan.lists {
				for _, n := range c.returned[f.Name] {
					returned(bill, f, n)
				}
			}
			if got := bill.actual(); got != c.want {
				t.Errorf("%s costs %d of %d, want %d", c.text, got, p.requested, c.want)
			}
		})
	}

	t.Run("outside an operation nobody listens", func(t *testing.T) {
		t.Parallel()
		Returned(context.Background(), 1)
		returned(&tab{price: &price{}}, &ast.Field{}, 1)
	})

	t.Run("resolvers may tell it at the same time", func(t *testing.T) {
		t.Parallel()
		p, err := priced(t, d, "{everyone{friends(first:9){edges{node{name}}}}}", "", "", DefaultLimits)
		if err != nil {
			t.Fatal(err)
		}
		bill := &tab{price: &p}
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				for f := range p.plan.lists {
					if f.Name == "friends" {
						returned(bill, f, 4)
					}
				}
			})
		}
		all.Wait()
		if got, want := bill.actual(), p.requested-50*5*2; got != want {
			t.Errorf("it costs %d, want %d", got, want)
		}
	})
}

// A run resolves a document with lists of random length and objects of random types.
type run struct {
	t    *rapid.T
	s    *ast.Schema
	op   *graphql.OperationContext
	bill *tab
	cost int
}

// object resolves a selection as the executor does, in which each key is there once.
func (r *run) object(set ast.SelectionSet, object *ast.Definition, sized []string, n int) {
	satisfies := append([]string{object.Name}, object.Interfaces...)
	for _, d := range r.s.GetImplements(object) {
		satisfies = append(satisfies, d.Name)
	}
	for _, f := range graphql.CollectFields(r.op, set, satisfies) {
		if f.Name == "__typename" {
			continue
		}
		def := object.Fields.ForName(f.Name)
		result := r.s.Types[def.Type.Name()]
		own, _ := weight(def.Directives)
		r.cost += max(own, 0)
		times, inner := 1, 0
		var below []string
		if list := def.Directives.ForName("listSize"); list != nil {
			most := 50
			if v, ok := f.ArgumentMap(r.op.Variables)["first"]; ok && v != nil {
				most = int(max(v.(int64), 0))
			} else if f.Name != "everyone" {
				most = 100
			}
			returns := rapid.IntRange(0, min(most, 2)).Draw(r.t, "items")
			returned(r.bill, f.Field, returns)
			if list.Arguments.ForName("sizedFields") != nil {
				inner, below = returns, []string{"edges"}
			} else {
				times = returns
			}
		}
		if len(sized) > 0 && f.Name == sized[0] {
			times = n
		}
		for range times {
			of := result
			if result.IsAbstractType() {
				of = rapid.SampledFrom(r.s.PossibleTypes[result.Name]).Draw(r.t, "type")
			}
			if of.IsCompositeType() {
				points, _ := weight(of.Directives)
				if points < 0 {
					points = compositePoints
				}
				r.cost += points
				r.object(f.Selections, of, below, inner)
			}
		}
	}
}

func TestActualIsNeverLessThanWhatRan(t *testing.T) {
	t.Parallel()
	d := testDocuments(t, nil)
	paidBack := 0
	rapid.Check(t, func(rt *rapid.T) {
		text := (&sketch{t: rt}).document()
		doc, errs := d.get(&Request{Query: text}, Caller{Limits: unlimited})
		if errs != nil {
			rt.Fatalf("%s: %v", text, errs)
		}
		op := doc.ast.Operations[0]
		vars := map[string]any{"a": rapid.Bool().Draw(rt, "a"), "b": true, "m": int64(4), "n": int64(2)}
		p, err := doc.price(op, vars, unlimited)
		if err != nil {
			rt.Fatal(err)
		}
		r := run{rt, d.schema, &graphql.OperationContext{Doc: doc.ast, Operation: op, Variables: vars}, &tab{price: &p, variables: vars}, 0}
		r.object(op.SelectionSet, d.schema.Query, nil, 0)
		if got := r.bill.actual(); got < r.cost || got > p.requested || got < 1 {
			rt.Fatalf("%s\nwith %v requested %d, ran for %d, and costs %d", text, vars, p.requested, r.cost, got)
		} else if got < p.requested {
			paidBack++
		}
	})
	if paidBack == 0 {
		t.Error("nothing was ever paid back")
	}
}

func TestProduced(t *testing.T) {
	t.Parallel()
	bill := &tab{price: &price{}}
	ctx := context.WithValue(context.Background(), tabKey{}, bill)
	for range 4 {
		if err := Produced(ctx, producedBytes/4); err != nil {
			t.Fatal(err)
		}
	}
	if err := Produced(ctx, 1); !fault.Is(err, fault.QueryTooCostly) {
		t.Errorf("%v", err)
	}
	if err := Produced(context.Background(), math.MaxInt32); err != nil {
		t.Errorf("outside an operation: %v", err)
	}
}

func TestExtensions(t *testing.T) {
	t.Parallel()
	for want, p := range map[string]price{
		`{"cost":{"requested":7,"actual":3,"limit":100,"remaining":100}}`: {requested: 7, limit: 100},
		`{"cost":{"requested":7,"actual":3,"limit":500,"remaining":41}}`:  {requested: 7, limit: 100, balance: Balance{Limit: 500, Remaining: 41.9}},
		`{"cost":{"requested":7,"actual":3,"limit":500,"remaining":0}}`:   {requested: 7, limit: 100, balance: Balance{Limit: 500, Remaining: -3}},
	} {
		if got := (&operation{price: p}).extensions(3); string(got) != want || !json.Valid(got) {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func BenchmarkPrice(b *testing.B) {
	d := testDocuments(b, nil)
	doc, errs := d.get(&Request{Query: explorer}, Caller{Limits: DefaultLimits})
	if errs != nil {
		b.Fatal(errs)
	}
	vars := map[string]any{"first": int64(20), "id": "a", "more": true}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := doc.price(doc.ast.Operations[0], vars, DefaultLimits); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReturned(b *testing.B) {
	d := testDocuments(b, nil)
	p, err := priced(b, d, explorer, "", `{"first":20}`, DefaultLimits)
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.WithValue(context.Background(), tabKey{}, &tab{price: &p, variables: map[string]any{"first": int64(20), "more": true}})
	for f := range p.plan.lists {
		ctx = graphql.WithFieldContext(ctx, &graphql.FieldContext{Field: graphql.CollectedField{Field: f}})
	}
	b.ReportAllocs()
	for b.Loop() {
		Returned(ctx, 7)
	}
}
