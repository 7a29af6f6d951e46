package jobs

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/db/dbtest"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/probe"
	"github.com/openvantage/vantage/service"
)

func TestLimits(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	ago := func(days int) time.Time { return now.AddDate(0, 0, -days) }
	for name, c := range map[string]struct {
		keep Retention
		want map[string]time.Time
	}{
		"only what measurements say of probes is dropped unless a time is set": {Retention{}, map[string]time.Time{"probe_conduct": ago(3)}},
		"bodies and discarded submissions go with the measurements": {
			Retention{Measurements: 2 * day},
			map[string]time.Time{"measurement": ago(2), "body": ago(2), "discarded_submission": ago(2), "faulty_measurement": ago(2), "verdict": ago(2), "probe_conduct": ago(3)},
		},
		"each has its own time": {
			Retention{Heartbeats: day, Measurements: 2 * day, Events: 3 * day},
			map[string]time.Time{"heartbeat": ago(1), "measurement": ago(2), "body": ago(2), "discarded_submission": ago(2), "faulty_measurement": ago(2), "verdict": ago(2), "event": ago(3), "quality": ago(3), "cause_evaluation": ago(3), "probe_conduct": ago(3)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, c.keep.limits(now)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	now := time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC)
	url := dbtest.New(t)
	d, err := db.Open(ctx, url, db.Options{Clock: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	s, err := service.New(ctx, d, service.Settings{Rules: probe.Default(), AutoActivate: true}, silent{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	table := New(d, s, Retention{Heartbeats: 24 * time.Hour}, 1, slog.New(slog.DiscardHandler)).table
	all := func() {
		for _, j := range table {
			if err := j.run(ctx); err != nil {
				t.Errorf("%s: %v", j.name, err)
			}
		}
	}
	all()
	_, err = s.Register(ctx, access.Anyone, "k", service.Registration{Country: "DE", ASN: 3320, Type: probe.Desktop})
	if err != nil {
		t.Fatalf("there is no place for a new event: %v", err)
	}
	now = now.AddDate(0, 3, 0)
	all()
	all() // again, as another process would

	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	list := func(query string) []string {
		t.Helper()
		rows, err := conn.Query(ctx, query)
		if err != nil {
			t.Fatal(err)
		}
		found, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	heartbeats := list("select inhrelid::regclass::text from pg_inherits where inhparent = 'heartbeat'::regclass order by 1")
	want := []string{"heartbeat_20260415", "heartbeat_20260416", "heartbeat_20260417", "heartbeat_20260418"}
	if diff := cmp.Diff(want, heartbeats); diff != "" {
		t.Errorf("partitions: %s", diff)
	}
	if kept, err := d.EventsAfter(ctx, events.Position{}, 9); err != nil || len(kept) != 3 {
		t.Errorf("events are kept for ever, but there are %d: %v", len(kept), err)
	}
	if answers := list("select key::text from idempotency"); len(answers) > 0 {
		t.Errorf("%d answers are remembered after months", len(answers))
	}
}

// silent is a service.Meter that nobody reads.
type silent struct{}

func (silent) Heartbeat(string, time.Duration) {}
func (silent) Submission(string)               {}
func (silent) Refused(string)                  {}
func (silent) Scored(time.Duration)            {}
func (silent) Relayed(time.Duration)           {}
func (silent) Packed(string)                   {}
func (silent) Spooled(int64)                   {}
func (silent) Damaged()                        {}
