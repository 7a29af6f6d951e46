package service

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/db/embedded"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/probe"
)

// durable is a world on a server of its own that keeps what it acknowledges, as the clusters
// of tests do not.
func durable(b *testing.B, log ...slog.Handler) *world {
	b.Helper()
	dir, err := os.MkdirTemp("", "vantage-bench-") // b.TempDir is not for PostgreSQL's own user
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	server, err := embedded.Start(context.Background(), embedded.Config{DataDir: dir, Log: slog.New(slog.NewMultiHandler(log...))})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			b.Error(err)
		}
	})
	if err := db.Migrate(context.Background(), server.URL); err != nil {
		b.Fatal(err)
	}
	return newWorldOn(b, server.URL)
}

// against reports an operation's time beside the one that is wanted.
func against(b *testing.B, wanted time.Duration) {
	b.Helper()
	b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/op")
	if wanted > 0 {
		b.ReportMetric(float64(wanted.Microseconds())/1000, "wanted-ms/op")
	}
}

// A stopwatch adds up how long the database server worked, as its own log says: reading, planning and
// running statements, and the commits, most of which is waiting for the disk.
type stopwatch struct{ all, commits atomic.Int64 }

// Enabled reports true: durations are logged with the least level.
func (*stopwatch) Enabled(context.Context, slog.Level) bool { return true }

// Handle reads one line of the server's log.
func (s *stopwatch) Handle(_ context.Context, line slog.Record) error {
	rest, ok := strings.CutPrefix(line.Message, "duration: ")
	ms, what, _ := strings.Cut(rest, " ms")
	took, err := time.ParseDuration(ms + "ms")
	if !ok || err != nil {
		return nil
	}
	s.all.Add(int64(took))
	if strings.HasSuffix(what, ": commit") {
		s.commits.Add(int64(took))
	}
	return nil
}

// WithAttrs is the same.
func (s *stopwatch) WithAttrs([]slog.Attr) slog.Handler { return s }

// WithGroup is the same.
func (s *stopwatch) WithGroup(string) slog.Handler { return s }

// start has the server tell, from now on.
func (s *stopwatch) start(w *world) {
	w.sql("alter system set log_min_duration_statement = 0")
	w.sql("select pg_reload_conf()")
	for s.all.Load() == 0 { // sessions hear of it between two statements
		w.sql("select 1")
	}
}

// stop ends that: writing the log takes time too.
func (s *stopwatch) stop(w *world) {
	w.sql("alter system reset log_min_duration_statement")
	w.sql("select pg_reload_conf()")
}

func (s *stopwatch) reset() { s.all.Store(0); s.commits.Store(0) }

func (s *stopwatch) report(b *testing.B) {
	b.Helper()
	b.ReportMetric(float64(s.all.Load())/1e6/float64(b.N), "database-ms/op")
	b.ReportMetric(float64(s.commits.Load())/1e6/float64(b.N), "of-it-commit-ms/op")
}

// later lets time pass, and nothing else happens. Partitions of a day are there.
func (w *world) later(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// crowd makes copies of a probe as it is after these inputs, with ids from first on.
func (w *world) crowd(first, copies int, inputs ...probe.Input) {
	w.t.Helper()
	id := probe.ID(fmt.Sprintf("prb_%016x", first))
	w.write(func(ctx context.Context, tx *db.Tx) error {
		p, _ := probe.Register(probe.Registration{ID: id, Country: "DE", ASN: 1, At: tx.Now})
		if err := tx.InsertProbe(ctx, p, access.Hash{byte(first), byte(first >> 8), byte(first >> 16)}); err != nil {
			return err
		}
		for _, in := range inputs {
			p, _, _ = rules.Advance(p, in, nil)
		}
		return tx.SaveProbe(ctx, p, rules.Deadline(p, nil))
	})
	w.sql(`insert into probe select (jsonb_populate_record(p, jsonb_build_object('id', 'prb_' || lpad(to_hex(n), 16, '0'),
			'secret_hash', '\x' || encode(sha256(n::text::bytea), 'hex'), 'asn', n % 97 + 1))).*
		from probe p, generate_series($2::int, $3::int) n where p.id = $1`, id, first+1, first+copies-1)
}

// parallelism is how many callers there are for each processor: enough to fill batches.
const parallelism = 64

// BenchmarkHeartbeat with one caller is the time of a heartbeat from end to end: the code, each
// way to the database and the durable commit. What the database needs of it is less.
func BenchmarkHeartbeat(b *testing.B) {
	const wanted = 1500 * time.Microsecond // Source: issue 4, of database time
	watch := &stopwatch{}
	w := durable(b, watch)
	within := func(b *testing.B) {
		b.Helper()
		watch.report(b)
		against(b, wanted)
	}
	s := w.process()
	probes := make([]probe.Probe, 1000)
	for i := range probes {
		probes[i] = w.register(s, "DE", 3320)
	}
	w.beat(s, probes...)
	w.wait(time.Minute)
	b.Run("the commit of one row alone", func(b *testing.B) {
		for b.Loop() {
			w.later(time.Microsecond)
			w.watch()
		}
		against(b, 0)
	})
	watch.start(w)
	b.Run("one caller", func(b *testing.B) {
		watch.reset()
		for i := 0; b.Loop(); i++ {
			w.later(time.Microsecond)
			w.beat(s, probes[i%len(probes)])
		}
		within(b)
	})
	// A long queue has the heartbeats of the last half hour read, which are as many as there can be.
	b.Run("one caller, whose history matters", func(b *testing.B) {
		for range 30 {
			w.later(time.Minute)
			for _, p := range probes[:10] {
				if _, err := s.Heartbeat(ctx, self(p), "", queued(p)); err != nil {
					b.Fatal(err)
				}
			}
		}
		watch.reset()
		for i := 0; b.Loop(); i++ {
			if i%10 == 0 {
				w.later(time.Minute)
			}
			p := probes[i%10]
			if _, err := s.Heartbeat(ctx, self(p), "", queued(p)); err != nil {
				b.Fatal(err)
			}
		}
		within(b)
	})
	watch.stop(w)
	b.Run("many callers", func(b *testing.B) {
		b.SetParallelism(parallelism)
		var n atomic.Int64
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				i := n.Add(1)
				w.later(time.Microsecond)
				w.beat(s, probes[int(i)%len(probes)])
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "heartbeats/s")
	})
}

// queued is a heartbeat of a probe whose measurements do not get through.
func queued(p probe.Probe) probe.Heartbeat {
	h := heartbeat(p)
	h.QueueDepth = 60
	return h
}

// BenchmarkSubmit submits bodies of 6 kB: as the server does, each in a transaction of its own, and only
// their rows, bodies and counts, in batches of 64, which is all that PostgreSQL has to do for them.
func BenchmarkSubmit(b *testing.B) {
	filler := make([]byte, 5600) // as hard to compress as a body with hashes and keys is
	for i := range filler {
		filler[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[(i*i+i/7)%36]
	}
	large := func(n int64) []byte {
		small := body(int(n))
		return fmt.Appendf(small[:len(small)-1], `, "filler": "%s"}`, filler)
	}
	submit := func(b *testing.B, s *Service) {
		b.Helper()
		b.SetParallelism(parallelism)
		var n atomic.Int64
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				got, err := s.Submit(context.Background(), access.Anyone, "", Submission{Body: large(n.Add(1))})
				if err != nil || got.Duplicate {
					b.Error(got, err)
				}
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "bodies/s")
	}
	b.Run("sharing transactions", func(b *testing.B) { submit(b, durable(b).process()) })
	b.Run("each in its own", func(b *testing.B) {
		s := durable(b).process()
		one := submissionLimits
		one.batch = 1
		s.submissions = newBatcher(2, one, func() {}, s.takeSubmissions)
		submit(b, s)
	})
	b.Run("PostgreSQL alone", func(b *testing.B) {
		s := durable(b).process()
		const batch = 64
		var n atomic.Int64
		b.SetParallelism(2)
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				var rows []db.Measurement
				var bodies []db.CompressedBody
				for range batch {
					content := large(n.Add(1))
					item, err := s.judge(access.Anyone, Submission{Body: content}, sha256.Sum256(content), s.db.Now())
					if err != nil {
						b.Error(err)
						return
					}
					rows = append(rows, item.row)
					bodies = append(bodies, db.CompressedBody{UID: item.row.UID, ReceivedAt: item.row.ReceivedAt, Country: item.row.Country, Data: item.compressed})
				}
				err := s.db.Write(context.Background(), func(tx *db.Tx) error {
					for _, r := range rows {
						tx.MoveRollup(r.Counted(1))
					}
					if err := tx.InsertMeasurements(context.Background(), rows...); err != nil {
						return err
					}
					return tx.InsertBodies(context.Background(), bodies...)
				})
				if err != nil {
					b.Error(err)
				}
			}
		})
		b.ReportMetric(float64(batch*b.N)/b.Elapsed().Seconds(), "bodies/s")
	})
}

// BenchmarkSweepNothingDue has 100,000 probes in the table, of which 10,000 are heard each minute: of
// the others one half fell silent long ago, and the other one retired.
func BenchmarkSweepNothingDue(b *testing.B) {
	w := durable(b)
	s := w.process()
	const heard, silent, retired = 10_000, 45_000, 45_000
	began := w.clock()
	life := []probe.Input{probe.Command{At: began, To: probe.Warmup}, probe.Command{At: began, To: probe.Active}, probe.Heartbeat{ReceivedAt: began}}
	w.crowd(0, silent, append(life, probe.Tick{At: start.Add(time.Hour)})...)
	w.crowd(silent, retired, append(life, probe.Command{At: began, To: probe.Inactive})...)
	w.wait(24 * time.Hour)
	now := w.clock()
	w.crowd(silent+retired, heard, append(life, probe.Heartbeat{ReceivedAt: now})...)
	if n := w.count("select count(*) from probe where lifecycle = 'ACTIVE' and liveness = 'ONLINE' and last_heartbeat_at = $1", now); n != heard {
		b.Fatal(n)
	}
	w.sql("cluster probe using probe_secret_hash_key") // so that they lie among each other
	w.sql("vacuum analyze probe")
	w.sql("update probe set last_heartbeat_at = last_heartbeat_at where liveness = 'ONLINE'") // as when they are heard
	c := w.connect()
	b.Cleanup(func() { _ = c.Close(context.Background()) })
	for name, step := range map[string]time.Duration{"without the guard": 0, "with the guard": guardEvery} {
		b.Run(name, func(b *testing.B) {
			w.watch()
			for b.Loop() {
				w.mu.Lock()
				w.now = w.now.Add(step)
				if w.now.Sub(now) > time.Minute { // nobody is missed, nothing falls due
					w.now = now
				}
				w.mu.Unlock()
				if step > 0 {
					if _, err := c.Exec(b.Context(), "update observer_watermark set seen_at = $1", w.clock().Add(-step)); err != nil {
						b.Fatal(err)
					}
				}
				if n := w.sweep(s); n != 0 {
					b.Fatal(n)
				}
			}
			against(b, 50*time.Millisecond) // Source: issue 4
		})
	}
}

// BenchmarkAppend weighs the lock that makes the order of numbers the order of commits against
// appending without one, where a reader may miss events.
func BenchmarkAppend(b *testing.B) {
	w := durable(b)
	ctx := context.Background()
	event := events.Event{OccurredAt: start, Kind: events.MeasurementScored, Subject: "msm_x", Country: "DE", ASN: 3320, Payload: []byte(`{"uid":"x"}`)}
	conns := make(chan *pgx.Conn, 16)
	for range cap(conns) {
		c := w.connect()
		b.Cleanup(func() { _ = c.Close(ctx) })
		conns <- c
	}
	unordered := func(n int, notify bool) error {
		c := <-conns
		defer func() { conns <- c }()
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			batch := &pgx.Batch{}
			batch.Queue(`insert into event (seq, recorded_at, occurred_at, kind, subject, country, asn, payload, rule_id, rule_version, caused_by)
				select nextval('log_seq'), $1, $1, $2, $3, $4, $5, $6, '', 0, '{}' from generate_series(1, $7)`,
				start, string(event.Kind), event.Subject, string(event.Country), int64(event.ASN), event.Payload, n)
			if notify {
				batch.Queue("select pg_notify('vantage_log', '')")
			}
			return tx.SendBatch(ctx, batch).Close()
		})
	}
	for _, batch := range []int{1, 8, 64} {
		for name, appendEvents := range map[string]func() error{
			"with the lock": func() error {
				return w.db.Write(ctx, func(tx *db.Tx) error {
					for range batch {
						tx.Append(event)
					}
					return nil
				})
			},
			"without it":                func() error { return unordered(batch, true) },
			"without it and the notice": func() error { return unordered(batch, false) },
		} {
			b.Run(fmt.Sprintf("%s, %d at a time", name, batch), func(b *testing.B) {
				b.SetParallelism(8)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if err := appendEvents(); err != nil {
							b.Error(err)
						}
					}
				})
				b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "events/s")
			})
		}
	}
}

// BenchmarkQuality scores 10,000 probes over four hours of measurements at the rate of community
// probes, 3.2 million of them, and has the same samples made in other ways to compare with.
func BenchmarkQuality(b *testing.B) {
	const probes, each = 10_000, 320
	w := durable(b)
	s := w.process()
	w.write(func(ctx context.Context, tx *db.Tx) error {
		for i := range probes {
			p, _ := probe.Register(probe.Registration{ID: probe.ID(fmt.Sprintf("prb_%016x", i)), Country: "DE", ASN: 1, Type: probe.Community, At: tx.Now})
			if err := tx.InsertProbe(ctx, p, access.Hash{byte(i), byte(i >> 8)}); err != nil {
				return err
			}
			for _, to := range []probe.Lifecycle{probe.Warmup, probe.Active} {
				p, _, _ = rules.Advance(p, probe.Command{At: tx.Now, To: to}, nil)
			}
			if err := tx.SaveProbe(ctx, p, time.Time{}); err != nil {
				return err
			}
		}
		return nil
	})
	// In the order in which they would come: one of each probe, 62 domains in turn with one of three addresses.
	w.sql(`insert into probe_conduct (measured_at, received_at, failed, control_unreached, probe_id, names, addresses)
		select t, t, false, false, 'prb_' || lpad(to_hex(p), 16, '0'), int8send(hashint8extended(n % 62, 1)), int8send(hashint8extended(n % 62 * 3 + (n + p) % 3, 2))
		from generate_series(0, $2::int - 1) n, generate_series(0, $3::int - 1) p,
			lateral (select $1::timestamptz + interval '4 h' * (n + 0.5) / $2::int as t) x order by n`, start, each, probes)
	w.sql("vacuum analyze probe_conduct")
	w.sql("vacuum analyze probe")
	w.wait(4*time.Hour + rules.SweepLag)
	w.watch()
	perSecond := func(b *testing.B) {
		b.Helper()
		b.ReportMetric(probes*each*float64(b.N)/b.Elapsed().Seconds(), "measurements/s")
	}

	b.Run("samples and scores of 10,000 probes over 3,200,000 measurements", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			w.sql("update snapshot set at = 'epoch'")
			w.sql("truncate quality, snapshot_probe")
			w.sql("update probe set standing = '{}'")
			b.StartTimer()
			if n, err := s.ScoreQuality(b.Context()); err != nil || n != probes {
				b.Fatal(n, err)
			}
		}
		against(b, 5*time.Second) // Source: issue 4
		perSecond(b)
	})
	if n := w.count("select count(*) from quality where measurements = 320 and addresses > 62 and domains = 62 and rate = 1"); n != probes {
		b.Fatalf("%d are right", n)
	}
	b.Run("samples alone", func(b *testing.B) {
		for b.Loop() {
			w.write(func(ctx context.Context, tx *db.Tx) error {
				all, err := tx.Samples(ctx, start, start.Add(4*time.Hour))
				if len(all) != probes {
					b.Fatal(len(all))
				}
				return err
			})
		}
		perSecond(b)
	})
	for name, sql := range map[string]string{
		// Each number has to be asked for: what nobody reads is not counted.
		"the same counted by PostgreSQL": `select count(*) from (select probe_id, count(*) n, count(*) filter (where failed) f, count(*) filter (where control_unreached) c,
			count(*) filter (where addresses <> '') r, count(distinct addresses) a, count(distinct names) d from probe_conduct
			where received_at > $1 and received_at <= $2 and measured_at > $1 group by probe_id) x where n + f + c + r + a + d > 0`,
		"its rows read and thrown away": `select count(*) from (select probe_id, failed, control_unreached, names, addresses from probe_conduct
			where received_at > $1 and received_at <= $2 and measured_at > $1 offset 0) x where names <> '' and addresses <> '' and probe_id <> ''`,
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				w.count(sql, start, start.Add(4*time.Hour))
			}
			perSecond(b)
		})
	}
}
