package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vektah/gqlparser/v2/gqlerror"
	"pgregory.net/rapid"

	"github.com/openvantage/vantage/fault"
)

func idOf(text string) string {
	h := sha256.Sum256([]byte(text))
	return hex.EncodeToString(h[:])
}

// apq is a request in the manner of automatic persisted queries.
func apq(text, digits string) *Request {
	return &Request{Query: text, Extensions: map[string]any{"persistedQuery": map[string]any{"version": 1.0, "sha256Hash": digits}}}
}

func someone(l Limits) Caller { return Caller{Payer: Payer{Key: "someone"}, Limits: l} }

// wantRefused checks the code and the field of the first error.
func wantRefused(t *testing.T, errs []error, code fault.Code, field string) {
	t.Helper()
	if len(errs) == 0 {
		t.Fatal("it is accepted")
	}
	if f := fault.Of(errs[0]); f.Code != code || f.Field != field {
		t.Errorf("%v, want %s of %q", errs[0], code, field)
	}
}

func TestGet(t *testing.T) {
	t.Parallel()

	t.Run("a document is parsed and validated", func(t *testing.T) {
		t.Parallel()
		doc, errs := testDocuments(t, nil).get(&Request{Query: explorer}, someone(DefaultLimits))
		if errs != nil || doc.ast.Operations.ForName("Explorer") == nil || doc.hash != sha256.Sum256([]byte(explorer)) {
			t.Fatal(doc, errs)
		}
		want := shape{
			bytes: len(explorer), tokens: doc.shape.tokens, nodes: doc.shape.nodes, depth: 9, rootFields: 4, sameKey: 2, fragments: 1, directives: 1,
		}
		if doc.shape != want || want.tokens < 100 || want.tokens > 200 {
			t.Errorf("%+v, want %+v", doc.shape, want)
		}
	})

	t.Run("no document is INVALID", func(t *testing.T) {
		t.Parallel()
		_, errs := testDocuments(t, nil).get(&Request{}, someone(DefaultLimits))
		wantRefused(t, errs, fault.Invalid, "query")
	})

	t.Run("an error has a code, a place and the validator's words", func(t *testing.T) {
		t.Parallel()
		for text, want := range map[string]struct {
			code     fault.Code
			message  string
			location gqlerror.Location
		}{
			"{ping":                {fault.ParseFailed, "Expected Name, found <EOF>", gqlerror.Location{Line: 1, Column: 6}},
			"{\n  pong}":           {fault.ValidationFailed, `Cannot query field "pong" on type "Query". Did you mean "ping"?`, gqlerror.Location{Line: 2, Column: 3}},
			"{echo(number:\"a\")}": {fault.ValidationFailed, `Int cannot represent non-integer value: "a"`, gqlerror.Location{Line: 1, Column: 15}},
			"{people(first:1 after:99999999999999999999){count}}": {
				fault.ValidationFailed, "A number is out of range. Send it as a string.",
				gqlerror.Location{Line: 1, Column: 23},
			},
		} {
			_, errs := testDocuments(t, nil).get(&Request{Query: text}, someone(DefaultLimits))
			wantRefused(t, errs, want.code, "")
			var g *gqlerror.Error
			if !errors.As(errs[0], &g) || g.Message != want.message || !slices.Equal(g.Locations, []gqlerror.Location{want.location}) || len(errs) != 1 {
				t.Errorf("%s: %v at %v", text, errs, g.Locations)
			}
			if shown := presentTest(context.Background(), errs[0]); shown.Message != want.message || shown.Extensions["code"] != string(want.code) || len(shown.Locations) != 1 {
				t.Errorf("%s is shown as %v", text, shown)
			}
		}
	})

	t.Run("of many errors ten are told", func(t *testing.T) {
		t.Parallel()
		_, errs := testDocuments(t, nil).get(&Request{Query: "{person{" + repeat(500, func(i int) string { return fmt.Sprintf("z%d ", i) }) + "}}"}, someone(DefaultLimits))
		if len(errs) != 10 {
			t.Errorf("%d errors", len(errs))
		}
	})

	t.Run("a long error is cut", func(t *testing.T) {
		t.Parallel()
		_, errs := testDocuments(t, nil).get(&Request{Query: `{echo(number:"` + strings.Repeat("é", 10_000) + `")}`}, someone(DefaultLimits))
		wantRefused(t, errs, fault.ValidationFailed, "")
		if m := fault.Of(errs[0]).Message; len(m) > 310 || !strings.HasSuffix(m, "é…") {
			t.Errorf("%d bytes: %s", len(m), m)
		}
	})
}

func TestLimits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name         string
		limit        func(*Limits) *int
		most         int
		within, over string
	}{
		{"bytes", func(l *Limits) *int { return &l.DocumentBytes }, 10, "{ping    }", "{ping     }"},
		{"tokens", func(l *Limits) *int { return &l.Tokens }, 4, "{ping ping}", "{ping ping ping}"},
		{"tokens with comments", func(l *Limits) *int { return &l.Tokens }, 4, "{ping#\n}", "{ping#\n#\n}"},
		{"levels", func(l *Limits) *int { return &l.Depth }, 3, "{person{best{name}}}", "{person{best{best{name}}}}"},
		{
			"levels through fragments", func(l *Limits) *int { return &l.Depth }, 3, "{person{...{...A}}} fragment A on Person{best{name}}",
			"{...B} fragment B on Query{person{...A}} fragment A on Person{best{best{name}}}",
		},
		{"levels of an unused fragment's callers", func(l *Limits) *int { return &l.Depth }, 2, "{...A} fragment A on Query{person{name}}", "{...A} fragment A on Query{person{best{name}}}"},
		{"levels of values", func(l *Limits) *int { return &l.Depth }, 2, "{echo(filter:{names:[\"a\"]})}", "{echo(filter:{nested:{names:[\"a\"]}})}"},
		{"aliases", func(l *Limits) *int { return &l.Aliases }, 2, "{a:ping b:ping ping}", "{a:ping b:ping c:ping}"},
		{"aliases over fragments", func(l *Limits) *int { return &l.Aliases }, 2, "{a:ping ...A} fragment A on Query{b:ping}", "{a:ping ...{c:ping} ...A} fragment A on Query{b:ping}"},
		{"root fields", func(l *Limits) *int { return &l.RootFields }, 2, "{a:ping b:ping a:ping}", "{a:ping b:ping ping}"},
		{"root fields over fragments", func(l *Limits) *int { return &l.RootFields }, 2, "{a:ping ...A ...{a:ping}} fragment A on Query{b:ping}", "{a:ping ...{c:ping} ...A} fragment A on Query{b:ping}"},
		{"root fields of the second operation", func(l *Limits) *int { return &l.RootFields }, 2, "query a{ping} query b{a:ping ping}", "query a{ping} query b{a:ping ping b:ping}"},
		{"times one key", func(l *Limits) *int { return &l.SameKey }, 3, "{ping ping ping}", "{ping ping ping ping}"},
		{"times one alias", func(l *Limits) *int { return &l.SameKey }, 2, "{a:ping ping a:ping ping}", "{a:ping a:ping a:ping}"},
		{
			"times one key in fragments", func(l *Limits) *int { return &l.SameKey }, 3, "{ping ...A ...A ...{ping}} fragment A on Query{ping}",
			"{ping ...A ...B ...{ping}} fragment A on Query{ping} fragment B on Query{ping}",
		},
		{
			"times one key in merged objects", func(l *Limits) *int { return &l.SameKey }, 3, "{person{name} ...{person{name}} person{...A}} fragment A on Person{name}",
			"{person{name name} person{name} ...A} fragment A on Query{person{name}}",
		},
		{
			"times one key in merged objects of fragments", func(l *Limits) *int { return &l.SameKey }, 3, "{a:person{...A} b:person{...A}} fragment A on Person{best{name} best{name} name}",
			"{person{...A} person{best{name name}}} fragment A on Person{best{name} ...{best{name}}}",
		},
		{"fragments", func(l *Limits) *int { return &l.Fragments }, 1, "{...A} fragment A on Query{ping}", "{...A ...B} fragment A on Query{ping} fragment B on Query{ping}"},
		{"directives", func(l *Limits) *int { return &l.Directives }, 1, "{ping@skip(if:false)}", "{ping@skip(if:false) ...@skip(if:false){ping}}"},
		{"directives of variables", func(l *Limits) *int { return &l.Directives }, 1, "query($a:Int){echo(number:$a)@skip(if:false)}", "query($a:Int@a){echo(number:$a)@skip(if:false)}"},
	} {
		t.Run("a document may have so many "+c.name+" and not more", func(t *testing.T) {
			t.Parallel()
			l := DefaultLimits
			*c.limit(&l) = c.most
			d := testDocuments(t, nil)
			if _, errs := d.get(&Request{Query: c.within}, someone(l)); errs != nil {
				t.Errorf("%s: %v", c.within, errs)
			}
			_, errs := d.get(&Request{Query: c.over}, someone(l))
			wantRefused(t, errs, fault.QueryTooCostly, "query")
			if m := fault.Of(errs[0]).Message; !strings.Contains(m, fmt.Sprint(" ", c.most, " ")) {
				t.Errorf("%q does not name the limit", m)
			}

			more := DefaultLimits
			for range 3 { // the second puts it into the cache, the third finds it there
				if _, errs := d.get(&Request{Query: c.over}, someone(more)); errs != nil && c.name != "directives of variables" {
					t.Errorf("with default limits: %v", errs)
				}
			}
			_, errs = d.get(&Request{Query: c.over}, someone(l))
			wantRefused(t, errs, fault.QueryTooCostly, "query")
		})
	}

	t.Run("the introspection of the reference implementation is within the default limits", func(t *testing.T) {
		t.Parallel()
		if _, errs := testDocuments(t, nil).get(&Request{Query: referenceIntrospection}, someone(DefaultLimits)); errs != nil {
			t.Error(errs)
		}
	})

	t.Run("variables may be so many and so deep", func(t *testing.T) {
		t.Parallel()
		var deep any = "a"
		for range 15 {
			deep = []any{deep}
		}
		many := make([]any, mostValues-1)
		if err := DefaultLimits.bounded(map[string]any{"a": many}); err != nil {
			t.Error(err)
		}
		if err := DefaultLimits.bounded(map[string]any{"a": []any{deep}}); !fault.Is(err, fault.QueryTooCostly) || fault.Of(err).Field != "variables" {
			t.Error(err)
		}
		if err := DefaultLimits.bounded(map[string]any{"a": many, "b": 1}); !fault.Is(err, fault.QueryTooCostly) {
			t.Error(err)
		}
		if err := DefaultLimits.bounded(map[string]any{"a": map[string]any{"b": many[1:], "c": 1}}); !fault.Is(err, fault.QueryTooCostly) {
			t.Error(err)
		}
	})
}

// referenceIntrospection is what graphql-js 16 asks with all options, and what graphical
// clients send.
const referenceIntrospection = `query IntrospectionQuery { __schema { description queryType { name kind } mutationType { name kind } subscriptionType { name kind }
	types { ...FullType } directives { name description isRepeatable locations args(includeDeprecated: true) { ...InputValue } } } }
fragment FullType on __Type { kind name description specifiedByURL isOneOf
	fields(includeDeprecated: true) { name description args(includeDeprecated: true) { ...InputValue } type { ...TypeRef } isDeprecated deprecationReason }
	inputFields(includeDeprecated: true) { ...InputValue } interfaces { ...TypeRef } enumValues(includeDeprecated: true) { name description isDeprecated deprecationReason } possibleTypes { ...TypeRef } }
fragment InputValue on __InputValue { name description type { ...TypeRef } defaultValue isDeprecated deprecationReason }
fragment TypeRef on __Type { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name } } } } } } } } } }`

func TestTrusted(t *testing.T) {
	t.Parallel()
	long := "{person{" + strings.Repeat("...{name best{name}}", 15) + "}}"
	d := testDocuments(t, map[string]string{"sha256:" + idOf(long): long})
	strict := DefaultLimits
	strict.SameKey, strict.Tokens = 1, 5

	t.Run("a trusted document is found by its id, its hash and its text, whatever the limits", func(t *testing.T) {
		t.Parallel()
		for _, r := range []*Request{{DocumentID: "sha256:" + idOf(long)}, {DocumentID: "sha256:" + strings.ToUpper(idOf(long))}, apq("", idOf(long)), {Query: long}, apq(long, idOf(long))} {
			if doc, errs := d.get(r, someone(strict)); errs != nil || doc != d.trusted[sha256.Sum256([]byte(long))] {
				t.Errorf("%+v: %v", r, errs)
			}
		}
	})

	t.Run("an id that nobody knows is NOT_FOUND in the words that clients wait for", func(t *testing.T) {
		t.Parallel()
		for _, r := range []*Request{{DocumentID: "sha256:" + idOf("")}, apq("", idOf(""))} {
			_, errs := d.get(r, someone(strict))
			wantRefused(t, errs, fault.NotFound, "")
			if m := fault.Of(errs[0]).Message; m != "PersistedQueryNotFound" {
				t.Error(m)
			}
		}
	})

	t.Run("an id that is none is INVALID", func(t *testing.T) {
		t.Parallel()
		for _, id := range []string{"1", "sha256:", "sha256:" + idOf("")[1:], "sha256:" + idOf("")[1:] + "g", "md5:" + idOf(""), idOf("")} {
			_, errs := d.get(&Request{DocumentID: id}, someone(strict))
			wantRefused(t, errs, fault.Invalid, "documentId")
		}
		for _, v := range []any{nil, true, map[string]any{}, map[string]any{"version": 2.0, "sha256Hash": idOf("")}, map[string]any{"version": 1.0, "sha256Hash": 1.0}, map[string]any{"sha256Hash": idOf("")}} {
			_, errs := d.get(&Request{Query: "{ping}", Extensions: map[string]any{"persistedQuery": v}}, someone(DefaultLimits))
			wantRefused(t, errs, fault.Invalid, "extensions.persistedQuery")
		}
	})

	t.Run("a text with another's id is INVALID", func(t *testing.T) {
		t.Parallel()
		for _, r := range []*Request{{Query: "{ping}", DocumentID: "sha256:" + idOf(long)}, apq("{ping}", idOf(long))} {
			_, errs := d.get(r, someone(DefaultLimits))
			wantRefused(t, errs, fault.Invalid, "query")
		}
	})

	t.Run("a trusted document that does not fit stops the program", func(t *testing.T) {
		t.Parallel()
		for id, text := range map[string]string{"sha256:" + idOf("{pong}"): "{pong}", "sha256:" + idOf("{"): "{", "sha256:" + idOf("{pong}") + " ": "{ping}", idOf("{ping}"): "{ping}"} {
			if _, err := newDocuments(d.schema, map[string]string{id: text}); err == nil {
				t.Errorf("%s %s is accepted", id, text)
			}
		}
	})
}

func TestRegistered(t *testing.T) {
	t.Parallel()

	t.Run("a text is known by its hash once it was sent with it, to whoever sent it", func(t *testing.T) {
		t.Parallel()
		d := testDocuments(t, nil)
		for _, version := range []any{1.0, json.Number("1")} {
			r := apq("{ping}", idOf("{ping}"))
			r.Extensions["persistedQuery"].(map[string]any)["version"] = version
			if _, errs := d.get(r, someone(DefaultLimits)); errs != nil {
				t.Fatal(errs)
			}
		}
		if doc, errs := d.get(apq("", idOf("{ping}")), someone(DefaultLimits)); errs != nil || doc.hash != sha256.Sum256([]byte("{ping}")) {
			t.Error(errs)
		}
		_, errs := d.get(apq("", idOf("{ping}")), Caller{Payer: Payer{Key: "other"}, Limits: DefaultLimits})
		wantRefused(t, errs, fault.NotFound, "")
	})

	t.Run("a text that is wrong, or too much, is not remembered", func(t *testing.T) {
		t.Parallel()
		d := testDocuments(t, nil)
		for _, text := range []string{"{", "{pong}", "{" + strings.Repeat("ping ", 21) + "}"} {
			if _, errs := d.get(apq(text, idOf(text)), someone(DefaultLimits)); errs == nil {
				t.Errorf("%s is accepted", text)
			}
			_, errs := d.get(apq("", idOf(text)), someone(DefaultLimits))
			wantRefused(t, errs, fault.NotFound, "")
		}
	})

	t.Run("a text that is sent without its hash is not remembered", func(t *testing.T) {
		t.Parallel()
		d := testDocuments(t, nil)
		for range 3 {
			if _, errs := d.get(&Request{Query: "{ping}"}, someone(DefaultLimits)); errs != nil {
				t.Fatal(errs)
			}
		}
		_, errs := d.get(apq("", idOf("{ping}")), someone(DefaultLimits))
		wantRefused(t, errs, fault.NotFound, "")
	})

	t.Run("who registers much forgets what he used longest ago, and takes nothing from others", func(t *testing.T) {
		t.Parallel()
		d := testDocuments(t, nil)
		other := Caller{Payer: Payer{Key: "other"}, Limits: DefaultLimits}
		if _, errs := d.get(apq("{ping}", idOf("{ping}")), other); errs != nil {
			t.Fatal(errs)
		}
		text := func(i int) string { return fmt.Sprintf("{echo(text:\"%d%s\")}", i, strings.Repeat("x", 8<<10)) }
		for i := range 64 {
			if _, errs := d.get(apq(text(i), idOf(text(i))), someone(DefaultLimits)); errs != nil {
				t.Fatal(errs)
			}
			if _, errs := d.get(apq("", idOf(text(0))), someone(DefaultLimits)); errs != nil {
				t.Fatalf("what is used is forgotten after %d: %v", i, errs)
			}
		}
		_, errs := d.get(apq("", idOf(text(1))), someone(DefaultLimits))
		wantRefused(t, errs, fault.NotFound, "")
		if _, errs := d.get(apq("", idOf(text(63))), someone(DefaultLimits)); errs != nil {
			t.Error(errs)
		}
		if _, errs := d.get(apq("", idOf("{ping}")), other); errs != nil {
			t.Error(errs)
		}
	})

	t.Run("all payers together are bounded", func(t *testing.T) {
		t.Parallel()
		d := testDocuments(t, nil)
		text := fmt.Sprintf("{echo(text:\"%s\")}", strings.Repeat("x", 200<<10))
		for i := range 400 {
			d.register(fmt.Sprint(i), sha256.Sum256([]byte{byte(i)}), text)
		}
		if d.registered.weight > registeredBytes || d.registered.weight < registeredBytes/2 || len(d.registered.items) > registeredBytes/len(text) {
			t.Errorf("%d payers with %d bytes are remembered", len(d.registered.items), d.registered.weight)
		}
	})
}

func TestCache(t *testing.T) {
	t.Parallel()

	t.Run("a document is kept when it comes a second time", func(t *testing.T) {
		t.Parallel()
		d := testDocuments(t, nil)
		var docs []*document
		for range 4 {
			doc, errs := d.get(&Request{Query: "{ping}"}, someone(DefaultLimits))
			if errs != nil {
				t.Fatal(errs)
			}
			docs = append(docs, doc)
		}
		if docs[0] == docs[1] || docs[1] != docs[2] || docs[2] != docs[3] {
			t.Error("it is kept too soon, or not at all")
		}
	})

	t.Run("a flood of documents that come once pushes nothing out", func(t *testing.T) {
		t.Parallel()
		d := testDocuments(t, nil)
		for range 2 {
			if _, errs := d.get(&Request{Query: "{ping}"}, someone(DefaultLimits)); errs != nil {
				t.Fatal(errs)
			}
		}
		for i := range 3000 {
			if _, errs := d.get(&Request{Query: fmt.Sprintf("{a%d:ping}", i)}, someone(DefaultLimits)); errs != nil {
				t.Fatal(errs)
			}
		}
		if len(d.cache.items) != 1 {
			t.Errorf("%d documents are kept", len(d.cache.items))
		}
	})

	t.Run("documents may be asked for at the same time", func(t *testing.T) {
		t.Parallel()
		d := testDocuments(t, nil)
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				for j := range 200 {
					text := fmt.Sprintf("query($n:Int){people(first:$n){count edges{node{name a%d:best{name}}}}}", j%20)
					doc, errs := d.get(apq(text, idOf(text)), Caller{Payer: Payer{Key: fmt.Sprint(i % 3)}, Limits: DefaultLimits})
					if errs != nil {
						t.Error(errs)
						return
					}
					if p, err := doc.price(doc.ast.Operations[0], map[string]any{"n": int64(j)}, DefaultLimits); err != nil || p.requested != 2+j*3 {
						t.Errorf("%d points, %v", p.requested, err)
					}
				}
			})
		}
		all.Wait()
	})
}

func TestShelf(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var s shelf[int, int]
		var order []int // most recent first
		weights := map[int]int{}
		total := func() (sum int) {
			for _, k := range order {
				sum += weights[k]
			}
			return sum
		}
		for range rapid.IntRange(0, 50).Draw(rt, "steps") {
			k := rapid.IntRange(0, 9).Draw(rt, "key")
			i := slices.Index(order, k)
			if rapid.Bool().Draw(rt, "put") {
				if i >= 0 {
					order = slices.Delete(order, i, i+1)
				}
				order, weights[k] = append([]int{k}, order...), rapid.IntRange(0, 60).Draw(rt, "weight")
				s.put(k, k*k, weights[k], 100)
				for total() > 100 {
					order = order[:len(order)-1]
				}
			} else {
				v, ok := s.get(k)
				if ok != (i >= 0) || ok && v != k*k {
					rt.Fatalf("get %d: %d, %v; want it at %d", k, v, ok, i)
				}
				if i >= 0 {
					order = append([]int{k}, slices.Delete(order, i, i+1)...)
				}
			}
			if s.weight != total() || len(s.items) != len(order) || s.recent.Len() != len(order) {
				rt.Fatalf("%d of weight %d, want %d of %d", len(s.items), s.weight, len(order), total())
			}
		}
	})

	t.Run("what weighs more than all is not kept", func(t *testing.T) {
		t.Parallel()
		var s shelf[int, int]
		if s.put(1, 1, 101, 100); len(s.items) != 0 || s.weight != 0 {
			t.Errorf("%+v", s)
		}
	})
}

//nolint:paralleltest // the memory of the process is measured
func TestMemory(t *testing.T) {
	d := testDocuments(t, nil)
	heap := func() int {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc) //nolint:gosec // far below 2^63
	}
	for name, text := range map[string]string{
		"an explorer's document": explorer,
		"the shortest":           "{ping}",
		"short fields":           "{person{" + strings.Repeat("...{name best{name __typename}}", 20) + "}}",
		"1,900 fields":           "{person{" + repeat(90, func(i int) string { return "...{name}" }) + "}}",
		"aliases":                "{person{" + repeat(30, func(i int) string { return fmt.Sprintf("an_alias_of_some_length_%d:best{name}", i) }) + "}}",
		"many arguments":         "{" + strings.Repeat(`echo(text:"a" number:1 list:[1,2,3,4,5,6,7,8,9] filter:{names:["a","b","c"]}) `, 20) + "}",
		"a long list":            "{echo(list:[" + strings.Repeat("1,", 1900) + "])}",
		"a long string":          `{echo(text:"` + strings.Repeat("x", 200_000) + `")}`,
		"many pages": "query($n:Int){" + repeat(9, func(i int) string {
			return fmt.Sprintf("a%d:people(first:$n){edges{node{friends(first:$n){edges{node{name}}}}}}", i)
		}) + "}",
		"many operations":          repeat(50, func(i int) string { return fmt.Sprintf("query a%d($n:Int){people(first:$n){edges{node{...F}}}}", i) }) + "fragment F on Person{name best{name}}",
		"many fragments":           "{person{...F0}}" + doubling(49, "name ...FNEXT"),
		"many operations of pages": repeat(50, func(i int) string { return fmt.Sprintf("query a%d($n:Int){person{...F}}", i) }) + "fragment F on Person{" + repeat(19, func(int) string { return "friends(first:$n){edges{node{name}}}" }) + "}",
		"many fragments of pages":  "query($n:Int){person{...F0}}" + doubling(12, "friends(first:$n){edges{node{...FNEXT}}}"),
	} {
		t.Run(name+" take about what is estimated", func(t *testing.T) {
			const copies = 50
			docs := make([]*document, 0, copies)
			before := heap()
			for i := range copies {
				l := unlimited
				doc, errs := d.get(&Request{Query: text + fmt.Sprintf("#%d", i)}, someone(l))
				if errs != nil {
					t.Fatal(errs)
				}
				docs = append(docs, doc)
			}
			measured, estimated := (heap()-before)/copies, docs[0].memory()
			t.Logf("%s: %7d bytes, estimated %7d (%.2f), text %6d (x%.0f), %4d tokens", name, measured, estimated, float64(estimated)/float64(measured), len(text), float64(measured)/float64(len(text)), docs[0].shape.tokens)
			if estimated > 2*measured || measured > 2*estimated {
				t.Errorf("%d bytes, estimated %d", measured, estimated)
			}
			runtime.KeepAlive(docs)
		})
	}
}

func TestPositional(t *testing.T) {
	t.Parallel()
	d := testDocuments(t, nil)
	for text, want := range map[string][]string{
		"subscription($a:Cursor){ticks(after:$a){seq}}":                                                {"a"},
		"subscription($a:Cursor $s:Boolean){ticks(after:$a snapshot:$s){seq}}":                         {"a", "s"},
		"subscription($a:Cursor $e:Int){ticks(every:$e after:$a){seq}}":                                {"a"},
		"subscription($s:Boolean=true){ticks(snapshot:$s){seq name@include(if:$s)}}":                   nil,
		"subscription($s:Boolean!){ticks(snapshot:$s){seq ...F}} fragment F on Tick{name@skip(if:$s)}": nil,
		"subscription($s:Boolean!){...F} fragment F on Subscription{ticks(snapshot:$s){seq}}":          {"s"},
		"subscription($s:Boolean!){...on Subscription{ticks(snapshot:$s){seq}}}":                       {"s"},
		"subscription($a:String! $b:Cursor){states(of:[$a] after:$b){seq}}":                            {"b"},
		"subscription($a:Cursor){ticks(after:$a){seq} ticks(after:$a){cursor}}":                        {"a"},
		"query($a:Cursor $n:Int){people(after:$a first:$n){count}}":                                    nil,
		"subscription{ticks{seq}}": nil,
	} {
		doc, errs := d.get(&Request{Query: text}, someone(DefaultLimits))
		if errs != nil {
			t.Fatalf("%s: %v", text, errs)
		}
		if got := doc.positional(doc.ast.Operations[0]); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestPositionalInDirectives(t *testing.T) {
	t.Parallel()
	d, err := newDocuments(odd(t, `directive @mark(a: String) on SUBSCRIPTION | FIELD | FRAGMENT_DEFINITION | FRAGMENT_SPREAD | INLINE_FRAGMENT
		type Query { a: Int } type Subscription { s(after: String, x: String): Tick } type Tick { a(after: String): Int }`), nil)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]int{
		"subscription($a:String){s(after:$a){a}}":                                            1,
		"subscription($a:String)@mark(a:$a){s(after:$a){a}}":                                 0,
		"subscription($a:String){s(after:$a)@mark(a:$a){a}}":                                 0,
		"subscription($a:String){s(after:$a){a@mark(a:$a)}}":                                 0,
		"subscription($a:String){s(after:$a){...@mark(a:$a){a}}}":                            0,
		"subscription($a:String){...F}fragment F on Subscription@mark(a:$a){s(after:$a){a}}": 0,
		"subscription($a:String){...F@mark(a:$a)}fragment F on Subscription{s(after:$a){a}}": 0,
		"subscription($a:String){s(after:$a){a(after:$a)}}":                                  0,
		"subscription($a:String){s(after:$a x:$a){a}}":                                       0,
		"subscription($a:String){s(after:$a){...F}}fragment F on Tick{a}":                    1,
		"subscription($a:String){s(after:$a){...F}}fragment F on Tick{a(after:$a)}":          0,
	} {
		doc, errs := d.get(&Request{Query: text}, someone(DefaultLimits))
		if errs != nil {
			t.Fatalf("%s: %v", text, errs)
		}
		if got := doc.positional(doc.ast.Operations[0]); len(got) != want {
			t.Errorf("%s: %q, want %d", text, got, want)
		}
	}
}

func BenchmarkGetCached(b *testing.B) {
	d, c := testDocuments(b, nil), someone(DefaultLimits)
	r := &Request{Query: explorer}
	vars := map[string]any{"first": int64(20), "id": "a", "more": true}
	b.ReportAllocs()
	for b.Loop() {
		doc, errs := d.get(r, c)
		if errs != nil {
			b.Fatal(errs)
		}
		if _, err := doc.price(doc.ast.Operations[0], vars, DefaultLimits); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGetMiss(b *testing.B) {
	d, c := testDocuments(b, nil), someone(DefaultLimits)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n++
		if _, errs := d.get(&Request{Query: fmt.Sprintf("%s#%d", explorer, n)}, c); errs != nil {
			b.Fatal(errs)
		}
	}
}
