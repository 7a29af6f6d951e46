package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// A transport is a way by which operations travel.
type transport string

const (
	overHTTP   transport = "HTTP"
	overSocket transport = "websocket"
	overEvents transport = "event stream"
)

// A stream is one operation on a connection of its own, with no client between it and the test.
// It is for one goroutine.
type stream interface {
	// next is the payload of the next result. It fails with an *ending when the operation has none, and
	// otherwise when the connection ended.
	next() (json.RawMessage, error)
	// cut ends the connection without a word.
	cut(how cut)
}

// A cut is how a connection is lost.
type cut int

const (
	closed  cut = iota // FIN: the process ended
	reset              // RST: the machine forgot the connection
	silence            // nothing: the network swallows what is sent
	cuts
)

func (c cut) do(conn net.Conn) {
	switch c {
	case reset:
		_ = conn.(*net.TCPConn).SetLinger(0) // it may be gone already
		conn.Close()
	case silence:
	default:
		conn.Close()
	}
}

// open begins an operation.
func (a *api) open(ctx context.Context, by transport, token, document string, variables object) (stream, error) {
	if by == overEvents {
		return a.openEvents(ctx, token, document, variables)
	}
	s, err := a.openSocket(ctx, token)
	if err != nil {
		return nil, err
	}
	return s, s.say("1", "subscribe", object{"query": document, "variables": variables})
}

// A socket is a websocket.
type socket struct{ *websocket.Conn }

// A frame is a message of graphql-transport-ws.
type frame struct {
	ID      string          `json:"id,omitempty"`
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload,omitempty"`
}

// openSocket returns a socket that is acknowledged. It is closed with the context.
func (a *api) openSocket(ctx context.Context, token string) (*socket, error) {
	d := websocket.Dialer{Subprotocols: []string{"graphql-transport-ws"}}
	c, _, err := d.DialContext(ctx, "ws"+strings.TrimPrefix(a.URL(), "http")+"/graphql", nil)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { c.Close() })
	s, payload := &socket{c}, object{}
	if token != "" {
		payload["authorization"] = "Bearer " + token
	}
	if err := s.say("", "connection_init", payload); err != nil {
		return nil, err
	}
	if f, err := s.hear(); err != nil || f.Type != "connection_ack" {
		return nil, fmt.Errorf("connection_init was answered with %v, %w", f, err)
	}
	return s, nil
}

func (s *socket) say(id, kind string, payload any) error {
	f := object{"type": kind}
	if id != "" {
		f["id"] = id
	}
	if payload != nil {
		f["payload"] = payload
	}
	return s.WriteJSON(f)
}

func (s *socket) hear() (f frame, err error) {
	if err := s.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return f, err
	}
	_, b, err := s.ReadMessage()
	if err != nil {
		return f, err
	}
	return f, json.Unmarshal(b, &f)
}

func (s *socket) next() (json.RawMessage, error) {
	f, err := s.hear()
	if err != nil {
		return nil, err
	}
	if f.Type != "next" {
		return nil, &ending{f.Type, f.Payload}
	}
	return f.Payload, nil
}

func (s *socket) cut(how cut) { how.do(s.NetConn()) }

// An ending is what a stream says at its end: "error" with what was wrong, or "complete".
type ending struct {
	kind    string
	payload json.RawMessage
}

// problems are the errors of an operation that did not run, or ended with them.
func (e *ending) problems() (out []problem) {
	_ = json.Unmarshal(e.payload, &out) // none are noticed
	return out
}

func (e *ending) Error() string {
	return fmt.Sprintf("the stream ended with %q: %s", e.kind, e.payload)
}

// An eventStream is server-sent events.
type eventStream struct {
	conn net.Conn
	res  *http.Response
	body *bufio.Reader
}

// openEvents returns a stream whose headers have come. It is closed with the context.
func (a *api) openEvents(ctx context.Context, token, document string, variables object) (*eventStream, error) {
	b, err := json.Marshal(object{"query": document, "variables": variables})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.URL()+"/graphql", bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	req.Header = bearer(token)
	req.Header.Set("Accept", "text/event-stream")
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", req.URL.Host)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	if err := errors.Join(conn.SetDeadline(time.Now().Add(patience)), req.Write(conn)); err != nil {
		return nil, err
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return nil, err
	}
	return &eventStream{conn, res, bufio.NewReader(res.Body)}, nil
}

func (s *eventStream) next() (json.RawMessage, error) {
	if s.res.StatusCode != http.StatusOK {
		b, err := io.ReadAll(s.body)
		return nil, errors.Join(&ending{s.res.Status, b}, err)
	}
	if err := s.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	kind, data := "", []byte(nil)
	for {
		line, err := s.body.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		name, value, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(": "))
		switch {
		case string(name) == "event":
			kind = string(value)
		case string(name) == "data":
			data = append(data, value...)
		case len(name) > 0 || kind == "": // a comment
		case kind == "next":
			var refused struct{ Data, Errors json.RawMessage }
			if err := json.Unmarshal(data, &refused); err != nil || refused.Data != nil {
				return data, err
			}
			return nil, &ending{"error", refused.Errors}
		default:
			return nil, &ending{kind, data}
		}
	}
}

func (s *eventStream) cut(how cut) { how.do(s.conn) }
