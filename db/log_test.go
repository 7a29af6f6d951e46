package db_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/probe"
)

func TestAppend(t *testing.T) {
	t.Parallel()

	t.Run("an event comes back as it was, numbered in the order of appending", func(t *testing.T) {
		t.Parallel()
		d, _ := open(t)
		occurred := now.Add(-time.Hour)
		want := []events.Event{
			{OccurredAt: occurred, Kind: "A", Subject: "s", Country: "DE", ASN: 4294967295, Payload: []byte(`{"a": 1}`), RuleID: "R3", RuleVersion: 7},
			{OccurredAt: now, Kind: "B", Payload: []byte("{}")},
			{OccurredAt: now, Kind: "C", Payload: []byte("{}")},
		}
		write(t, d, func(_ context.Context, tx *db.Tx) error {
			tx.Append(want[0], events.Event{OccurredAt: now, Kind: "B"})
			tx.Append(want[2])
			return nil
		})
		got := logged(t, d)
		for i := range want {
			want[i].RecordedAt, want[i].Seq, want[i].CausedBy = now, got[0].Seq+int64(i), []int64{}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		one, err := d.Event(t.Context(), want[1].Seq)
		if diff := cmp.Diff(want[1], one); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
		if _, err := d.Event(t.Context(), 1e9); !fault.Is(err, fault.NotFound) {
			t.Errorf("an event that is not there: %v", err)
		}
	})

	t.Run("a transaction that fails leaves nothing, and its error comes back as it is", func(t *testing.T) {
		t.Parallel()
		d, _ := open(t)
		mine := errors.New("no")
		err := d.Write(t.Context(), func(tx *db.Tx) error {
			tx.Append(events.Event{OccurredAt: now, Kind: "A"})
			tx.InsertHeartbeats(events.Heartbeat{Heartbeat: beat(probe.Probe{ID: "p"}, now)})
			return mine
		})
		if !errors.Is(err, mine) || len(logged(t, d)) != 0 {
			t.Errorf("got %v, and the log holds %v", err, logged(t, d))
		}
		if beats, err := d.HeartbeatsAfter(t.Context(), 0, time.Time{}, 9); len(beats) > 0 || err != nil {
			t.Errorf("heartbeats: %v %v", beats, err)
		}
	})

	t.Run("an event that cannot be stored undoes the rest", func(t *testing.T) {
		t.Parallel()
		d, _ := open(t)
		err := d.Write(t.Context(), func(tx *db.Tx) error {
			tx.Append(events.Event{OccurredAt: now, Kind: "A"}, events.Event{OccurredAt: now, Kind: "B", Payload: []byte("{")})
			return tx.InsertBodies(t.Context(), db.CompressedBody{UID: "u", ReceivedAt: now, Country: "DE", Data: []byte{0}})
		})
		if err == nil || len(logged(t, d)) > 0 {
			t.Errorf("got %v, and the log holds %v", err, logged(t, d))
		}
	})

	t.Run("heartbeats and events share their numbers", func(t *testing.T) {
		t.Parallel()
		d, _ := open(t)
		p := probe.Probe{ID: "prb_0123456789abcdef", Country: "DE", ASN: 1}
		h := beat(p, now)
		h.UptimeSeconds, h.QueueDepth, h.LastMeasurementAt = 5, 6, now.Add(-time.Minute)
		write(t, d, func(_ context.Context, tx *db.Tx) error {
			tx.Append(events.Event{OccurredAt: now, Kind: "A"})
			tx.InsertHeartbeats(events.Heartbeat{Heartbeat: h}, events.Heartbeat{Heartbeat: beat(p, now)})
			return nil
		})
		beats, err := d.HeartbeatsAfter(t.Context(), 0, time.Time{}, 9)
		if err != nil || len(beats) != 2 || beats[0].Heartbeat != h || beats[1].Seq != beats[0].Seq+1 {
			t.Fatalf("%+v %v", beats, err)
		}
		e := logged(t, d)[0]
		if e.Seq == beats[0].Seq || e.Seq == beats[1].Seq {
			t.Error("a number was given twice")
		}
		head, err := d.LogHead(t.Context())
		if want := max(e.Seq, beats[1].Seq); head.Seq != want || err != nil {
			t.Errorf("the head is %d, not %d: %v", head.Seq, want, err)
		}
	})
}

// Writers commit in any order after appending in any order; a reader that only ever looks
// ahead must meet everything all the same.
func TestNumbersAreInTheOrderOfCommits(t *testing.T) {
	t.Parallel()
	const writers, each, looks = 8, 25, 10
	d, url := open(t)
	readers := connect(t, url)
	looked := make(chan struct{}) // closed when the reader has looked often
	var written, kept atomic.Int64
	var all sync.WaitGroup
	for w := range writers {
		p := probe.Probe{ID: probe.ID(fmt.Sprintf("prb_%016x", w)), Country: "DE"}
		all.Go(func() {
			for i := range each {
				if i == each-1 {
					<-looked
				}
				fails := i%6 == 5
				err := d.Write(context.Background(), func(tx *db.Tx) error {
					for n := range i % 4 {
						tx.Append(events.Event{OccurredAt: now, Kind: "A", Subject: fmt.Sprint(w, i, n)})
					}
					if i%3 != 1 {
						tx.InsertHeartbeats(events.Heartbeat{Heartbeat: beat(p, now)})
					}
					if err := tx.Exec(context.Background(), "select pg_sleep(random() * 0.02)"); err != nil {
						return err
					}
					if fails {
						return context.Canceled
					}
					return nil
				})
				if fails != (err != nil) {
					t.Error(err)
				}
				if !fails {
					kept.Add(int64(i % 4))
				}
			}
			written.Add(1)
		})
	}
	type promise struct{ through, events int64 }
	var at events.Position
	var beatAt int64
	var seen []events.Event
	var beats []events.Heartbeat
	var promises []promise
	for done := false; !done; {
		done = written.Load() == writers // then the reads below are the last
		head, err := readers.LogHead(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for {
			found, err := readers.EventsAfter(t.Context(), at, 7)
			if err != nil {
				t.Fatal(err)
			}
			seen = append(seen, found...)
			if len(found) < 7 {
				break
			}
			at = found[6].Position()
		}
		if n := len(seen); n > 0 {
			at = seen[n-1].Position()
		}
		n := int64(0)
		for _, e := range seen {
			if e.Seq <= head.Seq {
				n++
			}
		}
		if promises = append(promises, promise{through: head.Seq, events: n}); len(promises) == looks {
			close(looked)
		}
		found, err := readers.HeartbeatsAfter(t.Context(), beatAt, now.Add(-time.Hour), 1000)
		if err != nil {
			t.Fatal(err)
		}
		beats = append(beats, found...)
		if n := len(beats); n > 0 {
			beatAt = beats[n-1].Seq
		}
	}
	all.Wait()
	stored := logged(t, d)
	if diff := cmp.Diff(stored, seen); diff != "" {
		t.Errorf("the reader met something else than what is stored: %s", diff)
	}
	if len(stored) != int(kept.Load()) {
		t.Errorf("%d events are stored, %d were committed", len(stored), kept.Load())
	}
	storedBeats, err := d.HeartbeatsAfter(t.Context(), 0, time.Time{}, 1_000_000)
	if diff := cmp.Diff(storedBeats, beats); diff != "" || err != nil {
		t.Errorf("the reader met other heartbeats than what is stored: %v %s", err, diff)
	}
	for _, p := range promises {
		n := slices.IndexFunc(stored, func(e events.Event) bool { return e.Seq > p.through })
		if n >= 0 && int64(n) != p.events {
			t.Errorf("through %d there were %d events, and later %d", p.through, p.events, n)
		}
	}
}

// A list and the place in the log that it was read at: events after it lead from the list to
// the present.
func TestReadIsOneInstant(t *testing.T) {
	t.Parallel()
	const probes, changes = 6, 40
	d, url := open(t)
	viewer := connect(t, url)
	looked := make(chan struct{}) // closed after the first snapshot
	var all sync.WaitGroup
	var writing atomic.Int32
	for n := range probes {
		p := register(t, d, n, nil)
		writing.Add(1)
		all.Go(func() {
			defer writing.Add(-1)
			for i := range changes { // one heartbeat every 16 minutes: up, degraded, down and flapping
				if i == changes/2 {
					<-looked
				}
				p = advance(t, d, p, beat(p, now.Add(time.Duration(i)*16*time.Minute)))
			}
		})
	}
	type snapshot struct {
		head  int64
		board []db.Probe
	}
	var taken []snapshot
	for last := false; !last; {
		last = writing.Load() == 0
		var s snapshot
		err := viewer.Read(t.Context(), func(v db.View) error {
			head, err := v.LogHead(t.Context())
			if err != nil {
				return err
			}
			s.head = head.Seq
			s.board, err = v.Board(t.Context(), db.ProbeQuery{}, 100)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if taken = append(taken, s); len(taken) == 1 {
			close(looked)
		}
	}
	all.Wait()
	log := logged(t, d)
	told := make([]probe.Change, len(log))
	for i, e := range log {
		var err error
		if told[i], err = e.Change(); err != nil {
			t.Fatal(err)
		}
	}
	final := taken[len(taken)-1].board
	between := 0
	for _, s := range taken {
		state := map[probe.ID]probe.Probe{}
		for _, p := range s.board {
			state[p.ID] = p.Probe
		}
		for i, e := range log {
			if e.Seq > s.head {
				between++
				state[probe.ID(e.Subject)] = state[probe.ID(e.Subject)].Apply(told[i])
			}
		}
		for _, want := range final {
			if diff := differs(machine(want.Probe), machine(state[want.ID])); diff != "" {
				t.Fatalf("from %d on: %s", s.head, diff)
			}
		}
	}
	if between == 0 {
		t.Error("nothing happened while snapshots were taken")
	}
}

// differs is cmp.Diff, but quick to say that nothing does.
func differs(want, got any) string {
	if reflect.DeepEqual(want, got) {
		return ""
	}
	return cmp.Diff(want, got)
}

// machine is p without what heartbeats that changed nothing said.
func machine(p probe.Probe) probe.Probe {
	p.SoftwareVersion, p.UptimeSeconds, p.QueueDepth = "", 0, 0
	p.LastHeartbeatAt, p.LastMeasurementAt = time.Time{}, time.Time{}
	return p
}

func TestListen(t *testing.T) {
	t.Parallel()

	listen := func(t *testing.T, d *db.DB) (woken chan time.Time, ended chan error, cancel func()) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		woken, ended = make(chan time.Time, 100), make(chan error, 1)
		go func() { ended <- d.Listen(ctx, func() { woken <- time.Now() }) }()
		select {
		case <-woken:
		case err := <-ended:
			t.Fatal(err)
		}
		return woken, ended, cancel
	}

	t.Run("a commit of another process wakes the reader", func(t *testing.T) {
		t.Parallel()
		d, url := open(t)
		woken, _, cancel := listen(t, d)
		defer cancel()
		other := connect(t, url)
		write(t, other, func(_ context.Context, tx *db.Tx) error {
			tx.Append(events.Event{OccurredAt: now, Kind: "A"})
			return nil
		})
		until(t, "it is woken", func() bool { return len(woken) == 1 })
		write(t, other, func(_ context.Context, tx *db.Tx) error {
			tx.InsertHeartbeats(events.Heartbeat{Heartbeat: beat(probe.Probe{ID: "p"}, now)})
			return nil
		})
		until(t, "it is woken by a heartbeat", func() bool { return len(woken) == 2 })
	})

	t.Run("a transaction without events wakes nobody, nor does one that fails", func(t *testing.T) {
		t.Parallel()
		d, _ := open(t)
		woken, _, cancel := listen(t, d)
		defer cancel()
		write(t, d, func(ctx context.Context, tx *db.Tx) error { return tx.SaveWatermark(ctx) })
		_ = d.Write(t.Context(), func(tx *db.Tx) error {
			tx.Append(events.Event{OccurredAt: now, Kind: "A"})
			return context.Canceled
		})
		write(t, d, func(_ context.Context, tx *db.Tx) error {
			tx.Append(events.Event{OccurredAt: now, Kind: "A"})
			return nil
		})
		<-woken
		if len(woken) > 0 {
			t.Error("woken more than once")
		}
	})

	t.Run("it returns when the connection is cut", func(t *testing.T) {
		t.Parallel()
		d, url := open(t)
		_, ended, cancel := listen(t, d)
		defer cancel()
		cut := query[bool](t, raw(t, url), "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and query ilike 'listen%'")
		if len(cut) != 1 {
			t.Fatalf("%d connections were cut", len(cut))
		}
		if err := <-ended; !fault.Is(err, fault.Unavailable) {
			t.Errorf("it returned %v", err)
		}
	})

	t.Run("it returns when it is told to, and takes no connection away from the pool", func(t *testing.T) {
		t.Parallel()
		d, _ := open(t)
		for range 3 {
			_, ended, cancel := listen(t, d)
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("it returned %v", err)
			}
		}
		if n := d.Stats().AcquiredConns(); n != 0 {
			t.Errorf("%d connections are still taken", n)
		}
	})
}

func TestEvents(t *testing.T) {
	t.Parallel()
	d, _ := open(t)
	write(t, d, func(_ context.Context, tx *db.Tx) error {
		for i := range 30 {
			tx.Append(events.Event{
				OccurredAt: now.Add(time.Duration(i) * time.Minute), Kind: events.Kind([]string{"A", "B", "C"}[i%3]),
				Subject: fmt.Sprint("s", i%5), Country: []country.Code{"DE", "IR"}[i%2],
			})
		}
		return nil
	})
	all := logged(t, d)
	slices.Reverse(all)
	since, until := now.Add(10*time.Minute), now.Add(20*time.Minute)
	for name, c := range map[string]struct {
		q    db.EventQuery
		keep func(events.Event) bool
	}{
		"all":          {db.EventQuery{}, func(events.Event) bool { return true }},
		"by kind":      {db.EventQuery{Kinds: []string{"A", "B"}}, func(e events.Event) bool { return e.Kind != "C" }},
		"never a kind": {db.EventQuery{NotKinds: []string{"A"}}, func(e events.Event) bool { return e.Kind != "A" }},
		"a kind that is never shown stays hidden when asked for": {
			db.EventQuery{Kinds: []string{"A", "B"}, NotKinds: []string{"A"}}, func(e events.Event) bool { return e.Kind == "B" },
		},
		"by country":                 {db.EventQuery{Countries: []string{"IR"}}, func(e events.Event) bool { return e.Country == "IR" }},
		"by subject":                 {db.EventQuery{Subjects: []string{"s1"}}, func(e events.Event) bool { return e.Subject == "s1" }},
		"since, with, until without": {db.EventQuery{Since: &since, Until: &until}, func(e events.Event) bool { return !e.OccurredAt.Before(since) && e.OccurredAt.Before(until) }},
		"no kind at all":             {db.EventQuery{Kinds: []string{}}, func(events.Event) bool { return false }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := d.Events(context.Background(), c.q, db.Page{N: 100})
			if err != nil {
				t.Fatal(err)
			}
			want := slices.DeleteFunc(slices.Clone(all), func(e events.Event) bool { return !c.keep(e) })
			if diff := cmp.Diff(want, append([]events.Event{}, got...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
