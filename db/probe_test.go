package db_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/network"
	"github.com/openvantage/vantage/probe"
)

// silences are how long a probe is not heard: about the limits of the rules.
var silences = rapid.SampledFrom([]time.Duration{
	time.Minute, 5*time.Minute - 1, 5 * time.Minute, 15 * time.Minute, 16 * time.Minute, time.Hour, 3 * time.Hour,
})

func TestDisplaysAsOf(t *testing.T) {
	t.Parallel()
	d, _ := open(t)
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		var of []probe.ID
		history := map[probe.ID][]probe.Change{}
		blank := map[probe.ID]probe.Probe{}
		var moments []time.Time
		write(t, d, func(_ context.Context, tx *db.Tx) error {
			for range rapid.IntRange(1, 3).Draw(t, "probes") {
				n++
				at := now.Add(time.Duration(n%3) * time.Hour)
				p, log := probe.Register(probe.Registration{ID: probe.ID("prb_" + time.Duration(n).String()), Country: "DE", ASN: 1, At: at})
				for range rapid.IntRange(0, 12).Draw(t, "inputs") {
					at = at.Add(silences.Draw(t, "silence"))
					var in probe.Input = beat(p, at)
					if rapid.IntRange(0, 9).Draw(t, "retire") == 0 && p.Lifecycle != probe.Inactive {
						in = command(probe.Inactive, at)
					}
					next, changes, err := probe.Default().Advance(p, in, nil)
					if err != nil {
						return err
					}
					p, log = next, append(log, changes...)
				}
				announce(tx, p, log)
				of, history[p.ID], blank[p.ID] = append(of, p.ID), log, probe.Probe{ID: p.ID}
				for _, c := range log {
					moments = append(moments, c.At.Add(-time.Microsecond), c.At, c.At.Add(time.Microsecond))
				}
			}
			return nil
		})
		for range 5 {
			at := rapid.SampledFrom(moments).Draw(t, "as of")
			want := map[probe.ID]db.Display{}
			for id, p := range blank {
				for _, c := range history[id] {
					if !c.At.After(at) {
						p = p.Apply(c)
						want[id] = db.Display{State: p.State, Since: p.StateSince}
					}
				}
			}
			got, err := d.DisplaysAsOf(context.Background(), of, at)
			if diff := differs(want, got); diff != "" || err != nil {
				t.Fatalf("as of %v: %v %s", at, err, diff)
			}
		}
	})
}

func TestProbeRow(t *testing.T) {
	t.Parallel()
	d, _ := open(t)
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		p := register(t, d, n, func(r *probe.Registration) {
			r.ASN = network.ASN(rapid.Uint32Min(1).Draw(t, "asn"))
			r.Contact = "a contact"
		})
		at := now
		for range rapid.IntRange(0, 9).Draw(t, "heartbeats") {
			at = at.Add(silences.Draw(t, "silence"))
			h := beat(p, at)
			h.UptimeSeconds, h.QueueDepth = rapid.Int64Range(0, 1<<40).Draw(t, "uptime"), rapid.Int64Range(0, 1<<53).Draw(t, "queue")
			h.LastMeasurementAt = rapid.SampledFrom([]time.Time{{}, now}).Draw(t, "measured")
			p = advance(t, d, p, h)
		}
		got, err := d.Probe(context.Background(), p.ID)
		if diff := differs(p, got.Probe); diff != "" || err != nil {
			t.Fatalf("%v %s", err, diff)
		}
	})
}

func TestCountsOfProbes(t *testing.T) {
	t.Parallel()
	d, _ := open(t)
	// Two that count in one network, and all that must not count beside them.
	n := 0
	add := func(cc country.Code, asn network.ASN, inputs ...probe.Input) probe.Probe {
		n++
		p := register(t, d, n, func(r *probe.Registration) { r.Country, r.ASN = cc, asn })
		for _, in := range inputs {
			if h, ok := in.(probe.Heartbeat); ok {
				h.ProbeID, in = p.ID, h
			}
			p = advance(t, d, p, in)
		}
		return p
	}
	up, active := probe.Heartbeat{ReceivedAt: now}, []probe.Input{command(probe.Warmup, now), command(probe.Active, now)}
	first := add("DE", 3320, append(active, up)...)
	add("DE", 3320, append(active, up)...)
	never := add("DE", 3320, active...)
	waiting := add("DE", 3320, up)
	add("DE", 3320, append(active, up, command(probe.Inactive, now))...)
	add("DE", 3320, append(active, up, command(probe.Standby, now))...)
	alone := add("DE", 6805, append(active, up)...)
	abroad := add("AT", 3320, append(active, up)...)

	for name, c := range map[string]struct {
		of   probe.Probe
		want int
	}{
		"those that are ACTIVE and seen share a network":   {first, 2},
		"one that was never seen is told of them":          {never, 2},
		"one that is not ACTIVE is told of them":           {waiting, 2},
		"another network of the country is another matter": {alone, 1},
		"the same network in another country too":          {abroad, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := d.Probe(context.Background(), c.of.ID)
			if err != nil || got.Peers != c.want {
				t.Errorf("%d peers, not %d: %v", got.Peers, c.want, err)
			}
		})
	}

	t.Run("figures count what is shown ONLINE, and all but the retired", func(t *testing.T) {
		t.Parallel()
		own, _ := open(t)
		var last probe.Probe
		for i, cc := range []country.Code{"DE", "DE", "AT", "IR"} {
			last = register(t, own, i, func(r *probe.Registration) { r.Country = cc })
			if i < 3 {
				advance(t, own, last, beat(last, now))
			}
		}
		advance(t, own, register(t, own, 9, nil), command(probe.Inactive, now))
		write(t, own, func(ctx context.Context, tx *db.Tx) error {
			for i, at := range []time.Time{now, now.Add(-time.Microsecond), now.Add(time.Hour)} {
				m := db.Measurement{UID: measurement.NewID(at, "DE", "signal", []byte{byte(i)}), ReceivedAt: at, Country: "DE", Scores: []byte("{}")}
				if err := tx.InsertMeasurements(ctx, m); err != nil {
					return err
				}
			}
			return nil
		})
		got, err := own.Figures(context.Background(), now)
		want := db.Figures{Probes: 4, Online: 3, OnlineCountries: 2, MeasurementsSince: 2}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
	})
}
