package db

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/network"
)

// channel is what LISTEN and NOTIFY meet on. The notice says only that there is something to
// read, so a lost one costs time and never an event.
const channel = "vantage_log"

// logLock is the key of the advisory lock that orders commits to the log.
const logLock = 0x76616e74616765 // "vantage"

// skew is how far the clocks of two servers may differ before a reader that starts at a
// position could pass over a partition that it needs.
const skew = 10 * time.Minute

// Append adds events to the log, in this order, when the transaction commits.
func (t *Tx) Append(evs ...events.Event) { t.events = append(t.events, evs...) }

// flush writes what waits for the commit, then takes the lock, numbers and writes what was
// appended, and wakes the readers: all in one round trip, with nothing but the commit after it, so
// that the lock, and before it the rows of the rollup, are held as short as can be.
func (t *Tx) flush(ctx context.Context) error {
	b := &t.pending
	t.queueRollup(b)
	if len(t.events) > 0 || len(t.heartbeats) > 0 {
		t.queueLog(b)
	}
	if b.Len() == 0 {
		return nil
	}
	return translate(t.q.SendBatch(ctx, b).Close())
}

func (t *Tx) queueLog(b *pgx.Batch) {
	b.Queue("select pg_advisory_xact_lock($1)", int64(logLock))
	if len(t.heartbeats) > 0 {
		t.queueHeartbeats(b)
	}
	if len(t.events) > 0 {
		t.queueEvents(b)
	}
	b.Queue("select pg_notify($1, '')", channel)
}

func (t *Tx) queueEvents(b *pgx.Batch) {
	n := len(t.events)
	occurred, kind, subject, cc := make([]time.Time, n), make([]string, n), make([]string, n), make([]string, n)
	asn, payload, rule, version := make([]int64, n), make([]string, n), make([]string, n), make([]int32, n)
	caused := make([]string, n) // as PostgreSQL writes arrays: those of an array must have one length
	for i, e := range t.events {
		caused[i] = "{}"
		if len(e.CausedBy) > 0 {
			caused[i] = "{" + strings.Trim(strings.ReplaceAll(fmt.Sprint(e.CausedBy), " ", ","), "[]") + "}"
		}
		occurred[i], kind[i], subject[i], cc[i] = e.OccurredAt, string(e.Kind), e.Subject, string(e.Country)
		asn[i], payload[i], rule[i], version[i] = int64(e.ASN), "{}", e.RuleID, int32(e.RuleVersion)
		if e.Payload != nil {
			payload[i] = string(e.Payload)
		}
	}
	b.Queue(`insert into event (seq, recorded_at, occurred_at, kind, subject, country, asn, payload, rule_id, rule_version, caused_by)
		select nextval('log_seq'), $1, occurred_at, kind, subject, country, asn, payload::json, rule_id, rule_version, caused_by::bigint[]
		from (select * from unnest($2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[], $9::int[], $10::text[])
			with ordinality as u (occurred_at, kind, subject, country, asn, payload, rule_id, rule_version, caused_by, i) order by i) e`,
		t.Now, occurred, kind, subject, cc, asn, payload, rule, version, caused)
}

const eventColumns = "seq, recorded_at, occurred_at, kind, subject, country, asn, payload, rule_id, rule_version, caused_by"

func scanEvent(row pgx.CollectableRow) (e events.Event, err error) {
	var cc string
	var asn int64
	err = row.Scan(&e.Seq, &e.RecordedAt, &e.OccurredAt, &e.Kind, &e.Subject, &cc, &asn, &e.Payload, &e.RuleID, &e.RuleVersion, &e.CausedBy)
	e.RecordedAt, e.OccurredAt = e.RecordedAt.UTC(), e.OccurredAt.UTC()
	e.Country, e.ASN = country.Code(cc), network.ASN(asn)
	return e, err
}

// EventsAfter returns up to n events that come after the position, in order.
func (r reader) EventsAfter(ctx context.Context, p events.Position, n int) ([]events.Event, error) {
	since := time.Unix(0, 0)
	if !p.RecordedAt.IsZero() {
		since = p.RecordedAt.Add(-skew)
	}
	return list(ctx, r, scanEvent,
		"select "+eventColumns+" from event where seq > $1 and recorded_at >= $2 order by seq limit $3", p.Seq, since, n)
}

// LogHead returns the last number that was committed, of events and of heartbeats, dropped ones
// included as far as readers must have come past them. Everything committed later has larger
// numbers.
func (r reader) LogHead(ctx context.Context) (events.Position, error) {
	return one(ctx, r, func(row pgx.CollectableRow) (p events.Position, err error) {
		var at *time.Time
		err = row.Scan(&p.Seq, &at)
		p.RecordedAt = zero(at)
		return p, err
	}, `select greatest(e.seq, h.seq, f.seq), e.recorded_at from log_floor f
		left join (select seq, recorded_at from event order by seq desc limit 1) e on true
		left join (select seq from heartbeat order by seq desc limit 1) h on true`)
}

// LogFloor returns the largest number that retention has dropped. A reader at or after it
// misses nothing.
func (r reader) LogFloor(ctx context.Context) (int64, error) {
	return one(ctx, r, pgx.RowTo[int64], "select seq from log_floor")
}

// An EventQuery says which events; every nil condition holds.
type EventQuery struct {
	Kinds     []string
	NotKinds  []string // never these, whatever Kinds says
	Countries []string
	Subjects  []string
	Since     *time.Time
	Until     *time.Time
	Visible   Visibility // leaves out impairments of probes whose network is withheld
}

// Events returns a page of the log, newest first; its keys are numbers.
func (r reader) Events(ctx context.Context, q EventQuery, p Page) ([]events.Event, error) {
	w := &where{}
	w.in("kind", q.Kinds)
	if len(q.NotKinds) > 0 {
		w.add("kind <> all($)", q.NotKinds)
	}
	w.in("country", q.Countries)
	w.in("subject", q.Subjects)
	q.Visible.impairments(w)
	w.since("occurred_at", q.Since)
	w.until("occurred_at", q.Until)
	sql := "select " + eventColumns + " from event" + w.page(p, order{column: "seq", cast: "bigint", desc: true})
	evs, err := list(ctx, r, scanEvent, sql, w.args...)
	return inOrder(evs, p), err
}

// Event returns the event of that number. NOT_FOUND when there is none.
func (r reader) Event(ctx context.Context, seq int64) (events.Event, error) {
	return one(ctx, r, scanEvent, "select "+eventColumns+" from event where seq = $1", seq)
}

// Listen calls wake whenever something was committed to the log, and once when it begins to
// listen, until ctx ends or the connection fails. wake must not block.
func (d *DB) Listen(ctx context.Context, wake func()) error {
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return translate(err)
	}
	// The session listens and may be cut off in the middle of a message: it is not given back.
	raw := conn.Hijack()
	defer closeQuietly(ctx, raw)
	if _, err := raw.Exec(ctx, "listen "+channel); err != nil {
		return translate(err)
	}
	wake()
	for {
		if _, err := raw.WaitForNotification(ctx); err != nil {
			return translate(err)
		}
		wake()
	}
}

func closeQuietly(ctx context.Context, c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = c.Close(ctx) // nothing is lost with a session that only listens
}

// Stats are figures about the pool, for metrics.
func (d *DB) Stats() *pgxpool.Stat { return d.pool.Stat() }
