package service

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/coverage"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/probe"
)

// coverageReactor is the reactor's name in the table of its places, for ever.
const coverageReactor = "coverage"

const (
	// coverageEvery is how often all countries are looked at, whatever happened.
	//
	// Source: R9, R10.
	coverageEvery = 5 * time.Minute
	// coverageMemory is how far back outages can still stop a clock of coverage: the longest is
	// the warm-up of two days, with a day for outages in a row.
	coverageMemory = 72 * time.Hour
	// quietLag is how much later than it ends a quiet time is over. Losses come to us this late,
	// with those that the sweep writes down after its own lag.
	quietLag = 10 * time.Second
)

// coverageKinds are what can change who counts, waits or is replaced.
var coverageKinds = []events.Kind{
	events.Kind(probe.LifecycleChanged), events.Kind(probe.LivenessChanged),
	events.Kind(probe.FlappingStarted), events.Kind(probe.FlappingEnded),
	events.Kind(probe.Suspended), events.Kind(probe.Resumed), events.Kind(probe.QualityScored),
	events.CauseChanged, events.Kind(probe.PlaceObserved), events.Kind(probe.WorkflowStateChanged),
	events.OutageClosed, events.MonitoringChanged, events.AgreementRecorded,
}

// A lookedAt is a country that the coverage reactor looks at: the world, what was known, and
// what happened there.
type lookedAt struct {
	coverage.World
	applicants  []coverage.Applicant
	breach      coverage.Breach
	coordinated coverage.Coordinated

	happened []events.Event
	at       time.Time // when the last of it did; now if nothing has
	causes   []int64

	// What is to be done.
	vettings []coverage.Vetting
	plan     coverage.Plan
}

// cover keeps countries covered: it announces what they lack, vets who wants to help, replaces who
// fell silent, and notices when several did together.
//
// Source: R9, R10, R12, and R1 for the vetting.
func (s *Service) cover(ctx context.Context, tx *db.Tx, evs []events.Event) error {
	dirty, err := s.dirtyCountries(ctx, tx, evs)
	if err != nil || len(dirty) == 0 {
		return err
	}
	all, err := s.lookAt(ctx, tx, slices.Sorted(maps.Keys(dirty)))
	if err != nil {
		return err
	}
	for _, c := range all {
		c.learn(dirty[c.Country.Code])
	}
	if err := s.coordinate(ctx, tx, all); err != nil {
		return err
	}
	moves := mover{s: s, tx: tx}
	for _, c := range all {
		c.vettings, c.World = s.settings.Coverage.VetAll(c.World, c.applicants)
		c.plan = s.settings.Coverage.Plan(c.World)
		moves.expect(c)
	}
	if err := moves.lock(ctx); err != nil {
		return err
	}
	for _, c := range all {
		if err := s.admit(ctx, &moves, c); err != nil {
			return err
		}
		if err := s.announceCoverage(ctx, tx, c); err != nil {
			return err
		}
		if err := s.replace(ctx, &moves, c); err != nil {
			return err
		}
	}
	return nil
}

// dirtyCountries are those where something may have changed, with what happened there: by events,
// by time, and all of them now and then.
func (s *Service) dirtyCountries(ctx context.Context, tx *db.Tx, evs []events.Event) (map[country.Code][]events.Event, error) {
	dirty := map[country.Code][]events.Event{}
	look := func(c country.Code, happened ...events.Event) { dirty[c] = append(dirty[c], happened...) }
	everywhere := func() {
		for c := range country.All() {
			look(c.Code)
		}
	}
	for _, e := range evs {
		if e.Country == "" {
			everywhere()
			continue
		}
		look(e.Country, e)
	}
	due, err := tx.CoverageDue(ctx, tx.Now, tx.Now.Add(-quietLag-s.settings.Coverage.CoordinatedQuietFor))
	if err != nil {
		return nil, err
	}
	for _, c := range due {
		look(c)
	}
	checked, err := tx.Checked(ctx, coverageReactor)
	if err != nil || tx.Now.Sub(checked) < coverageEvery {
		return dirty, err
	}
	everywhere()
	return dirty, tx.SaveChecked(ctx, coverageReactor)
}

// lookAt locks the countries, which are in order, and loads them.
func (s *Service) lookAt(ctx context.Context, tx *db.Tx, codes []country.Code) ([]*lookedAt, error) {
	if err := tx.LockCountries(ctx, codes); err != nil {
		return nil, err
	}
	probes, err := tx.CoverageProbes(ctx, codes)
	if err != nil {
		return nil, err
	}
	standing, err := tx.StandingReplacements(ctx, codes)
	if err != nil {
		return nil, err
	}
	breaches, err := tx.Breaches(ctx, codes)
	if err != nil {
		return nil, err
	}
	coordinated, err := tx.Coordinated(ctx, codes)
	if err != nil {
		return nil, err
	}
	monitored, err := tx.Monitored(ctx)
	if err != nil {
		return nil, err
	}
	outages, err := outagesOf(ctx, tx, tx.Now.Add(-coverageMemory))
	if err != nil {
		return nil, err
	}
	all := make([]*lookedAt, len(codes))
	for i, code := range codes {
		c := &lookedAt{breach: breaches[code], coordinated: coordinated[code], at: tx.Now}
		c.At, c.Country, c.Replacements, c.Outages = tx.Now, coverage.CountryOf(code, monitored), standing[code], outages
		for _, p := range probes[code] {
			c.Probes = append(c.Probes, p.Probe)
			if p.Lifecycle == probe.Pending || p.Lifecycle == probe.Warmup {
				c.applicants = append(c.applicants, p)
			}
		}
		all[i] = c
	}
	return all, nil
}

func (c *lookedAt) learn(happened []events.Event) {
	c.happened = happened
	for i, e := range happened {
		if i == 0 || e.OccurredAt.After(c.at) {
			c.at = e.OccurredAt
		}
		if len(c.causes) < causesMost {
			c.causes = append(c.causes, e.Seq)
		}
	}
}

// causesMost is how many events that led to it an event names.
const causesMost = 100

// announceCoverage says how the country stands, if that is news.
func (s *Service) announceCoverage(ctx context.Context, tx *db.Tx, c *lookedAt) error {
	if s.settings.Coverage.Required(c.Country).PopulationUnknown && len(c.Probes) > 0 {
		err := tx.OpenTask(ctx, db.SetPopulation, events.CountryID(c.Country.Code), c.Country.Code,
			"Nobody knows how many people live there, so it has no coverage objective.")
		if err != nil {
			return err
		}
	}
	next, changes := c.breach.Observe(c.plan.Coverage, c.at)
	if len(changes) == 0 {
		return nil
	}
	for _, change := range changes {
		tx.Append(events.OfCoverage(change, c.plan.Coverage, c.causes))
	}
	return tx.SaveBreach(ctx, c.Country.Code, next)
}

// A mover gives probes their commands. Who may have to move is locked at once, in order.
type mover struct {
	s      *Service
	tx     *db.Tx
	ids    []probe.ID
	probes map[probe.ID]probe.Probe
}

// expect notes who will have to move, or to rest.
func (m *mover) expect(c *lookedAt) {
	for i, v := range c.vettings {
		if v.To != "" {
			m.ids = append(m.ids, c.applicants[i].ID)
		}
	}
	for _, step := range c.plan.Steps {
		if step.Moves() || !step.CoolOffUntil.IsZero() {
			m.ids = append(m.ids, step.Replacement.Candidate)
		}
	}
}

func (m *mover) lock(ctx context.Context) (err error) {
	if len(m.ids) > 0 {
		m.probes, err = m.tx.LockProbes(ctx, m.ids)
	}
	return err
}

// move gives one of them a command, and returns it as it was and as it is.
func (m *mover) move(ctx context.Context, id probe.ID, c probe.Command) (before, after probe.Probe, err error) {
	before = m.probes[id]
	after, err = m.s.command(ctx, m.tx, before, c)
	m.probes[id] = after
	return before, after, err
}

// outagesOf are those that ended after that, or go on, oldest first.
func outagesOf(ctx context.Context, r interface {
	Outages(ctx context.Context, since time.Time, n int) ([]db.Outage, error)
}, since time.Time,
) ([]probe.Outage, error) {
	stored, err := r.Outages(ctx, since, 10_000)
	out := make([]probe.Outage, len(stored))
	for i, o := range stored {
		out[i] = o.Outage
	}
	return out, err
}

// A Waitlist is a country with who applies there, and who waits.
type Waitlist struct {
	coverage.World
	Applicants []coverage.Applicant
}

// Applicants returns the countries with who is on the way to the waitlist, or on it.
func (s *Service) Applicants(ctx context.Context, codes []country.Code) (all []Waitlist, err error) {
	err = s.db.Read(ctx, func(v db.View) error {
		probes, err := v.CoverageProbes(ctx, codes)
		if err != nil {
			return err
		}
		monitored, err := v.Monitored(ctx)
		if err != nil {
			return err
		}
		now := s.db.Now()
		outages, err := outagesOf(ctx, v, now.Add(-coverageMemory))
		for _, code := range codes {
			w := Waitlist{World: coverage.World{At: now, Country: coverage.CountryOf(code, monitored), Outages: outages}}
			for _, p := range probes[code] {
				w.Probes = append(w.Probes, p.Probe)
				if p.Lifecycle != probe.Active {
					w.Applicants = append(w.Applicants, p)
				}
			}
			all = append(all, w)
		}
		return err
	})
	return all, err
}

// CoverageRules are the numbers by which it is decided who counts.
func (s *Service) CoverageRules() coverage.Rules { return s.settings.Coverage }

// Monitored reports whether a country is to be kept covered, as far as this process has heard.
func (s *Service) Monitored(code country.Code) bool {
	return coverage.CountryOf(code, *s.monitored.Load()).Monitored
}

// loadMonitored reads what operators decided about countries.
func (s *Service) loadMonitored(ctx context.Context) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	decided, err := s.db.Monitored(ctx)
	if err == nil {
		s.monitored.Store(&decided)
	}
	return err
}
