package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/openvantage/vantage/fault"
)

// protocol is the only one that is spoken.
//
// Source: graphql-ws, PROTOCOL.md.
const protocol = "graphql-transport-ws"

// How sockets end. The reference client connects again after 1006, 1012, 1013, 4403, 4408 and
// 4503, and gives up after the others.
//
//	code  it is closed because
//	1000  the client left; what is answered is its own code
//	1002  it broke RFC 6455: a frame without a mask, a reserved bit, a fragment of nothing
//	1006  it was gone without a word; nobody sees this code but us
//	1008  too many messages, or one that does not end
//	1009  a message over SocketLimits.MessageBytes
//	1012  the server restarts: continue with the last cursor
//	1013  too many connections, or a part of ours is down: later
//	4400  a message that the protocol does not know
//	4401  an operation before connection_ack
//	4403  connection_init was refused; the reason is the code
//	4406  no protocol of ours was offered
//	4408  no connection_init within SocketLimits.InitTimeout
//	4409  the id of an operation that runs
//	4429  a second connection_init
//	4503  the client did not read: continue with the cursor in the reason
const (
	closeNormal      = websocket.CloseNormalClosure
	closeNoStatus    = websocket.CloseNoStatusReceived
	closeAbnormal    = websocket.CloseAbnormalClosure
	closePolicy      = websocket.ClosePolicyViolation
	closeTooBig      = websocket.CloseMessageTooBig
	closeRestart     = websocket.CloseServiceRestart
	closeLater       = websocket.CloseTryAgainLater
	closeInvalid     = 4400
	closeNoAck       = 4401
	closeRefused     = 4403
	closeNoProtocol  = 4406
	closeInitTimeout = 4408
	closeDuplicate   = 4409
	closeSecondInit  = 4429
	closeSlow        = 4503
)

// What sockets are told when they end: the protocol's words where it has any, and never the
// client's.
const (
	reasonFlood       = "Too many messages"
	reasonUnfinished  = "A message took too long"
	reasonTooBig      = "Message too big"
	reasonRestart     = "Service restart"
	reasonLater       = "Try again later"
	reasonNotText     = "A message is text"
	reasonNotUTF8     = "A message is UTF-8 without lone surrogates"
	reasonNotObject   = "A message is a JSON object"
	reasonType        = "The type of the message is unknown"
	reasonID          = "The id is a string of 1 to 128 bytes"
	reasonPayload     = "The payload is an object"
	reasonRequest     = "The payload is no GraphQL request"
	reasonNoAck       = "Unauthorized"
	reasonNoProtocol  = "Subprotocol not acceptable"
	reasonInitTimeout = "Connection initialisation timeout"
	reasonSecondInit  = "Too many initialisation requests"
	reasonSlow        = "slow reader"
	reasonSlowAfter   = "slow reader; resume after "
)

// maxID is the longest id of an operation in bytes. It is repeated in each message.
const maxID = 128

// readBuffer is small: a socket has it for life, and most messages are a few bytes.
const readBuffer = 512

func newUpgrader(e *Engine) websocket.Upgrader {
	return websocket.Upgrader{
		Subprotocols: []string{protocol}, HandshakeTimeout: e.opt.Sockets.WriteTimeout,
		ReadBufferSize: readBuffer, WriteBufferPool: new(sync.Pool), // never used, and so not made
		CheckOrigin: func(*http.Request) bool { return true }, // it was asked before
		Error: func(w http.ResponseWriter, r *http.Request, status int, _ error) {
			w.Header().Set("Sec-Websocket-Version", "13")
			e.opt.Refuse(w, r, status, fault.New(fault.Invalid, "This is no handshake of a websocket, RFC 6455, version 13."))
		},
	}
}

// serveSocket makes a websocket of the request.
func (e *Engine) serveSocket(w http.ResponseWriter, r *http.Request) {
	if !e.opt.OriginAllowed(r) {
		e.opt.Refuse(w, r, http.StatusForbidden, fault.New(fault.Forbidden, "Pages of this origin may not open a websocket here."))
		return
	}
	all := &e.sockets
	s := &socket{sockets: all, source: e.opt.Caller(r.Context()).Payer.Key}
	if err := all.enter(s.source); err != nil {
		e.opt.Refuse(w, r, 0, err)
		return
	}
	web, err := all.upgrader.Upgrade(hijacker{w, s}, r, nil)
	if err != nil {
		all.exit(s)
		return
	}
	web.SetReadLimit(int64(all.limits.MessageBytes))
	web.SetPingHandler(func(payload string) error {
		s.reply(controlFrame(framePong, []byte(payload)))
		return s.spend()
	})
	web.SetPongHandler(func(string) error { return s.spend() })
	web.SetCloseHandler(func(code int, _ string) error {
		s.close(closeNormal, closeFrame(code, ""), time.Now().Add(closeWait), false)
		return nil
	})
	s.web = web
	values := r.Context()
	if e.opt.Detach != nil {
		values = e.opt.Detach(values)
	}
	s.ctx = detached{e.ctx, context.WithoutCancel(values)}
	s.start() //nolint:contextcheck // it outlives the request
	if web.Subprotocol() == "" {
		s.shut(closeNoProtocol, reasonNoProtocol)
	}
}

// A hijacker puts the socket's wire between the upgrader and the connection.
type hijacker struct {
	http.ResponseWriter
	s *socket
}

// Hijack is called by the upgrader.
func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.s.use(c)
	return &wire{c, h.s}, rw, nil
}

// detached has the values of a request, and lives as long as the engine.
type detached struct {
	context.Context
	values context.Context
}

// Value looks at the request first.
func (d detached) Value(key any) any {
	if v := d.values.Value(key); v != nil {
		return v
	}
	return d.Context.Value(key)
}

// receive does what a message says. It keeps nothing of it.
func (s *socket) receive(kind int, b []byte) {
	var fields map[string]json.RawMessage // the names are exact, other than with a struct
	switch {
	case kind != websocket.TextMessage:
		s.shut(closeInvalid, reasonNotText)
		return
	case !Exact(b):
		s.shut(closeInvalid, reasonNotUTF8)
		return
	case json.Unmarshal(b, &fields) != nil || fields == nil:
		s.shut(closeInvalid, reasonNotObject)
		return
	}
	payload := fields["payload"]
	if bytes.Equal(payload, []byte("null")) {
		payload = nil
	}
	switch text(fields["type"]) {
	case "connection_init":
		s.initialise(payload)
	case "ping":
		if s.object(payload) {
			s.reply(s.pong(payload))
		}
	case "pong":
		s.object(payload)
	case "subscribe":
		if id, ok := s.id(fields["id"]); ok {
			s.subscribe(id, payload)
		}
	case "complete":
		if id, ok := s.id(fields["id"]); ok {
			s.complete(id)
		}
	default:
		s.shut(closeInvalid, reasonType)
	}
}

// text is a JSON string's; of anything else it is empty.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// object reports whether a payload is an object or absent, and ends the socket if not.
func (s *socket) object(payload json.RawMessage) bool {
	if len(payload) > 0 && payload[0] != '{' {
		s.shut(closeInvalid, reasonPayload)
		return false
	}
	return true
}

func (s *socket) id(raw json.RawMessage) (string, bool) {
	id := text(raw)
	if id == "" || len(id) > maxID {
		s.shut(closeInvalid, reasonID)
		return "", false
	}
	return id, true
}

func (s *socket) pong(payload json.RawMessage) frame {
	if payload == nil {
		return textFrame([]byte(`{"type":"pong"}`))
	}
	return textFrame(slices.Concat([]byte(`{"type":"pong","payload":`), payload, suffix))
}

// ping is for what lies between us and the client, as much as for him.
func (s *socket) ping() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing && len(s.queue) == 0 { // or it gets something anyway
		s.put(controlFrame(framePing, nil))
	}
}

// initialise answers connection_init.
func (s *socket) initialise(payload json.RawMessage) {
	if !s.object(payload) {
		return
	}
	if s.ready {
		s.shut(closeSecondInit, reasonSecondInit)
		return
	}
	ctx, err := s.admitted(payload)
	if err == nil {
		err = s.settle(s.sockets.engine.opt.Caller(ctx).Payer.Key)
	}
	if err != nil {
		switch f := fault.Of(err); f.Code {
		case fault.Unavailable, fault.Internal, fault.RateLimited:
			s.shut(closeLater, reasonLater)
		default:
			s.shut(closeRefused, string(f.Code))
		}
		return
	}
	s.ctx = ctx
	s.reply(textFrame([]byte(`{"type":"connection_ack"}`)))
}

func (s *socket) admitted(payload json.RawMessage) (ctx context.Context, err error) {
	opt := &s.sockets.engine.opt
	defer func() {
		if p := recover(); p != nil {
			err = opt.Recover(s.ctx, p)
		}
	}()
	var values map[string]any
	if payload != nil {
		if err := json.Unmarshal(payload, &values); err != nil {
			return nil, fault.New(fault.Invalid, "The payload of connection_init cannot be read.")
		}
	}
	return opt.Init(s.ctx, values)
}

// subscribe runs an operation.
func (s *socket) subscribe(id string, payload json.RawMessage) {
	if payload == nil || !s.object(payload) {
		s.shut(closeInvalid, reasonPayload)
		return
	}
	if !s.ready {
		s.shut(closeNoAck, reasonNoAck)
		return
	}
	r, err := parseRequest(payload)
	if err != nil {
		s.shut(closeInvalid, reasonRequest)
		return
	}
	e := s.sockets.engine
	limit := s.sockets.limits.Operations
	s.mu.Lock()
	known := s.find(id) >= 0
	full := len(s.calls)+s.orphans >= limit
	if s.closing || s.leaving || known || full {
		stopping := s.closing || s.leaving
		s.mu.Unlock()
		switch {
		case stopping:
		case known:
			s.shut(closeDuplicate, "Subscriber for "+cut(id, maxControl-2-len("Subscriber for  already exists"))+" already exists")
		default:
			s.reply(errorFrame(id, e.present(s.ctx, fault.New(fault.RateLimited, "There may be %d operations at a time on a socket. Complete some.", limit).With("limit", int64(limit)))))
		}
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	c := &call{s: s, id: id, prefix: append(beginning(id, "next"), `,"payload":`...), cancel: cancel}
	s.calls = append(s.calls, c)
	s.running++
	s.sockets.work.Go(func() { c.run(ctx, r) })
	s.mu.Unlock()
}

// find is where the call of this id is. The outbox is locked.
func (s *socket) find(id string) int {
	return slices.IndexFunc(s.calls, func(c *call) bool { return c.id == id })
}

// drop takes a call off the list: its id is free again. The outbox is locked.
func (s *socket) drop(c *call) {
	s.calls = slices.DeleteFunc(s.calls, func(x *call) bool { return x == c })
	c.over = true
	if !c.through {
		s.orphans++
	}
}

// complete ends an operation that the client wants no more of. What was queued for it is
// taken back, for the id may be used again.
func (s *socket) complete(id string) {
	s.mu.Lock()
	i := s.find(id)
	if i < 0 {
		s.mu.Unlock()
		return
	}
	c := s.calls[i]
	s.drop(c)
	s.strip(func(f *frame) bool { return f.call == c })
	s.mu.Unlock()
	c.leave()
}

// A call is an operation of a socket, from `subscribe` until its end. It is the sink of its
// subscription, and calls that only from goroutines of the socket: the subscription's lock is
// held when it sends.
type call struct {
	s      *socket
	id     string
	prefix []byte // of each message, up to its payload

	// Under the outbox's lock.
	cancel  context.CancelFunc
	sub     *subscription
	single  bool          // it is a query or mutation, whose result
	room    chan struct{} // is told here that there is room, if it was refused
	queued  int           // bytes in the queue
	written Position      // of the last message that the kernel took whole
	refused bool          // something was, and it waits for room
	through bool          // its goroutine
	over    bool          // nothing more is to be said, or nobody wants to hear it
}

func beginning(id, kind string) []byte {
	quoted, err := json.Marshal(id)
	if err != nil { // a string always has JSON
		panic(err)
	}
	return slices.Concat([]byte(`{"id":`), quoted, []byte(`,"type":"`+kind+`"`))
}

func errorFrame(id string, errs gqlerror.List) frame {
	return textFrame(append(appendErrors(append(beginning(id, "error"), `,"payload":`...), errs), '}'))
}

// run runs the operation, and a subscription until it has begun.
func (c *call) run(ctx context.Context, r *Request) {
	e := c.s.sockets.engine
	defer c.ran()
	defer func() {
		if p := recover(); p != nil {
			c.end(e.present(ctx, e.opt.Recover(ctx, p)))
		}
	}()
	op, errs := e.prepare(ctx, r)
	switch {
	case errs != nil:
		c.end(errs)
	case op.Operation.Operation == ast.Subscription && !op.estimate:
		sub := e.newSubscription(c.s.ctx, op, c) //nolint:contextcheck // ctx ends here, and would be one more thing to keep
		c.s.mu.Lock()
		c.sub = sub
		c.s.mu.Unlock()
		sub.start() //nolint:contextcheck // as above
	default:
		c.result(ctx, e.answer(ctx, op))
	}
}

// ran is the end of run.
func (c *call) ran() {
	c.cancel()
	s := c.s
	s.mu.Lock()
	c.through, c.cancel = true, func() {} // of ctx nothing is kept
	s.running--
	if c.over {
		s.orphans--
	}
	sub := c.sub
	unwanted := c.over && sub != nil
	last := s.leaving && s.running == 0
	s.mu.Unlock()
	if unwanted { // it was left while it began
		sub.stop()
	}
	if last {
		s.finish()
	}
}

// leave ends the call because of its client.
func (c *call) leave() {
	c.s.mu.Lock()
	c.over = true
	sub, through, cancel := c.sub, c.through, c.cancel
	c.s.mu.Unlock()
	cancel()
	if sub != nil && through { // else ran will
		sub.stop()
	}
}

// result sends the response of a query or mutation when there is room for it.
func (c *call) result(ctx context.Context, r response) {
	c.s.mu.Lock()
	c.single, c.room = true, make(chan struct{}, 1)
	c.s.mu.Unlock()
	m := &message{payload: r.append(make([]byte, 0, len(r.data)+len(r.extensions)+64))}
	for !c.send([]*message{m}) {
		select {
		case <-c.room:
		case <-ctx.Done():
			return
		}
	}
}

// send takes all messages or none. A single one completes its operation.
func (c *call) send(msgs []*message) bool {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.over || s.closing {
		return true
	}
	size := 0
	for _, m := range msgs {
		f := frame{call: c, msg: m}
		size += f.size()
	}
	if s.full(c, size) {
		c.refused = true
		return false
	}
	b := s.compose()
	for _, m := range msgs {
		s.add(frame{call: c, msg: m})
	}
	if c.single {
		s.drop(c)
		s.add(c.completion())
	}
	s.push(b)
	return true
}

func (c *call) completion() frame { return textFrame(append(beginning(c.id, "complete"), '}')) }

// end tells the client that the operation is over, unless it said so itself.
func (c *call) end(errs gqlerror.List) {
	f := c.completion()
	if len(errs) > 0 {
		f = errorFrame(c.id, errs)
	}
	s := c.s
	s.mu.Lock()
	if !c.over && !s.closing {
		s.drop(c)
		s.answer(f)
	}
	cancel := c.cancel
	s.mu.Unlock()
	cancel()
}

// slow ends the socket.
func (c *call) slow() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if !c.s.closing {
		c.s.sockets.work.Go(c.s.giveUp)
	}
}

// drained wakes whoever was refused.
func (c *call) drained() {
	c.s.mu.Lock()
	sub, room := c.sub, c.room
	c.s.mu.Unlock()
	if sub != nil {
		sub.drained()
		return
	}
	select {
	case room <- struct{}{}:
	default:
	}
}

// resume is from where on the client can continue the subscription; empty when it cannot.
func (c *call) resume() (cursor string, at Position) {
	c.s.mu.Lock()
	sub, written := c.sub, c.written
	c.s.mu.Unlock()
	if sub == nil {
		return "", written
	}
	if written.Seq > 0 {
		sub.wrote(written)
	}
	return sub.cursor(), sub.position()
}
