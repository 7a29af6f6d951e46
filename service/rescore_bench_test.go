package service

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/archive"
	"github.com/openvantage/vantage/measurement"
)

// realWebsites are bodies of web_connectivity as probes sent them, and the known fingerprints.
func realWebsites(b *testing.B) (bodies [][]byte, all []measurement.Fingerprint) {
	b.Helper()
	root := filepath.Join(os.Getenv("VANTAGE_SHARED"), "data", "ooni")
	names, _ := filepath.Glob(filepath.Join(root, "measurements", "*.json"))
	for _, name := range names {
		body, err := os.ReadFile(name)
		if err != nil {
			b.Fatal(err)
		}
		m, err := measurement.Parse(body, measurement.Limits{})
		if err != nil || m.TestName != "web_connectivity" {
			continue
		}
		if _, discarded := m.Discard(); !discarded {
			bodies = append(bodies, body)
		}
	}
	if bodies == nil {
		b.Skip("no real bodies: set VANTAGE_SHARED to the folder that has data/ooni")
	}
	dns, err := os.Open(filepath.Join(root, "fingerprints", "fingerprints_dns.json"))
	if err != nil {
		b.Fatal(err)
	}
	defer dns.Close()
	http, err := os.Open(filepath.Join(root, "fingerprints", "fingerprints_http.json"))
	if err != nil {
		b.Fatal(err)
	}
	defer http.Close()
	if all, err = measurement.ReadFingerprintsJSON(dns, http, measurement.DefaultTableSize); err != nil {
		b.Fatal(err)
	}
	return bodies, all
}

// BenchmarkRescore is of bodies of web_connectivity in packs, on a durable database. Every row is written: the set of
// fingerprints has another number each time.
func BenchmarkRescore(b *testing.B) {
	real, all := realWebsites(b)
	w := durable(b)
	s := w.archivist(folder(b))
	w.use(all, s)
	const large = 150 << 20
	total, n := 0, 0
	for total < large {
		var subs []Submission
		for range 50 {
			body := bytes.TrimRight(real[n%len(real)], "\n \t")
			body = fmt.Appendf(bytes.Clone(body[:len(body)-1]), `, "n": %d}`, n)
			subs = append(subs, Submission{Body: body})
			total += len(body)
			n++
		}
		for _, done := range s.SubmitAll(ctx, access.Anyone, make([]string, len(subs)), subs) {
			if done.Err != nil {
				b.Fatal(done.Err)
			}
		}
		w.later(time.Second)
	}
	w.wait(2 * time.Hour)
	if err := s.Pack(ctx); err != nil {
		b.Fatal(err)
	}
	w.sql("vacuum analyze")
	packs := w.packs()
	b.Logf("%d bodies of %d kB in %d packs", n, total/n/1000, len(packs))
	run := func(r Rescoring) func(*testing.B) {
		return func(b *testing.B) {
			b.Helper()
			b.SetBytes(int64(total))
			for b.Loop() {
				b.StopTimer()
				if !r.NoWrite {
					w.use(all, s)
				}
				b.StartTimer()
				sum, err := s.Rescore(ctx, r)
				if err != nil || sum.Scored != n || !r.NoWrite && sum.Written != n || sum.Problems > 0 {
					b.Fatalf("%+v %v", sum, err)
				}
			}
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "bodies/s")
			b.ReportMetric(100, "wanted-MB/s") // Source: issue 5
		}
	}
	b.Run("reading and unpacking alone", func(b *testing.B) {
		b.SetBytes(int64(total))
		for b.Loop() {
			g, todo := errgroup.Group{}, make(chan string, len(packs))
			for _, name := range packs {
				todo <- name
			}
			close(todo)
			for range runtime.GOMAXPROCS(0) {
				g.Go(func() error {
					for name := range todo {
						in, err := s.settings.Archive.Read(ctx, name+archive.PostsSuffix, 0, -1)
						if err != nil {
							return err
						}
						for _, err := range archive.Posts(ctx, in) {
							if err != nil {
								return err
							}
						}
						if err := in.Close(); err != nil {
							return err
						}
					}
					return nil
				})
			}
			if err := g.Wait(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("scoring without writing", run(Rescoring{All: true, NoWrite: true}))
	b.Run("rescoring", run(Rescoring{}))
	if drift, err := w.db.RollupDrift(ctx); err != nil || len(drift) > 0 {
		b.Errorf("the rollup differs: %v %v", drift, err)
	}
}
