package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/jackc/pgx/v5"

	"github.com/openvantage/vantage/server"
)

// logLock orders commits to the log. Who has it keeps every mutation under way.
const logLock = 0x76616e74616765

// A crowd is what a server has to do when it is told to stop: mutations under way, and subscribers.
type crowd struct {
	*api
	lock        *pgx.Conn
	posted      chan string
	socket      *socket
	events      *eventStream
	subscribers []stream
	idle        *socket
}

// gather has mutations under way by each transport, that end with release.
func gather(t *testing.T, a *api) *crowd {
	t.Helper()
	c := &crowd{api: a, posted: make(chan string, 1)}
	subscription := "subscription { events { seq } }"
	for _, by := range []transport{overSocket, overEvents} {
		s, err := a.open(t.Context(), by, "", subscription, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.subscribers = append(c.subscribers, s)
	}
	a.listening(t, "events", len(c.subscribers))
	var err error
	if c.idle, err = a.openSocket(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if c.socket, err = a.openSocket(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if c.lock, err = pgx.Connect(t.Context(), a.dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.lock.Close(context.Background()) }) // nothing depends on it
	if _, err := c.lock.Exec(t.Context(), "select pg_advisory_lock($1)", int64(logLock)); err != nil {
		t.Fatal(err)
	}
	go func() {
		res, err := a.http.Post(a.URL()+"/graphql", "application/json", strings.NewReader(fmt.Sprintf(`{"query": %q}`, registration(1))))
		if err != nil {
			c.posted <- err.Error()
			return
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		c.posted <- fmt.Sprintln(res.StatusCode, string(b), err)
	}()
	if err := c.socket.say("1", "subscribe", object{"query": registration(2)}); err != nil {
		t.Fatal(err)
	}
	if c.events, err = a.openEvents(t.Context(), "", registration(3), nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "three mutations are under way", func() bool {
		var n int
		err := c.lock.QueryRow(t.Context(), `select count(*) from pg_locks l join pg_database d on d.oid = l.database
			where d.datname = current_database() and l.locktype = 'advisory' and not l.granted`).Scan(&n)
		return err == nil && n == 3
	})
	return c
}

func registration(asn int) string {
	return fmt.Sprintf(`mutation { registerProbe(input: {country: "IT", asn: %d}) { probe { id lifecycle } } }`, asn)
}

func (c *crowd) release(t *testing.T) {
	t.Helper()
	if _, err := c.lock.Exec(t.Context(), "select pg_advisory_unlock($1)", int64(logLock)); err != nil {
		t.Fatal(err)
	}
}

// refused reports whether the server takes no connections.
func (c *crowd) refused() bool {
	conn, err := net.Dial("tcp", strings.TrimPrefix(c.URL(), "http://"))
	if err == nil {
		conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// restarted fails unless that is what a socket is told at its end.
func restarted(t *testing.T, s *socket) {
	t.Helper()
	f, err := s.hear()
	if !websocket.IsCloseError(err, websocket.CloseServiceRestart) {
		t.Errorf("a socket was told %v, and ended with %v", f, err)
	}
}

func TestStop(t *testing.T) {
	t.Parallel()

	t.Run("what is under way is finished, and those who listen are told to come back", func(t *testing.T) {
		t.Parallel()
		a := start(t, func(c *server.Config) { c.ShutdownGrace = patience })
		c := gather(t, a)
		stopped := make(chan error, 1)
		go func() { stopped <- a.stop() }()
		restarted(t, c.idle)
		restarted(t, c.subscribers[0].(*socket))
		eventually(t, "connections are refused", c.refused)
		if err := c.socket.say("2", "subscribe", object{"query": registration(4)}); err != nil { // for another server
			t.Fatal(err)
		}
		select {
		case err := <-stopped:
			t.Fatalf("it stopped before it was done, with %v", err)
		default:
		}
		c.release(t)

		if text := <-c.posted; !strings.HasPrefix(text, "200 ") || !strings.Contains(text, `"lifecycle":"PENDING"`) {
			t.Errorf("over HTTP it is answered %s", text)
		}
		for name, s := range map[string]stream{"websocket": c.socket, "event stream": c.events} {
			if payload, err := s.next(); err != nil || !strings.Contains(string(payload), `"lifecycle":"PENDING"`) {
				t.Errorf("over the %s it is answered %s, %v", name, payload, err)
			}
			var end *ending
			if payload, err := s.next(); !errors.As(err, &end) || end.kind != "complete" {
				t.Errorf("the %s went on with %s, %v", name, payload, err)
			}
		}
		restarted(t, c.socket)
		if err := <-stopped; err != nil {
			t.Errorf("the server stopped with %v", err)
		}
		// Whatever it was told of meanwhile: a stream that ends without an end is one to come back to.
		s := c.subscribers[1]
		var err error
		for err == nil {
			_, err = s.next()
		}
		if end := new(ending); errors.As(err, &end) {
			t.Errorf("the event stream ended with %v", err)
		}
		equal(t, a.counts(t)["probe"], 3)
	})

	t.Run("what does not end in time is cut off, and is not acknowledged", func(t *testing.T) {
		t.Parallel()
		a := start(t, func(c *server.Config) { c.ShutdownGrace = 200 * time.Millisecond })
		c := gather(t, a)
		began := time.Now()
		if err := a.stop(); err != nil {
			t.Errorf("the server stopped with %v", err)
		}
		if took := time.Since(began); took > patience/2 {
			t.Errorf("it took %v", took)
		}
		if !strings.Contains(a.logs.String(), "cut off") {
			t.Error("the log does not tell")
		}
		restarted(t, c.idle)
		restarted(t, c.subscribers[0].(*socket))
		f, err := c.socket.hear()
		for ; err == nil; f, err = c.socket.hear() { // it may be told that it was given up
			if strings.Contains(string(f.Payload), "PENDING") {
				t.Errorf("over the websocket it is answered %s", f.Payload)
			}
		}
		if !websocket.IsCloseError(err, websocket.CloseServiceRestart) {
			t.Errorf("its socket ended with %v", err)
		}
		if text := <-c.posted; strings.Contains(text, "PENDING") {
			t.Errorf("over HTTP it is answered %s", text)
		}
		if payload, _ := c.events.next(); strings.Contains(string(payload), "PENDING") {
			t.Errorf("over the event stream it is answered %s", payload)
		}
	})
}
