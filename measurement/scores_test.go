package measurement_test

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
)

func score(tb testing.TB, test, name string, fp *measurement.Fingerprints) measurement.Verdict {
	tb.Helper()
	m, err := measurement.Parse(body(tb, "testdata/"+test+"/"+name+"/body.json"), measurement.Limits{})
	if err != nil {
		tb.Fatal(err)
	}
	return measurement.Score(m, m.StartedAt, fp)
}

func TestScoresJSON(t *testing.T) {
	t.Parallel()
	t.Run("keys are sorted and whole numbers have a point", func(t *testing.T) {
		t.Parallel()
		v := score(t, "web_connectivity", "dns-national-in-another-country", ownFingerprints(t))
		const want = `{"analysis":{"blocking_type":"dns"},"blocking_country":1.0,"blocking_general":2.0,"blocking_global":0.0,` +
			`"blocking_isp":0.0,"blocking_local":0.0,"confirmed":true,"fingerprints":[{"confidence_no_fp":5,"expected_countries":["IR"],` +
			`"location_found":"dns","name":"example.dns_nat","scope":"nat"}]}`
		if diff := cmp.Diff(want, string(v.Scores.JSON())); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if s := v.Scores; s.BlockingGeneral != 2 || s.BlockingCountry != 1 || !s.Confirmed || s.Accuracy != nil || v.BlockingType != "dns" {
			t.Errorf("the fields are %+v", s)
		}
	})
	t.Run("it is embedded as it is", func(t *testing.T) {
		t.Parallel()
		v := score(t, "telegram", "all-blocked", nil)
		got, err := json.Marshal(map[string]any{"scores": v.Scores})
		if want := `{"scores":` + string(v.Scores.JSON()) + "}"; err != nil || string(got) != want {
			t.Errorf("Marshal = %s, %v, want %s", got, err, want)
		}
		if v.Scores.Msg != "failure: eof_error" {
			t.Errorf("Msg = %q", v.Scores.Msg)
		}
	})
	t.Run("the zero Scores is the empty object", func(t *testing.T) {
		t.Parallel()
		var s measurement.Scores
		if got := string(s.JSON()); got != "{}" {
			t.Errorf("JSON = %s", got)
		}
	})
	t.Run("what no scorer writes is refused", func(t *testing.T) {
		t.Parallel()
		for _, bad := range []string{"null", "[]", `"x"`, `{"accuracy":"0"}`, `{"confirmed":1}`} {
			s := measurement.Scores{Msg: "before"}
			if err := s.UnmarshalJSON([]byte(bad)); !fault.Is(err, fault.Invalid) || s.Msg != "before" {
				t.Errorf("%s: %v, %+v", bad, err, s)
			}
		}
	})
	t.Run("what is copied from a body is cut", func(t *testing.T) {
		t.Parallel()
		long := strings.Repeat("é", 5000)
		keys := `{"telegram_web_status":"ok","requests":[{"failure":"` + long + `","request":{"url":"https://web.telegram.org/"}}]}`
		m, err := measurement.Parse(fields(map[string]any{"test_keys": json.RawMessage(keys)}), measurement.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		v := measurement.Score(m, m.StartedAt, nil)
		if want := "failure: " + long[:1000]; v.Scores.Msg != want {
			t.Errorf("Msg has %d bytes, want %d", len(v.Scores.Msg), len(want))
		}
	})
}

func TestScoreIsConcurrent(t *testing.T) {
	t.Parallel()
	fp := ownFingerprints(t)
	const name = "order-is-answers-then-bodies-then-headers"
	want := score(t, "web_connectivity", name, fp).Scores.JSON()
	m, err := measurement.Parse(body(t, "testdata/web_connectivity/"+name+"/body.json"), measurement.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if got := measurement.Score(m, m.StartedAt, fp).Scores.JSON(); string(got) != string(want) {
					t.Errorf("scores = %s, want %s", got, want)
				}
			}
		})
	}
	wg.Wait()
}
