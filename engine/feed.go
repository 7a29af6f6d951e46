package engine

import (
	"context"
	"errors"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// A Feed is what a subscription is made of: items of type E as they become known, shown as
// values of type T. A resolver opens one instead of filling a channel of its own; the engine
// then shows each item once for all subscribers with the same document, variables and scope.
//
// Functions get a context that has the scope of the caller but not his connection, and do
// not run at the same time for the same group of subscribers.
type Feed[E, T any] struct {
	Topic *Topic[E]
	// Keys are where the topic's index has the items that may concern this feed. No item may
	// have two of them.
	Keys []string
	// Show turns items into values and leaves out those that are not for these subscribers. An
	// error ends the subscription.
	Show func(ctx context.Context, items []*E) ([]Shown[T], error)
	// After is where to begin; nil is with what comes next.
	After *Position
	// Read returns a function that reads on from a position: each call returns what there is
	// now, without waiting, and the place up to which that is complete. Nil: what is missed is
	// lost.
	Read func(from Position) func(context.Context) (items []*E, through Position, err error)
	// Snapshot is the present state, to be sent before anything else, and the place in the log
	// that it belongs to. All but its last value have no place: who has only a part of it must
	// begin again. Nil for none. With After it is not called.
	Snapshot func(ctx context.Context) ([]Shown[T], Position, error)
	// Merge makes one value of the first and the last of those that a slow reader was spared,
	// and says how many were left out. Nil: nothing may be left out, and a slow reader is told
	// to come back.
	Merge func(first, last T, left int) T
	// Cursor is what a client sends to continue after a position.
	Cursor func(Position) string
}

// Shown is a value to be sent, and the place after it. State names what it is the state of: of a slow reader's
// waiting messages with the same State only the last is kept.
type Shown[T any] struct {
	Value T
	At    Position
	State string
}

// Open hands the feed to the engine. The channel is for the executor alone. It fails when the
// context is not that of an operation that an Engine runs.
func (f Feed[E, T]) Open(ctx context.Context) (<-chan T, error) {
	c, ok := ctx.Value(captureKey{}).(*capture)
	if !ok {
		return nil, errors.New("a feed was opened outside of the engine")
	}
	values := make(chan T, 1)
	c.feed, c.push = f.erased(), func(v any) { values <- v.(T) }
	return values, nil
}

// capture is how a feed comes from its resolver to the engine.
type capture struct {
	feed *feed
	push func(any)
}

type captureKey struct{}

// feed is a Feed without its types. Items are *E.
type feed struct {
	topic    *topic
	keys     []string
	at       func(any) Position
	after    *Position
	show     func(context.Context, []any) ([]Shown[any], error)
	read     func(Position) func(context.Context) ([]any, Position, error)
	snapshot func(context.Context) ([]Shown[any], Position, error)
	merge    func(first, last any, left int) any
	cursor   func(Position) string
}

func (f Feed[E, T]) erased() *feed {
	out := &feed{topic: &f.Topic.core, keys: f.Keys, after: f.After, cursor: f.Cursor}
	out.at = func(x any) Position { return f.Topic.at(x.(*E)) }
	out.show = func(ctx context.Context, items []any) ([]Shown[any], error) {
		typed := make([]*E, len(items))
		for i, x := range items {
			typed[i] = x.(*E)
		}
		shown, err := f.Show(ctx, typed)
		return untyped(shown), err
	}
	if f.Read != nil {
		out.read = func(from Position) func(context.Context) ([]any, Position, error) {
			next := f.Read(from)
			return func(ctx context.Context) ([]any, Position, error) {
				items, through, err := next(ctx)
				out := make([]any, len(items))
				for i, x := range items {
					out[i] = x
				}
				return out, through, err
			}
		}
	}
	if f.Snapshot != nil && f.After == nil {
		out.snapshot = func(ctx context.Context) ([]Shown[any], Position, error) {
			shown, at, err := f.Snapshot(ctx)
			return untyped(shown), at, err
		}
	}
	if f.Merge != nil {
		out.merge = func(first, last any, left int) any { return f.Merge(first.(T), last.(T), left) }
	}
	return out
}

func untyped[T any](shown []Shown[T]) []Shown[any] {
	out := make([]Shown[any], len(shown))
	for i, s := range shown {
		out[i] = Shown[any]{s.Value, s.At, s.State}
	}
	return out
}

// An execution is a subscription's operation, begun. It encodes one value at a time.
type execution struct {
	engine *Engine
	ctx    context.Context
	feed   *feed
	push   func(any)
	next   graphql.ResponseHandler
}

// begin runs the resolver of a subscription.
func (e *Engine) begin(ctx context.Context, op *operation) (*execution, gqlerror.List) {
	var c capture
	ctx = context.WithValue(ctx, captureKey{}, &c)
	next, errs := e.dispatch(ctx, op.OperationContext)
	if errs == nil && c.feed == nil {
		errs = e.present(ctx, errors.New("a subscription's resolver opened no feed"))
	}
	if errs != nil {
		return nil, errs
	}
	return &execution{engine: e, ctx: graphql.WithOperationContext(ctx, op.OperationContext), feed: c.feed, push: c.push, next: next}, nil
}

// encode is the message of a value. It reports false when ctx has ended.
func (x *execution) encode(s Shown[any]) (*message, bool) {
	x.push(s.Value)
	data, errs := x.engine.respond(x.ctx, x.next)
	if data == nil {
		return nil, false
	}
	return &message{payload: response{errors: errs, data: data}.append(nil), at: s.At, key: s.State, value: s.Value}, true
}

// messages shows items and encodes them.
func (x *execution) messages(items []any) ([]*message, gqlerror.List) {
	shown, err := x.feed.show(x.ctx, items)
	if err != nil {
		return nil, x.engine.present(x.ctx, err)
	}
	return x.encodeAll(shown), nil
}

func (x *execution) encodeAll(shown []Shown[any]) []*message {
	out := make([]*message, 0, len(shown))
	for _, s := range shown {
		m, ok := x.encode(s)
		if !ok {
			break
		}
		out = append(out, m)
	}
	return out
}
