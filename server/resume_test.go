package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/server"
)

// A promise is a subscription that promises to continue after a cursor without gap or duplicate.
type promise struct {
	field    string
	document string // but for the word that begins it
	token    func(*activity) string
	kinds    string // the events that it tells of, as SQL
}

func public(*activity) string { return "" }

var promises = []promise{
	{
		"events", "($after: Cursor) { events(after: $after) { cursor seq occurredAt kind summary } }",
		func(w *activity) string { return w.operator }, "true",
	},
	{
		"probeStateChanged", `($after: Cursor) { probeStateChanged(after: $after) {
			cursor seq occurredAt from to conflated probe { id } } }`,
		public, "kind in ('PROBE_REGISTERED', 'PROBE_DISPLAY_CHANGED')",
	},
	{
		"measurementScored", "($after: Cursor) { measurementScored(after: $after) { cursor seq occurredAt measurement { uid anomaly } } }",
		public, "kind = 'MEASUREMENT_SCORED'",
	},
	{
		"coverageChanged", "($after: Cursor) { coverageChanged(after: $after) { cursor seq occurredAt kind deficit reason country { code } } }",
		public, "kind like 'SLO_%' or kind like 'REPLACEMENT_%'",
	},
	{
		"alertChanged", "($after: Cursor) { alertChanged(after: $after) { cursor seq occurredAt kind from to reason } }",
		func(w *activity) string { return w.operator }, "kind like 'ALERT_%'",
	},
}

// An activity is what goes on in a network: probes come, report, measure and go.
type activity struct {
	*api
	operator string
	steps    int
	present  []probe
	heads    [5]atomic.Int64 // of the log, for each promise
}

func newActivity(t *testing.T, a *api) *activity {
	t.Helper()
	return &activity{api: a, operator: a.issue(t, access.Operator)}
}

// step makes something happen.
func (w *activity) step(t *testing.T) {
	t.Helper()
	switch w.steps % 8 {
	case 0:
		w.present = append(w.present, w.register(t, "IT", 30722))
	case 1:
		w.activate(t, w.operator, w.present[len(w.present)-1])
	case 2:
		w.beat(t, w.present[len(w.present)-1], "IT", 30722)
	case 3: // what the country lacks changes, and an alert with it
		w.ask(t, w.operator, "mutation ($on: Boolean!) { setCountryMonitored(input: {country: IT, monitored: $on}) { userErrors { code } } }",
			object{"on": w.steps/8%2 == 1})
	case 4:
		w.submit(t, "", body(object{"probe_cc": "ZZ"})) // kept aside: for staff alone
	case 5:
		w.beat(t, w.present[0], "IT", 30722) // takes a number and is no event
	case 6:
		if len(w.present) > 4 {
			w.ask(t, w.operator, retireDocument, object{"id": w.present[0].id})
			w.present = w.present[1:]
			break
		}
		fallthrough
	default:
		w.submit(t, "", body(nil))
	}
	w.steps++
	for i, p := range promises {
		w.heads[i].Store(w.last(t, p))
	}
}

// last is the number of the last event that a subscription tells of.
func (w *activity) last(t *testing.T, p promise) (seq int64) {
	t.Helper()
	if err := w.sql.QueryRow(t.Context(), "select coalesce(max(seq), 0) from event where "+p.kinds).Scan(&seq); err != nil {
		t.Fatal(err)
	}
	return seq
}

// told reports whether there are at least n events for each promise.
func (w *activity) told(t *testing.T, n int) bool {
	t.Helper()
	return !slices.ContainsFunc(promises, func(p promise) bool {
		var has int
		if err := w.sql.QueryRow(t.Context(), "select count(*) from event where "+p.kinds).Scan(&has); err != nil {
			t.Fatal(err)
		}
		return has < n
	})
}

// origin is a cursor of the present end of the log, however long it is.
func (a *api) origin(t *testing.T) string {
	t.Helper()
	return str(t, a.ask(t, "", "{ probeBoard { cursor } }", nil), "probeBoard", "cursor")
}

// A reader follows a promise through connections that are cut.
type reader struct {
	promise
	name  string // of the operation: the server has a group of subscribers for each
	token string
	after string // the last cursor
	seq   int64
	got   []string // what it was sent, byte for byte
}

func (w *activity) reader(p promise, after string) *reader {
	return &reader{promise: p, token: p.token(w), after: after}
}

// open subscribes, to continue after what came last.
func (r *reader) open(ctx context.Context, a *api, by transport) (stream, error) {
	return a.open(ctx, by, r.token, "subscription "+r.name+r.document, object{"after": r.after})
}

// read reads until it has seen enough.
func (r *reader) read(s stream, enough func() bool) error {
	for !enough() {
		payload, err := s.next()
		if err != nil {
			return fmt.Errorf("%s after %d messages: %w", r.field, len(r.got), err)
		}
		var m struct {
			Data map[string]struct {
				Cursor string
				Seq    int64
			}
		}
		if err := json.Unmarshal(payload, &m); err != nil || m.Data[r.field].Cursor == "" {
			return fmt.Errorf("%s after %d messages: %s, %w", r.field, len(r.got), payload, err)
		}
		r.after, r.seq, r.got = m.Data[r.field].Cursor, m.Data[r.field].Seq, append(r.got, string(payload))
	}
	return nil
}

// has is when the reader has had n messages.
func (r *reader) has(n int) func() bool { return func() bool { return len(r.got) >= n } }

// passed is when the reader has come beyond a place of the log.
func (r *reader) passed(seq int64) func() bool { return func() bool { return r.seq > seq } }

// record reads all that a promise has told since origin, from one connection, and compares it
// with the log.
func (w *activity) record(t *testing.T, p promise, origin string) []string {
	t.Helper()
	r := w.reader(p, origin)
	s, err := r.open(t.Context(), w.api, overSocket)
	last := w.last(t, p) // more may follow by itself
	if err == nil {
		err = r.read(s, r.passed(last-1))
	}
	if err != nil {
		t.Fatal(err)
	}
	s.cut(closed)
	rows, _ := w.sql.Query(t.Context(), "select seq from event where ("+p.kinds+") and seq <= $1 order by seq", last) // CollectRows tells
	seqs, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		t.Fatal(err)
	}
	if len(seqs) != len(r.got) {
		t.Fatalf("%s told of %d of %d events", p.field, len(r.got), len(seqs))
	}
	for i, seq := range seqs {
		if !strings.Contains(r.got[i], fmt.Sprintf(`"seq":%d,`, seq)) {
			t.Fatalf("%s said %s instead of telling of event %d", p.field, r.got[i], seq)
		}
	}
	return r.got
}

// pace is how fast things happen while readers come and go.
const pace = 15 * time.Millisecond

// goOn has things happen until done is closed.
func (w *activity) goOn(t *testing.T, done <-chan struct{}) {
	t.Helper()
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		w.step(t)
		select {
		case <-tick.C:
		case <-done:
			return
		}
	}
}

// readersAtATime is how many connections are cut at a time.
const readersAtATime = 32

func manyRegistrations(c *server.Config) { c.RegistrationsPerHour = 100_000 }

// TestResumption cuts the connection after every message of a recorded run, and continues on another
// server while more happens.
func TestResumption(t *testing.T) {
	t.Parallel()
	a := start(t, manyRegistrations)
	origin := a.origin(t)
	w := newActivity(t, a)
	for w.counts(t)["event"] < 120 || !w.told(t, 4) { // what reactors tell comes when it comes
		w.step(t)
	}
	servers := []*api{a, startOn(t, a.dsn)} // the one remembers the run, the other reads it from the database
	recorded := map[string][]string{}
	for _, p := range promises {
		recorded[p.field] = w.record(t, p, origin)
	}

	var readers []*reader
	var runs []func(context.Context) error
	for kind, p := range promises {
		for i := range len(recorded[p.field]) + 1 {
			r := w.reader(p, origin)
			if i%2 == 1 {
				r.name = fmt.Sprint("alone", i)
			}
			readers = append(readers, r)
			runs = append(runs, func(ctx context.Context) error {
				return r.cutOnce(ctx, i, []*api{servers[i/2%2], servers[1-i/2%2]}, func() int64 { return w.heads[kind].Load() })
			})
		}
		r := w.reader(p, origin)
		readers = append(readers, r)
		runs = append(runs, func(ctx context.Context) error { return r.cutAlways(ctx, servers, len(recorded[p.field])) })
	}
	done, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(done)
		g, ctx := errgroup.WithContext(t.Context())
		g.SetLimit(readersAtATime)
		for _, run := range runs {
			g.Go(func() error { return run(ctx) })
		}
		failed <- g.Wait()
	}()
	w.goOn(t, done)
	if err := <-failed; err != nil {
		t.Fatal(err)
	}

	for _, p := range promises {
		all := w.record(t, p, origin)
		if n := len(recorded[p.field]); !slices.Equal(all[:n], recorded[p.field]) {
			t.Errorf("%s tells the same events in other words when they are read again", p.field)
		}
		n := 0
		for _, r := range readers {
			if r.field != p.field {
				continue
			}
			n++
			if len(r.got) < len(recorded[p.field]) || !slices.Equal(r.got, all[:min(len(r.got), len(all))]) {
				t.Errorf("%s: a reader got\n%v\nnot\n%v", p.field, r.got, all)
			}
		}
		t.Logf("%s: %d readers were cut off in a run of %d, which became one of %d", p.field, n, len(recorded[p.field]), len(all))
	}
}

// cutOnce loses its connection after n messages and reads on elsewhere, until it has heard of
// something that happened after that.
func (r *reader) cutOnce(ctx context.Context, n int, servers []*api, head func() int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	by := []transport{overSocket, overSocket, overEvents, overSocket, overEvents}
	s, err := r.open(ctx, servers[0], by[n%5])
	if err == nil {
		err = r.read(s, r.has(n))
	}
	if err != nil {
		return err
	}
	s.cut(cut(n % int(cuts)))
	if s, err = r.open(ctx, servers[1], by[(n/5+n)%5]); err != nil {
		return err
	}
	return r.read(s, r.passed(head()))
}

// cutAlways loses its connection after each of n messages.
func (r *reader) cutAlways(ctx context.Context, servers []*api, n int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i := range n {
		s, err := r.open(ctx, servers[i%2], []transport{overSocket, overEvents, overSocket}[i%3])
		if err == nil {
			err = r.read(s, r.has(i+1))
		}
		if err != nil {
			return err
		}
		s.cut(cut(i / 2 % int(cuts)))
	}
	return nil
}

const snapshotDocument = `subscription ($after: Cursor, $snapshot: Boolean) { probeStateChanged(after: $after, snapshot: $snapshot) {
	cursor from to probe { id } } }`

// A watcher keeps the state of each probe, by a snapshot and the changes after it.
type watcher struct {
	states map[string]string
	after  string
	last   string // the probe that changed last; empty before the first change
}

// watch reads n messages on a connection that is then cut, or until the probe has changed.
func (w *watcher) watch(ctx context.Context, a *api, by transport, n int, until string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begin := object{"snapshot": true}
	if w.after != "" {
		begin["after"] = w.after
	}
	s, err := a.open(ctx, by, "", snapshotDocument, begin)
	if err != nil {
		return err
	}
	for ; n > 0 && w.last != until; n-- {
		payload, err := s.next()
		if err != nil {
			return err
		}
		var m struct {
			Data struct {
				ProbeStateChanged struct {
					Cursor, From, To string
					Probe            struct{ ID string }
				}
			}
		}
		if err := json.Unmarshal(payload, &m); err != nil {
			return err
		}
		c := m.Data.ProbeStateChanged
		if c.From != "" { // else it is of the snapshot, or new
			if was := w.states[c.Probe.ID]; was != c.From {
				return fmt.Errorf("%s is said to have been %s, and was %q", c.Probe.ID, c.From, was)
			}
			w.last = c.Probe.ID
		}
		w.states[c.Probe.ID], w.after = c.To, c.Cursor
	}
	s.cut(reset)
	return nil
}

// TestSnapshot connects at any time and is cut off at any message, within the snapshot and after it.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	a := start(t, manyRegistrations)
	servers := []*api{a, startOn(t, a.dsn)}
	w := newActivity(t, a)
	for range 80 {
		w.step(t)
	}
	last := w.register(t, "IT", 30722)
	const many = 60
	var watchers [many]watcher
	var settled atomic.Int64 // those whose snapshot is complete
	g, ctx := errgroup.WithContext(t.Context())
	for i := range watchers {
		w.step(t)
		g.Go(func() error {
			v := &watchers[i]
			v.states = map[string]string{}
			for n := 0; v.last != last.id; n++ {
				by := []transport{overSocket, overEvents}[(i+n/2)%2]
				before := v.last
				if err := v.watch(ctx, servers[(i+n)%2], by, 1+i%40+n, last.id); err != nil {
					return fmt.Errorf("watcher %d, connection %d: %w", i, n, err)
				}
				if before == "" && v.last != "" {
					settled.Add(1)
				}
			}
			return nil
		})
	}
	failed := make(chan error, 1)
	go func() { failed <- g.Wait() }()
	for settled.Load() < many && ctx.Err() == nil {
		w.step(t)
	}
	w.ask(t, w.operator, retireDocument, object{"id": last.id})
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	board := map[string]string{}
	for _, c := range list(t, a.ask(t, "", "{ probeBoard { cells { id state } } }", nil), "probeBoard", "cells") {
		board[str(t, c, "id")] = str(t, c, "state")
	}
	for _, v := range watchers {
		equal(t, v.states, board)
	}
}

// TestTrimmed drops history while some read it. What they have got by then has no gap, and then they
// are told; those who need no history notice nothing.
func TestTrimmed(t *testing.T) {
	t.Parallel()
	a := start(t)
	origin := a.origin(t)
	const stored = 1200 // three parts as they are read from the database
	a.exec(t, `insert into event (seq, recorded_at, country, occurred_at, kind, subject, asn, payload, rule_id, rule_version, caused_by)
		select nextval('log_seq'), now(), '', now(), 'FINGERPRINTS_IMPORTED', '', 0, '{}', repeat('x', 2000), 1, '{}' from generate_series(1, $1)`, stored)
	b := startOn(t, a.dsn) // it remembers nothing of that
	present := b.origin(t)

	p := promise{field: "events", document: `($after: Cursor) { events(after: $after) {
		cursor seq a: ruleId b: ruleId c: ruleId d: ruleId e: ruleId f: ruleId } }`} // 14 MB: more than what buffers of TCP take
	// from a reader who pauses, so that he stops the reading of the log for him
	type follower struct {
		reader
		on stream
	}
	follow := func(by transport, after string) *follower {
		f := &follower{reader: reader{promise: p, after: after}}
		var err error
		if f.on, err = f.open(t.Context(), b, by); err != nil {
			t.Fatal(err)
		}
		return f
	}
	read := func(f *follower, n int) {
		t.Helper()
		if err := f.read(f.on, f.has(n)); err != nil {
			t.Fatal(err)
		}
	}
	upToDate := []*follower{follow(overSocket, present), follow(overEvents, present)}
	a.register(t, "IT", 1)
	for _, f := range upToDate {
		read(f, 1)
	}
	behind := []*follower{follow(overSocket, origin), follow(overEvents, origin)}
	for _, f := range behind {
		read(f, 1)
	}
	a.exec(t, "update log_floor set seq = (select max(seq) from event)")
	a.exec(t, "delete from event")
	ends, firsts := make([]error, len(behind)), make([]int64, len(behind))
	var reading sync.WaitGroup
	for i, f := range behind { // side by side: who waits too long for his turn is cut off
		firsts[i] = f.seq
		reading.Go(func() { ends[i] = f.read(f.on, f.has(stored)) })
	}
	reading.Wait()
	for i, f := range behind {
		err := ends[i]
		var end *ending
		if !errors.As(err, &end) || end.kind != "error" || len(end.problems()) != 1 || end.problems()[0].Extensions.Code != fault.Resync {
			t.Fatalf("who was behind got %d messages, and then %v", len(f.got), err)
		}
		if n := int64(len(f.got)); f.seq != firsts[i]+n-1 {
			t.Errorf("%d messages lie between %d and %d", n, firsts[i], f.seq)
		}
		if f.on, err = f.open(t.Context(), a, overSocket); err == nil {
			_, err = f.on.next()
		}
		if !errors.As(err, &end) || len(end.problems()) != 1 || end.problems()[0].Extensions.Code != fault.Resync {
			t.Errorf("who comes back is told %v", err)
		}
	}
	for _, past := range []string{`probe(id: "prb_0000000000000001", asOf: $at) { id }`, "coverage(asOf: $at) { __typename }", "probeBoard(asOf: $at) { asOf }"} {
		wantFault(t, a.do(t, "", "query ($at: DateTime) { "+past+" }", object{"at": time.Now()}), fault.Invalid, "asOf")
	}

	a.register(t, "IT", 1)
	for _, f := range upToDate {
		read(f, 2)
		f.on.cut(closed)
	}
	a.register(t, "IT", 1)
	for _, f := range upToDate {
		var err error
		if f.on, err = f.open(t.Context(), a, overSocket); err != nil {
			t.Fatal(err)
		}
		read(f, 3)
	}
}
