package measurement_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openvantage/vantage/measurement"
)

// BenchmarkScoreReal takes real bodies in turn from bytes to verdict, which is what the established network's scorer is
// timed with: neither the uid nor what storing takes. That scores 80 a second of real web_connectivity bodies with a
// mean of 80 kB, and 360 a second of all tests; times-peer compares. What reading alone costs with encoding/json is
// measured in the same run.
//
// Source: design/measurements.md, section 3, "Peer baseline".
func BenchmarkScoreReal(b *testing.B) {
	dir := sharedOONI(b)
	fp := peerFingerprints(b, dir)
	recorded := bodiesOf(b, dir, "*__web-connectivity__*.json")
	// The two largest, of 700 and 800 kB, are two thirds of all bytes. Without them the mean is the peer's.
	usual := slices.DeleteFunc(slices.Clone(recorded), func(body []byte) bool { return len(body) > 500_000 })
	for _, set := range []struct {
		name   string
		bodies [][]byte
		peer   float64 // bodies a second; 0 where there is nothing to compare with
	}{
		{"usual recorded web_connectivity", usual, 80},
		{"recorded web_connectivity", recorded, 0},
		{"web_connectivity", append(bodiesOf(b, dir, "qa__*.json"), recorded...), 168},
		{"all", bodiesOf(b, dir, "*.json"), 360},
	} {
		name := fmt.Sprintf("%s, %d of %d kB", set.name, len(set.bodies), meanKB(set.bodies))
		b.Run(name, func(b *testing.B) {
			benchmarkScore(b, set.bodies, fp)
			if set.peer > 0 {
				b.ReportMetric(float64(b.N*len(set.bodies))/b.Elapsed().Seconds()/set.peer, "times-peer")
			}
		})
		b.Run(name+", encoding json alone", func(b *testing.B) {
			benchmarkEach(b, set.bodies, func(body []byte) error { return json.Unmarshal(body, new(any)) })
		})
	}
}

func bodiesOf(b *testing.B, dir, pattern string) (bodies [][]byte) {
	b.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "measurements", pattern))
	if err != nil || len(paths) == 0 {
		b.Fatalf("no bodies in %s: %v", dir, err)
	}
	for _, path := range paths {
		bodies = append(bodies, body(b, path))
	}
	return bodies
}

func meanKB(bodies [][]byte) int {
	total := 0
	for _, body := range bodies {
		total += len(body)
	}
	return total / len(bodies) / 1000
}

// BenchmarkScoreSynthetic needs no data from outside.
func BenchmarkScoreSynthetic(b *testing.B) {
	for _, n := range []int{2_000, 20_000} {
		b.Run(fmt.Sprintf("80 kB, %d fingerprints", n), func(b *testing.B) {
			var all []measurement.Fingerprint
			for i := range n {
				all = append(all, measurement.Fingerprint{
					Name: fmt.Sprintf("example.%d", i), Scope: "nat", LocationFound: "body", PatternType: "contains",
					Pattern: fmt.Sprintf("<title>Blocked by order %d of example.org</title>", i),
				})
			}
			set, err := measurement.Compile(all)
			if err != nil {
				b.Fatal(err)
			}
			benchmarkScore(b, [][]byte{syntheticBody(80_000)}, set)
		})
	}
}

// syntheticBody is a web_connectivity measurement of about that size, most of it an HTML page as
// Go's encoder writes it, with "<" escaped.
func syntheticBody(size int) []byte {
	const item = `\u003cli class=\"item\"\u003e\u003ca href=\"https://example.org/news/2024\"\u003eSome news of the day\u003c/a\u003e` +
		` новости дня \u003c/li\u003e\n`
	page := `\u003chtml\u003e\u003chead\u003e\u003ctitle\u003eExample\u003c/title\u003e\u003c/head\u003e` +
		strings.Repeat(item, size/len(item))
	return []byte(`{"report_id":"20240101T000000Z_webconnectivity_IT_1_n1_x","test_name":"web_connectivity",` +
		`"probe_cc":"IT","probe_asn":"AS64496","measurement_start_time":"2024-01-01 00:00:00","input":"https://example.org/",` +
		`"test_keys":{"blocking":false,"accessible":true,"queries":[{"answers":[{"ipv4":"192.0.2.1"}]}],` +
		`"requests":[{"failure":null,"response":{"headers":{"Server":"example"},"body":"` + page + `"}}]}}`)
}

func benchmarkScore(b *testing.B, bodies [][]byte, fp *measurement.Fingerprints) {
	b.Helper()
	benchmarkEach(b, bodies, func(body []byte) error {
		m, err := measurement.Parse(body, measurement.DefaultLimits)
		if err == nil {
			measurement.Score(m, time.Unix(0, 0), fp)
			m.Release()
		}
		return err
	})
}

// benchmarkEach does it with all bodies in turn, on one core.
func benchmarkEach(b *testing.B, bodies [][]byte, do func([]byte) error) {
	b.Helper()
	total := 0
	for _, body := range bodies {
		total += len(body)
	}
	b.SetBytes(int64(total))
	b.ReportAllocs()
	for b.Loop() {
		for _, body := range bodies {
			if err := do(body); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.N*len(bodies))/b.Elapsed().Seconds(), "bodies/s")
}

// BenchmarkCompile shows what a set of fingerprints costs in memory: bytes/set is what
// stays allocated.
func BenchmarkCompile(b *testing.B) {
	dir := sharedOONI(b)
	dns, http := tables(b, dir, ".json")
	all, err := measurement.ReadFingerprintsJSON(dns, http, measurement.DefaultTableSize)
	if err != nil {
		b.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var set *measurement.Fingerprints
	for b.Loop() {
		if set, err = measurement.Compile(all); err != nil {
			b.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc)-float64(before.HeapAlloc), "bytes/set")
	runtime.KeepAlive(set)
}
