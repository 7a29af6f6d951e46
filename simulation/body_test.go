package simulation

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/measurement"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func TestBodyOf(t *testing.T) {
	t.Parallel()
	type flags struct{ Anomaly, Failure bool }
	type kind struct {
		test    string
		finding finding
	}
	p := Population(1, 1)[0]
	p.Country = "IR"
	want := map[kind]flags{
		{"web_connectivity", fine}: {}, {"web_connectivity", dnsLie}: {Anomaly: true},
		{"web_connectivity", blockPage}: {Anomaly: true}, {"web_connectivity", otherPage}: {Anomaly: true},
		{"web_connectivity", noTCP}: {Anomaly: true}, {"web_connectivity", reset}: {Anomaly: true},
		{"web_connectivity", noControl}: {Failure: true},
	}
	for _, test := range testNames {
		want[kind{test, fine}] = flags{}
		want[kind{test, blocked}] = flags{Anomaly: true}
	}
	for k, want := range want {
		t.Run(k.test+" that finds "+string(k.finding)+" is scored so", func(t *testing.T) {
			t.Parallel()
			body := p.bodyOf(rand.New(rand.NewPCG(1, 2)), noon, k.test, "https://news.example.org/", k.finding)
			m, err := measurement.Parse(body, measurement.DefaultLimits)
			if err != nil {
				t.Fatal(err)
			}
			v := measurement.Score(m, noon.Add(time.Minute), nil)
			if diff := cmp.Diff(want, flags{v.Anomaly, v.Failure}); diff != "" || v.Reason != "" {
				t.Error(diff, v.Reason)
			}
			if why, ok := m.Discard(); ok {
				t.Error(why)
			}
			if m.TestName != k.test || m.Country != "IR" || m.ASN != p.ASN || !m.StartedAt.Equal(noon) || m.SoftwareName != "vantage-simulation" {
				t.Errorf("got %+v", m)
			}
			form := `^20261121T120000Z_[a-z]+_IR_[0-9]+_n1_[A-Za-z0-9]{16}$`
			if !regexp.MustCompile(form).MatchString(m.ReportID) {
				t.Errorf("report id %s", m.ReportID)
			}
		})
	}
}

func TestBody(t *testing.T) {
	t.Parallel()
	t.Run("the same measurement is written the same way again", func(t *testing.T) {
		t.Parallel()
		for _, p := range Population(5, 20) {
			for n := range uint64(10) {
				k := task{number: n, at: noon}
				if !bytes.Equal(p.body(k), p.body(k)) {
					t.Fatal("two bodies of one measurement differ")
				}
			}
		}
	})
	t.Run("a day of a network has a bit of everything and each body is new", func(t *testing.T) {
		t.Parallel()
		seen := map[string]bool{}
		tests, countries := map[string]int{}, map[country.Code]bool{}
		anomalies, failures, total := 0, 0, 0
		for _, p := range Population(5, 100) {
			for n := range uint64(20) {
				at := noon.Add(time.Duration(n) * 5 * time.Minute)
				b := p.body(task{number: n, at: at})
				m, err := measurement.Parse(b, measurement.DefaultLimits)
				if err != nil {
					t.Fatal(err)
				}
				v := measurement.Score(m, at, nil)
				if v.Reason != "" {
					t.Error(v.Reason)
				}
				if v.Anomaly {
					anomalies++
				}
				if v.Failure {
					failures++
				}
				if seen[string(b)] {
					t.Error("a body came twice")
				}
				seen[string(b)] = true
				tests[m.TestName]++
				countries[m.Country] = true
				total++
			}
		}
		share := func(n int) float64 { return float64(n) / float64(total) }
		if len(tests) != 6 || len(countries) != len(places) || share(tests["web_connectivity"]) < 0.6 {
			t.Errorf("got %v in %d countries", tests, len(countries))
		}
		if share(anomalies) < 0.05 || share(anomalies) > 0.4 || share(failures) < 0.005 || share(failures) > 0.05 {
			t.Errorf("%d anomalies, %d failures of %d", anomalies, failures, total)
		}
	})
	t.Run("a known address of the country is in the answer of a lying resolver", func(t *testing.T) {
		t.Parallel()
		for c, address := range blockAddresses {
			p := Probe{Country: c, ASN: 64512}
			var body struct {
				TestKeys struct {
					Queries []struct{ Answers []struct{ IPv4 string } }
				} `json:"test_keys"`
			}
			b := p.bodyOf(rand.New(rand.NewPCG(1, 2)), noon, "web_connectivity", sites[0], blockPage)
			if err := json.Unmarshal(b, &body); err != nil {
				t.Fatal(err)
			}
			if got := body.TestKeys.Queries[0].Answers[0].IPv4; got != address {
				t.Errorf("%s: got %s", c, got)
			}
		}
	})
}

func BenchmarkBody(b *testing.B) {
	p := Population(1, 1)[0]
	for n := uint64(0); b.Loop(); n++ {
		b.SetBytes(int64(len(p.body(task{number: n, at: noon}))))
	}
}
