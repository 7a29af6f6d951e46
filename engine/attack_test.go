package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/openvantage/vantage/fault"
)

// Bounds that the issue sets for each document that is made to hurt.
const (
	attackCPU   = 50 * time.Millisecond
	attackBytes = 10 << 10
)

// An attack is a request that is made to hurt. Want are the codes that may answer it; none is
// for one that may run.
type attack struct {
	name string
	Request
	want []fault.Code
}

// times repeats what f writes for 0 to n-1.
func repeat(n int, f func(i int) string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(f(i))
	}
	return b.String()
}

// attacks are the rows of the table in the API's design that concern documents, each in
// several forms.
func attacks() []attack {
	costly, invalid, unparsed := []fault.Code{fault.QueryTooCostly}, []fault.Code{fault.ValidationFailed}, []fault.Code{fault.ParseFailed}
	either := []fault.Code{fault.QueryTooCostly, fault.ValidationFailed}
	same := func(s string) func(int) string { return func(int) string { return s } }
	wide20 := "{" + strings.Repeat("name __typename friends{count} ", 19) + strings.Repeat("best{name __typename best{name}} ", 19) + "}"
	documents := []struct {
		name, text string
		want       []fault.Code
	}{
		{"8 MB of opening brackets in an argument", "{echo(list:" + strings.Repeat("[", 8<<20), costly},
		{"256 KB of opening brackets in an argument", "{echo(list:" + strings.Repeat("[", 255<<10), costly},
		{"1,900 opening brackets in an argument", "{echo(list:" + strings.Repeat("[", 1900), unparsed},
		{"8 MB of opening braces", strings.Repeat("{", 8<<20), costly},
		{"1,900 opening braces", strings.Repeat("{", 1900), unparsed},
		{"1,900 opening braces in an argument", "{echo(filter:" + strings.Repeat("{nested:", 600), unparsed},
		{"1,900 opening brackets in a type", "query($a:" + strings.Repeat("[", 1900), unparsed},
		{"990 levels of a list literal", "{echo(list:" + strings.Repeat("[", 990) + strings.Repeat("]", 990) + ")}", costly},
		{"490 levels of an object literal", "{echo(filter:" + strings.Repeat("{nested:", 490) + "{}" + strings.Repeat("}", 490) + ")}", costly},
		{"16 levels of fields", "{person" + strings.Repeat("{best", 15) + "{name}" + strings.Repeat("}", 15) + "}", costly},
		{"600 levels of fields", "{person" + strings.Repeat("{best", 600) + "{name}" + strings.Repeat("}", 600) + "}", costly},
		{"500 levels of inline fragments", "{" + strings.Repeat("...{", 500) + "ping" + strings.Repeat("}", 501), costly},
		{"29 levels of inline fragments around 20 times each of many fields", "{person" + strings.Repeat("{...", 26) + wide20 + strings.Repeat("}", 26) + "}", nil},
		{"depth hidden in fragments", "{person{...F0}}" + repeat(20, func(i int) string {
			return fmt.Sprintf("fragment F%d on Person{best{...F%d}}", i, i+1)
		}) + "fragment F20 on Person{name}", costly},

		{"fragments that double 26 times", "{person{...F0}}" + doubling(26, "best{...FNEXT} b:best{...FNEXT}"), costly},
		{"fragments that double 12 times with aliases", "{person{...F0}}" + doubling(12, "best{...FNEXT} b:best{...FNEXT}"), nil},
		{"fragments that double 45 times in one place", "{person{...F0}}" + doubling(45, "...FNEXT ...FNEXT"), nil},
		{"fragments that double 12 times within the same field", "{person{...F0}}" + doubling(12, "best{...FNEXT} best{...FNEXT}"), nil},
		{"fragments that double through interfaces", "{named{...F0}}" + repeat(12, func(i int) string {
			return fmt.Sprintf("fragment F%d on Named{...on Person{best{...F%[2]d} b:best{...F%[2]d}} ...on Robot{maker{...F%[2]d} b:maker{...F%[2]d}}}", i, i+1)
		}) + "fragment F12 on Named{name}", nil},
		{"fragments that all use many later ones", "{person{...F0}}" + repeat(49, func(i int) string {
			return fmt.Sprintf("fragment F%d on Person{%s}", i, repeat(min(49-i, 7), func(j int) string { return fmt.Sprintf("...F%d ", i+j+1) }))
		}) + "fragment F49 on Person{name}", nil},
		{"fragments that use each other below fields", "{person{...F0}}" + repeat(40, func(i int) string {
			return fmt.Sprintf("fragment F%d on Person{%s name}", i, repeat(10, func(j int) string { return fmt.Sprintf("best{...F%d} ", min(39, i+j+1)) }))
		}), either},
		{"a choice of two sets of fragments at each of 14 levels", entangled(14), costly},
		{"400 fragments", "{person{...F0}}" + doubling(400, "...FNEXT"), costly},
		{"a fragment within itself", "{person{...A}} fragment A on Person{...A}", invalid},
		{"a fragment within itself below a field", "{person{...A}} fragment A on Person{best{...A}}", invalid},
		{"fragments in a ring", "{person{...A}} fragment A on Person{best{...B}} fragment B on Person{...C name} fragment C on Person{friends(first:100){edges{node{...A}}}}", invalid},
		{"50 fragments that all use all", "{person{...F0}}" + repeat(40, func(i int) string {
			return fmt.Sprintf("fragment F%d on Person{%s}", i, repeat(40, func(j int) string { return fmt.Sprintf("...F%d ", j) }))
		}), either},
		{"a ring that nothing uses", "{ping}" + repeat(50, func(i int) string {
			return fmt.Sprintf("fragment F%d on Person{a:best{...F%d}best{...F%[2]d}}", i, (i+1)%50)
		}), either},

		{"20,000 times one field", "{" + strings.Repeat("ping ", 20_000) + "}", costly},
		{"1,900 times one field", "{" + strings.Repeat("ping ", 1900) + "}", costly},
		{"1,900 times one field in a fragment", "{...F} fragment F on Query{" + strings.Repeat("ping ", 1900) + "}", costly},
		{"1,900 times one field in an unused fragment", "{ping} fragment F on Query{" + strings.Repeat("ping ", 1900) + "}", costly},
		{"one field in 400 inline fragments", "{" + strings.Repeat("...{ping}", 400) + "}", costly},
		{"one field in 40 fragments", "{" + repeat(40, func(i int) string { return fmt.Sprintf("...F%d ", i) }) + "}" +
			repeat(40, func(i int) string { return fmt.Sprintf("fragment F%d on Query{ping}", i) }), costly},
		{"one field in 300 fragments on an interface and its types", "{named{" + repeat(150, same("...on Person{name}...on Robot{name}")) + "}}", costly},
		{"one field 20 times at each of 14 levels", strings.Repeat("{person{best{best{name}}}", 1) + strings.Repeat("person{best{best{name}}}", 90) + "}", costly},
		{"20 times each of 90 fields", "{person{" + repeat(90, func(i int) string { return fmt.Sprintf("...{%s}", strings.Repeat("name ", 20)) }) + "}}", costly},
		{"20 times each of 30 aliases", "{person{" + repeat(20, func(int) string {
			return repeat(28, func(i int) string { return fmt.Sprintf("a%d:name ", i) })
		}) + "}}", costly},
		{"20 times each of 13 levels", "{person" + strings.Repeat("{best", 12) + "{" + strings.Repeat("name ", 20) + "}" + strings.Repeat("}", 12) + "}", nil},
		{"20 selections of 9 fields in 10 levels", merged(20, 10), nil},
		{"5,000 overlapping objects", "{" + strings.Repeat("person{best{name}}", 5000) + "}", costly},
		{"300 overlapping objects", "{" + strings.Repeat("person{best{name}}", 300) + "}", costly},
		{"300 overlapping objects that conflict", "{" + repeat(300, func(i int) string { return fmt.Sprintf("person(id:%d){best{name}}", i) }) + "}", costly},
		{"20 overlapping objects that conflict all over", "{" + repeat(20, func(i int) string {
			return fmt.Sprintf("person(id:%d){%s}", i, repeat(15, func(j int) string { return fmt.Sprintf("f%d:friends(first:%d){count}", j, i) }))
		}) + "}", costly},
		{"20 overlapping objects that conflict within", "{" + repeat(20, func(i int) string {
			return fmt.Sprintf("person{best{friends(first:%d){count edges{node{name}}}}}", i)
		}) + "}", invalid},

		{"20,000 aliases", "{" + repeat(20_000, func(i int) string { return fmt.Sprintf("a%d:ping ", i) }) + "}", costly},
		{"600 aliases", "{" + repeat(600, func(i int) string { return fmt.Sprintf("a%d:ping ", i) }) + "}", costly},
		{"40 aliases over fragments", "{person{...A...B}} fragment A on Person{" + repeat(20, func(i int) string { return fmt.Sprintf("a%d:name ", i) }) +
			"} fragment B on Person{" + repeat(20, func(i int) string { return fmt.Sprintf("b%d:name ", i) }) + "}", costly},
		{"29 aliases of objects in 12 levels", "{person{" + repeat(29, func(i int) string { return fmt.Sprintf("a%d:best{...F0}", i) }) + "}}" + doubling(12, "best{...FNEXT}"), nil},
		{"11 root fields", "{" + repeat(11, func(i int) string { return fmt.Sprintf("a%d:ping ", i) }) + "}", costly},
		{"11 root fields over fragments", "{...A...on Query{" + repeat(6, func(i int) string { return fmt.Sprintf("b%d:ping ", i) }) + "}} fragment A on Query{" +
			repeat(5, func(i int) string { return fmt.Sprintf("a%d:ping ", i) }) + "}", costly},

		{"20,000 directives", "{ping" + strings.Repeat("@a", 20_000) + "}", costly},
		{"900 directives", "{ping" + strings.Repeat("@a", 900) + "}", costly},
		{"50 directives that nobody knows", "{ping" + strings.Repeat("@a", 50) + "}", invalid},
		{"51 directives in many places", "query@a{ping" + strings.Repeat("@a", 25) + "...@a{ping@a}...F@a} fragment F on Query@a{ping" + strings.Repeat("@a", 21) + "}", costly},
		{"directives of variables", "query($a:Int" + strings.Repeat("@a", 51) + "){ping}", costly},
		{"20 conditions at once", "{ping" + strings.Repeat("@skip(if:true)", 20) + "}", invalid},

		{"100,000 items of a list", "{echo(list:[" + strings.Repeat("1,", 100_000) + "])}", costly},
		{"1,900 items of a list", "{echo(list:[" + strings.Repeat("1,", 1900) + "])}", nil},
		{"1,900 wrong items of a list", "{echo(list:[" + strings.Repeat("a,", 1900) + "])}", invalid},
		{"1,900 nested wrong items", "{echo(list:[" + strings.Repeat("[a],", 600) + "])}", invalid},
		{"a list of 190,000 characters where none belongs", `{echo(number:["` + strings.Repeat("x", 190_000) + `"])}`, invalid},
		{"a string of 190,000 characters where a number belongs", `{echo(number:"` + strings.Repeat("<", 190_000) + `")}`, invalid},
		{"9 strings of 20,000 characters where numbers belong", "{" + repeat(9, func(i int) string {
			return fmt.Sprintf(`a%d:echo(number:"%s")`, i, strings.Repeat("<", 20_000))
		}) + "}", invalid},
		{"a string of 190,000 characters where an object belongs", `{echo(filter:"` + strings.Repeat("\u2028", 60_000) + `")}`, invalid},
		{"a number of 190,000 digits", "{echo(number:" + strings.Repeat("9", 190_000) + ")}", invalid},
		{"a number of 190,000 digits where anything goes", "{people(first:1,after:" + strings.Repeat("9", 190_000) + "){count}}", invalid},
		{"a number beyond all numbers in a list where anything goes", "{people(first:1,after:[{a:1e999999}]){count}}", invalid},
		{"an object of 600 fields of one name", "{echo(filter:{" + strings.Repeat("names:[]", 450) + "})}", invalid},
		{"1,900 arguments", "{echo(" + repeat(600, func(i int) string { return fmt.Sprintf("a%d:1 ", i) }) + ")}", invalid},
		{"600 times one argument", "{echo(" + strings.Repeat("text:1 ", 600) + ")}", invalid},
		{"20 fields of 30 arguments", "{" + repeat(20, func(int) string {
			return "echo(" + repeat(30, func(i int) string { return fmt.Sprintf("a%d:1 ", 29-i) }) + ")"
		}) + "}", invalid},
		{"280 variables", "query(" + repeat(280, func(i int) string { return fmt.Sprintf("$a%d:Int=1 ", i) }) + "){ping}", invalid},
		{"280 variables of one name", "query(" + strings.Repeat("$a:Int=1 ", 280) + "){ping}", invalid},
		{"600 variables that are not there", "{echo(list:[" + repeat(600, func(i int) string { return fmt.Sprintf("$a%d ", i) }) + "])}", invalid},
		{"a variable of a type of 900 levels", "query($a:" + strings.Repeat("[", 900) + "Int" + strings.Repeat("]", 900) + "){ping}", invalid},

		{"introspection of itself", "{__schema{types{fields{type{fields{type{fields{type{name}}}}}}}}}", invalid},
		{"introspection of itself by fragments", "{__schema{types{...F}}} fragment F on __Type{fields{type{...F}}}", invalid},
		{"introspection ten times", "{" + repeat(10, func(i int) string {
			return fmt.Sprintf("a%d:__schema{types{name fields{name type{name fields{name}}}}}", i)
		}) + "}", nil},
		{"introspection of 29 aliases of types", "{__schema{" + repeat(29, func(i int) string { return fmt.Sprintf("a%d:types{name fields{name type{name}}}", i) }) + "}}", nil},

		{"500 operations", repeat(500, func(i int) string { return fmt.Sprintf("query a%d{ping}", i) }), costly},
		{"600 operations without a name", strings.Repeat("{ping}", 600), costly},
		{"20 operations without a name", strings.Repeat("{ping}", 20), invalid},
		{"thousands of operations", repeat(20_000, func(i int) string { return fmt.Sprintf("query a%d{ping}", i) }), costly},
		{"50 operations that share one fragment of 600 fields that are not there", repeat(50, func(i int) string { return fmt.Sprintf("query a%d{...F}", i) }) +
			"fragment F on Query{" + repeat(600, func(i int) string { return fmt.Sprintf("x%d ", i) }) + "}", costly},
		{"50 operations that share one fragment of 500 fields", repeat(50, func(i int) string { return fmt.Sprintf("query a%d{person{...F}}", i) }) +
			"fragment F on Person{" + strings.Repeat("best{name best{name __typename}}", 60) + "}", costly},
		{"50 operations that share one fragment of 500 selections", repeat(50, func(i int) string { return fmt.Sprintf("query a%d{person{...F}}", i) }) +
			"fragment F on Person{" + strings.Repeat(strings.Repeat("...{", 24)+"name"+strings.Repeat("}", 24), 20) + "}", costly},
		{"20 operations that share one fragment of 500 selections", repeat(20, func(i int) string { return fmt.Sprintf("query a%d{person{...F}}", i) }) +
			"fragment F on Person{" + strings.Repeat(strings.Repeat("...{", 24)+"name"+strings.Repeat("}", 24), 20) + "}", nil},
		{"50 operations that share 50 fragments", shared(50, 50), either},

		{"10 MB of spaces", strings.Repeat(" ", 10<<20) + "{ping}", costly},
		{"250 KB of spaces", strings.Repeat(" ", 250_000) + "{ping}", nil},
		{"250 KB of commas and line ends", strings.Repeat(",\r\n\t\ufeff", 31_000) + "{ping}", nil},
		{"10 MB of comments", strings.Repeat("#\n", 5<<20) + "{ping}", costly},
		{"250 KB of comments", strings.Repeat("#\n", 125_000) + "{ping}", costly},
		{"a comment of 250 KB", "#" + strings.Repeat("é", 125_000) + "\n{ping}", nil},
		{"nothing but spaces", strings.Repeat(" ", 1000), invalid},
		{"a name of 250 KB", "{" + strings.Repeat("a", 250_000) + "}", costly},
		{"300 names of 100 characters that are not there", "{" + repeat(300, func(i int) string { return fmt.Sprintf("%s%03d ", strings.Repeat("a", 97), i) }) + "}", costly},
		{"300 names of 100 characters that are not there, below", "{person{" + repeat(300, func(i int) string { return fmt.Sprintf("%s%03d ", strings.Repeat("a", 97), i) }) + "}}", invalid},
		{"a string of 250 KB", `{echo(text:"` + strings.Repeat("é", 124_000) + `")}`, nil},
		{"a string of 40,000 escapes", `{echo(text:"` + strings.Repeat(`\u0001`, 40_000) + `")}`, nil},
		{"a block string of 250,000 lines", `{echo(text:"""` + strings.Repeat("\n", 250_000) + `""")}`, nil},
		{"a string without end", `{echo(text:"` + strings.Repeat("x", 250_000), unparsed},
		{"a block string without end", `{echo(text:"""` + strings.Repeat("\\\"\"\"", 60_000), unparsed},
		{"a name that is no name", "{пинг}", unparsed},
		{"a byte order mark", "\ufeff{ping}", nil},
		{"bytes that are not text", "{ping \xff\xfe\x00}", unparsed},
		{"half of a pair of surrogates", `{echo(text:"\ud83d")}`, nil},
	}
	out := make([]attack, 0, len(documents)+20)
	for _, d := range documents {
		out = append(out, attack{d.name, Request{Query: d.text}, d.want})
	}

	long := strings.Repeat("<", 1<<20)
	var deep, wide any = map[string]any{}, map[string]any{}
	for range 5000 {
		deep = map[string]any{"nested": deep}
	}
	var list any = 1.0
	for range 5000 {
		list = []any{list}
	}
	many := make([]any, 100_000)
	for i := range many {
		many[i] = json.Number("1")
		wide.(map[string]any)[fmt.Sprint("x", i)] = true
	}
	echo := "query($text:String $number:Int $list:[Int!] $filter:Filter){echo(text:$text number:$number list:$list filter:$filter)}"
	for _, v := range []struct {
		name, variable string
		value          any
		want           []fault.Code
	}{
		{"a string of 1 MB for a number", "number", long, invalid},
		{"a string of 1 MB of digits for a number", "number", strings.Repeat("9", 1<<20), invalid},
		{"a number of 1 MB", "number", json.Number(strings.Repeat("9", 1<<20)), invalid},
		{"a number of 1 MB for a string", "text", json.Number(strings.Repeat("9", 1<<20)), nil},
		{"an object of 100,000 fields for a number", "number", wide, costly},
		{"an object of 100,000 fields that are not there", "filter", wide, costly},
		{"an object with a name of 1 MB", "filter", map[string]any{long: 1.0}, invalid},
		{"a list of 100,000 numbers", "list", many, costly},
		{"a list of 100,000 numbers for a string", "text", many, costly},
		{"a list of 5,000 levels", "list", list, costly},
		{"an object of 5,000 levels", "filter", deep, costly},
		{"an object of 5,000 levels for a number", "number", deep, costly},
		{"a list of nothing", "list", []any{nil}, invalid},
		{"null for an item of a list", "list", nil, nil},
		{"true for an object", "filter", true, invalid},
	} {
		out = append(out, attack{"variables: " + v.name, Request{Query: echo, Variables: map[string]any{v.variable: v.value}}, v.want})
	}
	people := "query($n:Int $c:Cursor){people(first:$n after:$c){edges{node{friends(first:$n){edges{node{friends(first:$n){edges{node{name}}}}}}}}}}"
	for _, n := range []any{1e9, json.Number("1000000000"), int64(1) << 62, 1e300, json.Number("2147483648"), "2000000000"} {
		out = append(out, attack{fmt.Sprintf("variables: a page of %v in a page", n), Request{Query: people, Variables: map[string]any{"n": n}}, either})
	}
	for _, n := range []any{-1e9, json.Number("-1000000000"), 0.0} {
		out = append(out, attack{fmt.Sprintf("variables: a page of %v in a page", n), Request{Query: people, Variables: map[string]any{"n": n}}, nil})
	}
	return out
}

// doubling are n fragments F0 to Fn on Person, each with a body in which NEXT is the number
// of the next.
func doubling(n int, body string) string {
	return repeat(n, func(i int) string {
		return fmt.Sprintf("fragment F%d on Person{%s}", i, strings.ReplaceAll(body, "NEXT", strconv.Itoa(i+1)))
	}) + fmt.Sprintf("fragment F%d on Person{name}", n)
}

// entangled has another set of selections in each of 2^n places.
func entangled(n int) string {
	return "{person{...F0 ...G0}}" + repeat(n, func(i int) string {
		return fmt.Sprintf("fragment F%d on Person{best{...F%[2]d ...G%[2]d}b:best{...F%[2]d}}fragment G%[1]d on Person{best{...F%[2]d}b:best{...G%[2]d ...F%[2]d}}", i, i+1)
	}) + fmt.Sprintf("fragment F%d on Person{name}fragment G%[1]d on Person{a:name}", n)
}

// merged has as many selections as may be of one key in each of several levels, so that the
// rule that compares them has most to do.
func merged(same, levels int) string {
	level := "name"
	for range levels {
		level = "best{" + level + "}"
	}
	return "{person{" + strings.Repeat(level+" ", same) + "}}"
}

// shared has operations that each use all fragments, which use each other.
func shared(operations, fragments int) string {
	return repeat(operations, func(i int) string { return fmt.Sprintf("query a%d{person{...F0}}", i) }) +
		doubling(fragments-1, "best{...FNEXT}name best{name} best{name best{name best{name}}}")
}

func attackEngine(tb testing.TB) *Engine {
	tb.Helper()
	e := New(Options{
		Schema: newTestSchema(tb, nil), Present: presentTest, DocumentBytes: 256 << 10,
		Recover: func(_ context.Context, p any) error { return fmt.Errorf("panic: %v", p) },
		Caller:  func(context.Context) Caller { return Caller{Limits: DefaultLimits, Payer: Payer{Key: "someone"}} },
	})
	tb.Cleanup(func() { e.Close(context.Background()) })
	return e
}

// attempt prepares an attack and returns what would be answered.
func attempt(tb testing.TB, e *Engine, a attack) (*operation, gqlerror.List, []byte) {
	tb.Helper()
	r := a.Request
	if r.OperationName == "" && strings.Contains(r.Query, "query a0") {
		r.OperationName = "a0"
	}
	op, errs := e.prepare(context.Background(), &r)
	if op != nil {
		return op, nil, response{extensions: op.extensions(0)}.append(nil)
	}
	return nil, errs, response{errors: errs}.append(nil)
}

// cpu is the processor time that this process has taken.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// watched reports whether the race detector is on, which makes all slower.
func watched() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

//nolint:paralleltest // the processor time of the process is measured
func TestAttacks(t *testing.T) {
	e := attackEngine(t)
	var worst time.Duration
	for _, a := range attacks() {
		t.Run(a.name+" is answered soon and in few words", func(t *testing.T) {
			var op *operation
			var errs gqlerror.List
			var answer []byte
			took := time.Duration(math.MaxInt64)
			for tries := 0; tries < 3 && took > attackCPU; tries++ { // what else runs is measured, too
				before := cpu()
				op, errs, answer = attempt(t, e, a)
				took = min(took, cpu()-before)
			}
			worst = max(worst, took)
			var said string
			if len(errs) > 0 {
				said = fmt.Sprint(errs[0].Extensions["code"], ": ", clip(errs[0].Message))
			} else {
				said = fmt.Sprint("runs for ", op.price.requested, " points")
			}
			t.Logf("%8.2f ms, %5d bytes, %d errors, %s: %s", float64(took)/1e6, len(answer), len(errs), a.name, said)
			if len(answer) > attackBytes {
				t.Errorf("the answer has %d bytes: %.300s", len(answer), answer)
			}
			if !watched() && took > 5*attackCPU { // the machine may be busy
				t.Errorf("it took %v", took)
			}
			if len(a.want) == 0 && errs != nil {
				t.Errorf("it is refused: %v", errs)
			}
			if len(a.want) > 0 && errs == nil {
				t.Errorf("it is accepted for %d points", op.price.requested)
			}
			for _, g := range errs {
				code, _ := g.Extensions["code"].(string)
				ok := false
				for _, want := range a.want {
					ok = ok || code == string(want)
				}
				if !ok {
					t.Errorf("code %s, want %s", code, a.want)
				}
			}
		})
	}
	t.Logf("the worst took %v", worst)
}

// FuzzDocument looks for documents and variables that end the process, are answered at length or
// with a fault of ours, or cost less than nothing.
func FuzzDocument(f *testing.F) {
	for _, a := range attacks() {
		variables, err := json.Marshal(a.Variables)
		if err == nil && len(a.Query)+len(variables) < 4<<10 {
			f.Add(a.Query, string(variables))
		}
	}
	f.Add(explorer, `{"first":20,"id":7}`)
	f.Add(referenceIntrospection, "{}")
	e := attackEngine(f)
	f.Fuzz(func(t *testing.T, text, variables string) {
		var vars map[string]any
		d := json.NewDecoder(strings.NewReader(variables))
		d.UseNumber()
		if d.Decode(&vars) != nil {
			vars = nil
		}
		op, errs, answer := attempt(t, e, attack{Request: Request{Query: text, Variables: vars}})
		if len(answer) > attackBytes {
			t.Errorf("the answer has %d bytes", len(answer))
		}
		for _, g := range errs {
			switch code, _ := g.Extensions["code"].(string); fault.Code(code) {
			case fault.ParseFailed, fault.ValidationFailed, fault.QueryTooCostly, fault.Invalid:
			default:
				t.Errorf("%s: %s", code, g.Message)
			}
		}
		if op == nil {
			return
		}
		if op.price.requested < 1 || op.price.requested > DefaultLimits.Cost {
			t.Errorf("it costs %d", op.price.requested)
		}
		if again, _, _ := attempt(t, e, attack{Request: Request{Query: text, Variables: vars}}); again == nil || again.price.requested != op.price.requested {
			t.Errorf("the second time it is another: %+v", again)
		}
	})
}

func BenchmarkAttack(b *testing.B) {
	e := attackEngine(b)
	for _, a := range attacks() {
		b.Run(a.name, func(b *testing.B) {
			size := 0
			before := cpu()
			for b.Loop() {
				_, _, answer := attempt(b, e, a)
				size = len(answer)
			}
			b.ReportMetric(float64(cpu()-before)/1e6/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(size), "answer-bytes")
		})
	}
}
