package resolvers

import (
	"context"
	"slices"
	"time"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/engine"
	"github.com/openvantage/vantage/graph"
	"github.com/openvantage/vantage/graph/model"
)

func (r *queryResolver) Service(ctx context.Context) (*model.Service, error) {
	limits := r.LimitsFor(ctx)
	return &model.Service{Version: r.Version, SchemaHash: r.SchemaHash, Now: r.DB.Now(), Limits: &limits}, nil
}

func (r *queryResolver) Viewer(ctx context.Context) (*model.Viewing, error) {
	return model.NewViewing(Principal(ctx)), nil
}

func (r *queryResolver) RateLimit(ctx context.Context) (*model.RateLimit, error) {
	limit := r.RateLimitFor(ctx)
	return &limit, nil
}

func (r *serviceResolver) Figures(ctx context.Context, _ *model.Service) (*model.Figures, error) {
	f, err := r.DB.Figures(ctx, r.DB.Now().Add(-24*time.Hour))
	if err != nil {
		return nil, err
	}
	return &model.Figures{
		ProbeCount: f.Probes, OnlineProbeCount: f.Online, OnlineCountryCount: f.OnlineCountries,
		MeasurementCountLastDay: f.MeasurementsSince,
	}, nil
}

func (r *serviceResolver) ObserverOutages(ctx context.Context, _ *model.Service) ([]*model.ObserverOutage, error) {
	stored, err := r.DB.Outages(ctx, time.Unix(0, 0), 100)
	if err != nil {
		return nil, err
	}
	out := make([]*model.ObserverOutage, len(stored))
	for i, o := range stored {
		out[i] = model.NewObserverOutage(o)
	}
	slices.Reverse(out)
	engine.Returned(ctx, len(out))
	return out, nil
}

func (r *serviceResolver) Fingerprints(ctx context.Context, _ *model.Service) (*model.FingerprintSet, error) {
	set, ok, err := r.DB.LatestFingerprints(ctx)
	if err != nil || !ok {
		return nil, err
	}
	return model.NewFingerprintSet(set), nil
}

func (r *viewerResolver) Probe(ctx context.Context, _ *model.Viewing) (*model.Probe, error) {
	p := Principal(ctx)
	if p.Role != access.Probe {
		return nil, nil
	}
	return r.probe(ctx, p.ProbeID)
}

func (r *viewerResolver) RateLimit(ctx context.Context, _ *model.Viewing) (*model.RateLimit, error) {
	limit := r.RateLimitFor(ctx)
	return &limit, nil
}

// Service is part of graph.ResolverRoot.
func (r *Resolver) Service() graph.ServiceResolver { return &serviceResolver{r} }

// Viewer is part of graph.ResolverRoot.
func (r *Resolver) Viewer() graph.ViewerResolver { return &viewerResolver{r} }

type (
	serviceResolver struct{ *Resolver }
	viewerResolver  struct{ *Resolver }
)
