//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/client"
	"github.com/openvantage/vantage/measurement"
)

// archive is the shared set of real bodies. Where it is absent the test has nothing to work on.
func archive(t *testing.T) string {
	t.Helper()
	shared := os.Getenv("VANTAGE_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "shared")
	}
	dir := filepath.Join(shared, "data", "ooni")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("There are no real measurements at %s: set VANTAGE_SHARED to where data/ooni is. %v", dir, err)
	}
	return dir
}

// judged are the tests that the expectations of the shared set were made for.
var judged = []string{"web_connectivity", "telegram", "whatsapp", "facebook_messenger", "signal", "tor"}

// A scored is one of measurementScored.
type scored struct {
	Seq         int64
	Measurement struct {
		UID        measurement.ID
		BodySha256 string
	}
}

const measurementScored = `subscription Scored($after: Cursor) {
  measurementScored(after: $after) { cursor seq measurement { uid bodySha256 } }
}`

// checkOrder fails unless every measurement was told of once, in the order of the log.
func checkOrder(t *testing.T, news []scored) {
	t.Helper()
	seen := map[measurement.ID]bool{}
	for i, n := range news {
		if i > 0 && n.Seq <= news[i-1].Seq {
			t.Errorf("event %d came after %d", n.Seq, news[i-1].Seq)
		}
		if seen[n.Measurement.UID] {
			t.Errorf("%s was told of twice", n.Measurement.UID)
		}
		seen[n.Measurement.UID] = true
	}
}

// TestArchive loads real bodies as an operator does, and compares every verdict with the
// established network's. Its subscriber loses the connection on the way.
func TestArchive(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	dir := archive(t)
	files := must[[]string](t)(filepath.Glob(filepath.Join(dir, "measurements", "*.json")))
	if len(files) < 100 {
		t.Fatalf("%d bodies in %s", len(files), dir)
	}
	s := serve(t)
	s.command(t, "import", "fingerprints", filepath.Join(dir, "fingerprints"), "--format", "json")
	token := s.token(t, access.Operator)
	operator := newClient(s, token)

	var line cuttable
	news := 0
	feed := subscribe(ctx, t, client.New(client.Options{BaseURL: s.url, Dialer: &websocket.Dialer{NetDialContext: line.dial}}),
		"measurementScored", measurementScored, map[string]any{"after": cursor(ctx, t, operator)}, func(scored) {
			if news++; news == len(files)/2 {
				line.cut(t)
			}
		})
	eventually(t, soon, "the fingerprints are in use", func() bool {
		var out struct {
			Service struct{ Fingerprints *struct{ Version int } }
		}
		return operator.Do(ctx, `{ service { fingerprints { version } } }`, nil, &out) == nil && out.Service.Fingerprints != nil
	})

	t.Log(strings.TrimSpace(s.command(t, append([]string{"submit", "--quiet", "--backfill", "--url", s.url, "--token", token}, files...)...)))
	end := cursor(ctx, t, operator)
	uids, outcomes := submitAgain(ctx, t, operator, files)
	if end != cursor(ctx, t, operator) {
		t.Error("submitting the same files again is in the log")
	}

	got := feed.await(t, len(uids))
	if line.dialled() < 2 {
		t.Error("the subscriber's connection was not cut")
	}
	checkOrder(t, got)
	var told, want []measurement.ID
	for _, n := range got {
		told = append(told, n.Measurement.UID)
	}
	for _, uid := range uids {
		want = append(want, uid)
	}
	slices.Sort(told)
	slices.Sort(want)
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("measurements that were told of (-want +got):\n%s", diff)
	}
	compared := map[string]int{}
	for file, uid := range uids {
		s.compare(ctx, t, operator, file, uid, compared)
	}
	t.Logf("verdicts compared: %v; second time: %v", compared, outcomes)
	for _, test := range judged {
		if compared[test] == 0 {
			t.Errorf("no body of %s was compared", test)
		}
	}
}

// submitAgain sends the files once more, and returns which measurement each one is.
func submitAgain(ctx context.Context, t *testing.T, operator *client.Client, files []string) (map[string]measurement.ID, client.Summary) {
	t.Helper()
	uids := map[string]measurement.ID{}
	sum, err := operator.SubmitFiles(ctx, files, client.SubmitOptions{Backfill: true, Each: func(r client.BodyResult) {
		if r.Outcome.ID != "" {
			uids[r.File] = r.Outcome.ID
		}
	}})
	if err != nil || sum.Bodies() != len(files) || sum.Failed > 0 || len(uids)+sum.Discarded != len(files) {
		t.Fatalf("submitting %d files again: %v, %v", len(files), sum, err)
	}
	for file, uid := range uids {
		o, err := operator.Submit(ctx, client.Submission{Content: must[[]byte](t)(os.ReadFile(file))}) // no key: by content alone
		if err != nil || !o.Duplicate || o.ID != uid {
			t.Errorf("%s was %s, and then %v, %v", filepath.Base(file), uid, o, err)
		}
	}
	return uids, sum
}

// compare fails unless the server shows the file's verdict as expected, and its body unchanged.
func (s *server) compare(ctx context.Context, t *testing.T, operator *client.Client, file string, uid measurement.ID, compared map[string]int) {
	t.Helper()
	type verdict struct {
		Anomaly, Confirmed, Failure bool
		Scores                      any
	}
	var out struct {
		Measurement struct {
			TestName                    string
			Anomaly, Confirmed, Failure bool
			Scores                      struct{ Verbatim any }
			Body                        json.RawMessage
			BodyURL                     string
		}
	}
	err := operator.Do(ctx, `query M($uid: ID!) {
	  measurement(uid: $uid) { testName anomaly confirmed failure scores { verbatim } body bodyUrl }
	}`, map[string]any{"uid": uid}, &out)
	if err != nil {
		t.Fatal(err)
	}
	m := out.Measurement
	name := filepath.Base(file)
	if slices.Contains(judged, m.TestName) {
		compared[m.TestName]++
		var want verdict
		b := must[[]byte](t)(os.ReadFile(filepath.Join(filepath.Dir(file), "..", "expected", name)))
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, verdict{m.Anomaly, m.Confirmed, m.Failure, m.Scores.Verbatim}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	want := must[[]byte](t)(os.ReadFile(file))
	if diff := cmp.Diff(plain(t, want), plain(t, m.Body)); diff != "" {
		t.Errorf("%s: the body in GraphQL (-sent +got):\n%s", name, diff)
	}
	if !bytes.Equal(want, s.fetch(ctx, t, m.BodyURL)) {
		t.Errorf("%s: the body at %s is another one", name, m.BodyURL)
	}
}

// plain writes JSON without spaces and with the escapes of package json, as it travels inside
// another document; numbers and strings stay as they were written.
func plain(t *testing.T, b []byte) string {
	t.Helper()
	var compact, escaped bytes.Buffer
	if err := json.Compact(&compact, b); err != nil {
		t.Fatal(err)
	}
	json.HTMLEscape(&escaped, compact.Bytes())
	return escaped.String()
}

// fetch gets what a URL of the API leads to: those without a host are of the server itself.
func (s *server) fetch(ctx context.Context, t *testing.T, path string) []byte {
	t.Helper()
	url := must[*url.URL](t)(must[*url.URL](t)(url.Parse(s.url)).Parse(path)).String()
	res := must[*http.Response](t)(http.DefaultClient.Do(must[*http.Request](t)(http.NewRequestWithContext(ctx, http.MethodGet, url, nil))))
	defer res.Body.Close()
	b := must[[]byte](t)(io.ReadAll(res.Body))
	if res.StatusCode != http.StatusOK {
		t.Fatalf("GET %s is %s: %s", url, res.Status, b)
	}
	return b
}

// A cuttable dials connections that can be broken in the middle.
type cuttable struct {
	mu    sync.Mutex
	conns []net.Conn
}

func (c *cuttable) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.conns = append(c.conns, conn)
	}
	return conn, err
}

func (c *cuttable) dialled() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.conns)
}

// cut breaks the latest connection with no word to either side.
func (c *cuttable) cut(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	conn := c.conns[len(c.conns)-1].(*net.TCPConn)
	if err := conn.SetLinger(0); err != nil { // a reset, not the orderly end
		t.Error(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}
