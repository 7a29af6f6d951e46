// Package archivetest answers one question: what does a real object store make of this?
//
// It starts versitygw, which make builds once, on a directory of the test, and a fake in this process
// that can be told to fail. Where versitygw is missing tests fail rather than skip. Only tests import it.
package archivetest

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/openvantage/vantage/programtest"
)

const bucket = "bodies"

// address is how a bucket at an endpoint is opened.
func address(endpoint string) string {
	return "s3://" + bucket + "?" + url.Values{
		"endpoint": {endpoint}, "region": {"us-east-1"}, "use_path_style": {"true"},
	}.Encode()
}

// credentials are what both servers take. The environment is how the driver is told of them.
func credentials(tb testing.TB) {
	tb.Helper()
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "vantage", "AWS_SECRET_ACCESS_KEY": "of-a-test", "AWS_EC2_METADATA_DISABLED": "true"} {
		if err := os.Setenv(name, value); err != nil { //nolint:usetesting // tests that run at the same time set the same
			tb.Fatal(err)
		}
	}
}

// A Fake is a store in this process that fails as it is told.
type Fake struct {
	URL     string
	store   http.Handler
	trouble atomic.Pointer[http.HandlerFunc]
	over    chan struct{}
}

// StartFake starts one, with a bucket, until the test ends.
func StartFake(tb testing.TB) *Fake {
	tb.Helper()
	credentials(tb)
	backend := s3mem.New()
	if err := backend.CreateBucket(bucket); err != nil {
		tb.Fatal(err)
	}
	f := &Fake{store: gofakes3.New(backend).Server(), over: make(chan struct{})}
	s := httptest.NewServer(f)
	tb.Cleanup(func() {
		close(f.over)
		s.Close()
	})
	f.URL = address(s.URL)
	return f
}

// ServeHTTP lets trouble answer where there is some.
func (f *Fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h := f.trouble.Load(); h != nil {
		(*h)(w, r)
		return
	}
	f.store.ServeHTTP(w, r)
}

// Store answers as the store would.
func (f *Fake) Store(w http.ResponseWriter, r *http.Request) { f.store.ServeHTTP(w, r) }

// Stall never answers.
func (f *Fake) Stall(_ http.ResponseWriter, r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-f.over:
	}
}

// Trouble has h answer every request from now on; nil: the store again.
func (f *Fake) Trouble(h http.HandlerFunc) {
	if h == nil {
		f.trouble.Store(nil)
		return
	}
	f.trouble.Store(&h)
}

// A Gateway is a real S3 server of one test.
type Gateway struct {
	URL             string
	program, listen string
	dir             string
	cmd             *exec.Cmd
}

// StartGateway starts one, with a bucket, until the test ends.
func StartGateway(tb testing.TB) *Gateway {
	tb.Helper()
	credentials(tb)
	g := &Gateway{program: programtest.Find(tb, "versitygw"), listen: programtest.Free(tb), dir: tb.TempDir()}
	g.URL = address("http://" + g.listen)
	// A bucket of a gateway is a directory.
	for _, dir := range []string{"data/" + bucket, "sidecar"} {
		if err := os.MkdirAll(filepath.Join(g.dir, dir), 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	g.Start(tb)
	tb.Cleanup(func() { g.Stop(tb) })
	return g
}

// Stop ends the server as a loss of power would.
func (g *Gateway) Stop(tb testing.TB) {
	tb.Helper()
	if g.cmd == nil {
		return
	}
	_ = g.cmd.Process.Kill()
	_ = g.cmd.Wait()
	g.cmd = nil
}

// Start starts it again, with what it had.
func (g *Gateway) Start(tb testing.TB) {
	tb.Helper()
	var said bytes.Buffer
	g.cmd = exec.CommandContext(context.Background(), g.program, "--port", g.listen, "--quiet",
		"posix", "--sidecar", filepath.Join(g.dir, "sidecar"), filepath.Join(g.dir, "data"))
	g.cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY=vantage", "ROOT_SECRET_KEY=of-a-test")
	g.cmd.Stdout, g.cmd.Stderr = &said, &said
	if err := g.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	programtest.Answers(tb, "http://"+g.listen, &said)
}
