package measurement_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
)

func TestReadFingerprints(t *testing.T) {
	t.Parallel()
	dns, http := ownTables(t, ".csv")
	fromCSV, err := measurement.ReadFingerprintsCSV(dns, http, smallTables)
	if err != nil {
		t.Fatal(err)
	}
	dns, http = ownTables(t, ".json")
	fromJSON, err := measurement.ReadFingerprintsJSON(dns, http, smallTables)
	if err != nil {
		t.Fatal(err)
	}
	ignore := cmpopts.IgnoreUnexported(measurement.Fingerprint{})
	if diff := cmp.Diff(fromCSV, fromJSON, ignore); diff != "" {
		t.Errorf("the two forms of the tables differ (-csv +json):\n%s", diff)
	}
	want := measurement.Fingerprint{
		Name: "example.page_nat", Scope: "nat", OtherNames: "example.other", LocationFound: "body", PatternType: "contains",
		Pattern: "This page is blocked by the example authority", ConfidenceNoFP: 5, ExpectedCountries: []country.Code{"IR", "TR"},
	}
	if diff := cmp.Diff(want, fromCSV[9], ignore); diff != "" {
		t.Errorf("tenth fingerprint (-want +got):\n%s", diff)
	}
}

func TestReadFingerprintsRefuses(t *testing.T) {
	t.Parallel()
	const head = "name,scope,other_names,location_found,pattern_type,pattern,confidence_no_fp,expected_countries,source,exp_url,notes\n"
	const dnsRow, httpRow = "a,nat,,dns,full,192.0.2.1,5,IR,,,\n", "b,nat,,body,contains,blocked,5,IR,,,\n"
	const many = "b,nat,,body,contains,blocked,5,IR,,,\n"
	for _, c := range []struct{ name, dns, http, field string }{
		{"an empty file", "", head + httpRow, "dns"},
		{"a table with too few rows", head + dnsRow, head, "http"},
		{"a table with too many rows", head + dnsRow, head + strings.Repeat(many, 21), "http"},
		{"a missing column", "name,scope\na,nat\n", head + httpRow, "dns"},
		{"a row that is cut short", head + "a,nat,,dns\n", head + httpRow, "dns"},
		{"a row of the other table", head + httpRow, head + httpRow, "dns"},
		{"an address in the table of pages", head + dnsRow, head + dnsRow, "http"},
		{"no name", head + strings.Replace(dnsRow, "a,", ",", 1), head + httpRow, "dns"},
		{"an empty pattern", head + dnsRow, head + strings.Replace(httpRow, "blocked", "", 1), "http"},
		{"an unknown location", head + dnsRow, head + strings.Replace(httpRow, "body", "footer", 1), "http"},
		{"a header without a name", head + dnsRow, head + strings.Replace(httpRow, "body", "header.", 1), "http"},
		{"an unknown pattern type", head + dnsRow, head + strings.Replace(httpRow, "contains", "like", 1), "http"},
		{"a confidence that is no number", head + dnsRow, head + strings.Replace(httpRow, "5", "high", 1), "http"},
		{"a confidence beyond 10", head + dnsRow, head + strings.Replace(httpRow, "5", "11", 1), "http"},
		{"a country of three letters", head + dnsRow, head + strings.Replace(httpRow, "IR", "IRN", 1), "http"},
		{"an error page", "<html>404</html>", head + httpRow, "dns"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := measurement.ReadFingerprintsCSV(strings.NewReader(c.dns), strings.NewReader(c.http), smallTables)
			if !fault.Is(err, fault.Invalid) || fault.Of(err).Field != c.field {
				t.Errorf("error %v, want INVALID %s", err, c.field)
			}
		})
	}
	for _, c := range []struct{ name, dns, field string }{
		{"JSON that is cut short", `[{"name":"a"`, "dns"},
		{"JSON that is no list", `{}`, "dns"},
		{"JSON with more after it", `[] []`, "dns"},
		{"JSON of another type", `[{"name":1}]`, "dns"},
		{"an empty list", `[]`, "dns"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := measurement.ReadFingerprintsJSON(strings.NewReader(c.dns), strings.NewReader("[]"), smallTables)
			if !fault.Is(err, fault.Invalid) || fault.Of(err).Field != c.field {
				t.Errorf("error %v, want INVALID %s", err, c.field)
			}
		})
	}
}

func TestReadFingerprintsOfPeer(t *testing.T) {
	t.Parallel()
	dir := sharedOONI(t)
	dns, http := tables(t, dir, ".csv")
	all, err := measurement.ReadFingerprintsCSV(dns, http, measurement.DefaultTableSize)
	if err != nil {
		t.Fatal(err)
	}
	set, err := measurement.Compile(all)
	if err != nil {
		t.Fatal(err)
	}
	// Source: design/measurements.md, section 2.9, the live list.
	want := map[string]int{
		"dns": 226, "body": 1311, "header.location": 402, "header.server": 9, "header.via": 6, "header.x-app-url": 1,
	}
	if diff := cmp.Diff(want, set.Counts()); diff != "" || set.Len() != 226+1729 {
		t.Errorf("%d fingerprints (-want +got):\n%s", set.Len(), diff)
	}
}

func TestCompileRefuses(t *testing.T) {
	t.Parallel()
	good := measurement.Fingerprint{Name: "a", LocationFound: "body", PatternType: "contains", Pattern: "blocked"}
	for name, spoil := range map[string]func(*measurement.Fingerprint){
		"an empty pattern":            func(f *measurement.Fingerprint) { f.Pattern = "" },
		"a pattern that is not UTF-8": func(f *measurement.Fingerprint) { f.Pattern = "\xff" },
		"an unknown location":         func(f *measurement.Fingerprint) { f.LocationFound = "" },
		"an unknown pattern type":     func(f *measurement.Fingerprint) { f.PatternType = "" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := good
			spoil(&bad)
			if _, err := measurement.Compile([]measurement.Fingerprint{good, bad}); !fault.Is(err, fault.Invalid) || fault.Of(err).Field != "a" {
				t.Errorf("Compile: %v, want INVALID a", err)
			}
		})
	}
}

func TestNoFingerprints(t *testing.T) {
	t.Parallel()
	var none *measurement.Fingerprints
	if none.Len() != 0 || len(none.Counts()) != 0 {
		t.Errorf("nil has %d fingerprints, %v", none.Len(), none.Counts())
	}
	m, err := measurement.Parse(body(t, "testdata/web_connectivity/all-places-at-once/body.json"), measurement.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if v := measurement.Score(m, m.StartedAt, nil); v.Confirmed || len(v.Matches) != 0 || !v.Anomaly {
		t.Errorf("without fingerprints the verdict is %+v", v)
	}
}
