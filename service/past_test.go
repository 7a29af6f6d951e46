package service

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/coverage"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/network"
	"github.com/openvantage/vantage/probe"
)

// sorted is all by id.
func sorted(all []coverage.Applicant) []coverage.Applicant {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b coverage.Applicant) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return all
}

// A moment is what was stored at an instant, of everybody.
type moment struct {
	at     time.Time
	probes map[probe.ID]db.Probe
	cover  map[country.Code][]coverage.Applicant
}

func (w *world) moment(of []probe.Probe) moment {
	w.t.Helper()
	m := moment{at: w.clock(), probes: map[probe.ID]db.Probe{}}
	for _, p := range of {
		m.probes[p.ID] = shownOf(w.stored(p.ID))
	}
	var err error
	if m.cover, err = w.db.CoverageProbes(ctx, nil); err != nil {
		w.t.Fatal(err)
	}
	return m
}

// shownOf is p without the memory that the log leaves out, and what was said at registration.
func shownOf(p db.Probe) db.Probe {
	p.Intake = probe.Intake{Observed: p.Intake.Observed, Dated: p.Intake.Dated}
	p.Impairments = slices.Clone(p.Impairments)
	for i := range p.Impairments {
		p.Impairments[i].AbsentSince = time.Time{}
	}
	if len(p.Impairments) == 0 {
		p.Impairments = nil
	}
	p.Standing.ReviewRun, p.Standing.ResumeRun = 0, 0
	if !p.EverSeen() && p.UptimeSeconds == 0 {
		p.SoftwareVersion = ""
	}
	return p
}

// remember compares what is read now of an earlier moment with what was stored then.
func (m moment) remember(t *rapid.T, w *world) {
	for id, want := range m.probes {
		now, err := w.db.Probe(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		then, err := w.db.ProbeAsOf(ctx, now, m.at)
		if err != nil {
			t.Fatal(err)
		}
		then, want.Peers, then.Peers = shownOf(then), 0, 0
		if diff := differs(want, then); diff != "" {
			t.Fatalf("as of %s the probe is not what it was (-want +got): %s", m.at, diff)
		}
	}
	cover, err := w.db.CoverageProbesAsOf(ctx, nil, m.at)
	if err != nil {
		t.Fatal(err)
	}
	for _, cc := range []country.Code{"IR", "DE"} {
		if diff := differs(sorted(m.cover[cc]), sorted(cover[cc])); diff != "" {
			t.Fatalf("as of %s coverage looks at others than it did (-want +got): %s", m.at, diff)
		}
	}
}

// Whatever happens: what is read of a past instant is what was stored at it.
func TestThePastIsWhatWasStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	histories, seen := 0, map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		if histories++; histories > 4 { // each takes seconds
			return
		}
		w.t = t
		w.sql(`truncate probe, event, heartbeat, reactor, replacement, breach, coordinated, country_setting, audit, task, probe_span,
			observer_outage, observer_watermark, quality, probe_conduct, workflow, probe_silence, cause_evaluation restart identity cascade`)
		w.sql("delete from snapshot_probe")
		s := w.process()
		// Moments lie twenty seconds after a minute: ten after heartbeats, so that nothing is due and not yet
		// written down.
		w.wait(time.Minute + 20*time.Second - time.Duration(w.clock().UnixMicro()%60e6)*time.Microsecond)
		w.watch()
		w.react(s)
		var probes []probe.Probe
		heard := map[probe.ID]bool{}
		for n := range 5 {
			s.settings.AutoActivate = n != 4
			p := w.register(s, rapid.SampledFrom([]country.Code{"IR", "DE"}).Draw(rt, "country"), network.ASN(10+n/2))
			probes, heard[p.ID] = append(probes, p), n != 0
		}
		moments := []moment{w.moment(probes)}
		for step := range rapid.IntRange(12, 25).Draw(rt, "steps") {
			w.wait(time.Minute - 10*time.Second)
			p := rapid.SampledFrom(probes).Draw(rt, "probe")
			minutes := rapid.SampledFrom([]int{0, 0, 4, 16, 31, 130}).Draw(rt, "minutes")
			switch step {
			case 0, 1, 2: // somebody comes to the waitlist, and somebody else is blocked
				p, minutes = probes[4-2*(step/2)], 4
			case 3: // somebody falls silent
				p = probes[1]
			case 4: // until it is missed: chance alone had nobody explained once in a hundred runs
				minutes = 31
			}
			for left := minutes; left > 0; {
				some := min(left, 1+minutes/30) // less than it takes to be missed
				left -= some
				w.watch()
				for _, q := range probes {
					if heard[q.ID] && w.probe(q.ID).Lifecycle != probe.Inactive {
						w.say(s, w.saying(rt, q))
					}
				}
				w.sweep(s)
				w.wait(time.Duration(some) * time.Minute)
			}
			w.watch()
			what := rapid.SampledFrom([]string{
				"hush", "hush", "measure", "measure", "fail", "fail", "retire", "reinstate", "activate", "standby", "sign", "open", "resolve", "retired",
			}).Draw(rt, "what")
			switch {
			case step < 3:
				what = []string{"sign", "standby", "open"}[step]
			case step == 3:
				what = "hush"
			case step == 6: // chance alone left all of them at work once in some hundred runs
				what = "retire"
			}
			w.act(rt, s, what, p, heard)
			w.wait(10 * time.Second)
			w.watch()
			w.sweep(s)
			if _, err := s.ScoreQuality(ctx); err != nil {
				rt.Fatal(err)
			}
			w.react(s)
			moments = append(moments, w.moment(probes))
		}
		w.wait(time.Hour)
		w.watch()
		w.sweep(s)
		w.react(s)
		for _, m := range moments {
			m.remember(rt, w)
			for _, p := range m.probes {
				m.count(seen, p)
			}
		}
	})
	for _, what := range []string{"impaired", "suspended", "reviewed", "scored", "explained", "moved", "retired", "waiting", "signed", "blocked", "planned"} {
		if seen[what] == 0 {
			t.Errorf("no probe was %s: the histories are too tame: %v", what, seen)
		}
	}
}

func (m moment) count(seen map[string]int, p db.Probe) {
	for what, is := range map[string]bool{
		"impaired": len(p.Impairments) > 0, "suspended": p.Standing.Suspended(), "reviewed": !p.Standing.ReviewSince.IsZero(),
		"scored": p.Standing.Score != nil, "explained": p.Cause != probe.NoCause, "moved": p.EffectiveASN() != p.ASN,
		"retired": p.Lifecycle == probe.Inactive, "waiting": !p.WaitlistedAt.IsZero(), "signed": !p.AgreementSignedAt.IsZero(), "planned": p.Planned,
	} {
		if is {
			seen[what]++
		}
	}
	for _, a := range m.cover[p.Country] {
		if a.ID == p.ID && a.ControlBlocked {
			seen["blocked"]++
		}
	}
}

// saying is a heartbeat that something may be wrong with.
func (w *world) saying(t *rapid.T, p probe.Probe) probe.Heartbeat {
	h := heartbeat(p)
	h.UptimeSeconds = int64(w.clock().Sub(start) / time.Second)
	switch rapid.IntRange(0, 30).Draw(t, "says") {
	case 0:
		h.PausedReason = probe.PausedForBattery
	case 1:
		h.SentAt = w.clock().Add(-time.Hour)
	case 2:
		h.Observed, h.DatabaseDate = probe.Place{Country: "TR", ASN: 9121}, start
	case 3:
		h.Observed, h.DatabaseDate = probe.Place{Country: p.Country, ASN: p.ASN}, start.Add(time.Hour)
	case 4, 5, 6:
		h.ShuttingDown = true
	}
	return h
}

// act has something happen to a probe, where it can.
func (w *world) act(t *rapid.T, s *Service, what string, p probe.Probe, heard map[probe.ID]bool) {
	var err error
	switch what {
	case "hush":
		heard[p.ID] = !heard[p.ID]
	case "measure": // enough to be scored well
		w.conduct(p, conducts{n: 1, addresses: 1, names: 1, since: w.clock(), until: w.clock()})
	case "fail":
		w.conduct(p, conducts{n: 25, errors: 25, unreached: 25, unresolved: true, since: w.clock(), until: w.clock()})
	case "retire":
		_, err = s.Retire(ctx, staff, "", p.ID, "")
	case "retired": // speaks
		if w.probe(p.ID).Lifecycle == probe.Inactive {
			h := heartbeat(p)
			h.SoftwareVersion = "9.9.9"
			if _, err := s.Heartbeat(ctx, self(p), "", h); !fault.Is(err, fault.Conflict) {
				t.Fatal(err)
			}
		}
	case "reinstate":
		_, err = s.Reinstate(ctx, staff, "", p.ID, "")
	case "activate":
		_, err = s.Activate(ctx, staff, "", p.ID)
	case "standby":
		_, err = s.Standby(ctx, staff, "", p.ID)
	case "sign":
		_, err = s.RecordAgreement(ctx, staff, "", p.ID, time.Time{})
	case "open":
		_, err = s.OpenWorkflow(ctx, staff, "", p.ID, probe.ModeControlBlocked, "")
	case "resolve":
		_, err = s.ResolveWorkflow(ctx, staff, "", p.ID, probe.ModeControlBlocked, "")
	}
	if err != nil && !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.NotFound) {
		t.Fatal(fmt.Errorf("%s: %w", what, err))
	}
}
