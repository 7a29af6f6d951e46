package db

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// A span is how much time one partition of a table holds.
type span int

const (
	daily span = iota
	monthly
)

// partitioned lists the tables by time. Heartbeats, and what measurements say of their probes,
// are many and wanted for days; the others are wanted for years. event comes last, so that what an
// event speaks of is never dropped after it in one run.
var partitioned = []struct {
	table string
	span  span
	ahead int // how many partitions after the present one are made
}{
	{"heartbeat", daily, 3},
	{"probe_conduct", daily, 3},
	{"quality", monthly, 1},
	{"measurement", monthly, 1},
	{"body", monthly, 1},
	{"measurement_rollup", monthly, 1},
	{"faulty_measurement", monthly, 1},
	{"packed_body", monthly, 1},
	{"discarded_submission", monthly, 1},
	{"verdict", monthly, 1},
	{"cause_evaluation", monthly, 1},
	{"event", monthly, 1},
}

// bounds of the partition that holds t.
func (s span) bounds(t time.Time) (since, until time.Time) {
	t = t.UTC()
	if s == daily {
		since = time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
		return since, since.AddDate(0, 0, 1)
	}
	since = time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
	return since, since.AddDate(0, 1, 0)
}

// partitions remembers which ones are there, so that writing costs no look-up.
type partitions struct {
	mu    sync.Mutex
	known map[string]bool
}

func newPartitions() *partitions { return &partitions{known: map[string]bool{}} }

func (p *partitions) has(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known[name]
}

func (p *partitions) add(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known[name] = true
}

func (p *partitions) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.known)
}

// MakePartitions makes the partitions that hold now and the time ahead, in a transaction of
// its own each, and returns how many were missing.
func (d *DB) MakePartitions(ctx context.Context, now time.Time) (int, error) {
	made := 0
	for _, p := range partitioned {
		at := now
		for range p.ahead + 1 {
			n, err := d.makePartition(ctx, p.table, p.span, at)
			if err != nil {
				return made, err
			}
			made += n
			_, at = p.span.bounds(at)
		}
	}
	return made, nil
}

// MakePartitionsFor makes those that measurements received at these instants need. Only
// archives bring instants outside what MakePartitions has made.
func (d *DB) MakePartitionsFor(ctx context.Context, receivedAt ...time.Time) error {
	for _, at := range receivedAt {
		for _, table := range []string{"measurement", "body", "packed_body", "discarded_submission", "verdict", "measurement_rollup"} {
			if _, err := d.makePartition(ctx, table, monthly, at); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *DB) makePartition(ctx context.Context, table string, s span, at time.Time) (int, error) {
	since, until := s.bounds(at)
	name := table + since.Format("20060102")
	if d.parts.has(name) {
		return 0, nil
	}
	var made bool
	if err := d.pool.QueryRow(ctx, "select make_partition($1, $2, $3)", table, since, until).Scan(&made); err != nil {
		return 0, translate(err)
	}
	d.parts.add(name)
	if made {
		return 1, nil
	}
	return 0, nil
}

// DropPartitions drops every partition whose whole time lies before the table's limit, and
// returns their names. A table that keep does not name, or names with a zero time, is kept
// whole, and so is a part of the spool that is not archived yet. A reader of the log that has not
// come past what is dropped gets RESYNC.
func (d *DB) DropPartitions(ctx context.Context, keep map[string]time.Time) ([]string, error) {
	defer d.parts.forget()
	var dropped []string
	for _, p := range partitioned {
		limit := keep[p.table]
		if limit.IsZero() {
			continue
		}
		names, err := list(ctx, d.reader, pgx.RowTo[string],
			"select inhrelid::regclass::text from pg_inherits where inhparent = $1::regclass order by 1", p.table)
		if err != nil {
			return dropped, err
		}
		for _, name := range names {
			since, err := time.Parse("20060102", strings.TrimPrefix(name, p.table+"_"))
			if err != nil {
				continue // not one of ours
			}
			if _, until := p.span.bounds(since); until.After(limit) {
				continue
			}
			gone, err := d.dropPartition(ctx, p.table, name)
			if err != nil {
				return dropped, err
			}
			if gone {
				dropped = append(dropped, name)
			}
		}
	}
	return dropped, nil
}

// dropPartition reports false when another process dropped it first. It locks the table before
// it looks: what is written between the look and the drop would be lost without a trace.
func (d *DB) dropPartition(ctx context.Context, table, name string) (gone bool, err error) {
	err = d.Write(ctx, func(tx *Tx) error {
		if err := tx.exec(ctx, "lock table only "+table+" in access exclusive mode"); err != nil {
			return err
		}
		if gone, err = one(ctx, tx.reader, pgx.RowTo[bool], "select to_regclass($1) is not null", name); err != nil || !gone {
			return err
		}
		quoted := pgx.Identifier{name}.Sanitize()
		if table == "body" {
			waiting, err := one(ctx, tx.reader, pgx.RowTo[bool], "select exists (select from "+quoted+")")
			if err != nil || waiting {
				gone = false
				return err
			}
		}
		if table == "event" {
			floor := fmt.Sprintf("update log_floor set seq = greatest(seq, (select coalesce(max(seq), 0) from %s))", quoted)
			if err := tx.exec(ctx, floor); err != nil {
				return err
			}
		}
		if table == "measurement" || table == "discarded_submission" {
			forget := fmt.Sprintf("delete from submission s using %s m where s.uid = m.uid", quoted)
			if err := tx.exec(ctx, forget); err != nil {
				return err
			}
		}
		return tx.exec(ctx, "drop table "+quoted)
	})
	return gone && err == nil, err
}
