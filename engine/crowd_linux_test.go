package engine

import (
	"bytes"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A crowd is many clients that cost next to nothing: file descriptors without anything of Go's,
// and one goroutine that reads from those that have something and throws it away.
type crowd struct {
	fds  []int
	poll int
	read atomic.Int64 // bytes
	done chan struct{}
}

// gather connects n clients whose sockets get what each of them says.
func gather(tb testing.TB, address string, n int, says ...string) *crowd {
	tb.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		tb.Fatal(err)
	}
	to := &syscall.SockaddrInet4{}
	copy(to.Addr[:], net.ParseIP(host).To4())
	to.Port, _ = strconv.Atoi(port)
	c := &crowd{done: make(chan struct{})}
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	c.poll, err = syscall.EpollCreate1(0)
	must(err)
	for range n {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
		must(err)
		c.fds = append(c.fds, fd)
		must(syscall.Connect(fd, to))
		_, err = syscall.Write(fd, []byte(handshake+offer+"\r\n"))
		must(err)
		await(tb, fd, "\r\n\r\n")
		for _, text := range says {
			_, err = syscall.Write(fd, masked(finalFrame|frameText, []byte(text)))
			must(err)
		}
	}
	tb.Cleanup(func() {
		c.leave()
		for _, fd := range c.fds {
			syscall.Close(fd)
		}
	})
	return c
}

// await reads until something has been said.
func await(tb testing.TB, fd int, what string) {
	tb.Helper()
	var all []byte
	b := make([]byte, 512)
	for !bytes.Contains(all, []byte(what)) {
		n, err := syscall.Read(fd, b)
		if err != nil || n == 0 {
			tb.Fatalf("%q is all that was said, %v", all, err)
		}
		all = append(all, b[:n]...)
	}
}

// listen has the crowd read until it leaves.
func (c *crowd) listen(tb testing.TB) {
	tb.Helper()
	for i, fd := range c.fds {
		if err := syscall.SetNonblock(fd, true); err != nil {
			tb.Fatal(err)
		}
		e := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(i)}
		if err := syscall.EpollCtl(c.poll, syscall.EPOLL_CTL_ADD, fd, &e); err != nil {
			tb.Fatal(err)
		}
	}
	go func() {
		defer close(c.done)
		ready := make([]syscall.EpollEvent, 256)
		b := make([]byte, 64<<10)
		for {
			n, err := syscall.EpollWait(c.poll, ready, 100)
			if err != nil && err != syscall.EINTR {
				return
			}
			for _, e := range ready[:max(0, n)] {
				if n, _ := syscall.Read(c.fds[e.Fd], b); n > 0 {
					c.read.Add(int64(n))
				}
			}
		}
	}()
}

func (c *crowd) leave() {
	if c.poll > 0 {
		syscall.Close(c.poll)
		c.poll = 0
	}
}

// resident is the heap and the stacks in use, after what is not needed has gone.
func resident() int {
	var m runtime.MemStats
	for range 6 { // stacks shrink by half each time, and pools are emptied
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int(m.HeapInuse + m.StackInuse)
}

// BenchmarkIdleSocket measures what a socket with one subscription, to which nothing happens,
// has of the server's heap and stacks. The clients are in the same process and have neither.
func BenchmarkIdleSocket(b *testing.B) {
	d := newDock(b, nil)
	warm := gather(b, d.address, 50, `{"type":"connection_init"}`, operating("9bd4a1a6-3a63-4d5c-a3a5-2f1f9d6f5a5e", ticksDocument))
	d.callsOf(b, 50)
	before := resident()
	const n = 2000
	crowd := gather(b, d.address, n, `{"type":"connection_init"}`, operating("9bd4a1a6-3a63-4d5c-a3a5-2f1f9d6f5a5e", ticksDocument))
	d.callsOf(b, n+50)
	for b.Loop() {
		var m runtime.MemStats
		after := resident()
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(after-before)/n, "bytes/socket")
		b.ReportMetric(float64(m.StackInuse)/n, "stack-bytes/socket")
	}
	_, _ = warm, crowd
}

func BenchmarkDeliverSingle(b *testing.B) { benchmarkDeliver(b, 1) }
func BenchmarkDeliverBurst(b *testing.B)  { benchmarkDeliver(b, 32) }

// benchmarkDeliver measures the time that the sender of messages spends for each of them and
// each of 500 subscribers, over loopback, where that includes what the kernel does to put it
// into the reader's buffer. The readers are read by another goroutine.
func benchmarkDeliver(b *testing.B, burst int) {
	b.Helper()
	d := newDock(b, func(o *Options) { o.Sockets.PingEvery = time.Hour })
	const n = 500
	crowd := gather(b, d.address, n, `{"type":"connection_init"}`, operating("9bd4a1a6-3a63-4d5c-a3a5-2f1f9d6f5a5e", ticksDocument))
	calls := d.callsOf(b, n)
	crowd.listen(b)
	payload := []byte(fmt.Sprintf(`{"data":{"ticks":{"name":"%0350d"}}}`, 1))
	msgs := make([]*message, burst)
	for i := range msgs {
		msgs[i] = &message{payload: payload, at: Position{Seq: int64(i + 1)}}
	}
	b.ReportAllocs()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadTime(b)
	for b.Loop() {
		for _, c := range calls {
			for !c.send(msgs) {
				runtime.Gosched()
			}
		}
	}
	b.ReportMetric(float64(threadTime(b)-before)/float64(b.N*n*burst), "cpu-ns/message")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n*burst), "ns/message")
}

// threadTime is how much of a processor this thread has had.
func threadTime(tb testing.TB) time.Duration {
	tb.Helper()
	const rusageThread = 1
	var u syscall.Rusage
	if err := syscall.Getrusage(rusageThread, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestCrowd is alone: it measures memory and latency.
func TestCrowd(t *testing.T) { //nolint:paralleltest // see above
	t.Run("two thousand sockets that never initialise are closed, and leave nothing", func(t *testing.T) { //nolint:paralleltest // see above
		const n = 2000
		d := newDock(t, func(o *Options) {
			o.Sockets.InitTimeout = 2 * time.Second // or some would be closed before the others come
			o.Sockets.PendingPerSource = n
		})
		for round := range 2 { // what the first leaves is there for the second
			before := resident()
			c := gather(t, d.address, n)
			held := resident() - before
			for _, fd := range c.fds {
				await(t, fd, "\x11\x38Connection initialisation timeout") // 4408
			}
			for range n {
				select {
				case code := <-d.ended:
					if code != closeInitTimeout {
						t.Fatalf("one ended with %d", code)
					}
				case <-time.After(patience):
					t.Fatal("not all have ended")
				}
			}
			d.until(t, "all are gone", func() bool { return len(d.sockets.all()) == 0 })
			left := resident() - before
			t.Logf("a socket that waits has %d bytes, and leaves %d", held/n, left/n)
			if held/n > 12<<10 || round > 0 && left/n > 512 {
				t.Errorf("a socket that waits has %d bytes, and leaves %d", held/n, left/n)
			}
		}
	})

	t.Run("readers who stop cost no others time, and the server no memory without bound", func(t *testing.T) { //nolint:paralleltest // see above
		const room, stalled, events = 64 << 10, 50, 300
		d := newDock(t, func(o *Options) {
			o.Sockets.QueueBytes, o.Sockets.WriteTimeout = room, time.Minute
		})
		document := operating("1", "subscription { states { seq name from to conflated } }") // which may be left out
		p := d.join(t)
		p.say(document)
		d.callsOf(t, 1)
		name := string(bytes.Repeat([]byte("x"), 10_000))
		p99 := func() time.Duration {
			took := make([]time.Duration, events)
			for i := range took {
				began := time.Now()
				seq := d.journal.write(name, "", "", false)
				for p.seq() != int(seq) {
				}
				took[i] = time.Since(began)
			}
			slices.Sort(took)
			return took[events*99/100]
		}
		alone := p99()
		before := resident()
		gather(t, d.address, stalled, `{"type":"connection_init"}`, document)
		d.callsOf(t, stalled+1)
		among := p99()
		for tries := 1; tries < 5 && among > 3*alone+100*time.Millisecond; tries++ { // the machine's other work is measured, too
			among = min(among, p99())
		}
		queued := 0
		for _, s := range d.sockets.all() {
			s.mu.Lock()
			queued = max(queued, s.backlog())
			if s.closing {
				t.Errorf("one was closed with %d", s.code)
			}
			s.mu.Unlock()
		}
		held := resident() - before
		t.Logf("99 of 100 events came within %v, and within %v among %d stalled readers, for each of whom at most %d bytes were queued and %d held",
			alone, among, stalled, queued, held/stalled)
		if queued < room/2 || queued > room+2*len(name)+1000 {
			t.Errorf("%d bytes are queued", queued)
		}
		if among > 3*alone+100*time.Millisecond {
			t.Errorf("events came within %v, and within %v among stalled readers", alone, among)
		}
		if held/stalled > 2*room {
			t.Errorf("a stalled reader holds %d bytes", held/stalled)
		}
	})
}
