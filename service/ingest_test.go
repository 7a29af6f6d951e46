package service

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/probe"
)

// counted fails unless the rollup says what a recount says.
func (w *world) counted(t interface{ Errorf(string, ...any) }) {
	w.t.Helper()
	drift, err := w.db.RollupDrift(ctx)
	if err != nil || len(drift) > 0 {
		t.Errorf("the rollup differs by %+v %v", drift, err)
	}
}

// Whatever comes, over whichever process, alone or with others: what is acknowledged is there
// once, and counted.
func TestIngest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	servers := []*Service{w.process(), w.process()}
	p := w.register(servers[0], "DE", 3320)
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		w.later(time.Second) // no two senders have one uid
		type part struct{ bodies []int }
		var parts []part
		for range rapid.IntRange(1, 5).Draw(t, "callers") {
			parts = append(parts, part{rapid.SliceOfN(rapid.IntRange(0, 7), 1, 4).Draw(t, "bodies")})
		}
		uids := make([]map[int]measurement.ID, len(parts))
		var all sync.WaitGroup
		for i, c := range parts {
			uids[i] = map[int]measurement.ID{}
			all.Go(func() {
				subs, keys := make([]Submission, len(c.bodies)), make([]string, len(c.bodies))
				for n, b := range c.bodies {
					subs[n].Body, subs[n].Observed = variant(100*round+b, b), probe.Place{Country: "FR", ASN: 3215}
				}
				for n, done := range servers[i%2].SubmitAll(ctx, self(p), keys, subs) {
					if done.Err != nil || (done.Discarded != "") != (c.bodies[n] == 7) {
						t.Errorf("body %d: %+v", c.bodies[n], done)
					}
					if before, ok := uids[i][c.bodies[n]]; ok && before != done.UID {
						t.Errorf("body %d is %s and %s", c.bodies[n], before, done.UID)
					}
					uids[i][c.bodies[n]] = done.UID
				}
			})
		}
		all.Wait()
		known := map[int]measurement.ID{}
		for _, own := range uids {
			for b, uid := range own {
				if before, ok := known[b]; ok && before != uid {
					t.Errorf("body %d is %s and %s", b, before, uid)
				}
				known[b] = uid
			}
		}
		for b, uid := range known {
			if stored, err := servers[0].Body(ctx, uid); err != nil || !bytes.Equal(stored, variant(100*round+b, b)) {
				t.Errorf("body %d is lost: %v", b, err)
			}
			faults, err := w.db.FaultsOf(ctx, []measurement.ID{uid})
			if want := 1; err != nil || b != 7 && len(faults[uid]) != want {
				t.Errorf("body %d has the faults %+v %v", b, faults[uid], err)
			}
		}
		w.counted(t)
	})
	n := w.rows()
	told := len(w.log(events.MeasurementScored, events.SubmissionDiscarded))
	if n["measurement"]+w.count("select count(*) from discarded_submission") != n["submission"] || n["submission"] != n["body"] || n["body"] != told {
		t.Errorf("stored are %v, told was of %d", n, told)
	}
}

// variant is a body with one of several outcomes and days; kind 7 is kept aside.
func variant(n, kind int) []byte {
	b := bytes.Replace(body(n), []byte("2026-02-28 00:00:00"), fmt.Appendf(nil, "2026-03-01 00:00:%02d", kind), 1)
	switch kind {
	case 1:
		return bytes.Replace(b, []byte(`"ok"`), []byte(`"blocked"`), 1)
	case 2:
		return bytes.Replace(b, []byte(`"ok"`), []byte(`"other"`), 1)
	case 3:
		return bytes.Replace(b, []byte(`"input": null`), []byte(`"input": "https://example.org/"`), 1)
	case 7:
		return bytes.Replace(b, []byte(`"DE"`), []byte(`"ZZ"`), 1)
	}
	return b
}

func TestSubmitAll(t *testing.T) {
	t.Parallel()

	t.Run("each body has its own outcome, and its own key", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.process()
		bodies := [][]byte{body(1), body(1), []byte("{"), body(2), body(3)}
		subs := make([]Submission, len(bodies))
		for i, b := range bodies {
			subs[i].Body = b
		}
		keys := []string{"a", "b", "c", "d", "d"}
		for range 2 { // the second time all is recalled
			done := s.SubmitAll(ctx, access.Anyone, keys, subs)
			if done[0].Err != nil || done[0].Duplicate || !done[1].Duplicate || done[0].UID != done[1].UID {
				t.Errorf("one body twice: %+v", done[:2])
			}
			if !fault.Is(done[2].Err, fault.Invalid) || done[3].Err != nil || done[3].Duplicate {
				t.Errorf("%+v", done[2:4])
			}
			if !fault.Is(done[4].Err, fault.Conflict) {
				t.Errorf("another body with a key in use: %+v", done[4])
			}
		}
		if n := w.rows(); n["measurement"] != 2 || n["idempotency"] != 3 {
			t.Errorf("stored are %v", n)
		}
	})
}

func TestFullQueue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.process()
	refused := make(chan struct{}, 100)
	s.submissions = newBatcher(1, queueLimits{batch: 4, batchBytes: 1 << 20, queue: 3, queueBytes: 1 << 20}, func() { refused <- struct{}{} }, s.takeSubmissions)
	blocker := w.connect()
	defer blocker.Close(ctx)
	if _, err := blocker.Exec(ctx, "begin; lock table measurement in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	submit := func(n int) {
		all.Go(func() {
			if _, err := s.Submit(ctx, access.Anyone, "", Submission{Body: body(n)}); err != nil {
				t.Errorf("body %d: %v", n, err)
			}
		})
	}
	submit(0)
	eventually(t, func() bool {
		return w.count("select count(*) from pg_locks where not granted and relation = 'measurement'::regclass") == 1
	})
	for n := range 3 {
		submit(n + 1)
	}
	eventually(t, func() bool { n, _ := s.Waiting(); return n == 3 })
	_, err := s.Submit(ctx, access.Anyone, "", Submission{Body: body(9)})
	if f := fault.Of(err); !fault.Is(err, fault.Unavailable) || f.RetryAfter < time.Second {
		t.Errorf("at a full queue: %v", err)
	}
	for _, done := range s.SubmitAll(ctx, access.Anyone, []string{"", ""}, []Submission{{Body: body(10)}, {Body: body(11)}}) {
		if !fault.Is(done.Err, fault.Unavailable) {
			t.Errorf("two more: %+v", done)
		}
	}
	if len(refused) != 2 {
		t.Errorf("%d refusals were counted", len(refused))
	}
	if _, err := blocker.Exec(ctx, "rollback"); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	if n := w.rows(); n["measurement"] != 4 || n["submission"] != 4 {
		t.Errorf("stored are %v", n)
	}
	if _, err := s.Submit(ctx, access.Anyone, "", Submission{Body: body(9)}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	w.counted(t)
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(end) {
			t.Fatal("it never came to be")
		}
	}
}

func TestLostConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.process()
	blocker := w.connect()
	defer blocker.Close(ctx)
	if _, err := blocker.Exec(ctx, "begin; lock table body in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := s.Submit(ctx, access.Anyone, "k", Submission{Body: body(1)})
		failed <- err
	}()
	waiting := "from pg_locks where not granted and relation = 'body'::regclass"
	eventually(t, func() bool { return w.count("select count(*) "+waiting) == 1 })
	w.sql("select pg_terminate_backend(pid) " + waiting) // with the measurement written, the body not
	if err := <-failed; !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v", err)
	}
	if _, err := blocker.Exec(ctx, "rollback"); err != nil {
		t.Fatal(err)
	}
	for table, n := range w.rows() {
		if n != 0 {
			t.Errorf("%d rows are left in %s", n, table)
		}
	}
	if got, err := s.Submit(ctx, access.Anyone, "k", Submission{Body: body(1)}); err != nil || got.Duplicate {
		t.Errorf("the next try: %+v %v", got, err)
	}
	w.counted(t)
}

func TestVolumeFaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.process()
	write := func(n int, asn uint32) {
		var rows []db.Measurement
		for i := range n {
			at := w.db.Now().Add(time.Duration(i) * time.Microsecond)
			m := db.Measurement{ReceivedAt: at, Country: "DE", Scores: []byte("{}"), Provenance: db.FromAnyone}
			m.UID = measurement.NewID(at, "DE", "signal", fmt.Appendf(nil, "%d %d", asn, i))
			m.SoftwareName = fmt.Sprint(asn)
			rows = append(rows, m)
		}
		w.write(func(ctx context.Context, tx *db.Tx) error { return tx.InsertMeasurements(ctx, rows...) })
	}
	write(measurement.VolumeLimit, 1)
	w.later(time.Second)
	write(measurement.VolumeLimit-1, 2)
	w.later(time.Minute)
	for range 2 { // a job may run again
		if err := s.FindVolumeFaults(ctx); err != nil {
			t.Fatal(err)
		}
	}
	found, err := w.db.FaultyMeasurements(ctx, db.FaultyQuery{Kinds: []string{string(measurement.Volume)}}, db.Page{N: 10})
	if err != nil || len(found) != 1 || !found[0].FoundAt.Equal(start.Add(time.Minute)) || !bytes.Contains(found[0].Details, []byte(`"measurements" : 200`)) {
		t.Errorf("found %+v %v", found, err)
	}
}
