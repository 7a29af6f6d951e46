package main

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/alert"
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/coverage"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/db/dbtest"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/network"
	"github.com/openvantage/vantage/probe"
	"github.com/openvantage/vantage/replay"
	"github.com/openvantage/vantage/service"
)

// A history is made by the flows, on a clock that goes only when it is told to.
type history struct {
	t  *testing.T
	db *db.DB
	s  *service.Service

	mu  sync.Mutex
	now time.Time
}

func newHistory(t *testing.T) *history {
	t.Helper()
	h := &history{t: t, now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
	var err error
	h.db, err = db.Open(t.Context(), dbtest.New(t), db.Options{Clock: h.clock})
	h.check(err)
	t.Cleanup(h.db.Close)
	h.wait(0)
	settings := service.DefaultRules()
	settings.SweepEvery = time.Hour
	h.s, err = service.New(context.Background(), h.db, settings, unread{}, slog.New(slog.DiscardHandler))
	h.check(err)
	h.check(h.s.React(context.Background()))
	return h
}

func (h *history) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *history) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *history) wait(d time.Duration) {
	h.t.Helper()
	h.mu.Lock()
	h.now = h.now.Add(d)
	now := h.now
	h.mu.Unlock()
	_, err := h.db.MakePartitions(context.Background(), now)
	h.check(err)
}

// register makes a probe that is ACTIVE, or that waits.
func (h *history) register(cc country.Code, asn network.ASN, waits bool) probe.ID {
	h.t.Helper()
	operator := access.Principal{Role: access.Operator, TokenID: 1, Name: "Olga"}
	made, err := h.s.Register(context.Background(), access.Anyone, "", service.Registration{Country: cc, ASN: asn, Type: probe.Desktop})
	h.check(err)
	if waits {
		_, err = h.s.Standby(context.Background(), operator, "", made.Probe.ID)
	} else {
		_, err = h.s.Activate(context.Background(), operator, "", made.Probe.ID)
	}
	h.check(err)
	return made.Probe.ID
}

// pass has these probes be heard each minute and measure well, and the flows do their work.
func (h *history) pass(d time.Duration, heard ...probe.ID) {
	h.t.Helper()
	ctx := context.Background()
	for ; d > 0; d -= time.Minute {
		h.wait(time.Minute)
		h.check(h.db.Write(ctx, func(tx *db.Tx) error { return tx.SaveWatermark(ctx) }))
		var rows []db.Conduct
		for _, id := range heard {
			_, err := h.s.Heartbeat(ctx, access.Principal{Role: access.Probe, ProbeID: id}, "", probe.Heartbeat{
				ProbeID: id, Country: "IR", ASN: 1, SoftwareVersion: "2.1.0", UptimeSeconds: h.clock().Unix() % 1e6,
			})
			h.check(err)
			rows = append(rows, db.Conduct{ProbeID: id, ReceivedAt: h.clock(), MeasuredAt: h.clock(), Conduct: measurement.Conduct{Names: []uint64{1}, Addresses: []uint64{1}}})
		}
		h.check(h.db.Write(ctx, func(tx *db.Tx) error {
			tx.InsertConduct(rows)
			return nil
		}))
		_, err := h.s.Sweep(ctx)
		h.check(err)
		_, err = h.s.ScoreQuality(ctx)
		h.check(err)
		h.check(h.s.React(ctx))
	}
}

// Four networks of a country that needs four; two fall silent within minutes, and one probe waits.
func TestReplayOfWhatTheFlowsDid(t *testing.T) {
	t.Parallel()
	h := newHistory(t)
	var active []probe.ID
	for asn := range network.ASN(4) {
		active = append(active, h.register("IR", 10+asn, false))
	}
	spare := h.register("IR", 20, true)
	all := slices.Concat(active[:4], []probe.ID{spare})
	h.pass(35*time.Minute, all...)
	since := h.clock().Add(30 * time.Second)
	h.pass(10*time.Minute, all...)
	h.pass(4*time.Minute, active[0], active[1], active[2], spare)
	h.pass(200*time.Minute, active[0], active[1], spare)
	until := h.clock().Add(-30 * time.Second)

	past, recorded, err := readPast(t.Context(), h.db, since, until, io.Discard)
	h.check(err)
	run := func(settings ...string) replay.Outcome {
		t.Helper()
		r := replay.Default()
		for _, s := range settings {
			h.check(r.Set(s))
		}
		return replay.Run(past, r)
	}
	was := run()
	kinds := map[coverage.Kind]int{}
	for _, r := range recorded.Replacements {
		kinds[r.Kind]++
	}
	if len(recorded.Pages) != 1 || recorded.Pages[0].Kind != alert.CoordinatedOffline ||
		kinds[coverage.ReplacementActivating] != 1 || kinds[coverage.ReplacementSucceeded] != 1 || kinds[coverage.ReplacementExhausted] != 1 {
		t.Fatalf("the history is another one: %+v", recorded)
	}

	t.Run("with the same numbers it is what was recorded", func(t *testing.T) {
		t.Parallel()
		if off := offTheRecord(replay.Compare(recorded, was)); off != (offRecord{}) {
			t.Errorf("it differs: %+v\nrecorded %+v\nreplayed %+v", off, recorded, was)
		}
		d := replay.Compare(was, run())
		if len(d.States)+len(d.Pages)+len(d.Replacements) != 0 {
			t.Errorf("two runs differ by %+v", d)
		}
	})

	t.Run("a later OFFLINE is later for states, the page and the replacement", func(t *testing.T) {
		t.Parallel()
		d := replay.Compare(was, run("offlineAfter=20m"))
		if len(d.States) != 2 {
			t.Errorf("states: %+v", d.States)
		}
		for i, s := range d.States {
			if s.Probe != active[3-i] || s.Was != probe.StateOffline || s.Would != probe.StateDegraded || s.To.Sub(s.From) != 5*time.Minute {
				t.Errorf("states: %+v", s)
			}
		}
		if len(d.Pages) != 1 || d.Pages[0].Was == nil || d.Pages[0].Would == nil || d.Pages[0].Would.At.Sub(d.Pages[0].Was.At) != 5*time.Minute {
			t.Errorf("pages: %+v", d.Pages)
		}
		if len(d.Replacements) == 0 || d.Replacements[0].Would == nil || !d.Replacements[0].Would.At.After(d.Replacements[0].Was.At) {
			t.Errorf("replacements: %+v", d.Replacements)
		}
		var b strings.Builder
		replayReport{Since: since, Until: until, Difference: d}.print(&b)
		for _, want := range []string{"States that would differ: 2, for 10m0s", "Pages that would differ: 1.", "5m0s later", "IR COORDINATED_OFFLINE"} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("the report does not say %q: %s", want, b.String())
			}
		}
	})

	t.Run("with a short window nobody is told of a common silence", func(t *testing.T) {
		t.Parallel()
		d := replay.Compare(was, run("coordinatedWindow=1m"))
		if len(d.States) != 0 || len(d.Pages) == 0 || d.Pages[0].Was == nil || d.Pages[0].Would != nil {
			t.Errorf("%+v", d)
		}
	})

	t.Run("who need not be replaced is not", func(t *testing.T) {
		t.Parallel()
		d := replay.Compare(was, run("replaceAfter=30d"))
		if len(d.Replacements) != len(was.Replacements) || d.Replacements[0].Would != nil {
			t.Errorf("%+v", d.Replacements)
		}
	})
}
