package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/openvantage/vantage/fault"
)

// subprotocol is the only one that the server speaks.
//
// Source: graphql-ws, PROTOCOL.md.
const subprotocol = "graphql-transport-ws"

// A connection is given up when nothing at all was heard for silenceLimit, although we ask every
// pingEvery: TCP alone would not notice for hours.
const (
	ackTimeout   = 15 * time.Second
	writeTimeout = 10 * time.Second
	pingEvery    = 15 * time.Second
	silenceLimit = 45 * time.Second
)

// closeBadResponse is what a client closes with when the server breaks the protocol.
const closeBadResponse = 4004

// messageBuffer is how many messages are read ahead of Next. It is small: a reader who is slow
// should be noticed by the server, which knows how to leave things out.
const messageBuffer = 16

// A CloseError is the end of a websocket by its close code: 1006 when the connection broke without one.
type CloseError struct {
	Code   int
	Reason string
}

func (e *CloseError) Error() string {
	return fmt.Sprintf("websocket closed with code %d: %s", e.Code, cmp.Or(e.Reason, "no reason given"))
}

// Retriable reports whether a new connection can go better: not after a breach of the protocol, a
// refused token or a message that was too large.
func (e *CloseError) Retriable() bool {
	switch e.Code {
	case websocket.CloseNormalClosure, websocket.CloseGoingAway, websocket.CloseAbnormalClosure,
		websocket.CloseInternalServerErr, websocket.CloseServiceRestart, websocket.CloseTryAgainLater,
		4408, 4503: // initialisation timeout, slow reader
		return true
	}
	return false
}

// A message is a message of the protocol.
type message struct {
	ID      string          `json:"id,omitempty"`
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload,omitempty"`
}

// A Subscription is one operation on a websocket of its own. Next is for one goroutine at a
// time; Close may be called at any time and must be called at last.
type Subscription struct {
	conn     *websocket.Conn
	results  chan response // closed by the reader after it has set end
	end      error
	closed   chan struct{}
	closing  sync.Once
	finished chan struct{} // closed when both goroutines have ended
	write    sync.Mutex
}

var errNotAcknowledged = fault.New(fault.Unavailable, "The server did not acknowledge the connection within %v.", ackTimeout)

// operationID is constant since each websocket carries one operation.
const operationID = "1"

// Subscribe opens a websocket, introduces itself with the client's token and subscribes. A query or
// mutation works too. Ctx is for the opening alone.
//
// It fails as Do does when the upgrade is refused, and with a *CloseError when the server
// closes the connection instead of acknowledging it. A bad document is only told by Next.
func (c *Client) Subscribe(ctx context.Context, document string, variables any) (*Subscription, error) {
	if strings.HasPrefix(c.baseURL, "http") { // https becomes wss
		c = c.at("ws" + strings.TrimPrefix(c.baseURL, "http"))
	}
	subscribe, err := encode(operation{Query: document, Variables: variables})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, ackTimeout, errNotAcknowledged)
	defer cancel()
	conn, res, err := c.dialer.DialContext(ctx, c.baseURL+"/graphql", nil)
	if res != nil {
		defer res.Body.Close()
	}
	if errors.Is(err, websocket.ErrBadHandshake) {
		return nil, answer{status: res.StatusCode, header: res.Header}.fault()
	}
	if err != nil {
		return nil, unreachable(ctx, err)
	}
	conn.SetReadLimit(maxAnswerBytes)
	s := &Subscription{
		conn: conn, results: make(chan response, messageBuffer),
		closed: make(chan struct{}), finished: make(chan struct{}),
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	if err := s.introduce(c.token, subscribe); err != nil || !stop() {
		conn.Close()
		if ctx.Err() != nil {
			return nil, unreachable(ctx, err)
		}
		return nil, err
	}
	go s.run()
	return s, nil
}

func (c *Client) at(baseURL string) *Client {
	other := *c
	other.baseURL = baseURL
	return &other
}

// introduce is the conversation up to the subscribe message.
func (s *Subscription) introduce(token string, subscribe json.RawMessage) error {
	init := message{Type: "connection_init"}
	if token != "" {
		init.Payload, _ = json.Marshal(map[string]string{"authorization": "Bearer " + token})
	}
	if err := s.send(init); err != nil {
		return err
	}
	for {
		m, err := s.receive()
		switch {
		case err != nil:
			return err
		case m.Type == "connection_ack":
			return s.send(message{ID: operationID, Type: "subscribe", Payload: subscribe})
		case m.Type == "pong":
		case m.Type == "ping":
			if err := s.send(message{Type: "pong"}); err != nil {
				return err
			}
		default:
			return s.protest(m.Type)
		}
	}
}

// run reads until the operation or the connection ends, and pings meanwhile.
func (s *Subscription) run() {
	defer close(s.finished)
	var pinger sync.WaitGroup
	stop := make(chan struct{})
	pinger.Go(func() {
		t := time.NewTicker(pingEvery)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				// A failed write shows up in the reader, which knows more.
				_ = s.send(message{Type: "ping"})
			case <-stop:
				return
			}
		}
	})
	s.end = s.read()
	close(s.results)
	s.conn.Close()
	close(stop)
	pinger.Wait()
}

func (s *Subscription) read() error {
	for {
		m, err := s.receive()
		if err != nil {
			return err
		}
		switch m.Type {
		case "ping":
			if err := s.send(message{Type: "pong", Payload: m.Payload}); err != nil {
				return err
			}
		case "pong":
		case "next":
			var r response
			if json.Unmarshal(m.Payload, &r) != nil || m.ID != operationID {
				return s.protest(m.Type)
			}
			select {
			case s.results <- r:
			case <-s.closed:
				return net.ErrClosed
			}
		case "error":
			var es []graphqlError
			if json.Unmarshal(m.Payload, &es) != nil || len(es) == 0 {
				return s.protest(m.Type)
			}
			return es[0].fault()
		case "complete":
			return io.EOF
		default:
			return s.protest(m.Type)
		}
	}
}

func (s *Subscription) receive() (message, error) {
	var m message
	if err := s.conn.SetReadDeadline(time.Now().Add(silenceLimit)); err != nil {
		return m, closeError(err)
	}
	_, b, err := s.conn.ReadMessage()
	if err != nil {
		return m, closeError(err)
	}
	if json.Unmarshal(b, &m) != nil {
		return m, s.protest("unreadable")
	}
	return m, nil
}

func (s *Subscription) send(m message) error {
	b, err := encode(m)
	if err != nil {
		return err
	}
	s.write.Lock()
	defer s.write.Unlock()
	if err := s.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return closeError(err)
	}
	if err := s.conn.WriteMessage(websocket.TextMessage, b); err != nil {
		return closeError(err)
	}
	return nil
}

// protest ends a connection whose server breaks the protocol.
func (s *Subscription) protest(kind string) error {
	e := &CloseError{Code: closeBadResponse, Reason: fmt.Sprintf("unexpected %.20q message", kind)}
	s.hangUp(e.Code, e.Reason)
	return e
}

func (s *Subscription) hangUp(code int, reason string) {
	// The peer may be gone already, which is what we want.
	_ = s.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(time.Second))
}

func closeError(err error) error {
	if e, ok := errors.AsType[*websocket.CloseError](err); ok {
		return &CloseError{Code: e.Code, Reason: e.Text}
	}
	return &CloseError{Code: websocket.CloseAbnormalClosure, Reason: err.Error()}
}

// Next waits for the next result and decodes its data into out, as Do does. A result with errors fails with the first
// of them, and the subscription goes on. What ends it is told by this and every later call: io.EOF when the
// server completed it, a fault when the server ended it with an error, such as RESYNC, and a *CloseError when the
// connection ended. With ctx's error nothing has ended and Next may be called again.
func (s *Subscription) Next(ctx context.Context, out any) error {
	select {
	case r, ok := <-s.results:
		if !ok {
			return s.end
		}
		return r.into(out)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// All yields the data of every result until the subscription or ctx ends, and that error at
// last; the end by the server's completion is no error. Breaking off does not close the subscription.
func (s *Subscription) All(ctx context.Context) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		for {
			var data json.RawMessage
			err := s.Next(ctx, &data)
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(data, err) || err != nil {
				return
			}
		}
	}
}

// Close tells the server, closes the connection and waits until its goroutines have ended. It may be
// called again.
func (s *Subscription) Close() {
	s.closing.Do(func() {
		close(s.closed)
		_ = s.send(message{ID: operationID, Type: "complete"})
		s.hangUp(websocket.CloseNormalClosure, "")
		s.conn.Close()
	})
	<-s.finished
}

// Follow subscribes and yields the data of each result, for as long as the server can continue: when the
// connection is lost it connects again, after Backoff, with the variable "after" set to the last cursor that it
// has seen. It yields what the server sends and hides no duplicates. The cursor is looked for under cursorPath
// in the data, such as "events", "cursor".
//
// It ends when the server completes the subscription, or after yielding the error that it cannot recover from: a refusal,
// RESYNC, or ctx's. Before the first cursor has come, a new connection begins with the variables
// as they were given, so what happened in between is lost unless they have "after" or ask for a snapshot.
func (c *Client) Follow(ctx context.Context, document string, variables map[string]any, cursorPath ...string) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		variables := maps.Clone(variables)
		failures := 0
		for {
			err := c.follow(ctx, document, variables, func(data json.RawMessage) bool {
				failures = 0
				if cursor, ok := lookup(data, cursorPath); ok {
					if variables == nil {
						variables = map[string]any{}
					}
					variables["after"] = cursor
				}
				return yield(data, nil)
			})
			switch {
			case errors.Is(err, errStopped), errors.Is(err, io.EOF):
				return
			case ctx.Err() != nil:
				yield(nil, context.Cause(ctx))
				return
			case !Retriable(err):
				yield(nil, err)
				return
			}
			failures++
			if err := Wait(ctx, max(Backoff(failures), fault.Of(err).RetryAfter)); err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

// errStopped says that the caller of Follow has left its loop.
var errStopped = errors.New("stopped")

func (c *Client) follow(ctx context.Context, document string, variables map[string]any, each func(json.RawMessage) bool) error {
	s, err := c.Subscribe(ctx, document, variables)
	if err != nil {
		return err
	}
	defer s.Close()
	for {
		var data json.RawMessage
		if err := s.Next(ctx, &data); err != nil {
			return err
		}
		if !each(data) {
			return errStopped
		}
	}
}

// lookup finds a string in nested objects.
func lookup(data json.RawMessage, path []string) (string, bool) {
	for _, name := range path {
		var object map[string]json.RawMessage
		if json.Unmarshal(data, &object) != nil {
			return "", false
		}
		data = object[name]
	}
	var s string
	return s, json.Unmarshal(data, &s) == nil && s != ""
}
