// Package jobs answers: what runs when, without anybody asking? It is the table of periodic
// work, and the workers of the queue. What each job does is a flow of service or a chore of db.
//
// The queue is River's, in the database that everything else is in. One process, the leader,
// puts each row's work into it at its instants, at most once for each instant whoever leads; any
// process does the work. What a killed process was at is done again by another. So jobs
// are idempotent, and none needs to know how often it ran. Package server alone imports this one.
package jobs

import (
	"context"
	"log/slog"
	"time"

	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/service"
)

// Retention says how long each kind of row is kept; 0 is for ever. Bodies and records of discarded and
// of faulty submissions go with the measurements, qualities with the events. The rollup stays: what
// it counts of dropped months is all that is left of them.
type Retention struct {
	Heartbeats, Measurements, Events time.Duration
}

// A job is one row of the table. It runs at the whole multiples of every by the server's clock:
// with an hour at :00, with a quarter of an hour at :00, :15, :30 and :45.
type job struct {
	name  string
	every time.Duration
	run   func(context.Context) error
}

// A Runner runs the table, and what transactions put into the queue.
type Runner struct {
	table []job
	db    *db.DB
	flows *service.Service
	rate  float64 // of the server's clock
	pace  pace
	id    string // of this process in the queue; empty: made up
	log   *slog.Logger
}

// New fills in the table. Partitions are made long before they are needed, so an hour between
// attempts leaves days for a person to look at failures. Rate is how fast the server's clock
// runs, which jobs keep up with.
func New(d *db.DB, s *service.Service, keep Retention, rate float64, log *slog.Logger) *Runner {
	r := &Runner{db: d, flows: s, rate: rate, pace: usual, log: log}
	r.table = []job{
		{"make partitions", time.Hour, func(ctx context.Context) error {
			n, err := d.MakePartitions(ctx, d.Now())
			if n > 0 {
				log.Info("partitions made", "count", n)
			}
			return err
		}},
		{"drop old partitions", time.Hour, func(ctx context.Context) error {
			dropped, err := d.DropPartitions(ctx, keep.limits(d.Now()))
			if len(dropped) > 0 {
				log.Info("partitions dropped", "names", dropped)
			}
			return err
		}},
		{"ask third parties", time.Minute, s.AskThirdParties},
		{"find volume faults", time.Minute, s.FindVolumeFaults},
		{"archive bodies", time.Minute, func(ctx context.Context) error {
			if d.Now().Minute() == archiveMinute {
				return s.Pack(ctx)
			}
			return s.PackLarge(ctx)
		}},
		{"forget answers", time.Hour, func(ctx context.Context) error {
			_, err := s.ForgetAnswers(ctx)
			return err
		}},
		{"score quality", 10 * time.Second, func(ctx context.Context) error {
			began := time.Now()
			n, err := s.ScoreQuality(ctx)
			if n > 0 {
				log.Info("qualities scored", "probes", n, "took", time.Since(began).Round(time.Millisecond))
			}
			return err
		}},
	}
	return r
}

// archiveMinute is the minute of an hour at which the hours before it are archived. A look that fails, or
// is missed, is made up for by the others.
//
// Source: design/measurements.md, section 1 (the peer's uploader).
const archiveMinute = 10

// conductKept is how long it is kept what measurements say of their probes: snapshots look at four
// hours of it, and a person who doubts a score at some days.
const conductKept = 3 * 24 * time.Hour

// limits are the instants before which rows may go.
func (k Retention) limits(now time.Time) map[string]time.Time {
	out := map[string]time.Time{}
	for _, t := range []struct {
		table string
		keep  time.Duration
	}{
		{"heartbeat", k.Heartbeats},
		{"probe_conduct", conductKept},
		{"measurement", k.Measurements},
		{"body", k.Measurements},
		{"discarded_submission", k.Measurements},
		{"verdict", k.Measurements},
		{"faulty_measurement", k.Measurements},
		{"cause_evaluation", k.Events},
		{"event", k.Events},
		{"quality", k.Events},
	} {
		if t.keep > 0 {
			out[t.table] = now.Add(-t.keep)
		}
	}
	return out
}
