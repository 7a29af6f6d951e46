package engine

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"github.com/vektah/gqlparser/v2/lexer"
	"github.com/vektah/gqlparser/v2/parser"

	"github.com/openvantage/vantage/fault"
)

// Limits bound what one document may be, whatever it asks for. All are the most that is
// allowed; zero allows nothing.
type Limits struct {
	// DocumentBytes bounds the text.
	DocumentBytes int
	// Tokens bounds words, numbers, signs and comments.
	Tokens int
	// Depth bounds how deep fields nest, through fragments; and lists and objects in values.
	Depth int
	// Aliases bounds fields with another name in the response.
	Aliases int
	// RootFields bounds the response keys of an operation.
	RootFields int
	// SameKey bounds the selections that are merged under one response key.
	SameKey int
	// Fragments bounds named fragments, and Directives all uses of directives.
	Fragments, Directives int
	// Cost bounds the points of an operation.
	Cost int
}

// DefaultLimits fit what applications and people ask.
var DefaultLimits = Limits{
	DocumentBytes: 256 << 10, Tokens: 2000, Depth: 15, Aliases: 30, RootFields: 10, SameKey: 20, Fragments: 50, Directives: 50,
	Cost: 20_000,
}

// unlimited is for our own documents.
var unlimited = Limits{
	math.MaxInt32, math.MaxInt32, math.MaxInt32, math.MaxInt32, math.MaxInt32, math.MaxInt32, math.MaxInt32, math.MaxInt32, math.MaxInt32,
}

// Bounds that hold for everyone, as what people write is far below them. The time that a document
// takes to read grows with each.
const (
	longestName    = 128 // bytes
	deepestText    = 30  // braces within braces, those of inline fragments included
	mostOperations = 50
	mostMerged     = 20_000 // selections, counted in each place where fragments put them
	mostValues     = 10_000 // in variables
)

// A shape is what of a document limits are compared with.
type shape struct {
	bytes, tokens, depth, aliases, rootFields, sameKey, fragments, directives int
	nodes                                                                     int // of the parsed document
}

// excess is a document over a limit, which the format names.
func excess(format string, limit int) *fault.Error {
	return fault.New(fault.QueryTooCostly, format, limit).At("query").With("limit", int64(limit))
}

// within compares a shape with limits. It fails with QUERY_TOO_COSTLY, naming the limit.
func (s shape) within(l Limits) error {
	switch {
	case s.bytes > l.DocumentBytes:
		return excess("The document is larger than %d bytes. Send values as variables.", l.DocumentBytes)
	case s.tokens > l.Tokens:
		return excess("The document has more than %d tokens. Send values as variables, or ask in parts.", l.Tokens)
	case s.fragments > l.Fragments:
		return excess("The document has more than %d fragments.", l.Fragments)
	case s.directives > l.Directives:
		return excess("The document has more than %d directives.", l.Directives)
	case s.aliases > l.Aliases:
		return excess("The document has more than %d aliases.", l.Aliases)
	case s.depth > l.Depth:
		return excess("The document nests more than %d levels.", l.Depth)
	case s.rootFields > l.RootFields:
		return excess("An operation has more than %d root fields. Ask in parts.", l.RootFields)
	case s.sameKey > l.SameKey:
		return excess("One response key is selected more than %d times.", l.SameKey)
	}
	return nil
}

// outline parses a text and measures its shape, each step within limits before the next.
func outline(text string, l Limits) (*ast.QueryDocument, shape, error) {
	source := &ast.Source{Input: text}
	s := shape{bytes: len(text)}
	var err error
	if s.tokens, err = tokens(source, l.Tokens); err != nil {
		return nil, s, err
	}
	if err := s.within(l); err != nil {
		return nil, s, err
	}
	doc, err := parser.ParseQuery(source)
	if err != nil {
		return nil, s, unreadable(err)
	}
	if len(doc.Operations) == 0 {
		return nil, s, fault.New(fault.ValidationFailed, "The document has no operation.").At("query")
	}
	if len(doc.Operations) > mostOperations {
		return nil, s, excess("The document has more than %d operations. Send those that you need.", mostOperations)
	}
	o := outliner{&s, map[string]*ast.FragmentDefinition{}, map[*ast.FragmentDefinition]int{}, map[*ast.Field]uint32{}}
	if !o.count(doc) {
		return nil, s, excess("The document nests more than %d levels.", deepestText)
	}
	o.nest(doc)
	if err := s.within(l); err != nil {
		return nil, s, err
	}
	if !o.merge(doc) {
		return nil, s, fault.New(fault.QueryTooCostly, "The fragments of the document are too entangled. Use fewer of them within each other.").At("query")
	}
	return doc, s, s.within(l)
}

func unreadable(err error) error {
	var e *gqlerror.Error
	if errors.As(err, &e) {
		return asFault(e, fault.ParseFailed)
	}
	return err
}

// tokens counts tokens, and stops above the limit. What the parser would not read either, it
// leaves to the parser to explain.
func tokens(source *ast.Source, most int) (n int, err error) {
	lex := lexer.New(source)
	for n <= most {
		t, err := lex.ReadToken()
		if err != nil || t.Kind == lexer.EOF {
			break
		}
		if t.Kind == lexer.Name && len(t.Value) > longestName {
			return n, excess("A name in the document is longer than %d characters.", longestName)
		}
		n++
	}
	return n, nil
}

type outliner struct {
	*shape
	fragments map[string]*ast.FragmentDefinition
	deep      map[*ast.FragmentDefinition]int
	numbers   map[*ast.Field]uint32 // of those with selections
}

// count counts what stands in the text. False means that its braces nest too deep.
func (o *outliner) count(doc *ast.QueryDocument) bool {
	o.shape.fragments = len(doc.Fragments)
	deepest := 0
	for _, op := range doc.Operations {
		o.uses(op.Directives)
		for _, v := range op.VariableDefinitions {
			o.nodes++
			o.value(v.DefaultValue, 0)
			o.uses(v.Directives)
		}
		deepest = max(deepest, o.selections(op.SelectionSet))
	}
	for _, f := range doc.Fragments {
		o.uses(f.Directives)
		deepest = max(deepest, o.selections(f.SelectionSet))
		if o.fragments[f.Name] == nil { // of several of one name the validator takes the first
			o.fragments[f.Name] = f
		}
	}
	return deepest <= deepestText
}

// selections counts in a selection, and returns how deep its braces nest.
func (o *outliner) selections(set ast.SelectionSet) (deepest int) {
	o.nodes += len(set)
	for _, sel := range set {
		switch sel := sel.(type) {
		case *ast.Field:
			o.uses(sel.Directives)
			o.values(sel.Arguments)
			if sel.Alias != sel.Name {
				o.aliases++
			}
			if len(sel.SelectionSet) > 0 {
				o.numbers[sel] = uint32(len(o.numbers)) //nolint:gosec // fewer than tokens
				deepest = max(deepest, o.selections(sel.SelectionSet))
			}
		case *ast.InlineFragment:
			o.uses(sel.Directives)
			deepest = max(deepest, o.selections(sel.SelectionSet))
		case *ast.FragmentSpread:
			o.uses(sel.Directives)
		}
	}
	return deepest + 1
}

func (o *outliner) uses(ds ast.DirectiveList) {
	o.directives += len(ds)
	o.nodes += len(ds)
	for _, d := range ds {
		o.values(d.Arguments)
	}
}

func (o *outliner) values(as ast.ArgumentList) {
	for _, a := range as {
		o.value(a.Value, 0)
	}
}

func (o *outliner) value(v *ast.Value, depth int) {
	o.depth = max(o.depth, depth)
	if v != nil {
		o.nodes++
		for _, child := range v.Children {
			o.value(child.Value, depth+1)
		}
	}
}

// nest finds the deepest nesting. A fragment is walked once; where it is met within itself the
// walk ends, for the validator refuses it.
func (o *outliner) nest(doc *ast.QueryDocument) {
	for _, op := range doc.Operations {
		o.depth = max(o.depth, o.below(op.SelectionSet))
	}
	for _, f := range doc.Fragments { // also those that nothing uses: they are validated, too
		o.depth = max(o.depth, o.below(f.SelectionSet))
	}
}

func (o *outliner) below(set ast.SelectionSet) int {
	deepest := 0
	for _, sel := range set {
		d := 0
		switch sel := sel.(type) {
		case *ast.Field:
			d = 1 + o.below(sel.SelectionSet)
		case *ast.InlineFragment:
			d = o.below(sel.SelectionSet)
		case *ast.FragmentSpread:
			f := o.fragments[sel.Name]
			if f == nil {
				continue
			}
			known, ok := o.deep[f]
			if !ok {
				o.deep[f] = 0
				known = o.below(f.SelectionSet)
				o.deep[f] = known
			}
			d = known
		}
		deepest = max(deepest, d)
	}
	return deepest
}

// merge looks at each place of a response as the executor meets it: with all selections that
// fragments and repeated fields bring there. Places with the same selections are looked at
// once. False means that there are too many, which only a document has that was made for it.
func (o *outliner) merge(doc *ast.QueryDocument) bool {
	budget := mostMerged
	met := map[string]bool{}
	var places [][]ast.SelectionSet
	visit := func(sets ...ast.SelectionSet) (keys int) {
		merged, names := o.collect(sets, &budget)
		for _, name := range names {
			fields := merged[name]
			o.sameKey = max(o.sameKey, len(fields))
			var id []byte
			var below []ast.SelectionSet
			for _, f := range fields {
				if len(f.SelectionSet) > 0 {
					id = binary.LittleEndian.AppendUint32(id, o.numbers[f])
					below = append(below, f.SelectionSet)
				}
			}
			if below != nil && !met[string(id)] {
				met[string(id)] = true
				places = append(places, below)
			}
		}
		return len(names)
	}
	for _, op := range doc.Operations {
		o.rootFields = max(o.rootFields, visit(op.SelectionSet))
	}
	for _, f := range doc.Fragments {
		visit(f.SelectionSet)
	}
	for len(places) > 0 && budget > 0 {
		last := places[len(places)-1]
		places = places[:len(places)-1]
		visit(last...)
	}
	return budget > 0
}

// collect gathers fields by response key, in the order of the text.
func (o *outliner) collect(sets []ast.SelectionSet, budget *int) (fields map[string][]*ast.Field, keys []string) {
	fields = map[string][]*ast.Field{}
	visited := map[string]bool{}
	var walk func(ast.SelectionSet)
	walk = func(set ast.SelectionSet) {
		for _, sel := range set {
			if *budget--; *budget < 0 {
				return
			}
			switch sel := sel.(type) {
			case *ast.Field:
				if fields[sel.Alias] == nil {
					keys = append(keys, sel.Alias)
				}
				fields[sel.Alias] = append(fields[sel.Alias], sel)
			case *ast.InlineFragment:
				walk(sel.SelectionSet)
			case *ast.FragmentSpread:
				if f := o.fragments[sel.Name]; f != nil && !visited[sel.Name] {
					visited[sel.Name] = true
					walk(f.SelectionSet)
				}
			}
		}
	}
	for _, set := range sets {
		walk(set)
	}
	return fields, keys
}

// bounded reports whether variables are few and flat enough to be looked at. It fails with
// QUERY_TOO_COSTLY.
func (l Limits) bounded(variables map[string]any) error {
	left := mostValues
	switch {
	case !fits(variables, l.Depth, &left):
		return fault.New(fault.QueryTooCostly, "The variables nest more than %d levels.", l.Depth).At("variables").With("limit", int64(l.Depth))
	case left < 0:
		return fault.New(fault.QueryTooCostly, "The variables have more than %d values. Ask in parts.", mostValues).At("variables").With("limit", mostValues)
	}
	return nil
}

// fits counts the values in v, and reports whether they nest no deeper. It stops when none
// are left.
func fits(v any, depth int, left *int) bool {
	if depth < 0 {
		return false
	}
	switch v := v.(type) {
	case map[string]any:
		if *left -= len(v); *left < 0 {
			return true
		}
		for _, child := range v {
			if !fits(child, depth-1, left) {
				return false
			}
		}
	case []any:
		if *left -= len(v); *left < 0 {
			return true
		}
		for _, child := range v {
			if !fits(child, depth-1, left) {
				return false
			}
		}
	}
	return true
}
