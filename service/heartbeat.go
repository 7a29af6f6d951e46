package service

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/probe"
)

// A beat is one heartbeat on its way through a shared transaction.
type beat struct {
	probe.Heartbeat
	call   *call
	answer Accepted
	err    error
	ready  chan struct{}

	arrival probe.Arrival // empty where it was refused
}

// key names the heartbeat as its probe does; false where it has no number.
func (b *beat) key() (db.HeartbeatKey, bool) {
	if b.BootID == "" || b.Seq == nil {
		return db.HeartbeatKey{}, false
	}
	return db.HeartbeatKey{ProbeID: b.ProbeID, BootID: b.BootID, Seq: *b.Seq}, true
}

func (b *beat) done() chan struct{} { return b.ready }

// size is about what one holds, with its probe.
func (b *beat) size() int { return 1 << 10 }

// Accepted answers a heartbeat: the probe after it, when the next one is due, and what its
// operator should do, the most urgent first.
type Accepted struct {
	Probe      db.Probe
	At         time.Time
	NextAfter  time.Duration
	Advisories []probe.Advisory
}

// Heartbeat takes a heartbeat that came at this instant. What is accepted is durable. A repetition
// of a boot's number gets the answer that the first got, for a day, and changes nothing. It
// fails with INVALID, naming the field; with UNAUTHENTICATED or FORBIDDEN when the principal
// is not the probe; with RATE_LIMITED when it comes too soon after another; with UNAVAILABLE
// when too many wait; and with CONFLICT when the probe is retired, which is noted once a day.
func (s *Service) Heartbeat(ctx context.Context, p access.Principal, key string, h probe.Heartbeat) (Accepted, error) {
	began := time.Now()
	h.ReceivedAt = s.db.Now()
	answer, err := s.heartbeat(ctx, p, key, h)
	s.meter.Heartbeat(outcomeOf(err), time.Since(began))
	return answer, err
}

func (s *Service) heartbeat(ctx context.Context, p access.Principal, key string, h probe.Heartbeat) (Accepted, error) {
	if err := p.NeedProbe(h.ProbeID); err != nil {
		return Accepted{}, err
	}
	if err := h.Check(); err != nil {
		return Accepted{}, err
	}
	request := h
	request.ReceivedAt, request.Observed, request.DatabaseDate = time.Time{}, probe.Place{}, time.Time{} // ours, and not the sender's
	c, err := newCall(p, "heartbeat", key, request, h.ReceivedAt)
	if err != nil {
		return Accepted{}, err
	}
	var before Accepted
	if ok, err := c.recall(ctx, s.db, &before); ok || err != nil {
		return before, err
	}
	b := &beat{Heartbeat: h, call: c, ready: make(chan struct{})}
	if err := s.heartbeats.do(ctx, b); err != nil {
		return Accepted{}, err
	}
	if c != nil && fault.Is(b.err, fault.Conflict) {
		if ok, err := c.recall(ctx, s.db, &before); ok && err == nil {
			return before, nil
		}
	}
	return b.answer, b.err
}

// takeHeartbeats gives each heartbeat its outcome. Where the shared transaction fails, each is
// tried alone, so that one cannot spoil the others; but not where the database is out of reach,
// for then each would wait for that alone, one after the other.
func (s *Service) takeHeartbeats(ctx context.Context, batch []*beat) {
	err := s.writeHeartbeats(ctx, batch)
	for _, b := range batch {
		if err != nil {
			b.err = err
			if len(batch) > 1 && !fault.Is(err, fault.Unavailable) {
				b.err = s.retryHeartbeat(ctx, b)
			}
		}
		close(b.ready)
	}
}

func (s *Service) retryHeartbeat(ctx context.Context, b *beat) error {
	b.err, b.arrival = nil, ""
	if err := s.writeHeartbeats(ctx, []*beat{b}); err != nil {
		return err
	}
	return b.err
}

func (s *Service) writeHeartbeats(ctx context.Context, batch []*beat) error {
	batch = slices.Clone(batch)
	slices.SortStableFunc(batch, func(a, b *beat) int { return a.ReceivedAt.Compare(b.ReceivedAt) })
	return s.db.WriteOften(ctx, func(tx *db.Tx) error {
		i := intake{Service: s, tx: tx, moved: map[probe.ID]bool{}, heard: map[probe.ID]bool{}, judged: map[probe.ID]bool{}, told: map[db.HeartbeatKey]*beat{}}
		if err := i.load(ctx, batch); err != nil {
			return err
		}
		for _, b := range batch {
			if err := i.admit(ctx, b); err != nil {
				return err
			}
		}
		if err := i.loadBeats(ctx, batch); err != nil {
			return err
		}
		for _, b := range batch {
			if err := i.answer(ctx, b); err != nil {
				return err
			}
		}
		return i.save(ctx)
	})
}

// An intake is one shared transaction of heartbeats.
type intake struct {
	*Service
	tx      *db.Tx
	outages []probe.Outage
	probes  map[probe.ID]db.Probe // as they are by now
	before  map[probe.ID][]probe.Beat
	answers map[db.HeartbeatKey]db.Answered // of those stored before
	told    map[db.HeartbeatKey]*beat       // of those that came in this transaction

	heard  map[probe.ID]bool // anything was accepted of it
	moved  map[probe.ID]bool // its machine changed, beyond what the heartbeat said
	judged map[probe.ID]bool // its impairments may have changed
}

// load locks the probes, and looks for heartbeats that may be repetitions among the stored ones.
func (i *intake) load(ctx context.Context, batch []*beat) (err error) {
	ids := make([]probe.ID, len(batch))
	for n, b := range batch {
		ids[n] = b.ProbeID
	}
	if i.probes, err = i.tx.LockHeard(ctx, ids); err != nil {
		return err
	}
	if i.outages, err = recentOutages(ctx, i.tx); err != nil {
		return err
	}
	var again []db.HeartbeatKey
	for _, b := range batch {
		known := i.probes[b.ProbeID].Intake
		if key, ok := b.key(); ok && (known.Known(b.Extras) || known.Doubtful(b.Extras)) {
			again = append(again, key)
		}
	}
	if again != nil {
		i.answers, err = i.tx.HeartbeatAnswers(ctx, again, i.tx.Now.Add(-rememberFor))
	}
	return err
}

// admit places a heartbeat among those known, and lets it move its probe's machine if it is news.
func (i *intake) admit(ctx context.Context, b *beat) error {
	p, ok := i.probes[b.ProbeID]
	if !ok {
		b.err = noProbe("input.probeId")
		return nil
	}
	a := probe.Arriving{Extras: b.Extras, Observed: b.Observed, Dated: b.DatabaseDate, At: b.ReceivedAt, Restarted: p.EverSeen() && b.UptimeSeconds < p.UptimeSeconds}
	if key, ok := b.key(); ok {
		_, stored := i.answers[key]
		a.Stored = stored || i.told[key] != nil
	}
	next, arrival, err := i.settings.Health.Admit(p.Intake, a)
	if err != nil {
		b.err = err
		return nil
	}
	b.arrival = arrival
	if arrival == probe.Repeat {
		return nil
	}
	i.heard[p.ID] = true
	if key, ok := b.key(); ok {
		i.told[key] = b
	}
	if p.Lifecycle == probe.Inactive {
		next.Observed, next.Dated = p.Intake.Observed, p.Intake.Dated
	}
	if change, ok := p.Intake.Moved(next); ok {
		i.tx.Append(events.OfPlace(p.Probe, change))
	}
	p.Intake = next
	if arrival.News() {
		var changes []probe.Change
		if p.Probe, changes, err = i.settings.Rules.Advance(p.Probe, b.Heartbeat, i.outages); err != nil {
			return err
		}
		if err := announce(ctx, i.tx, p.Probe, changes); err != nil {
			return err
		}
		if p.Lifecycle != probe.Inactive { // what one says that is retired is noted, and believed in nothing
			p.Planned = b.ShuttingDown
		}
		i.moved[p.ID] = i.moved[p.ID] || len(changes) > 0
	}
	i.probes[p.ID] = p
	b.answer = Accepted{Probe: p, At: b.ReceivedAt}
	return nil
}

// loadBeats reads the earlier heartbeats of those probes where they matter.
func (i *intake) loadBeats(ctx context.Context, batch []*beat) error {
	var ids []probe.ID
	since := i.tx.Now
	for _, b := range batch {
		if b.arrival.News() && i.settings.Health.NeedsHistory(b.answer.Probe.Intake, b.Beat()) && !slices.Contains(ids, b.ProbeID) {
			ids = append(ids, b.ProbeID)
		}
		if b.ReceivedAt.Before(since) {
			since = b.ReceivedAt
		}
	}
	i.before = map[probe.ID][]probe.Beat{}
	if ids == nil {
		return nil
	}
	var err error
	i.before, err = i.tx.BeatsSince(ctx, ids, since.Add(-i.settings.Health.Lookback()))
	return err
}

// answer judges what is wrong with the probe, stores the heartbeat, and says what its sender gets.
func (i *intake) answer(ctx context.Context, b *beat) error {
	if b.err != nil {
		return nil
	}
	p := i.probes[b.ProbeID]
	if b.arrival == probe.Repeat {
		if p.Lifecycle == probe.Inactive {
			b.err = retired()
			return nil
		}
		b.answer = i.again(b, p)
		return b.call.remember(ctx, i.tx, b.answer)
	}
	stored := events.Heartbeat{Heartbeat: b.Heartbeat, Late: b.arrival == probe.Late}
	if p.Lifecycle == probe.Inactive {
		i.tx.InsertHeartbeats(stored)
		b.err = retired()
		return nil
	}
	if b.arrival.News() {
		p = i.judge(b, p)
	}
	then := b.answer.Probe.Probe // after this heartbeat, where several came
	b.answer.Probe = p
	b.answer.Probe.Probe = then
	b.answer.NextAfter = i.settings.Health.NextHeartbeatAfter(p.ID, b.ReceivedAt, i.settings.Rules.HeartbeatPeriod)
	b.answer.Advisories = i.settings.Health.Advisories(p.Impairments, i.settings.Health.TwoMachines(p.Intake, b.ReceivedAt), p.MustUpdate)
	if _, ok := b.key(); ok {
		stored.Answer = events.Payload(answered{then.State, then.StateSince, b.answer.NextAfter, b.answer.Advisories})
	}
	i.tx.InsertHeartbeats(stored)
	return b.call.remember(ctx, i.tx, b.answer)
}

func retired() error {
	return fault.New(fault.Conflict, "This probe is retired. An operator can reinstate it.").At("input.probeId")
}

// judge asks what is wrong with the probe now.
func (i *intake) judge(b *beat, p db.Probe) db.Probe {
	i.before[p.ID] = append(i.before[p.ID], b.Beat())
	has, changes := i.settings.Health.Impair(p.Impairments, probe.Signs{
		Type: p.Type, Beats: i.before[p.ID], Control: p.Control, LatestVersion: (*i.releases.Load())[p.Type],
	})
	for _, c := range changes {
		i.tx.Append(events.OfImpairment(p.Probe, c))
	}
	i.judged[p.ID] = i.judged[p.ID] || len(has)+len(p.Impairments) > 0
	p.Impairments = has
	i.probes[p.ID] = p
	return p
}

// answered is what is stored of an answer, for when it was lost on its way.
type answered struct {
	State      probe.State      `json:"state"`
	StateSince time.Time        `json:"since"`
	NextAfter  time.Duration    `json:"next"`
	Advisories []probe.Advisory `json:"advice,omitempty"`
}

// again is the answer that a heartbeat got when it first came. What it was told of the state is as
// of then; the rest of the probe is as it is now.
func (i *intake) again(b *beat, p db.Probe) Accepted {
	key, _ := b.key()
	if first := i.told[key]; first != nil {
		return first.answer
	}
	out := Accepted{Probe: p, At: b.ReceivedAt, NextAfter: i.settings.Rules.HeartbeatPeriod}
	stored, ok := i.answers[key]
	var a answered
	if !ok || json.Unmarshal(stored.Answer, &a) != nil {
		return out // from before it was kept, or longer ago than it is kept
	}
	out.Probe.State, out.Probe.StateSince = a.State, a.StateSince
	out.At, out.NextAfter, out.Advisories = stored.At, a.NextAfter, a.Advisories
	return out
}

func (i *intake) save(ctx context.Context) error {
	heard := make([]db.Probe, 0, len(i.heard))
	for id := range i.heard {
		p := i.probes[id]
		if i.moved[id] {
			if err := i.tx.SaveProbe(ctx, p.Probe, i.wakeAt(p.Probe, i.outages)); err != nil {
				return err
			}
		}
		switch {
		case !i.judged[id]:
			p.Impairments = nil
		case p.Impairments == nil:
			p.Impairments = []probe.Impaired{}
		}
		heard = append(heard, p)
	}
	return i.tx.SaveHeartbeats(ctx, heard)
}

// outcomeOf is err as a metric's label: a code of the closed set, or "OK".
func outcomeOf(err error) string {
	if err == nil {
		return "OK"
	}
	return string(fault.Of(err).Code)
}
