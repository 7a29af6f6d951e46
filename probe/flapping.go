package probe

import "time"

// Settled is liveness with the doubtful middle left out: DEGRADED keeps the value before it.
// Changes between UP and DOWN are the transitions that flapping counts.
//
// Source: R4, and defect D1, which counting on the liveness itself leads to.
type Settled string

// The settled values.
const (
	Unsettled Settled = "" // never ONLINE nor OFFLINE yet
	Up        Settled = "UP"
	Down      Settled = "DOWN"
)

// settles is what entering l settles; Unsettled if nothing.
func (l Liveness) settles() Settled {
	switch l {
	case Online:
		return Up
	case Offline:
		return Down
	default:
		return Unsettled
	}
}

// counting lists the transitions that count together with one at the instant at, which ends it.
// The window is closed: a transition exactly FlapWindow ago counts.
func (r Rules) counting(earlier []time.Time, at time.Time) []time.Time {
	var times []time.Time
	for _, t := range earlier {
		if at.Sub(t) <= r.FlapWindow {
			times = append(times, t)
		}
	}
	return append(times, at)
}

// flap starts flapping when the change just made was one transition too many. A change that was
// none has no times: what the probe remembers may be too old to count.
func (s *step) flap(times []time.Time) {
	if s.probe.Flapping() || len(times) < s.rules.FlapThreshold {
		return
	}
	s.reason = "Changed between up and down " + number(s.rules.FlapThreshold) + " times within " + words(s.rules.FlapWindow) + "."
	s.commit(Change{Kind: FlappingStarted, TransitionTimes: times})
}

// steadyAt is when an unbroken ONLINE will end flapping. An hour in which we could not hear
// anyone is not an hour of steadiness.
func (r Rules) steadyAt(p Probe, outages []Outage) time.Time {
	if !p.Flapping() || p.Liveness != Online {
		return time.Time{}
	}
	return p.clock(p.OnlineSince, r.FlapCooldown, outages)
}

// settle ends flapping.
func (s *step) settle() {
	s.reason = "Online without a break for " + words(s.rules.FlapCooldown) + "."
	s.commit(Change{Kind: FlappingEnded, StableSince: s.probe.OnlineSince})
	s.show()
}
