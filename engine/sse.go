package engine

import (
	"bytes"
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/openvantage/vantage/fault"
)

const (
	// keepAlive is how often something is sent, for proxies drop what is silent.
	// Source: graphql-sse, whose server does so.
	keepAlive = 12 * time.Second
	// streamPart is what a reader must take within SocketLimits.WriteTimeout. Our decision: any link
	// that can be used does.
	streamPart = 32 << 10
)

// A stream is an answer as server-sent events, one operation on each connection: `next` for each
// result, then `complete`. It is the sink of a subscription.
//
// A stream that ends without `complete` was cut off, and the client comes back, with the cursor of
// what it got last: so end the streams of a server that stops, and of readers who cannot keep up,
// since events have no code to say it with. Streams are not compressed: each event would have to be
// flushed, for little, and the payload of a mutation may hold a secret.
//
// Source: graphql-sse, PROTOCOL.md, distinct connections mode.
type stream struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	wake chan struct{} // something is to be done; has one place

	writeTimeout time.Duration
	queueBytes   int

	mu      sync.Mutex
	queue   []*message
	bytes   int           // of the queue, and of what is being written
	refused bool          // the subscription waits for room
	over    bool          // nothing more is taken
	errs    gqlerror.List // to say before completing
	cut     bool          // end without completing
}

// serveEvents answers with a stream. What is wrong with the document or its variables is an event
// as well, as the protocol has it: a browser's EventSource tells its page nothing of other responses.
func (e *Engine) serveEvents(w http.ResponseWriter, r *http.Request, req *Request) {
	ctx := r.Context()
	release, err := e.sockets.admit(e.opt.Caller(ctx).Payer)
	if err != nil {
		e.opt.Refuse(w, r, 0, err)
		return
	}
	defer release()
	op, errs := e.prepare(ctx, req)
	if code, _ := told(errs); code == fault.RateLimited { // no event: the client should come back later
		e.fail(w, r, plainJSON, errs)
		return
	}
	if errs == nil {
		if !e.permit(w, r, eventStream, op) {
			return
		}
		announce(w.Header(), op.price.balance)
	}
	s := newStream(w, e.opt.Sockets)
	if !s.begin(r) {
		return
	}
	if errs == nil && op.Operation.Operation == ast.Subscription && !op.estimate {
		sub := e.newSubscription(ctx, op, s)
		sub.start() //nolint:contextcheck // it has the context
		defer sub.stop()
		s.run(ctx, e.open, sub.drained)
		return
	}
	if errs == nil {
		s.send([]*message{{payload: e.answer(ctx, op).append(nil)}})
	}
	s.end(errs)
	s.forward(nil)
}

func newStream(w http.ResponseWriter, l SocketLimits) *stream {
	return &stream{w: w, rc: http.NewResponseController(w), wake: make(chan struct{}, 1), writeTimeout: l.WriteTimeout, queueBytes: l.QueueBytes}
}

// begin sends the headers, so that the client knows that it is heard.
func (s *stream) begin(r *http.Request) bool {
	h := s.w.Header()
	h["Content-Type"], h["Cache-Control"] = contentTypes[eventStream], noStore
	h.Set("X-Accel-Buffering", "no") // of nginx, which would keep events back
	if r.ProtoMajor == 1 {
		h.Set("Connection", "close") // the deadlines of a stream are not for what would follow it
	}
	s.w.WriteHeader(http.StatusOK)
	return s.write(comment) && s.flush() // some browsers wait for a first byte
}

var (
	comment  = []byte(":\n\n")
	next     = []byte("event: next\ndata: ")
	dataLine = []byte("\ndata: ")
	eventEnd = []byte("\n\n")
	complete = []byte("event: complete\ndata: \n\n")
)

// run writes what a subscription sends, until the stream is over or a context ends. Room is called when a
// refused subscription has room again.
func (s *stream) run(client, server context.Context, room func()) {
	defer s.close()
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	for {
		select {
		case <-client.Done():
			return
		case <-server.Done():
			return
		case <-alive.C:
			if !s.write(comment) || !s.flush() {
				return
			}
		case <-s.wake:
			if done := s.forward(room); done {
				return
			}
		}
	}
}

// forward writes what waits. It reports true at the end of the stream, after which nobody waits
// for room.
func (s *stream) forward(room func()) bool {
	s.mu.Lock()
	queue, over, cut, errs := s.queue, s.over, s.cut, s.errs
	s.queue = nil
	s.mu.Unlock()
	if cut {
		return true
	}
	size := 0
	for _, m := range queue {
		size += len(m.payload)
		if !s.event(m.payload) {
			return true
		}
	}
	if over {
		if len(errs) > 0 && !s.event(response{errors: errs}.append(nil)) {
			return true
		}
		_ = s.write(complete) && s.flush()
		return true
	}
	if !s.flush() {
		return true
	}
	s.mu.Lock()
	s.bytes -= size
	refused := s.refused
	s.refused = false
	s.mu.Unlock()
	if refused {
		room()
	}
	return false
}

// event writes one result. A raw body in it may have line ends, which JSON allows between its
// parts: there the data goes on in another line.
func (s *stream) event(payload []byte) bool {
	if !s.write(next) {
		return false
	}
	for {
		i := bytes.IndexAny(payload, "\r\n")
		if i < 0 {
			return s.write(payload) && s.write(eventEnd)
		}
		if !s.write(payload[:i]) || !s.write(dataLine) {
			return false
		}
		payload = payload[i+1:]
	}
}

// write gives the reader a bounded time for each part, so that who has stopped holds nothing
// for ever, and who is slow may have much.
func (s *stream) write(b []byte) bool {
	for len(b) > 0 {
		part := b[:min(len(b), streamPart)]
		if s.rc.SetWriteDeadline(time.Now().Add(s.writeTimeout)) != nil {
			return false
		}
		if _, err := s.w.Write(part); err != nil {
			return false
		}
		b = b[len(part):]
	}
	return true
}

func (s *stream) flush() bool { return s.rc.Flush() == nil }

// close has the stream take nothing more.
func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue, s.over = nil, true
}

// send takes messages to write. One is taken whatever its size, if nothing else waits.
func (s *stream) send(msgs []*message) bool {
	size := 0
	for _, m := range msgs {
		size += len(m.payload)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over: // nobody will miss them
		return true
	case s.bytes > 0 && s.bytes+size > s.queueBytes:
		s.refused = true
		return false
	}
	s.queue = append(s.queue, msgs...)
	s.bytes += size
	s.signal()
	return true
}

// end completes the stream, after an event with the errors if there are any.
func (s *stream) end(errs gqlerror.List) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.over, s.errs = true, errs
		s.signal()
	}
}

// slow ends the stream without completing it.
func (s *stream) slow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue, s.over, s.cut = nil, true, true
	s.signal()
}

func (s *stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
