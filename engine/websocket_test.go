package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"github.com/openvantage/vantage/fault"
)

// A dock is a site whose websockets are looked after, in place of the server.
type dock struct {
	*site
	tb      testing.TB
	address string
	open    func() (net.Conn, error)
	ended   chan int // the codes of sockets that ended
}

// dockMeter hears how sockets end.
type dockMeter struct {
	deaf
	ended chan int
}

func (m dockMeter) SocketOpened() func(int) { return func(code int) { m.ended <- code } }

type whoKey struct{}

// newDock serves until the test ends, and then checks that Close leaves nothing behind. A
// connection_init may say who asks; whoever says a code is refused with it.
func newDock(tb testing.TB, change func(*Options)) *dock {
	tb.Helper()
	d := newDockEngine(tb, change)
	server := httptest.NewServer(d.Engine)
	d.url, d.address = server.URL, server.Listener.Addr().String()
	d.open = func() (net.Conn, error) { return net.Dial("tcp", d.address) }
	tb.Cleanup(server.Close)
	d.run(tb)
	return d
}

// newBubbleDock is one inside a synctest bubble, where nothing is late.
func newBubbleDock(tb testing.TB, change func(*Options)) *dock {
	tb.Helper()
	d := newDockEngine(tb, change)
	d.open = d.bubble(tb, &http.Server{})
	d.run(tb)
	return d
}

func newDockEngine(tb testing.TB, change func(*Options)) *dock {
	tb.Helper()
	d := &dock{tb: tb, ended: make(chan int, 50_000)}
	d.site = newSiteEngine(tb, func(o *Options) {
		o.Rates = nil
		o.Refuse = func(w http.ResponseWriter, r *http.Request, status int, err error) {
			if fault.Is(err, fault.Unavailable) {
				status = http.StatusServiceUnavailable
			}
			refuse(w, r, status, err)
		}
		o.Meter = dockMeter{ended: d.ended}
		o.OriginAllowed = func(r *http.Request) bool {
			return r.Header.Get("Origin") == "" || r.Header.Get("Origin") == "https://ours.example"
		}
		o.Caller = func(ctx context.Context) Caller {
			who, _ := ctx.Value(whoKey{}).(string)
			return Caller{Limits: DefaultLimits, Payer: Payer{Key: who}}
		}
		o.Init = func(ctx context.Context, payload map[string]any) (context.Context, error) {
			if code, ok := payload["refuse"].(string); ok {
				return nil, fault.New(fault.Code(code), "You may not.")
			}
			if payload["panic"] != nil {
				panic("a secret of ours")
			}
			return context.WithValue(ctx, whoKey{}, payload["who"]), nil
		}
		if change != nil {
			change(o)
		}
	})
	return d
}

// run looks after the websockets until the test ends.
func (d *dock) run(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	running := make(chan error)
	go func() { running <- d.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-running; err != nil {
			tb.Error(err)
		}
		grace, cancel := context.WithTimeout(context.Background(), 0)
		defer cancel()
		if err := d.Close(grace); err != nil {
			tb.Error(err)
		}
	})
}

// A peer is a client that can send anything.
type peer struct {
	tb   testing.TB
	conn net.Conn
	in   *bufio.Reader
}

const handshake = "GET /graphql HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

const offer = "Sec-WebSocket-Protocol: graphql-transport-ws\r\n"

// connect sends the beginning of a request and returns the answer.
func (d *dock) connect(tb testing.TB, request string) (*peer, *http.Response) {
	tb.Helper()
	conn, err := d.open()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		tb.Fatal(err)
	}
	p := &peer{tb, conn, bufio.NewReader(conn)}
	p.send([]byte(request + "\r\n"))
	res, err := http.ReadResponse(p.in, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return p, res
}

// dial is a socket that is not initialised.
func (d *dock) dial(tb testing.TB) *peer {
	tb.Helper()
	p, res := d.connect(tb, handshake+offer)
	if res.StatusCode != http.StatusSwitchingProtocols {
		tb.Fatalf("the upgrade is answered with %d", res.StatusCode)
	}
	return p
}

// join is a socket that is initialised.
func (d *dock) join(tb testing.TB) *peer {
	tb.Helper()
	p := d.dial(tb)
	p.say(`{"type":"connection_init"}`)
	p.hears(`{"type":"connection_ack"}`)
	return p
}

func (p *peer) send(b []byte) {
	p.tb.Helper()
	if _, err := p.conn.Write(b); err != nil {
		p.tb.Fatal(err)
	}
}

// masked is a frame as clients send them.
func masked(first byte, payload []byte) []byte {
	b := appendHeader(nil, 0, len(payload))
	b[0] = first
	b[1] |= 0x80
	key := [4]byte{0x12, 0x34, 0x56, 0x78}
	b = append(b, key[:]...)
	for i, c := range payload {
		b = append(b, c^key[i%4])
	}
	return b
}

func (p *peer) say(text string) {
	p.tb.Helper()
	p.send(masked(finalFrame|frameText, []byte(text)))
}

// tries is say to a server that may have left.
func (p *peer) tries(text string) { _, _ = p.conn.Write(masked(finalFrame|frameText, []byte(text))) }

// frame reads the next frame.
func (p *peer) frame() (first byte, payload []byte, err error) {
	var h [8]byte
	if _, err := io.ReadFull(p.in, h[:2]); err != nil {
		return 0, nil, err
	}
	first = h[0]
	n := uint64(h[1])
	switch n {
	case 126:
		_, err = io.ReadFull(p.in, h[:2])
		n = uint64(binary.BigEndian.Uint16(h[:2]))
	case 127:
		_, err = io.ReadFull(p.in, h[:8])
		n = binary.BigEndian.Uint64(h[:8])
	}
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(p.in, payload)
	return first, payload, err
}

// listen is the next message.
func (p *peer) listen() string {
	p.tb.Helper()
	for {
		switch first, b, err := p.frame(); {
		case err != nil:
			p.tb.Fatal(err)
		case first == finalFrame|framePing:
			p.send(masked(finalFrame|framePong, b))
		case first == finalFrame|frameText:
			if !utf8.Valid(b) || !json.Valid(b) {
				p.tb.Fatalf("the message is %q", b)
			}
			return string(b)
		default:
			p.tb.Fatalf("a frame %#x %q came instead of a message", first, b)
		}
	}
}

func (p *peer) hears(want string) {
	p.tb.Helper()
	if got := p.listen(); got != want {
		p.tb.Fatalf("the client hears %s, want %s", got, want)
	}
}

// ends expects the end of the socket, after any messages, in good order.
func (p *peer) ends(code int, reason string) {
	p.tb.Helper()
	for {
		first, b, err := p.frame()
		if err != nil {
			p.tb.Fatalf("the socket ends with %v, want %d %s", err, code, reason)
		}
		if first != finalFrame|frameClose {
			continue
		}
		if code == closeNoStatus && len(b) == 0 {
			break
		}
		if len(b) < 2 || int(binary.BigEndian.Uint16(b)) != code || string(b[2:]) != reason {
			p.tb.Fatalf("the socket ends with %q, want %d %s", b, code, reason)
		}
		if len(b) > maxControl || !utf8.Valid(b[2:]) {
			p.tb.Fatalf("the reason has %d bytes: %q", len(b), b)
		}
		_, _ = p.conn.Write(masked(finalFrame|frameClose, b[:2]))
		break
	}
	if b, err := io.ReadAll(p.in); err != nil || len(b) > 0 {
		p.tb.Fatalf("after the close frame comes %q, %v", b, err)
	}
	p.conn.Close()
}

// operating is a `subscribe` message.
func operating(id, query string) string {
	b, err := json.Marshal(map[string]any{"id": id, "type": "subscribe", "payload": map[string]any{"query": query}})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// A said is a message of the server, taken apart.
type said struct {
	ID, Type string
	Payload  json.RawMessage
}

// told is the next message, which must be of this type and about this operation.
func (p *peer) told(kind, id string) said {
	p.tb.Helper()
	text := p.listen()
	var m said
	if err := json.Unmarshal([]byte(text), &m); err != nil || m.Type != kind || m.ID != id {
		p.tb.Fatalf("the client hears %s, want %s of %q", text, kind, id)
	}
	return m
}

// answers expects the result of a query, and its completion.
func (p *peer) answers(id, data string) {
	p.tb.Helper()
	var got struct{ Data json.RawMessage }
	if m := p.told("next", id); json.Unmarshal(m.Payload, &got) != nil || string(got.Data) != data {
		p.tb.Fatalf("%s is answered by %s, want %s", id, m.Payload, data)
	}
	p.told("complete", id)
}

// fails expects an error message with this code.
func (p *peer) fails(id string, code fault.Code) {
	p.tb.Helper()
	var errs []struct {
		Message    string
		Extensions struct{ Code fault.Code }
	}
	m := p.told("error", id)
	if err := json.Unmarshal(m.Payload, &errs); err != nil || len(errs) == 0 || errs[0].Message == "" || errs[0].Extensions.Code != code {
		p.tb.Fatalf("%s fails with %s, want %s", id, m.Payload, code)
	}
}

// lives checks that nothing else was said, and that the socket works.
func (p *peer) lives() {
	p.tb.Helper()
	p.say(`{"type":"ping","payload":{"are":"you there"}}`)
	p.hears(`{"type":"pong","payload":{"are":"you there"}}`)
}

func TestWebsocketHandshake(t *testing.T) {
	t.Parallel()
	d := newDock(t, nil)

	t.Run("the protocol is chosen from those offered, and nothing else is negotiated", func(t *testing.T) {
		t.Parallel()
		for _, offers := range []string{"graphql-transport-ws", "graphql-ws, graphql-transport-ws", "graphql-transport-ws, chat"} {
			p, res := d.connect(t, handshake+"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nSec-WebSocket-Protocol: "+offers+"\r\n")
			if got := res.Header.Get("Sec-WebSocket-Protocol"); res.StatusCode != 101 || got != protocol {
				t.Errorf("%q is answered by %d and %q", offers, res.StatusCode, got)
			}
			if got := res.Header.Get("Sec-WebSocket-Extensions"); got != "" {
				t.Errorf("the server wants %s", got)
			}
			p.lives()
		}
	})

	t.Run("another protocol is closed with 4406", func(t *testing.T) {
		t.Parallel()
		for _, offers := range []string{"", "Sec-WebSocket-Protocol: graphql-ws\r\n", "Sec-WebSocket-Protocol: chat, graphql-ws\r\n"} {
			p, res := d.connect(t, handshake+offers)
			if got := res.Header.Get("Sec-WebSocket-Protocol"); res.StatusCode != 101 || got != "" {
				t.Errorf("%q is answered by %d and %q", offers, res.StatusCode, got)
			}
			p.ends(4406, "Subprotocol not acceptable")
		}
	})

	t.Run("pages of other origins are refused before the upgrade", func(t *testing.T) {
		t.Parallel()
		for origin, status := range map[string]int{"https://ours.example": 101, "https://theirs.example": 403, "null": 403} {
			p, res := d.connect(t, handshake+offer+"Origin: "+origin+"\r\n")
			if res.StatusCode != status {
				t.Errorf("%s is answered by %d", origin, res.StatusCode)
			}
			if b := make([]byte, 512); status == 403 {
				if n, _ := res.Body.Read(b); !bytes.Contains(b[:n], []byte("FORBIDDEN")) {
					t.Errorf("the refusal is %q", b[:n])
				}
			} else {
				p.lives()
			}
		}
	})

	t.Run("what is no handshake is refused", func(t *testing.T) {
		t.Parallel()
		for name, request := range map[string]string{
			"version": strings.Replace(handshake, "Version: 13", "Version: 8", 1) + offer,
			"key":     strings.Replace(handshake, "dGhlIHNhbXBsZSBub25jZQ==", "short", 1) + offer,
			"method":  strings.Replace(handshake, "GET", "POST", 1) + offer,
		} {
			_, res := d.connect(t, request)
			if res.StatusCode != 400 && res.StatusCode != 405 || res.Header.Get("Sec-Websocket-Version") != "13" {
				t.Errorf("a bad %s is answered by %d and %v", name, res.StatusCode, res.Header)
			}
		}
	})
}

func TestWebsocketInit(t *testing.T) {
	t.Parallel()
	d := newDock(t, nil)

	t.Run("connection_init is acknowledged, whatever object it brings", func(t *testing.T) {
		t.Parallel()
		for _, payload := range []string{``, `,"payload":null`, `,"payload":{}`, `,"payload":{"authorization":"x","deep":{"er":[1]}}`, `,"other":1`} {
			p := d.dial(t)
			p.say(`{"type":"connection_init"` + payload + `}`)
			p.hears(`{"type":"connection_ack"}`)
			p.lives()
		}
	})

	t.Run("a second one closes with 4429", func(t *testing.T) {
		t.Parallel()
		p := d.join(t)
		p.say(`{"type":"connection_init"}`)
		p.ends(4429, "Too many initialisation requests")
		p = d.dial(t)
		p.say(`{"type":"connection_init"}`)
		p.tries(`{"type":"connection_init"}`)
		p.ends(4429, "Too many initialisation requests")
	})

	t.Run("who is refused is told the code alone", func(t *testing.T) {
		t.Parallel()
		for code, want := range map[string]string{
			"FORBIDDEN": "4403 FORBIDDEN", "UNAUTHENTICATED": "4403 UNAUTHENTICATED", "INVALID": "4403 INVALID",
			"UNAVAILABLE": "1013 Try again later", "RATE_LIMITED": "1013 Try again later", "INTERNAL": "1013 Try again later",
		} {
			p := d.dial(t)
			p.say(`{"type":"connection_init","payload":{"refuse":"` + code + `"}}`)
			number, reason, _ := strings.Cut(want, " ")
			p.ends(atoi(number), reason)
		}
	})

	t.Run("a panic is ours", func(t *testing.T) {
		t.Parallel()
		p := d.dial(t)
		p.say(`{"type":"connection_init","payload":{"panic":1}}`)
		p.ends(1013, "Try again later")
	})

	t.Run("operations before it close with 4401", func(t *testing.T) {
		t.Parallel()
		p := d.dial(t)
		p.say(operating("1", "{ ping }"))
		p.ends(4401, "Unauthorized")
	})

	t.Run("none closes with 4408", func(t *testing.T) {
		t.Parallel()
		for _, busy := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				d := newBubbleDock(t, nil)
				p, joined := d.dial(t), d.join(t)
				if busy {
					p.say(`{"type":"ping"}`)
				}
				p.ends(4408, "Connection initialisation timeout")
				joined.lives()
			})
		}
	})
}

func atoi(s string) (n int) {
	_, _ = fmt.Sscan(s, &n)
	return n
}

func TestWebsocketMessages(t *testing.T) {
	t.Parallel()
	d := newDock(t, nil)

	t.Run("a ping is answered by a pong with the same payload, at any time", func(t *testing.T) {
		t.Parallel()
		p := d.dial(t)
		for _, payload := range []string{``, `,"payload":{}`, `,"payload":{"a":[1, {"b": null}],"c":"\u00e4\n"}`} {
			p.say(`{"type":"ping"` + payload + `}`)
			p.hears(`{"type":"pong"` + payload + `}`)
		}
		p.say(`{"type":"ping","payload":null}`)
		p.hears(`{"type":"pong"}`)
		p.say(`{"type":"pong"}`)
		p.say(`{"type":"pong","payload":null}`)
		p.say(` {"payload" : { "x" : 1 } , "type" : "pong"} `)
		p.lives()
		p.say(`{"type":"connection_init"}`)
		p.hears(`{"type":"connection_ack"}`)
		p.lives()
	})

	// Nothing of these may be in what the server says of them.
	const secret = "hunter2"
	for name, c := range map[string]struct{ text, reason string }{
		"nothing":                     {"", reasonNotObject},
		"no JSON":                     {"{" + secret, reasonNotObject},
		"JSON and more":               {`{"type":"ping"} {"` + secret + `":1}`, reasonNotObject},
		"null":                        {`null`, reasonNotObject},
		"a string":                    {`"` + secret + `"`, reasonNotObject},
		"an array":                    {`[{"type":"ping"},"` + secret + `"]`, reasonNotObject},
		"no type":                     {`{"id":"` + secret + `"}`, reasonType},
		"an unknown type":             {`{"type":"` + secret + `"}`, reasonType},
		"a type in capitals":          {`{"type":"PING"}`, reasonType},
		"a name in capitals":          {`{"Type":"ping"}`, reasonType},
		"a number as type":            {`{"type":7}`, reasonType},
		"the server's ack":            {`{"type":"connection_ack"}`, reasonType},
		"the server's next":           {`{"type":"next","id":"1","payload":{}}`, reasonType},
		"the server's error":          {`{"type":"error","id":"1","payload":[]}`, reasonType},
		"the older protocol's start":  {`{"type":"start","id":"1","payload":{"query":"{ ping }"}}`, reasonType},
		"a ping with a string":        {`{"type":"ping","payload":"` + secret + `"}`, reasonPayload},
		"a pong with an array":        {`{"type":"pong","payload":["` + secret + `"]}`, reasonPayload},
		"an init with a number":       {`{"type":"connection_init","payload":7}`, reasonPayload},
		"an init with an array":       {`{"type":"connection_init","payload":[]}`, reasonPayload},
		"a subscribe without id":      {`{"type":"subscribe","payload":{"query":"{ ping }"}}`, reasonID},
		"a subscribe with empty id":   {`{"type":"subscribe","id":"","payload":{"query":"{ ping }"}}`, reasonID},
		"a subscribe with a number":   {`{"type":"subscribe","id":1,"payload":{"query":"{ ping }"}}`, reasonID},
		"a subscribe with id null":    {`{"type":"subscribe","id":null,"payload":{"query":"{ ping }"}}`, reasonID},
		"a subscribe with a long id":  {operating(strings.Repeat("x", maxID+1), "{ ping }"), reasonID},
		"a complete without id":       {`{"type":"complete"}`, reasonID},
		"a complete with empty id":    {`{"type":"complete","id":""}`, reasonID},
		"a complete with an object":   {`{"type":"complete","id":{"` + secret + `":1}}`, reasonID},
		"a subscribe without payload": {`{"type":"subscribe","id":"1"}`, reasonPayload},
		"a subscribe with null":       {`{"type":"subscribe","id":"1","payload":null}`, reasonPayload},
		"a subscribe with a string":   {`{"type":"subscribe","id":"1","payload":"{ ping }"}`, reasonPayload},
		"a lone surrogate":            {`{"type":"ping","payload":{"x":"\ud800` + secret + `"}}`, reasonNotUTF8},
		"no UTF-8":                    {"{\"type\":\"ping\",\"payload\":{\"x\":\"\xff" + secret + "\"}}", reasonNotUTF8},
		"half a character":            {"{\"type\":\"ping\"}\xc3", reasonNotUTF8},
	} {
		t.Run(name+" closes with 4400, before and after connection_init", func(t *testing.T) {
			t.Parallel()
			for _, p := range []*peer{d.dial(t), d.join(t)} {
				p.say(c.text)
				p.ends(4400, c.reason)
			}
			if strings.Contains(c.reason, secret) {
				t.Error("the reason says too much")
			}
		})
	}

	for name, payload := range map[string]string{
		"no query": `{}`, "a number as query": `{"query":1}`, "null as query": `{"query":null}`,
		"a list of variables": `{"query":"{ ping }","variables":[]}`, "a string of variables": `{"query":"{ ping }","variables":"x"}`,
		"a number as name": `{"query":"{ ping }","operationName":1}`, "a list of extensions": `{"query":"{ ping }","extensions":[]}`,
	} {
		t.Run("a request with "+name+" closes with 4400", func(t *testing.T) {
			t.Parallel()
			p := d.join(t)
			p.say(`{"type":"subscribe","id":"1","payload":` + payload + `}`)
			p.ends(4400, reasonRequest)
		})
	}
}

func TestWebsocketOperations(t *testing.T) {
	t.Parallel()
	d := newDock(t, nil)

	t.Run("queries and mutations are answered once and completed", func(t *testing.T) {
		t.Parallel()
		p := d.join(t)
		p.say(operating("q", "{ ping }"))
		p.answers("q", `{"ping":"pong"}`)
		p.say(operating("m", `mutation { set(value: "x") }`))
		p.answers("m", `{"set":"x"}`)
		p.say(`{"id":"v","type":"subscribe","payload":{"query":"query A { ping } query B($t: String) { echo(text: $t) }","operationName":"B","variables":{"t":"é\u2028"},"extensions":null}}`)
		p.answers("v", "{\"echo\":\"é\\u2028\"}")
		p.lives()
	})

	t.Run("a field that fails is in the result", func(t *testing.T) {
		t.Parallel()
		p := d.join(t)
		p.say(operating("1", `{ ping fail(code: "CONFLICT") }`))
		if m := p.told("next", "1"); !bytes.Contains(m.Payload, []byte(`"CONFLICT"`)) || !bytes.Contains(m.Payload, []byte(`"ping":"pong"`)) {
			t.Errorf("the result is %s", m.Payload)
		}
		p.told("complete", "1")
	})

	t.Run("what cannot run fails and is not completed, and its id is free", func(t *testing.T) {
		t.Parallel()
		p := d.join(t)
		for query, code := range map[string]fault.Code{
			"{": fault.ParseFailed, "{ nothing }": fault.ValidationFailed, "query A { ping } query B { ping }": fault.ValidationFailed,
			"subscription { ticks { nothing } }": fault.ValidationFailed, "query ($x: ID!) { person(id: $x) { name } }": fault.ValidationFailed,
		} {
			p.say(operating("1", query))
			p.fails("1", code)
		}
		p.lives()
	})

	t.Run("a subscription sends what happens, until the client completes it", func(t *testing.T) {
		t.Parallel()
		d := newDock(t, nil)
		p := d.join(t)
		p.say(operating("a", "subscription { ticks { seq } }"))
		p.say(operating("b", "subscription { ticks { seq } }"))
		d.callsOf(t, 2)
		for i := 1; i <= 3; i++ {
			d.journal.write("x", "", "", false)
			heard := map[string]bool{}
			for range 2 {
				var m said
				text := p.listen()
				if json.Unmarshal([]byte(text), &m) != nil || string(m.Payload) != fmt.Sprintf(`{"data":{"ticks":{"seq":%d}}}`, i) {
					t.Fatalf("the client hears %s", text)
				}
				heard[m.ID] = true
			}
			if !heard["a"] || !heard["b"] {
				t.Fatalf("%v have heard", heard)
			}
		}
		p.say(`{"type":"complete","id":"a"}`)
		p.lives() // no completion is echoed
		d.journal.write("x", "", "", false)
		p.told("next", "b")
		p.lives()
		p.say(operating("a", "{ ping }"))
		p.answers("a", `{"ping":"pong"}`)
	})

	t.Run("completing what does not run is no mistake", func(t *testing.T) {
		t.Parallel()
		p := d.join(t)
		p.say(`{"type":"complete","id":"never"}`)
		p.say(operating("1", "{ ping }"))
		p.answers("1", `{"ping":"pong"}`)
		p.say(`{"type":"complete","id":"1"}`)
		p.lives()
		early := d.dial(t)
		early.say(`{"type":"complete","id":"1"}`)
		early.lives()
	})

	t.Run("the id of an operation that runs closes with 4409", func(t *testing.T) {
		t.Parallel()
		for _, c := range []struct{ id, reason string }{
			{"1", "Subscriber for 1 already exists"},
			{strings.Repeat("x", maxID), "Subscriber for " + strings.Repeat("x", 93) + " already exists"},
			{strings.Repeat("é", maxID/2), "Subscriber for " + strings.Repeat("é", 46) + " already exists"},
		} {
			for _, second := range []string{"{ ping }", "subscription { ticks { seq } }"} {
				p := d.join(t)
				p.say(operating(c.id, "{ slow }"))
				p.say(operating(c.id, second))
				p.ends(4409, c.reason)
			}
		}
	})

	t.Run("one operation too many fails alone", func(t *testing.T) {
		t.Parallel()
		d := newDock(t, func(o *Options) { o.Sockets.Operations = 2 })
		p := d.join(t)
		p.say(operating("1", "subscription { ticks { seq } }"))
		p.say(operating("2", "{ slow }"))
		d.callsOf(t, 1)
		p.say(operating("3", "{ ping }"))
		p.fails("3", fault.RateLimited)
		p.say(`{"type":"complete","id":"1"}`)
		p.say(operating("3", "{ ping }"))
		p.answers("3", `{"ping":"pong"}`)
	})

	for name, leave := range map[string]func(*peer){
		"completes it":     func(p *peer) { p.say(`{"type":"complete","id":"1"}`) },
		"closes":           func(p *peer) { p.send(masked(finalFrame|frameClose, nil)) },
		"is gone":          func(p *peer) { p.conn.Close() },
		"breaks the rules": func(p *peer) { p.say("") },
	} {
		t.Run("an operation ends when its client "+name, func(t *testing.T) {
			t.Parallel()
			began, over := make(chan struct{}), make(chan struct{})
			d := newDock(t, func(o *Options) {
				o.Schema = newTestSchema(t, map[string]func(context.Context, map[string]any) (any, error){
					"slow": func(ctx context.Context, _ map[string]any) (any, error) {
						close(began)
						<-ctx.Done()
						close(over)
						return "done", nil
					},
				})
			})
			p := d.join(t)
			p.say(operating("1", "{ slow }"))
			wait(t, began, "the query runs")
			leave(p)
			wait(t, over, "the query ends")
		})
	}

	t.Run("a slot is taken as long as something runs in it, whoever has left", func(t *testing.T) {
		t.Parallel()
		began, release := make(chan struct{}, 9), make(chan struct{})
		d := newDock(t, func(o *Options) {
			o.Sockets.Operations = 2
			o.Schema = newTestSchema(t, map[string]func(context.Context, map[string]any) (any, error){
				"slow": func(context.Context, map[string]any) (any, error) { // it looks at no context
					began <- struct{}{}
					<-release
					return "done", nil
				},
			})
		})
		p := d.join(t)
		for range 2 {
			p.say(operating("1", "{ slow }"))
			wait(t, began, "the query runs")
			p.say(`{"type":"complete","id":"1"}`)
		}
		p.say(operating("1", "{ ping }"))
		p.fails("1", fault.RateLimited)
		close(release)
		d.until(t, "the queries are over", func() bool {
			s := d.sockets.all()[0]
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.orphans == 0
		})
		p.say(operating("1", "{ ping }"))
		p.answers("1", `{"ping":"pong"}`)
	})
}

func wait(tb testing.TB, c <-chan struct{}, what string) {
	tb.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		tb.Fatalf("waited in vain until %s", what)
	}
}

// until waits for a condition that nobody tells of.
func (d *dock) until(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			tb.Fatalf("waited in vain until %s", what)
		}
	}
}

// callsOf are the subscriptions of all sockets, when so many are told what happens.
func (d *dock) callsOf(tb testing.TB, n int) (all []*call) {
	tb.Helper()
	d.until(tb, fmt.Sprintf("there are %d subscriptions", n), func() bool {
		all = all[:0]
		for _, s := range d.sockets.all() {
			s.mu.Lock()
			for _, c := range s.calls {
				if c.sub != nil && c.through {
					all = append(all, c)
				}
			}
			s.mu.Unlock()
		}
		for _, c := range all {
			c.sub.mu.Lock()
			joined := c.sub.group != nil
			c.sub.mu.Unlock()
			if !joined {
				return false
			}
		}
		return len(all) == n
	})
	return all
}

func TestWebsocketFrames(t *testing.T) {
	t.Parallel()
	d := newDock(t, func(o *Options) { o.Sockets.MessageBytes = 1 << 10 })
	ping := []byte(`{"type":"ping"}`)
	const pong = `{"type":"pong"}`

	t.Run("a control ping is answered with its payload, between fragments too", func(t *testing.T) {
		t.Parallel()
		p := d.dial(t)
		want := func(payload string) {
			t.Helper()
			if first, b, err := p.frame(); err != nil || first != finalFrame|framePong || string(b) != payload {
				t.Fatalf("the answer is %#x %q, %v", first, b, err)
			}
		}
		p.send(masked(finalFrame|framePing, []byte("x")))
		want("x")
		p.send(masked(frameText, ping[:3]))
		p.send(masked(finalFrame|framePing, nil))
		want("")
		p.send(masked(0, nil))
		p.send(masked(0, ping[3:7]))
		p.send(masked(finalFrame|framePing, bytes.Repeat([]byte("y"), maxControl)))
		want(strings.Repeat("y", maxControl))
		p.send(masked(finalFrame|framePong, []byte("unasked")))
		p.send(masked(finalFrame, ping[7:]))
		p.hears(pong)
	})

	t.Run("frames may come in any pieces", func(t *testing.T) {
		t.Parallel()
		p := d.dial(t)
		for _, b := range masked(finalFrame|frameText, ping) {
			p.send([]byte{b})
		}
		p.hears(pong)
		p.send(slices.Concat(masked(finalFrame|frameText, ping), masked(frameText, ping[:1]), masked(finalFrame, ping[1:])))
		p.hears(pong)
		p.hears(pong)
	})

	t.Run("the client's close is answered with its code", func(t *testing.T) {
		t.Parallel()
		for _, code := range []int{1000, 1001, 4000, 4999} {
			p := d.dial(t)
			p.send(masked(finalFrame|frameClose, binary.BigEndian.AppendUint16(nil, uint16(code))))
			p.ends(code, "")
		}
		p := d.join(t)
		p.send(masked(finalFrame|frameClose, append(binary.BigEndian.AppendUint16(nil, 1000), "Normal Closure"...)))
		p.ends(1000, "")
		p = d.join(t)
		p.send(masked(finalFrame|frameClose, nil))
		p.ends(closeNoStatus, "")
	})

	unmasked := appendHeader(nil, frameText, len(ping))
	for name, c := range map[string]struct {
		frames []byte
		code   int
	}{
		"a frame that is not masked":              {append(unmasked, ping...), 1002},
		"a reserved bit":                          {masked(finalFrame|0x40|frameText, ping), 1002},
		"another reserved bit":                    {masked(finalFrame|0x10|frameText, ping), 1002},
		"a reserved opcode":                       {masked(finalFrame|3, ping), 1002},
		"a reserved control opcode":               {masked(finalFrame|11, nil), 1002},
		"a continuation of nothing":               {masked(finalFrame, ping), 1002},
		"a message within another":                {append(masked(frameText, ping), masked(finalFrame|frameText, ping)...), 1002},
		"a control frame in fragments":            {masked(framePing, nil), 1002},
		"a long control frame":                    {masked(finalFrame|framePing, make([]byte, maxControl+1)), 1002},
		"a close code that nobody may send":       {masked(finalFrame|frameClose, []byte{1005 >> 8, 1005 & 0xff}), 1002},
		"half a close code":                       {masked(finalFrame|frameClose, []byte{3}), closeNoStatus},
		"a close reason that is no text":          {masked(finalFrame|frameClose, []byte{3, 232, 0xff}), 1002},
		"a binary message":                        {masked(finalFrame|2, ping), 4400},
		"a message over the limit":                {masked(finalFrame|frameText, append(ping, bytes.Repeat([]byte(" "), 1<<10)...)), 1009},
		"fragments over the limit":                {append(masked(frameText, bytes.Repeat([]byte(" "), 1000)), masked(finalFrame, make([]byte, 1000))...), 1009},
		"a message of 2^62 bytes":                 {[]byte{finalFrame | frameText, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, 1009},
		"a message of more bytes than there are":  {[]byte{finalFrame | frameText, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4}, 1009},
		"fragments of nothing, and no end of it":  {append(masked(frameText, nil), bytes.Repeat(masked(0, nil), 1000)...), 1009},
		"a message over the limit, not yet there": {masked(finalFrame|frameText, make([]byte, 2<<10))[:20], 1009},
	} {
		t.Run(name+" closes", func(t *testing.T) {
			t.Parallel()
			p := d.join(t)
			p.send(c.frames)
			for {
				first, b, err := p.frame()
				if err != nil {
					t.Fatalf("the socket ends with %v, want %d", err, c.code)
				}
				if first != finalFrame|frameClose {
					t.Fatalf("a frame %#x came", first)
				}
				if c.code == closeTooBig && string(b[2:]) != reasonTooBig {
					t.Errorf("the reason is %q", b[2:])
				}
				if c.code == closeNoStatus && len(b) == 0 || len(b) >= 2 && int(binary.BigEndian.Uint16(b)) == c.code {
					return
				}
				t.Fatalf("closed with %q, want %d", b, c.code)
			}
		})
	}

	t.Run("a message of just the limit is read", func(t *testing.T) {
		t.Parallel()
		p := d.dial(t)
		p.say(string(ping) + strings.Repeat(" ", 1<<10-len(ping)))
		p.hears(pong)
	})
}

func TestWebsocketClient(t *testing.T) {
	t.Parallel()
	d := newDock(t, nil)

	t.Run("another implementation understands ours", func(t *testing.T) {
		t.Parallel()
		c, _, err := (&websocket.Dialer{Subprotocols: []string{protocol}, EnableCompression: true}).DialContext(t.Context(), "ws://"+d.address, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ask := func(text, want string) {
			t.Helper()
			if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
				t.Fatal(err)
			}
			_, b, err := c.ReadMessage()
			if err != nil || !strings.HasPrefix(string(b), want) {
				t.Fatalf("the answer is %s, %v", b, err)
			}
		}
		ask(`{"type":"connection_init"}`, `{"type":"connection_ack"}`)
		for _, size := range []int{1, 60, 125, 126, 1000, 65_000, 66_000, 300_000} { // each kind of header
			ask(operating("1", fmt.Sprintf("{ large(bytes: %d) }", size)), `{"id":"1","type":"next","payload":{"data":{"large":"`+strings.Repeat("x", size)+`"}`)
			if _, b, err := c.ReadMessage(); err != nil || string(b) != `{"id":"1","type":"complete"}` {
				t.Fatalf("then comes %s, %v", b, err)
			}
		}
		if err := c.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(1000, "")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, 1000) {
			t.Errorf("it ends with %v", err)
		}
	})

	t.Run("and over TLS, where every write is the drainer's", func(t *testing.T) {
		t.Parallel()
		d := newDock(t, nil)
		server := httptest.NewTLSServer(d.Engine)
		defer server.Close()
		dialer := websocket.Dialer{Subprotocols: []string{protocol}, TLSClientConfig: server.Client().Transport.(*http.Transport).TLSClientConfig}
		c, _, err := dialer.DialContext(t.Context(), "wss://"+server.Listener.Addr().String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, text := range []string{`{"type":"connection_init"}`, operating("1", "{ large(bytes: 300000) }"), operating("2", "subscription { ticks { seq } }")} {
			if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		for _, want := range []string{`{"type":"connection_ack"}`, `{"id":"1","type":"next"`, `{"id":"1","type":"complete"}`, `{"id":"2","type":"next"`} {
			if strings.Contains(want, "2") {
				d.callsOf(t, 1)
				d.journal.write("x", "", "", false)
			}
			if _, b, err := c.ReadMessage(); err != nil || !strings.HasPrefix(string(b), want) {
				t.Fatalf("%.100s comes, %v; want %s", b, err, want)
			}
		}
		if err := c.WriteMessage(websocket.BinaryMessage, nil); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, 4400) {
			t.Errorf("it ends with %v", err)
		}
	})
}

// FuzzReceive sends a client's message to a socket.
func FuzzReceive(f *testing.F) {
	for _, text := range []string{
		`{"type":"connection_init","payload":{"who":"Ada"}}`, `{"type":"ping","payload":{}}`, `{"type":"pong"}`, `{"type":"complete","id":"1"}`, "[1]", "",
		operating("1", "{ ping }"), operating("1", "subscription { ticks { seq } }"), `{"type":"subscribe","id":"\ud83d\ude00","payload":{"query":"","variables":{"a":[1e400]}}}`,
	} {
		f.Add([]byte(text), true)
		f.Add([]byte(text), false)
	}
	d := newDock(f, func(o *Options) { o.Sockets.PerPayer = 1 << 40 })
	f.Fuzz(func(t *testing.T, text []byte, ready bool) {
		s, there, end := newOutbox(t, false, SocketLimits{})
		defer end()
		go func() { _, _ = io.Copy(io.Discard, there) }()
		s.sockets = &d.sockets
		s.ctx = d.ctx
		if ready {
			s.receive(websocket.TextMessage, []byte(`{"type":"connection_init"}`))
		}
		s.receive(websocket.TextMessage, text)
		s.receive(websocket.TextMessage, text)
		s.mu.Lock()
		code, calls := s.code, slices.Clone(s.calls)
		s.mu.Unlock()
		var object map[string]json.RawMessage
		if (json.Unmarshal(text, &object) != nil || object == nil) && code != closeInvalid {
			t.Errorf("the socket ends with %d", code)
		}
		if allowed := []int{0, closeInvalid, closeNoAck, closeRefused, closeDuplicate, closeSecondInit, closeLater}; !slices.Contains(allowed, code) {
			t.Errorf("the socket ends with %d", code)
		}
		for _, c := range calls {
			c.leave()
		}
	})
}
