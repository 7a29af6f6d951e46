package model_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/alert"
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/coverage"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/graph/model"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/network"
	"github.com/openvantage/vantage/probe"
)

func instants() *rapid.Generator[time.Time] {
	return rapid.Map(rapid.Int64Range(0, 4_000_000_000_000_000), func(us int64) time.Time { return time.UnixMicro(us).UTC() })
}

func TestNodeID(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		seq := rapid.Int64Min(1).Draw(t, "seq")
		asn := network.ASN(rapid.Uint32Min(1).Draw(t, "asn"))
		cc := country.Code(rapid.StringMatching("[A-Z]{2}").Draw(t, "country"))
		uid := measurement.NewID(instants().Draw(t, "at"), cc, rapid.String().Draw(t, "test"), nil)
		id := probe.ID(rapid.StringMatching("prb_[0-9a-f]{16}").Draw(t, "probe"))
		mode := rapid.SampledFrom(probe.FailureModes).Draw(t, "mode")
		v := model.Viewer{}
		for spelled, want := range map[string]model.NodeID{
			model.NewProbe(v, db.Probe{Probe: probe.Probe{ID: id}}).ID:             {Probe: id},
			model.NewMeasurement(v, db.Measurement{UID: uid}).ID:                   {Measurement: uid},
			model.NewCountry(cc).ID:                                                {Country: cc},
			model.NewNetwork(asn).ID:                                               {Network: asn},
			model.NewEvent(v, events.Event{Seq: seq}, db.Probe{}).ID:               {Event: seq},
			model.NewToken(db.Token{ID: seq}).ID:                                   {Token: seq},
			model.NewReplacement(v, coverage.Replacement{ID: seq}, nil, 0, nil).ID: {Replacement: seq},
			model.NewAuditEntry(db.AuditEntry{ID: seq}).ID:                         {Audit: seq},
			model.NewTask(db.Task{ID: seq}).ID:                                     {Task: seq},
			model.NewProbe(v, db.Probe{Probe: probe.Probe{ID: id}}).ID:             {Probe: id},
			model.NewMeasurement(v, db.Measurement{UID: uid}).ID:                   {Measurement: uid},
			model.NewCountry(cc).ID:                                                {Country: cc},
			model.NewNetwork(asn).ID:                                               {Network: asn},
			model.NewEvent(v, events.Event{Seq: seq}, db.Probe{}).ID:               {Event: seq},
			model.NewToken(db.Token{ID: seq}).ID:                                   {Token: seq},
			model.NewRelease(db.Release{ID: seq}).ID:                               {Release: seq},
			model.NewWorkflow(model.Viewer{Principal: access.Principal{Role: access.Operator}}, db.Workflow{Workflow: probe.Workflow{ProbeID: id, Mode: mode}}).ID: {
				Workflow: model.WorkflowID{Probe: id, Mode: mode},
			},
			model.NewProbe(v, db.Probe{Probe: probe.Probe{ID: id}}).ID:                    {Probe: id},
			model.NewMeasurement(v, db.Measurement{UID: uid}).ID:                          {Measurement: uid},
			model.NewCountry(cc).ID:                                                       {Country: cc},
			model.NewNetwork(asn).ID:                                                      {Network: asn},
			model.NewEvent(v, events.Event{Seq: seq}, db.Probe{}).ID:                      {Event: seq},
			model.NewToken(db.Token{ID: seq}).ID:                                          {Token: seq},
			model.NewAlert(db.Alert{ID: seq}, nil).ID:                                     {Alert: seq},
			model.NewFaultyMeasurement(model.Viewer{}, db.Faulty{ID: seq}).ID:             {Faulty: seq},
			model.NewDigest(db.Digest{ID: seq}).ID:                                        {Digest: seq},
			model.NewWebhook(db.WebhookTarget{ID: seq}).ID:                                {Webhook: seq},
			model.NewSilence(db.Silence{Silence: alert.Silence{ID: seq}}, time.Time{}).ID: {Silence: seq},
		} {
			got, ok := model.ParseNodeID(spelled)
			if diff := cmp.Diff(want, got); !ok || diff != "" {
				t.Fatalf("%s: %v %s", spelled, ok, diff)
			}
		}
	})
}

func FuzzParseNodeID(f *testing.F) {
	for _, s := range []string{
		"", "prb_0123456789abcdef", "msm_20261121220950.017443_IT_telegram_70905209b68fc485", "cty_IT", "net_30722", "evt_1", "tok_9",
		"net_01", "net_4294967296", "evt_+1", "evt_-1", "cty_it", "cty_", "prb_", "tok_9223372036854775808",
		"rel_7", "rel_07", "wfl_0123456789abcdef_CHURN", "wfl_0123456789abcdef", "wfl_0123456789abcdef_BOREDOM", "wfl__",
		"net_01", "net_4294967296", "evt_+1", "evt_-1", "cty_it", "cty_", "prb_", "tok_9223372036854775808", "alr_1", "sil_01",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, ok := model.ParseNodeID(s)
		set := 0
		var spelled string
		for _, c := range []struct {
			here bool
			id   string
		}{
			{n.Probe != "", string(n.Probe)},
			{n.Measurement != "", "msm_" + string(n.Measurement)},
			{n.Country != "", "cty_" + string(n.Country)},
			{n.Network != 0, fmt.Sprintf("net_%d", n.Network)},
			{n.Event != 0, fmt.Sprintf("evt_%d", n.Event)},
			{n.Token != 0, fmt.Sprintf("tok_%d", n.Token)},
			{n.Replacement != 0, fmt.Sprintf("rpl_%d", n.Replacement)},
			{n.Audit != 0, fmt.Sprintf("aud_%d", n.Audit)},
			{n.Task != 0, fmt.Sprintf("tsk_%d", n.Task)},
			{n.Release != 0, fmt.Sprintf("rel_%d", n.Release)},
			{n.Workflow.Probe != "", "wfl_" + strings.TrimPrefix(string(n.Workflow.Probe), "prb_") + "_" + string(n.Workflow.Mode)},
			{n.Alert != 0, fmt.Sprintf("alr_%d", n.Alert)},
			{n.Silence != 0, fmt.Sprintf("sil_%d", n.Silence)},
			{n.Faulty != 0, fmt.Sprintf("flt_%d", n.Faulty)},
			{n.Digest != 0, fmt.Sprintf("dig_%d", n.Digest)},
			{n.Webhook != 0, fmt.Sprintf("whk_%d", n.Webhook)},
		} {
			if c.here {
				set++
				spelled = c.id
			}
		}
		if ok && (set != 1 || spelled != s) {
			t.Errorf("%q is read as %+v", s, n)
		}
	})
}

func TestCursor(t *testing.T) {
	t.Parallel()
	keys := rapid.SliceOfN(rapid.StringMatching(`[^\x1f\x00]*`), 1, 3)
	kinds := []string{model.CursorLog, model.CursorProbe, model.CursorMeasurement}
	rapid.Check(t, func(t *rapid.T) {
		in, kind := keys.Draw(t, "keys"), rapid.SampledFrom(kinds).Draw(t, "kind")
		c := model.NewCursor(kind, in...)
		got, err := model.ParseCursor(kind, c, len(in))
		if diff := cmp.Diff(in, got); err != nil || diff != "" {
			t.Fatalf("%v %s", err, diff)
		}
		for _, k := range kinds {
			for n := range 5 {
				if _, err := model.ParseCursor(k, c, n); (err == nil) != (k == kind && n == len(in)) || err != nil && !fault.Is(err, fault.Invalid) {
					t.Fatalf("a cursor of %s with %d keys as one of %s with %d: %v", kind, len(in), k, n, err)
				}
			}
		}
	})

	t.Run("a place in the log is found again", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(t *rapid.T) {
			p := events.Position{Seq: rapid.Int64Min(0).Draw(t, "seq")}
			if rapid.Bool().Draw(t, "dated") {
				p.RecordedAt = instants().Filter(func(t time.Time) bool { return t.UnixMicro() > 0 }).Draw(t, "at")
			}
			got, err := model.ParseLogCursor(model.LogCursor(p))
			if err != nil || got != p {
				t.Fatalf("%+v becomes %+v, %v", p, got, err)
			}
		})
	})

	t.Run("an instant is a key, and nothing else is", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(t *rapid.T) {
			if err := model.CheckKeyTime(model.KeyTime(instants().Draw(t, "at"))); err != nil {
				t.Fatal(err)
			}
		})
		for _, s := range []string{"", "now", "2026-01-01", "0000-01-01T00:00:00Z", "2026-01-01T00:00:00,5Z", "2026-01-01T00:00:00+00:00", "2026-01-01T00:00:00.50Z", "infinity"} {
			if err := model.CheckKeyTime(s); !fault.Is(err, fault.Invalid) {
				t.Errorf("%q: %v", s, err)
			}
		}
	})
}

func FuzzParseCursor(f *testing.F) {
	for _, s := range []string{"", "MQ", model.NewCursor(model.CursorLog, "1", "2"), model.NewCursor(model.CursorProbe, "2026-01-01T00:00:00Z", "prb_0123456789abcdef"), "!", "MR9sb2cfMh8x\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if keys, err := model.ParseCursor(model.CursorProbe, s, 2); err == nil {
			if again := model.NewCursor(model.CursorProbe, keys...); again != s {
				t.Errorf("%q and %q are one place", s, again)
			}
		} else if !fault.Is(err, fault.Invalid) {
			t.Errorf("%q fails with %v", s, err)
		}
		if p, err := model.ParseLogCursor(s); err == nil && (p.Seq < 0 || !p.RecordedAt.IsZero() && p.RecordedAt.Year() < 1970) {
			b, _ := base64.RawURLEncoding.DecodeString(s) // it has just been decoded
			t.Errorf("%q is read as %+v", b, p)
		}
	})
}

func written(m graphql.Marshaler) string {
	var b strings.Builder
	m.MarshalGQL(&b)
	return b.String()
}

// read gives a scalar's answer back as an input, as JSON variables bring it.
func read(t *rapid.T, s string) any {
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s is no JSON: %v", s, err)
	}
	return v
}

func TestScalars(t *testing.T) {
	t.Parallel()

	t.Run("what is written can be sent back", func(t *testing.T) {
		t.Parallel()
		codes := slices.Collect(func(yield func(country.Code) bool) {
			for c := range country.All() {
				if !yield(c.Code) {
					return
				}
			}
		})
		rapid.Check(t, func(t *rapid.T) {
			at := instants().Draw(t, "at")
			if got, err := model.UnmarshalDateTime(read(t, written(model.MarshalDateTime(at)))); err != nil || !got.Equal(at) {
				t.Fatalf("%v becomes %v, %v", at, got, err)
			}
			n := rapid.Int64().Draw(t, "n")
			if got, err := model.UnmarshalBigInt(read(t, written(model.MarshalBigInt(n)))); err != nil || got != n {
				t.Fatalf("%d becomes %d, %v", n, got, err)
			}
			length := time.Duration(rapid.Int64Range(0, 36500*24*3600*1e6).Draw(t, "microseconds")) * time.Microsecond
			if got, err := model.UnmarshalDuration(read(t, written(model.MarshalDuration(length)))); err != nil || got != length {
				t.Fatalf("%v becomes %v, %v", length, got, err)
			}
			asn := network.ASN(rapid.Uint32().Draw(t, "asn"))
			for _, v := range []any{read(t, written(model.MarshalASN(asn))), json.Number(fmt.Sprint(uint32(asn))), int64(asn), int(asn)} {
				if got, err := model.UnmarshalASN(v); err != nil || got != asn {
					t.Fatalf("%v becomes %v, %v", v, got, err)
				}
			}
			cc := rapid.SampledFrom(append(codes, country.Unknown)).Draw(t, "country")
			if got, err := model.UnmarshalCountryCode(read(t, written(model.MarshalCountryCode(cc)))); err != nil || got != cc {
				t.Fatalf("%v becomes %v, %v", cc, got, err)
			}
		})
	})

	t.Run("a number beyond 2^53 is written as text", func(t *testing.T) {
		t.Parallel()
		for n, want := range map[int64]string{
			1 << 53: "9007199254740992", 1<<53 + 1: `"9007199254740993"`, -1 << 53: "-9007199254740992", -1<<53 - 1: `"-9007199254740993"`, 0: "0",
		} {
			if got := written(model.MarshalBigInt(n)); got != want {
				t.Errorf("%d is written %s", n, got)
			}
		}
	})

	t.Run("a duration is written in its shortest form", func(t *testing.T) {
		t.Parallel()
		for d, want := range map[time.Duration]string{
			0: "PT0S", 10 * time.Minute: "PT10M", 90 * time.Minute: "PT1H30M", 24 * time.Hour: "P1D", 36*time.Hour + time.Microsecond: "P1DT12H0.000001S",
			1500 * time.Millisecond: "PT1.5S", 7 * 24 * time.Hour: "P7D", time.Nanosecond: "PT0S",
		} {
			if got := written(model.MarshalDuration(d)); got != strconv.Quote(want) {
				t.Errorf("%v is written %s", d, got)
			}
		}
		for s, want := range map[string]time.Duration{
			"P2W": 14 * 24 * time.Hour, "PT90M": 90 * time.Minute, "PT0,5S": time.Second / 2, "P0D": 0, "P36500D": 36500 * 24 * time.Hour,
		} {
			if got, err := model.UnmarshalDuration(s); err != nil || got != want {
				t.Errorf("%s is %v, %v", s, got, err)
			}
		}
	})

	t.Run("what is no value of the scalar is INVALID", func(t *testing.T) {
		t.Parallel()
		for _, v := range []any{nil, true, "", "x", 1.5, json.Number("1.5"), json.Number("9223372036854775808"), []any{}, map[string]any{}, 1e300} {
			if n, err := model.UnmarshalBigInt(v); !fault.Is(err, fault.Invalid) {
				t.Errorf("BigInt(%v) = %d, %v", v, n, err)
			}
		}
		for _, v := range []any{nil, true, "", "AS", "x", 1.5, json.Number("-1"), json.Number("4294967296"), int64(-1), -1, []any{}} {
			if n, err := model.UnmarshalASN(v); !fault.Is(err, fault.Invalid) {
				t.Errorf("ASN(%v) = %v, %v", v, n, err)
			}
		}
		for _, v := range []any{nil, 1, "", "now", "2026-01-01", "2026-02-30T00:00:00Z", "2026-01-01T00:00:00", "2026-01-01T25:00:00Z", "0000-01-01T00:00:00Z"} {
			if at, err := model.UnmarshalDateTime(v); !fault.Is(err, fault.Invalid) {
				t.Errorf("DateTime(%v) = %v, %v", v, at, err)
			}
		}
		for _, v := range []any{
			nil, 1, int64(600), "", "P", "PT", "P1DT", "10M", "P1Y", "P1M", "PT1H1D", "P1W1D", "-PT1M", "PT-1M", "pt10m", "PT1.0000001S", "PT.5S", " PT1M", "PT1M\n",
			"PT9999999999S", "P36501D", "P36500DT1S", "P999999999W",
		} {
			if d, err := model.UnmarshalDuration(v); !fault.Is(err, fault.Invalid) {
				t.Errorf("Duration(%v) = %v, %v", v, d, err)
			}
		}
		for _, v := range []any{nil, 1, "", "it", "ITA", "XX", "I"} {
			if c, err := model.UnmarshalCountryCode(v); !fault.Is(err, fault.Invalid) {
				t.Errorf("CountryCode(%v) = %v, %v", v, c, err)
			}
		}
		if _, err := model.UnmarshalJSON("{}"); !fault.Is(err, fault.Invalid) {
			t.Errorf("JSON: %v", err)
		}
	})
}
