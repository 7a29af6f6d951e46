package clienttest

import (
	"context"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/gorilla/websocket"
)

// A Network joins clients and one HTTP server inside the process, without sockets, so that tests
// can run in a synctest bubble, where waiting costs nothing. It is a net.Listener.
type Network struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// Serve starts handler on a Network of its own, until the test ends.
func Serve(tb testing.TB, handler http.Handler) *Network {
	tb.Helper()
	n := &Network{conns: make(chan net.Conn), closed: make(chan struct{})}
	s := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(n) // It ends with ErrServerClosed.
	}()
	tb.Cleanup(func() {
		s.Close()
		<-done
	})
	return n
}

// HTTPClient returns a client whose every request goes to the server. It is closed when the test ends.
func (n *Network) HTTPClient(tb testing.TB) *http.Client {
	tb.Helper()
	tr := &http.Transport{DialContext: n.dial, MaxIdleConnsPerHost: 64}
	tb.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// Dialer returns a dialer whose every websocket goes to the server.
func (n *Network) Dialer() *websocket.Dialer {
	return &websocket.Dialer{NetDialContext: n.dial}
}

func (n *Network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case n.conns <- theirs:
		return ours, nil
	case <-n.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Accept is for the server.
func (n *Network) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

// Close makes the server unreachable.
func (n *Network) Close() error {
	n.once.Do(func() { close(n.closed) })
	return nil
}

// Addr is the address of no socket.
func (n *Network) Addr() net.Addr { return &net.UnixAddr{Name: "in memory", Net: "unix"} }
