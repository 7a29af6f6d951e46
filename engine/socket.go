package engine

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/openvantage/vantage/fault"
)

// SocketLimits bounds what websockets may take. A zero is the default. Our decisions, but for
// those with a source.
type SocketLimits struct {
	// MessageBytes is the largest message from a client. Default 64 KiB.
	MessageBytes int
	// InitTimeout is how long a client may wait with its connection_init, and take to send any
	// message whose beginning has arrived. Default 10 s.
	InitTimeout time.Duration
	// PingEvery is the time between our pings. A socket from which nothing comes for 2.5 times
	// that is dead, whatever TCP says. Default 20 s.
	PingEvery time.Duration
	// WriteTimeout is how long a client may take nothing of what waits for it. Default 10 s.
	WriteTimeout time.Duration
	// QueueBytes is how much waits for a client that has not kept up: of what its subscriptions
	// tell, and as much again of results, and of answers. Default 256 KiB.
	QueueBytes int
	// Operations is how many may run at a time on one socket. Default 50.
	Operations int
	// MessageBurst is how many messages, pings and pongs a client may send at once, and
	// MessagesPerSecond how many in the long run. Defaults 200 and 50.
	MessageBurst, MessagesPerSecond int
	// Total bounds the sockets and event streams of this process, and PerPayer those of one
	// payer. Defaults 20,000 and 12,000.
	Total, PerPayer int
	// Pending bounds the sockets that have not sent their connection_init, and PendingPerSource
	// those of one payer, as known by the request alone. Defaults 5,000 and 1,000.
	Pending, PendingPerSource int
}

func (l SocketLimits) orDefault() SocketLimits {
	return SocketLimits{
		MessageBytes: cmp.Or(l.MessageBytes, 64<<10), InitTimeout: cmp.Or(l.InitTimeout, 10*time.Second),
		PingEvery: cmp.Or(l.PingEvery, 20*time.Second), WriteTimeout: cmp.Or(l.WriteTimeout, 10*time.Second),
		QueueBytes: cmp.Or(l.QueueBytes, 256<<10), Operations: cmp.Or(l.Operations, 50),
		MessageBurst: cmp.Or(l.MessageBurst, 200), MessagesPerSecond: cmp.Or(l.MessagesPerSecond, 50),
		Total: cmp.Or(l.Total, 20_000), PerPayer: cmp.Or(l.PerPayer, 12_000),
		Pending: cmp.Or(l.Pending, 5_000), PendingPerSource: cmp.Or(l.PendingPerSource, 1_000),
	}
}

const (
	// closeWait is how long a client may take to read why its socket ends, and to end it.
	closeWait = time.Second
	// lingerBytes is how much more is read of a client that was told to go. Closing before it is
	// read would take the reason from the client as well.
	lingerBytes = 1 << 20
	// sendBuffer bounds what the kernel keeps for a reader that has stopped; it takes twice that.
	sendBuffer = 128 << 10
)

// sockets has the websockets of an engine, and counts the event streams with them.
type sockets struct {
	engine   *Engine
	limits   SocketLimits
	upgrader websocket.Upgrader
	work     sync.WaitGroup // goroutines of sockets

	mu        sync.Mutex
	open      map[*socket]struct{}
	places    int
	payers    map[string]int
	pending   int
	pendingOf map[string]int
	closing   bool
}

func (s *sockets) init(e *Engine) {
	e.opt.Sockets = e.opt.Sockets.orDefault()
	s.engine, s.limits = e, e.opt.Sockets
	s.open, s.payers, s.pendingOf = map[*socket]struct{}{}, map[string]int{}, map[string]int{}
	s.upgrader = newUpgrader(e)
}

var (
	errStopping = fault.New(fault.Unavailable, "The server is restarting. Connect again.").After(time.Second)
	errFull     = fault.New(fault.Unavailable, "There are too many connections. Try again later.").After(30 * time.Second)
	errCrowd    = fault.New(fault.RateLimited, "You have too many connections. Close some, or try again later.").After(30 * time.Second)
)

// enter takes a place for a socket that has not said yet whose it is.
func (s *sockets) enter(source string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing:
		return errStopping
	case s.places >= s.limits.Total, s.pending >= s.limits.Pending:
		return errFull
	case s.pendingOf[source] >= s.limits.PendingPerSource:
		return errCrowd
	}
	s.places++
	s.pending++
	s.pendingOf[source]++
	s.work.Add(1)
	return nil
}

// exit gives up the place of a socket.
func (s *sockets) exit(k *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, k)
	s.places--
	if k.ready {
		forget(s.payers, k.payer)
	} else {
		s.pending--
		forget(s.pendingOf, k.source)
	}
	s.work.Done()
}

// charge counts a place to a payer.
func (s *sockets) charge(payer string) error {
	if s.payers[payer] >= s.limits.PerPayer {
		return errCrowd
	}
	s.payers[payer]++
	return nil
}

// admit takes a place for an event stream until release. It fails with RATE_LIMITED when the
// payer has too many, and with UNAVAILABLE when all have or the engine is closing.
func (s *sockets) admit(payer Payer) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing:
		return nil, errStopping
	case s.places >= s.limits.Total:
		return nil, errFull
	}
	if err := s.charge(payer.Key); err != nil {
		return nil, err
	}
	s.places++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.places--
		forget(s.payers, payer.Key)
	}, nil
}

func forget(counts map[string]int, key string) {
	if counts[key]--; counts[key] == 0 {
		delete(counts, key)
	}
}

// all is the sockets as they are now.
func (s *sockets) all() []*socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*socket, 0, len(s.open))
	for k := range s.open {
		out = append(out, k)
	}
	return out
}

// Run looks after websockets until ctx ends: it closes those that do not initialise, pings the
// others, and finds those that are gone without a word.
func (e *Engine) Run(ctx context.Context) error {
	l := e.sockets.limits
	tick := time.NewTicker(min(time.Second, max(time.Millisecond, min(l.InitTimeout, l.PingEvery)/10)))
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			for _, s := range e.sockets.all() {
				s.inspect(now)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// Close stops the engine. New sockets are refused. Operations that run on sockets may finish
// and what is queued may be read until ctx ends, and each socket is told to come back; after
// ctx, within a second. Then executions end. It fails when something did not end by then.
func (e *Engine) Close(ctx context.Context) error {
	s := &e.sockets
	defer e.stop()
	e.leave() // event streams end, and their clients come back as well
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	until, ok := ctx.Deadline()
	if !ok {
		until = time.Now().Add(s.limits.WriteTimeout)
	}
	for _, k := range s.all() {
		k.restart(until)
	}
	ended := make(chan struct{})
	go func() {
		s.work.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	e.stop()
	for _, k := range s.all() {
		k.shut(closeRestart, reasonRestart)
	}
	late := time.NewTimer(closeWait)
	defer late.Stop()
	select {
	case <-ended:
		return nil
	case <-late.C:
	}
	for _, k := range s.all() {
		k.abandon()
	}
	late.Reset(closeWait)
	select {
	case <-ended:
		return nil
	case <-late.C:
		return errors.New("operations on websockets do not end although they were told to")
	}
}

// A socket is one websocket. Of its own it has one goroutine, which reads; net/http's is gone.
type socket struct {
	sockets *sockets
	conn    net.Conn
	web     *websocket.Conn // reads; nothing is written through it
	source  string          // who asked for the upgrade
	closed  func(code int)  // of the meter
	opened  time.Time
	pinged  time.Time // of Run alone

	heard atomic.Int64 // when anything came last, in Unix nanoseconds
	begun atomic.Int64 // when the message began that is not complete; 0 for none

	// Of the reader alone.
	ctx      context.Context // of operations
	payer    string
	credit   float64 // messages it may send at credited
	credited time.Time
	unread   int // bytes that came since the last message

	outbox
	calls   []*call // that run, for the client
	orphans int     // calls that the client has left and that run still
	running int     // goroutines of calls
	ready   bool    // it is initialised
	leaving bool    // it ends when no call runs
}

// start serves the socket after its upgrade.
func (s *socket) start() {
	if t, ok := s.conn.(*net.TCPConn); ok {
		_ = t.SetWriteBuffer(sendBuffer) // without it there is more in the kernel
	}
	now := time.Now()
	s.opened, s.pinged, s.credited, s.credit = now, now, now, float64(s.sockets.limits.MessageBurst)
	s.heard.Store(now.UnixNano())
	s.closed = s.sockets.engine.opt.Meter.SocketOpened()
	all := s.sockets
	all.mu.Lock()
	all.open[s] = struct{}{}
	closing := all.closing
	all.mu.Unlock()
	go s.read()
	if closing { // Close has not seen it
		s.shut(closeRestart, reasonRestart)
	}
}

// read reads until the client leaves or has to.
func (s *socket) read() {
	defer s.end()
	for {
		kind, r, err := s.web.NextReader()
		if err == nil {
			err = s.take(kind, r)
		}
		if err == nil {
			continue
		}
		if errors.Is(err, websocket.ErrReadLimit) {
			s.shut(closeTooBig, reasonTooBig)
		}
		break
	}
	s.mu.Lock()
	closing := s.closing
	s.mu.Unlock()
	if closing {
		_, _ = io.CopyN(io.Discard, s.conn, lingerBytes) // until it closes, or the time is over
	}
}

var messages = sync.Pool{New: func() any { return new(messageBuffer) }}

type messageBuffer struct{ b []byte }

// take reads one message and does what it says.
func (s *socket) take(kind int, r io.Reader) error {
	s.begun.Store(time.Now().UnixNano())
	defer s.begun.Store(0)
	m := messages.Get().(*messageBuffer)
	defer messages.Put(m)
	m.b = m.b[:0]
	for {
		if len(m.b) == cap(m.b) {
			m.b = append(m.b, make([]byte, max(512, len(m.b)))...)[:len(m.b)]
		}
		n, err := r.Read(m.b[len(m.b):cap(m.b)])
		m.b = m.b[:len(m.b)+n]
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	s.begun.Store(0)
	s.unread = 0
	if err := s.spend(); err != nil {
		return err
	}
	s.receive(kind, m.b)
	return nil
}

var errFlood = errors.New("the client sends too many messages")

// spend counts a message, ping or pong of the client. It fails when there are too many.
func (s *socket) spend() error {
	now, l := time.Now(), &s.sockets.limits
	s.credit += now.Sub(s.credited).Seconds() * float64(l.MessagesPerSecond)
	s.credit = min(s.credit, float64(l.MessageBurst)) - 1
	s.credited = now
	if s.credit < 0 {
		s.shut(closePolicy, reasonFlood)
		return errFlood
	}
	return nil
}

// inspect does what is due at this time.
func (s *socket) inspect(now time.Time) {
	l := &s.sockets.limits
	s.mu.Lock()
	ready, closing, until := s.ready, s.closing, s.until
	s.mu.Unlock()
	begun := s.begun.Load()
	switch {
	case closing:
		if now.Sub(until) > 2*closeWait {
			s.abandon()
		}
	case now.Sub(time.Unix(0, s.heard.Load())) > 5*l.PingEvery/2:
		s.abandon()
	case !ready && now.Sub(s.opened) > l.InitTimeout:
		s.shut(closeInitTimeout, reasonInitTimeout)
	case begun != 0 && now.Sub(time.Unix(0, begun)) > l.InitTimeout:
		s.shut(closePolicy, reasonUnfinished)
	case now.Sub(s.pinged) >= l.PingEvery:
		s.pinged = now
		s.ping()
	}
}

// restart tells the client to come back, after what runs and what is queued, but not after
// until.
func (s *socket) restart(until time.Time) {
	s.mu.Lock()
	s.leaving, s.until = true, until
	idle := s.running == 0
	s.mu.Unlock()
	if idle {
		s.finish()
	}
}

// finish is shut after what is queued.
func (s *socket) finish() {
	s.mu.Lock()
	until := s.until
	s.mu.Unlock()
	s.close(closeRestart, closeFrame(closeRestart, reasonRestart), until, true)
}

// shut ends the socket now, and says why. What was queued is lost. It must not be called with
// a lock that a subscription takes.
func (s *socket) shut(code int, reason string) {
	s.close(code, closeFrame(code, reason), time.Now().Add(closeWait), false)
}

func (s *socket) close(code int, last frame, until time.Time, flush bool) {
	s.mu.Lock()
	if s.told || s.closing && (flush || s.code != closeRestart) { // a restart may lose its patience
		s.mu.Unlock()
		return
	}
	s.freeze(code, until, flush)
	s.put(last)
	calls := s.calls
	s.calls = nil
	s.mu.Unlock()
	for _, c := range calls {
		c.leave()
	}
}

// giveUp ends the socket of a client that does not read, and says from where on it missed
// something.
func (s *socket) giveUp() {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return
	}
	s.freeze(closeSlow, time.Now().Add(closeWait), false)
	calls := s.calls
	s.calls = nil
	s.mu.Unlock()
	reason, from := reasonSlow, Position{}
	for _, c := range calls {
		if cursor, at := c.resume(); cursor != "" && (reason == reasonSlow || at.Seq < from.Seq) {
			reason, from = reasonSlowAfter+cursor, at
		}
	}
	if len(reason) > maxControl-2 { // half a cursor is worse than none
		reason = reasonSlow
	}
	s.mu.Lock()
	s.put(closeFrame(closeSlow, reason))
	s.mu.Unlock()
	for _, c := range calls {
		c.leave()
	}
}

// abandon has the reader end the socket without a word.
func (s *socket) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail()
}

// end is the last that happens to a socket.
func (s *socket) end() {
	s.mu.Lock()
	s.fail()
	code := cmp.Or(s.code, closeAbnormal)
	calls := s.calls
	s.calls = nil
	s.mu.Unlock()
	_ = s.conn.Close()
	for _, c := range calls {
		c.leave()
	}
	s.closed(code)
	s.sockets.exit(s)
}

// settle counts the socket to whom it has said to belong.
func (s *socket) settle(payer string) error {
	all := s.sockets
	all.mu.Lock()
	defer all.mu.Unlock()
	if err := all.charge(payer); err != nil {
		return err
	}
	all.pending--
	forget(all.pendingOf, s.source)
	s.payer = payer
	s.mu.Lock()
	s.ready = true
	s.mu.Unlock()
	return nil
}

// A wire is the connection as gorilla/websocket sees it: what it would write of its own
// accord, which is why it stops reading, goes through the outbox like everything else.
type wire struct {
	net.Conn
	s *socket
}

// Read notes that the client lives. Fragments without content are no message and would never
// end: what comes for one message is bounded too.
func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if n > 0 {
		w.s.heard.Store(time.Now().UnixNano())
		if w.s.unread += n; w.s.unread > 2*w.s.sockets.limits.MessageBytes+len(b) {
			return 0, websocket.ErrReadLimit
		}
	}
	return n, err
}

// Write takes the answer to the upgrade, and after that close frames. That of a message over
// the limit is left to the reader, who has a reason for it.
func (w *wire) Write(b []byte) (int, error) {
	if w.s.web == nil {
		return w.Conn.Write(b)
	}
	if code := int(b[2])<<8 | int(b[3]); code != closeTooBig {
		w.s.shut(code, string(b[4:]))
	}
	return len(b), nil
}

// SetWriteDeadline is the outbox's business.
func (w *wire) SetWriteDeadline(t time.Time) error {
	if w.s.web == nil {
		return w.Conn.SetWriteDeadline(t)
	}
	return nil
}
