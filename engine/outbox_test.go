package engine

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/vektah/gqlparser/v2/gqlerror"
	"pgregory.net/rapid"
)

// newOutbox is a socket whose write side alone is in use, and the other end of its connection:
// over TCP with small buffers, or over a pipe, which has no file descriptor.
func newOutbox(tb testing.TB, tcp bool, limits SocketLimits) (s *socket, there net.Conn, end func()) {
	tb.Helper()
	var here net.Conn
	here, there = net.Pipe()
	if tcp {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		defer l.Close()
		if there, err = net.Dial("tcp", l.Addr().String()); err != nil {
			tb.Fatal(err)
		}
		if here, err = l.Accept(); err != nil {
			tb.Fatal(err)
		}
		for _, err := range []error{here.(*net.TCPConn).SetWriteBuffer(16 << 10), there.(*net.TCPConn).SetReadBuffer(128 << 10)} { // smaller ones make TCP wait
			if err != nil {
				tb.Fatal(err)
			}
		}
	}
	s = &socket{sockets: &sockets{limits: limits.orDefault()}}
	s.use(here)
	return s, there, func() {
		s.abandon()
		here.Close()
		there.Close()
		s.sockets.work.Wait()
	}
}

// backlog is how many bytes are queued.
func (s *socket) backlog() int { return s.queued[answers] + s.queued[results] + s.queued[updates] }

// newCall is an operation of the socket that the test sends to.
func newCall(s *socket, id string) *call {
	c := &call{s: s, id: id, prefix: append(beginning(id, "next"), `,"payload":`...), cancel: func() {}, room: make(chan struct{}, 1), through: true}
	s.mu.Lock()
	s.calls = append(s.calls, c)
	s.mu.Unlock()
	return c
}

// fill sends until it is refused, or its socket has been given up.
func (c *call) fill(size int) {
	for i := 1; c.send([]*message{numbered(i, size)}); i++ {
		c.s.mu.Lock()
		closing := c.s.closing
		c.s.mu.Unlock()
		if closing {
			return
		}
	}
}

func numbered(n, size int) *message {
	return &message{payload: []byte(fmt.Sprintf(`{"n":%d,"x":"%s"}`, n, strings.Repeat("x", size))), at: Position{Seq: int64(n)}}
}

// TestOutbox is one property: what is taken arrives, whole, once and in order, however fast
// the client reads, and nothing else does.
func TestOutbox(t *testing.T) {
	t.Parallel()
	for name, tcp := range map[string]bool{"TCP": true, "a pipe": false} {
		t.Run("what is taken arrives over "+name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				limit := rapid.SampledFrom([]int{1_000, 10_000, 50_000}).Draw(t, "limit")
				s, there, end := newOutbox(tb{t: t}, tcp, SocketLimits{QueueBytes: limit})
				defer end()
				pace := rapid.IntRange(300, 70_000).Draw(t, "pace")
				type step struct{ messages, size int }
				scripts := rapid.SliceOfN(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
					return step{rapid.IntRange(1, 40).Draw(t, "messages"), rapid.SampledFrom([]int{0, 30, 100, 130, 1_000, 20_000}).Draw(t, "size")}
				}), 1, 6), 1, 4).Draw(t, "scripts")

				var senders sync.WaitGroup
				taken := make([]int, len(scripts))
				for i, script := range scripts {
					c := newCall(s, fmt.Sprint(i))
					senders.Go(func() {
						for _, step := range script {
							var msgs []*message
							for range step.messages {
								taken[i]++
								msgs = append(msgs, numbered(taken[i], step.size/(1+step.messages/4)))
							}
							for !c.send(msgs) {
								select {
								case <-c.room:
								case <-time.After(patience):
									t.Errorf("there is never room")
									return
								}
							}
						}
						c.end(nil)
					})
				}
				got := make([]int, len(scripts))
				p := &peer{tb: tb{t: t}, conn: there, in: bufio.NewReaderSize(there, pace)}
				for over := 0; over < len(scripts); {
					var m struct {
						ID, Type string
						Payload  struct{ N int }
					}
					if text := p.listen(); json.Unmarshal([]byte(text), &m) != nil {
						t.Fatalf("%.200s", text)
					}
					i := atoi(m.ID)
					if m.Type == "complete" {
						over++
						continue
					}
					if got[i]++; m.Payload.N != got[i] {
						t.Fatalf("%d has %d after %d", i, m.Payload.N, got[i]-1)
					}
				}
				senders.Wait()
				s.sockets.work.Wait()
				if !slices.Equal(got, taken) {
					t.Fatalf("%v came, %v was taken", got, taken)
				}
				s.mu.Lock()
				if s.queued != [kinds]int{} || s.queue != nil || s.sent != 0 || s.held != 0 {
					t.Errorf("%v bytes are queued, in %d frames", s.queued, len(s.queue))
				}
				s.mu.Unlock()
			})
		})

		t.Run("of an operation that was completed nothing comes but what had begun, over "+name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				s, there, end := newOutbox(tb{t: t}, tcp, SocketLimits{QueueBytes: 4 << 20})
				defer end()
				size := rapid.IntRange(0, 20_000).Draw(t, "size")
				a, b := newCall(s, "0"), newCall(s, "1")
				n := rapid.IntRange(1, 30).Draw(t, "messages")
				for i := 1; i <= n; i++ {
					a.send([]*message{numbered(i, size)})
					b.send([]*message{numbered(i, size)})
				}
				s.complete("0")
				if !a.send([]*message{numbered(n+1, size)}) {
					t.Fatal("a sender is kept waiting")
				}
				a.end(nil)
				a.end(gqlerror.List{{}})
				left := 0
				s.mu.Lock()
				for i := range s.queue {
					if s.queue[i].call == a {
						left++
					}
				}
				queued := s.backlog()
				for i := range s.queue {
					queued -= s.queue[i].size()
				}
				s.mu.Unlock()
				if left > 1 && tcp || queued != 0 {
					t.Fatalf("%d messages of it are queued, and %d bytes miscounted", left, queued)
				}
				b.end(nil)
				p := &peer{tb: tb{t: t}, conn: there, in: bufio.NewReader(there)}
				got := []int{0, 0}
				for {
					var m struct {
						ID, Type string
						Payload  struct{ N int }
					}
					if text := p.listen(); json.Unmarshal([]byte(text), &m) != nil {
						t.Fatalf("%.200s", text)
					}
					if m.Type == "complete" {
						if m.ID != "1" || got[1] != n {
							t.Fatalf("%s is complete after %v", m.ID, got)
						}
						return
					}
					if i := atoi(m.ID); m.Payload.N != got[i]+1 {
						t.Fatalf("%d has %d after %d", i, m.Payload.N, got[i])
					} else {
						got[i]++
					}
				}
			})
		})

		t.Run("a client that reads nothing is told where it stopped, over "+name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				s, there, end := newOutbox(tb{t: t}, tcp, SocketLimits{QueueBytes: 10_000})
				defer end()
				size := rapid.IntRange(1_000, 20_000).Draw(t, "size")
				c := newCall(s, "0")
				c.fill(size)
				s.shut(closeSlow, reasonSlow)
				if !c.send([]*message{numbered(1, 1)}) {
					t.Fatal("a sender is kept waiting")
				}
				last := 0
				in := &peer{tb: tb{t: t}, in: bufio.NewReader(there)}
				for {
					first, b, err := in.frame()
					if err != nil {
						t.Fatalf("it ends with %v", err)
					}
					if first == finalFrame|frameClose {
						break
					}
					var m struct{ Payload struct{ N int } }
					if json.Unmarshal(b, &m) != nil || m.Payload.N != last+1 {
						t.Fatalf("%.100s comes after %d", b, last)
					}
					last++
				}
				s.sockets.work.Wait()
				s.mu.Lock()
				defer s.mu.Unlock()
				if c.written.Seq != int64(last) || !s.told {
					t.Errorf("the client has %d and the server thinks %d", last, c.written.Seq)
				}
			})
		})
	}
}

func TestOutboxTimes(t *testing.T) {
	t.Parallel()
	for name, tcp := range map[string]bool{"TCP": true, "a pipe": false} {
		t.Run("a client that stops is given up, over "+name, func(t *testing.T) {
			t.Parallel()
			s, _, end := newOutbox(t, tcp, SocketLimits{WriteTimeout: 50 * time.Millisecond, QueueBytes: 1 << 20})
			defer end()
			c := newCall(s, "0")
			c.fill(1000)
			d := &dock{}
			d.until(t, "it is given up", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.closing })
			s.sockets.work.Wait() // it is not waited for longer than closeWait
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.code != closeSlow || s.queue != nil || s.queued != [kinds]int{} {
				t.Errorf("it ends with %d, and %v bytes in the queue", s.code, s.queued)
			}
		})
	}

	t.Run("a client that reads slowly is not", func(t *testing.T) {
		t.Parallel()
		const timeout = 2 * time.Second // its reader may be kept from reading for almost as long
		s, there, end := newOutbox(t, true, SocketLimits{WriteTimeout: timeout, QueueBytes: 1 << 20})
		defer end()
		c := newCall(s, "0")
		c.fill(1000)
		began := time.Now()
		b := make([]byte, 8000)
		for pause := time.NewTicker(timeout / 50); ; <-pause.C {
			if _, err := there.Read(b); err != nil {
				t.Fatal(err)
			}
			s.mu.Lock()
			closing, left := s.closing, len(s.queue)
			s.mu.Unlock()
			if closing {
				t.Fatalf("it was given up after %v", time.Since(began))
			}
			if left == 0 {
				break
			}
		}
		if took := time.Since(began); took < timeout*3/2 {
			t.Fatalf("it took %v, which shows nothing", took)
		}
		<-c.room // it was told
	})

	t.Run("a connection that broke takes what there is, and says nothing", func(t *testing.T) {
		t.Parallel()
		s, there, end := newOutbox(t, true, SocketLimits{})
		defer end()
		c := newCall(s, "0")
		there.Close()
		d := &dock{}
		d.until(t, "it is known", func() bool {
			if !c.send([]*message{numbered(1, 1000)}) {
				t.Fatal("a sender is kept waiting")
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.closing
		})
		if _, err := s.conn.Read(make([]byte, 1)); err == nil {
			t.Error("its reader goes on")
		}
	})
}

func TestFrame(t *testing.T) {
	t.Parallel()
	t.Run("a frame is the same in whatever pieces it is written", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(t *rapid.T) {
			c := &call{prefix: append(beginning(rapid.String().Draw(t, "id"), "next"), `,"payload":`...)}
			m := numbered(1, rapid.SampledFrom([]int{0, 50, 60, 125, 126, 1000, 65_400, 65_500, 70_000}).Draw(t, "size")+rapid.IntRange(0, 60).Draw(t, "more"))
			for _, f := range []frame{{call: c, msg: m}, textFrame(m.payload), controlFrame(framePong, []byte("x"))} {
				all := f.appendFrom(make([]byte, 0, 80_000), 0)
				if len(all) != f.size() {
					t.Fatalf("it has %d bytes and says %d", len(all), f.size())
				}
				var parts []byte
				for len(parts) < len(all) {
					parts = append(parts, f.appendFrom(make([]byte, 0, rapid.IntRange(1, 90_000).Draw(t, "room")), len(parts))...)
				}
				p := peer{in: bufio.NewReader(bytes.NewReader(parts))}
				first, b, err := p.frame()
				if _, more := p.in.ReadByte(); err != nil || !errors.Is(more, io.EOF) || !bytes.Equal(parts, all) {
					t.Fatalf("%v, %v", err, more)
				}
				if f.call != nil && (first != finalFrame|frameText || !bytes.Equal(b, slices.Concat(c.prefix, m.payload, suffix)) || !json.Valid(b)) {
					t.Fatalf("%#x %.200q", first, b)
				}
			}
		})
	})

	t.Run("a close reason is cut at a character", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(t *rapid.T) {
			reason := rapid.String().Draw(t, "reason")
			b := closeFrame(4400, reason).raw
			if len(b) > 2+maxControl || int(b[1]) != len(b)-2 || !utf8.Valid(b[4:]) || !strings.HasPrefix(reason, string(b[4:])) {
				t.Fatalf("%q", b)
			}
			if len(reason) <= 123 && len(b) != 4+len(reason) || len(reason) > 123 && len(b) < 4+120 {
				t.Fatalf("of %d bytes %d are said", len(reason), len(b)-4)
			}
		})
	})
}

func TestSlowSocket(t *testing.T) {
	t.Parallel()
	const room = 64 << 10
	long := strings.Repeat("x", 10_000)
	// stall publishes until the socket is given up, or as a condition has it.
	stall := func(t *testing.T, d *dock, s *socket, ok func() bool) {
		t.Helper()
		d.until(t, "the socket is behind", func() bool {
			d.journal.write(long, "", "", false)
			d.quiet(t)
			s.mu.Lock()
			defer s.mu.Unlock()
			return ok()
		})
	}
	// rest reads what comes before the close frame, and the cursor that is in it.
	rest := func(t *testing.T, p *peer, heard func(said)) (cursor int) {
		t.Helper()
		for {
			first, b, err := p.frame()
			if err != nil {
				t.Fatal(err)
			}
			if first == finalFrame|frameClose {
				code, reason := int(b[0])<<8|int(b[1]), string(b[2:])
				after, ok := strings.CutPrefix(reason, "slow reader; resume after ")
				if code != closeSlow || !ok {
					t.Fatalf("it ends with %d %s", code, reason)
				}
				return atoi(after)
			}
			var m said
			if first == finalFrame|frameText && json.Unmarshal(b, &m) == nil {
				heard(m)
			}
		}
	}
	seqOf := func(t *testing.T, m said) (seq int) {
		t.Helper()
		var r struct {
			Data struct{ Ticks, States struct{ Seq int } }
		}
		if err := json.Unmarshal(m.Payload, &r); err != nil {
			t.Fatal(err)
		}
		return r.Data.Ticks.Seq + r.Data.States.Seq
	}

	t.Run("who does not read is told from where to resume, and misses nothing", func(t *testing.T) {
		t.Parallel()
		d := newDock(t, func(o *Options) { o.Sockets.QueueBytes = room })
		p := d.join(t)
		p.say(operating("1", "subscription { ticks { seq name } }"))
		d.callsOf(t, 1)
		s := d.sockets.all()[0]
		stall(t, d, s, func() bool { return s.closing })
		next := 1
		cursor := rest(t, p, func(m said) {
			if got := seqOf(t, m); got != next {
				t.Fatalf("%d comes instead of %d", got, next)
			}
			next++
		})
		if cursor != next-1 {
			t.Fatalf("it is to resume after %d and got %d", cursor, next-1)
		}
		p = d.join(t)
		p.say(operating("1", fmt.Sprintf("subscription { ticks(after: \"%d\") { seq } }", cursor)))
		last := d.journal.write("last", "", "", false)
		for ; next <= int(last); next++ {
			if got := p.seq(); got != next {
				t.Fatalf("%d comes instead of %d", got, next)
			}
		}
	})

	t.Run("of several subscriptions the one that is behind most counts", func(t *testing.T) {
		t.Parallel()
		d := newDock(t, func(o *Options) { o.Sockets.QueueBytes = room })
		p := d.join(t)
		p.say(operating("1", "subscription { ticks { seq name } }"))
		d.callsOf(t, 1)
		for range 5 {
			d.journal.write("x", "", "", false)
			p.seq()
		}
		p.say(operating("2", `subscription { ticks(after: "2") { seq name } }`))
		for i := 3; i <= 5; i++ {
			p.seq()
		}
		p.say(operating("3", `subscription { states(of: ["nobody"]) { seq } }`))
		calls := d.callsOf(t, 3)
		s := calls[0].s
		stall(t, d, s, func() bool { return s.closing })
		last := map[string]int{"1": 5, "2": 5, "3": 5} // the third has nothing to miss, and began there
		cursor := rest(t, p, func(m said) { last[m.ID] = seqOf(t, m) })
		if want := min(last["1"], last["2"], last["3"]); cursor != want {
			t.Errorf("it is to resume after %d and got %v", cursor, last)
		}
	})

	t.Run("states wait for who does not read, and the last of each is sent", func(t *testing.T) {
		t.Parallel()
		d := newDock(t, func(o *Options) { o.Sockets.QueueBytes = room })
		p := d.join(t)
		p.say(operating("1", "subscription { states { seq name from to conflated } }"))
		d.callsOf(t, 1)
		s := d.sockets.all()[0]
		const more = 200
		n := 0
		stall(t, d, s, func() bool {
			if n > 0 || len(s.calls) == 1 && s.calls[0].refused {
				n++
			}
			if s.closing || s.backlog() > 2*room {
				t.Fatalf("%d bytes are queued, or it is given up", s.backlog())
			}
			return n > more
		})
		last := d.journal.write("last", "", "", false)
		spared, heard := 0, 0
		for seq := 0; seq < int(last); heard++ {
			var m struct {
				Payload struct{ Data struct{ States tick } }
			}
			if err := json.Unmarshal([]byte(p.listen()), &m); err != nil || int(m.Payload.Data.States.Seq) <= seq {
				t.Fatalf("%d comes after %d, %v", m.Payload.Data.States.Seq, seq, err)
			}
			seq = int(m.Payload.Data.States.Seq)
			spared += m.Payload.Data.States.Conflated
		}
		if spared < more/2 || spared+heard != int(last) {
			t.Errorf("of %d states %d were told and %d spared", last, heard, spared)
		}
	})

	t.Run("a large result, or another subscription that catches up, makes nobody slow", func(t *testing.T) {
		t.Parallel()
		d := newDock(t, func(o *Options) { o.Sockets.QueueBytes = room })
		for range 300 {
			d.journal.write(long, "", "", false)
		}
		p := d.join(t)
		p.say(operating("live", `subscription { ticks { seq } }`))
		d.callsOf(t, 1)
		p.say(operating("result", "{ large(bytes: 3000000) }"))
		p.say(operating("past", `subscription { ticks(after: "1") { seq name } }`))
		s := d.sockets.all()[0]
		d.until(t, "the result and the past are queued", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			i := s.find("past")
			return i >= 0 && s.calls[i].refused && s.queued[results] > 1_000_000
		})
		for range 50 {
			d.journal.write("now", "", "", false)
			d.quiet(t)
		}
		live, past := 0, 1
		for result := false; live < 50 || past < 350 || !result; {
			var m said
			if text := p.listen(); json.Unmarshal([]byte(text), &m) != nil {
				t.Fatalf("the client hears %.100s", text)
			}
			switch {
			case m.ID == "live":
				live++
				if got := seqOf(t, m); got != 300+live {
					t.Fatalf("event %d is %d", live, got)
				}
			case m.ID == "past":
				past++
				if got := seqOf(t, m); got != past {
					t.Fatalf("%d comes instead of %d", got, past)
				}
			case m.Type == "complete":
				result = true
			}
		}
	})

	t.Run("results wait too", func(t *testing.T) {
		t.Parallel()
		d := newDock(t, func(o *Options) { o.Sockets.QueueBytes = room })
		p := d.join(t)
		for i := range 40 {
			p.say(operating(fmt.Sprint(i), "{ large(bytes: 100000) }"))
		}
		s := d.sockets.all()[0]
		d.until(t, "all have run", func() bool { return d.runs.Load() == 40 })
		d.until(t, "some wait", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.backlog() > room+200_000 {
				t.Fatalf("%d bytes are queued", s.backlog())
			}
			return slices.ContainsFunc(s.calls, func(c *call) bool { return c.refused })
		})
		completed := map[string]bool{}
		for range 80 {
			var m said
			if text := p.listen(); json.Unmarshal([]byte(text), &m) != nil {
				t.Fatalf("the client hears %.100s", text)
			}
			if m.Type == "complete" {
				completed[m.ID] = true
			} else if m.Type != "next" || completed[m.ID] || len(m.Payload) < 100_000 {
				t.Fatalf("%s of %s comes, with %d bytes", m.Type, m.ID, len(m.Payload))
			}
		}
		if len(completed) != 40 {
			t.Errorf("%d are complete", len(completed))
		}
		p.lives()
	})
}
