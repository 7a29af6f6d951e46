// Bench answers: how fast and how large is the server as a whole? It runs the real program on
// a database of its own, loads it through the public API, and prints a table, each row with
// what it is to be compared with, measured in the same run where this machine can measure it.
// It is run by `make bench` and imported by nothing.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openvantage/vantage/client"
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/db/embedded"
	"github.com/openvantage/vantage/probe"
	"github.com/openvantage/vantage/simulation"
)

func main() {
	binary := flag.String("vantage", "bin/vantage", "the program to measure")
	fingerprints := flag.String("fingerprints", "", "a directory of fingerprints to load, if there is one")
	probes := flag.Int("probes", 1000, "probes that send one heartbeat a second")
	length := flag.Duration("for", 30*time.Second, "how long to load the server")
	flag.Parse()
	if err := run(*binary, *fingerprints, *probes, *length); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(binary, fingerprints string, probes int, length time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), length+5*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "vantage-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL's user must get through
		return err
	}
	s := &subject{binary: binary, data: filepath.Join(dir, "data")}
	fmt.Fprintln(os.Stderr, "Starting the server on an empty directory.")
	cold, err := s.start(ctx)
	if err != nil {
		return err
	}
	defer s.stop()
	if fingerprints != "" {
		if err := s.command(ctx, "import", "fingerprints", fingerprints, "--format", "json"); err != nil {
			return err
		}
		s.stop()
		if _, err := s.start(ctx); err != nil { // as it is after a start, not after an import
			return err
		}
	}
	rest, err := s.residentAtRest(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "Measuring what one commit costs on this disk.")
	commit, err := commitTime(ctx, s.data)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "Loading it: %d probes, one heartbeat a second each, for %s after they are registered.\n", probes, length)
	l, err := s.load(ctx, probes, length)
	if err != nil {
		return err
	}
	loaded, err := s.resident()
	if err != nil {
		return err
	}
	fmt.Printf(`
| what | measured | compared with |
|---|---|---|
| empty directory to serving | %s | at most 3 s wanted |
| resident memory at rest%s | %.0f MB | at most 120 MB wanted |
| resident memory under the load below | %.0f MB | |
| one heartbeat sent, to its state change on a subscriber's socket, while %d probes send one a second: p50 | %s | the document's own service: 120 ms; one durable commit here: %s |
| the same, p99 (%d changes) | %s | the document's own service: 800 ms |
| the same, to heartbeatReceived: p50, p99 (%d heartbeats) | %s, %s | |
| heartbeats of the steady probes | %d sent, %d accepted, %d failed | |
| the mutation's answer: p50, p99 | %s, %s | |
| CPU of the server process per heartbeat | %s | |
`, ms(cold), withFingerprints(fingerprints), rest, loaded, probes, ms(at(l.changes, 50)), ms(commit), len(l.changes), ms(at(l.changes, 99)),
		len(l.beats), ms(at(l.beats, 50)), ms(at(l.beats, 99)),
		l.report.Heartbeats.Sent, l.report.Heartbeats.Acknowledged, l.report.Heartbeats.Failed,
		ms(l.report.HeartbeatLatency.P50), ms(l.report.HeartbeatLatency.P99), l.cpu.Round(time.Microsecond))
	return nil
}

func withFingerprints(dir string) string {
	if dir == "" {
		return ", without fingerprints"
	}
	return ", with 1,849 fingerprints"
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

// at is a percentile of what was measured.
func at(all []time.Duration, percent int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[min(len(all)-1, len(all)*percent/100)]
}

// A subject is the program under measurement.
type subject struct {
	binary, data, api, beats string
	cmd                      *exec.Cmd
}

// start runs the program and returns how long it took until it was ready.
func (s *subject) start(ctx context.Context) (time.Duration, error) {
	s.api, s.beats = freeAddress(ctx), freeAddress(ctx)
	s.cmd = exec.CommandContext(ctx, s.binary, "serve")
	s.cmd.Env = append(os.Environ(), "DATABASE_URL=", "DATA_DIR="+s.data, "LISTEN="+s.api, "HEARTBEAT_LISTEN="+s.beats, "LOG_LEVEL=warn")
	s.cmd.Stderr = os.Stderr
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		return 0, err
	}
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for time.Since(began) < 30*time.Second {
		<-again.C
		if s.ready(ctx) {
			return time.Since(began), nil
		}
	}
	return 0, errors.New("the server did not get ready within 30 s")
}

func (s *subject) ready(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.api+"/readyz", nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

func (s *subject) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait() // what it says is on standard error
}

func (s *subject) command(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, s.binary, args...)
	cmd.Env, cmd.Stderr = append(os.Environ(), "DATABASE_URL=", "DATA_DIR="+s.data), os.Stderr
	return cmd.Run()
}

func (s *subject) token(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, s.binary, "token", "create", "--role", "OPERATOR", "--name", "bench")
	cmd.Env, cmd.Stderr = append(os.Environ(), "DATABASE_URL=", "DATA_DIR="+s.data), os.Stderr
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

func freeAddress(ctx context.Context) string {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:0"
	}
	defer l.Close()
	return l.Addr().String()
}

// residentAtRest waits until a garbage collection or two have passed and nothing is going on.
func (s *subject) residentAtRest(ctx context.Context) (float64, error) {
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(5 * time.Second):
		return s.resident()
	}
}

// resident is the memory of the server process, without PostgreSQL, in MB.
func (s *subject) resident() (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			kb, err := strconv.ParseFloat(f[1], 64)
			return kb / 1024, err
		}
	}
	return 0, errors.New("no VmRSS")
}

// cpuTime is what the server process has used, user and system.
func (s *subject) cpuTime() time.Duration {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
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
