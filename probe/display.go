package probe

import "time"

// A State is the one word shown for a probe: a projection of lifecycle, liveness and flapping.
type State string

// The display states.
const (
	StateOnline   State = "ONLINE"
	StateDegraded State = "DEGRADED"
	StateOffline  State = "OFFLINE"
	StateFlapping State = "FLAPPING"
	StateInactive State = "INACTIVE"
)

// display is R5, in its order. A probe that flapped and then died is shown OFFLINE after
// DeadFlapAfter, or nobody would look for it; the flag stays and holds again on its return.
func (r Rules) display(p Probe, at time.Time, outages []Outage) State {
	dead := r.deadAt(p, outages)
	switch {
	case p.Lifecycle == Inactive:
		return StateInactive
	case p.Flapping() && (dead.IsZero() || at.Before(dead)):
		return StateFlapping
	case p.Liveness == NeverSeen:
		return StateOffline
	default:
		return State(p.Liveness)
	}
}

// deadAt is when a flapping probe has been OFFLINE long enough to be shown so.
func (r Rules) deadAt(p Probe, outages []Outage) time.Time {
	if !p.Flapping() || p.Liveness != Offline {
		return time.Time{}
	}
	return p.clock(p.OfflineSince, r.DeadFlapAfter, outages)
}

// show announces the display state if it is another one now.
func (s *step) show() {
	if to := s.rules.display(s.probe, s.at, s.outages); to != s.probe.State {
		s.commit(Change{Kind: DisplayChanged, From: string(s.probe.State), To: string(to)})
	}
}

// giveUp shows a dead flapping probe as OFFLINE.
func (s *step) giveUp() {
	s.reason = "Offline for " + words(s.rules.DeadFlapAfter) + " while flapping."
	s.show()
}
