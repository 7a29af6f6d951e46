package service

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/probe"
)

// play lets time pass in sweeps ten seconds apart, with a heartbeat every minute from those
// who speak.
func (w *world) play(s *Service, minutes int, speak ...probe.Probe) {
	w.t.Helper()
	for range minutes {
		w.beat(s, speak...)
		for range 6 {
			w.wait(10 * time.Second)
			w.sweep(s)
		}
	}
}

// populate registers so many probes in each country.
func (w *world) populate(s *Service, each map[country.Code]int) (all []probe.Probe) {
	w.t.Helper()
	for _, cc := range []country.Code{"DE", "IR", "RU"} {
		for range each[cc] {
			all = append(all, w.register(s, cc, 3320))
		}
	}
	return all
}

// displays tells what probes were displayed as and when, in minutes after start.
func (w *world) displays() (told []string) {
	w.t.Helper()
	for _, e := range w.log(events.Kind(probe.DisplayChanged)) {
		c, err := e.Change()
		if err != nil {
			w.t.Fatal(err)
		}
		if c.To != string(probe.StateOnline) {
			told = append(told, e.OccurredAt.Sub(start).String()+" "+c.To)
		}
	}
	return told
}

func (w *world) outages() []probe.Outage {
	w.t.Helper()
	stored, err := w.db.Outages(w.t.Context(), time.Time{}, 100)
	if err != nil {
		w.t.Fatal(err)
	}
	out := make([]probe.Outage, len(stored))
	for i, o := range stored {
		o.HealthySince, o.HeardSince = time.Time{}, time.Time{} // memory of the guard
		out[i] = o.Outage
	}
	return out
}

func at(d time.Duration) time.Time { return start.Add(d) }

func TestGuard(t *testing.T) {
	t.Parallel()
	three := map[country.Code]int{"DE": 3, "IR": 3, "RU": 3}

	t.Run("a silence of all in three countries is ours: nobody is marked down", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.process()
		all := w.populate(s, three)
		w.play(s, 10, all...) // last heard at 9 min
		w.play(s, 30)
		open := probe.Outage{Cause: probe.SilenceAcrossCountries, From: at(9 * time.Minute)}
		if diff := cmp.Diff([]probe.Outage{open}, w.outages()); diff != "" {
			t.Fatal(diff)
		}
		w.play(s, 10, all...) // back at 40 min; the guard needs to see them for two minutes
		open.To = at(42*time.Minute + 10*time.Second)
		if diff := cmp.Diff([]probe.Outage{open}, w.outages()); diff != "" {
			t.Error(diff)
		}
		if told := w.displays(); told != nil {
			t.Errorf("probes were shown %q", told)
		}
		told := w.log(events.OutageOpened, events.OutageClosed)
		if len(told) != 2 || told[0].Kind != events.OutageOpened || !told[0].OccurredAt.Equal(open.From) || !told[1].OccurredAt.Equal(open.To) {
			t.Errorf("told was %+v", told)
		}
	})

	t.Run("those who stay silent after it are marked at exact times, the outage subtracted", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.process()
		all := w.populate(s, three)
		w.beat(s, all[0]) // this one will have been silent for two minutes when the outage begins
		w.play(s, 1, all[1:]...)
		w.play(s, 1, all[1:]...)
		w.play(s, 1, all[1:]...) // the others: last heard at 2 min
		w.play(s, 20)
		w.play(s, 30, all[2:]...)
		o := w.outages()
		if len(o) != 1 || !o[0].From.Equal(at(2*time.Minute)) || o[0].Open() {
			t.Fatalf("outages: %+v", o)
		}
		after := o[0].To.Sub(start)
		want := []string{
			(after + 3*time.Minute).String() + " DEGRADED", (after + 5*time.Minute).String() + " DEGRADED",
			(after + 13*time.Minute).String() + " OFFLINE", (after + 15*time.Minute).String() + " OFFLINE",
		}
		if diff := cmp.Diff(want, w.displays()); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("a silence of one country is that country's", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.process()
		all := w.populate(s, map[country.Code]int{"DE": 8, "IR": 1, "RU": 1})
		w.play(s, 5, all...) // last heard at 4 min
		w.play(s, 20, all[8:]...)
		want := slices.Concat(slices.Repeat([]string{"9m0s DEGRADED"}, 8), slices.Repeat([]string{"19m0s OFFLINE"}, 8))
		if diff := cmp.Diff(want, w.displays()); diff != "" {
			t.Error(diff)
		}
		if o := w.outages(); len(o) > 0 {
			t.Errorf("outages: %+v", o)
		}
	})

	t.Run("two processes that look at once open and close one outage", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		servers := []*Service{w.process(), w.process(), w.process()}
		all := w.populate(servers[0], three)
		for minute := range 20 {
			if minute < 3 || minute > 9 {
				w.beat(servers[0], all...)
			}
			for range 6 {
				w.wait(10 * time.Second)
				var every sync.WaitGroup
				for _, s := range servers {
					every.Go(func() { w.sweep(s) })
				}
				every.Wait()
			}
		}
		if o := w.outages(); len(o) != 1 || o[0].Open() {
			t.Errorf("outages: %+v", o)
		}
		if told := w.log(events.OutageOpened, events.OutageClosed); len(told) != 2 {
			t.Errorf("told was %+v", told)
		}
		if told := w.displays(); told != nil {
			t.Errorf("probes were shown %q", told)
		}
	})

	t.Run("an outage that began before the server's own is open all the same", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.process()
		all := w.populate(s, three)
		w.play(s, 1, all...)
		for second := range 6 { // last heard at 1:30, last swept at 2:00
			if second == 3 {
				w.beat(s, all...)
			}
			w.wait(10 * time.Second)
			w.sweep(s)
		}
		w.wait(61 * time.Second)
		w.sweep(s)
		for range 6 {
			w.wait(10 * time.Second)
			w.sweep(s)
		}
		o := w.outages()
		if len(o) != 2 || !o[0].Open() || o[1].Cause != probe.ServerDown {
			t.Fatalf("the case is not the one meant: %+v", o)
		}
		w.play(s, 30)
		if told := w.displays(); told != nil {
			t.Errorf("probes were shown %q", told)
		}
		if _, _, err := s.sweepBatch(t.Context()); err != nil {
			t.Error(err)
		}
		if looked, _, _ := s.sweepBatch(t.Context()); looked != 0 {
			t.Errorf("%d probes were looked at though no clock runs", looked)
		}
	})
}

func TestServerDown(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		down    time.Duration
		outages []probe.Outage
		shown   []string
	}{
		"a restart within a minute is no outage": {time.Minute, nil, []string{"7m0s DEGRADED", "17m0s OFFLINE"}},
		"a longer gap is, from the last sweep to the first": {
			time.Minute + time.Microsecond,
			[]probe.Outage{{Cause: probe.ServerDown, From: at(3 * time.Minute), To: at(4*time.Minute + time.Microsecond)}},
			[]string{"8m0.000001s DEGRADED", "18m0.000001s OFFLINE"},
		},
		"a day without us marks nobody down for that day": {
			24 * time.Hour,
			[]probe.Outage{{Cause: probe.ServerDown, From: at(3 * time.Minute), To: at(24*time.Hour + 3*time.Minute)}},
			[]string{"24h7m0s DEGRADED", "24h17m0s OFFLINE"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := w.process()
			w.sweep(s)
			p := w.register(s, "DE", 3320)
			w.play(s, 3, p) // last heard at 2 min, last swept at 3 min
			w.wait(c.down)
			s = w.process()
			w.sweep(s)
			w.play(s, 20)
			if diff := cmp.Diff(c.outages, append([]probe.Outage(nil), w.outages()...)); diff != "" {
				t.Errorf("outages: %s", diff)
			}
			if diff := cmp.Diff(c.shown, w.displays()); diff != "" {
				t.Errorf("shown: %s", diff)
			}
		})
	}

	t.Run("a first start is no outage", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.sweep(w.process())
		if o := w.outages(); len(o) > 0 {
			t.Errorf("outages: %+v", o)
		}
	})
}
