package measurement_test

import (
	"bytes"
	"fmt"
	"math"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/openvantage/vantage/measurement"
)

// TestScoreAllocates demands that what a body makes us allocate is bounded by its size: five times of what probes
// send; and where it is made to be costly, by a token of 16 bytes for each two bytes, in a list that grows.
func TestScoreAllocates(t *testing.T) { //nolint:paralleltest // counts what the whole process allocates
	sent, made := map[string][]byte{"a page of 1 MB": syntheticBody(1_000_000), "a page of 80 kB": syntheticBody(80_000)}, map[string][]byte{}
	paths, err := filepath.Glob(filepath.Join("testdata", "*", "*", "body.json"))
	if err != nil {
		t.Fatal(err)
	}
	if recorded, err := filepath.Glob(filepath.Join(ooniFolder(), "measurements", "*.json")); err == nil {
		paths = append(paths, recorded...)
	}
	for _, path := range paths {
		sent[filepath.ToSlash(path)] = body(t, path)
	}
	keys := func(test, keys string) []byte {
		return []byte(fmt.Sprintf(`{"report_id":"x","test_name":%q,"probe_cc":"IR","probe_asn":"AS1","input":"x","test_keys":%s}`, test, keys))
	}
	many := func(s string) string { return strings.TrimSuffix(strings.Repeat(s+",", 10_000), ",") }
	for _, test := range measurement.ScoredTests() {
		made[test+" of many values"] = keys(test, `{"a":[`+many("1")+`]}`)
		made[test+" of many requests"] = keys(test, `{"body_length_match":false,"headers_match":true,"requests":[`+
			many(`{"failure":null,"request":{"url":""},"response":{"code":200,"headers":{"location":"warning.example"},"body":"access denied"}}`)+`]}`)
		made[test+" of many keys"] = keys(test, `{"blocking":"dns",`+strings.Repeat(`"a_failure":"x",`, 10_000)+`"b":1}`)
	}
	made["many answers"] = keys("web_connectivity", `{"queries":[{"answers":[`+many(`{"ipv4":"192.0.2.66","ipv6":"192.0.2.66"}`)+`]}]}`)
	made["an echo of many headers"] = keys("http_header_field_manipulation",
		`{"requests":[{"response":{"body":"{\"headers_dict\":{`+strings.TrimSuffix(strings.Repeat(`\"a\":[\"b\"],`, 10_000), ",")+`}}"}}]}`)
	fp := ownFingerprints(t)
	score := func(b []byte) {
		m, err := measurement.Parse(b, measurement.Limits{MaxBytes: 1 << 30, MaxValues: 1 << 30})
		if err == nil {
			measurement.Score(m, time.Unix(0, 0), fp)
			m.Release()
		}
	}
	check := func(bodies map[string][]byte, factor int) {
		for name, b := range bodies {
			most, got := uint64(64_000+factor*len(b)), uint64(math.MaxUint64)
			for range 10 { // the first fills pools, which the race detector has forget at random
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				score(b)
				runtime.ReadMemStats(&after)
				if got = min(got, after.TotalAlloc-before.TotalAlloc); got <= most {
					break
				}
			}
			if got > most {
				t.Errorf("%s of %d bytes allocates %d, more than %d", name, len(b), got, most)
			}
		}
	}
	check(sent, 5)
	check(made, 56)
}

// TestExpressionsAreBounded demands that no body makes regular expressions run for long: doubling the body must not
// do more than twice the work, and what is beyond the bound is left out.
func TestExpressionsAreBounded(t *testing.T) {
	t.Parallel()
	var all []measurement.Fingerprint
	for i := range 200 {
		all = append(all, measurement.Fingerprint{
			Name: fmt.Sprintf("example.%d", i), Scope: "fp", LocationFound: "body", PatternType: "regexp",
			Pattern: fmt.Sprintf("(a|b|c|a)*blocked.*(x+x+)+y%d", i%10),
		})
	}
	set, err := measurement.Compile(all)
	if err != nil {
		t.Fatal(err)
	}
	page := bytes.Repeat([]byte("abcabcblockedxxxxxxxxxxxxxxxx"), 30_000)
	m, err := measurement.Parse([]byte(`{"report_id":"x","test_name":"web_connectivity","probe_cc":"IT","probe_asn":"AS1",`+
		`"test_keys":{"blocking":false,"requests":[{"response":{"body":"`+string(page)+`"}}]}}`), measurement.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	measurement.Score(m, m.StartedAt, set)
	if took := time.Since(began); took > 20*time.Second { // 14 MB of text for each of 200 expressions would take minutes
		t.Errorf("it took %s", took)
	}
}

// TestNotAnExpression demands that a pattern that RE2 cannot read only loses its own better matches.
func TestNotAnExpression(t *testing.T) {
	t.Parallel()
	set, err := measurement.Compile([]measurement.Fingerprint{
		{Name: "a", Scope: "nat", LocationFound: "body", PatternType: "regexp", Pattern: "(?=blocked)here"},
		{Name: "b", Scope: "nat", LocationFound: "body", PatternType: "regexp", Pattern: "^blocked (by|for) .+$"},
	})
	if err != nil {
		t.Fatal(err)
	}
	m, err := measurement.Parse([]byte(`{"report_id":"x","test_name":"web_connectivity","probe_cc":"IT","probe_asn":"AS1",`+
		`"test_keys":{"blocking":false,"accessible":true,"requests":[{"response":{"body":"blocked by order"}}]}}`), measurement.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	v := measurement.Score(m, m.StartedAt, set)
	if v.Confirmed || v.Anomaly || v.Outcome != measurement.Blocked || len(v.Evidence) != 2 || v.Evidence[1].Fingerprint != "b" {
		t.Errorf("the verdict is %+v", v)
	}
}
