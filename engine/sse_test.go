package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/openvantage/vantage/fault"
)

// An sseEvent is one as a browser dispatches it; a comment has neither part.
type sseEvent struct{ name, data string }

// A sseReader reads an event stream as the HTML standard has it, only that comments between
// events are shown as well.
type sseReader struct{ in *bufio.Reader }

func (r sseReader) next() (e sseEvent, err error) {
	var data []string
	for {
		line, err := r.in.ReadString('\n')
		if err != nil {
			return e, err
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			e.data = strings.Join(data, "\n")
			return e, nil
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "event":
			e.name = value
		case "data":
			data = append(data, value)
		case "":
		default:
			return e, fmt.Errorf("there is a line %q", line)
		}
	}
}

// follow opens a stream with a client that reads it.
func (s *site) follow(tb testing.TB, query string) (sseReader, *http.Response) {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), http.MethodPost, s.url+"/graphql", strings.NewReader(asJSON(tb, map[string]any{"query": query})))
	if err != nil {
		tb.Fatal(err)
	}
	req.Header = http.Header{"Content-Type": {"application/json"}, "Accept": {"text/event-stream"}}
	res, err := s.client.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		tb.Fatalf("answered %d", res.StatusCode)
	}
	return sseReader{bufio.NewReader(res.Body)}, res
}

// must is the next event, which must be of this name.
func (r sseReader) must(tb testing.TB, name string) map[string]any {
	tb.Helper()
	e, err := r.next()
	if err != nil || e.name != name {
		tb.Fatalf("came %+v, %v; want %q", e, err, name)
	}
	if e.data == "" {
		return nil
	}
	var out map[string]any
	if err := json.Unmarshal([]byte(e.data), &out); err != nil {
		tb.Fatalf("%v: %s", err, e.data)
	}
	return out
}

// seqs are the numbers of so many ticks that come next.
func (r sseReader) seqs(tb testing.TB, n int) (out []int) {
	tb.Helper()
	for len(out) < n {
		e, err := r.next()
		if err != nil {
			tb.Fatalf("after %v: %v", out, err)
		}
		if e.name == "" {
			continue
		}
		var got struct {
			Data struct{ Ticks, States struct{ Seq int } }
		}
		if err := json.Unmarshal([]byte(e.data), &got); err != nil || e.name != "next" {
			tb.Fatalf("came %+v, %v", e, err)
		}
		out = append(out, got.Data.Ticks.Seq+got.Data.States.Seq)
	}
	return out
}

// bubble serves the engine inside a synctest bubble, where time passes when everybody waits and
// nothing may go on after the test. Clients get a pipe, on which what one does not read the other
// cannot write; dial makes more of them.
func (s *site) bubble(tb testing.TB, config *http.Server) (dial func() (net.Conn, error)) {
	tb.Helper()
	l := pipeListener{make(chan net.Conn), make(chan struct{})}
	config.Handler = s.Engine
	done := make(chan error)
	go func() { done <- config.Serve(l) }()
	dial = func() (net.Conn, error) { return l.dial(), nil }
	transport := &http.Transport{DisableCompression: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return dial() }}
	s.url, s.client = "http://site", &http.Client{Transport: transport}
	tb.Cleanup(func() {
		s.stop()
		transport.CloseIdleConnections()
		_ = config.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			tb.Error(err)
		}
	})
	return dial
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l pipeListener) dial() net.Conn {
	here, there := net.Pipe()
	l.conns <- there
	return here
}

func (l pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l pipeListener) Close() error {
	close(l.closed)
	return nil
}

func (l pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

func (e *Engine) groupCount() int {
	e.hub.mu.Lock()
	defer e.hub.mu.Unlock()
	return len(e.hub.groups)
}

func TestStream(t *testing.T) {
	t.Parallel()

	t.Run("a subscription is a next event for each message", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newSiteEngine(t, nil)
			s.bubble(t, &http.Server{})
			r, res := s.follow(t, "subscription { ticks { seq name } }")
			if res.Header.Get("Content-Type") != "text/event-stream; charset=utf-8" || res.Header.Get("Cache-Control") != "no-store" || res.Header.Get("X-Accel-Buffering") != "no" {
				t.Errorf("the headers are %v", res.Header)
			}
			r.must(t, "") // so that the client knows that it is heard
			synctest.Wait()
			for range 3 {
				s.journal.write("Ada", "", "", false)
			}
			for i := range 3 {
				if got, want := fmt.Sprint(r.must(t, "next")), fmt.Sprintf("map[data:map[ticks:map[name:Ada seq:%d]]]", i+1); got != want {
					t.Errorf("came %s, want %s", got, want)
				}
			}
		})
	})

	t.Run("a GET may subscribe, and what was missed comes first", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newSiteEngine(t, nil)
			s.bubble(t, &http.Server{})
			for range 100 {
				s.journal.write("Ada", "", "", false)
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+`/graphql?query=subscription($a:Cursor){ticks(after:$a){seq}}&variables={"a":"40"}`, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Accept", "text/event-stream")
			res, err := s.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			r := sseReader{bufio.NewReader(res.Body)}
			got := r.seqs(t, 60)
			s.journal.write("Ada", "", "", false)
			got = append(got, r.seqs(t, 1)...)
			for i, seq := range got {
				if seq != 41+i {
					t.Fatalf("came %v", got)
				}
			}
		})
	})

	t.Run("a subscription that fails says why and is complete", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newSiteEngine(t, nil)
			s.bubble(t, &http.Server{})
			s.journal.write("Ada", "", "", false)
			s.journal.floor = 1
			r, _ := s.follow(t, `subscription { ticks(after: "0") { seq } }`)
			r.must(t, "")
			e := r.must(t, "next")
			if !strings.Contains(fmt.Sprint(e["errors"]), string(fault.Resync)) {
				t.Errorf("came %v", e)
			}
			r.must(t, "complete")
			if e, err := r.next(); err != io.EOF { //nolint:errorlint // ReadString's own
				t.Errorf("then came %+v, %v", e, err)
			}
		})
	})

	t.Run("when the client leaves, its subscription ends", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newSiteEngine(t, nil)
			s.bubble(t, &http.Server{})
			r, res := s.follow(t, "subscription { ticks { seq } }")
			r.must(t, "")
			synctest.Wait()
			if n := s.groupCount(); n != 1 {
				t.Errorf("there are %d groups", n)
			}
			res.Body.Close()
			synctest.Wait()
			if n := s.groupCount(); n != 0 {
				t.Errorf("there are %d groups without members", n)
			}
		})
	})

	t.Run("when the server stops, the stream ends without being complete", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newSiteEngine(t, nil)
			s.bubble(t, &http.Server{})
			r, _ := s.follow(t, "subscription { ticks { seq } }")
			r.must(t, "")
			synctest.Wait()
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if e, err := r.next(); err != io.EOF { //nolint:errorlint // ReadString's own
				t.Errorf("came %+v, %v", e, err)
			}
		})
	})

	t.Run("a quiet stream lives as long as it is wanted, whatever the server's timeouts", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newSiteEngine(t, nil)
			s.bubble(t, &http.Server{ReadTimeout: time.Minute, WriteTimeout: time.Minute})
			began := time.Now()
			r, _ := s.follow(t, "subscription { ticks { seq } }")
			for i := range 100 {
				r.must(t, "")
				if at := time.Since(began); at != time.Duration(i)*keepAlive {
					t.Fatalf("sign of life %d came after %v", i, at)
				}
			}
			s.journal.write("Ada", "", "", false)
			if got := r.seqs(t, 1); got[0] != 1 {
				t.Errorf("came %v", got)
			}
		})
	})

	t.Run("a reader who stops is given up, and moves nobody else", func(t *testing.T) {
		t.Parallel()
		for _, field := range []string{"ticks", "states"} {
			synctest.Test(t, func(t *testing.T) {
				s := newSiteEngine(t, nil)
				s.bubble(t, &http.Server{})
				query := "subscription { " + field + " { seq name } }"
				stalled, _ := s.follow(t, query)
				stalled.must(t, "")
				other, _ := s.follow(t, query)
				other.must(t, "")
				synctest.Wait()
				began := time.Now()
				for i := range 100 {
					s.journal.write(strings.Repeat("x", 10_000), "", "", false)
					if got := other.seqs(t, 1); got[0] != i+1 {
						t.Fatalf("the other gets %v instead of %d", got, i+1)
					}
				}
				if waited := time.Since(began); waited != 0 {
					t.Errorf("the other waited for %v", waited)
				}
				time.Sleep(s.opt.Sockets.WriteTimeout) //nolint:forbidigo // of the bubble's clock
				synctest.Wait()
				g := s.onlyGroup(t)
				g.mu.Lock()
				defer g.mu.Unlock()
				if len(g.members) != 1 {
					t.Errorf("there are %d members", len(g.members))
				}
			})
		}
	})

	t.Run("a slow reader gets everything if it can be kept, and comes back for it otherwise", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newSiteEngine(t, nil)
			s.bubble(t, &http.Server{})
			r, _ := s.follow(t, "subscription { ticks { seq name } }")
			r.must(t, "")
			synctest.Wait()
			const written = 100
			for range written { // 1 MB, of which 256 KB are kept
				s.journal.write(strings.Repeat("x", 10_000), "", "", false)
				synctest.Wait()
			}
			got := 0
			for {
				e, err := r.next()
				if err != nil {
					break
				}
				if e.name != "next" {
					t.Fatalf("came %+v", e)
				}
				got++
			}
			if got == written {
				t.Error("it was all kept")
			}
			again, _ := s.follow(t, fmt.Sprintf(`subscription { ticks(after: "%d") { seq } }`, got))
			if seqs := again.seqs(t, written-got); seqs[0] != got+1 || seqs[len(seqs)-1] != written {
				t.Errorf("after %d came %v", got, seqs)
			}
		})
	})

	t.Run("of states, a slow reader gets the last ones in the end", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newSiteEngine(t, nil)
			s.bubble(t, &http.Server{})
			r, _ := s.follow(t, "subscription { states { seq name conflated } }")
			r.must(t, "")
			synctest.Wait()
			names := []string{strings.Repeat("x", 20_000), strings.Repeat("y", 20_000)}
			const written = 100
			for i := range written {
				s.journal.write(names[i%2], "", "", false)
				synctest.Wait()
			}
			last := 0
			left := 0.
			for last != written {
				e := r.must(t, "next")["data"].(map[string]any)["states"].(map[string]any)
				seq := int(e["seq"].(float64))
				if seq <= last {
					t.Fatalf("%d came after %d", seq, last)
				}
				last = seq
				left += e["conflated"].(float64)
			}
			if left < 10 {
				t.Errorf("%v were left out", left)
			}
			s.journal.write("z", "", "", false)
			if got := r.seqs(t, 1); got[0] != written+1 {
				t.Errorf("then came %v", got)
			}
		})
	})

	t.Run("too many streams are refused", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, func(o *Options) { o.Sockets.PerPayer = 2 })
		var open []*http.Response
		for range 2 {
			_, res := s.follow(t, "subscription { ticks { seq } }")
			open = append(open, res)
		}
		r := s.post(t, `{"query": "subscription { ticks { seq } }"}`, "Accept", "text/event-stream")
		if r.status != http.StatusTooManyRequests || r.header.Get("Retry-After") == "" || !strings.Contains(r.String(), "RATE_LIMITED") {
			t.Errorf("answered %d %s", r.status, r)
		}
		open[0].Body.Close()
		deadline := time.Now().Add(patience)
		for r = s.post(t, `{"query": "{ ping }"}`, "Accept", "text/event-stream"); r.status != http.StatusOK; r = s.post(t, `{"query": "{ ping }"}`, "Accept", "text/event-stream") {
			if time.Now().After(deadline) {
				t.Fatalf("its place is not given up: %d %s", r.status, r)
			}
		}
	})

	t.Run("a raw body with line ends is one event of the same JSON", func(t *testing.T) {
		t.Parallel()
		for _, payload := range []string{"{\"data\":\n1}", "{\"data\":\r\n\r\n1\r}", "{\"data\":1}\n", "{\"data\":\r1}\r\n"} {
			w := httptest.NewRecorder()
			s := newStream(deadlines{w}, SocketLimits{}.orDefault())
			s.send([]*message{{payload: []byte(payload)}})
			s.end(nil)
			s.run(t.Context(), t.Context(), func() {})
			if strings.Contains(w.Body.String(), "\r") {
				t.Errorf("%q is written as %q", payload, w.Body)
			}
			r := sseReader{bufio.NewReader(w.Body)}
			if got := fmt.Sprint(r.must(t, "next")); got != "map[data:1]" {
				t.Errorf("%q is read as %s", payload, got)
			}
			r.must(t, "complete")
		}
	})

	t.Run("a response that knows no deadlines is not written to", func(t *testing.T) {
		t.Parallel()
		w := httptest.NewRecorder()
		s := newStream(w, SocketLimits{}.orDefault())
		if s.begin(httptest.NewRequest(http.MethodPost, "/", nil)) || w.Body.Len() > 0 {
			t.Errorf("it says %q", w.Body)
		}
	})

	t.Run("after its end a stream takes nothing and says nothing", func(t *testing.T) {
		t.Parallel()
		w := httptest.NewRecorder()
		s := newStream(deadlines{w}, SocketLimits{}.orDefault())
		s.end(gqlerror.List{{Message: "first"}})
		s.end(gqlerror.List{{Message: "second"}})
		if !s.send([]*message{{payload: []byte("{}")}}) {
			t.Error("it refuses messages, and would wait for room")
		}
		s.run(t.Context(), t.Context(), func() { t.Error("there is room for nobody") })
		s.slow()
		if want := "event: next\ndata: {\"errors\":[{\"message\":\"first\"}]}\n\nevent: complete\ndata: \n\n"; w.Body.String() != want {
			t.Errorf("it said %q", w.Body)
		}
	})
}

func (s *site) onlyGroup(tb testing.TB) *group {
	tb.Helper()
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	for _, g := range s.hub.groups {
		if len(s.hub.groups) == 1 {
			return g
		}
	}
	tb.Fatalf("there are %d groups", len(s.hub.groups))
	return nil
}

// deadlines is a recorder that takes deadlines, and meets them.
type deadlines struct{ *httptest.ResponseRecorder }

func (deadlines) SetWriteDeadline(time.Time) error { return nil }
