package resolvers

import (
	"context"
	"strings"
	"time"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/graph"
	"github.com/openvantage/vantage/graph/model"
	"github.com/openvantage/vantage/probe"
	"github.com/openvantage/vantage/service"
)

// boardSize is how many probes one answer shows at a common instant.
//
// Source: the API contract, section 2c, number 1.
const boardSize = 5000

func (r *heartbeatResolver) Probe(_ context.Context, obj *model.Heartbeat) (*model.Probe, error) {
	return obj.Probe, nil
}

func (r *mutationResolver) RegisterProbe(ctx context.Context, input model.RegisterProbeInput) (*model.RegisterProbePayload, error) {
	made, err := r.register(ctx, input)
	if err != nil {
		errs, err := r.expected(ctx, err)
		return &model.RegisterProbePayload{UserErrors: errs}, err
	}
	return &model.RegisterProbePayload{
		Probe: own(made.Probe), Secret: &made.Secret, UserErrors: []*model.UserError{},
	}, nil
}

func (r *mutationResolver) register(ctx context.Context, in model.RegisterProbeInput) (made service.Registered, err error) {
	if err := r.MayRegister(ctx); err != nil {
		return made, err
	}
	if in.Country == country.Unknown {
		return made, fault.Field("input.country", "Find out which country the probe is in.")
	}
	return r.Flows.Register(ctx, Principal(ctx), deref(in.IdempotencyKey), service.Registration{
		DisplayName: deref(in.DisplayName), Country: in.Country, ASN: in.Asn, Type: in.Type,
		SoftwareVersion: deref(in.SoftwareVersion), Contact: deref(in.Contact),
	})
}

// own shows a probe to itself or to staff, who alone change it: all of it.
func own(p probe.Probe) *model.Probe {
	itself := access.Principal{Role: access.Probe, ProbeID: p.ID}
	return model.NewProbe(model.Viewer{Principal: itself}, db.Probe{Probe: p})
}

func (r *mutationResolver) Heartbeat(ctx context.Context, input model.HeartbeatInput) (*model.HeartbeatPayload, error) {
	answer, err := r.heartbeat(ctx, input)
	if err != nil {
		errs, err := r.expected(ctx, err)
		return &model.HeartbeatPayload{ServerTime: r.DB.Now(), NextHeartbeatAfter: int(probe.Default().HeartbeatPeriod.Seconds()), UserErrors: errs}, err
	}
	return &model.HeartbeatPayload{
		Probe: own(answer.Probe), ServerTime: answer.At, NextHeartbeatAfter: int(answer.NextAfter.Seconds()),
		UserErrors: []*model.UserError{},
	}, nil
}

func (r *mutationResolver) heartbeat(ctx context.Context, in model.HeartbeatInput) (service.Accepted, error) {
	id, err := probe.ParseID(in.ProbeID)
	if err != nil {
		return service.Accepted{}, fault.New(fault.NotFound, "There is no probe with this id.").At("input.probeId")
	}
	answer, err := r.Flows.Heartbeat(ctx, Principal(ctx), deref(in.IdempotencyKey), probe.Heartbeat{
		ProbeID: id, Country: in.ProbeCc, ASN: in.ProbeAsn, SoftwareVersion: in.SoftwareVersion,
		UptimeSeconds: in.UptimeSeconds, QueueDepth: in.QueueDepth, LastMeasurementAt: deref(in.LastMeasurementAt),
	})
	return answer, inInput(err)
}

// inInput names the field as the mutation spells it.
func inInput(err error) error {
	if f := fault.Of(err); f != nil && f.Field != "" && !strings.HasPrefix(f.Field, "input.") {
		return f.At("input." + f.Field)
	}
	return err
}

func (r *mutationResolver) ActivateProbe(ctx context.Context, input model.ActivateProbeInput) (*model.ActivateProbePayload, error) {
	p, err := r.Flows.Activate(ctx, Principal(ctx), deref(input.IdempotencyKey), probe.ID(input.ProbeID))
	if err != nil {
		errs, err := r.expected(ctx, err)
		return &model.ActivateProbePayload{UserErrors: errs}, err
	}
	return &model.ActivateProbePayload{Probe: own(p), UserErrors: []*model.UserError{}}, nil
}

func (r *mutationResolver) RetireProbe(ctx context.Context, input model.RetireProbeInput) (*model.RetireProbePayload, error) {
	p, err := r.Flows.Retire(ctx, Principal(ctx), deref(input.IdempotencyKey), probe.ID(input.ProbeID), deref(input.Reason))
	if err != nil {
		errs, err := r.expected(ctx, err)
		return &model.RetireProbePayload{UserErrors: errs}, err
	}
	return &model.RetireProbePayload{Probe: own(p), UserErrors: []*model.UserError{}}, nil
}

func (r *probeStateChangeResolver) Probe(ctx context.Context, obj *model.ProbeStateChange) (*model.Probe, error) {
	return r.probe(ctx, obj.ProbeID)
}

func (r *queryResolver) Probe(ctx context.Context, id string, asOf *time.Time) (*model.Probe, error) {
	key, err := probe.ParseID(id)
	if err != nil {
		return nil, nil
	}
	shown, err := r.probe(ctx, key)
	if fault.Is(err, fault.NotFound) {
		return nil, nil
	}
	if err != nil || asOf == nil {
		return shown, err
	}
	at, err := r.past(*asOf)
	if err != nil {
		return nil, err
	}
	then, err := r.DB.DisplaysAsOf(ctx, []probe.ID{key}, at)
	if err != nil {
		return nil, err
	}
	d, ok := then[key]
	if !ok {
		return nil, nil // it was not registered yet
	}
	return shown.AsOf(d), nil
}

// past fails with INVALID for an instant that the server cannot know about.
func (r *Resolver) past(t time.Time) (time.Time, error) {
	if t.After(r.DB.Now()) {
		return t, fault.Field("asOf", "This instant is yet to come.")
	}
	return t, nil
}

func (r *queryResolver) Probes(ctx context.Context, filter *model.ProbeFilter, orderBy *model.ProbeOrder, first *int, after *string, last *int, before *string) (*model.ProbeConnection, error) {
	return r.probes(ctx, r.probeQuery(ctx, filter), orderBy, slice{first, last, after, before})
}

func (r *Resolver) probeQuery(ctx context.Context, filter *model.ProbeFilter) db.ProbeQuery {
	f := deref(filter)
	return db.ProbeQuery{
		IDs: f.Ids, Countries: strs(f.Countries), ASNs: numbers(f.Asns), States: strs(f.States),
		Lifecycles: strs(f.Lifecycles), Types: strs(f.Types), Visible: r.viewer(ctx),
	}
}

func (r *Resolver) probes(ctx context.Context, q db.ProbeQuery, by *model.ProbeOrder, s slice) (*model.ProbeConnection, error) {
	order, desc := db.ByRegisteredAt, true
	key := func(p db.Probe) string { return model.KeyTime(p.RegisteredAt) }
	if by != nil {
		desc = by.Direction == model.OrderDirectionDesc
		switch by.Field {
		case model.ProbeOrderFieldStateSince:
			order, key = db.ByStateSince, func(p db.Probe) string { return model.KeyTime(p.StateSince) }
		case model.ProbeOrderFieldCountry:
			order, key = db.ByCountry, func(p db.Probe) string { return string(p.Country) }
		case model.ProbeOrderFieldRegisteredAt:
		}
	}
	p, err := s.page(func(c string) ([]string, error) {
		keys, err := model.ParseCursor(model.CursorProbe, c, 2)
		if err == nil && order != db.ByCountry {
			err = model.CheckKeyTime(keys[0])
		}
		return keys, err
	})
	if err != nil {
		return nil, err
	}
	rows, err := r.DB.Probes(ctx, q, order, desc, p)
	if err != nil {
		return nil, err
	}
	out, info := edges(rows, p, func(x db.Probe) string { return model.NewCursor(model.CursorProbe, key(x), string(x.ID)) },
		func(c string, x db.Probe) *model.ProbeEdge {
			return &model.ProbeEdge{Cursor: c, Node: model.NewProbe(r.viewer(ctx), x)}
		})
	return &model.ProbeConnection{Edges: out, PageInfo: info}, nil
}

func (r *queryResolver) ProbeBoard(ctx context.Context, filter *model.ProbeFilter, asOf *time.Time) (*model.ProbeBoard, error) {
	board := &model.ProbeBoard{AsOf: r.DB.Now()}
	if asOf != nil {
		at, err := r.past(*asOf)
		if err != nil {
			return nil, err
		}
		board.AsOf = at
	}
	q := r.probeQuery(ctx, filter)
	if asOf != nil {
		q.States = nil // of then, not of now
	}
	return board, r.DB.Read(ctx, func(v db.View) error {
		head, err := v.LogHead(ctx)
		if err != nil {
			return err
		}
		board.Cursor = model.LogCursor(head)
		rows, err := v.Board(ctx, q, boardSize+1)
		if err != nil {
			return err
		}
		if board.Truncated = len(rows) > boardSize; board.Truncated {
			rows = rows[:boardSize]
		}
		board.Cells, err = r.cells(ctx, v, rows, filter, asOf)
		return err
	})
}

func (r *Resolver) cells(ctx context.Context, v db.View, rows []db.Probe, filter *model.ProbeFilter, asOf *time.Time) ([]*model.Probe, error) {
	cells := make([]*model.Probe, 0, len(rows))
	if asOf == nil {
		for _, p := range rows {
			cells = append(cells, model.NewProbe(r.viewer(ctx), p))
		}
		return cells, nil
	}
	ids := make([]probe.ID, len(rows))
	for i, p := range rows {
		ids[i] = p.ID
	}
	then, err := v.DisplaysAsOf(ctx, ids, *asOf)
	for _, p := range rows {
		if d, ok := then[p.ID]; ok && in(deref(filter).States, d.State) {
			cells = append(cells, model.NewProbe(r.viewer(ctx), p).AsOf(d))
		}
	}
	return cells, err
}

func (r *subscriptionResolver) ProbeStateChanged(ctx context.Context, filter *model.ProbeFilter, after *string, snapshot *bool) (<-chan *model.ProbeStateChange, error) {
	at, err := position(after)
	if err != nil {
		return nil, err
	}
	return stream(ctx, r.Resolver, "probeStateChanged", func(yield func(*model.ProbeStateChange) bool) error {
		from := at
		if deref(snapshot) && at == nil {
			head, err := r.snapshot(ctx, filter, yield)
			if err != nil {
				return err
			}
			from = &head
		}
		return r.followChanges(ctx, filter, from, yield)
	}), nil
}

// snapshot yields the present state of every matching probe, and returns the place in the log
// that it belongs to.
func (r *Resolver) snapshot(ctx context.Context, filter *model.ProbeFilter, yield func(*model.ProbeStateChange) bool) (head events.Position, err error) {
	var rows []db.Probe
	err = r.DB.Read(ctx, func(v db.View) (err error) {
		if head, err = v.LogHead(ctx); err != nil {
			return err
		}
		rows, err = v.Board(ctx, r.probeQuery(ctx, filter), boardSize)
		return err
	})
	for _, p := range rows {
		if !yield(model.NewSnapshot(p, head, r.DB.Now())) {
			break
		}
	}
	return head, err
}

func (r *Resolver) followChanges(ctx context.Context, filter *model.ProbeFilter, from *events.Position, yield func(*model.ProbeStateChange) bool) (failed error) {
	err := r.Flows.Follow(ctx, from, func(e events.Event) bool {
		change, ok := model.NewProbeStateChange(e)
		if !ok {
			return true
		}
		ok, failed = r.matchesProbe(ctx, filter, change.ProbeID, e, change.To)
		if failed != nil {
			return false
		}
		return !ok || yield(change)
	})
	return firstOf(failed, err)
}

// matchesProbe asks whether a probe matches the filter, being displayed as state. What the
// event says is looked at first; the rest, and what may be withheld, is loaded when asked for.
func (r *Resolver) matchesProbe(ctx context.Context, filter *model.ProbeFilter, id probe.ID, e events.Event, state probe.State) (bool, error) {
	f := deref(filter)
	if !in(f.Ids, string(id)) || !in(f.Countries, e.Country) || !in(f.States, state) || !in(f.Asns, e.ASN) {
		return false, nil
	}
	if f.Asns == nil && f.Lifecycles == nil && f.Types == nil {
		return true, nil
	}
	p, err := r.DB.Probe(ctx, id)
	return err == nil && r.matches(ctx, f, p, state), err
}

// matches asks the same of a loaded probe, by the same conditions as the query.
func (r *Resolver) matches(ctx context.Context, f model.ProbeFilter, p db.Probe, state probe.State) bool {
	v := r.viewer(ctx)
	return in(f.Ids, string(p.ID)) && in(f.Countries, p.Country) && in(f.States, state) && in(f.Asns, p.ASN) &&
		(f.Asns == nil || v.Networks.SeesNetwork(v.Principal, p.ID, p.Peers)) &&
		in(f.Lifecycles, p.Lifecycle) && in(f.Types, p.Type)
}

func (r *subscriptionResolver) HeartbeatReceived(ctx context.Context, filter *model.ProbeFilter) (<-chan *model.Heartbeat, error) {
	return stream(ctx, r.Resolver, "heartbeatReceived", func(yield func(*model.Heartbeat) bool) (failed error) {
		err := r.Flows.FollowHeartbeats(ctx, func(beats []events.Heartbeat) bool {
			var shown []*model.Heartbeat
			if shown, failed = r.shownHeartbeats(ctx, filter, beats); failed != nil {
				return false
			}
			for _, h := range shown {
				if !yield(h) {
					return false
				}
			}
			return true
		})
		return firstOf(failed, err)
	}), nil
}

// shownHeartbeats shows those that match; their probes are loaded together.
func (r *Resolver) shownHeartbeats(ctx context.Context, filter *model.ProbeFilter, beats []events.Heartbeat) ([]*model.Heartbeat, error) {
	f := deref(filter)
	var ids []probe.ID
	for _, h := range beats {
		if in(f.Ids, string(h.ProbeID)) {
			ids = append(ids, h.ProbeID)
		}
	}
	if ids == nil {
		return nil, nil
	}
	probes, err := r.DB.ProbesByID(ctx, ids)
	if err != nil {
		return nil, err
	}
	var out []*model.Heartbeat
	for _, h := range beats {
		if p, ok := probes[h.ProbeID]; ok && r.matches(ctx, f, p, p.State) {
			out = append(out, model.NewHeartbeat(r.viewer(ctx), h, p))
		}
	}
	return out, nil
}

// Heartbeat is part of graph.ResolverRoot.
func (r *Resolver) Heartbeat() graph.HeartbeatResolver { return &heartbeatResolver{r} }

// ProbeStateChange is part of graph.ResolverRoot.
func (r *Resolver) ProbeStateChange() graph.ProbeStateChangeResolver {
	return &probeStateChangeResolver{r}
}

type (
	heartbeatResolver        struct{ *Resolver }
	probeStateChangeResolver struct{ *Resolver }
)
