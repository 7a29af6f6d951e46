//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/openvantage/vantage/events"
)

// serverFrame is a text frame as servers send it.
func serverFrame(text string) []byte {
	b := clientFrame(textFrame, []byte(text))
	b[1] &^= masked
	header := 2
	switch b[1] {
	case 126:
		header = 4
	case 127:
		header = 10
	}
	return slices.Delete(b, header, header+4) // the mask
}

func TestFrames(t *testing.T) {
	t.Parallel()
	t.Run("frames are the same wherever the network cuts them", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(t *rapid.T) {
			var all []byte
			var want, got []string
			for i, n := range rapid.SliceOfN(rapid.IntRange(0, 70_000), 1, 4).Draw(t, "sizes") {
				want = append(want, strings.Repeat(string(rune('a'+i)), n))
				all = append(all, serverFrame(want[i])...)
			}
			m := &member{welcome: welcome{hear: func(b []byte, _ time.Time) { got = append(got, string(b)) }}}
			for len(all) > 0 {
				n := rapid.IntRange(1, len(all)).Draw(t, "cut")
				m.parse(slices.Clone(all[:n]), time.Time{})
				all = all[n:]
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%d messages came, want %d", len(got), len(want))
			}
		})
	})

	for name, b := range map[string][]byte{
		"a masked frame":        clientFrame(textFrame, []byte("a")),
		"the half of a message": {textFrame, 1, 'a'},
		"a reserved bit":        {final | 0x40 | textFrame, 1, 'a'},
	} {
		t.Run(name+" is no frame of a server", func(t *testing.T) {
			t.Parallel()
			if _, _, err := parseFrame(b); err == nil {
				t.Error("it was taken")
			}
		})
	}
}

func TestAudience(t *testing.T) {
	t.Parallel()
	tell := func(a *audience, i, seq int) {
		a.hear(i, fmt.Appendf(nil, `{"id":"1","type":"next","payload":{"data":{"measurementScored":{"seq":%d,"occurredAt":"2026-11-21T14:03:22Z","measurement":{"uid":"m%[1]d"}}}}}`, seq), time.Time{})
	}
	for _, c := range []struct {
		name  string
		told  [][2]int // who, and of what
		right bool
	}{
		{"the same in the same order is right", [][2]int{{0, 1}, {1, 1}, {1, 4}, {0, 4}}, true},
		{"a loss is noticed", [][2]int{{0, 1}, {1, 1}, {0, 2}, {0, 3}, {1, 3}}, false},
		{"a loss is noticed by whoever hears of it after all", [][2]int{{0, 1}, {1, 1}, {0, 3}, {1, 2}}, false},
		{"a duplicate is noticed", [][2]int{{0, 1}, {1, 1}, {0, 1}}, false},
		{"disorder is noticed", [][2]int{{0, 1}, {0, 2}, {1, 2}, {1, 1}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := &audience{next: make([]int, 2)}
			for _, x := range c.told {
				tell(a, x[0], x[1])
			}
			if err := a.err(); (err == nil) != c.right {
				t.Errorf("the audience says %v", err)
			}
		})
	}
}

func TestFollower(t *testing.T) {
	t.Parallel()
	log := []logged{
		{1, events.MeasurementScored, "IT", ""},
		{2, "PROBE_REGISTERED", "IT", "a"},
		{3, events.MeasurementScored, "IR", ""},
		{5, "PROBE_DISPLAY_CHANGED", "IT", "a"},
		{6, "PROBE_DISPLAY_CHANGED", "IT", "b"},
		{7, events.MeasurementScored, "IT", ""},
		{8, "PROBE_DISPLAY_CHANGED", "IT", "a"},
	}
	for _, c := range []struct {
		name   string
		topic  string
		spared bool
		shown  int64
		heard  []int64
		right  bool
	}{
		{"all from the first on is right", "events", false, 0, []int64{3, 5, 6, 7, 8}, true},
		{"what is filtered out is not missed", "measurementScored of IT", false, 0, []int64{1, 7}, true},
		{"a loss is noticed", "events", false, 0, []int64{3, 5, 7, 8}, false},
		{"a loss at the end is noticed", "events", false, 0, []int64{3, 5, 6, 7}, false},
		{"somebody else's event is noticed", "measurementScored of IT", false, 0, []int64{1, 3, 7}, false},
		{"after a snapshot all changes are right", "probeStateChanged", false, 2, []int64{5, 6, 8}, true},
		{"after a snapshot the first change must not be lost", "probeStateChanged", false, 2, []int64{6, 8}, false},
		{"a slow reader may miss what a later change replaced", "probeStateChanged", true, 2, []int64{6, 8}, true},
		{"a slow reader must hear of each probe's last change", "probeStateChanged", true, 2, []int64{5, 8}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			i := slices.IndexFunc(topics, func(x topic) bool { return x.name == c.topic })
			f := &follower{soak: &soak{}, name: "somebody", topic: &topics[i], seqs: c.heard, shown: c.shown, spared: c.spared}
			f.verify(log)
			if (f.soak.wrong == 0) != c.right {
				t.Errorf("it complains %d times: %v", f.soak.wrong, f.soak.first)
			}
		})
	}
}
