package server

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/service"
)

// metrics are what /metrics shows. Every label has a closed set of values, and none of them
// says anything about a probe.
type metrics struct {
	registry      *prometheus.Registry
	heartbeats    *prometheus.HistogramVec
	submissions   *prometheus.CounterVec
	refused       *prometheus.CounterVec
	scoring       prometheus.Histogram
	relay         prometheus.Histogram
	packs         *prometheus.CounterVec
	spooled       prometheus.Gauge
	damaged       prometheus.Counter
	subscriptions *prometheus.GaugeVec
	sockets       prometheus.Gauge
	closes        *prometheus.CounterVec
	messages      prometheus.Counter
	conflated     prometheus.Counter
}

func newMetrics(d *db.DB) *metrics {
	short := []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		heartbeats: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "vantage_heartbeat_seconds", Help: "From the arrival of a heartbeat to its commit, by outcome.", Buckets: short,
		}, []string{"outcome"}),
		submissions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vantage_submissions_total", Help: "Submitted measurement bodies by outcome.",
		}, []string{"outcome"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vantage_queue_refusals_total", Help: "Callers that were sent away because too much waited for the database.",
		}, []string{"queue"}),
		scoring: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "vantage_scoring_seconds", Help: "Parsing and scoring one body.",
			Buckets: []float64{.00001, .00005, .0001, .0005, .001, .005, .01, .05, .1, .5},
		}),
		relay: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "vantage_event_lag_seconds", Help: "From the transaction that wrote an event to telling this process's subscribers.", Buckets: short,
		}),
		packs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vantage_packs_total", Help: "Attempts to archive a pack of bodies, by outcome.",
		}, []string{"outcome"}),
		spooled: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vantage_spool_bytes", Help: "Bodies that wait in the database to be archived, compressed, at the last look.",
		}),
		damaged: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vantage_archive_damage_total", Help: "How often something in the archive was not what was put there, or missing.",
		}),
		subscriptions: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "vantage_subscriptions", Help: "Open subscriptions by field.",
		}, []string{"field"}),
		sockets: prometheus.NewGauge(prometheus.GaugeOpts{Name: "vantage_websockets", Help: "Open websockets."}),
		closes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vantage_websocket_closes_total", Help: "Websockets that ended, by close code.",
		}, []string{"code"}),
		messages: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vantage_messages_total", Help: "Messages to subscribers.",
		}),
		conflated: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vantage_messages_conflated_total", Help: "Messages that slow subscribers were spared.",
		}),
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	m.registry.MustRegister(m.heartbeats, m.submissions, m.refused, m.scoring, m.relay, m.packs, m.spooled, m.damaged,
		m.subscriptions, m.sockets, m.closes, m.messages, m.conflated,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		gauge("vantage_database_connections", "Connections to the database.", func() float64 { return float64(d.Stats().TotalConns()) }),
		gauge("vantage_database_connections_busy", "Connections in use.", func() float64 { return float64(d.Stats().AcquiredConns()) }),
		gauge("vantage_database_wait_seconds", "Time spent waiting for a connection, in all.", func() float64 {
			return d.Stats().EmptyAcquireWaitTime().Seconds()
		}),
	)
	return m
}

// observeFlows adds what only the running flows know.
func (m *metrics) observeFlows(s *service.Service) {
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "vantage_log_seq", Help: "The last event that this process has relayed."},
			func() float64 { at, _ := s.Here(); return float64(at.Seq) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "vantage_log_lag_seconds", Help: "Since when the log was last read to its end."},
			func() float64 { _, lag := s.Here(); return lag.Seconds() }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "vantage_submissions_waiting", Help: "Submissions that wait for the database."},
			func() float64 { n, _ := s.Waiting(); return float64(n) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "vantage_submissions_waiting_bytes", Help: "What they hold, in bytes."},
			func() float64 { _, bytes := s.Waiting(); return float64(bytes) }),
	)
}

// Heartbeat implements service.Meter.
func (m *metrics) Heartbeat(outcome string, took time.Duration) {
	m.heartbeats.WithLabelValues(outcome).Observe(took.Seconds())
}

// Submission implements service.Meter.
func (m *metrics) Submission(outcome string) { m.submissions.WithLabelValues(outcome).Inc() }

// Refused implements service.Meter.
func (m *metrics) Refused(queue string) { m.refused.WithLabelValues(queue).Inc() }

// Scored implements service.Meter.
func (m *metrics) Scored(took time.Duration) { m.scoring.Observe(took.Seconds()) }

// Relayed implements service.Meter.
func (m *metrics) Relayed(lag time.Duration) { m.relay.Observe(lag.Seconds()) }

// Packed implements service.Meter.
func (m *metrics) Packed(outcome string) { m.packs.WithLabelValues(outcome).Inc() }

// Spooled implements service.Meter.
func (m *metrics) Spooled(bytes int64) { m.spooled.Set(float64(bytes)) }

// Damaged implements service.Meter.
func (m *metrics) Damaged() { m.damaged.Inc() }

// Subscribed implements engine.Meter.
func (m *metrics) Subscribed(field string) (done func()) {
	g := m.subscriptions.WithLabelValues(field)
	g.Inc()
	return g.Dec
}

// SocketOpened implements engine.Meter.
func (m *metrics) SocketOpened() (closed func(code int)) {
	m.sockets.Inc()
	return func(code int) {
		m.sockets.Dec()
		m.closes.WithLabelValues(closeLabel(code)).Inc()
	}
}

// closeLabel is a close code that we or the protocol know; clients may send any.
func closeLabel(code int) string {
	if code >= 1000 && code <= 1015 || code >= 4400 && code <= 4503 {
		return strconv.Itoa(code)
	}
	return "other"
}

// Delivered implements engine.Meter.
func (m *metrics) Delivered(messages int) { m.messages.Add(float64(messages)) }

// Conflated implements engine.Meter.
func (m *metrics) Conflated(messages int) { m.conflated.Add(float64(messages)) }
