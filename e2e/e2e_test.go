//go:build e2e

// Package e2e answers: does the program keep its promises to those who use it? It starts the real
// one, with its own database, and drives it as probes, researchers and operators do: by the command
// line, over HTTP and websockets, with faults and kill -9, and in a real browser.
//
// Nothing here looks behind the public surfaces, but for whether a killed server's database is gone,
// and no rule is tested for its own sake: that is done next to it. It has tests alone.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/client"
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/network"
	"github.com/openvantage/vantage/probe"
)

// Patience, generous since all tests share the machine. Nothing that works takes so long.
const (
	testTimeout  = 3 * time.Minute
	startTimeout = time.Minute
	stopTimeout  = 30 * time.Second
	soon         = time.Minute
	pollEvery    = 20 * time.Millisecond
)

// parallel is how many tests run at a time, unless a flag says otherwise: they wait more than they
// work, most for a clock.
const parallel = "5"

// program is what is tested: VANTAGE_BIN, or built from this tree.
var program string

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", parallel) // the flag exists in every test
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	if program = os.Getenv("VANTAGE_BIN"); program != "" {
		return m.Run(), nil
	}
	dir, err := os.MkdirTemp("", "vantage-e2e-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "vantage")
	if out, err := exec.Command("go", "build", "-o", program, "..").CombinedOutput(); err != nil {
		return 1, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return m.Run(), nil
}

// deadline bounds a whole test.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until ok, and fails the test when that takes too long.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	late := time.NewTimer(within)
	defer late.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatalf("%s: not within %v", what, within)
		case <-t.Context().Done():
			t.Fatalf("%s: the test is over", what)
		}
	}
}

func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// A server is one data directory, and the process that serves it now.
type server struct {
	dir          string
	settings     []string // as in the environment
	flags        []string
	url          string
	heartbeatURL string
	process      *process
}

// A process is the program at work.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // of Wait, once exited is closed
	hurt   bool  // something is done to it that it rightly calls an error

	mu  sync.Mutex
	log bytes.Buffer
}

// Write collects the log.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// end sends the signal and waits for the process to be gone.
func (p *process) end(t *testing.T, sig os.Signal) {
	t.Helper()
	_ = p.cmd.Process.Signal(sig) // it may be gone already
	select {
	case <-p.exited:
	case <-time.After(stopTimeout):
		t.Errorf("%v did not end the program within %v", sig, stopTimeout)
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

// launch starts the program with its data in dir; whatever happens it ends with the test.
func launch(t *testing.T, dir string, settings []string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(program, args...), exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "DATABASE_URL=", "LOG_FORMAT=json", "DATA_DIR="+filepath.Join(dir, "data"),
		"XDG_CACHE_HOME="+filepath.Join(dir, "cache"))
	p.cmd.Env = append(p.cmd.Env, settings...)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.WaitDelay = p, p, time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.end(t, syscall.SIGTERM)
		log := p.said()
		for _, trouble := range []string{`"level":"ERROR"`, "DATA RACE", "panic: "} {
			if strings.Contains(log, trouble) && !(p.hurt && strings.Contains(trouble, "ERROR")) {
				t.Errorf("vantage %s said %s", args[0], trouble)
			}
		}
		if t.Failed() && args[0] == "serve" {
			t.Logf("the server said:\n%s", log[max(0, len(log)-8000):])
		}
	})
	return p
}

// dataDir is one that PostgreSQL's user can reach too: t.TempDir's is for us alone.
func dataDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vantage-e2e-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// serve starts a server with an empty database and waits until it is ready.
func serve(t *testing.T, settings ...string) *server {
	t.Helper()
	s := &server{dir: dataDir(t), settings: append(settings, anyPorts...)}
	s.start(t)
	return s
}

var anyPorts = []string{"LISTEN=127.0.0.1:0", "HEARTBEAT_LISTEN=127.0.0.1:0"}

// start runs the program on the server's data. Another program may have taken the port of a
// server that was killed, or a command its database; then it tries again.
func (s *server) start(t *testing.T) {
	t.Helper()
	s.process = launch(t, s.dir, s.settings, append([]string{"serve"}, s.flags...)...)
	eventually(t, startTimeout, "the server is ready", func() bool {
		if !s.process.running() {
			if said := s.process.said(); !strings.Contains(said, "address already in use") && !strings.Contains(said, "is in use by process") {
				t.Fatalf("the server ended: %v\n%s", s.process.err, s.process.said())
			}
			s.process = launch(t, s.dir, s.settings, append([]string{"serve"}, s.flags...)...)
		}
		return s.listening() && s.ready()
	})
}

// listening learns the addresses from the log.
func (s *server) listening() bool {
	for line := range strings.Lines(s.process.said()) {
		var l struct{ Msg, API, Heartbeats string }
		if json.Unmarshal([]byte(line), &l) == nil && l.Msg == "serving" {
			s.url, s.heartbeatURL = l.API, l.Heartbeats
			return true
		}
	}
	return false
}

func (s *server) ready() bool {
	res, err := http.Get(s.url + "/readyz")
	if err != nil {
		return false
	}
	defer res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// kill ends the server's process as a crash would.
func (s *server) kill(t *testing.T) {
	t.Helper()
	s.process.end(t, syscall.SIGKILL)
	s.ports()
}

// ports has the next process listen where clients look for this one.
func (s *server) ports() {
	s.settings = append(s.settings, "LISTEN="+strings.TrimPrefix(s.url, "http://"),
		"HEARTBEAT_LISTEN="+strings.TrimSuffix(strings.TrimPrefix(s.heartbeatURL, "http://"), "/heartbeat"))
}

// command runs a command beside the server, or without it, and returns what it printed.
func (s *server) command(t *testing.T, args ...string) string {
	t.Helper()
	p := launch(t, s.dir, nil, args...)
	select {
	case <-p.exited:
	case <-time.After(soon):
		t.Fatalf("vantage %s took more than %v", strings.Join(args, " "), soon)
	}
	if p.err != nil {
		t.Fatalf("vantage %s: %v\n%s", strings.Join(args, " "), p.err, p.said())
	}
	return p.said()
}

func (s *server) token(t *testing.T, role access.Role) string {
	t.Helper()
	return strings.TrimSpace(s.command(t, "token", "create", "--role", string(role), "--name", t.Name()))
}

func newClient(s *server, token string) *client.Client {
	return client.New(client.Options{BaseURL: s.url, Token: token})
}

// operator is a client with an operator's token.
func (s *server) operator(t *testing.T) *client.Client {
	t.Helper()
	return newClient(s, s.token(t, access.Operator))
}

// cursor is the end of the log.
func cursor(ctx context.Context, t *testing.T, c *client.Client) string {
	t.Helper()
	var out struct {
		ProbeBoard struct{ Cursor string }
	}
	if err := c.Do(ctx, `{ probeBoard { cursor } }`, nil, &out); err != nil {
		t.Fatal(err)
	}
	return out.ProbeBoard.Cursor
}

// A feed collects what a subscription delivers, through every loss of connection.
type feed[T any] struct {
	mu    sync.Mutex
	items []T
}

// subscribe follows the field of a subscription from a cursor on, until the test is over.
func subscribe[T any](ctx context.Context, t *testing.T, c *client.Client, field, document string, variables map[string]any, each func(T)) *feed[T] {
	t.Helper()
	f := &feed[T]{}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for data, err := range c.Follow(ctx, document, variables, field, "cursor") {
			if ctx.Err() != nil {
				return
			}
			var item map[string]T
			if err == nil {
				err = json.Unmarshal(data, &item)
			}
			if err != nil {
				t.Errorf("the subscription to %s ended: %v", field, err)
				return
			}
			if each != nil {
				each(item[field])
			}
			f.mu.Lock()
			f.items = append(f.items, item[field])
			f.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return f
}

// all is what has come so far; it is not changed later.
func (f *feed[T]) all() []T {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.items[:len(f.items):len(f.items)]
}

// await waits for so many items.
func (f *feed[T]) await(t *testing.T, n int) []T {
	t.Helper()
	eventually(t, soon, fmt.Sprintf("%d events", n), func() bool { return len(f.all()) >= n })
	return f.all()
}

// A stateChange is one of probeStateChanged.
type stateChange struct {
	Seq        int64
	OccurredAt time.Time
	From, To   probe.State
	Conflated  int
	Probe      struct {
		ID      probe.ID
		Country struct{ Code country.Code }
	}
}

const stateChanges = `subscription Changes($after: Cursor, $filter: ProbeFilter) {
  probeStateChanged(after: $after, filter: $filter) { cursor seq occurredAt from to conflated probe { id country { code } } }
}`

func subscribeStateChanges(ctx context.Context, t *testing.T, c *client.Client) *feed[stateChange] {
	t.Helper()
	return subscribe[stateChange](ctx, t, c, "probeStateChanged", stateChanges, map[string]any{"after": cursor(ctx, t, c)}, nil)
}

// An event is one of the log.
type event struct {
	Seq        int64
	OccurredAt time.Time
	Kind       string
}

const events = `subscription Events($after: Cursor, $filter: EventFilter) {
  events(after: $after, filter: $filter) { cursor seq occurredAt kind }
}`

func subscribeEvents(ctx context.Context, t *testing.T, c *client.Client, kinds ...string) *feed[event] {
	t.Helper()
	return subscribe[event](ctx, t, c, "events", events,
		map[string]any{"after": cursor(ctx, t, c), "filter": map[string]any{"kinds": kinds}}, nil)
}

// outages are the observer outages that the server knows, as [from, to]; to is null while one lasts.
func outages(ctx context.Context, t *testing.T, c *client.Client) []struct{ From, To *time.Time } {
	t.Helper()
	var out struct {
		Service struct {
			ObserverOutages []struct{ From, To *time.Time }
		}
	}
	if err := c.Do(ctx, `{ service { observerOutages { from to } } }`, nil, &out); err != nil {
		t.Fatal(err)
	}
	return out.Service.ObserverOutages
}

// A beater is an active probe that sends heartbeats when it is told to.
type beater struct {
	id    probe.ID
	api   *client.Client
	beats []time.Time // by the server's clock
}

func newBeater(ctx context.Context, t *testing.T, operator *client.Client) *beater {
	t.Helper()
	r := must[client.Registered](t)(operator.Register(ctx, client.Registration{Country: "IT", ASN: homeNetwork}))
	if err := operator.Activate(ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	return &beater{id: r.ID, api: operator.As(r.Secret)}
}

// homeNetwork is a number for private use.
const homeNetwork = network.ASN(64512)

func (b *beater) beat(ctx context.Context) error {
	a, err := b.api.Heartbeat(ctx, client.Heartbeat{ProbeID: b.id, Country: "IT", ASN: homeNetwork, SoftwareVersion: "1.0.0"})
	if err == nil {
		b.beats = append(b.beats, a.ServerTime)
	}
	return err
}

func (b *beater) last() time.Time { return b.beats[len(b.beats)-1] }
