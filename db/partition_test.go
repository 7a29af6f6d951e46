package db_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/db/dbtest"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
)

const listPartitions = "select relname::text from pg_class where relispartition and relkind = 'r' order by 1"

func TestMakePartitions(t *testing.T) {
	t.Parallel()

	t.Run("they are made ahead, and once", func(t *testing.T) {
		t.Parallel()
		url := dbtest.New(t)
		d := connect(t, url)
		at := time.Date(2026, 12, 30, 23, 59, 59, 0, time.UTC)
		if n, err := d.MakePartitions(t.Context(), at); n != 28 || err != nil {
			t.Fatalf("%d were made: %v", n, err)
		}
		want := []string{
			"body_20261201", "body_20270101", "cause_evaluation_20261201", "cause_evaluation_20270101", "discarded_submission_20261201", "discarded_submission_20270101",
			"event_20261201", "event_20270101", "faulty_measurement_20261201", "faulty_measurement_20270101",
			"heartbeat_20261230", "heartbeat_20261231", "heartbeat_20270101", "heartbeat_20270102",
			"measurement_20261201", "measurement_20270101", "measurement_rollup_20261201", "measurement_rollup_20270101",
			"packed_body_20261201", "packed_body_20270101",
			"probe_conduct_20261230", "probe_conduct_20261231", "probe_conduct_20270101", "probe_conduct_20270102",
			"quality_20261201", "quality_20270101", "verdict_20261201", "verdict_20270101",
		}
		if diff := cmp.Diff(want, query[string](t, raw(t, url), listPartitions)); diff != "" {
			t.Error(diff)
		}
		if n, err := d.MakePartitions(t.Context(), at); n != 0 || err != nil {
			t.Errorf("%d were made again: %v", n, err)
		}
		if n, err := connect(t, url).MakePartitions(t.Context(), at); n != 0 || err != nil {
			t.Errorf("another process made %d again: %v", n, err)
		}
	})

	t.Run("sixteen at a time on demand make each of them once", func(t *testing.T) {
		t.Parallel()
		url := dbtest.New(t)
		processes := []*db.DB{connect(t, url), connect(t, url), connect(t, url), connect(t, url)}
		begin := make(chan struct{})
		var made atomic.Int64
		var all sync.WaitGroup
		for i := range 16 {
			all.Go(func() {
				<-begin
				d := processes[i%len(processes)]
				if err := d.MakePartitionsFor(t.Context(), now.AddDate(-10, 0, 0), now.AddDate(-11, 0, 0), now); err != nil {
					t.Error(err)
				}
				n, err := d.MakePartitions(t.Context(), now.AddDate(1, 0, 0))
				if err != nil {
					t.Error(err)
				}
				made.Add(int64(n))
			})
		}
		close(begin)
		all.Wait()
		if made.Load() != 28 {
			t.Errorf("%d were said to be made", made.Load())
		}
		if n := len(query[string](t, raw(t, url), listPartitions)); n != 28+18 {
			t.Errorf("%d partitions are there", n)
		}
	})

	t.Run("writers are not held up", func(t *testing.T) {
		t.Parallel()
		d, url := open(t)
		other := connect(t, url)
		write(t, d, func(ctx context.Context, tx *db.Tx) error {
			if err := tx.InsertBodies(ctx, db.CompressedBody{UID: "x", ReceivedAt: now, Country: "DE", Data: []byte{0}}); err != nil {
				return err
			}
			return other.MakePartitionsFor(ctx, now.AddDate(-1, 0, 0)) // while the table is being written
		})
	})
}

func TestDropPartitions(t *testing.T) {
	t.Parallel()
	keepAll := func(limit time.Time) map[string]time.Time {
		keep := map[string]time.Time{}
		for _, table := range []string{"heartbeat", "probe_conduct", "quality", "measurement", "body", "discarded_submission", "verdict", "faulty_measurement", "cause_evaluation", "event"} {
			keep[table] = limit
		}
		return keep
	}

	t.Run("what is kept for ever stays", func(t *testing.T) {
		t.Parallel()
		d, url := open(t)
		before := query[string](t, raw(t, url), listPartitions)
		dropped, err := d.DropPartitions(t.Context(), map[string]time.Time{"event": {}})
		if len(dropped) > 0 || err != nil {
			t.Errorf("dropped %q, %v", dropped, err)
		}
		if diff := cmp.Diff(before, query[string](t, raw(t, url), listPartitions)); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("a partition goes when the last instant of it is past the limit", func(t *testing.T) {
		t.Parallel()
		d, _ := open(t)
		until := time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)
		dropped, err := d.DropPartitions(t.Context(), map[string]time.Time{"event": until.Add(-time.Microsecond)})
		if len(dropped) > 0 || err != nil {
			t.Fatalf("dropped %q, %v", dropped, err)
		}
		dropped, err = d.DropPartitions(t.Context(), map[string]time.Time{"event": until})
		if diff := cmp.Diff([]string{"event_20260301"}, dropped); diff != "" || err != nil {
			t.Errorf("%s %v", diff, err)
		}
	})

	t.Run("bodies that are not archived stay, and go once they are", func(t *testing.T) {
		t.Parallel()
		d, url := open(t)
		write(t, d, func(ctx context.Context, tx *db.Tx) error {
			return tx.InsertBodies(ctx, db.CompressedBody{UID: "x", ReceivedAt: now, Country: "DE", Data: []byte{0}})
		})
		later := map[string]time.Time{"body": now.AddDate(1, 0, 0), "measurement": now.AddDate(1, 0, 0)}
		month := "body_" + now.Format("200601") + "01"
		dropped, err := d.DropPartitions(t.Context(), later)
		if err != nil || slices.Contains(dropped, month) || len(dropped) == 0 {
			t.Errorf("dropped %q, %v", dropped, err)
		}
		query[string](t, raw(t, url), "delete from body returning uid")
		if dropped, err = d.DropPartitions(t.Context(), later); err != nil || !slices.Contains(dropped, month) {
			t.Errorf("dropped %q, %v", dropped, err)
		}
	})

	t.Run("the floor of the log rises and submissions are forgotten", func(t *testing.T) {
		t.Parallel()
		url := dbtest.New(t)
		at := now.AddDate(0, -3, 0)
		d, err := db.Open(t.Context(), url, db.Options{Clock: func() time.Time { return at }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(d.Close)
		submit := func(n byte) (m, discarded measurement.ID) {
			if _, err := d.MakePartitions(t.Context(), at); err != nil {
				t.Fatal(err)
			}
			m, discarded = measurement.NewID(at, "DE", "signal", []byte{n}), measurement.NewID(at, "ZZ", "signal", []byte{n, n})
			write(t, d, func(ctx context.Context, tx *db.Tx) error {
				tx.Append(events.Event{OccurredAt: at, Kind: events.MeasurementScored}, events.Event{OccurredAt: at, Kind: events.SubmissionDiscarded})
				for i, uid := range []measurement.ID{m, discarded} {
					s := db.Submission{StartedAt: at, Country: "DE", BodySHA256: [32]byte{n, byte(i)}, UID: uid}
					if earlier, err := tx.ClaimSubmissions(ctx, []db.Submission{s}); err != nil || len(earlier) > 0 {
						t.Errorf("claim %d of %d: %v %v", i, n, earlier, err)
					}
				}
				if err := tx.InsertDiscarded(ctx, db.Discarded{UID: discarded, ReceivedAt: at, Country: "ZZ"}); err != nil {
					return err
				}
				return tx.InsertMeasurements(ctx, db.Measurement{UID: m, ReceivedAt: at, Country: "DE", Scores: []byte("{}")})
			})
			return m, discarded
		}
		oldM, oldD := submit(1)
		floor := logged(t, d)[1].Seq
		at = now
		newM, newD := submit(2)

		dropped, err := d.DropPartitions(t.Context(), keepAll(now.AddDate(0, -1, 0)))
		if err != nil {
			t.Fatal(err)
		}
		for _, table := range []string{"heartbeat_20251210", "measurement_20251201", "body_20260101", "event_20251201"} {
			if !slices.Contains(dropped, table) {
				t.Errorf("%s stays", table)
			}
		}
		if i := slices.IndexFunc(dropped, func(s string) bool { return strings.HasPrefix(s, "event_") }); i < 0 || i != len(dropped)-2 {
			t.Errorf("events are not dropped last: %q", dropped)
		}
		if got, err := d.LogFloor(t.Context()); got != floor || err != nil {
			t.Errorf("the floor is %d, not %d: %v", got, floor, err)
		}
		if left := logged(t, d); len(left) != 2 || left[0].Seq <= floor {
			t.Errorf("left of the log: %v", left)
		}
		if _, err := d.Measurement(t.Context(), oldM); !fault.Is(err, fault.NotFound) {
			t.Errorf("the old measurement: %v", err)
		}
		if _, err := d.Discarded(t.Context(), oldD); !fault.Is(err, fault.NotFound) {
			t.Errorf("the old discarded body: %v", err)
		}
		want := []string{string(newM), string(newD)}
		slices.Sort(want)
		if diff := cmp.Diff(want, query[string](t, raw(t, url), "select uid from submission order by uid collate \"C\"")); diff != "" {
			t.Errorf("submissions: %s", diff)
		}
		if n, err := d.MakePartitions(t.Context(), now.AddDate(0, -3, 0)); n == 0 || err != nil {
			t.Errorf("what was dropped is thought to be there: %v", err)
		}
	})

	t.Run("the head of a log that was dropped whole is not below its floor", func(t *testing.T) {
		t.Parallel()
		d, _ := open(t)
		if head, err := d.LogHead(t.Context()); err != nil || head != (events.Position{}) {
			t.Errorf("the head of an empty log is %+v: %v", head, err)
		}
		write(t, d, func(_ context.Context, tx *db.Tx) error {
			tx.Append(events.Event{OccurredAt: now, Kind: "A"}, events.Event{OccurredAt: now, Kind: "B"})
			return nil
		})
		last := logged(t, d)[1].Position()
		if head, err := d.LogHead(t.Context()); err != nil || head != last {
			t.Errorf("the head is %+v, not %+v: %v", head, last, err)
		}
		if _, err := d.DropPartitions(t.Context(), keepAll(now.AddDate(1, 0, 0))); err != nil {
			t.Fatal(err)
		}
		if head, err := d.LogHead(t.Context()); err != nil || head.Seq != last.Seq {
			t.Errorf("the head of nothing is %+v, not %d: %v", head, last.Seq, err)
		}
	})

	t.Run("processes may drop at the same time, and write meanwhile", func(t *testing.T) {
		t.Parallel()
		url := dbtest.New(t)
		processes := []*db.DB{connect(t, url), connect(t, url), connect(t, url)}
		for months := range 12 {
			if _, err := processes[0].MakePartitions(t.Context(), now.AddDate(0, -months, 0)); err != nil {
				t.Fatal(err)
			}
		}
		before := query[string](t, raw(t, url), listPartitions)
		begin := make(chan struct{})
		var mu sync.Mutex
		var dropped []string
		var all sync.WaitGroup
		for _, d := range processes {
			all.Go(func() {
				<-begin
				names, err := d.DropPartitions(t.Context(), keepAll(now))
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				dropped = append(dropped, names...)
			})
			all.Go(func() {
				<-begin
				for range 20 {
					err := d.Write(t.Context(), func(tx *db.Tx) error {
						tx.Append(events.Event{OccurredAt: now, Kind: events.MeasurementScored})
						return tx.InsertBodies(t.Context(), db.CompressedBody{UID: measurement.ID(time.Now().String()), ReceivedAt: now, Country: "DE", Data: []byte{0}})
					})
					if err != nil && !fault.Is(err, fault.Conflict) {
						t.Error(err)
					}
					if _, err := d.EventsAfter(t.Context(), events.Position{}, 10); err != nil {
						t.Error(err)
					}
				}
			})
		}
		close(begin)
		all.Wait()
		left := query[string](t, raw(t, url), listPartitions)
		got := slices.Sorted(slices.Values(slices.Concat(dropped, left)))
		if diff := cmp.Diff(before, got); diff != "" {
			t.Errorf("not each was dropped once: %s", diff)
		}
		if len(left) != 24+2*13 { // counts, and where archived bodies are, outlast measurements
			t.Errorf("left are %q", left)
		}
	})
}
