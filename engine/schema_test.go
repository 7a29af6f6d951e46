package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/openvantage/vantage/fault"
)

// testSDL is a small schema with everything that the engine looks at.
const testSDL = `
directive @cost(weight: String!) on ARGUMENT_DEFINITION | ENUM | FIELD_DEFINITION | INPUT_FIELD_DEFINITION | OBJECT | SCALAR
directive @listSize(assumedSize: Int, slicingArguments: [String!], sizedFields: [String!], requireOneSlicingArgument: Boolean = true) on FIELD_DEFINITION
scalar Cursor
interface Named { name: String! }
type Query {
  ping: String!
  echo(text: String, number: Int, list: [Int!], filter: Filter): String
  fail(code: String): String
  panic: String
  slow: String
  person(id: ID): Person @cost(weight: "1")
  people(first: Int, last: Int, after: Cursor): PersonConnection! @listSize(slicingArguments: ["first", "last"], sizedFields: ["edges"]) @cost(weight: "1")
  named: Named
  either: Either
  everyone: [Person!]! @listSize(assumedSize: 50, requireOneSlicingArgument: false) @cost(weight: "5")
  large(bytes: Int!): String! @cost(weight: "20")
}
input Filter { names: [String!], nested: Filter }
type Person implements Named @cost(weight: "1") {
  name: String!
  friends(first: Int): PersonConnection! @listSize(slicingArguments: ["first"], sizedFields: ["edges"]) @cost(weight: "1")
  best: Person
}
type Robot implements Named @cost(weight: "3") { name: String!, maker: Person }
union Either = Person | Robot
type PersonConnection { edges: [PersonEdge!]!, count: Int! }
type PersonEdge { node: Person! }
type Mutation { set(value: String!): String! @cost(weight: "10") }
type Subscription {
  ticks(every: Int, after: Cursor, snapshot: Boolean = false): Tick!
  states(of: [String!], after: Cursor, snapshot: Boolean = false): Tick!
}
type Tick { seq: Int!, cursor: String!, name: String, from: String, to: String, conflated: Int! }
`

// A testSchema executes documents by functions, one for each root field, whose results are
// maps, slices and scalars. Subscriptions return a channel of any.
type testSchema struct {
	schema *ast.Schema
	roots  map[string]func(ctx context.Context, args map[string]any) (any, error)
}

func newTestSchema(tb testing.TB, roots map[string]func(context.Context, map[string]any) (any, error)) *testSchema {
	tb.Helper()
	schema, err := gqlparser.LoadSchema(&ast.Source{Name: "test.graphqls", Input: testSDL})
	if err != nil {
		tb.Fatal(err)
	}
	s := &testSchema{schema, map[string]func(context.Context, map[string]any) (any, error){
		"ping":  func(context.Context, map[string]any) (any, error) { return "pong", nil },
		"echo":  func(_ context.Context, args map[string]any) (any, error) { return args["text"], nil },
		"panic": func(context.Context, map[string]any) (any, error) { panic("a secret of ours") },
		"set":   func(_ context.Context, args map[string]any) (any, error) { return args["value"], nil },
		"fail": func(_ context.Context, args map[string]any) (any, error) {
			if code, ok := args["code"].(string); ok {
				return nil, fault.New(fault.Code(code), "It failed.")
			}
			return nil, errors.New("a secret of ours")
		},
		"slow": func(ctx context.Context, _ map[string]any) (any, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		},
		"person": func(context.Context, map[string]any) (any, error) { return person(2), nil },
		"people": func(ctx context.Context, args map[string]any) (any, error) {
			n, _ := args["first"].(int64)
			return people(min(3, int(n)), 1), nil
		},
		"everyone": func(context.Context, map[string]any) (any, error) { return []any{person(1), person(1)}, nil },
		"named":    func(context.Context, map[string]any) (any, error) { return person(1), nil },
		"large": func(_ context.Context, args map[string]any) (any, error) {
			return strings.Repeat("x", int(args["bytes"].(int64))), nil
		},
	}}
	for name, f := range roots {
		s.roots[name] = f
	}
	return s
}

func person(depth int) map[string]any {
	p := map[string]any{"__typename": "Person", "name": "Ada"}
	if depth > 0 {
		p["friends"], p["best"] = people(2, depth-1), person(depth-1)
	}
	return p
}

func people(n, depth int) map[string]any {
	edges := make([]any, n)
	for i := range edges {
		edges[i] = map[string]any{"node": person(depth)}
	}
	return map[string]any{"edges": edges, "count": n}
}

func (s *testSchema) Schema() *ast.Schema { return s.schema }

func (s *testSchema) Complexity(context.Context, string, string, int, map[string]any) (int, bool) {
	return 0, false
}

func (s *testSchema) Exec(ctx context.Context) graphql.ResponseHandler {
	op := graphql.GetOperationContext(ctx)
	if op.Operation.Operation == ast.Subscription {
		return s.subscribe(ctx, op)
	}
	first := true
	return func(ctx context.Context) *graphql.Response {
		if !first {
			return nil
		}
		first = false
		out := map[string]any{}
		for _, f := range graphql.CollectFields(op, op.Operation.SelectionSet, []string{"Query", "Mutation"}) {
			v, err := s.root(ctx, op, f)
			if err != nil {
				graphql.AddError(ctx, gqlerror.WrapPath(ast.Path{ast.PathName(f.Alias)}, err))
			}
			out[f.Alias] = v
		}
		return &graphql.Response{Data: encode(out)}
	}
}

func (s *testSchema) root(ctx context.Context, op *graphql.OperationContext, f graphql.CollectedField) (out any, err error) {
	ctx = graphql.WithFieldContext(ctx, &graphql.FieldContext{Field: f, Object: string(op.Operation.Operation)})
	defer func() {
		if p := recover(); p != nil {
			err = op.RecoverFunc(ctx, p)
		}
	}()
	if strings.HasPrefix(f.Name, "__") {
		return f.Name, nil
	}
	resolve := s.roots[f.Name]
	if resolve == nil {
		return nil, nil
	}
	v, err := resolve(ctx, f.ArgumentMap(op.Variables))
	return pick(op, f.Selections, v), err
}

// pick takes from a value what the selection asks for.
func pick(op *graphql.OperationContext, set ast.SelectionSet, v any) any {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = pick(op, set, v[i])
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for _, f := range graphql.CollectFields(op, set, []string{fmt.Sprint(v["__typename"]), "Named", "Either"}) {
			out[f.Alias] = pick(op, f.Selections, v[f.Name])
		}
		return out
	}
	return v
}

func (s *testSchema) subscribe(ctx context.Context, op *graphql.OperationContext) graphql.ResponseHandler {
	f := graphql.CollectFields(op, op.Operation.SelectionSet, []string{"Subscription"})[0]
	v, err := s.roots[f.Name](graphql.WithFieldContext(ctx, &graphql.FieldContext{Field: f}), f.ArgumentMap(op.Variables))
	if err != nil {
		graphql.AddError(ctx, err)
		return nil
	}
	items := v.(<-chan any)
	return func(ctx context.Context) *graphql.Response {
		select {
		case item, ok := <-items:
			if !ok {
				return nil
			}
			return &graphql.Response{Data: encode(map[string]any{f.Alias: pick(op, f.Selections, item)})}
		case <-ctx.Done():
			return nil
		}
	}
}

func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSpace(b.Bytes())
}

// presentTest shows an error as the server does, in a few lines.
func presentTest(_ context.Context, err error) *gqlerror.Error {
	f := fault.Of(err)
	out := &gqlerror.Error{Message: f.Message, Extensions: map[string]any{"code": string(f.Code)}}
	var g *gqlerror.Error
	if errors.As(err, &g) {
		out.Path, out.Locations = g.Path, g.Locations
	}
	if f.RetryAfter > 0 {
		out.Extensions["retryAfter"] = f.RetrySeconds()
	}
	return out
}
