package measurement_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openvantage/vantage/measurement"
)

// ownFingerprints is the small fictional set in testdata.
func ownFingerprints(tb testing.TB) *measurement.Fingerprints {
	tb.Helper()
	dns, http := ownTables(tb, ".csv")
	all, err := measurement.ReadFingerprintsCSV(dns, http, smallTables)
	if err != nil {
		tb.Fatal(err)
	}
	set, err := measurement.Compile(all)
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

var smallTables = measurement.TableSize{Min: 1, Max: 20}

func ownTables(tb testing.TB, ext string) (dns, http *strings.Reader) {
	tb.Helper()
	read := func(name string) *strings.Reader {
		return strings.NewReader(string(body(tb, filepath.Join("testdata", name+ext))))
	}
	return read("fingerprints_dns"), read("fingerprints_http")
}

// update writes outcomes and rules into the golden files as they are now. Flags and scores are the established
// network's: nobody writes them but a person.
var update = flag.Bool("update", false, "write outcomes and rules into the golden files")

// TestScoreGolden scores every folder testdata/<test>/<case>: body.json in, scores.json
// out. Without received_at a measurement arrives when it began.
func TestScoreGolden(t *testing.T) {
	t.Parallel()
	fp := ownFingerprints(t)
	dirs, err := filepath.Glob(filepath.Join("testdata", "*", "*", "body.json"))
	if err != nil || len(dirs) < 100 {
		t.Fatalf("%d golden folders: %v", len(dirs), err)
	}
	for _, path := range dirs {
		dir := filepath.Dir(path)
		name := strings.ReplaceAll(strings.TrimPrefix(filepath.ToSlash(dir), "testdata/"), "-", " ")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := measurement.Parse(body(t, path), measurement.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			var want struct {
				Anomaly, Confirmed, Failure bool
				Outcome                     measurement.Outcome
				Rules                       []string
				Reason                      string
				ReceivedAt                  time.Time `json:"received_at"`
				Scores                      json.RawMessage
			}
			golden := filepath.Join(dir, "scores.json")
			if err := json.Unmarshal(body(t, golden), &want); err != nil {
				t.Fatal(err)
			}
			if want.ReceivedAt.IsZero() {
				want.ReceivedAt = receivedAt(m)
			}
			got := measurement.Score(m, want.ReceivedAt, fp)
			if got.Anomaly != want.Anomaly || got.Confirmed != want.Confirmed || got.Failure != want.Failure {
				t.Errorf("anomaly, confirmed, failure = %v %v %v, want %v %v %v",
					got.Anomaly, got.Confirmed, got.Failure, want.Anomaly, want.Confirmed, want.Failure)
			}
			if got.Reason != want.Reason {
				t.Errorf("Reason = %q, want %q", got.Reason, want.Reason)
			}
			if diff := cmp.Diff(object(t, want.Scores), object(t, got.Scores.JSON())); diff != "" {
				t.Errorf("scores (-want +got):\n%s", diff)
			}
			if *update {
				rewrite(t, golden, got)
			} else if got.Outcome != want.Outcome || !slices.Equal(rulesOf(got), want.Rules) {
				t.Errorf("%s by %q, want %s by %q", got.Outcome, rulesOf(got), want.Outcome, want.Rules)
			}
			checkVerdict(t, got)
		})
	}
}

// TestRelease demands that nothing that was learned of a measurement lies in the memory that is given to the next.
func TestRelease(t *testing.T) { //nolint:paralleltest // others would use the memory first
	paths, err := filepath.Glob(filepath.Join("testdata", "*", "*", "body.json"))
	if err != nil {
		t.Fatal(err)
	}
	fp := ownFingerprints(t)
	judge := func(b []byte) (*measurement.Measurement, func() string) {
		m, err := measurement.Parse(b, measurement.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		v := measurement.Score(m, receivedAt(m), fp)
		c := m.Conduct(v)
		return m, func() string { return fmt.Sprintf("%+v %s %+v %s %+v", v, v.Scores.JSON(), c, m.Input, *m) }
	}
	for i, path := range paths {
		m, told := judge(body(t, path))
		m.Release()
		m.Release() // once more is nothing
		want := told()
		next, _ := judge(body(t, paths[(i+1)%len(paths)]))
		if got := told(); got != want {
			t.Errorf("%s: was %s, and is %s", path, want, got)
		}
		next.Release()
	}
	defer func() {
		if recover() == nil {
			t.Error("a released measurement is scored")
		}
	}()
	m, _ := judge(body(t, paths[0]))
	m.Release()
	measurement.Score(m, receivedAt(m), fp)
}

// rulesOf are the rules that a verdict names, in order.
func rulesOf(v measurement.Verdict) []string {
	var rules []string
	for _, e := range v.Evidence {
		rules = append(rules, e.RuleID)
	}
	return rules
}

func rewrite(t *testing.T, path string, v measurement.Verdict) {
	t.Helper()
	var whole map[string]any
	d := json.NewDecoder(bytes.NewReader(body(t, path)))
	d.UseNumber()
	if err := d.Decode(&whole); err != nil {
		t.Fatal(err)
	}
	whole["outcome"], whole["rules"] = v.Outcome, rulesOf(v)
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(whole); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// checkVerdict is what holds for every verdict.
func checkVerdict(t *testing.T, v measurement.Verdict) {
	t.Helper()
	whole := object(t, v.Scores.JSON())
	analysis, _ := whole["analysis"].(map[string]any)
	if blockingType, _ := analysis["blocking_type"].(string); v.BlockingType != blockingType {
		t.Errorf("BlockingType = %q, scores say %q", v.BlockingType, blockingType)
	}
	if listed, _ := whole["fingerprints"].([]any); len(v.Matches) != len(listed) {
		t.Errorf("%d matches, scores list %d", len(v.Matches), len(listed))
	}
	if v.Failure && v.Outcome != measurement.Insufficient {
		t.Errorf("a failed measurement is %s", v.Outcome)
	}
	if v.Confirmed && !v.Failure && v.Outcome != measurement.Blocked {
		t.Errorf("a confirmed measurement is %s", v.Outcome)
	}
	if len(v.Evidence) == 0 {
		t.Error("nothing says why")
	}
	for _, e := range v.Evidence {
		if e.RuleID == "" || !strings.HasSuffix(e.Explanation, ".") {
			t.Errorf("evidence %+v", e)
		}
	}
	if v.ScorerVersion != measurement.ScorerVersion {
		t.Errorf("ScorerVersion = %q", v.ScorerVersion)
	}
	var again measurement.Scores
	if err := json.Unmarshal(v.Scores.JSON(), &again); err != nil {
		t.Fatalf("the scores cannot be rebuilt: %v", err)
	}
	if diff := cmp.Diff(v.Scores, again, cmp.AllowUnexported(measurement.Scores{})); diff != "" {
		t.Errorf("rebuilt scores (-scored +rebuilt):\n%s", diff)
	}
}

// TestScoreGoldenIsComplete demands a golden folder of every test that is scored.
func TestScoreGoldenIsComplete(t *testing.T) {
	t.Parallel()
	for _, test := range measurement.ScoredTests() {
		if entries, err := os.ReadDir(filepath.Join("testdata", test)); err != nil || len(entries) == 0 {
			t.Errorf("%s: %d golden cases: %v", test, len(entries), err)
		}
	}
}
