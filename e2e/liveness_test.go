//go:build e2e

package e2e

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openvantage/vantage/client"
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/probe"
	"github.com/openvantage/vantage/simulation"
)

// The numbers of the rule book.
//
// Source: health rules, R19.
const (
	degradedAfter = 300 * time.Second
	offlineAfter  = 900 * time.Second
	flapCooldown  = 7200 * time.Second
)

// A moment is a change of state at an instant of the server's clock.
type moment struct {
	At time.Time
	To probe.State
}

// momentsOf leaves out the registration, whose instant nobody told us.
func momentsOf(changes []stateChange) []moment {
	var all []moment
	for _, c := range changes {
		if c.From != "" {
			all = append(all, moment{c.OccurredAt, c.To})
		}
	}
	return all
}

func TestSilence(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	const rate = 60
	s := serve(t, "CLOCK_RATE=60", unhurried)
	operator := s.operator(t)
	changes := subscribeStateChanges(ctx, t, operator)
	b := newBeater(ctx, t, operator)
	b.beatUntil(ctx, t, newClock(rate), 4*time.Minute)
	first, last := b.beats[0], b.last()

	want := []moment{
		{first, probe.StateOnline},
		{last.Add(degradedAfter), probe.StateDegraded},
		{last.Add(offlineAfter), probe.StateOffline},
	}
	if diff := cmp.Diff(want, momentsOf(changes.await(t, 1+len(want)))); diff != "" {
		t.Fatalf("silence (-want +got):\n%s", diff)
	}
	if err := b.beat(ctx); err != nil {
		t.Fatal(err)
	}
	want = append(want, moment{b.last(), probe.StateOnline})
	if diff := cmp.Diff(want, momentsOf(changes.await(t, 1+len(want)))); diff != "" {
		t.Errorf("the return (-want +got):\n%s", diff)
	}
	checkNoOutage(ctx, t, operator)
}

// TestFlappingGoldenVector plays the rule book's own example: up for ten minutes and silent for
// twenty, four times, then steady from minute 150 on.
//
// Source: health rules, section 4.
func TestFlappingGoldenVector(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	const rate = 150 // five minutes are two seconds, which a busy machine may take for a heartbeat
	s := serve(t, "CLOCK_RATE=150", unhurried)
	operator := s.operator(t)
	changes := subscribeStateChanges(ctx, t, operator)
	flaps := subscribeEvents(ctx, t, operator, "FLAPPING_STARTED", "FLAPPING_ENDED")
	b := newBeater(ctx, t, operator)

	clock := newClock(rate)
	var came, went []time.Time // first and last heartbeat of each cycle
	for cycle := range 4 {
		begin := time.Duration(cycle) * 30 * time.Minute
		clock.wait(ctx, t, begin)
		n := len(b.beats)
		b.beatUntil(ctx, t, clock, begin+10*time.Minute)
		came, went = append(came, b.beats[n]), append(went, b.last())
	}
	clock.wait(ctx, t, 150*time.Minute)
	n := len(b.beats)
	b.beatUntil(ctx, t, clock, 275*time.Minute)
	steady := b.beats[n]

	started, ended := went[1].Add(offlineAfter), steady.Add(flapCooldown)
	want := []moment{
		{came[0], probe.StateOnline},
		{went[0].Add(degradedAfter), probe.StateDegraded},
		{went[0].Add(offlineAfter), probe.StateOffline},
		{came[1], probe.StateOnline},
		{went[1].Add(degradedAfter), probe.StateDegraded},
		{started, probe.StateFlapping},
		{ended, probe.StateOnline},
	}
	if diff := cmp.Diff(want, momentsOf(changes.await(t, 1+len(want)))); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	var got []event
	for _, e := range flaps.await(t, 2) {
		got = append(got, event{Kind: e.Kind, OccurredAt: e.OccurredAt})
	}
	wantFlaps := []event{{Kind: "FLAPPING_STARTED", OccurredAt: started}, {Kind: "FLAPPING_ENDED", OccurredAt: ended}}
	if diff := cmp.Diff(wantFlaps, got); diff != "" {
		t.Errorf("flapping (-want +got):\n%s", diff)
	}
	checkNoOutage(ctx, t, operator)
}

// A clock counts the server's time from when it is made.
type clock struct {
	began time.Time
	rate  float64
}

func newClock(rate float64) clock { return clock{time.Now(), rate} }

// wait waits for the clock to show at.
func (c clock) wait(ctx context.Context, t *testing.T, at time.Duration) {
	t.Helper()
	if err := client.Wait(ctx, time.Until(c.began.Add(time.Duration(float64(at)/c.rate)))); err != nil {
		t.Fatal(err)
	}
}

// beatUntil sends a heartbeat each minute until the clock shows end. It fails when this machine was
// too busy for that: then the test would be of another history than it says.
func (b *beater) beatUntil(ctx context.Context, t *testing.T, c clock, end time.Duration) {
	t.Helper()
	first := len(b.beats)
	now := time.Duration(float64(time.Since(c.began)) * c.rate)
	for at := now; at < end; at += time.Minute {
		c.wait(ctx, t, at)
		if err := b.beat(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for i := first + 1; i < len(b.beats); i++ {
		if gap := b.beats[i].Sub(b.beats[i-1]); gap >= degradedAfter {
			t.Fatalf("this machine is too busy for a clock of rate %v: two heartbeats came %v apart", c.rate, gap)
		}
	}
}

func checkNoOutage(ctx context.Context, t *testing.T, c *client.Client) {
	t.Helper()
	if all := outages(ctx, t, c); len(all) > 0 {
		t.Errorf("the server believes that it was deaf: %v", all)
	}
}

// play runs a simulated network beside the test until the test is over.
func play(ctx context.Context, t *testing.T, s *server, token string, c simulation.Config) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	c.BaseURL, c.HeartbeatURL, c.OperatorToken = s.url, s.heartbeatURL, token
	done := make(chan error, 1)
	go func() {
		r, err := simulation.Run(ctx, c)
		t.Log(r)
		done <- err
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the simulation failed: %v", err)
		}
	})
}

func fault(t *testing.T, text string) []simulation.Fault {
	t.Helper()
	return []simulation.Fault{must[simulation.Fault](t)(simulation.ParseFault(text))}
}

func TestNationalOutage(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	const rate, probes, seed = 60, 60, 1
	const place = country.Code("IR")
	within := len(slices.DeleteFunc(simulation.Population(seed, probes), func(p simulation.Probe) bool { return p.Country != place }))
	if within < 2 {
		t.Fatalf("only %d of the simulated probes are in %s", within, place)
	}
	s := serve(t, "CLOCK_RATE=60")
	operator := s.operator(t)
	changes := subscribeStateChanges(ctx, t, operator)
	play(ctx, t, s, s.token(t, "OPERATOR"), simulation.Config{
		Probes: probes, Seed: seed, Rate: rate, Faults: fault(t, "outage:country=IR,at=7m"),
	})

	silent := []probe.State{probe.StateOnline, probe.StateDegraded, probe.StateOffline}
	eventually(t, soon, "the country's probes are OFFLINE", func() bool {
		down := 0
		for _, states := range histories(changes.all(), func(c country.Code) bool { return c == place }) {
			if slices.Equal(states, silent) {
				down++
			}
		}
		return down == within
	})
	others := histories(changes.all(), func(c country.Code) bool { return c != place })
	if len(others) != probes-within {
		t.Errorf("%d probes elsewhere were seen, want %d", len(others), probes-within)
	}
	for id, states := range others {
		if !slices.Equal(states, []probe.State{probe.StateOnline}) {
			t.Errorf("%s is in another country and went through %v", id, states)
		}
	}
	checkNoOutage(ctx, t, operator)
}

// histories are the states that each probe of these countries went through since its registration.
func histories(changes []stateChange, where func(country.Code) bool) map[probe.ID][]probe.State {
	all := map[probe.ID][]probe.State{}
	for _, c := range changes {
		if c.From != "" && where(c.Probe.Country.Code) {
			all[c.Probe.ID] = append(all[c.Probe.ID], c.To)
		}
	}
	return all
}

func TestSilenceOfAll(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	const rate, probes = 60, 45
	s := serve(t, "CLOCK_RATE=60")
	operator := s.operator(t)
	changes := subscribeStateChanges(ctx, t, operator)
	guard := subscribeEvents(ctx, t, operator, "OBSERVER_OUTAGE_OPENED", "OBSERVER_OUTAGE_CLOSED")
	play(ctx, t, s, s.token(t, "OPERATOR"), simulation.Config{
		Probes: probes, Seed: 2, Rate: rate, Faults: fault(t, "silence:at=7m,for=20m"),
	})

	opened := guard.await(t, 1)[0]
	if now := outages(ctx, t, operator); len(now) != 1 || now[0].To != nil || opened.Kind != "OBSERVER_OUTAGE_OPENED" {
		t.Fatalf("when all fell silent the server told of %v, and has the outages %v", opened, now)
	}
	got := guard.await(t, 2)
	if got[1].Kind != "OBSERVER_OUTAGE_CLOSED" || got[1].OccurredAt.Sub(got[0].OccurredAt) < offlineAfter {
		t.Errorf("the outage was %v, want one of more than %v", got, offlineAfter)
	}
	heard := histories(changes.all(), func(country.Code) bool { return true })
	if len(heard) != probes {
		t.Errorf("%d probes were heard, want %d", len(heard), probes)
	}
	for id, states := range heard {
		if !slices.Equal(states, []probe.State{probe.StateOnline}) {
			t.Errorf("%s went through %v while nobody could be heard", id, states)
		}
	}
}
