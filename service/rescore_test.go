package service

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/archive"
	"github.com/openvantage/vantage/archive/archivetest"
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
)

// website is a measurement of a page that holds a text; each n makes another one.
func website(n int, cc, text string) []byte {
	return fmt.Appendf(nil, `{"report_id": "20260228T000000Z_webconnectivity_%s_3320_n1_%08d", "test_name": "web_connectivity", "test_version": "0.4.3",
		"probe_cc": %q, "probe_asn": "AS3320", "measurement_start_time": "2026-02-28 00:00:%02d", "test_start_time": "2026-02-28 00:00:00",
		"input": "https://example.org/%d", "software_name": "example", "software_version": "1.0", "annotations": {},
		"test_keys": {"blocking": "http-diff", "accessible": false, "requests": [{"failure": null, "request": {"url": "https://example.org/"},
			"response": {"code": 200, "headers": {}, "body": "<html>%s</html>"}}]}}`, cc, n, cc, n%60, n%7, text)
}

// texts are what the pages of websites hold.
var texts = []string{"plain", "one blocked page", "two blocked page"}

// websites submits n of them, of two countries, and one that is kept aside.
func (w *world) websites(s *Service, n int) {
	w.t.Helper()
	for i := range n + 1 {
		w.later(time.Second)
		cc := []string{"IT", "IR"}[i%2]
		if i == n {
			cc = "ZZ"
		}
		if _, err := s.Submit(ctx, access.Anyone, "", Submission{Body: website(w.count("select count(*) from submission"), cc, texts[i%len(texts)])}); err != nil {
			w.t.Fatal(err)
		}
	}
}

func fingerprint(name, pattern string) measurement.Fingerprint {
	return measurement.Fingerprint{Name: name, Scope: "nat", LocationFound: "body", PatternType: "contains", Pattern: pattern, ConfidenceNoFP: 5}
}

// use imports a set and has processes use it.
func (w *world) use(all []measurement.Fingerprint, processes ...*Service) {
	w.t.Helper()
	if _, err := ImportFingerprints(ctx, w.db, "test", all); err != nil {
		w.t.Fatal(err)
	}
	for _, s := range processes {
		if err := s.loadFingerprints(ctx); err != nil {
			w.t.Fatal(err)
		}
	}
}

// tables is everything that rescoring writes, as text.
func (w *world) tables() map[string]string {
	w.t.Helper()
	out := map[string]string{}
	conn := w.connect()
	defer conn.Close(ctx)
	for table, columns := range map[string]string{
		"measurement":        "*",
		"measurement_rollup": "*",
		"verdict":            "uid, anomaly, confirmed, failure, outcome, blocking_type, scores::text, scorer_version, fingerprint_version, evidence::text",
		"event":              "kind, subject, payload::text",
		"faulty_measurement": "kind, uid",
		"pack":               "id, damaged_at",
	} {
		var all string
		where := ""
		if table == "measurement_rollup" {
			where = " where measurement_count <> 0" // what has moved away leaves a row of zeros
		}
		if err := conn.QueryRow(ctx, "select coalesce(string_agg(t::text, e'\\n' order by t::text collate \"C\"), '') from (select "+columns+" from "+table+where+") t").Scan(&all); err != nil {
			w.t.Fatal(err)
		}
		out[table] = all
	}
	return out
}

func (w *world) rescore(s *Service, r Rescoring) Rescored {
	w.t.Helper()
	sum, err := s.Rescore(ctx, r)
	if err != nil {
		w.t.Fatal(err)
	}
	return sum
}

// confirmed are how many measurements are, by the text of their fingerprint.
func (w *world) confirmed(name string) int {
	w.t.Helper()
	return w.count("select count(*) from measurement where confirmed and scores::text like '%' || $1 || '%'", name)
}

// gateway is the address of a real S3 server.
func gateway(tb testing.TB) string {
	tb.Helper()
	return archivetest.StartGateway(tb).URL
}

func TestRescore(t *testing.T) {
	t.Parallel()
	stores := map[string]func(testing.TB) string{
		"a folder":         folder,
		"a real S3 server": gateway,
	}
	for name, store := range stores {
		t.Run("a new set of fingerprints changes what it matches and nothing else, in "+name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := w.archivist(store(t))
			w.use([]measurement.Fingerprint{fingerprint("first", "one blocked page")}, s)
			w.websites(s, 30)
			w.wait(2 * time.Hour)
			if err := s.Pack(ctx); err != nil {
				t.Fatal(err)
			}
			w.websites(s, 12) // these are in the spool
			if n := w.count("select count(*) from body"); n != 13 || w.confirmed("first") != 14 {
				t.Fatalf("%d are in the spool, %d confirmed", n, w.confirmed("first"))
			}
			was := w.tables()
			if sum := w.rescore(s, Rescoring{}); sum.Scored != 0 || sum.Written != 0 {
				t.Errorf("nothing is to be done: %+v", sum)
			}

			w.use([]measurement.Fingerprint{fingerprint("second", "two blocked page")}, s)
			imported := w.tables()
			dry := w.rescore(s, Rescoring{DryRun: true})
			if diff := cmp.Diff(imported, w.tables()); diff != "" {
				t.Errorf("a dry run wrote: %s", diff)
			}
			if sum := w.rescore(s, Rescoring{NoWrite: true}); sum.Scored != 42 || sum.Changed != 0 || cmp.Diff(imported, w.tables()) != "" {
				t.Errorf("scoring alone: %+v", sum)
			}
			changed := map[measurement.ID]bool{}
			sum := w.rescore(s, Rescoring{Changed: func(before, after db.Measurement) {
				changed[after.UID] = before.Confirmed != after.Confirmed && after.Scores != nil
			}})
			if diff := cmp.Diff(dry.Changes, sum.Changes); diff != "" || dry.Written != 42 || dry.Announced != sum.Announced || dry.Scored != 42 {
				t.Errorf("a dry run says otherwise: %s %+v", diff, dry)
			}
			if sum.Scored != 42 || sum.Written != 42 || sum.Changed != 28 || sum.Announced != 28 || sum.Problems != 0 || len(changed) != 28 || sum.PacksDone != sum.Packs {
				t.Errorf("%+v, %d were told", sum, len(changed))
			}
			if w.confirmed("first") != 0 || w.confirmed("second") != 14 || w.count("select count(*) from measurement where fingerprint_version <> 2") != 0 {
				t.Error("verdicts are not those of the new set")
			}
			w.counted(t)
			if n := w.count("select count(*) from verdict v join measurement m using (uid) where v.fingerprint_version = 1 and v.confirmed <> m.confirmed"); n != 28 || n != w.count("select count(*) from verdict") {
				t.Errorf("%d earlier verdicts are kept", n)
			}
			told := w.log(events.MeasurementRescored)
			if len(told) != 28 || !strings.Contains(string(told[0].Payload), `"before":{`) {
				t.Errorf("%d were announced", len(told))
			}
			now := w.tables()
			if sum := w.rescore(s, Rescoring{}); sum.Scored != 0 || cmp.Diff(now, w.tables()) != "" {
				t.Errorf("a second run: %+v", sum)
			}
			if sum := w.rescore(s, Rescoring{All: true}); sum.Scored != 42 || sum.Written != 0 || cmp.Diff(now, w.tables()) != "" {
				t.Errorf("a second run over all: %+v", sum)
			}

			// And back again, under another number.
			w.use([]measurement.Fingerprint{fingerprint("first", "one blocked page")}, s)
			w.rescore(s, Rescoring{})
			w.counted(t)
			back := w.tables()
			if diff := cmp.Diff(was["measurement_rollup"], back["measurement_rollup"]); diff != "" {
				t.Error(diff)
			}
			w.sql("update measurement set fingerprint_version = 1")
			if diff := cmp.Diff(was["measurement"], w.tables()["measurement"]); diff != "" {
				t.Error(diff)
			}
			for _, uid := range slices.Collect(maps.Keys(changed))[:1] {
				earlier, err := w.db.EarlierVerdicts(ctx, []measurement.ID{uid}, 1)
				if err != nil || len(earlier[uid]) != 1 || earlier[uid][0].FingerprintVersion != 2 {
					t.Errorf("%+v %v", earlier, err)
				}
			}
		})
	}

	t.Run("only what was asked for is rescored", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.archivist(folder(t))
		w.websites(s, 10) // one each second from start + 1 s
		if _, err := s.Submit(ctx, access.Anyone, "", Submission{Body: body(1)}); err != nil {
			t.Fatal(err)
		}
		packed := false
		for range 2 {
			w.use([]measurement.Fingerprint{fingerprint("first", "one blocked page")}, s)
			since, until := start.Add(3*time.Second), start.Add(6*time.Second)
			for _, c := range []struct {
				r    Rescoring
				want int
			}{
				{Rescoring{}, 11},
				{Rescoring{Since: &since, Until: &until}, 3},
				{Rescoring{Since: &since}, 9},
				{Rescoring{Countries: []string{"IR"}}, 5},
				{Rescoring{TestNames: []string{"signal"}}, 1},
				{Rescoring{TestNames: []string{"web_connectivity"}, Countries: []string{"IT", "DE"}}, 5},
				{Rescoring{TestNames: []string{"webconnectivity"}}, 0},
			} {
				c.r.DryRun = true
				if sum := w.rescore(s, c.r); sum.Scored != c.want {
					t.Errorf("packed: %t, %+v: %d", packed, c.r, sum.Scored)
				}
			}
			w.wait(2 * time.Hour)
			if err := s.Pack(ctx); err != nil {
				t.Fatal(err)
			}
			packed = true
		}
	})

	t.Run("what a newer set judged stays, whoever comes late", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		late, s := w.process(), w.process()
		w.use([]measurement.Fingerprint{fingerprint("first", "one blocked page")}, late)
		w.use([]measurement.Fingerprint{fingerprint("second", "two blocked page")}, s)
		w.websites(s, 6)
		was := w.tables()
		if sum := w.rescore(late, Rescoring{All: true}); sum.Scored != 0 {
			t.Errorf("%+v", sum)
		}
		if diff := cmp.Diff(was, w.tables()); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("a run that ends anywhere is gone on with, and ends as one run does, beside others and live traffic", func(t *testing.T) {
		t.Parallel()
		one, many := newWorld(t), newWorld(t)
		for _, w := range []*world{one, many} {
			s := w.archivist(folder(t))
			w.websites(s, 120)
			w.wait(2 * time.Hour)
			if err := s.Pack(ctx); err != nil {
				t.Fatal(err)
			}
			w.websites(s, 40)
			live := w.process() // it does not hear of the new set: what it scores is old at once
			w.use([]measurement.Fingerprint{fingerprint("first", "one blocked page")}, s)
			if w == one {
				w.rescore(s, Rescoring{})
				continue
			}
			var others sync.WaitGroup
			begun, over := make(chan struct{}), make(chan struct{})
			others.Go(func() {
				for n := 1000; ; n++ {
					if n == 1020 {
						close(begun)
					}
					select {
					case <-over:
						return
					default:
					}
					if _, err := live.Submit(ctx, access.Anyone, "", Submission{Body: website(n, "DE", texts[n%3])}); err != nil {
						t.Error(err)
					}
				}
			})
			<-begun
			for range 2 {
				others.Go(func() {
					for tries := 0; tries < 1000; tries++ {
						ending, end := context.WithCancel(ctx)
						left := rand.IntN(6)
						_, err := s.Rescore(ending, Rescoring{Progress: func(Rescored) {
							if left--; left < 0 {
								end()
							}
						}})
						end()
						if err == nil {
							return
						}
						if !errors.Is(err, context.Canceled) {
							t.Error(err)
							return
						}
					}
				})
			}
			w.rescore(s, Rescoring{})
			close(over)
			others.Wait()
			w.counted(t)
			w.rescore(s, Rescoring{})
			w.counted(t)
			if n := w.count("select count(*) from measurement where country = 'DE' and fingerprint_version is null"); n > 0 {
				t.Errorf("%d of those that came meanwhile were not rescored", n)
			}
			w.sql("delete from measurement where country = 'DE'")
			w.sql("delete from verdict where country = 'DE'")
			w.sql("delete from event where country = 'DE'")
		}
		want, got := one.tables(), many.tables()
		for _, table := range []string{"measurement", "verdict"} {
			if diff := cmp.Diff(strings.Split(want[table], "\n"), strings.Split(got[table], "\n")); diff != "" {
				t.Errorf("%s: %s", table, diff)
			}
		}
		if a, b := len(one.log(events.MeasurementRescored)), len(many.log(events.MeasurementRescored)); a == 0 || a != b {
			t.Errorf("announced were %d and %d", a, b)
		}
	})

	t.Run("what cannot be judged any more keeps its verdict and is reported", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		dir := t.TempDir()
		s := w.archivist(archive.FolderURL(dir))
		w.websites(s, 40)
		w.wait(2 * time.Hour)
		if err := s.Pack(ctx); err != nil {
			t.Fatal(err)
		}
		w.websites(s, 3)
		w.use([]measurement.Fingerprint{fingerprint("first", "one blocked page")}, s)
		s.settings.Limits.MaxBytes = 10 // nothing is parsed
		was := w.tables()
		sum := w.rescore(s, Rescoring{})
		if sum.Problems != 43 || sum.Written != 0 || len(sum.ProblemExamples) != maxExamples || !strings.Contains(sum.ProblemExamples[0], "cannot be parsed") {
			t.Errorf("%+v", sum)
		}
		if diff := cmp.Diff(was, w.tables()); diff != "" {
			t.Error(diff)
		}
		s.settings.Limits.MaxBytes = 0
		for i, name := range w.packs() {
			path := filepath.Join(dir, name+archive.PostsSuffix)
			if i == 0 {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				continue
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 0x40
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		sum = w.rescore(s, Rescoring{})
		if sum.Problems < 2 || sum.Written < 3+1 || sum.Written > 3+19 || w.count("select count(*) from pack where damaged_at is not null") < 2 {
			t.Errorf("%+v", sum)
		}
		w.counted(t)
	})
}

// packs are the names of all.
func (w *world) packs() (names []string) {
	w.t.Helper()
	all, err := w.db.Packs(ctx, db.PackQuery{}, db.Page{N: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, p := range all {
		names = append(names, p.Name)
	}
	return names
}

func TestTryFingerprints(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.archivist(folder(t))
	w.use([]measurement.Fingerprint{fingerprint("first", "one blocked page"), fingerprint("same", "page")}, s)
	w.websites(s, 30)
	w.wait(2 * time.Hour)
	if err := s.Pack(ctx); err != nil {
		t.Fatal(err)
	}
	w.websites(s, 12)
	was := w.tables()
	candidate := []measurement.Fingerprint{fingerprint("second", "plain"), fingerprint("same", "page")}
	got, err := s.TryFingerprints(ctx, candidate, FingerprintTrial{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]Found{"first": {14, 0}, "second": {0, 14}}, got.Matches); diff != "" || got.Scored != 42 || got.InUse != 1 {
		t.Errorf("%s %+v", diff, got)
	}
	// Those with "one blocked page" stay confirmed by the other one: their scores differ.
	want := map[Change]int{}
	for cc := range map[string]bool{"IT": true, "IR": true} {
		c := Change{Country: country.Code(cc), TestName: "web_connectivity", Before: "CONFIRMED", After: "CONFIRMED", BeforeIs: measurement.Blocked, AfterIs: measurement.Blocked, Of: "scores"}
		want[c] = 7
		c.Before, c.BeforeIs, c.Of = "ANOMALY", measurement.Insufficient, ""
		want[c] = 7
	}
	if diff := cmp.Diff(want, got.Changes); diff != "" {
		t.Error(diff)
	}
	if got, err := s.TryFingerprints(ctx, candidate, FingerprintTrial{Limit: 20, Countries: []string{"IT"}}); err != nil || got.Scored != 20 {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := s.TryFingerprints(ctx, []measurement.Fingerprint{{Name: "x", LocationFound: "body", PatternType: "full"}}, FingerprintTrial{}); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	if diff := cmp.Diff(was, w.tables()); diff != "" {
		t.Error(diff)
	}
}
