package resolvers

import (
	"context"

	"github.com/99designs/gqlgen/graphql/handler/transport"

	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/graph/model"
)

// position reads the cursor to continue from; nil is from now on.
func position(after *string) (*events.Position, error) {
	if after == nil {
		return nil, nil
	}
	p, err := model.ParseLogCursor(*after)
	if err != nil {
		return nil, err
	}
	return &p, nil
}

// stream runs produce until it ends or the subscriber leaves, and sends what it yields. An
// error of produce ends the stream and is told to the subscriber. yield reports false when
// the subscriber is gone.
func stream[T any](ctx context.Context, r *Resolver, name string, produce func(yield func(T) bool) error) <-chan T {
	out := make(chan T)
	go func() {
		defer close(out)
		defer r.Subscribed(name)()
		err := produce(func(v T) bool {
			select {
			case out <- v:
				return true
			case <-ctx.Done():
				return false
			}
		})
		if err != nil && ctx.Err() == nil {
			transport.AddSubscriptionError(ctx, r.Present(ctx, err))
		}
	}()
	return out
}
