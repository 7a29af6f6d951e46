package resolvers

import (
	"context"
	"math"

	"github.com/openvantage/vantage/coverage"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/engine"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/graph"
	"github.com/openvantage/vantage/graph/model"
	"github.com/openvantage/vantage/network"
)

func (r *mutationResolver) CreateToken(ctx context.Context, input model.CreateTokenInput) (*model.CreateTokenPayload, error) {
	issued, err := r.Flows.CreateToken(ctx, Principal(ctx), deref(input.IdempotencyKey), input.Role, input.Name)
	if err != nil {
		errs, err := r.expected(ctx, err)
		return &model.CreateTokenPayload{UserErrors: errs}, err
	}
	return &model.CreateTokenPayload{Token: model.NewToken(issued.Token), Secret: &issued.Secret, UserErrors: []*model.UserError{}}, nil
}

func (r *queryResolver) Node(ctx context.Context, id string) (model.Node, error) {
	n, ok := model.ParseNodeID(id)
	if !ok {
		return nil, nil
	}
	found, err := r.node(ctx, n)
	if fault.Is(err, fault.NotFound) {
		return nil, nil
	}
	return found, err
}

// node finds an entity. NOT_FOUND when there is none or it is not the viewer's to see.
func (r *queryResolver) node(ctx context.Context, n model.NodeID) (model.Node, error) {
	absent := fault.New(fault.NotFound, "There is nothing with this id.")
	switch {
	case n.Probe != "":
		return r.probe(ctx, n.Probe)
	case n.Measurement != "":
		m, err := r.DB.Measurement(ctx, n.Measurement)
		if err != nil {
			return nil, err
		}
		return r.measurement(ctx, m), nil
	case n.Country != "":
		return model.NewCountry(n.Country), nil
	case n.Network != network.Unknown:
		return model.NewNetwork(n.Network), nil
	case n.Event != 0:
		e, err := r.DB.Event(ctx, n.Event)
		if err != nil {
			return nil, err
		}
		shown, err := r.event(ctx, e)
		if err == nil && shown == nil {
			err = absent
		}
		return shown, err
	case n.Heartbeat != 0:
		return r.heartbeatBySeq(ctx, n.Heartbeat)
	case n.Replacement != 0:
		p, err := r.DB.Replacement(ctx, n.Replacement)
		if err != nil {
			return nil, err
		}
		shown, err := r.shownReplacements(ctx, []coverage.Replacement{p})
		return shown[p.ID], err
	case n.Pack != 0:
		p, err := r.DB.Pack(ctx, n.Pack)
		if err != nil {
			return nil, err
		}
		return model.NewPack(p), nil
	case n.Audit != 0 && Principal(ctx).Staff():
		e, err := r.DB.AuditEntry(ctx, n.Audit)
		if err != nil {
			return nil, err
		}
		return model.NewAuditEntry(e), nil
	case n.Task != 0 && Principal(ctx).Staff():
		t, err := r.DB.Task(ctx, n.Task)
		if err != nil {
			return nil, err
		}
		return model.NewTask(t), nil
	case n.OfflineCause != 0:
		e, err := r.DB.Evaluation(ctx, n.OfflineCause)
		if err != nil {
			return nil, err
		}
		return model.NewOfflineCause(r.viewer(ctx), e), nil
	case n.Investigation != 0 && Principal(ctx).Staff():
		i, err := r.DB.Investigation(ctx, n.Investigation)
		if err != nil {
			return nil, err
		}
		return model.NewInvestigation(i), nil
	case n.Token != 0 && Principal(ctx).Staff():
		t, err := r.DB.Token(ctx, n.Token)
		if err != nil {
			return nil, err
		}
		return model.NewToken(t), nil
	case n.Workflow.Probe != "":
		w, err := r.DB.Workflow(ctx, n.Workflow.Probe, n.Workflow.Mode)
		if err != nil {
			return nil, err
		}
		if shown := model.NewWorkflow(r.viewer(ctx), w); shown != nil {
			return shown, nil
		}
	case n.Release != 0:
		x, err := r.DB.Release(ctx, n.Release)
		if err != nil {
			return nil, err
		}
		return model.NewRelease(x), nil
	case n.Alert != 0 && Principal(ctx).Staff():
		a, err := r.DB.Alert(ctx, n.Alert)
		if err != nil {
			return nil, err
		}
		return r.alert(ctx, a), nil
	case n.Silence != 0 && Principal(ctx).Staff():
		s, err := r.DB.Silence(ctx, n.Silence)
		if err != nil {
			return nil, err
		}
		return model.NewSilence(s, r.DB.Now()), nil
	case n.Digest != 0 && Principal(ctx).Staff():
		d, err := r.DB.Digest(ctx, n.Digest)
		if err != nil {
			return nil, err
		}
		return model.NewDigest(d), nil
	case n.ListVersion != 0 && n.ListVersion <= math.MaxInt32:
		v, err := r.DB.TestListVersion(ctx, int(n.ListVersion))
		if err != nil {
			return nil, err
		}
		return model.NewTestListVersion(v), nil
	case n.URLPriority != 0 && Principal(ctx).Staff():
		p, err := r.DB.URLPriority(ctx, n.URLPriority)
		if err != nil {
			return nil, err
		}
		return model.NewURLPriority(p), nil
	case n.Faulty != 0:
		f, err := r.DB.Faulty(ctx, n.Faulty)
		if err != nil {
			return nil, err
		}
		return r.shownFaults(ctx, []db.Faulty{f})[0], nil
	case n.Webhook != 0 && Principal(ctx).NeedAdmin() == nil:
		w, err := r.DB.Webhook(ctx, n.Webhook)
		if err != nil {
			return nil, err
		}
		return model.NewWebhook(w), nil
	}
	return nil, absent
}

func (r *queryResolver) Nodes(ctx context.Context, ids []string) ([]model.Node, error) {
	if len(ids) > MaxPage {
		return nil, fault.Field("ids", "Ask for at most %d ids at a time.", MaxPage)
	}
	out := make([]model.Node, len(ids))
	for i, id := range ids {
		n, err := r.Node(ctx, id)
		if err != nil {
			return nil, err
		}
		out[i] = n
	}
	return out, nil
}

func (r *subscriptionResolver) Pulse(ctx context.Context) (<-chan *model.Pulse, error) {
	show := func(p model.Pulse) engine.Shown[*model.Pulse] {
		return engine.Shown[*model.Pulse]{Value: &p, At: pulsePlace(&p), State: "pulse"}
	}
	return engine.Feed[model.Pulse, *model.Pulse]{
		Topic: r.Streams.pulses, Keys: []string{everything},
		Show: func(_ context.Context, items []*model.Pulse) ([]engine.Shown[*model.Pulse], error) {
			return []engine.Shown[*model.Pulse]{show(*items[len(items)-1])}, nil
		},
		Snapshot: func(context.Context) ([]engine.Shown[*model.Pulse], engine.Position, error) {
			return []engine.Shown[*model.Pulse]{show(r.Streams.pulse())}, engine.Position{}, nil
		},
		Merge: func(_, last *model.Pulse, _ int) *model.Pulse { return last },
	}.Open(ctx)
}

// Mutation is part of graph.ResolverRoot.
func (r *Resolver) Mutation() graph.MutationResolver { return &mutationResolver{r} }

// Query is part of graph.ResolverRoot.
func (r *Resolver) Query() graph.QueryResolver { return &queryResolver{r} }

// Subscription is part of graph.ResolverRoot.
func (r *Resolver) Subscription() graph.SubscriptionResolver { return &subscriptionResolver{r} }

type (
	mutationResolver     struct{ *Resolver }
	queryResolver        struct{ *Resolver }
	subscriptionResolver struct{ *Resolver }
)
