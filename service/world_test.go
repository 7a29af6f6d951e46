package service

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/db/dbtest"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/network"
	"github.com/openvantage/vantage/probe"
)

// TestMain asks for enough histories; -rapid.checks on the command line wins.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "200"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	flag.Parse()
	os.Exit(m.Run())
}

var (
	rules = probe.Default()
	start = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	// ctx is what nobody ends: flows under way must not notice that a test does.
	ctx   = context.Background()
	staff = access.Principal{Role: access.Operator, TokenID: 1, Name: "Olga"}
)

// A world is a database and a clock that goes only when it is told to. Services are the
// processes of it.
type world struct {
	t   testing.TB
	url string
	db  *db.DB

	mu  sync.Mutex
	now time.Time
}

// newWorld begins at start, with nobody in it.
func newWorld(tb testing.TB) *world {
	tb.Helper()
	return newWorldOn(tb, dbtest.New(tb))
}

func newWorldOn(tb testing.TB, url string) *world {
	tb.Helper()
	w := &world{t: tb, url: url, now: start}
	var err error
	if w.db, err = db.Open(tb.Context(), w.url, db.Options{Clock: w.clock}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(w.db.Close)
	w.wait(0)
	return w
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// wait lets time pass, and has partitions for what is then.
func (w *world) wait(d time.Duration) {
	w.t.Helper()
	w.mu.Lock()
	w.now = w.now.Add(d)
	now := w.now
	w.mu.Unlock()
	if _, err := w.db.MakePartitions(context.Background(), now); err != nil {
		w.t.Fatal(err)
	}
}

// process starts a server process, which does not Run unless told to.
func (w *world) process() *Service {
	w.t.Helper()
	settings := DefaultRules()
	settings.Health.MinInterval = 0 // who needs it sets it
	settings.AutoActivate, settings.OpenCollector, settings.SweepEvery = true, true, time.Hour
	s, err := New(context.Background(), w.db, settings, silent{}, slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// run runs a process until the test ends.
func (w *world) run(s *Service) *Service {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
	return s
}

// watch does what the sweep of another process does for the guard: it records that somebody
// was there to hear.
func (w *world) watch() {
	w.t.Helper()
	w.write(func(ctx context.Context, tx *db.Tx) error { return tx.SaveWatermark(ctx) })
}

func (w *world) write(fn func(context.Context, *db.Tx) error) {
	w.t.Helper()
	ctx := context.Background()
	if err := w.db.Write(ctx, func(tx *db.Tx) error { return fn(ctx, tx) }); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) sweep(s *Service) int {
	w.t.Helper()
	n, err := s.Sweep(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// register makes an ACTIVE probe.
func (w *world) register(s *Service, cc country.Code, asn network.ASN) probe.Probe {
	w.t.Helper()
	r := Registration{Country: cc, ASN: asn, Type: probe.Desktop, SoftwareVersion: "2.0.0"}
	made, err := s.Register(context.Background(), access.Anyone, "", r)
	if err != nil {
		w.t.Fatal(err)
	}
	return made.Probe
}

func self(p probe.Probe) access.Principal {
	return access.Principal{Role: access.Probe, ProbeID: p.ID, Name: p.DisplayName}
}

func heartbeat(p probe.Probe) probe.Heartbeat {
	return probe.Heartbeat{ProbeID: p.ID, Country: p.Country, ASN: p.ASN, SoftwareVersion: "2.1.0", UptimeSeconds: 60}
}

func (w *world) beat(s *Service, probes ...probe.Probe) {
	w.t.Helper()
	for _, p := range probes {
		if _, err := s.Heartbeat(context.Background(), self(p), "", heartbeat(p)); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) probe(id probe.ID) probe.Probe {
	w.t.Helper()
	p, err := w.db.Probe(context.Background(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return p.Probe
}

// log is all events of the kinds, or all there are.
func (w *world) log(kinds ...events.Kind) []events.Event {
	w.t.Helper()
	all, err := w.db.EventsAfter(context.Background(), events.Position{}, 1_000_000)
	if err != nil {
		w.t.Fatal(err)
	}
	if kinds == nil {
		return all
	}
	var some []events.Event
	for _, e := range all {
		for _, k := range kinds {
			if e.Kind == k {
				some = append(some, e)
			}
		}
	}
	return some
}

// changes is a probe's own part of the log, oldest first.
func (w *world) changes(id probe.ID) []probe.Change {
	w.t.Helper()
	q := db.EventQuery{Subjects: []string{string(id)}, NotKinds: []string{
		string(probe.ImpairmentRaised), string(probe.ImpairmentCleared), string(probe.PlaceObserved),
	}, Visible: db.Visibility{Principal: staff}}
	own, err := w.db.Events(context.Background(), q, db.Page{N: 1_000_000})
	if err != nil {
		w.t.Fatal(err)
	}
	out := make([]probe.Change, len(own))
	for i, e := range own {
		if out[len(own)-1-i], err = e.Change(); err != nil {
			w.t.Fatal(err)
		}
	}
	return out
}

// sql runs a statement that the program has not.
func (w *world) sql(statement string, args ...any) {
	w.t.Helper()
	conn := w.connect()
	defer conn.Close(context.Background())
	if _, err := conn.Exec(context.Background(), statement, args...); err != nil {
		w.t.Fatal(err)
	}
}

// count is what a query for one number says.
func (w *world) count(query string, args ...any) (n int) {
	w.t.Helper()
	conn := w.connect()
	defer conn.Close(context.Background())
	if err := conn.QueryRow(context.Background(), query, args...).Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) connect() *pgx.Conn {
	w.t.Helper()
	conn, err := pgx.Connect(context.Background(), w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	return conn
}

// silent is a Meter that nobody reads.
type silent struct{}

func (silent) Heartbeat(string, time.Duration) {}
func (silent) Submission(string)               {}
func (silent) Refused(string)                  {}
func (silent) Scored(time.Duration)            {}
func (silent) Relayed(time.Duration)           {}
func (silent) Packed(string)                   {}
func (silent) Spooled(int64)                   {}
func (silent) Damaged()                        {}

// body is a measurement that a probe could have sent; each n makes another one.
func body(n int) []byte {
	return fmt.Appendf(nil, `{"report_id": "20260228T000000Z_signal_DE_3320_n1_%08d", "test_name": "signal", "test_version": "0.2.5",
		"probe_cc": "DE", "probe_asn": "AS3320", "measurement_start_time": "2026-02-28 00:00:00", "test_start_time": "2026-02-28 00:00:00",
		"input": null, "software_name": "example", "software_version": "1.0", "annotations": {},
		"test_keys": {"signal_backend_status": "ok", "signal_backend_failure": null}}`, n)
}
