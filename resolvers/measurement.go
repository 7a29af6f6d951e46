package resolvers

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/engine"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/graph"
	"github.com/openvantage/vantage/graph/model"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/probe"
	"github.com/openvantage/vantage/service"
)

// MaxBatch is how many bodies one mutation takes.
const MaxBatch = 100

func (r *measurementResolver) Probe(_ context.Context, obj *model.Measurement) (*model.Probe, error) {
	if obj.ProbeID == "" {
		return nil, nil
	}
	return obj.LoadProbe()
}

func (r *measurementResolver) Body(ctx context.Context, obj *model.Measurement) (json.RawMessage, error) {
	if err := engine.Produced(ctx, obj.BodySizeBytes); err != nil {
		return nil, err
	}
	return r.Flows.Body(ctx, measurement.ID(obj.UID))
}

// shownMeasurements shows rows; their probes are loaded together, when one is asked for.
func (r *Resolver) shownMeasurements(ctx context.Context, rows ...db.Measurement) []*model.Measurement {
	out := make([]*model.Measurement, len(rows))
	var ids []probe.ID
	for i, m := range rows {
		out[i] = model.NewMeasurement(r.viewer(ctx), m)
		if out[i].ProbeID != "" {
			ids = append(ids, out[i].ProbeID)
		}
	}
	load := sync.OnceValues(func() (map[probe.ID]db.Probe, error) { return r.DB.ProbesByID(ctx, ids) })
	uids := make([]measurement.ID, len(rows))
	for i, m := range rows {
		uids[i] = m.UID
	}
	loadFaults := sync.OnceValues(func() (map[measurement.ID][]db.Faulty, error) { return r.DB.FaultsOf(ctx, uids) })
	loadEarlier := sync.OnceValues(func() (map[measurement.ID][]db.Verdict, error) { return r.DB.EarlierVerdicts(ctx, uids, maxEarlier) })
	for _, m := range out {
		m.LoadFaults = func() ([]db.Faulty, error) {
			all, err := loadFaults()
			return all[measurement.ID(m.UID)], err
		}
		m.LoadEarlier = func() ([]db.Verdict, error) {
			all, err := loadEarlier()
			return all[measurement.ID(m.UID)], err
		}
		m.LoadProbe = func() (*model.Probe, error) {
			probes, err := load()
			if err != nil {
				return nil, err
			}
			return model.NewProbe(r.viewer(ctx), probes[m.ProbeID]), nil
		}
	}
	return out
}

func (r *Resolver) measurement(ctx context.Context, m db.Measurement) *model.Measurement {
	return r.shownMeasurements(ctx, m)[0]
}

func (r *mutationResolver) SubmitMeasurement(ctx context.Context, input model.SubmitMeasurementInput) (*model.SubmitMeasurementPayload, error) {
	done, err := r.Flows.Submit(ctx, Principal(ctx), deref(input.IdempotencyKey), service.Submission{
		Body: []byte(input.Content), ReceivedAt: deref(input.ReceivedAt), Observed: r.observed(ctx),
	})
	if err != nil {
		errs, err := r.expected(ctx, err)
		return &model.SubmitMeasurementPayload{UserErrors: errs}, err
	}
	return r.outcomes(ctx, []service.Submitted{{Outcome: done}})[0], nil
}

// observed is where the request's address was seen.
func (r *Resolver) observed(ctx context.Context) probe.Place {
	var h probe.Heartbeat
	r.Observe(ctx, &h)
	return h.Observed
}

// outcomes shows what became of bodies. What they were duplicates of is loaded together.
func (r *Resolver) outcomes(ctx context.Context, all []service.Submitted) []*model.SubmitMeasurementPayload {
	var uids []measurement.ID
	for _, done := range all {
		if done.Err == nil && done.Discarded == "" && done.Stored == nil {
			uids = append(uids, done.UID)
		}
	}
	var before map[measurement.ID]db.Measurement
	var lost error
	if uids != nil {
		before, lost = r.DB.MeasurementsByUID(ctx, uids)
	}
	out := make([]*model.SubmitMeasurementPayload, len(all))
	var rows []db.Measurement
	var of []int // which outcome each row belongs to
	for i, done := range all {
		out[i] = &model.SubmitMeasurementPayload{Duplicate: done.Duplicate, UserErrors: []*model.UserError{}}
		switch {
		case done.Err != nil:
			out[i].UserErrors = []*model.UserError{r.userError(ctx, done.Err)}
		case done.Discarded != "":
			out[i].Discarded = &model.DiscardedSubmission{UID: string(done.UID), Reason: done.Discarded, Message: done.Discarded.String()}
		case done.Stored != nil:
			rows, of = append(rows, *done.Stored), append(of, i)
		case before[done.UID].UID == "": // retention dropped it at this moment
			if lost == nil {
				lost = fault.New(fault.NotFound, "There is nothing with this id.")
			}
			out[i].UserErrors = []*model.UserError{r.userError(ctx, lost)}
		default:
			rows, of = append(rows, before[done.UID]), append(of, i)
		}
	}
	for n, m := range r.shownMeasurements(ctx, rows...) {
		out[of[n]].Measurement = m
	}
	return out
}

func (r *mutationResolver) SubmitMeasurements(ctx context.Context, input model.SubmitMeasurementsInput) (*model.SubmitMeasurementsPayload, error) {
	if n := len(input.Items); n == 0 || n > MaxBatch {
		return r.refusedBatch(ctx, fault.Field("input.items", "A batch has 1 to %d bodies.", MaxBatch))
	}
	if err := service.CheckKey(deref(input.IdempotencyKey)); err != nil {
		return r.refusedBatch(ctx, err)
	}
	keys, subs := make([]string, len(input.Items)), make([]service.Submission, len(input.Items))
	seen := r.observed(ctx)
	for i, item := range input.Items {
		keys[i] = itemKey(input.IdempotencyKey, i)
		subs[i] = service.Submission{Body: []byte(item.Content), ReceivedAt: deref(item.ReceivedAt), Observed: seen}
	}
	out := r.outcomes(ctx, r.Flows.SubmitAll(ctx, Principal(ctx), keys, subs))
	return &model.SubmitMeasurementsPayload{Outcomes: out, UserErrors: []*model.UserError{}}, nil
}

func (r *Resolver) refusedBatch(ctx context.Context, err error) (*model.SubmitMeasurementsPayload, error) {
	errs, err := r.expected(ctx, err)
	return &model.SubmitMeasurementsPayload{Outcomes: []*model.SubmitMeasurementPayload{}, UserErrors: errs}, err
}

func (r *queryResolver) Measurement(ctx context.Context, uid string) (*model.Measurement, error) {
	m, err := r.DB.Measurement(ctx, measurement.ID(uid))
	if fault.Is(err, fault.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return r.measurement(ctx, m), nil
}

func (r *queryResolver) Measurements(ctx context.Context, filter *model.MeasurementFilter, orderBy *model.MeasurementOrder, first *int, after *string, last *int, before *string) (*model.MeasurementConnection, error) {
	f := deref(filter)
	return r.measurements(ctx, db.MeasurementQuery{
		Since: f.Since, Until: f.Until, ReceivedSince: f.ReceivedSince, Countries: strs(f.Countries), ASNs: numbers(f.Asns),
		TestNames: f.TestNames, Domains: f.Domains, Inputs: f.Inputs, Anomaly: f.Anomaly, Confirmed: f.Confirmed,
		Failure: f.Failure, Outcomes: strs(f.Outcomes), Verdicts: strs(f.Verdicts), ReportID: f.ReportID, ProbeID: f.ProbeID,
		SoftwareVersions: f.SoftwareVersions, OONIRunLinkID: f.OoniRunLinkID, Visible: r.viewer(ctx),
		Flapping: f.ProbeFlapping, Suspended: f.ProbeSuspended, Warmup: f.ProbeWarmup, Eligible: f.EligibleForAnomalyScoring, MaxTiers: strs(f.MaxTiers),
	}, orderBy, slice{first, last, after, before})
}

func (r *Resolver) measurements(ctx context.Context, q db.MeasurementQuery, by *model.MeasurementOrder, s slice) (*model.MeasurementConnection, error) {
	order, desc := db.ByStartedAt, true
	key := db.Measurement.SortAt
	if by != nil {
		desc = by.Direction == model.OrderDirectionDesc
		if by.Field == model.MeasurementOrderFieldReceivedAt {
			order, key = db.ByReceivedAt, func(m db.Measurement) time.Time { return m.ReceivedAt }
		}
	}
	p, err := s.page(func(c string) ([]string, error) {
		keys, err := model.ParseCursor(model.CursorMeasurement, c, 2)
		if err == nil {
			err = model.CheckKeyTime(keys[0])
		}
		return keys, err
	})
	if err != nil {
		return nil, err
	}
	rows, err := r.DB.Measurements(ctx, q, order, desc, p)
	if err != nil {
		return nil, err
	}
	shown := r.shownMeasurements(ctx, rows...)
	byUID := make(map[measurement.ID]*model.Measurement, len(rows))
	for i, m := range rows {
		byUID[m.UID] = shown[i]
	}
	out, info := edges(ctx, rows, p, func(m db.Measurement) string {
		return model.NewCursor(model.CursorMeasurement, model.KeyTime(key(m)), string(m.UID))
	},
		func(c string, m db.Measurement) *model.MeasurementEdge {
			return &model.MeasurementEdge{Cursor: c, Node: byUID[m.UID]}
		})
	return &model.MeasurementConnection{Edges: out, PageInfo: info}, nil
}

func (r *subscriptionResolver) MeasurementScored(ctx context.Context, filter *model.MeasurementFilter, after *string) (<-chan *model.MeasurementScored, error) {
	at, err := begin(after)
	if err != nil {
		return nil, err
	}
	f := deref(filter)
	feed := engine.Feed[events.Event, *model.MeasurementScored]{
		Topic: r.Streams.log, Keys: []string{allScored}, After: at, Read: r.Streams.read, Cursor: cursor,
		Show: func(ctx context.Context, items []*events.Event) ([]engine.Shown[*model.MeasurementScored], error) {
			return r.scored(ctx, f, items)
		},
	}
	switch {
	case f.Asns != nil:
		names := make([]string, len(f.Asns))
		for i, a := range f.Asns {
			names[i] = a.String()
		}
		feed.Keys = keysOf("scored/", names)
	case f.Countries != nil:
		feed.Keys = keysOf("scored/", f.Countries)
	}
	return feed.Open(ctx)
}

// scored shows the measurements that match; their rows are loaded together. One that retention
// has dropped meanwhile is left out.
func (r *Resolver) scored(ctx context.Context, f model.MeasurementFilter, items []*events.Event) ([]engine.Shown[*model.MeasurementScored], error) {
	var uids []measurement.ID
	var some []engine.Shown[*model.MeasurementScored]
	for _, e := range items {
		if e.Kind != events.MeasurementScored {
			continue
		}
		var s events.Scored
		if err := json.Unmarshal(e.Payload, &s); err != nil {
			return nil, err
		}
		if matchesMeasurement(f, *e, s) {
			uids = append(uids, s.UID)
			some = append(some, engine.Shown[*model.MeasurementScored]{
				Value: &model.MeasurementScored{Cursor: model.LogCursor(e.Position()), Seq: e.Seq, OccurredAt: e.OccurredAt},
				At:    place(e.Position()),
			})
		}
	}
	if len(uids) == 0 {
		return nil, nil
	}
	byUID, err := r.DB.MeasurementsByUID(ctx, uids)
	if err != nil {
		return nil, err
	}
	rows := make([]db.Measurement, len(uids))
	for i, uid := range uids {
		rows[i] = byUID[uid]
	}
	var out []engine.Shown[*model.MeasurementScored]
	for i, shown := range r.shownMeasurements(ctx, rows...) {
		if rows[i].UID == "" || f.ProbeID != nil && string(shown.ProbeID) != *f.ProbeID || // gone, or its probe is withheld
			!in(f.Verdicts, rows[i].Outcome) {
			continue
		}
		some[i].Value.Measurement = shown
		out = append(out, some[i])
	}
	return out, nil
}

// matchesMeasurement decides from the event alone, by the same conditions as the query.
func matchesMeasurement(f model.MeasurementFilter, e events.Event, s events.Scored) bool {
	sortAt := s.ReceivedAt
	if s.StartedAt != nil {
		sortAt = *s.StartedAt
	}
	outcome := model.MeasurementOutcomeOk
	switch {
	case s.Failure:
		outcome = model.MeasurementOutcomeFailure
	case s.Confirmed:
		outcome = model.MeasurementOutcomeConfirmed
	case s.Anomaly:
		outcome = model.MeasurementOutcomeAnomaly
	}
	tier := cmp.Or(s.MaxTier, probe.TierNone)
	return is(f.ProbeFlapping, s.Flapping) && is(f.ProbeSuspended, s.Suspended) && is(f.ProbeWarmup, s.Warmup) &&
		is(f.EligibleForAnomalyScoring, tier != probe.TierNone) && in(f.MaxTiers, tier) &&
		within(f.Since, f.Until, sortAt) && within(f.ReceivedSince, nil, s.ReceivedAt) &&
		in(f.Countries, e.Country) && in(f.Asns, e.ASN) && in(f.TestNames, s.TestName) && in(f.Domains, s.Domain) &&
		in(f.Inputs, s.Input) && is(f.Anomaly, s.Anomaly) && is(f.Confirmed, s.Confirmed) && is(f.Failure, s.Failure) &&
		in(f.Outcomes, outcome) && is(f.ReportID, s.ReportID) && is(f.ProbeID, string(s.ProbeID)) &&
		in(f.SoftwareVersions, s.SoftwareVersion) && (f.OoniRunLinkID == nil || s.OONIRunLinkID != nil && *f.OoniRunLinkID == *s.OONIRunLinkID)
}

func is[T comparable](want *T, v T) bool { return want == nil || *want == v }

// itemKey is the key of one body of a batch that has one: no longer than any key, and none
// that the sender would choose for a single body. Batches of the same bodies in another order
// are other batches.
func itemKey(batch *string, i int) string {
	if batch == nil || *batch == "" {
		return ""
	}
	sum := sha256.Sum256([]byte("batch|" + strconv.Itoa(i) + "|" + *batch))
	return hex.EncodeToString(sum[:])
}

// Measurement is part of graph.ResolverRoot.
func (r *Resolver) Measurement() graph.MeasurementResolver { return &measurementResolver{r} }

type measurementResolver struct{ *Resolver }
