package probe_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/probe"
)

func TestHeartbeatCheck(t *testing.T) {
	t.Parallel()
	now := minute(0)
	good := probe.Heartbeat{
		ProbeID: id, Country: "IR", ASN: 44244, SoftwareVersion: strings.Repeat("9", 64), UptimeSeconds: 100 * 365 * 86400,
		QueueDepth: 1 << 53, LastMeasurementAt: now.Add(time.Hour), ReceivedAt: now,
	}
	for name, change := range map[string]func(*probe.Heartbeat){
		"the largest values pass":                    func(*probe.Heartbeat) {},
		"the smallest values pass":                   func(h *probe.Heartbeat) { *h = probe.Heartbeat{Country: "IR", ReceivedAt: now} },
		"an unknown country and network pass":        func(h *probe.Heartbeat) { h.Country, h.ASN = "ZZ", 0 },
		"a version in another script passes":         func(h *probe.Heartbeat) { h.SoftwareVersion = "версия 2" },
		"a measurement in the first second passes":   func(h *probe.Heartbeat) { h.LastMeasurementAt = time.Unix(0, 0) },
		"probeCc: no country":                        func(h *probe.Heartbeat) { h.Country = "" },
		"probeCc: an unassigned country":             func(h *probe.Heartbeat) { h.Country = "QQ" },
		"probeCc: a country in lower case":           func(h *probe.Heartbeat) { h.Country = "ir" },
		"softwareVersion: 65 bytes":                  func(h *probe.Heartbeat) { h.SoftwareVersion += "9" },
		"softwareVersion: a control character":       func(h *probe.Heartbeat) { h.SoftwareVersion = "2.1\n" },
		"softwareVersion: NUL":                       func(h *probe.Heartbeat) { h.SoftwareVersion = "2\x00" },
		"softwareVersion: invalid UTF-8":             func(h *probe.Heartbeat) { h.SoftwareVersion = "2\xff" },
		"uptimeSeconds: negative":                    func(h *probe.Heartbeat) { h.UptimeSeconds = -1 },
		"uptimeSeconds: over a hundred years":        func(h *probe.Heartbeat) { h.UptimeSeconds++ },
		"queueDepth: negative":                       func(h *probe.Heartbeat) { h.QueueDepth = -1 },
		"queueDepth: over 2^53":                      func(h *probe.Heartbeat) { h.QueueDepth++ },
		"lastMeasurementAt: over an hour ahead":      func(h *probe.Heartbeat) { h.LastMeasurementAt = now.Add(time.Hour + 1) },
		"lastMeasurementAt: before computers had it": func(h *probe.Heartbeat) { h.LastMeasurementAt = time.Unix(-1, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := good
			change(&h)
			field, _, bad := strings.Cut(name, ":")
			err := h.Check()
			if !bad && err != nil {
				t.Errorf("got %v", err)
			}
			if bad && (!fault.Is(err, fault.Invalid) || fault.Of(err).Field != field) {
				t.Errorf("got %v, want INVALID %s", err, field)
			}
		})
	}
}

func TestHeartbeatIsRemembered(t *testing.T) {
	t.Parallel()
	p := registered()
	h := probe.Heartbeat{
		ProbeID: id, Country: "FR", ASN: 3215, SoftwareVersion: "2.2.0", UptimeSeconds: 7, QueueDepth: 3,
		LastMeasurementAt: minute(0), ReceivedAt: minute(1),
	}
	got, log := play(t, p, nil, h)
	want := p
	want.SoftwareVersion, want.UptimeSeconds, want.QueueDepth = "2.2.0", 7, 3
	want.LastMeasurementAt, want.LastHeartbeatAt = minute(0), minute(1)
	want.Liveness, want.LivenessSince, want.OnlineSince, want.Settled = probe.Online, minute(1), minute(1), probe.Up
	want.State, want.StateSince, want.LastChangeAt = probe.StateOnline, minute(1), minute(1)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("probe (-want +got):", diff)
	}
	wantLog := []probe.Change{
		{Kind: probe.LivenessChanged, At: minute(1), From: "NEVER_SEEN", To: "ONLINE", RuleID: "R3", RuleVersion: 1, Reason: "The first heartbeat arrived.", LastHeartbeatAt: minute(1)},
		{Kind: probe.DisplayChanged, At: minute(1), From: "OFFLINE", To: "ONLINE", RuleID: "R5", RuleVersion: 1, Reason: "The first heartbeat arrived."},
	}
	if diff := cmp.Diff(wantLog, log); diff != "" {
		t.Error("log (-want +got):", diff)
	}
	if got := rules.Deadline(got, nil); !got.Equal(minute(6)) {
		t.Errorf("deadline %v, want minute 6", got)
	}
	if rules.Due(got, nil, minute(6).Add(rules.SweepLag-1)) || !rules.Due(got, nil, minute(6).Add(rules.SweepLag)) {
		t.Error("a deadline is due exactly when the sweep lag is over")
	}
}
