package resolvers

import (
	"context"

	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/graph/model"
)

func (r *queryResolver) Packs(ctx context.Context, filter *model.PackFilter, first *int, after *string, last *int, before *string) (*model.PackConnection, error) {
	p, err := slice{first, last, after, before}.page(model.NumberKeys(model.CursorPack))
	if err != nil {
		return nil, err
	}
	var q db.PackQuery
	if filter != nil {
		q = db.PackQuery{Since: filter.Since, Until: filter.Until, Countries: strs(filter.Countries), TestNames: filter.TestNames}
	}
	rows, err := r.DB.Packs(ctx, q, p)
	if err != nil {
		return nil, err
	}
	out, info := edges(ctx, rows, p, func(x db.Pack) string { return model.NumberCursor(model.CursorPack, x.ID) },
		func(c string, x db.Pack) *model.PackEdge { return &model.PackEdge{Cursor: c, Node: model.NewPack(x)} })
	return &model.PackConnection{Edges: out, PageInfo: info}, nil
}
