package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/db/dbtest"
)

// patience is how long a test waits for what must come.
const patience = 60 * time.Second

// A cluster is some processes on one database, and what their jobs did.
type cluster struct {
	t   *testing.T
	url string
	sql *pgxpool.Pool

	mu   sync.Mutex
	runs []ran
	log  strings.Builder
}

// ran is one run of a job at an instant in a process.
type ran struct {
	process string
	at      time.Time
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, url: dbtest.New(t)}
	var err error
	if c.sql, err = pgxpool.New(t.Context(), c.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.sql.Close)
	return c
}

func (c *cluster) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log.Write(b)
}

// process starts one with that table. Stop ends it well; it may be called twice.
func (c *cluster) process(rate float64, table ...job) (r *Runner, stop func()) {
	c.t.Helper()
	began := time.Now()
	clock := func() time.Time { return began.Add(time.Duration(float64(time.Since(began)) * rate)) }
	d, err := db.Open(context.Background(), c.url, db.Options{MaxConns: 6, Clock: clock})
	if err != nil {
		c.t.Fatal(err)
	}
	r = New(d, nil, Retention{}, rate, slog.New(slog.NewTextHandler(c, nil)))
	r.table, r.pace = table, pace{jobFor: 20 * time.Second, deliverFor: 20 * time.Second, rescue: 30 * time.Second, startAgain: time.Second, stopFor: 20 * time.Second}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			c.t.Errorf("it ended with %v", err)
		}
		d.Close()
	})
	c.t.Cleanup(stop)
	return r, stop
}

// every is a job that notes that it ran.
func (c *cluster) every(step time.Duration, process string, now func() time.Time) job {
	return job{"note", step, func(context.Context) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.runs = append(c.runs, ran{process, now()})
		return nil
	}}
}

// until waits for something that is asked for again and again.
func (c *cluster) until(what string, holds func() bool) {
	c.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); !holds(); <-tick.C {
		if time.Since(began) > patience {
			state := c.text("select coalesce(json_agg(j)::text, '') || (select coalesce(json_agg(l)::text, '') from river.river_leader l) from river.river_job j")
			c.t.Fatalf("waited in vain until %s; the queue is %s, the log is\n%s", what, state, c.told())
		}
	}
}

func (c *cluster) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.runs)
}

func (c *cluster) ran(enough int) func() bool {
	return func() bool { return c.count() >= enough }
}

func (c *cluster) told() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log.String()
}

func (c *cluster) text(query string, args ...any) (s string) {
	c.t.Helper()
	if err := c.sql.QueryRow(c.t.Context(), query, args...).Scan(&s); err != nil {
		c.t.Fatal(err)
	}
	return s
}

func TestRun(t *testing.T) {
	t.Parallel()

	t.Run("each instant has its run, whoever leads", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t)
		var stops []func()
		for n := range 3 {
			_, stop := c.process(1, c.every(time.Second, fmt.Sprint(n), time.Now))
			stops = append(stops, stop)
		}
		c.until("there are runs", c.ran(3))
		for _, stop := range stops[:2] { // the leader is among them, or comes next
			before := c.count()
			stop()
			c.until("others carry on", c.ran(before+3))
		}
		stops[2]()
		if n := c.text("select count(*)::text from (select args from river.river_job where kind = 'note' group by args having count(*) > 1) x"); n != "0" {
			t.Errorf("%s instants were put into the queue twice", n)
		}
		if n := c.text("select count(*)::text from river.river_job where kind = 'note' and state = 'completed' and attempt = 1"); n != fmt.Sprint(c.count()) {
			t.Errorf("%d runs of %s jobs", c.count(), n)
		}
	})

	t.Run("a job that fails is told of and tried again", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t)
		tries := make(chan struct{}, 9)
		_, stop := c.process(1, job{"unlucky", time.Hour, func(context.Context) error {
			tries <- struct{}{}
			return errors.New("out of luck")
		}})
		<-tries
		<-tries
		stop()
		if told := c.told(); !strings.Contains(told, "job=unlucky attempt=1") || !strings.Contains(told, "out of luck") {
			t.Errorf("told was %q", told)
		}
	})

	t.Run("a job that ends for nobody does not keep the server from stopping", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t)
		began, release := make(chan struct{}), make(chan struct{})
		begin := sync.OnceFunc(func() { close(began) }) // a full hour is another instant
		t.Cleanup(func() { close(release) })
		d, err := db.Open(t.Context(), c.url, db.Options{})
		if err != nil {
			t.Fatal(err)
		}
		r := New(d, nil, Retention{}, 1, slog.New(slog.NewTextHandler(c, nil)))
		r.pace.stopFor = 100 * time.Millisecond
		r.table = []job{{"stubborn", time.Hour, func(context.Context) error {
			begin()
			<-release
			return nil
		}}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		<-began
		cancel()
		if err := <-ended; err != nil || !strings.Contains(c.told(), "did not end in time") {
			t.Errorf("it ended with %v", err)
		}
	})

	t.Run("work that a killed process was at is done by another", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t)
		r, stop := c.process(1, c.every(time.Hour, "", time.Now))
		c.until("it ran", c.ran(1))
		stop()
		// What a killed process leaves behind: it counts as running, by nobody.
		if _, err := c.sql.Exec(t.Context(), `update river.river_job set state = 'running', finalized_at = null,
			attempted_at = now() - interval '1 minute' where kind = 'note'`); err != nil {
			t.Fatal(err)
		}
		_, _ = c.process(1, r.table...)
		c.until("it ran again", c.ran(2))
	})
}

func TestSchedule(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		rate        float64
		every, step time.Duration
	}{
		{1, time.Hour, time.Hour}, {60, 5 * time.Minute, 5 * time.Minute}, {600, 5 * time.Minute, 10 * time.Minute}, {7200, 30 * time.Minute, 2 * time.Hour},
	} {
		t.Run(fmt.Sprintf("each %v at %v times the speed", x.every, x.rate), func(t *testing.T) {
			t.Parallel()
			var began time.Time
			start := time.Date(2026, 3, 1, 10, 3, 0, 0, time.UTC)
			c := newCluster(t)
			d, err := db.Open(t.Context(), c.url, db.Options{Clock: func() time.Time {
				return start.Add(time.Duration(float64(time.Since(began)) * x.rate))
			}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(d.Close)
			synctest.Test(t, func(t *testing.T) { // no time passes between a look at one clock and at the other
				began = time.Now()
				s := schedule{New(d, nil, Retention{}, x.rate, slog.New(slog.DiscardHandler)), x.every}
				if s.step() != x.step {
					t.Errorf("it steps by %v, want %v", s.step(), x.step)
				}
				var steps []time.Duration
				at := began
				for range 5 {
					next := s.Next(at)
					server := start.Add(time.Duration(float64(next.Sub(began)) * x.rate))
					if off := server.Sub(server.Round(x.step)).Abs(); off > time.Duration(x.rate*float64(20*time.Millisecond)) {
						t.Errorf("%v is no multiple", server)
					}
					steps = append(steps, next.Sub(at).Round(50*time.Millisecond))
					at = next
				}
				want := s.real(x.step).Round(50 * time.Millisecond)
				if slices.ContainsFunc(steps[1:], func(d time.Duration) bool { return (d - want).Abs() > 50*time.Millisecond }) {
					t.Errorf("it steps by %v, want %v", steps, want)
				}
			})
		})
	}
}
