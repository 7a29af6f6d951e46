package engine

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"
)

// An outbox is the write side of a socket. Whoever has something to say writes it himself, as
// far as the kernel takes it at once; the rest is queued, and a goroutine that lives as long
// as the queue writes it when the client reads. So nobody waits for a client, and a client
// that keeps up costs neither a goroutine nor a copy that is kept.
type outbox struct {
	mu       sync.Mutex
	raw      syscall.RawConn // nil when the connection is more than a file descriptor
	queue    []frame
	queued   [kinds]int // bytes in the queue
	sent     int        // of the first frame in the queue
	held     int        // bytes from the beginning of the queue that must stay in it
	draining bool

	closing bool // nothing more is queued
	told    bool // the close frame has been written
	code    int
	until   time.Time // when to stop trying to write the close frame
}

// Kinds of frames. Each has a bound of its own: with one for all, a client that asks for a large
// result would be slow for its subscriptions.
const (
	answers = iota // that cannot wait
	results        // of queries and mutations
	updates        // of subscriptions
	kinds
)

// A frame is one websocket frame: a message to a call's subscriber, whose bytes are those of
// many, or bytes that are complete.
type frame struct {
	call *call
	msg  *message
	raw  []byte
}

// Source: RFC 6455, section 5.2.
const (
	finalFrame = 0x80
	frameText  = 0x1
	frameClose = 0x8
	framePing  = 0x9
	framePong  = 0xA
	maxHeader  = 10
	maxControl = 125
)

// appendHeader begins a frame of n bytes.
func appendHeader(b []byte, kind byte, n int) []byte {
	switch b = append(b, finalFrame|kind); {
	case n < 126:
		return append(b, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
}

func headerSize(n int) int {
	switch {
	case n < 126:
		return 2
	case n < 1<<16:
		return 4
	default:
		return maxHeader
	}
}

func textFrame(text []byte) frame {
	return frame{raw: append(appendHeader(make([]byte, 0, maxHeader+len(text)), frameText, len(text)), text...)}
}

func controlFrame(kind byte, payload []byte) frame {
	return frame{raw: append(appendHeader(nil, kind, len(payload)), payload...)}
}

// closeFrame cuts the reason to what fits, at a border of characters.
func closeFrame(code int, reason string) frame {
	if code == closeNoStatus {
		return controlFrame(frameClose, nil)
	}
	return controlFrame(frameClose, append(binary.BigEndian.AppendUint16(nil, uint16(code)), cut(reason, maxControl-2)...))
}

// cut shortens s to n bytes at most, at a border of characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// size is how many bytes the frame has.
func (f *frame) size() int {
	if f.call == nil {
		return len(f.raw)
	}
	n := len(f.call.prefix) + len(f.msg.payload) + len(suffix)
	return headerSize(n) + n
}

func (f *frame) kind() int {
	switch {
	case f.call == nil:
		return answers
	case f.call.single:
		return results
	default:
		return updates
	}
}

// suffix ends a message that began with a call's prefix.
var suffix = []byte("}")

// appendFrom appends the frame from its byte skip on, as far as b has room.
func (f *frame) appendFrom(b []byte, skip int) []byte {
	if f.call == nil {
		return fill(b, f.raw, &skip)
	}
	var h [maxHeader]byte
	header := appendHeader(h[:0], frameText, len(f.call.prefix)+len(f.msg.payload)+len(suffix))
	b = fill(b, header, &skip)
	b = fill(b, f.call.prefix, &skip)
	b = fill(b, f.msg.payload, &skip)
	return fill(b, suffix, &skip)
}

func fill(b, part []byte, skip *int) []byte {
	n := min(*skip, len(part))
	*skip -= n
	part = part[n:]
	return append(b, part[:min(len(part), cap(b)-len(b))]...)
}

// A batch is what is written with one system call. Frames are copied into it: for 32 messages of
// 400 bytes that takes half the time of a list of their parts, for 2 KB the same. Only a single
// one of 60 KB would be better off with the list.
type batch struct {
	b     []byte
	queue []frame // an empty one to begin with
	of    *socket
	write func(fd uintptr) bool // kept, because a new one for each write costs
}

// batchBytes is as much as is written at once. More would only wait for the kernel.
const batchBytes = 64 << 10

var batches = sync.Pool{New: func() any {
	b := &batch{b: make([]byte, 0, batchBytes)}
	b.write = func(fd uintptr) bool {
		b.of.write(fd, b)
		return true // whatever there is left: net would wait
	}
	return b
}}

// use has the outbox write to a connection.
func (s *socket) use(c net.Conn) {
	s.conn = c
	if c, ok := c.(syscall.Conn); ok {
		s.raw, _ = c.SyscallConn() // nil is as good as none
	}
}

// compose begins to queue frames, which add and push continue. The outbox is locked.
func (s *socket) compose() *batch {
	if s.raw == nil || s.draining {
		return nil
	}
	b := batches.Get().(*batch)
	s.queue = b.queue[:0]
	return b
}

// push writes what can be written of what was queued since compose.
func (s *socket) push(b *batch) {
	if b != nil {
		all := s.queue
		s.flush(b)
		if len(s.queue) > 0 {
			b.queue = nil
		} else {
			clear(all)
			b.queue, s.queue = all, nil
		}
		batches.Put(b)
	}
	if len(s.queue) > 0 && !s.draining {
		s.draining = true
		s.sockets.work.Add(1)
		go s.drain()
	}
}

// add queues a frame, between compose and push.
func (s *socket) add(f frame) {
	s.queue = append(s.queue, f)
	s.count(&f, f.size())
}

func (s *socket) count(f *frame, bytes int) {
	s.queued[f.kind()] += bytes
	if f.call != nil {
		f.call.queued += bytes
	}
}

// put queues a frame, and writes it if it can be.
func (s *socket) put(f frame) {
	b := s.compose()
	s.add(f)
	s.push(b)
}

// full reports whether a call with more to say has to wait. A result waits for others. A
// subscription that has nothing in the queue is never refused, and one of several may have half
// the queue: one that reads much at its beginning must not make another look slow.
func (s *socket) full(c *call, size int) bool {
	limit := s.sockets.limits.QueueBytes
	if c.single {
		return s.queued[results] > 0 && s.queued[results]+size > limit
	}
	share := limit
	if len(s.calls) > 1 {
		share /= 2
	}
	return c.queued > 0 && (c.queued+size > share || s.queued[updates]+size > limit)
}

// answer is put of something that cannot wait. A client that asks and does not read is slow.
// The outbox is locked.
func (s *socket) answer(f frame) {
	if s.closing {
		return
	}
	if s.queued[answers]+f.size() > s.sockets.limits.QueueBytes {
		s.sockets.work.Go(s.giveUp)
		return
	}
	s.put(f)
}

// reply is answer without the lock.
func (s *socket) reply(f frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer(f)
}

// flush writes as much of the queue as the kernel takes at once.
func (s *socket) flush(b *batch) {
	b.of = s
	if err := s.raw.Write(b.write); err != nil {
		s.fail()
	}
	b.of = nil
	if s.told {
		s.hangUp()
	}
}

// write is flush with the file descriptor. It reports whether anything was written.
func (s *socket) write(fd uintptr, b *batch) (progress bool) {
	for len(s.queue) > 0 {
		s.render(b)
		n, err := syscall.Write(int(fd), b.b)
		switch {
		case err == nil:
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			return progress
		default:
			s.fail()
			return true
		}
		progress = true
		if s.advance(n); n < len(b.b) {
			return true // the next try would fail
		}
	}
	return true
}

// render fills the batch from the beginning of the queue.
func (s *socket) render(b *batch) {
	b.b = b.b[:0]
	skip := s.sent
	for i := range s.queue {
		b.b = s.queue[i].appendFrom(b.b, skip)
		if skip = 0; len(b.b) == cap(b.b) {
			return
		}
	}
}

// advance takes from the queue what has been written.
func (s *socket) advance(n int) {
	n += s.sent
	for len(s.queue) > 0 && !s.told {
		f := &s.queue[0]
		size := f.size()
		if n < size {
			break
		}
		n -= size
		s.count(f, -size)
		if f.call != nil {
			f.call.written = f.msg.at
		} else {
			s.told = f.raw[0] == finalFrame|frameClose
		}
		*f = frame{}
		s.queue = s.queue[1:]
	}
	if len(s.queue) == 0 || s.told {
		s.queue, s.queued, n = nil, [kinds]int{}, 0
	}
	s.sent, s.held = n, n
}

// drain writes the queue when the client reads, until it is empty.
func (s *socket) drain() {
	defer s.sockets.work.Done()
	s.mu.Lock()
	for len(s.queue) > 0 {
		until := s.until
		if !s.closing {
			until = time.Now().Add(s.sockets.limits.WriteTimeout)
		}
		_ = s.conn.SetWriteDeadline(until)
		switch err := s.wait(); {
		case err == nil, len(s.queue) == 0:
		case !errors.Is(err, os.ErrDeadlineExceeded), s.closing && !time.Now().Before(s.until):
			s.fail()
		case !s.closing:
			s.mu.Unlock()
			s.giveUp()
			s.mu.Lock()
		}
	}
	_ = s.conn.SetWriteDeadline(time.Time{})
	s.draining = false
	var waiting []*call
	for _, c := range s.calls {
		if c.refused {
			c.refused = false
			waiting = append(waiting, c)
		}
	}
	told := s.told
	s.mu.Unlock()
	if told {
		s.hangUp()
	}
	for _, c := range waiting {
		c.drained()
	}
}

// wait writes some of the queue as soon as the client makes room. The lock is not held
// meanwhile.
func (s *socket) wait() error {
	if s.raw == nil {
		b := batches.Get().(*batch)
		defer batches.Put(b)
		s.render(b)
		s.held = s.sent + len(b.b)
		s.mu.Unlock()
		n, err := s.conn.Write(b.b)
		s.mu.Lock()
		s.advance(n)
		if n > 0 && errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil // it is slow, and reads
		}
		return err
	}
	s.mu.Unlock()
	defer s.mu.Lock()
	return s.raw.Write(func(fd uintptr) bool { // it has no batch while it waits
		b := batches.Get().(*batch)
		defer batches.Put(b)
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.write(fd, b)
	})
}

// freeze has nothing more queued but a close frame, and without flush keeps of the queue only
// what has begun, which the client will have when it reads that frame. It is locked.
func (s *socket) freeze(code int, until time.Time, flush bool) {
	s.closing, s.code, s.until = true, code, until
	if !flush {
		s.strip(func(*frame) bool { return true })
		for _, f := range s.queue {
			if f.call != nil {
				f.call.written = f.msg.at
			}
		}
	}
	if s.draining {
		_ = s.conn.SetWriteDeadline(until)
	}
}

// strip takes frames from the queue that have not begun to be written.
func (s *socket) strip(which func(*frame) bool) {
	end, kept := 0, s.queue[:0]
	for i := range s.queue {
		size := s.queue[i].size()
		if end >= s.held && which(&s.queue[i]) {
			s.count(&s.queue[i], -size)
			continue
		}
		end += size
		kept = append(kept, s.queue[i])
	}
	clear(s.queue[len(kept):])
	s.queue = kept
}

// fail gives the connection up: the reader ends it.
func (s *socket) fail() {
	s.closing = true
	s.queue, s.queued, s.sent, s.held = nil, [kinds]int{}, 0, 0
	_ = s.conn.SetDeadline(time.Unix(1, 0))
}

// hangUp follows a close frame. It is the client that closes, or the reader after a time:
// whoever closes first with something unread takes from the other what is on its way.
func (s *socket) hangUp() {
	_ = s.conn.SetReadDeadline(time.Now().Add(closeWait))
	if c, ok := s.conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}
