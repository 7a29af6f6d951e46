package engine

import (
	"context"
	"encoding/json"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/openvantage/vantage/fault"
)

// A response is one answer to an operation. Data is absent, not null, when the operation did
// not run.
type response struct {
	errors     gqlerror.List
	data       []byte
	extensions []byte // JSON, or absent
}

// append writes the response as the specification has it, errors first. Data is written as
// the executor wrote it: a raw body in it stays as it was sent.
func (r response) append(b []byte) []byte {
	b = append(b, '{')
	if len(r.errors) > 0 {
		b = append(b, `"errors":`...)
		b = appendErrors(b, r.errors)
		b = append(b, ',')
	}
	if r.data != nil {
		b = append(b, `"data":`...)
		b = append(b, r.data...)
		b = append(b, ',')
	}
	if r.extensions != nil {
		b = append(b, `"extensions":`...)
		b = append(b, r.extensions...)
		b = append(b, ',')
	}
	if b[len(b)-1] == ',' {
		b = b[:len(b)-1]
	}
	return append(b, '}')
}

func appendErrors(b []byte, errs gqlerror.List) []byte {
	text, err := json.Marshal(errs)
	if err != nil { // an extension that has no JSON is a mistake of ours
		text = []byte(`[{"message":"The server failed.","extensions":{"code":"INTERNAL"}}]`)
	}
	return append(b, text...)
}

// execute runs a query or a mutation to its end.
func (e *Engine) execute(ctx context.Context, op *operation) response {
	if op.estimate {
		return response{data: []byte("null"), extensions: op.extensions(0)}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, e.opt.OperationTimeout,
		fault.New(fault.Unavailable, "The operation took longer than %v. Ask for less.", e.opt.OperationTimeout).After(time.Second))
	defer cancel()
	tab := &tab{price: &op.price, variables: op.Variables}
	ctx = context.WithValue(ctx, tabKey{}, tab)
	next, errs := e.dispatch(ctx, op.OperationContext)
	if errs != nil {
		return response{errors: errs, data: []byte("null"), extensions: op.extensions(op.price.requested)}
	}
	data, errs := e.respond(graphql.WithOperationContext(ctx, op.OperationContext), next)
	actual := tab.actual()
	if e.opt.Rates != nil && actual < op.price.requested {
		e.opt.Rates.Refund(op.caller.Payer, float64(op.price.requested-actual))
		op.price.balance.Remaining += float64(op.price.requested - actual)
	}
	return response{errors: errs, data: data, extensions: op.extensions(actual)}
}

// dispatch begins an operation. The resolver of a subscription has run when it returns; its
// errors are returned.
func (e *Engine) dispatch(ctx context.Context, op *graphql.OperationContext) (next graphql.ResponseHandler, errs gqlerror.List) {
	ctx = graphql.WithOperationContext(ctx, op)
	ctx = graphql.WithResponseContext(ctx, e.opt.Present, e.opt.Recover)
	defer func() {
		if p := recover(); p != nil {
			errs = e.present(ctx, e.opt.Recover(ctx, p))
		}
	}()
	next = e.opt.Schema.Exec(ctx)
	if op.Operation.Operation == ast.Subscription {
		errs = graphql.GetErrors(ctx)
	}
	return next, errs
}

// respond runs one step of an operation: all of a query, one event of a subscription. Data is
// the caller's to keep; it is null after a panic and nil when there is nothing more.
func (e *Engine) respond(ctx context.Context, next graphql.ResponseHandler) (data []byte, errs gqlerror.List) {
	ctx = graphql.WithResponseContext(ctx, e.opt.Present, e.opt.Recover)
	defer func() {
		if p := recover(); p != nil {
			data, errs = []byte("null"), append(graphql.GetErrors(ctx), e.present(ctx, e.opt.Recover(ctx, p))...)
		}
	}()
	r := next(ctx)
	if r == nil {
		return nil, graphql.GetErrors(ctx)
	}
	return r.Data, append(r.Errors, graphql.GetErrors(ctx)...)
}
