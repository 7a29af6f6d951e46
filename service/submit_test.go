package service

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
)

// stored are the tables that one submission with an idempotency key writes to.
var stored = []string{"submission", "measurement", "body", "event", "idempotency", "measurement_rollup"}

// refuse has the database fail on a row of the table for which the condition holds.
func (w *world) refuse(table, when string, deferred bool) {
	w.t.Helper()
	kind := "trigger refuse before insert on " + table
	if deferred {
		kind = "constraint trigger refuse after insert on " + table + " deferrable initially deferred"
	}
	w.sql(`create or replace function refuse() returns trigger language plpgsql as $$ begin raise exception 'refused'; end $$;
		create ` + kind + " for each row when (" + when + ") execute function refuse()")
}

func (w *world) rows() map[string]int {
	w.t.Helper()
	n := map[string]int{}
	for _, table := range stored {
		n[table] = w.count("select count(*) from " + table)
	}
	return n
}

func TestSubmit(t *testing.T) {
	t.Parallel()

	t.Run("all of it is one transaction, wherever it fails", func(t *testing.T) {
		t.Parallel()
		for _, table := range stored {
			for _, deferred := range []bool{false, true} {
				t.Run(fmt.Sprint(table, ", at the commit: ", deferred), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t)
					s := w.process()
					w.refuse(table, "true", deferred)
					if _, err := s.Submit(ctx, access.Anyone, "k", Submission{Body: body(1)}); !fault.Is(err, fault.Internal) {
						t.Errorf("got %v", err)
					}
					for table, n := range w.rows() {
						if n != 0 {
							t.Errorf("%d rows are left in %s", n, table)
						}
					}
					w.sql("drop function refuse cascade")
					got, err := s.Submit(ctx, access.Anyone, "k", Submission{Body: body(1)})
					if err != nil || got.Duplicate {
						t.Errorf("the next try: %+v %v", got, err)
					}
					for table, n := range w.rows() {
						if n != 1 {
							t.Errorf("%d rows are in %s", n, table)
						}
					}
				})
			}
		}
	})

	t.Run("a body that cannot be stored does not spoil those beside it", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.process()
		w.refuse("measurement", "new.report_id like '%00000003'", false)
		var batch []*submission
		for n := range 6 {
			item, err := s.judge(access.Anyone, Submission{Body: body(n)}, sha256.Sum256(body(n)), w.db.Now())
			if err != nil {
				t.Fatal(err)
			}
			batch = append(batch, item)
		}
		s.takeSubmissions(ctx, batch)
		for _, item := range batch {
			<-item.ready
			if bad := strings.HasSuffix(item.row.ReportID, "3"); bad != (item.err != nil) {
				t.Errorf("%s: %v", item.row.ReportID, item.err)
			}
		}
		if n := w.rows(); n["measurement"] != 5 || n["event"] != 5 || n["submission"] != 5 || n["body"] != 5 {
			t.Errorf("stored: %v", n)
		}
	})

	t.Run("what is stored is what was sent, and is announced", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.process()
		p := w.register(s, "DE", 3320)
		got, err := s.Submit(ctx, self(p), "", Submission{Body: body(1)})
		if err != nil {
			t.Fatal(err)
		}
		m, err := w.db.Measurement(ctx, got.UID)
		if err != nil || m.Provenance != db.FromProbe || m.ProbeID != p.ID || m.BodySize != len(body(1)) || m.BodySHA256 != sha256.Sum256(body(1)) {
			t.Errorf("%+v %v", m, err)
		}
		if b, err := s.Body(ctx, got.UID); err != nil || !bytes.Equal(b, body(1)) {
			t.Errorf("another body: %q %v", b, err)
		}
		told := w.log(events.MeasurementScored)
		if len(told) != 1 || told[0].Subject != "msm_"+string(got.UID) || told[0].Country != "DE" || !told[0].OccurredAt.Equal(start) {
			t.Errorf("told was %+v", told)
		}
	})

	t.Run("the same body from many at once is one measurement", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		servers := []*Service{w.process(), w.process()}
		const senders, bodies = 12, 5
		var mu sync.Mutex
		uids := map[int]map[measurement.ID]int{}
		fresh := 0
		var every sync.WaitGroup
		for i := range senders {
			for n := range bodies {
				every.Go(func() {
					got, err := servers[i%2].Submit(ctx, access.Anyone, "", Submission{Body: body(n)})
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						t.Error(err)
					}
					if uids[n] == nil {
						uids[n] = map[measurement.ID]int{}
					}
					uids[n][got.UID]++
					if !got.Duplicate {
						fresh++
					}
				})
			}
		}
		every.Wait()
		for n, seen := range uids {
			if len(seen) != 1 {
				t.Errorf("body %d has the uids %v", n, seen)
			}
		}
		if n := w.rows(); fresh != bodies || n["measurement"] != bodies || n["body"] != bodies || n["event"] != bodies {
			t.Errorf("%d were fresh, stored are %v", fresh, n)
		}
	})

	t.Run("the same body from a probe and from anybody are two", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.process()
		p := w.register(s, "DE", 3320)
		uids := map[measurement.ID]bool{}
		for _, who := range []access.Principal{self(p), access.Anyone, self(p), access.Anyone} {
			w.wait(time.Second)
			got, err := s.Submit(ctx, who, "", Submission{Body: body(1)})
			if err != nil {
				t.Fatal(err)
			}
			uids[got.UID] = true
		}
		if len(uids) != 2 {
			t.Errorf("%v", uids)
		}
	})

	t.Run("the same body from two senders at the same microsecond is two, and neither spoils what is beside it", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.process()
		p := w.register(s, "DE", 3320)
		uids := map[measurement.ID]int{}
		for again := range 2 {
			for _, who := range []access.Principal{self(p), access.Anyone} {
				for _, d := range s.SubmitAll(ctx, who, []string{"", ""}, []Submission{{Body: body(1)}, {Body: body(2)}}) {
					if d.Err != nil || d.Duplicate != (again == 1) {
						t.Error(d)
					}
					uids[d.UID]++
				}
			}
		}
		for uid, n := range uids {
			if got, err := s.Body(ctx, uid); n != 2 || err != nil || !bytes.Equal(got, body(1)) && !bytes.Equal(got, body(2)) {
				t.Errorf("%s was answered %d times, %v", uid, n, err)
			}
		}
		if n := w.rows(); len(uids) != 4 || n["measurement"] != 4 || n["body"] != 4 || n["submission"] != 4 {
			t.Errorf("%v, and stored are %v", uids, n)
		}
	})

	t.Run("what retention has dropped is accepted anew", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.process()
		discarded := bytes.Replace(body(2), []byte(`"DE"`), []byte(`"ZZ"`), 1)
		send := func() (uids []measurement.ID, duplicates int) {
			for _, b := range [][]byte{body(1), discarded} {
				got, err := s.Submit(ctx, access.Anyone, "", Submission{Body: b})
				if err != nil {
					t.Fatal(err)
				}
				uids = append(uids, got.UID)
				if got.Duplicate {
					duplicates++
				}
			}
			return uids, duplicates
		}
		first, _ := send()
		w.wait(62 * 24 * time.Hour)
		if again, duplicates := send(); duplicates != 2 || again[0] != first[0] {
			t.Fatalf("before retention: %v %d", again, duplicates)
		}
		limit := w.db.Now().Add(-24 * time.Hour)
		keep := map[string]time.Time{"measurement": limit, "body": limit, "discarded_submission": limit}
		if _, err := w.db.DropPartitions(ctx, keep); err != nil {
			t.Fatal(err)
		}
		if anew, duplicates := send(); duplicates != 0 || anew[0] == first[0] || anew[1] == first[1] {
			t.Errorf("after retention: %v %d", anew, duplicates)
		}
	})

	t.Run("a body that is kept aside is no measurement", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.process()
		b := bytes.Replace(body(1), []byte(`"DE"`), []byte(`"ZZ"`), 1)
		got, err := s.Submit(ctx, access.Anyone, "", Submission{Body: b})
		if err != nil || got.Discarded != measurement.CountryUnknown {
			t.Fatalf("%+v %v", got, err)
		}
		if d, err := w.db.Discarded(ctx, got.UID); err != nil || d.Reason != measurement.CountryUnknown {
			t.Errorf("%+v %v", d, err)
		}
		if _, err := w.db.Measurement(ctx, got.UID); !fault.Is(err, fault.NotFound) {
			t.Errorf("as a measurement: %v", err)
		}
		if told := w.log(); len(told) != 1 || told[0].Kind != events.SubmissionDiscarded || told[0].Country != "" {
			t.Errorf("told was %+v", told)
		}
	})

	t.Run("an archived body is judged and dated as of then, by staff alone", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.process()
		then := time.Date(2019, 5, 4, 3, 2, 1, 0, time.UTC)
		got, err := s.Submit(ctx, staff, "", Submission{Body: body(1), ReceivedAt: then})
		if err != nil {
			t.Fatal(err)
		}
		m, err := w.db.Measurement(ctx, got.UID)
		if err != nil || m.Provenance != db.FromArchive || !m.ReceivedAt.Equal(then) {
			t.Errorf("%+v %v", m, err)
		}
		for want, sub := range map[fault.Code]struct {
			by access.Principal
			at time.Time
		}{
			fault.Unauthenticated: {access.Anyone, then},
			fault.Forbidden:       {access.Principal{Role: access.Researcher, TokenID: 2}, then},
			fault.Invalid:         {staff, start.Add(time.Second)},
		} {
			_, err := s.Submit(ctx, sub.by, "", Submission{Body: body(2), ReceivedAt: sub.at})
			if !fault.Is(err, want) || fault.Of(err).Field != "input.receivedAt" {
				t.Errorf("got %v, not %s", err, want)
			}
		}
	})

	t.Run("a probe's measurements say how far they count", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.process()
		s.settings.AutoActivate, s.settings.OpenCollector = false, false
		p := w.register(s, "DE", 3320)
		provenance := func(n int) db.Provenance {
			got, err := s.Submit(ctx, self(p), "", Submission{Body: body(n)})
			if err != nil {
				t.Fatal(err)
			}
			m, err := w.db.Measurement(ctx, got.UID)
			if err != nil {
				t.Fatal(err)
			}
			return m.Provenance
		}
		if got := provenance(1); got != db.FromInactiveProbe {
			t.Errorf("PENDING: %s", got)
		}
		if _, err := s.Activate(ctx, staff, "", p.ID); err != nil {
			t.Fatal(err)
		}
		if got := provenance(2); got != db.FromProbe {
			t.Errorf("ACTIVE: %s", got)
		}
		if _, err := s.Retire(ctx, staff, "", p.ID, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Submit(ctx, self(p), "", Submission{Body: body(3)}); !fault.Is(err, fault.Forbidden) {
			t.Errorf("INACTIVE: %v", err)
		}
		if _, err := s.Submit(ctx, access.Anyone, "", Submission{Body: body(3)}); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("anybody at a closed collector: %v", err)
		}
		if n := w.rows()["measurement"]; n != 2 {
			t.Errorf("%d measurements", n)
		}
	})

	t.Run("nonsense is INVALID and leaves nothing", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.process()
		for _, b := range []string{"", "{", "[]", `{"test_name": 7}`} {
			_, err := s.Submit(ctx, access.Anyone, "k"+b, Submission{Body: []byte(b)})
			if !fault.Is(err, fault.Invalid) || !strings.HasPrefix(fault.Of(err).Field, "input.") {
				t.Errorf("%q: %v", b, err)
			}
		}
		for table, n := range w.rows() {
			if n != 0 {
				t.Errorf("%d rows in %s", n, table)
			}
		}
	})
}

func TestFingerprintsReachEveryProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	servers := []*Service{w.run(w.process()), w.run(w.process())}
	submit := func(s *Service, n int) int {
		t.Helper()
		got, err := s.Submit(ctx, access.Anyone, "", Submission{Body: body(n)})
		if err != nil {
			t.Fatal(err)
		}
		m, err := w.db.Measurement(ctx, got.UID)
		if err != nil {
			t.Fatal(err)
		}
		return m.FingerprintVersion
	}
	if v := submit(servers[0], 0); v != 0 {
		t.Errorf("without fingerprints the row says %d", v)
	}
	for round := 1; round <= 2; round++ {
		before, _ := servers[0].Here()
		set, err := ImportFingerprints(ctx, w.db, "test", []measurement.Fingerprint{
			{Name: "a", Scope: "nat", LocationFound: "dns", PatternType: "full", Pattern: "192.0.2.1"},
			{Name: "b", Scope: "nat", LocationFound: "body", PatternType: "contains", Pattern: "blocked"},
		})
		if err != nil || set.Version != round || set.DNS != 1 || set.HTTP != 1 {
			t.Fatalf("%+v %v", set, err)
		}
		for i, s := range servers {
			// Told is loaded: the relay swaps before it announces.
			err := follow(ctx, s, &before, func(e events.Event) bool { return e.Kind != events.FingerprintsImported })
			if err != nil {
				t.Fatal(err)
			}
			if v := submit(s, 10*round+i); v != round {
				t.Errorf("process %d scored with set %d, not %d", i, v, round)
			}
		}
	}
	if s := w.process(); s.fingerprints.Load().version != 2 {
		t.Errorf("a new process begins with set %d", s.fingerprints.Load().version)
	}
	_, err := ImportFingerprints(ctx, w.db, "test", []measurement.Fingerprint{{Name: "x", LocationFound: "header.server", PatternType: "full", Pattern: ""}})
	if !fault.Is(err, fault.Invalid) || w.count("select count(*) from fingerprint_set") != 2 {
		t.Errorf("a pattern that cannot be compiled: %v", err)
	}
}
