//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	packs "github.com/openvantage/vantage/archive"
	"github.com/openvantage/vantage/client"
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/db/embedded"
	faults "github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
)

// What is killed, and how often. The uploader is killed beside these, again and again.
var crashes = map[string]int{
	killServer: 3, killPackingServer: 2, killDatabase: 2, killBackend: 2, killAll: 2,
}

const (
	killServer        = "the server"
	killPackingServer = "the server while it packs"
	killDatabase      = "the database"
	killBackend       = "one process of the database"
	killAll           = "the server and the database"
)

// TestCrashes has probes send 20,000 bodies while bodies are archived, and kills the server, the
// uploader and the database at moments that the seed decides. What was acknowledged must be there
// once, byte for byte, and counted once. CRASH_SEED plays a run again, as far as the machine's pace lets it.
//
// It looks into the database and the store: what is there twice shows nowhere else.
func TestCrashes(t *testing.T) { //nolint:paralleltest // it takes the whole machine, and others have clocks
	ctx, cancel := context.WithTimeout(t.Context(), 2*testTimeout)
	defer cancel()
	const bodies, senders = 20_000, 32
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("CRASH_SEED"); s != "" {
		seed = must[uint64](t)(strconv.ParseUint(s, 10, 64))
	}
	t.Logf("CRASH_SEED=%d", seed)
	chance := rand.New(rand.NewPCG(seed, 0))

	// An hour in six seconds, so that the server's own packing has its turn.
	s := serve(t, "CLOCK_RATE=600", "RATE_PUBLIC=1000000/10000000", "RATE_PROBE=1000000/10000000")
	s.process.hurt = true
	operator := s.operator(t)
	c := &crash{server: s, url: s.url, until: bodies, uids: map[string]measurement.ID{}, sums: map[measurement.ID][32]byte{}, killed: map[string]int{}}
	ctx, stop := context.WithCancel(ctx)
	var all, readers sync.WaitGroup
	defer readers.Wait()
	defer all.Wait()
	defer stop()
	for n := range senders {
		cc := []country.Code{"IT", "IR", "BR", "TZ"}[n/4%4]
		r := must[client.Registered](t)(operator.Register(ctx, client.Registration{Country: cc, ASN: homeNetwork}))
		p := &sender{crash: c, api: operator.As(r.Secret), who: string(r.ID), country: cc, chance: rand.New(rand.NewPCG(seed, uint64(n+1)))}
		all.Go(func() { p.work(ctx, t, n) })
	}
	readers.Go(func() { c.read(ctx, t, rand.New(rand.NewPCG(seed, 1000))) })
	uploading, enough := context.WithCancel(ctx)
	defer enough()
	readers.Go(func() { c.upload(uploading, t, rand.New(rand.NewPCG(seed, 1001))) })

	var plan []string
	for what, n := range crashes {
		for range n {
			plan = append(plan, what)
		}
	}
	slices.Sort(plan)
	chance.Shuffle(len(plan), func(i, j int) { plan[i], plan[j] = plan[j], plan[i] })
	began := time.Now()
	for i, what := range plan {
		step := bodies / (len(plan) + 1)
		if what == killPackingServer {
			c.packing.Lock() // so that what is sent from now on is the server's to write
		}
		c.gate.Store(int64(step * (i + 1))) // so that each happens while bodies are sent
		at := step*i + chance.IntN(step/2)
		eventually(t, time.Minute, "more is acknowledged", func() bool { return c.acknowledged() >= at })
		c.crash(t, what)
	}
	eventually(t, soon, "the uploader is killed often enough", func() bool { return c.kills(killedUploader) >= 4 })
	c.gate.Store(bodies)
	all.Wait()
	enough()
	t.Logf("%d bodies in %v, with %d requests sent again. Killed: %v", c.acknowledged(), time.Since(began).Round(time.Millisecond), c.again.Load(), c.killed)
	for what, n := range crashes {
		if c.killed[what] < n {
			t.Errorf("%s was killed %d times", what, c.killed[what])
		}
	}
	stop()
	readers.Wait()
	if t.Failed() {
		return
	}
	ctx = t.Context()
	c.check(ctx, t, "before the last pack")
	c.fetch(ctx, t, c.known)
	eventually(t, soon, "all is archived, by the command or by the server beside it", func() bool {
		return strings.Contains(s.command(t, "archive", "pack", "--now", "--quiet"), "; 0 bodies left")
	})
	c.check(ctx, t, "after the last pack")
	c.checkStore(ctx, t)
	c.fetch(ctx, t, c.known[len(c.known)-1000:])
	t.Log(strings.TrimSpace(s.command(t, "archive", "verify", "--quiet")))
}

const killedUploader = "the uploader while it packs"

// A crash is a run: what was acknowledged, and what was killed.
type crash struct {
	server *server
	url    string // it stays, whoever is killed
	until  int
	next   atomic.Int64 // body to send
	gate   atomic.Int64 // how many may be sent by now
	again  atomic.Int64 // requests that were repeated

	packing sync.Mutex // held while the uploader is at work
	mu      sync.Mutex
	uids    map[string]measurement.ID // by sender and body
	sums    map[measurement.ID][32]byte
	known   []measurement.ID
	kept    int // of them those that are set aside
	killed  map[string]int
}

func (c *crash) acknowledged() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.uids)
}

// acknowledge fails the test when the sender's body has another uid already.
func (c *crash) acknowledge(t *testing.T, who string, body []byte, uid measurement.ID, aside bool) {
	t.Helper()
	sum := sha256.Sum256(body)
	c.mu.Lock()
	defer c.mu.Unlock()
	key := who + string(sum[:])
	switch before, ok := c.uids[key]; {
	case !ok:
		c.uids[key], c.sums[uid] = uid, sum
		c.known = append(c.known, uid)
		if aside {
			c.kept++
		}
	case before != uid:
		t.Errorf("a body of %s was acknowledged as %s and then as %s", who, before, uid)
	}
}

// A sender is a probe.
type sender struct {
	*crash
	api     *client.Client
	who     string // to the server: nobody by REST
	country country.Code
	chance  *rand.Rand
}

// content is another one each time.
func (p *sender) content(n int) []byte {
	asn := "AS64512"
	if n%50 == 7 && p.who != "" {
		asn = "AS0" // it is kept aside
	}
	test := []string{"web_connectivity", "e2e", "tor"}[p.chance.IntN(3)]
	fill := make([]byte, p.chance.IntN(700))
	for i := range fill {
		fill[i] = byte(p.chance.IntN(256))
	}
	now := time.Now().UTC().Format(time.DateTime)
	return fmt.Appendf(nil, `{"annotations": {"n": "%d", "fill": "%x"}, "measurement_start_time":%q,"probe_asn":%q,"probe_cc":%q,"report_id":%q,`+
		`"software_name":"e2e","software_version":"1.0.0","test_keys":{},`+"\n"+`"test_name":%q,"test_start_time":%[3]q,"test_version":"0.1.0"}`,
		n, fill, now, asn, p.country, p.report(test), test)
}

// report is as others give them.
func (p *sender) report(test string) string {
	return "20261121T000000Z_" + strings.ReplaceAll(test, "_", "") + "_" + string(p.country) + "_64512_n9_abcdefghijklmnop"
}

// work sends bodies until all are sent, in one of the ways there are.
func (p *sender) work(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	way, size := p.one, 1
	switch n % 4 {
	case 1:
		way, size = p.batch, 8
	case 2:
		p.who = ""
		way = p.rest
	}
	for ctx.Err() == nil {
		end := int(p.next.Add(int64(size)))
		for end <= p.until && int64(end) > p.gate.Load() && client.Wait(ctx, pollEvery) == nil {
		}
		var some [][]byte
		for i := end - size; i < min(end, p.until); i++ {
			some = append(some, p.content(i))
		}
		if len(some) == 0 {
			return
		}
		key := fmt.Sprintf("crash-%d", end)
		way(ctx, t, key, some)
		if p.chance.IntN(20) == 0 { // an answer that was lost, as far as the sender is concerned
			p.again.Add(1)
			way(ctx, t, []string{key, ""}[p.chance.IntN(2)], some)
		}
	}
}

// insist repeats a request until it is answered, whatever became of it before.
func (p *sender) insist(ctx context.Context, t *testing.T, do func() error) {
	t.Helper()
	for first := true; ctx.Err() == nil; first = false {
		if !first {
			p.again.Add(1)
		}
		err := do()
		if err == nil {
			return
		}
		if ctx.Err() == nil && !client.Retriable(err) {
			t.Errorf("the server refused: %v", err)
			return
		}
		_ = client.Wait(ctx, pollEvery)
	}
}

func (p *sender) outcome(t *testing.T, body []byte, o client.Outcome) {
	t.Helper()
	switch {
	case o.Err != nil:
		t.Errorf("a body was refused: %v", o.Err)
	case o.Discarded != nil:
		p.acknowledge(t, p.who, body, o.Discarded.ID, true)
	default:
		p.acknowledge(t, p.who, body, o.ID, false)
	}
}

func (p *sender) one(ctx context.Context, t *testing.T, key string, some [][]byte) {
	t.Helper()
	p.insist(ctx, t, func() error {
		o, err := p.api.Submit(ctx, client.Submission{Content: some[0], IdempotencyKey: key})
		if err == nil {
			p.outcome(t, some[0], o)
		}
		return err
	})
}

func (p *sender) batch(ctx context.Context, t *testing.T, key string, some [][]byte) {
	t.Helper()
	subs := make([]client.Submission, len(some))
	for i, b := range some {
		subs[i].Content = b
	}
	p.insist(ctx, t, func() error {
		out, err := p.api.SubmitBatch(ctx, key, subs)
		for _, o := range out { // whoever was not taken is sent again, with all others
			if o.Err != nil && client.Retriable(o.Err) {
				return o.Err
			}
		}
		for i, o := range out {
			p.outcome(t, some[i], o)
		}
		return err
	})
}

// rest sends as the established network's probes do, of one generation or the other.
func (p *sender) rest(ctx context.Context, t *testing.T, _ string, some [][]byte) {
	t.Helper()
	var content struct {
		ReportID string `json:"report_id"`
	}
	if err := json.Unmarshal(some[0], &content); err != nil {
		t.Error(err)
		return
	}
	path, post := "/report/"+content.ReportID, fmt.Appendf(nil, `{"format":"json","content":%s}`, some[0])
	if some[0][len(some[0])/2]%2 == 0 {
		text, _ := json.Marshal(string(some[0])) // always encodes
		path, post = "/api/v1/submit_measurement", fmt.Appendf(nil, `{"format":"json","content":%s}`, text)
	}
	p.insist(ctx, t, func() error {
		var out struct {
			UID      measurement.ID `json:"measurement_uid"`
			ReportID string         `json:"report_id"`
		}
		if err := p.post(ctx, path, post, &out); err != nil {
			return err
		}
		stored := some[0]
		if out.ReportID != "" { // of the second generation: the server's id is written into the text
			stored = bytes.Replace(stored, []byte(content.ReportID), []byte(out.ReportID), 1)
		}
		p.acknowledge(t, "", stored, out.UID, false)
		return nil
	})
}

// post fails with UNAVAILABLE where a probe would try again.
func (c *crash) post(ctx context.Context, path string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return faults.Wrap(err, faults.Unavailable, "The server cannot be reached.")
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return faults.Wrap(err, faults.Unavailable, "The answer was cut off.")
	case res.StatusCode == http.StatusServiceUnavailable:
		return faults.New(faults.Unavailable, "%s", b)
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("POST %s is %s: %s", path, res.Status, b)
	}
	return json.Unmarshal(b, out)
}

// read asks for bodies that were acknowledged: they may be out of reach, and never gone.
func (c *crash) read(ctx context.Context, t *testing.T, chance *rand.Rand) {
	t.Helper()
	n, away := 0, 0
	for client.Wait(ctx, pollEvery/4) == nil {
		c.mu.Lock()
		if len(c.known) == 0 {
			c.mu.Unlock()
			continue
		}
		uid := c.known[chance.IntN(len(c.known))]
		sum := c.sums[uid]
		c.mu.Unlock()
		got, status, err := c.body(ctx, uid)
		switch {
		case err != nil, status == http.StatusServiceUnavailable:
			away++
		case status != http.StatusOK || sha256.Sum256(got) != sum:
			t.Errorf("the body of %s is %d %.200q", uid, status, got)
		default:
			n++
		}
	}
	t.Logf("meanwhile %d bodies were read; %d times the server was away", n, away)
}

func (c *crash) body(ctx context.Context, uid measurement.ID) ([]byte, int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+"/api/v1/raw_measurement?measurement_uid="+string(uid), nil)
	if err != nil {
		return nil, 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return b, res.StatusCode, err
}

// upload archives beside the server, and is killed at most turns once it writes.
func (c *crash) upload(ctx context.Context, t *testing.T, chance *rand.Rand) {
	t.Helper()
	for client.Wait(ctx, time.Duration(chance.IntN(1000))*time.Millisecond) == nil {
		c.packing.Lock()
		before := c.torn(t)
		p := launch(t, c.server.dir, nil, "archive", "pack", "--now", "--quiet")
		p.hurt = true
		if chance.IntN(4) > 0 {
			for p.running() && !c.left(t, before) && client.Wait(ctx, time.Millisecond) == nil {
			}
			_ = client.Wait(ctx, time.Duration(chance.IntN(40))*time.Millisecond)
			p.end(t, syscall.SIGKILL)
			c.count(killedUploader, c.left(t, before))
		}
		select {
		case <-p.exited:
		case <-ctx.Done():
			p.end(t, syscall.SIGTERM)
		}
		c.packing.Unlock()
	}
}

func (c *crash) count(what string, yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if yes {
		c.killed[what]++
	}
}

func (c *crash) kills(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.killed[what]
}

// torn are the files that are being written, or were when somebody was killed.
func (c *crash) torn(t *testing.T) []string {
	t.Helper()
	return must[[]string](t)(filepath.Glob(filepath.Join(c.server.dir, "data", "archive", "raw", "*", "*", "*", "*", "*.tmp")))
}

// left reports whether there are others than before.
func (c *crash) left(t *testing.T, before []string) bool {
	t.Helper()
	return slices.ContainsFunc(c.torn(t), func(name string) bool { return !slices.Contains(before, name) })
}

// crash kills, sees that it is dead, and does what a supervisor does.
func (c *crash) crash(t *testing.T, what string) {
	t.Helper()
	s := c.server
	began := time.Now()
	database := s.databaseID(t)
	switch what {
	case killServer:
		s.kill(t)
		c.count(what, !s.process.running())
	case killPackingServer:
		before := c.torn(t)
		eventually(t, soon, "the server archives", func() bool {
			if !c.left(t, before) {
				return false
			}
			s.kill(t)
			return true
		})
		c.packing.Unlock()
		c.count(what, true)
		c.count("and left something", c.left(t, before))
	case killDatabase, killAll:
		for _, pid := range append([]int{database}, children(t, database)...) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if what == killAll {
			s.kill(t)
		}
		eventually(t, stopTimeout, "the server ends without its database", func() bool { return !s.process.running() })
		s.ports()
		eventually(t, soon, "the database is gone", func() bool { return !alive(database) })
		c.count(what, true)
	case killBackend:
		for _, pid := range children(t, database) {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if bytes.Contains(line, []byte("[local]")) && syscall.Kill(pid, syscall.SIGKILL) == nil { // the uploader's may have ended
				c.count(what, true)
				break
			}
		}
		eventually(t, soon, "the server goes on with its database", s.ready)
		if !s.process.running() || s.databaseID(t) != database {
			t.Error("the server did not get over it")
		}
		return
	}
	s.start(t)
	s.process.hurt = true
	t.Logf("killed %s after %d acknowledgements; it took %v until it was ready", what, c.acknowledged(), time.Since(began).Round(time.Millisecond))
}

// children are the processes that another one started.
func children(t *testing.T, pid int) (all []int) {
	t.Helper()
	for _, name := range must[[]string](t)(filepath.Glob("/proc/[0-9]*/stat")) {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		var id, parent int
		var state string
		_, rest, _ := strings.Cut(string(b), ") ")
		if _, err := fmt.Sscan(string(b), &id); err != nil {
			continue
		}
		if _, err := fmt.Sscan(rest, &state, &parent); err == nil && parent == pid {
			all = append(all, id)
		}
	}
	return all
}

// check holds what is stored against what was acknowledged.
func (c *crash) check(ctx context.Context, t *testing.T, when string) {
	t.Helper()
	if n := c.acknowledged(); n != c.until {
		t.Errorf("%d bodies were acknowledged", n)
	}
	url := must[string](t)(embedded.Find(filepath.Join(c.server.dir, "data")))
	pool := must[*db.DB](t)(db.Open(ctx, url, db.Options{MaxConns: 2}))
	defer pool.Close()
	drift := must[[]db.RollupChange](t)(pool.RollupDrift(ctx))
	if len(drift) > 0 {
		t.Errorf("%s %d rows of the rollup differ from a recount: %+v", when, len(drift), drift[0])
	}
	conn := must[*pgx.Conn](t)(pgx.Connect(ctx, url))
	defer func() { _ = conn.Close(ctx) }()
	tx := must[pgx.Tx](t)(conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})) // the server goes on archiving
	got := map[string]int{}
	for what, query := range counts {
		var n int
		if err := tx.QueryRow(ctx, query).Scan(&n); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		got[what] = n
	}
	t.Logf("%s %d bodies are in the spool and %d in %d packs", when, got["in the spool"], got["archived"], got["packs"])
	want := map[string]int{
		"in the spool": got["in the spool"], "archived": c.until - got["in the spool"], "packs": got["packs"], "named by packs": c.until - got["in the spool"],
		"uids": c.until, "claims": c.until, "measurements": c.until - c.kept, "kept aside": c.kept,
		"counted": c.until - c.kept, "scored events": c.until - c.kept, "scored in the log": c.until - c.kept, "without an event of its own": 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", when, diff)
	}
	rows := must[pgx.Rows](t)(tx.Query(ctx, "select uid from body union all select uid from packed_body"))
	stored := must[[]measurement.ID](t)(pgx.CollectRows(rows, pgx.RowTo[measurement.ID]))
	for _, uid := range stored {
		if _, ok := c.sums[uid]; !ok {
			t.Errorf("%s is stored, and was never acknowledged", uid)
		}
	}
}

var counts = map[string]string{
	"in the spool":                "select count(*) from body",
	"archived":                    "select count(*) from packed_body",
	"packs":                       "select count(*) from pack",
	"named by packs":              "select coalesce(sum(body_count), 0) from pack",
	"uids":                        "select count(distinct uid) from (select uid from body union all select uid from packed_body) b",
	"claims":                      "select count(*) from submission",
	"measurements":                "select count(*) from measurement",
	"kept aside":                  "select count(*) from discarded_submission",
	"counted":                     "select coalesce(sum(measurement_count), 0) from measurement_rollup",
	"scored events":               "select count(*) from event where kind = 'MEASUREMENT_SCORED'",
	"scored in the log":           "select count(distinct subject) from event where kind = 'MEASUREMENT_SCORED'",
	"without an event of its own": "select count(*) from measurement m where not exists (select 1 from event e where e.kind = 'MEASUREMENT_SCORED' and e.subject = 'msm_' || m.uid)",
}

// fetch reads acknowledged bodies by their uids.
func (c *crash) fetch(ctx context.Context, t *testing.T, uids []measurement.ID) {
	t.Helper()
	var all sync.WaitGroup
	for some := range slices.Chunk(uids, (len(uids)+7)/8) {
		all.Go(func() {
			for _, uid := range some {
				got, status, err := c.body(ctx, uid)
				if err != nil || status != http.StatusOK || sha256.Sum256(got) != c.sums[uid] {
					t.Errorf("the body of %s is %d %.200q, %v", uid, status, got, err)
					return
				}
			}
		})
	}
	all.Wait()
}

// checkStore reads all files that are in the store, as who copies it does: every body is in
// them once, and there is nothing else.
func (c *crash) checkStore(ctx context.Context, t *testing.T) {
	t.Helper()
	root := filepath.Join(c.server.dir, "data", "archive")
	seen, lines := map[measurement.ID]bool{}, 0
	err := filepath.WalkDir(root, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		switch {
		case strings.HasSuffix(name, packs.PostsSuffix):
			for p, err := range packs.Posts(ctx, f) {
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				if seen[p.UID] || sha256.Sum256(p.Body) != c.sums[p.UID] {
					t.Errorf("%s is in %s: twice, or as something else than was sent", p.UID, name)
				}
				seen[p.UID] = true
			}
		case strings.HasSuffix(name, packs.LinesSuffix):
			for _, err := range packs.Lines(ctx, f) {
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				lines++
			}
		default:
			t.Errorf("%s was left behind", name)
		}
		return nil
	})
	if err != nil || len(seen) != c.until || lines != c.until {
		t.Errorf("the store has %d bodies and %d lines of %d, %v", len(seen), lines, c.until, err)
	}
}
