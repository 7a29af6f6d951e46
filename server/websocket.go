package server

import (
	"bytes"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/99designs/gqlgen/graphql/handler/transport"
	"github.com/gorilla/websocket"
)

// writeTimeout is how long a client may take to read one message before it is given up.
const writeTimeout = 10 * time.Second

// gorilla lets gqlgen's websocket transport speak through gorilla/websocket.
type gorilla struct{ upgrader websocket.Upgrader }

// Accept upgrades the connection. A client that does not offer our protocol is turned away.
func (g gorilla) Accept(w http.ResponseWriter, r *http.Request, _ transport.WebsocketAcceptOptions) (transport.WebsocketConn, error) {
	conn, err := g.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return nil, err
	}
	s := &socket{Conn: conn}
	if conn.Subprotocol() == "" { // the transport would speak an older protocol, and finds it closed
		_ = s.WriteClose(closeNoProtocol, "Speak graphql-transport-ws.")
		_ = conn.Close()
	}
	return s, nil
}

// A socket is one connection. gorilla allows one writer at a time.
type socket struct {
	*websocket.Conn
	writing sync.Mutex
}

// NextReader tells the transport apart who left and who broke the protocol.
func (s *socket) NextReader() (int, io.Reader, error) {
	kind, r, err := s.Conn.NextReader()
	if websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseNoStatusReceived, websocket.CloseGoingAway) {
		return kind, nil, transport.ErrWebsocketClosed
	}
	if err != nil {
		return kind, nil, err
	}
	b, err := io.ReadAll(r)
	if err == nil && !exact(b) {
		_ = s.WriteClose(closeBadMessage, "The message is not UTF-8 without loss.") // it is given up all the same
		return kind, nil, transport.ErrWebsocketClosed
	}
	return kind, bytes.NewReader(b), err
}

// WriteJSON gives a reader that has stopped a bounded time, so that it holds nothing for ever.
func (s *socket) WriteJSON(v any) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	return s.Conn.WriteJSON(v)
}

// WriteClose says why the connection ends.
func (s *socket) WriteClose(code int, reason string) error {
	return s.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(time.Second))
}
