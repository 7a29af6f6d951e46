package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/validator"

	"github.com/openvantage/vantage/fault"
)

// Prices of what no directive prices, in points.
const (
	compositePoints     = 1   // an object, an interface or a union
	operationPoints     = 1   // the least that any operation costs
	unknownItems        = 10  // a list without @listSize
	largestPage         = 100 // a connection that is not told how many
	introspectionPoints = 50  // __schema and __type, and a point for so many objects in them:
	describedPerPoint   = 5   // Source: measured, the reference client's query takes 25 ms
)

// most is where points stop growing.
const most = math.MaxInt32

// producedBytes is what large values may add up to in one response.
const producedBytes = 16 << 20

func plus(a, b int) int { return min(a+b, most) }

func times(a, b int) int { return min(a*b, most) } // both are at most 2^31

// A tariff holds the prices of a schema, as its directives have them: @cost says what a field
// costs when it is resolved or what an object of a type costs, @listSize how many there are.
// Not written, an object costs a point and all else nothing.
type tariff struct {
	schema *ast.Schema
	fields map[*ast.FieldDefinition]entry
	types  map[string]int
	// described has the lengths of introspection's lists in this schema, rounded up; all but
	// the first two are means.
	described map[string]int
}

// An entry is the price of a field.
type entry struct {
	points    int
	arguments map[string]int // of those that cost
	list      *listSize      // nil without the directive
}

// A listSize is the directive of this name.
type listSize struct {
	otherwise int // items when no slicing argument is given
	slicing   []string
	sized     []string
}

// newTariff reads the directives of a schema. It fails when one cannot be read.
func newTariff(s *ast.Schema) (*tariff, error) {
	t := &tariff{schema: s, fields: map[*ast.FieldDefinition]entry{}, types: map[string]int{}}
	t.describe()
	for _, d := range s.Types {
		points, err := weight(d.Directives)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.Name, err)
		}
		if points < 0 && d.IsCompositeType() {
			points = compositePoints
		}
		t.types[d.Name] = max(points, 0)
		if d.Kind != ast.Object && d.Kind != ast.Interface {
			continue
		}
		for _, f := range d.Fields {
			if t.fields[f], err = newEntry(f); err != nil {
				return nil, fmt.Errorf("%s.%s: %w", d.Name, f.Name, err)
			}
		}
	}
	return t, nil
}

// describe counts what introspection lists.
func (t *tariff) describe() {
	types, fields := len(t.schema.Types), 0
	sums := map[string]int{}
	for _, d := range t.schema.Types {
		if d.Kind == ast.InputObject {
			sums["inputFields"] += len(d.Fields)
			continue
		}
		fields += len(d.Fields)
		for _, f := range d.Fields {
			sums["args"] += len(f.Arguments)
		}
		sums["enumValues"] += len(d.EnumValues)
		sums["interfaces"] += len(d.Interfaces)
		sums["possibleTypes"] += len(t.schema.PossibleTypes[d.Name])
	}
	t.described = map[string]int{"types": types, "directives": len(t.schema.Directives), "fields": fields/types + 1}
	t.described["args"] = sums["args"]/fields + 1
	for _, name := range []string{"inputFields", "enumValues", "interfaces", "possibleTypes"} {
		t.described[name] = sums[name]/types + 1
	}
}

func newEntry(f *ast.FieldDefinition) (e entry, err error) {
	if e.points, err = weight(f.Directives); err != nil {
		return e, err
	}
	e.points = max(e.points, 0)
	for _, a := range f.Arguments {
		points, err := weight(a.Directives)
		if err != nil {
			return e, err
		}
		if points > 0 {
			if e.arguments == nil {
				e.arguments = map[string]int{}
			}
			e.arguments[a.Name] = points
		}
	}
	if d := f.Directives.ForName("listSize"); d != nil {
		e.list = &listSize{otherwise: largestPage}
		for _, a := range d.Arguments {
			switch a.Name {
			case "assumedSize":
				if e.list.otherwise, err = strconv.Atoi(a.Value.Raw); err != nil || e.list.otherwise < 0 {
					return e, fmt.Errorf("the assumed size %s is no number of items", a.Value.Raw)
				}
			case "slicingArguments":
				e.list.slicing = texts(a.Value)
			case "sizedFields":
				e.list.sized = texts(a.Value)
			}
		}
	}
	return e, nil
}

func texts(v *ast.Value) (out []string) {
	for _, child := range v.Children {
		out = append(out, child.Value.Raw)
	}
	return out
}

// weight reads @cost; -1 when there is none.
func weight(ds ast.DirectiveList) (int, error) {
	d := ds.ForName("cost")
	if d == nil {
		return -1, nil
	}
	a := d.Arguments.ForName("weight")
	if a == nil {
		return 0, fmt.Errorf("@cost has no weight")
	}
	points, err := strconv.Atoi(a.Value.Raw)
	if err != nil || points < 0 || points > most {
		return 0, fmt.Errorf("the weight %q is no number of points", a.Value.Raw)
	}
	return points, nil
}

// A plan is the cost of an operation as far as it can be known without its variables: a
// constant, and steps for the rest. Each step uses the ones before it.
type plan struct {
	total term
	steps []step
	lists map[*ast.Field]count
}

// A term is a number of points: Fixed, and those of a step unless that is negative.
type term struct {
	fixed int
	step  int
}

func (t term) value(steps []int) int {
	if t.step < 0 {
		return t.fixed
	}
	return plus(t.fixed, steps[t.step])
}

// A step computes points from terms.
type step struct {
	kind stepKind
	// of are what is added or compared; a product and a condition have one.
	of []term
	// by is how often a product is taken.
	by size
	// variable must be want, or a condition is worth nothing.
	variable string
	want     bool
}

type stepKind byte

const (
	sum stepKind = iota
	greatest
	product
	condition
)

// A size is how many items there are, by the arguments of a list.
type size struct {
	given     int // by literals, or negative
	variables []sizeVariable
	otherwise int // with no argument
}

// A sizeVariable is an argument that is a variable; absent is the argument's default, or
// negative.
type sizeVariable struct {
	name   string
	absent int
}

// A count is how many items a list may have, and what each costs.
type count struct {
	items size
	each  term
	// vague when the field stands where types differ in its price: then nothing is refunded.
	vague bool
}

func (s size) value(vars map[string]any) int {
	n := s.given
	for _, v := range s.variables {
		if value, ok := vars[v.name]; ok {
			n = max(n, items(value))
		} else {
			n = max(n, v.absent)
		}
	}
	if n < 0 {
		return s.otherwise
	}
	return n
}

// items is how many items a slicing argument asks for: the number that it is, or one for each
// in a list. Null asks for nothing, which is negative; so does what is no number.
func items(v any) int {
	switch v := v.(type) {
	case int64:
		return int(min(max(v, 0), most))
	case int:
		return min(max(v, 0), most)
	case float64:
		return int(min(max(v, 0), most))
	case json.Number:
		return digits(string(v))
	case string: // as the validator takes it for an Int
		return digits(v)
	case []any:
		return len(v)
	}
	return -1
}

func digits(s string) int {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil && !math.IsInf(f, 0) || math.IsNaN(f) {
		return -1
	}
	return int(min(max(f, 0), most))
}

// evaluate computes the steps.
func (p *plan) evaluate(vars map[string]any) []int {
	if len(p.steps) == 0 {
		return nil
	}
	values := make([]int, len(p.steps))
	for i := range p.steps {
		s := &p.steps[i]
		v := 0
		switch s.kind {
		case sum:
			for _, t := range s.of {
				v = plus(v, t.value(values))
			}
		case greatest:
			for _, t := range s.of {
				v = max(v, t.value(values))
			}
		case product:
			v = times(s.of[0].value(values), s.by.value(vars))
		case condition:
			if b, ok := vars[s.variable].(bool); !ok || b == s.want {
				v = s.of[0].value(values)
			}
		}
		values[i] = v
	}
	return values
}

// A planner makes a plan. What a fragment or a field costs for a type is worked out once.
type planner struct {
	*tariff
	plan      *plan
	fragments map[fragmentFor]parts
	fields    map[fieldFor]parts
	objects   map[*ast.FragmentDefinition]int // of introspection
}

// parts are the cost of a selection: of what is there once, and of each item where a list's
// sized fields are among them.
type parts struct{ once, each term }

type fragmentFor struct {
	fragment *ast.FragmentDefinition
	object   *ast.Definition
	list     *listSize
}

type fieldFor struct {
	field  *ast.Field
	result *ast.Definition
	list   *listSize
}

// plan works out what an operation costs. The operation must be valid.
func (t *tariff) plan(op *ast.OperationDefinition) *plan {
	p := planner{t, &plan{lists: map[*ast.Field]count{}}, map[fragmentFor]parts{}, map[fieldFor]parts{}, map[*ast.FragmentDefinition]int{}}
	root := t.schema.Query
	switch op.Operation {
	case ast.Mutation:
		root = t.schema.Mutation
	case ast.Subscription:
		root = t.schema.Subscription
	case ast.Query:
	}
	p.plan.total = p.selection(op.SelectionSet, root, nil).once
	return p.plan
}

func constant(points int) term { return term{points, -1} }

func (p *planner) step(s step) term {
	p.plan.steps = append(p.plan.steps, s)
	return term{0, len(p.plan.steps) - 1}
}

// add is the sum of terms.
func (p *planner) add(terms ...term) term {
	fixed, rest := 0, []term(nil)
	for _, t := range terms {
		fixed = plus(fixed, t.fixed)
		if t.step >= 0 {
			rest = append(rest, term{0, t.step})
		}
	}
	switch len(rest) {
	case 0:
		return constant(fixed)
	case 1:
		return term{fixed, rest[0].step}
	}
	out := p.step(step{kind: sum, of: rest})
	out.fixed = fixed
	return out
}

// largest is the greatest of terms.
func (p *planner) largest(terms ...term) term {
	fixed, rest := 0, []term(nil)
	for _, t := range terms {
		if t.step < 0 {
			fixed = max(fixed, t.fixed)
		} else {
			rest = append(rest, t)
		}
	}
	if rest == nil {
		return constant(fixed)
	}
	return p.step(step{kind: greatest, of: append(rest, constant(fixed))})
}

// multiply takes a term as often as there are items.
func (p *planner) multiply(t term, by size) term {
	switch {
	case t == constant(0):
		return t
	case len(by.variables) == 0 && t.step < 0:
		return constant(times(t.fixed, by.value(nil)))
	}
	return p.step(step{kind: product, of: []term{t}, by: by})
}

// when puts a term under the conditions of @skip and @include.
func (p *planner) when(ds ast.DirectiveList, t term) term {
	for _, d := range ds {
		if d.Name != "skip" && d.Name != "include" || t == constant(0) {
			continue
		}
		want := d.Name == "include"
		v := d.Arguments.ForName("if").Value
		switch v.Kind { //nolint:exhaustive // the argument is a Boolean
		case ast.BooleanValue:
			if (v.Raw == "true") != want {
				return constant(0)
			}
		case ast.Variable:
			t = p.step(step{kind: condition, of: []term{t}, variable: v.Raw, want: want})
		}
	}
	return t
}

// selection is what a selection costs on an object of a type. List is that of the field it
// belongs to.
func (p *planner) selection(set ast.SelectionSet, object *ast.Definition, list *listSize) parts {
	var once, each []term
	for _, sel := range set {
		var c parts
		var ds ast.DirectiveList
		switch sel := sel.(type) {
		case *ast.Field:
			c, ds = p.field(sel, object, list), sel.Directives
		case *ast.InlineFragment:
			if !p.applies(sel.TypeCondition, object) {
				continue
			}
			c, ds = p.selection(sel.SelectionSet, object, list), sel.Directives
		case *ast.FragmentSpread:
			if !p.applies(sel.Definition.TypeCondition, object) {
				continue
			}
			c, ds = p.spread(sel.Definition, object, list), sel.Directives
		}
		once, each = append(once, p.when(ds, c.once)), append(each, p.when(ds, c.each))
	}
	return parts{p.add(once...), p.add(each...)}
}

// applies reports whether a fragment on a type takes part for an object.
func (p *planner) applies(on string, object *ast.Definition) bool {
	return on == "" || on == object.Name || slices.ContainsFunc(p.schema.PossibleTypes[on], func(d *ast.Definition) bool { return d == object })
}

func (p *planner) spread(f *ast.FragmentDefinition, object *ast.Definition, list *listSize) parts {
	k := fragmentFor{f, object, list}
	c, ok := p.fragments[k]
	if !ok {
		c = p.selection(f.SelectionSet, object, list)
		p.fragments[k] = c
	}
	return c
}

// field is what a field costs.
func (p *planner) field(f *ast.Field, object *ast.Definition, of *listSize) parts {
	if strings.HasPrefix(f.Name, "__") {
		if f.Name == "__typename" {
			return parts{constant(0), constant(0)}
		}
		return parts{constant(introspectionPoints + p.introspection(f.SelectionSet)/describedPerPoint), constant(0)}
	}
	def := object.Fields.ForName(f.Name)
	price := p.tariff.fields[def]
	own := price.points
	for _, a := range f.Arguments {
		own = plus(own, price.arguments[a.Name])
	}
	inner := p.result(f, p.schema.Types[def.Type.Name()], price.list)
	switch {
	case of != nil && slices.Contains(of.sized, f.Name):
		return parts{constant(own), inner.once}
	case price.list != nil:
		n := price.list.size(f, def)
		c := count{items: n, each: inner.each}
		once := inner.once
		if len(price.list.sized) == 0 {
			c.each, once = inner.once, constant(0)
		}
		if known, ok := p.plan.lists[f]; ok && (known.each != c.each) {
			c.vague = true
		}
		p.plan.lists[f] = c
		return parts{p.add(constant(own), once, p.multiply(c.each, n)), constant(0)}
	case def.Type.Elem != nil:
		return parts{p.add(constant(own), p.multiply(inner.once, size{given: unknownItems})), constant(0)}
	}
	return parts{p.add(constant(own), inner.once), constant(0)}
}

// result is what one value of a field costs, with all that is selected in it: for an interface
// or a union, what the dearest of its types costs.
func (p *planner) result(f *ast.Field, d *ast.Definition, list *listSize) parts {
	k := fieldFor{f, d, list}
	if c, ok := p.fields[k]; ok {
		return c
	}
	var c parts
	if d.IsAbstractType() {
		var once, each []term
		for _, object := range p.schema.PossibleTypes[d.Name] {
			o := p.selection(f.SelectionSet, object, list)
			once, each = append(once, p.add(o.once, constant(p.types[object.Name]))), append(each, o.each)
		}
		c = parts{p.largest(once...), p.largest(each...)}
	} else {
		c = p.selection(f.SelectionSet, d, list)
		c.once = p.add(c.once, constant(p.types[d.Name]))
	}
	p.fields[k] = c
	return c
}

// introspection is about how many objects a selection of introspection has, whatever its
// conditions.
func (p *planner) introspection(set ast.SelectionSet) int {
	sum := 0
	for _, sel := range set {
		switch sel := sel.(type) {
		case *ast.Field:
			if len(sel.SelectionSet) > 0 {
				sum = plus(sum, times(max(p.described[sel.Name], 1), plus(1, p.introspection(sel.SelectionSet))))
			}
		case *ast.InlineFragment:
			sum = plus(sum, p.introspection(sel.SelectionSet))
		case *ast.FragmentSpread:
			n, ok := p.objects[sel.Definition]
			if !ok {
				n = p.introspection(sel.Definition.SelectionSet)
				p.objects[sel.Definition] = n
			}
			sum = plus(sum, n)
		}
	}
	return sum
}

// size reads the slicing arguments of a field.
func (l *listSize) size(f *ast.Field, def *ast.FieldDefinition) size {
	s := size{given: -1, otherwise: l.otherwise}
	for _, name := range l.slicing {
		absent := -1
		if a := def.Arguments.ForName(name); a != nil {
			absent = literal(a.DefaultValue)
		}
		switch a := f.Arguments.ForName(name); {
		case a == nil:
			s.given = max(s.given, absent)
		case a.Value.Kind == ast.Variable:
			s.variables = append(s.variables, sizeVariable{a.Value.Raw, absent})
		default:
			s.given = max(s.given, literal(a.Value))
		}
	}
	return s
}

// literal is items for what stands in a document.
func literal(v *ast.Value) int {
	switch {
	case v == nil:
		return -1
	case v.Kind == ast.IntValue:
		return digits(v.Raw)
	case v.Kind == ast.ListValue:
		return len(v.Children)
	}
	return -1
}

// A price is what an operation may cost: requested, before it runs.
type price struct {
	requested, limit int
	// balance is the payer's after requested was taken; zero when nobody keeps any.
	balance Balance
	plan    *plan
	steps   []int
}

// price computes what an operation costs with these variables. It fails with QUERY_TOO_COSTLY
// above the limit.
func (doc *document) price(op *ast.OperationDefinition, vars map[string]any, l Limits) (price, error) {
	p := price{limit: l.Cost, plan: doc.plans[op]}
	p.steps = p.plan.evaluate(vars)
	p.requested = max(p.plan.total.value(p.steps), operationPoints)
	if p.requested > l.Cost {
		return p, fault.New(fault.QueryTooCostly, "The operation costs %d points, more than %d. Ask for smaller pages, or in parts.", p.requested, l.Cost).
			At("query").With("cost", int64(p.requested)).With("limit", int64(l.Cost))
	}
	return p, nil
}

// Cost is what a document of one operation may cost with these variables, whatever the limits.
// It fails as the document would.
func Cost(schema *ast.Schema, text string, variables map[string]any) (points int, err error) {
	d, err := newDocuments(schema, nil)
	if err != nil {
		return 0, err
	}
	doc, errs := d.get(&Request{Query: text}, Caller{Limits: unlimited})
	if errs != nil {
		return 0, errors.Join(errs...)
	}
	op := doc.ast.Operations[0]
	if variables, err = validator.VariableValues(schema, op, variables); err != nil {
		return 0, err
	}
	p, err := doc.price(op, variables, unlimited)
	return p.requested, err
}

// A tab keeps what an operation turns out to cost while it runs.
type tab struct {
	price     *price
	variables map[string]any
	refund    atomic.Int64
	produced  atomic.Int64
}

type tabKey struct{}

// actual is what the operation cost.
func (t *tab) actual() int {
	return max(t.price.requested-int(t.refund.Load()), min(t.price.requested, operationPoints))
}

// Returned says that the field which is being resolved has n items, so that those which were
// paid for and are not there are paid back. Call it once for each list that @listSize
// is written at. Outside an operation it does nothing.
func Returned(ctx context.Context, n int) {
	t, _ := ctx.Value(tabKey{}).(*tab)
	f := graphql.GetFieldContext(ctx)
	if t == nil || f == nil || t.price.plan == nil {
		return
	}
	c, ok := t.price.plan.lists[f.Field.Field]
	if !ok || c.vague {
		return
	}
	if missing := c.items.value(t.variables) - n; missing > 0 {
		t.refund.Add(int64(times(missing, c.each.value(t.price.steps))))
	}
}

// Produced says that a value of so many bytes is about to be read for the response. It fails
// with QUERY_TOO_COSTLY when all such values together are more than 16 MiB: then the
// caller should not read it.
func Produced(ctx context.Context, bytes int) error {
	t, _ := ctx.Value(tabKey{}).(*tab)
	if t == nil || t.produced.Add(int64(bytes)) <= producedBytes {
		return nil
	}
	return fault.New(fault.QueryTooCostly, "The values that you ask for add up to more than %d MiB. Ask for fewer at a time.", producedBytes>>20).With("limit", producedBytes)
}

// extensions is the `extensions` of a response: what was asked, and what it came to. The limit
// is that of the payer, or of one operation when nobody counts what payers spend.
func (op *operation) extensions(actual int) []byte {
	limit, remaining := float64(op.price.limit), float64(op.price.limit)
	if op.price.balance != (Balance{}) {
		limit, remaining = op.price.balance.Limit, op.price.balance.Remaining
	}
	b := make([]byte, 0, 96)
	b = strconv.AppendInt(append(b, `{"cost":{"requested":`...), int64(op.price.requested), 10)
	b = strconv.AppendInt(append(b, `,"actual":`...), int64(actual), 10)
	b = strconv.AppendInt(append(b, `,"limit":`...), int64(limit), 10)
	b = strconv.AppendInt(append(b, `,"remaining":`...), int64(max(remaining, 0)), 10)
	return append(b, '}', '}')
}
