package probe_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/openvantage/vantage/probe"
)

// story writes a log as "minute what", to the minute's fraction where there is one.
func story(log []probe.Change, kinds ...probe.Kind) string {
	var b strings.Builder
	for _, c := range log {
		for _, k := range kinds {
			if c.Kind == k {
				fmt.Fprintf(&b, "%v %s\n", c.At.Sub(start).Minutes(), label(c))
			}
		}
	}
	return b.String()
}

func label(c probe.Change) string {
	if c.To != "" {
		return c.To
	}
	return string(c.Kind)
}

// transitions lists the changes between up and down: "24↓ 30↑".
func transitions(log []probe.Change) string {
	var all []string
	for _, c := range log {
		if len(c.TransitionTimes) == 0 || c.Kind != probe.LivenessChanged {
			continue
		}
		arrow := "↓"
		if c.To == string(probe.Online) {
			arrow = "↑"
		}
		all = append(all, fmt.Sprint(c.At.Sub(start).Minutes(), arrow))
	}
	return strings.ReplaceAll(strings.Join(all, ";"), " ", "")
}

// everyMinute are heartbeats each minute in [from, to).
func everyMinute(from, to int) (times []time.Time) {
	for m := from; m < to; m++ {
		times = append(times, minute(float64(m)))
	}
	return times
}

// Source: section 4 of the rule book, the golden vector; defects D1 and D3, which found flapping
// at 90 and ended it at 151.
func TestGoldenVector(t *testing.T) {
	t.Parallel()
	var times []time.Time
	for _, m := range []int{0, 30, 60, 90} {
		times = append(times, everyMinute(m, m+10)...)
	}
	times = append(times, everyMinute(150, 300)...)
	p, log := play(t, registered(), nil, beats(times)...)

	if got, want := transitions(log), "24↓;30↑;54↓;60↑;84↓;90↑;114↓;150↑"; got != want {
		t.Errorf("transitions %s, want %s", got, want)
	}
	want := "54 FLAPPING_STARTED\n270 FLAPPING_ENDED\n"
	if diff := cmp.Diff(want, story(log, probe.FlappingStarted, probe.FlappingEnded)); diff != "" {
		t.Error("flapping (-want +got):", diff)
	}
	want = "0 ONLINE\n14 DEGRADED\n24 OFFLINE\n30 ONLINE\n44 DEGRADED\n54 FLAPPING\n270 ONLINE\n"
	if diff := cmp.Diff(want, story(log, probe.DisplayChanged)); diff != "" {
		t.Error("shown (-want +got):", diff)
	}
	if p.Flapping() || p.State != probe.StateOnline {
		t.Errorf("at the end flapping %v, shown %s", p.Flapping(), p.State)
	}
}

func TestReasons(t *testing.T) {
	t.Parallel()
	times := append(everyMinute(0, 10), everyMinute(30, 40)...)
	_, log := play(t, registered(), nil, append(beats(times), tick(minute(400)))...)
	var got []string
	for _, c := range log {
		if c.Kind == probe.DisplayChanged {
			got = append(got, c.To+": "+c.Reason)
		}
	}
	want := []string{
		"ONLINE: The first heartbeat arrived.",
		"DEGRADED: No heartbeat for five minutes.",
		"OFFLINE: No heartbeat for 15 minutes.",
		"ONLINE: A heartbeat arrived after a silence.",
		"DEGRADED: No heartbeat for five minutes.",
		"FLAPPING: Changed between up and down three times within two hours.",
		"OFFLINE: Offline for two hours while flapping.",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("(-want +got):", diff)
	}
	if dead := log[len(log)-1]; !dead.At.Equal(minute(54 + 120)) {
		t.Errorf("a dead flapping probe is shown OFFLINE at %v, want minute 174", dead.At)
	}
}

// The document's tracker loses what happens after its third transition and stops too soon. Its
// own trace has changes a minute apart, which no heartbeats make: OFFLINE takes 15 minutes.
//
// Source: defect D2.
func TestTransitionsAreRecordedWhileFlapping(t *testing.T) {
	t.Parallel()
	times := []time.Time{minute(0)} // down at 15
	times = append(times, everyMinute(56, 97)...)
	for _, m := range []float64{112, 128, 144} {
		times = append(times, minute(m))
	}
	p, log := play(t, registered(), nil, append(beats(times), tick(minute(159)))...)
	if got, want := transitions(log), "15↓;56↑;111↓;112↑;127↓;128↑;143↓;144↑;159↓"; got != want {
		t.Errorf("transitions %s, want %s", got, want)
	}
	if got, want := story(log, probe.FlappingStarted, probe.FlappingEnded), "111 FLAPPING_STARTED\n"; got != want {
		t.Errorf("flapping %q, want %q", got, want)
	}
	if len(p.Transitions) != 8 {
		t.Errorf("%d transitions count at minute 159, want 8: the one at 15 is too old", len(p.Transitions))
	}
}

// Source: defect D7.
func TestLimitsAreHalfOpen(t *testing.T) {
	t.Parallel()
	for after, want := range map[time.Duration]probe.Liveness{
		0:                                   probe.Online,
		300*time.Second - time.Microsecond:  probe.Online,
		300 * time.Second:                   probe.Degraded,
		900*time.Second - time.Microsecond:  probe.Degraded,
		900 * time.Second:                   probe.Offline,
		9000*time.Second + time.Microsecond: probe.Offline,
	} {
		p, _ := play(t, registered(), nil, beat(start), tick(start.Add(after)))
		if p.Liveness != want || p.State != probe.State(want) {
			t.Errorf("after %v: %s, shown %s, want %s", after, p.Liveness, p.State, want)
		}
	}
}

func TestTies(t *testing.T) {
	t.Parallel()
	all := []probe.Kind{probe.LivenessChanged, probe.FlappingStarted, probe.FlappingEnded}
	t.Run("a heartbeat at exactly five minutes comes after the loss", func(t *testing.T) {
		t.Parallel()
		_, log := play(t, registered(), nil, beat(minute(0)), beat(minute(5)))
		if got, want := story(log, all...), "0 ONLINE\n5 DEGRADED\n5 ONLINE\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	flapping := []probe.Input{beat(minute(0)), beat(minute(20)), tick(minute(35))} // down 15, up 20, down 35
	t.Run("a loss at the instant that would end flapping keeps it", func(t *testing.T) {
		t.Parallel()
		inputs := slices.Concat(flapping, beats(everyMinute(40, 156))) // last heard at 155
		p, log := play(t, registered(), nil, append(inputs, tick(minute(160)))...)
		if !p.Flapping() || !strings.HasSuffix(story(log, all...), "40 ONLINE\n160 DEGRADED\n") {
			t.Errorf("got %q", story(log, all...))
		}
	})
	t.Run("a heartbeat at the instant of giving up keeps FLAPPING shown", func(t *testing.T) {
		t.Parallel()
		_, log := play(t, registered(), nil, append(flapping[:3:3], beat(minute(35+120)))...)
		if got, want := story(log, probe.DisplayChanged), "0 ONLINE\n5 DEGRADED\n15 OFFLINE\n20 ONLINE\n25 DEGRADED\n35 FLAPPING\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		_, log = play(t, registered(), nil, append(flapping[:3:3], tick(minute(35+120)), beat(minute(35+121)))...)
		if got, want := story(log[len(log)-2:], probe.LivenessChanged, probe.DisplayChanged), "156 ONLINE\n156 FLAPPING\n"; got != want {
			t.Errorf("on its return: got %q, want %q", got, want)
		}
	})
}

func TestLateHeartbeats(t *testing.T) {
	t.Parallel()
	t.Run("an older heartbeat changes nothing", func(t *testing.T) {
		t.Parallel()
		p, _ := play(t, registered(), nil, beat(minute(3)))
		old := beat(minute(2))
		old.QueueDepth = 99
		after, log := play(t, p, nil, old)
		if diff := cmp.Diff(p, after); diff != "" || len(log) > 0 {
			t.Errorf("changes %v, probe (-before +after): %s", log, diff)
		}
	})
	t.Run("one that a committed change has overtaken counts from that change", func(t *testing.T) {
		t.Parallel()
		p, _ := play(t, registered(), nil, beat(minute(0)), tick(minute(5)))
		p, log := play(t, p, nil, beat(minute(4)))
		if got, want := story(log, probe.LivenessChanged), "5 ONLINE\n"; got != want || !p.LastHeartbeatAt.Equal(minute(5)) {
			t.Errorf("got %q and last heartbeat %v, want %q", got, p.LastHeartbeatAt, want)
		}
	})
	t.Run("one from before the retirement is no sign of life after it", func(t *testing.T) {
		t.Parallel()
		p, _ := play(t, registered(), nil, beat(minute(0)), move(probe.Inactive, minute(2)))
		if _, log := play(t, p, nil, beat(minute(1))); len(log) > 0 {
			t.Errorf("got %v", log)
		}
	})
}
