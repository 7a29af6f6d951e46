package probe

import (
	"fmt"
	"time"
)

// Rules are the numbers of the rule book. They are configuration; Default has the values.
type Rules struct {
	HeartbeatPeriod    time.Duration // how often a probe is asked to speak
	DegradedAfter      time.Duration // silence that makes a probe DEGRADED
	OfflineAfter       time.Duration // silence that makes it OFFLINE; more than DegradedAfter
	FlapWindow         time.Duration // transitions this close together count together
	FlapThreshold      int           // so many of them are flapping
	FlapCooldown       time.Duration // unbroken ONLINE that ends flapping
	DeadFlapAfter      time.Duration // OFFLINE while flapping that is shown as OFFLINE
	SweepLag           time.Duration // how long a timer waits for heartbeats under way
	RetiredNoticeEvery time.Duration // at most one notice of a retired probe's heartbeats

	GuardMissAfter   time.Duration // silence that counts as two missed heartbeats
	GuardWindow      time.Duration // misses this close together count together
	GuardProbes      int           // an outage needs more probes than this,
	GuardPercent     int           // and more than this share of the ACTIVE ones,
	GuardCountries   int           // in at least so many countries
	GuardHealthyFor  time.Duration // health that ends an outage
	GuardBlindAtMost time.Duration // hearing others for this long ends it too
}

// Default gives the numbers of the rule book.
//
// Source: R19 for all that the probe health document sets. Our own are SweepLag (above the
// 800 ms that ingestion takes at worst), DeadFlapAfter (R5), the notice (R2) and the guard (R17),
// whose GuardBlindAtMost is no rule of the book: see Guard.
func Default() Rules {
	return Rules{
		HeartbeatPeriod:    60 * time.Second,
		DegradedAfter:      300 * time.Second,
		OfflineAfter:       900 * time.Second,
		FlapWindow:         7200 * time.Second,
		FlapThreshold:      3,
		FlapCooldown:       7200 * time.Second,
		DeadFlapAfter:      7200 * time.Second,
		SweepLag:           5 * time.Second,
		RetiredNoticeEvery: 24 * time.Hour,

		GuardMissAfter:   120 * time.Second,
		GuardWindow:      120 * time.Second,
		GuardProbes:      5,
		GuardPercent:     30,
		GuardCountries:   3,
		GuardHealthyFor:  120 * time.Second,
		GuardBlindAtMost: 30 * time.Minute,
	}
}

// An Input is what can happen to a probe: a [Heartbeat], a [Command], or a [Tick].
type Input interface{ when() time.Time }

// A Tick is the mere passing of time until At.
type Tick struct{ At time.Time }

func (h Heartbeat) when() time.Time { return h.ReceivedAt }
func (c Command) when() time.Time   { return c.At }
func (t Tick) when() time.Time      { return t.At }

// A step is one Advance under way: at the instant at, for this reason and actor.
type step struct {
	rules   Rules
	outages []Outage
	probe   Probe
	changes []Change

	at     time.Time
	reason string
	actor  string
}

// commit is the only way a step changes what changes are about.
func (s *step) commit(c Change) {
	c.At, c.Reason, c.Actor = s.at, s.reason, s.actor
	c.RuleID, c.RuleVersion = c.Kind.rule(), RuleVersion
	s.probe = s.probe.Apply(c)
	s.changes = append(s.changes, c)
}

// Advance fires the probe's own timers up to the input's instant, each at its exact time, and then
// takes the input. It returns the probe as it is then and the changes made, oldest first. The
// same tick again makes none. Outages are sorted by From, and include all that go on or ended after
// the earlier of LivenessSince and LastHeartbeatAt. It fails with CONFLICT, changing nothing, when
// a command is not allowed.
//
// Timers fire up to the instant whatever SweepLag says: whoever sends ticks subtracts it, see
// Due. A heartbeat must have passed Check; one that arrives late counts as EffectiveAt says.
func (r Rules) Advance(p Probe, in Input, outages []Outage) (Probe, []Change, error) {
	s := step{rules: r, outages: outages, probe: p}
	at := p.EffectiveAt(in.when())
	s.elapse(at, false)
	s.at = at
	switch in := in.(type) {
	case Heartbeat:
		s.hear(in)
	case Command:
		if err := s.obey(in); err != nil {
			return p, nil, err
		}
	}
	s.elapse(at, true)
	return s.probe, s.changes, nil
}

// elapse fires timers. At one instant it is liveness first, then the end of flapping, then
// heartbeats, then evaluations: those of the last instant wait for the input. Source: R0.
func (s *step) elapse(until time.Time, evaluate bool) {
	for {
		loss, steady, dead := s.rules.timers(s.probe, s.outages)
		s.at = earliest(loss, steady, dead)
		switch at := s.at; {
		case at.IsZero() || at.After(until):
			return
		case at.Equal(loss):
			s.lose()
		case at.Equal(steady):
			s.settle()
		case at.Equal(until) && !evaluate:
			return
		default:
			s.giveUp()
		}
	}
}

// timers are the instants at which time alone changes p; zero is never.
func (r Rules) timers(p Probe, outages []Outage) (loss, steady, dead time.Time) {
	if p.Lifecycle == Inactive {
		return
	}
	if p.State == StateFlapping {
		dead = r.deadAt(p, outages)
	}
	return r.lossAt(p, outages), r.steadyAt(p, outages), dead
}

// Deadline is the next instant at which time alone will change p; zero is never. A heartbeat
// before it may move it, and so may an outage.
func (r Rules) Deadline(p Probe, outages []Outage) time.Time {
	return earliest(r.timers(p, outages))
}

// Due reports whether p should be sent the Tick of SweepLag before now: its deadline has passed
// by then, and no heartbeat that could have moved it is still under way.
func (r Rules) Due(p Probe, outages []Outage, now time.Time) bool {
	at := r.Deadline(p, outages)
	return !at.IsZero() && !now.Before(at.Add(r.SweepLag))
}

// earliest ignores zero times.
func earliest(times ...time.Time) (first time.Time) {
	for _, t := range times {
		if first.IsZero() || !t.IsZero() && t.Before(first) {
			first = t
		}
	}
	return first
}

// words says a duration as a person would: "15 minutes", "two hours".
func words(d time.Duration) string {
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if n := int(d / unit.length); d%unit.length == 0 && n == 1 {
			return "one " + unit.name
		} else if d%unit.length == 0 && n > 1 {
			return number(n) + " " + unit.name + "s"
		}
	}
	return d.String()
}

// number spells small numbers out.
func number(n int) string {
	small := []string{"no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"}
	if n >= 0 && n < len(small) {
		return small[n]
	}
	return fmt.Sprint(n)
}
