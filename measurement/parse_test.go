package measurement_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
)

// fields is a measurement that has everything; tests change what they are about.
func fields(change map[string]any) []byte {
	m := map[string]any{
		"report_id": "20240101T000000Z_telegram_IT_64496_n1_x", "input": "https://user@example.org:8443/a?b#c",
		"probe_cc": "it", "probe_asn": "AS0001", "resolver_asn": "AS64497",
		"test_name": "telegram", "test_version": "0.2.0",
		"test_start_time": "2024-01-01 00:00:00", "measurement_start_time": "2024-01-01 00:00:59",
		"test_runtime": 1.5, "software_name": "example", "software_version": "1.0",
		"annotations": map[string]any{
			"platform": "linux", "architecture": "arm64", "engine_name": "example-engine",
			"engine_version": "3.20.0", "ooni_run_link_id": "10001",
		},
		"test_helpers": map[string]any{"backend": map[string]any{"address": "https://helper.example.org", "type": "https"}},
		"test_keys":    map[string]any{},
	}
	maps.Copy(m, change)
	for k, v := range m {
		if v == missing {
			delete(m, k)
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// missing in a change removes the field.
const missing = "\x00missing"

func ptr[T any](v T) *T { return &v }

func complete() measurement.Measurement {
	return measurement.Measurement{
		ReportID: "20240101T000000Z_telegram_IT_64496_n1_x",
		Input:    "https://user@example.org:8443/a?b#c", HasInput: true, Domain: "user@example.org:8443",
		Country: "IT", ASN: 1, ResolverASN: 64497,
		TestName: "telegram", TestVersion: "0.2.0",
		TestStartedAt: time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC),
		StartedAt:     time.Date(2024, 1, 1, 0, 0, 59, 0, time.UTC),
		TestRuntime:   ptr(1.5),
		Platform:      "linux", Architecture: "arm64",
		SoftwareName: "example", SoftwareVersion: "1.0",
		EngineName: "example-engine", EngineVersion: "3.20.0",
		TestHelperAddress: "https://helper.example.org", TestHelperType: "https",
		OONIRunLinkID: ptr(int64(10001)), Verified: measurement.VerifiedUnknown,
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	type m = measurement.Measurement
	for _, c := range []struct {
		name   string
		change map[string]any
		want   func(*m)
	}{
		{"every column is filled in", nil, func(*m) {}},
		{"a missing input is empty", map[string]any{"input": missing}, func(w *m) { w.Input, w.HasInput, w.Domain = "", false, "" }},
		{"a null input is empty", map[string]any{"input": nil}, func(w *m) { w.Input, w.HasInput, w.Domain = "", false, "" }},
		{"an empty input is there", map[string]any{"input": ""}, func(w *m) { w.Input, w.Domain = "", "" }},
		{
			"a list of inputs of meek is written in braces",
			map[string]any{"test_name": "meek_fronted_requests_test", "input": []string{"a.example.org", "b.example.org"}},
			func(w *m) {
				w.TestName, w.Input, w.Domain = "meek_fronted_requests_test", "{a.example.org,b.example.org}", "a.example.org"
			},
		},
		{
			"an empty list of inputs of meek is empty",
			map[string]any{"test_name": "meek_fronted_requests_test", "input": []string{}},
			func(w *m) { w.TestName, w.Input, w.Domain = "meek_fronted_requests_test", "", "" },
		},
		{
			"absent texts have their defaults",
			map[string]any{"annotations": missing, "software_name": missing, "software_version": nil, "test_version": missing, "test_helpers": nil},
			func(w *m) {
				w.Platform, w.Architecture, w.EngineName, w.EngineVersion, w.OONIRunLinkID = "unset", "", "", "", nil
				w.SoftwareName, w.SoftwareVersion, w.TestVersion = "unknown", "unknown", ""
				w.TestHelperAddress, w.TestHelperType = "", ""
			},
		},
		{
			"annotations that are not texts have their defaults",
			map[string]any{"annotations": map[string]any{"platform": nil, "architecture": 1, "engine_name": []any{}, "engine_version": true, "ooni_run_link_id": "x"}},
			func(w *m) {
				w.Platform, w.Architecture, w.EngineName, w.EngineVersion, w.OONIRunLinkID = "unset", "", "", "", nil
			},
		},
		{"annotations that are a list have their defaults", map[string]any{"annotations": []any{"platform"}}, func(w *m) {
			w.Platform, w.Architecture, w.EngineName, w.EngineVersion, w.OONIRunLinkID = "unset", "", "", "", nil
		}},
		{"a link id may be a number", map[string]any{"annotations": map[string]any{
			"ooni_run_link_id": 7, "platform": "linux", "architecture": "arm64",
			"engine_name": "example-engine", "engine_version": "3.20.0",
		}}, func(w *m) { w.OONIRunLinkID = ptr(int64(7)) }},
		{
			"a helper that is a text has no address",
			map[string]any{"test_helpers": map[string]any{"backend": "192.0.2.1:80"}},
			func(w *m) { w.TestHelperAddress, w.TestHelperType = "", "" },
		},
		{"a null runtime is none", map[string]any{"test_runtime": nil}, func(w *m) { w.TestRuntime = nil }},
		{"a runtime that is a text is none", map[string]any{"test_runtime": "1"}, func(w *m) { w.TestRuntime = nil }},
		{
			"missing times are zero",
			map[string]any{"measurement_start_time": missing, "test_start_time": nil},
			func(w *m) { w.StartedAt, w.TestStartedAt = time.Time{}, time.Time{} },
		},
		{"a resolver that is no network is unknown", map[string]any{"resolver_asn": "x"}, func(w *m) { w.ResolverASN = 0 }},
		{"test keys may be null", map[string]any{"test_keys": nil}, func(*m) {}},
		{
			"a lone surrogate becomes the replacement character",
			map[string]any{"test_version": json.RawMessage(`"\ud800x\ud800\ud83d\ude00"`)},
			func(w *m) { w.TestVersion = "\ufffdx\ufffd😀" },
		},
		{"unknown fields are ignored", map[string]any{"new_field": []any{1, map[string]any{}}}, func(*m) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			want := complete()
			c.want(&want)
			got, err := measurement.Parse(fields(c.change), measurement.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, *got, cmpopts.IgnoreUnexported(measurement.Measurement{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseEnvelope(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, envelope string
		want           measurement.Verified
	}{
		{"an envelope is taken off", `{"format":"json","content":%s}`, measurement.VerifiedUnknown},
		{"a verified submission", `{"format":"json","is_verified":"t","content":%s}`, measurement.VerifiedTrue},
		{"a refuted submission", `{"content":%s,"is_verified":"f","format":"Json"}`, measurement.VerifiedFalse},
		{"any other word is unknown", `{"content":%s,"is_verified":true,"format":"json"}`, measurement.VerifiedUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := measurement.Parse(fmt.Appendf(nil, c.envelope, fields(nil)), measurement.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			want := complete()
			want.Verified = c.want
			if diff := cmp.Diff(want, *got, cmpopts.IgnoreUnexported(measurement.Measurement{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	t.Run("a bare measurement cannot say that it is verified", func(t *testing.T) {
		t.Parallel()
		m, err := measurement.Parse(fields(map[string]any{"is_verified": "t"}), measurement.Limits{})
		if err != nil || m.Verified != measurement.VerifiedUnknown {
			t.Errorf("Verified = %v, %v", m.Verified, err)
		}
	})
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	set := func(field string, v any) string { return string(fields(map[string]any{field: v})) }
	note := func(field string, v any) string { return set("annotations", map[string]any{field: v}) }
	for _, c := range []struct{ name, body, field string }{
		{"nothing", "", "body"},
		{"blanks", " \n", "body"},
		{"a byte order mark", "\ufeff{}", "body"},
		{"a text", `"x"`, "body"},
		{"a list", `[]`, "body"},
		{"something after the end", set("input", nil) + "x", "body"},
		{"two documents", set("input", nil) + "{}", "body"},
		{"NaN", `{"test_keys":{"a":NaN}}`, "test_keys.a"},
		{"Infinity", `{"test_keys":{"a":[1,-Infinity]}}`, "test_keys.a[1]"},
		{"a comment", `{/**/}`, "body"},
		{"single quotes", `{'a':1}`, "body"},
		{"a comma too many", `{"a":[1,]}`, "a[1]"},
		{"a key without a value", `{"a":{"b"}}`, "a"},
		{"a leading zero", `{"a":01}`, "body"},
		{"a bare point", `{"a":1.}`, "a"},
		{"a plus sign", `{"a":+1}`, "a"},
		{"an unknown escape", `{"a":{"b":"\x"}}`, "a.b"},
		{"half an escape", `{"a":"\u00g0"}`, "a"},
		{"a raw line break in a text", "{\"a\":\"\n\"}", "a"},
		{"an overlong rune", "{\"a\":\"\xc0\x80\"}", "a"},
		{"a surrogate in UTF-8", "{\"a\":\"\xed\xa0\x80\"}", "a"},
		{"Latin-1", "{\"a\":\"\xe9\"}", "a"},
		{"a rune beyond Unicode", "{\"a\":\"\xf4\x90\x80\x80\"}", "a"},
		{"too deep", `{"test_keys":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + "}", "test_keys" + strings.Repeat("[0]", 63)},
		{"no test name", set("test_name", missing), "test_name"},
		{"an empty test name", set("test_name", ""), "test_name"},
		{"a test name that is a number", set("test_name", 1), "test_name"},
		{"a test name with NUL", set("test_name", "a\x00"), "test_name"},
		{"a test name too long", set("test_name", strings.Repeat("a", 2001)), "test_name"},
		{"no country", set("probe_cc", missing), "probe_cc"},
		{"a country that is a number", set("probe_cc", 1), "probe_cc"},
		{"a country of three letters", set("probe_cc", "ITA"), "probe_cc"},
		{"a country of digits", set("probe_cc", "I1"), "probe_cc"},
		{"no network", set("probe_asn", missing), "probe_asn"},
		{"a network that is a number", set("probe_asn", 64496), "probe_asn"},
		{"a network that is no number", set("probe_asn", "ASx"), "probe_asn"},
		{"a network beyond 32 bits", set("probe_asn", "AS4294967296"), "probe_asn"},
		{"a report id that is a number", set("report_id", 1), "report_id"},
		{"a report id with NUL", set("report_id", "\x00"), "report_id"},
		{"an input that is a list", set("input", []string{"a"}), "input"},
		{"an input that is false", set("input", false), "input"},
		{"an input with NUL", set("input", "http://\x00"), "input"},
		{"an input too long", set("input", "http://"+strings.Repeat("a", 2000)), "input"},
		{"a meek input with a number", string(fields(map[string]any{"test_name": "meek_fronted_requests_test", "input": []any{"a", 1}})), "input"},
		{"a start that is a number", set("measurement_start_time", 1), "measurement_start_time"},
		{"a start in another form", set("measurement_start_time", "2024-01-01T00:00:00Z"), "measurement_start_time"},
		{"a start with a fraction", set("measurement_start_time", "2024-01-01 00:00:00.5"), "measurement_start_time"},
		{"a start that is no date", set("measurement_start_time", "2024-02-30 00:00:00"), "measurement_start_time"},
		{"a test start that is empty", set("test_start_time", ""), "test_start_time"},
		{"test keys that are a list", set("test_keys", []any{}), "test_keys"},
		{"test keys that are false", set("test_keys", false), "test_keys"},
		{"a test version that is a number", set("test_version", 0.2), "test_version"},
		{"a software name that is a list", set("software_name", []any{}), "software_name"},
		{"a platform with NUL", note("platform", "\x00"), "annotations.platform"},
		{"an engine version too long", note("engine_version", strings.Repeat("9", 2001)), "annotations.engine_version"},
		{"YAML", `{"format":"yaml","content":"a: 1"}`, "format"},
		{"a format that is a number", `{"format":1,"content":{}}`, "format"},
		{"content that is a text", `{"format":"json","content":"{}"}`, "content"},
		{"content without a test", `{"format":"json","content":{}}`, "content.test_name"},
		{"content with test keys that are a text", `{"format":"json","content":` + set("test_keys", "x") + `}`, "content.test_keys"},
		{"content with NaN", `{"format":"json","content":{"test_keys":{"requests":[{},{"a":NaN}]}}}`, "content.test_keys.requests[1].a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m, err := measurement.Parse([]byte(c.body), measurement.Limits{})
			if !fault.Is(err, fault.Invalid) || fault.Of(err).Field != c.field {
				t.Errorf("Parse = %v, %v, want INVALID %s", m, err, c.field)
			}
		})
	}
}

func TestParseLimits(t *testing.T) {
	t.Parallel()
	body := fields(map[string]any{"test_keys": map[string]any{"a": []any{[]any{}, []any{}}}})
	ok := measurement.Limits{MaxBytes: len(body), MaxDepth: 4, MaxValues: 51, MaxTextBytes: 39}
	if m, err := measurement.Parse(body, ok); err != nil {
		t.Errorf("at the limits: %v, %v", m, err)
	}
	for name, less := range map[string]func(*measurement.Limits){
		"bytes":  func(l *measurement.Limits) { l.MaxBytes-- },
		"depth":  func(l *measurement.Limits) { l.MaxDepth-- },
		"values": func(l *measurement.Limits) { l.MaxValues-- },
		"text":   func(l *measurement.Limits) { l.MaxTextBytes-- },
	} {
		t.Run(name+" beyond the limit are refused", func(t *testing.T) {
			t.Parallel()
			lim := ok
			less(&lim)
			if _, err := measurement.Parse(body, lim); !fault.Is(err, fault.Invalid) || fault.Of(err).Field == "" {
				t.Errorf("Parse = %v, want INVALID with a field", err)
			}
		})
	}
}

// TestParseCutShort cuts bodies at every byte.
func TestParseCutShort(t *testing.T) {
	t.Parallel()
	for _, path := range []string{
		"web_connectivity/order-is-answers-then-bodies-then-headers", "telegram/all-blocked", "tor/half-blocked-is-no-anomaly",
	} {
		whole := []byte(strings.TrimSpace(string(body(t, filepath.Join("testdata", path, "body.json")))))
		for n := range whole {
			_, err := measurement.Parse(whole[:n:n], measurement.Limits{})
			if !fault.Is(err, fault.Invalid) || fault.Of(err).Field == "" {
				t.Fatalf("%s cut at %d: %v, want INVALID with a field", path, n, err)
			}
		}
	}
}

func TestDiscard(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change map[string]any
		want   measurement.Discard
	}{
		{"a complete measurement is kept", nil, ""},
		{"an empty report id is one", map[string]any{"report_id": ""}, ""},
		{"without a report id", map[string]any{"report_id": missing}, measurement.ReportIDMissing},
		{"with a null report id", map[string]any{"report_id": nil}, measurement.ReportIDMissing},
		{"from an unknown country", map[string]any{"probe_cc": "zz"}, measurement.CountryUnknown},
		{"from an unknown network", map[string]any{"probe_asn": "as0"}, measurement.NetworkUnknown},
		{"the report id is looked at first", map[string]any{"probe_asn": "AS0", "probe_cc": "ZZ", "report_id": nil}, measurement.ReportIDMissing},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m, err := measurement.Parse(fields(c.change), measurement.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			got, ok := m.Discard()
			if got != c.want || ok != (c.want != "") {
				t.Errorf("Discard = %q, %v, want %q", string(got), ok, string(c.want))
			}
			if ok && !strings.HasSuffix(got.String(), ".") {
				t.Errorf("%q is not a sentence", got.String())
			}
		})
	}
}
