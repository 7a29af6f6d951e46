package resolvers

import (
	"context"
	"slices"

	"github.com/99designs/gqlgen/graphql"

	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/graph/model"
)

// inPayload are the failures that a caller must expect; the others are protocol, access or ours.
var inPayload = []fault.Code{fault.Invalid, fault.NotFound, fault.Conflict, fault.RateLimited, fault.Unavailable}

// expected turns a failure into the payload's user errors where the operation selects them.
// Otherwise it stays an error of the response, so that no failure goes unseen.
func (r *Resolver) expected(ctx context.Context, err error) ([]*model.UserError, error) {
	if err == nil {
		return []*model.UserError{}, nil
	}
	f := fault.Of(err)
	if !slices.Contains(inPayload, f.Code) || !selects(ctx, "userErrors") {
		return nil, err
	}
	return []*model.UserError{r.userError(ctx, err)}, nil
}

func (r *Resolver) userError(ctx context.Context, err error) *model.UserError {
	f := r.Safe(ctx, err)
	e := &model.UserError{Code: f.Code, Message: f.Message}
	if f.Field != "" {
		e.Field = &f.Field
	}
	if f.RetryAfter > 0 {
		s := f.RetrySeconds()
		e.RetryAfterSeconds = &s
	}
	return e
}

// selects reports whether the field being resolved has the named field in its selection.
func selects(ctx context.Context, name string) bool {
	return slices.Contains(graphql.CollectAllFields(ctx), name)
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// strs spells a filter's values for db; nil stays nil, which holds for everything.
func strs[T ~string](in []T) []string {
	if in == nil {
		return nil
	}
	out := make([]string, len(in))
	for i, v := range in {
		out[i] = string(v)
	}
	return out
}

func numbers[T ~uint32](in []T) []int64 {
	if in == nil {
		return nil
	}
	out := make([]int64, len(in))
	for i, v := range in {
		out[i] = int64(v)
	}
	return out
}
