package engine

import (
	"cmp"
	"container/list"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"github.com/vektah/gqlparser/v2/validator"
	"github.com/vektah/gqlparser/v2/validator/rules"

	"github.com/openvantage/vantage/fault"
)

// Bounds of what is remembered between requests, in bytes.
const (
	cacheBytes = 32 << 20 // of parsed documents

	// Of the texts that clients have registered: each payer's, and all.
	payerBytes      = 256 << 10
	registeredBytes = 32 << 20

	// How many documents seen once are known again.
	seenOnce = 1 << 13
)

// Bounds of what is said of a document that is wrong.
const (
	shownErrors     = 10
	shownErrorBytes = 8 << 10
)

type hash = [sha256.Size]byte

// A document is a text that fits the schema, and what we know of it. Requests share it; it is
// never changed.
type document struct {
	hash      hash // of the text
	ast       *ast.QueryDocument
	shape     shape
	plans     map[*ast.OperationDefinition]*plan
	positions map[*ast.OperationDefinition][]string
}

// positional names the variables that only say where a stream begins: they are values of
// the arguments `after` and `snapshot` of root fields, and of nothing else.
func (doc *document) positional(op *ast.OperationDefinition) []string { return doc.positions[op] }

// memory is about what a document takes, in bytes.
//
// Source: measured; TestMemory compares.
func (doc *document) memory() int {
	sum := 512 + doc.shape.bytes + 240*doc.shape.nodes
	for _, p := range doc.plans {
		sum += 768 + 160*len(p.steps) + 192*len(p.lists)
	}
	return sum
}

// documents turns texts into documents and remembers them. Methods may be called at the same
// time.
type documents struct {
	schema  *ast.Schema
	tariff  *tariff
	rules   []validator.Rule
	trusted map[hash]*document // never changed

	mu         sync.Mutex
	cache      shelf[hash, *document]
	seen       [seenOnce]uint64
	registered shelf[string, *shelf[hash, string]] // by payer
}

// newDocuments fails when a cost directive of the schema cannot be read, and when a trusted
// document does not fit it: both are part of the program.
func newDocuments(schema *ast.Schema, trusted map[string]string) (*documents, error) {
	t, err := newTariff(schema)
	if err != nil {
		return nil, err
	}
	d := &documents{schema: schema, tariff: t, rules: []validator.Rule{representable}, trusted: map[hash]*document{}}
	for name, f := range rules.NewDefaultRules().GetInner() {
		d.rules = append(d.rules, validator.Rule{Name: name, RuleFunc: f})
	}
	slices.SortFunc(d.rules, func(a, b validator.Rule) int { return cmp.Compare(a.Name, b.Name) })
	for id, text := range trusted {
		h := sha256.Sum256([]byte(text))
		if id != "sha256:"+hex.EncodeToString(h[:]) {
			return nil, fmt.Errorf("the trusted document %s has another hash", id)
		}
		doc, errs := d.read(text, h, unlimited)
		if errs != nil {
			return nil, fmt.Errorf("the trusted document %s: %w", id, errors.Join(errs...))
		}
		d.trusted[h] = doc
	}
	return d, nil
}

// get finds the document of a request, or reads it. Trusted documents are within all limits;
// others must be within the caller's own, whoever sent them first.
func (d *documents) get(r *Request, c Caller) (*document, []error) {
	id, err := named(r)
	if err != nil {
		return nil, []error{err}
	}
	text := r.Query
	if text == "" {
		if id == nil {
			return nil, []error{fault.Field("query", "Send a document.")}
		}
		if doc := d.trusted[*id]; doc != nil {
			return doc, nil
		}
		if text = d.recall(c.Payer.Key, *id); text == "" {
			return nil, []error{fault.New(fault.NotFound, "PersistedQueryNotFound")} // clients wait for this word
		}
	}
	if len(text) > c.Limits.DocumentBytes {
		return nil, []error{excess("The document is larger than %d bytes. Send values as variables.", c.Limits.DocumentBytes)}
	}
	h := sha256.Sum256([]byte(text))
	if id != nil && *id != h {
		return nil, []error{fault.Field("query", "The hash of the document is another one than you say.")}
	}
	doc, errs := d.find(text, h, c.Limits)
	if errs == nil && id != nil && r.Query != "" && d.trusted[h] == nil {
		d.register(c.Payer.Key, h, text)
	}
	return doc, errs
}

// named is the hash by which a request names its document, if it does: as an id or in the
// manner of automatic persisted queries.
func named(r *Request) (*hash, error) {
	if r.DocumentID != "" {
		digits, ok := strings.CutPrefix(r.DocumentID, "sha256:")
		if h := readHash(digits); ok && h != nil {
			return h, nil
		}
		return nil, fault.Field("documentId", "A document's id is sha256: and 64 hexadecimal digits.")
	}
	v, ok := r.Extensions["persistedQuery"]
	if !ok {
		return nil, nil
	}
	said, _ := v.(map[string]any)
	digits, _ := said["sha256Hash"].(string)
	h := readHash(digits)
	if v := said["version"]; h == nil || v != 1.0 && v != json.Number("1") {
		return nil, fault.Field("extensions.persistedQuery", "Give version 1 and the document's sha256Hash, 64 hexadecimal digits.")
	}
	return h, nil
}

func readHash(digits string) *hash {
	var h hash
	if len(digits) != hex.EncodedLen(len(h)) {
		return nil
	}
	if _, err := hex.Decode(h[:], []byte(digits)); err != nil {
		return nil
	}
	return &h
}

// find takes a document from the cache, or reads it and puts it there the second time. What
// is sent once does not push out what is used.
func (d *documents) find(text string, h hash, l Limits) (*document, []error) {
	if doc := d.trusted[h]; doc != nil {
		return doc, nil
	}
	d.mu.Lock()
	doc, ok := d.cache.get(h)
	d.mu.Unlock()
	if ok {
		if err := doc.shape.within(l); err != nil {
			return nil, []error{err}
		}
		return doc, nil
	}
	text = strings.Clone(text) // which may be a part of something larger
	doc, errs := d.read(text, h, l)
	if errs != nil {
		return nil, errs
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	mark := binary.LittleEndian.Uint64(h[:])
	if place := &d.seen[mark%seenOnce]; *place != mark {
		*place = mark
	} else {
		d.cache.put(h, doc, doc.memory(), cacheBytes)
	}
	return doc, nil
}

// recall is a text that a payer has registered; empty when there is none.
func (d *documents) recall(payer string, h hash) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	own, ok := d.registered.get(payer)
	if !ok {
		return ""
	}
	text, _ := own.get(h)
	return text
}

// register remembers a text that was read without fault. A payer's own oldest texts make room
// for it, and then the texts of the payers who have been away longest.
func (d *documents) register(payer string, h hash, text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	own, ok := d.registered.get(payer)
	if !ok {
		own = new(shelf[hash, string])
	}
	own.put(h, strings.Clone(text), len(text)+entryBytes, payerBytes)
	d.registered.put(payer, own, own.weight+entryBytes, registeredBytes)
}

// read makes a document of a text, in an order that keeps each step cheap for the next: by
// tokens, by shape, by the schema, by cost.
func (d *documents) read(text string, h hash, l Limits) (doc *document, errs []error) {
	defer func() { // a mistake in a library must not end the process
		if p := recover(); p != nil {
			doc, errs = nil, []error{fmt.Errorf("reading the document %x: panic: %v", h, p)}
		}
	}()
	parsed, s, err := outline(text, l)
	if err != nil {
		return nil, []error{err}
	}
	if errs := d.validate(parsed); errs != nil {
		return nil, errs
	}
	doc = &document{hash: h, ast: parsed, shape: s, plans: map[*ast.OperationDefinition]*plan{}, positions: map[*ast.OperationDefinition][]string{}}
	for _, op := range parsed.Operations {
		doc.plans[op] = d.tariff.plan(op)
		doc.positions[op] = positions(op)
	}
	return doc, nil
}

// validate compares a document with the schema. It stops at ten errors, for each may be
// found a thousand times.
func (d *documents) validate(doc *ast.QueryDocument) (errs []error) {
	type enough struct{}
	defer func() {
		if p := recover(); p != nil && p != (enough{}) {
			panic(p)
		}
	}()
	bytes := 0
	events := &validator.Events{}
	for _, rule := range d.rules {
		rule.RuleFunc(events, func(options ...validator.ErrorOption) {
			e := &gqlerror.Error{Rule: rule.Name}
			for _, o := range options {
				o(e)
			}
			shown := asFault(e, fault.ValidationFailed)
			if bytes += sizeOf(shown); bytes <= shownErrorBytes {
				errs = append(errs, shown)
			}
			if len(errs) == shownErrors || bytes > shownErrorBytes {
				panic(enough{})
			}
		})
	}
	validator.Walk(d.schema, doc, events)
	return errs
}

// sizeOf is about what an error takes in a response.
func sizeOf(e *gqlerror.Error) int {
	text, _ := json.Marshal(e.Message) // a string always has JSON
	return len(text) + 64*(1+len(e.Locations))
}

// asFault keeps of the parser's and the validator's errors what is said and where.
func asFault(e *gqlerror.Error, code fault.Code) *gqlerror.Error {
	f := fault.New(code, "%s", clip(e.Message))
	return &gqlerror.Error{Err: f, Message: f.Message, Locations: e.Locations}
}

// representable refuses numbers that the executor could not take: of scalars that are not
// GraphQL's own, no other rule looks at the value.
var representable = validator.Rule{Name: "Representable", RuleFunc: func(events *validator.Events, addError validator.AddErrFunc) {
	events.OnValue(func(_ *validator.Walker, v *ast.Value) {
		if v.Definition != nil && v.Definition.OneOf("Int", "Float", "String", "Boolean", "ID") {
			return
		}
		var err error
		switch v.Kind { //nolint:exhaustive // others are no numbers
		case ast.IntValue:
			_, err = strconv.ParseInt(v.Raw, 10, 64)
		case ast.FloatValue:
			_, err = strconv.ParseFloat(v.Raw, 64)
		}
		if err != nil {
			addError(validator.Message("A number is out of range. Send it as a string."), func(e *gqlerror.Error) {
				e.Locations = []gqlerror.Location{{Line: v.Position.Line, Column: v.Position.Column}}
			})
		}
	})
}}

// positions finds what positional tells.
func positions(op *ast.OperationDefinition) []string {
	if op.Operation != ast.Subscription {
		return nil
	}
	places, others := map[string]bool{}, map[string]bool{}
	visited := map[string]bool{}
	var value func(*ast.Value)
	value = func(v *ast.Value) {
		if v.Kind == ast.Variable {
			others[v.Raw] = true
		}
		for _, child := range v.Children {
			value(child.Value)
		}
	}
	directives := func(ds ast.DirectiveList) {
		for _, d := range ds {
			for _, a := range d.Arguments {
				value(a.Value)
			}
		}
	}
	var walk func(set ast.SelectionSet, root bool)
	walk = func(set ast.SelectionSet, root bool) {
		for _, s := range set {
			switch s := s.(type) {
			case *ast.Field:
				directives(s.Directives)
				for _, a := range s.Arguments {
					if root && a.Value.Kind == ast.Variable && (a.Name == "after" || a.Name == "snapshot") {
						places[a.Value.Raw] = true
					} else {
						value(a.Value)
					}
				}
				walk(s.SelectionSet, false)
			case *ast.InlineFragment:
				directives(s.Directives)
				walk(s.SelectionSet, root)
			case *ast.FragmentSpread:
				directives(s.Directives)
				if !visited[s.Name] { // a fragment of the root type is met at the root alone
					visited[s.Name] = true
					directives(s.Definition.Directives)
					walk(s.Definition.SelectionSet, root)
				}
			}
		}
	}
	directives(op.Directives)
	for _, v := range op.VariableDefinitions {
		directives(v.Directives)
	}
	walk(op.SelectionSet, true)
	var names []string
	for _, v := range op.VariableDefinitions {
		if places[v.Variable] && !others[v.Variable] {
			names = append(names, v.Variable)
		}
	}
	return names
}

// entryBytes is about what a shelf takes for an entry beside its value.
const entryBytes = 256

// A shelf keeps values up to a total weight; those used longest ago go first. The zero shelf
// is empty.
type shelf[K comparable, V any] struct {
	weight int
	recent list.List // of *item[K, V], the last used in front
	items  map[K]*list.Element
}

type item[K comparable, V any] struct {
	key    K
	value  V
	weight int
}

func (s *shelf[K, V]) get(k K) (v V, ok bool) {
	e := s.items[k]
	if e == nil {
		return v, false
	}
	s.recent.MoveToFront(e)
	return e.Value.(*item[K, V]).value, true
}

// put places or replaces a value. One that weighs more than all may is not kept.
func (s *shelf[K, V]) put(k K, v V, weight, most int) {
	if e := s.items[k]; e != nil {
		s.remove(e)
	}
	if s.items == nil {
		s.items = map[K]*list.Element{}
	}
	s.items[k] = s.recent.PushFront(&item[K, V]{k, v, weight})
	for s.weight += weight; s.weight > most; {
		s.remove(s.recent.Back())
	}
}

func (s *shelf[K, V]) remove(e *list.Element) {
	i := s.recent.Remove(e).(*item[K, V])
	delete(s.items, i.key)
	s.weight -= i.weight
}
