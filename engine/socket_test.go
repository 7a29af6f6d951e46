package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/openvantage/vantage/fault"
)

func TestSocketPlaces(t *testing.T) {
	t.Parallel()
	// refused expects that there is no upgrade.
	refused := func(t *testing.T, d *dock, status int, code fault.Code) {
		t.Helper()
		_, res := d.connect(t, handshake+offer)
		b, _ := io.ReadAll(res.Body)
		if res.StatusCode != status || !strings.Contains(string(b), string(code)) || res.Header.Get("Retry-After") == "" {
			t.Errorf("the upgrade is answered with %d %s, %v", res.StatusCode, b, res.Header)
		}
	}
	free := func(t *testing.T, d *dock, places int) {
		t.Helper()
		d.until(t, "places are given back", func() bool {
			d.sockets.mu.Lock()
			defer d.sockets.mu.Unlock()
			s := &d.sockets
			if s.places != places {
				return false
			}
			return places > 0 || s.pending == 0 && len(s.payers) == 0 && len(s.pendingOf) == 0 && len(s.open) == 0
		})
	}

	t.Run("sockets and event streams together are bounded", func(t *testing.T) {
		t.Parallel()
		d := newDock(t, func(o *Options) { o.Sockets.Total = 3 })
		p, q := d.join(t), d.dial(t)
		release, err := d.sockets.admit(Payer{Key: "x"})
		if err != nil {
			t.Fatal(err)
		}
		refused(t, d, 503, fault.Unavailable)
		if _, err := d.sockets.admit(Payer{Key: "x"}); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a stream is refused with %v", err)
		}
		q.conn.Close()
		free(t, d, 2)
		d.join(t).lives()
		refused(t, d, 503, fault.Unavailable)
		release()
		d.join(t).lives()
		p.lives()
	})

	t.Run("those of one payer are bounded", func(t *testing.T) {
		t.Parallel()
		d := newDock(t, func(o *Options) { o.Sockets.PerPayer = 2 })
		join := func(who string) *peer {
			p := d.dial(t)
			p.say(`{"type":"connection_init","payload":{"who":"` + who + `"}}`)
			return p
		}
		p := join("Ada")
		p.hears(`{"type":"connection_ack"}`)
		release, err := d.sockets.admit(Payer{Key: "Ada"})
		if err != nil {
			t.Fatal(err)
		}
		join("Ada").ends(1013, "Try again later")
		if _, err := d.sockets.admit(Payer{Key: "Ada"}); !fault.Is(err, fault.RateLimited) {
			t.Errorf("a stream is refused with %v", err)
		}
		join("Grace").hears(`{"type":"connection_ack"}`)
		release()
		free(t, d, 2)
		join("Ada").hears(`{"type":"connection_ack"}`)
		join("Ada").ends(1013, "Try again later")
		p.lives()
	})

	t.Run("those that wait for connection_init are bounded", func(t *testing.T) {
		t.Parallel()
		d := newDock(t, func(o *Options) { o.Sockets.Pending = 2 })
		p := d.dial(t)
		d.dial(t)
		refused(t, d, 503, fault.Unavailable)
		p.say(`{"type":"connection_init"}`)
		p.hears(`{"type":"connection_ack"}`)
		d.join(t).lives()
		d.dial(t)
		refused(t, d, 503, fault.Unavailable)
	})

	t.Run("and those of one source", func(t *testing.T) {
		t.Parallel()
		d := newDock(t, func(o *Options) { o.Sockets.PendingPerSource = 1 })
		p := d.dial(t)
		refused(t, d, 429, fault.RateLimited)
		p.conn.Close()
		free(t, d, 0)
		d.join(t).lives()
	})

	t.Run("every place comes back, however a socket ends", func(t *testing.T) {
		t.Parallel()
		d := newDock(t, nil)
		for _, end := range []func(*peer){
			func(p *peer) { p.conn.Close() },
			func(p *peer) { p.send(masked(finalFrame|frameClose, nil)) },
			func(p *peer) { p.say("nonsense") },
			func(p *peer) { p.send(make([]byte, 100)) },
			func(p *peer) { p.say(`{"type":"connection_init","payload":{"refuse":"FORBIDDEN"}}`) },
			func(p *peer) { p.say(operating("1", "{ slow }")); p.conn.Close() },
		} {
			for _, p := range []*peer{d.dial(t), d.join(t)} {
				end(p)
				_, _ = io.Copy(io.Discard, p.conn)
				p.conn.Close()
			}
		}
		d.connect(t, strings.Replace(handshake, "Version: 13", "Version: 8", 1)+offer)
		free(t, d, 0)
	})
}

func TestSocketFloods(t *testing.T) {
	t.Parallel()
	for name, f := range map[string][]byte{
		"messages":      masked(finalFrame|frameText, []byte(`{"type":"pong"}`)),
		"pings":         masked(finalFrame|frameText, []byte(`{"type":"ping"}`)),
		"control pings": masked(finalFrame|framePing, []byte("x")),
		"control pongs": masked(finalFrame|framePong, nil),
		"completions":   masked(finalFrame|frameText, []byte(`{"type":"complete","id":"1"}`)),
		"fragments":     slices.Concat(masked(frameText, []byte(`{"type"`)), masked(finalFrame, []byte(`:"pong"}`))),
	} {
		t.Run("a flood of "+name+" closes with 1008", func(t *testing.T) {
			t.Parallel()
			d := newDock(t, func(o *Options) { o.Sockets.MessageBurst, o.Sockets.MessagesPerSecond = 20, 1 })
			p := d.join(t)
			for range 18 {
				p.send(f)
			}
			p.say(`{"type":"ping","payload":{"n":20}}`)
			for p.tb = t; !strings.Contains(p.any(), `{"n":20}`); {
			}
			for range 20 {
				_, _ = p.conn.Write(f)
			}
			p.ends(1008, "Too many messages")
		})
	}

	t.Run("who asks without end and does not read is not kept waiting for", func(t *testing.T) {
		t.Parallel()
		const room = 64 << 10
		d := newDock(t, func(o *Options) {
			o.Sockets.MessageBurst, o.Sockets.QueueBytes = 1<<30, room
		})
		p := d.join(t)
		s := d.sockets.all()[0]
		f := masked(finalFrame|frameText, []byte(`{"type":"ping","payload":{"x":"`+strings.Repeat("x", 60_000)+`"}}`))
		written := make(chan struct{})
		go func() {
			defer close(written)
			for {
				if _, err := p.conn.Write(f); err != nil {
					return
				}
			}
		}()
		most := 0
		d.until(t, "the socket is given up", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			most = max(most, s.backlog())
			return s.closing
		})
		p.conn.Close()
		<-written
		if most > 2*room+61_000 {
			t.Errorf("%d bytes were queued", most)
		}
		if code := <-d.ended; code != closeSlow {
			t.Errorf("it ended with %d", code)
		}
	})

	t.Run("with time, more messages may be sent, and after a pause no more than at first", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) { // no time passes meanwhile
			for pause, want := range map[time.Duration]int{0: 0, 100 * time.Millisecond: 5, time.Second: 50, time.Hour: 60} {
				s, _, end := newOutbox(t, false, SocketLimits{MessageBurst: 60, MessagesPerSecond: 50})
				s.credited = time.Now().Add(-pause)
				n := 0
				for s.spend() == nil {
					n++
				}
				if n != want {
					t.Errorf("after %v %d messages may be sent, want %d", pause, n, want)
				}
				end()
			}
		})
	})
}

// any is the payload of the next frame.
func (p *peer) any() string {
	p.tb.Helper()
	first, b, err := p.frame()
	if err != nil || first == finalFrame|frameClose {
		p.tb.Fatalf("the socket ends with %q, %v", b, err)
	}
	return string(b)
}

func TestSocketHousekeeping(t *testing.T) {
	t.Parallel()
	t.Run("sockets are pinged, and those that do not answer are dropped", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			const every = 200 * time.Millisecond
			d := newBubbleDock(t, func(o *Options) { o.Sockets.PingEvery = every })
			began := time.Now()
			gone, here := d.join(t), d.join(t)
			gone.say(operating("1", "subscription { ticks { seq } }"))
			d.callsOf(t, 1)
			pings := 0
			for len(d.ended) == 0 || pings < 4 {
				first, b, err := here.frame()
				if err != nil || first != finalFrame|framePing || len(b) > 0 {
					t.Fatalf("%#x %q came, %v", first, b, err)
				}
				here.send(masked(finalFrame|framePong, nil))
				pings++
			}
			if took := time.Since(began); took < time.Duration(pings)*every {
				t.Errorf("%d pings came in %v", pings, took)
			}
			if code := <-d.ended; code != closeAbnormal {
				t.Errorf("it ended with %d", code)
			}
			synctest.Wait()
			if left := len(d.sockets.all()); left != 1 {
				t.Errorf("%d sockets are left", left)
			}
			if n := d.groupCount(); n != 0 {
				t.Errorf("%d subscriptions go on", n)
			}
			if b, _ := io.ReadAll(gone.in); strings.ReplaceAll(string(b), "\x89\x00", "") != "" {
				t.Errorf("it was told %q", b)
			}
		})
	})

	t.Run("a message that does not end closes with 1008", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			d := newBubbleDock(t, nil)
			p := d.join(t)
			p.send(masked(frameText, []byte(`{"type":`)))
			p.ends(1008, "A message took too long")
			p = d.join(t)
			p.send(masked(finalFrame|frameText, []byte(`{"type":"ping"}`))[:12])
			p.ends(1008, "A message took too long")
		})
	})
}

func TestSocketClose(t *testing.T) {
	t.Parallel()
	soon := func(t *testing.T, d time.Duration) context.Context {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), d)
		t.Cleanup(cancel)
		return ctx
	}
	closing := func(d *dock, ctx context.Context) <-chan error {
		done := make(chan error, 1)
		go func() { done <- d.Close(ctx) }()
		d.until(d.tb, "it is closing", func() bool {
			d.sockets.mu.Lock()
			told := d.sockets.closing
			d.sockets.mu.Unlock()
			for _, s := range d.sockets.all() {
				s.mu.Lock()
				told = told && s.leaving // what it is asked from here on is too late
				s.mu.Unlock()
			}
			return told
		})
		return done
	}

	t.Run("every socket is told 1012, and new ones are refused", func(t *testing.T) {
		t.Parallel()
		d := newDock(t, nil)
		idle, joined, subscribed := d.dial(t), d.join(t), d.join(t)
		subscribed.say(operating("1", "subscription { ticks { seq } }"))
		d.callsOf(t, 1)
		done := closing(d, soon(t, patience))
		for _, p := range []*peer{idle, joined, subscribed} {
			p.ends(1012, "Service restart")
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, res := d.connect(t, handshake+offer); res.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("an upgrade is answered with %d", res.StatusCode)
		}
		if _, err := d.sockets.admit(Payer{}); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a stream is refused with %v", err)
		}
		if n := d.groupCount(); n != 0 {
			t.Errorf("%d groups go on", n)
		}
	})

	t.Run("what runs is answered first", func(t *testing.T) {
		t.Parallel()
		began, release := make(chan struct{}), make(chan struct{})
		d := newDock(t, func(o *Options) {
			o.Schema = newTestSchema(t, map[string]func(context.Context, map[string]any) (any, error){
				"set": func(ctx context.Context, _ map[string]any) (any, error) {
					close(began)
					<-release
					return "done", ctx.Err()
				},
			})
		})
		p := d.join(t)
		p.say(operating("1", `mutation { set(value: "x") }`))
		wait(t, began, "the mutation runs")
		done := closing(d, soon(t, patience))
		p.say(operating("2", "{ ping }")) // too late
		close(release)
		p.answers("1", `{"set":"done"}`)
		p.ends(1012, "Service restart")
		if err := <-done; err != nil {
			t.Error(err)
		}
	})

	t.Run("what does not end in time is ended", func(t *testing.T) {
		t.Parallel()
		d := newDock(t, nil)
		p := d.join(t)
		p.say(operating("1", "{ slow }"))
		d.until(t, "the query runs", func() bool { return d.runs.Load() > 0 })
		done := closing(d, soon(t, 50*time.Millisecond))
		p.ends(1012, "Service restart")
		if err := <-done; err != nil {
			t.Error(err)
		}
	})

	t.Run("what is queued is sent first to those who read", func(t *testing.T) {
		t.Parallel()
		d := newDock(t, func(o *Options) { o.Sockets.QueueBytes = 64 << 20 })
		p := d.join(t)
		p.say(operating("1", "subscription { ticks { seq name } }"))
		d.callsOf(t, 1)
		s := d.sockets.all()[0]
		sent := 0
		d.until(t, "something is queued", func() bool {
			d.journal.write(strings.Repeat("x", 10_000), "", "", false)
			sent++
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.backlog() > 200_000
		})
		d.quiet(t)
		done := closing(d, soon(t, patience))
		for i := 1; i <= sent; i++ {
			if got := p.seq(); got != i {
				t.Fatalf("message %d has seq %d", i, got)
			}
		}
		p.ends(1012, "Service restart")
		if err := <-done; err != nil {
			t.Error(err)
		}
	})

	t.Run("nobody who does not read or leave keeps it", func(t *testing.T) {
		t.Parallel()
		d := newDock(t, func(o *Options) { o.Sockets.QueueBytes = 64 << 20 })
		p := d.join(t)
		d.dial(t)
		p.say(operating("1", "subscription { ticks { seq name } }"))
		d.callsOf(t, 1)
		s := d.sockets.all()[0]
		d.until(t, "something is queued", func() bool {
			d.journal.write(strings.Repeat("x", 10_000), "", "", false)
			for _, k := range d.sockets.all() {
				k.mu.Lock()
				if len(k.queue) > 10 {
					s = k
				}
				k.mu.Unlock()
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.backlog() > 200_000
		})
		began := time.Now()
		if err := d.Close(soon(t, 100*time.Millisecond)); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// quiet waits until groups have told all they know.
func (d *dock) quiet(tb testing.TB) {
	tb.Helper()
	d.until(tb, "groups have nothing to do", func() bool {
		d.hub.mu.Lock()
		defer d.hub.mu.Unlock()
		for _, g := range d.hub.groups {
			g.mu.Lock()
			running := g.running
			g.mu.Unlock()
			if running {
				return false
			}
		}
		return true
	})
}

// seq is that of the next message, of ticks or states.
func (p *peer) seq() int {
	p.tb.Helper()
	text := p.listen()
	var m struct {
		Payload struct {
			Data struct{ Ticks, States struct{ Seq int } }
		}
	}
	if err := json.Unmarshal([]byte(text), &m); err != nil || m.Payload.Data.Ticks.Seq+m.Payload.Data.States.Seq == 0 {
		p.tb.Fatalf("the client hears %.200s", text)
	}
	return m.Payload.Data.Ticks.Seq + m.Payload.Data.States.Seq
}

// TestSocketGoroutines is alone: other tests have goroutines too.
func TestSocketGoroutines(t *testing.T) { //nolint:paralleltest // see above
	before := goleak.IgnoreCurrent()
	t.Run("none is left after Close", func(t *testing.T) {
		d := newDock(t, func(o *Options) { o.Sockets.QueueBytes = 32 << 10 })
		for i := range 20 {
			d.dial(t)
			p := d.join(t)
			p.say(operating("1", "subscription { ticks { seq name } }"))
			p.say(operating("2", "subscription { states { seq name } }"))
			p.say(operating("3", "{ slow }"))
			if i%2 == 0 {
				d.callsOf(t, 2*(i/2+1))
			}
			if i%2 == 1 {
				p.conn.Close()
				d.until(t, "it is gone", func() bool { return len(d.sockets.all()) == 2*i+1-i/2 })
			}
		}
		for i := range 100 {
			d.journal.write(fmt.Sprint(i)+strings.Repeat("x", 10_000), "", "", false)
		}
		grace, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := d.Close(grace); err != nil {
			t.Error(err)
		}
	})
	err := goleak.Find(before)
	for end := time.Now().Add(patience); err != nil && time.Now().Before(end); {
		err = goleak.Find(before)
	}
	if err != nil {
		t.Error(err)
	}
}
