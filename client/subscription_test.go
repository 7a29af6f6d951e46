package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"

	"github.com/openvantage/vantage/client"
	"github.com/openvantage/vantage/client/clienttest"
	"github.com/openvantage/vantage/fault"
)

// A peer is the server's end of one websocket.
type peer struct {
	t    *testing.T
	conn *websocket.Conn
	n    int // which connection this is, 1 for the first
}

// converse starts a server that speaks as script says on every websocket, and a client of it.
func converse(t *testing.T, script func(peer)) *client.Client {
	t.Helper()
	upgrader := websocket.Upgrader{Subprotocols: []string{"graphql-transport-ws"}}
	n := 0
	network := clienttest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/graphql" {
			t.Errorf("a websocket at %s", r.URL)
		}
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if conn.Subprotocol() == "" {
			t.Error("the client does not offer graphql-transport-ws")
		}
		n++
		script(peer{t, conn, n})
	}))
	return client.New(client.Options{BaseURL: "http://vantage.test", Token: "tok", Dialer: network.Dialer()})
}

func (p peer) say(format string, args ...any) {
	if err := p.conn.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, format, args...)); err != nil {
		p.t.Error(err)
	}
}

// hear expects a message, compared as text.
func (p peer) hear(want string) {
	p.t.Helper()
	_, got, err := p.conn.ReadMessage()
	if err != nil || string(got) != want {
		p.t.Errorf("heard %s, %v; want %s", got, err, want)
	}
}

// welcome is a conversation up to the subscription.
func (p peer) welcome() {
	p.t.Helper()
	p.hear(`{"type":"connection_init","payload":{"authorization":"Bearer tok"}}`)
	p.say(`{"type": "connection_ack"}`)
	_, got, err := p.conn.ReadMessage()
	if err != nil || !strings.HasPrefix(string(got), `{"id":"1","type":"subscribe","payload":{"query":"subscription`) {
		p.t.Errorf("heard %s, %v; want a subscription", got, err)
	}
}

func (p peer) close(code int, reason string) {
	if err := p.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(time.Minute)); err != nil {
		p.t.Error(err)
	}
}

// drain reads until the client leaves, and returns what it said.
func (p peer) drain() []string {
	var heard []string
	for {
		_, b, err := p.conn.ReadMessage()
		if err != nil {
			return heard
		}
		heard = append(heard, string(b))
	}
}

const tickDocument = "subscription($after: Cursor) { tick(after: $after) { cursor } }"

func subscribe(t *testing.T, c *client.Client) *client.Subscription {
	t.Helper()
	s, err := c.Subscribe(t.Context(), tickDocument, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func closed(t *testing.T, err error, code int) {
	t.Helper()
	e, ok := errors.AsType[*client.CloseError](err)
	if !ok || e.Code != code {
		t.Errorf("got %v, want close code %d", err, code)
	}
}

func TestSubscribe(t *testing.T) {
	t.Parallel()
	t.Run("results come in order until the server completes", func(t *testing.T) {
		t.Parallel()
		s := subscribe(t, converse(t, func(p peer) {
			p.hear(`{"type":"connection_init","payload":{"authorization":"Bearer tok"}}`)
			p.say(`{"type": "ping"}`)
			p.hear(`{"type":"pong"}`)
			p.say(`{"type": "pong"}`)
			p.say(`{"type": "connection_ack", "payload": {"hello": 1}}`)
			p.hear(`{"id":"1","type":"subscribe","payload":{"query":"` + tickDocument + `"}}`)
			p.say(`{"id": "1", "type": "next", "payload": {"data": {"tick": 1}}}`)
			p.say(`{"type": "ping", "payload": {"n": 5}}`)
			p.hear(`{"type":"pong","payload":{"n":5}}`)
			p.say(`{"id": "1", "type": "next", "payload": {"data": {"tick": 2}}}`)
			p.say(`{"id": "1", "type": "complete"}`)
			p.drain()
		}))
		var got []string
		for data, err := range s.All(t.Context()) {
			got = append(got, fmt.Sprint(string(data), err))
		}
		if diff := cmp.Diff([]string{`{"tick": 1}<nil>`, `{"tick": 2}<nil>`}, got); diff != "" {
			t.Error(diff)
		}
		if err := s.Next(t.Context(), nil); !errors.Is(err, io.EOF) {
			t.Errorf("got %v after the end", err)
		}
	})
	t.Run("a result with errors does not end the subscription", func(t *testing.T) {
		t.Parallel()
		s := subscribe(t, converse(t, func(p peer) {
			p.welcome()
			p.say(`{"id": "1", "type": "next", "payload": {"data": null, "errors": [{"message": "No.", "extensions": {"code": "UNAVAILABLE"}}]}}`)
			p.say(`{"id": "1", "type": "next", "payload": {"data": {"tick": 2}}}`)
			p.drain()
		}))
		want(t, s.Next(t.Context(), nil), fault.Unavailable, "", 0)
		var out struct{ Tick int }
		if err := s.Next(t.Context(), &out); err != nil || out.Tick != 2 {
			t.Errorf("got %v, %v", out, err)
		}
	})
	t.Run("an error message ends it, and stays the answer", func(t *testing.T) {
		t.Parallel()
		s := subscribe(t, converse(t, func(p peer) {
			p.welcome()
			p.say(`{"id": "1", "type": "error", "payload": [{"message": "Trimmed.", "extensions": {"code": "RESYNC"}}]}`)
			p.drain()
		}))
		for range 2 {
			want(t, s.Next(t.Context(), nil), fault.Resync, "", 0)
		}
	})
	t.Run("a close code is told with its reason", func(t *testing.T) {
		t.Parallel()
		s := subscribe(t, converse(t, func(p peer) {
			p.welcome()
			p.close(4503, "slow consumer")
		}))
		err := s.Next(t.Context(), nil)
		closed(t, err, 4503)
		if diff := cmp.Diff("websocket closed with code 4503: slow consumer", err.Error()); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a connection that breaks is code 1006", func(t *testing.T) {
		t.Parallel()
		s := subscribe(t, converse(t, func(p peer) {
			p.welcome()
			p.conn.NetConn().Close()
		}))
		closed(t, s.Next(t.Context(), nil), websocket.CloseAbnormalClosure)
	})
	for name, message := range map[string]string{
		"an unknown message":               `{"type": "hello"}`,
		"a message that is not JSON":       `hello`,
		"a result of nobody's operation":   `{"id": "2", "type": "next", "payload": {}}`,
		"an error that is not a list":      `{"id": "1", "type": "error", "payload": {}}`,
		"an acknowledgement that is twice": `{"type": "connection_ack"}`,
	} {
		t.Run(name+" is answered by closing", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { // or its words might come too late
				told := make(chan error, 1)
				s := subscribe(t, converse(t, func(p peer) {
					p.welcome()
					p.say("%s", message)
					_, _, err := p.conn.ReadMessage()
					told <- err
				}))
				closed(t, s.Next(t.Context(), nil), 4004)
				if err := <-told; !websocket.IsCloseError(err, 4004) {
					t.Errorf("the server was told %v", err)
				}
			})
		})
	}
	t.Run("a refused token fails the subscription with the close code", func(t *testing.T) {
		t.Parallel()
		c := converse(t, func(p peer) {
			p.hear(`{"type":"connection_init","payload":{"authorization":"Bearer tok"}}`)
			p.close(4403, "Forbidden")
		})
		_, err := c.Subscribe(t.Context(), tickDocument, nil)
		closed(t, err, 4403)
	})
	t.Run("nobody is introduced without a token", func(t *testing.T) {
		t.Parallel()
		c := converse(t, func(p peer) {
			p.hear(`{"type":"connection_init"}`)
			p.say(`{"type": "connection_ack"}`)
			p.drain()
		})
		subscribe(t, c.As(""))
	})
	t.Run("a refused upgrade fails by its status", func(t *testing.T) {
		t.Parallel()
		c := serveFunc(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) })
		_, err := c.Subscribe(t.Context(), tickDocument, nil)
		want(t, err, fault.RateLimited, "", 0)
	})
	t.Run("closing tells the server and ends Next", func(t *testing.T) {
		t.Parallel()
		heard := make(chan []string, 1)
		s := subscribe(t, converse(t, func(p peer) {
			p.welcome()
			heard <- p.drain()
		}))
		s.Close()
		s.Close()
		if err := s.Next(t.Context(), nil); err == nil {
			t.Error("Next after Close succeeds")
		}
		if diff := cmp.Diff([]string{`{"id":"1","type":"complete"}`}, <-heard); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("closing does not wait for a reader who has stopped", func(t *testing.T) {
		t.Parallel()
		s := subscribe(t, converse(t, func(p peer) {
			p.welcome()
			go p.drain()
			for p.conn.WriteMessage(websocket.TextMessage, []byte(`{"id":"1","type":"next","payload":{"data":1}}`)) == nil {
			}
		}))
		if err := s.Next(t.Context(), nil); err != nil {
			t.Error(err)
		}
		s.Close()
	})
	t.Run("a caller who gives up on one result can wait again", func(t *testing.T) {
		t.Parallel()
		more := make(chan struct{})
		s := subscribe(t, converse(t, func(p peer) {
			p.welcome()
			<-more
			p.say(`{"id": "1", "type": "next", "payload": {"data": {}}}`)
			p.drain()
		}))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Next(ctx, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		close(more)
		if err := s.Next(t.Context(), nil); err != nil {
			t.Error(err)
		}
	})
}

func TestSubscriptionPatience(t *testing.T) {
	t.Parallel()
	t.Run("a server that never acknowledges is given up as UNAVAILABLE", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			c := converse(t, func(p peer) { p.drain() })
			began := time.Now()
			_, err := c.Subscribe(t.Context(), tickDocument, nil)
			want(t, err, fault.Unavailable, "", 0)
			if d := time.Since(began); d != 15*time.Second {
				t.Errorf("after %v", d)
			}
		})
	})
	t.Run("a quiet server that answers pings is not given up", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := subscribe(t, converse(t, func(p peer) {
				p.welcome()
				for range 20 {
					p.hear(`{"type":"ping"}`)
					p.say(`{"type": "pong"}`)
				}
				p.say(`{"id": "1", "type": "next", "payload": {"data": {}}}`)
				p.drain()
			}))
			began := time.Now()
			if err := s.Next(t.Context(), nil); err != nil || time.Since(began) != 5*time.Minute {
				t.Errorf("got %v after %v", err, time.Since(began))
			}
		})
	})
	t.Run("a server that is silent is given up", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := subscribe(t, converse(t, func(p peer) {
				p.welcome()
				p.drain()
			}))
			began := time.Now()
			closed(t, s.Next(t.Context(), nil), websocket.CloseAbnormalClosure)
			if d := time.Since(began); d != 45*time.Second {
				t.Errorf("after %v", d)
			}
		})
	})
}

// afters are the cursors with which each connection subscribed.
type afters []string

func (a *afters) hear(p peer) {
	p.hear(`{"type":"connection_init","payload":{"authorization":"Bearer tok"}}`)
	p.say(`{"type": "connection_ack"}`)
	var m struct {
		Payload struct {
			Variables struct{ After, Country string }
		}
	}
	if err := p.conn.ReadJSON(&m); err != nil {
		p.t.Error(err)
	}
	if m.Payload.Variables.Country != "IR" {
		p.t.Errorf("country %q is lost", m.Payload.Variables.Country)
	}
	*a = append(*a, m.Payload.Variables.After)
}

func tick(p peer, cursor string) {
	p.say(`{"id": "1", "type": "next", "payload": {"data": {"tick": {"cursor": %q}}}}`, cursor)
}

func TestFollow(t *testing.T) {
	t.Parallel()
	follow := func(t *testing.T, c *client.Client, variables map[string]any) (got []string, last error) {
		t.Helper()
		for data, err := range c.Follow(t.Context(), tickDocument, variables, "tick", "cursor") {
			if err != nil {
				last = err
				continue
			}
			var out struct{ Tick struct{ Cursor string } }
			if err := json.Unmarshal(data, &out); err != nil {
				t.Error(err)
			}
			got = append(got, out.Tick.Cursor)
		}
		return got, last
	}
	t.Run("a lost connection is continued after the last cursor, however it was lost", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var asked afters
			var at []time.Duration
			began := time.Now()
			c := converse(t, func(p peer) {
				at = append(at, time.Since(began))
				asked.hear(p)
				switch p.n {
				case 1:
					tick(p, "a")
					tick(p, "b")
					p.close(1012, "restart")
				case 2: // breaks before anything came
				case 3:
					p.close(4503, "slow")
				case 4:
					tick(p, "b") // a duplicate is the server's to avoid, and not hidden
					tick(p, "c")
				case 5:
					p.say(`{"id": "1", "type": "error", "payload": [{"message": "?", "extensions": {"code": "UNAVAILABLE", "retryAfter": 60}}]}`)
					p.drain()
				case 6:
					tick(p, "d")
					p.say(`{"id": "1", "type": "complete"}`)
					p.drain()
				}
			})
			got, err := follow(t, c, map[string]any{"country": "IR"})
			if diff := cmp.Diff([]string{"a", "b", "b", "c", "d"}, got); diff != "" || err != nil {
				t.Error(diff, err)
			}
			if diff := cmp.Diff(afters{"", "b", "b", "b", "c", "c"}, asked); diff != "" {
				t.Error(diff)
			}
			for n, wait := range []float64{0.5, 1, 2, 0.5} { // the fourth follows a success
				if d := (at[n+1] - at[n]).Seconds(); d < 0.7*wait || d > 1.3*wait {
					t.Errorf("connection %d came after %.2f s, want %.1f ±30 %%", n+2, d, wait)
				}
			}
			if d := at[5] - at[4]; d < time.Minute {
				t.Errorf("the last connection came after %v although the server asked for a minute", d)
			}
		})
	})
	for name, script := range map[string]func(peer){
		"RESYNC": func(p peer) {
			p.say(`{"id": "1", "type": "error", "payload": [{"message": "Trimmed.", "extensions": {"code": "RESYNC"}}]}`)
		},
		"a refused token": func(p peer) { p.close(4403, "Forbidden") },
	} {
		t.Run(name+" is not tried again", func(t *testing.T) {
			t.Parallel()
			var asked afters
			c := converse(t, func(p peer) {
				asked.hear(p)
				script(p)
				p.drain()
			})
			given := map[string]any{"country": "IR", "after": "z"}
			got, err := follow(t, c, given)
			if len(got) != 0 || err == nil {
				t.Errorf("got %v, %v", got, err)
			}
			if diff := cmp.Diff(afters{"z"}, asked); diff != "" || given["after"] != "z" {
				t.Error(diff, given)
			}
		})
	}
	t.Run("a caller who gives up while the server is away gets the context's error", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			network := clienttest.Serve(t, http.NotFoundHandler())
			network.Close()
			c := client.New(client.Options{BaseURL: "http://vantage.test", Dialer: network.Dialer()})
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			for _, err := range c.Follow(ctx, tickDocument, nil, "tick", "cursor") {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
			}
		})
	})
	t.Run("leaving the loop closes the connection", func(t *testing.T) {
		t.Parallel()
		gone := make(chan struct{})
		var asked afters
		c := converse(t, func(p peer) {
			asked.hear(p)
			tick(p, "a")
			p.drain()
			close(gone)
		})
		for _, err := range c.Follow(t.Context(), tickDocument, map[string]any{"country": "IR"}, "tick", "cursor") {
			if err != nil {
				t.Error(err)
			}
			break
		}
		<-gone
	})
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	for failures, want := range map[int]float64{-1: 0.5, 0: 0.5, 1: 0.5, 2: 1, 3: 2, 4: 4, 5: 8, 6: 15, 1000: 15} {
		for range 100 {
			if got := client.Backoff(failures).Seconds(); got < 0.7*want || got > 1.3*want {
				t.Errorf("after %d failures: %.2f s, want %.1f ±30 %%", failures, got, want)
			}
		}
	}
}
