package resolvers

import (
	"context"
	"sync"

	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/engine"
	"github.com/openvantage/vantage/graph"
	"github.com/openvantage/vantage/graph/model"
	"github.com/openvantage/vantage/measurement"
)

func (r *queryResolver) FaultyMeasurements(ctx context.Context, filter *model.FaultyMeasurementFilter, first *int, after *string, last *int, before *string) (*model.FaultyMeasurementConnection, error) {
	p, err := slice{first, last, after, before}.page(model.NumberKeys(model.CursorFaulty))
	if err != nil {
		return nil, err
	}
	f := deref(filter)
	rows, err := r.DB.FaultyMeasurements(ctx, db.FaultyQuery{
		Since: f.Since, Until: f.Until, Kinds: strs(f.Kinds), Countries: strs(f.Countries), ASNs: numbers(f.Asns), UIDs: f.Uids,
	}, p)
	if err != nil {
		return nil, err
	}
	shown := make(map[int64]*model.FaultyMeasurement, len(rows))
	for i, s := range r.shownFaults(ctx, rows) {
		shown[rows[i].ID] = s
	}
	out, info := edges(ctx, rows, p, func(f db.Faulty) string { return model.NumberCursor(model.CursorFaulty, f.ID) },
		func(c string, f db.Faulty) *model.FaultyMeasurementEdge {
			return &model.FaultyMeasurementEdge{Cursor: c, Node: shown[f.ID]}
		})
	return &model.FaultyMeasurementConnection{Edges: out, PageInfo: info}, nil
}

// shownFaults shows faults; their measurements are loaded together, when one is asked for.
func (r *Resolver) shownFaults(ctx context.Context, all []db.Faulty) []*model.FaultyMeasurement {
	uids := make([]measurement.ID, len(all))
	for i, f := range all {
		uids[i] = f.UID
	}
	load := sync.OnceValues(func() (map[string]*model.Measurement, error) {
		rows, err := r.DB.MeasurementsByUID(ctx, uids)
		if err != nil {
			return nil, err
		}
		list := make([]db.Measurement, 0, len(rows))
		for _, m := range rows {
			list = append(list, m)
		}
		out := make(map[string]*model.Measurement, len(rows))
		for _, m := range r.shownMeasurements(ctx, list...) {
			out[m.UID] = m
		}
		return out, nil
	})
	out := make([]*model.FaultyMeasurement, len(all))
	for i, f := range all {
		out[i] = model.NewFaultyMeasurement(r.viewer(ctx), f)
		out[i].LoadMeasurement = func() (*model.Measurement, error) {
			found, err := load()
			return found[string(f.UID)], err
		}
	}
	return out
}

func (r *faultyMeasurementResolver) Measurement(_ context.Context, obj *model.FaultyMeasurement) (*model.Measurement, error) {
	return obj.LoadMeasurement()
}

func (r *measurementResolver) Faults(ctx context.Context, obj *model.Measurement) ([]*model.FaultyMeasurement, error) {
	all, err := obj.LoadFaults()
	if err != nil {
		return nil, err
	}
	engine.Returned(ctx, len(all))
	return r.shownFaults(ctx, all), nil
}

// FaultyMeasurement is part of graph.ResolverRoot.
func (r *Resolver) FaultyMeasurement() graph.FaultyMeasurementResolver {
	return &faultyMeasurementResolver{r}
}

type faultyMeasurementResolver struct{ *Resolver }
