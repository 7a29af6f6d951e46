package resolvers

import (
	"context"

	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/engine"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/graph/model"
)

// MaxPage is the largest page of any connection.
const MaxPage = 100

// slice are the arguments of a connection.
type slice struct {
	first, last   *int
	after, before *string
}

// page translates the arguments; key reads a cursor of this list. One row more than asked is
// fetched, to see whether the list goes on. It fails with INVALID, naming the argument.
func (s slice) page(key func(cursor string) ([]string, error)) (p db.Page, err error) {
	switch {
	case s.first != nil && s.last != nil:
		return p, fault.Field("last", "Give either first or last, not both.")
	case s.first == nil && s.last == nil:
		return p, fault.Field("first", "Say how many: first or last, 1 to %d.", MaxPage)
	case s.last != nil:
		p.N, p.Backward = *s.last, true
	default:
		p.N = *s.first
	}
	if p.N < 1 || p.N > MaxPage {
		field := "first"
		if p.Backward {
			field = "last"
		}
		return p, fault.Field(field, "A page has 1 to %d items.", MaxPage)
	}
	if s.after != nil {
		if p.After, err = key(*s.after); err != nil {
			return p, fault.Of(err).At("after")
		}
	}
	if s.before != nil {
		if p.Before, err = key(*s.before); err != nil {
			return p, fault.Of(err).At("before")
		}
	}
	p.N++
	return p, nil
}

// edges makes a page's edges from the rows fetched, and says where it stands. What was paid for
// a longer page is given back.
func edges[T, E any](ctx context.Context, rows []T, p db.Page, cursor func(T) string, edge func(string, T) E) ([]E, *model.PageInfo) {
	info := &model.PageInfo{HasPreviousPage: p.After != nil, HasNextPage: p.Before != nil}
	if more := len(rows) == p.N; p.Backward {
		info.HasPreviousPage = more
		if more {
			rows = rows[1:]
		}
	} else {
		info.HasNextPage = more
		if more {
			rows = rows[:len(rows)-1]
		}
	}
	engine.Returned(ctx, len(rows))
	out := make([]E, len(rows))
	for i, row := range rows {
		c := cursor(row)
		out[i] = edge(c, row)
		if i == 0 {
			info.StartCursor = &c
		}
		info.EndCursor = &c
	}
	return out, info
}
