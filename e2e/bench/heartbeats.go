//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openvantage/vantage/client"
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/db/embedded"
	"github.com/openvantage/vantage/probe"
	"github.com/openvantage/vantage/simulation"
)

// heartbeats measures a start, the memory, and the way of a heartbeat to the subscribers.
func (b *bench) heartbeats(ctx context.Context) error {
	return b.withSubject(ctx, "heartbeats", func(ctx context.Context, s *subject) error {
		loaded := "without fingerprints"
		if b.fingerprints != "" {
			loaded = "with 1,849 fingerprints"
			if err := s.command(ctx, "import", "fingerprints", b.fingerprints, "--format", "json"); err != nil {
				return err
			}
			s.stop()
			if _, err := s.start(ctx); err != nil { // as it is after a start, not after an import
				return err
			}
		}
		rest, err := s.settled(ctx)
		if err != nil {
			return err
		}
		progress("Measuring what one commit costs on this disk.")
		commit, err := commitTime(ctx, s.data)
		if err != nil {
			return err
		}
		progress("%d probes send one heartbeat a second each, for %s after they are registered.", b.probes, b.length)
		l, err := s.load(ctx, b.probes, b.length)
		if err != nil {
			return err
		}
		under, err := s.resident()
		if err != nil {
			return err
		}
		b.row("empty directory to serving", "at most 3 s wanted", "%s", ms(s.cold))
		b.row("resident memory at rest, "+loaded, "at most 120 MB wanted", "%.0f MB", rest)
		b.row("resident memory under the load below", "", "%.0f MB", under)
		b.row(fmt.Sprintf("one heartbeat sent, to its state change on a subscriber's socket, while %d probes send one a second: p50", b.probes),
			"the document's own service: 120 ms; one durable commit here: "+ms(commit), "%s", ms(at(l.changes, 50)))
		b.row(fmt.Sprintf("the same, p99 (%d changes)", len(l.changes)), "the document's own service: 800 ms", "%s", ms(at(l.changes, 99)))
		b.row(fmt.Sprintf("the same, to heartbeatReceived: p50, p99 (%d heartbeats)", len(l.beats)), "", "%s, %s", ms(at(l.beats, 50)), ms(at(l.beats, 99)))
		sent := l.report.Heartbeats
		b.row("heartbeats of the steady probes", "", "%d sent, %d accepted, %d failed", sent.Sent, sent.Acknowledged, sent.Failed)
		b.row("the mutation's answer: p50, p99", "", "%s, %s", ms(l.report.HeartbeatLatency.P50), ms(l.report.HeartbeatLatency.P99))
		b.row("CPU of the server process per heartbeat", "", "%s", l.cpu.Round(time.Microsecond))
		return nil
	})
}

// warmUp is how long it takes until all probes are registered and beat steadily.
const warmUp = 15 * time.Second

// measured is what the load showed.
type measured struct {
	report  simulation.Report
	changes []time.Duration // heartbeat sent to state change received
	beats   []time.Duration // heartbeat sent to heartbeat received
	cpu     time.Duration   // of the server process for each heartbeat
}

// load plays the steady probes, and beside them fresh ones whose first heartbeat is a change of
// state: a steady heartbeat changes nothing.
func (s *subject) load(ctx context.Context, probes int, length time.Duration) (m measured, err error) {
	token, err := s.token(ctx)
	if err != nil {
		return m, err
	}
	c := client.New(client.Options{BaseURL: "http://" + s.api, Token: token})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &watch{sent: map[probe.ID]time.Time{}}
	for _, field := range []string{"probeStateChanged(filter: {states: [ONLINE]})", "heartbeatReceived"} {
		sub, err := c.Subscribe(ctx, "subscription { "+field+" { probe { id } } }", nil)
		if err != nil {
			return m, err
		}
		defer sub.Close()
		go w.follow(ctx, sub, strings.HasPrefix(field, "probe"))
	}
	done := make(chan error, 1)
	go func() {
		var err error
		m.report, err = simulation.Run(ctx, simulation.Config{
			BaseURL: "http://" + s.api, OperatorToken: token, Probes: probes, Seed: 1, HeartbeatEvery: time.Second, Duration: warmUp + length,
		})
		done <- err
	}()
	select { // registering them all is another load
	case <-time.After(warmUp):
	case <-ctx.Done():
		return m, ctx.Err()
	}
	before := s.cpuTime()
	if err := w.sample(ctx, c, length); err != nil {
		return m, err
	}
	used := s.cpuTime() - before
	err = <-done
	m.cpu = time.Duration(float64(used) / (float64(probes) * length.Seconds()))
	w.mu.Lock()
	defer w.mu.Unlock()
	m.changes, m.beats = w.changes, w.beats
	return m, err
}

// A watch remembers when fresh probes sent their first heartbeat, and when that was heard of.
type watch struct {
	mu      sync.Mutex
	sent    map[probe.ID]time.Time
	changes []time.Duration
	beats   []time.Duration
}

// sample registers fresh probes, ten a second once the steady ones are there, and sends their
// first heartbeat.
func (w *watch) sample(ctx context.Context, c *client.Client, length time.Duration) error {
	every := time.NewTicker(100 * time.Millisecond)
	defer every.Stop()
	end := time.After(length)
	for n := 0; ; n++ {
		select {
		case <-end:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-every.C:
		}
		r, err := c.Register(ctx, client.Registration{DisplayName: fmt.Sprintf("fresh-%d", n), Country: country.Code("IT"), ASN: 64512, Type: probe.Internal})
		if err != nil {
			return err
		}
		w.mu.Lock()
		w.sent[r.ID] = time.Now()
		w.mu.Unlock()
		if _, err := c.As(r.Secret).Heartbeat(ctx, client.Heartbeat{ProbeID: r.ID, Country: "IT", ASN: 64512, SoftwareVersion: "1.0"}); err != nil {
			return err
		}
	}
}

func (w *watch) follow(ctx context.Context, sub *client.Subscription, change bool) {
	for raw, err := range sub.All(ctx) {
		if err != nil {
			return
		}
		heard := time.Now()
		var message map[string]struct {
			Probe struct {
				ID probe.ID `json:"id"`
			} `json:"probe"`
		}
		if json.Unmarshal(raw, &message) != nil {
			continue
		}
		w.mu.Lock()
		for _, v := range message {
			if sent, ok := w.sent[v.Probe.ID]; ok && change {
				w.changes = append(w.changes, heard.Sub(sent))
			} else if ok {
				w.beats = append(w.beats, heard.Sub(sent))
			}
		}
		w.mu.Unlock()
	}
}

// commitTime is the median of a hundred one-row transactions on the server's own database.
func commitTime(ctx context.Context, data string) (time.Duration, error) {
	dsn, err := embedded.Find(data)
	if err != nil {
		return 0, err
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "create table bench_commit (n int)"); err != nil {
		return 0, err
	}
	var took []time.Duration
	for n := range 100 {
		began := time.Now()
		if _, err := conn.Exec(ctx, "insert into bench_commit values ($1)", n); err != nil {
			return 0, err
		}
		took = append(took, time.Since(began))
	}
	_, err = conn.Exec(ctx, "drop table bench_commit")
	return at(took, 50), err
}
