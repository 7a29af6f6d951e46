package db_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/db/dbtest"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/probe"
)

// now is when most tests happen.
var now = time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)

// open gives a test a database of its own, with partitions around now and a clock that stands.
func open(t *testing.T) (d *db.DB, url string) {
	t.Helper()
	url = dbtest.New(t)
	d = connect(t, url)
	if _, err := d.MakePartitions(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	return d, url
}

// connect opens a database once more, as another process would.
func connect(t *testing.T, url string) *db.DB {
	t.Helper()
	d, err := db.Open(t.Context(), url, db.Options{Clock: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// raw is a connection for what the package has no statement for.
func raw(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// query returns the first column of what sql finds.
func query[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) []T {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// fatal is what *testing.T and *rapid.T share.
type fatal interface {
	Helper()
	Fatal(args ...any)
}

func write(t fatal, d *db.DB, fn func(context.Context, *db.Tx) error) {
	t.Helper()
	ctx := context.Background()
	if err := d.Write(ctx, func(tx *db.Tx) error { return fn(ctx, tx) }); err != nil {
		t.Fatal(err)
	}
}

// logged is all that the log holds.
func logged(t fatal, d *db.DB) []events.Event {
	t.Helper()
	all, err := d.EventsAfter(context.Background(), events.Position{}, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// register stores a new probe with its event. Each n makes another one.
func register(t fatal, d *db.DB, n int, change func(*probe.Registration)) probe.Probe {
	t.Helper()
	r := probe.Registration{
		ID: probe.ID(fmt.Sprintf("prb_%016x", n)), DisplayName: fmt.Sprintf("probe-%03d", n), Country: "DE", ASN: 3320,
		Type: probe.Desktop, At: now,
	}
	if change != nil {
		change(&r)
	}
	p, changes := probe.Register(r)
	write(t, d, func(ctx context.Context, tx *db.Tx) error {
		announce(tx, p, changes)
		return tx.InsertProbe(ctx, p, access.Hash{byte(n), byte(n >> 8), byte(n >> 16)})
	})
	return p
}

func announce(tx *db.Tx, p probe.Probe, changes []probe.Change) {
	for _, c := range changes {
		tx.Append(events.OfProbe(p, c))
	}
}

// advance moves a stored probe on.
func advance(t fatal, d *db.DB, p probe.Probe, inputs ...probe.Input) probe.Probe {
	t.Helper()
	write(t, d, func(ctx context.Context, tx *db.Tx) error {
		for _, in := range inputs {
			next, changes, err := probe.Default().Advance(p, in, nil)
			if err != nil {
				return err
			}
			announce(tx, next, changes)
			p = next
		}
		return tx.SaveProbe(ctx, p, time.Time{})
	})
	return p
}

func command(to probe.Lifecycle, at time.Time) probe.Command { return probe.Command{At: at, To: to} }

func beat(p probe.Probe, at time.Time) probe.Heartbeat {
	return probe.Heartbeat{ProbeID: p.ID, Country: p.Country, ASN: p.ASN, SoftwareVersion: "2.1.0", ReceivedAt: at}
}
