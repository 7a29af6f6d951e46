// Package server answers: how does a request reach the flows, and what does the world see of
// one? It has the HTTP and websocket surfaces, authentication, limits on requests, the error
// presenter, metrics, and the life of a process from New to the end of Serve.
//
// No flow and no rule is here. It is the only package that knows all the others; main alone
// imports it.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openvantage/vantage/archive"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/engine"
	"github.com/openvantage/vantage/geo"
	"github.com/openvantage/vantage/jobs"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/notify"
	"github.com/openvantage/vantage/ooni"
	"github.com/openvantage/vantage/probe"
	"github.com/openvantage/vantage/resolvers"
	"github.com/openvantage/vantage/service"
)

// A Server is one process: two listeners on one database.
type Server struct {
	cfg     Config
	log     *slog.Logger
	db      *db.DB
	flows   *service.Service
	jobs    *jobs.Runner
	api     *http.Server
	beats   *http.Server
	apiOn   net.Listener
	beatsOn net.Listener
	metrics *metrics
	streams *resolvers.Streams
	engine  *engine.Engine
	rates   *engine.Ledger
	places  *geo.Databases
	limits  measurement.Limits
	archive *archive.Bucket
	queue   *jobsPage
}

// New migrates the database at dsn, looks for what was missed while no server ran, and
// listens. A busy port or a database that does not answer fails now. Version is shown to
// clients.
func New(ctx context.Context, cfg Config, dsn, version string, log *slog.Logger) (*Server, error) {
	if cfg.ClockRate <= 0 {
		return nil, fmt.Errorf("CLOCK_RATE is %v; it must be more than 0", cfg.ClockRate)
	}
	s := &Server{cfg: cfg, log: log}
	if err := s.listen(ctx); err != nil {
		return nil, err
	}
	if err := s.open(ctx, dsn, version); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *Server) listen(ctx context.Context) (err error) {
	var lc net.ListenConfig
	if s.apiOn, err = lc.Listen(ctx, "tcp", s.cfg.Listen); err != nil {
		return fmt.Errorf("the API cannot listen (another LISTEN may help): %w", err)
	}
	if s.beatsOn, err = lc.Listen(ctx, "tcp", s.cfg.HeartbeatListen); err != nil {
		_ = s.apiOn.Close()
		return fmt.Errorf("heartbeats cannot be listened for (another HEARTBEAT_LISTEN may help): %w", err)
	}
	return nil
}

func (s *Server) open(ctx context.Context, dsn, version string) (err error) {
	if err = db.Migrate(ctx, dsn); err != nil {
		return err
	}
	c := &clock{rate: s.cfg.ClockRate, began: time.Now(), start: time.Now()}
	if s.db, err = db.Open(ctx, dsn, db.Options{MaxConns: s.cfg.MaxDatabaseConns, Clock: c.now}); err != nil {
		return err
	}
	if err = c.follow(ctx, s.db); err != nil {
		return err
	}
	if _, err = s.db.MakePartitions(ctx, s.db.Now()); err != nil {
		return err
	}
	files := geo.Debian
	files.Country, files.ASN = s.cfg.GeoIPCountryDatabase, s.cfg.GeoIPASNDatabase
	if s.places, err = geo.Open(files, s.log); err != nil {
		return err
	}
	s.metrics = newMetrics(s.db)
	s.limits = measurement.DefaultLimits
	s.limits.MaxBytes = s.cfg.MaxMeasurementBytes
	settings := service.DefaultRules()
	settings.Limits, settings.AutoActivate, settings.OpenCollector = s.limits, s.cfg.AutoActivate, s.cfg.OpenCollector
	settings.Health.MinInterval = s.cfg.HeartbeatMinInterval
	if settings.Canaries, err = canaries(s.cfg.Canaries); err != nil {
		return err
	}
	settings.SweepEvery, settings.DownAfter = sweepEvery(s.cfg.ClockRate), downAfter(s.cfg.ClockRate)
	settings.ReactEvery = reactEvery(s.cfg.ClockRate)
	settings.Rules.SweepLag = sweepLag(settings.Rules.SweepLag, s.cfg.ClockRate)
	if s.cfg.OONIURL != "" {
		if settings.ThirdParties, err = ooni.New(s.cfg.OONIURL); err != nil {
			return fmt.Errorf("OONI_API_URL: %w", err)
		}
	}
	if settings.Notify, err = notify.New(s.cfg.destinations()); err != nil {
		return err
	}
	if s.archive, err = openArchive(ctx, s.cfg); err != nil {
		return err
	}
	settings.Archive, settings.Collector = s.archive, s.cfg.CollectorID
	if s.flows, err = service.New(ctx, s.db, settings, s.metrics, s.log); err != nil {
		return err
	}
	s.metrics.observeFlows(s.flows)
	// Before any heartbeat is taken: a silence of ours must be found before it is counted.
	if _, err = s.flows.Sweep(ctx); err != nil {
		return err
	}
	s.jobs = jobs.New(s.db, s.flows, jobs.Retention{
		Heartbeats: s.cfg.KeepHeartbeats, Measurements: s.cfg.KeepMeasurements, Events: s.cfg.KeepEvents,
	}, s.cfg.ClockRate, s.log)
	s.streams = resolvers.NewStreams(s.flows, s.db.Now)
	return s.routes(ctx, version)
}

// canaries reads the setting.
func canaries(ids []string) ([]probe.ID, error) {
	out := make([]probe.ID, len(ids))
	for i, s := range ids {
		id, err := probe.ParseID(s)
		if err != nil {
			return nil, fmt.Errorf("CANARIES: %w", err)
		}
		out[i] = id
	}
	return out, nil
}

// URL is where the API listens.
func (s *Server) URL() string { return "http://" + s.apiOn.Addr().String() }

// HeartbeatURL is where the second listener takes heartbeats.
func (s *Server) HeartbeatURL() string { return "http://" + s.beatsOn.Addr().String() + "/heartbeat" }

// DB is the server's database, for what runs beside the server in this process.
func (s *Server) DB() *db.DB { return s.db }

// Serve answers until ctx ends, then stops in order: it accepts nothing new, tells the
// subscribers, lets requests under way finish, and closes the database.
func (s *Server) Serve(ctx context.Context) error {
	defer s.close()
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	g, failed := errgroup.WithContext(work)
	g.Go(func() error { return ignoreClosed(s.api.Serve(s.apiOn)) })
	g.Go(func() error { return ignoreClosed(s.beats.Serve(s.beatsOn)) })
	g.Go(func() error { return s.flows.Run(work) })
	g.Go(func() error { return s.jobs.Run(work) })
	g.Go(func() error { return s.streams.Run(work) })
	g.Go(func() error { return s.engine.Run(work) })
	g.Go(func() error { return s.rates.Run(work) })
	g.Go(func() error { return new(memory).run(work) })
	g.Go(func() error { return s.places.Run(work) })
	g.Go(func() error { return s.queue.Run(work) })
	select {
	case <-ctx.Done():
	case <-failed.Done():
	}
	s.log.Info("stopping")
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.ShutdownGrace)
	defer cancel()
	// Sockets are told to connect again, which finds another server, while requests finish.
	var told sync.WaitGroup
	told.Go(func() {
		if err := s.engine.Close(grace); err != nil {
			s.log.Warn("a socket did not end in time", "err", err)
		}
	})
	err := errors.Join(s.api.Shutdown(grace), s.beats.Shutdown(grace))
	told.Wait()
	if errors.Is(err, context.DeadlineExceeded) {
		s.log.Warn("some requests did not finish in time and were cut off", "grace", s.cfg.ShutdownGrace)
		err = errors.Join(s.api.Close(), s.beats.Close())
	}
	stopWork()
	return errors.Join(err, g.Wait())
}

func (s *Server) close() {
	_, _ = s.apiOn.Close(), s.beatsOn.Close() // closed already after a normal stop
	if s.db != nil {
		s.db.Close()
	}
	if s.archive != nil {
		_ = s.archive.Close() // it holds nothing that is not written
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// A clock is the machine's, or one that has run rate times as fast since start, which was
// when the process began.
type clock struct {
	rate         float64
	began, start time.Time
}

func (c *clock) now() time.Time {
	if c.rate == 1 {
		return time.Now()
	}
	return c.start.Add(time.Duration(float64(time.Since(c.began)) * c.rate))
}

// follow keeps time from going back across a restart, which would hide what follows from
// readers of the log. A fast clock goes on where the log ends; a true one cannot.
func (c *clock) follow(ctx context.Context, d *db.DB) error {
	const tolerated = time.Minute // what a machine's clock may be set back by
	head, err := d.LogHead(ctx)
	if err != nil || !head.RecordedAt.After(c.now().Add(tolerated)) {
		return err
	}
	if c.rate == 1 {
		return fmt.Errorf("the log ends at %s, which is yet to come: the machine's clock is wrong, or the database was used with CLOCK_RATE",
			head.RecordedAt.Format(time.RFC3339))
	}
	c.began, c.start = time.Now(), head.RecordedAt
	return nil
}

// downAfter is the service's own choice, but on a fast clock at least two true seconds: a machine
// that is busy for a moment would look like one that was down.
func downAfter(rate float64) time.Duration {
	if rate == 1 {
		return 0
	}
	return max(time.Minute, time.Duration(rate*float64(2*time.Second)))
}

// sweepLag is how long after an instant it is decided what was so at it: what came before has to be
// stored by then, which takes a true time, however fast the clock is.
func sweepLag(usual time.Duration, rate float64) time.Duration {
	if rate == 1 {
		return usual
	}
	return max(usual, time.Duration(rate*float64(150*time.Millisecond)))
}

// reactEvery is how late timers may be that keep their exact instants all the same. Each look of a reactor is a
// transaction: more of them take a small machine from those who heartbeat.
func reactEvery(rate float64) time.Duration {
	return max(200*time.Millisecond, time.Duration(float64(time.Second)/max(1, rate)))
}

// sweepEvery keeps a fast clock's deadlines and timers as prompt as a second is on a true one, as far as
// the machine can.
func sweepEvery(rate float64) time.Duration {
	return max(50*time.Millisecond, time.Duration(float64(time.Second)/max(1, rate)))
}
