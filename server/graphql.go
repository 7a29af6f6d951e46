package server

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/99designs/gqlgen/graphql/handler"
	"github.com/99designs/gqlgen/graphql/handler/extension"
	"github.com/99designs/gqlgen/graphql/handler/lru"
	"github.com/99designs/gqlgen/graphql/handler/transport"
	"github.com/gorilla/websocket"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"

	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/graph"
	"github.com/openvantage/vantage/resolvers"
)

// Bounds of the executor. A token is at least one byte of document and up to a hundred bytes
// of memory, so their number is bounded apart from the size.
const (
	maxTokens       = 2_000
	cachedDocuments = 200
	initTimeout     = 10 * time.Second
	pingEvery       = 15 * time.Second
	// Source: graphql-ws, PROTOCOL.md.
	closeRefused    = 4403
	closeBadMessage = 4400
	closeNoProtocol = 4406
)

// graphql is the GraphQL endpoint. Subscriptions end with ctx.
func (s *Server) graphql(ctx context.Context, r *resolvers.Resolver, auth authenticator) http.Handler {
	h := handler.New(graph.NewExecutableSchema(graph.Config{Resolvers: r}))
	largest := int64(websocketBytes)
	h.AddTransport(transport.Websocket{
		Implementation: gorilla{websocket.Upgrader{
			HandshakeTimeout: headerTimeout, CheckOrigin: s.originAllowed, Subprotocols: []string{"graphql-transport-ws"},
		}},
		InitTimeout: initTimeout, PingPongInterval: pingEvery, PayloadReadLimit: &largest,
		InitFunc: func(c context.Context, init transport.InitPayload) (context.Context, *transport.InitPayload, error) {
			return s.initSocket(ctx, c, init, auth)
		},
	})
	h.AddTransport(transport.GET{})
	h.AddTransport(transport.POST{})
	h.SetQueryCache(lru.New[*ast.QueryDocument](cachedDocuments))
	h.SetParserTokenLimit(maxTokens)
	h.SetErrorPresenter(s.present)
	h.SetRecoverFunc(s.recovered)
	h.Use(extension.Introspection{})
	return s.limited(h)
}

// initSocket authenticates a websocket, and ties it to the server's life.
func (s *Server) initSocket(server, socket context.Context, init transport.InitPayload, auth authenticator) (context.Context, *transport.InitPayload, error) {
	p, err := auth.principal(socket, init.Authorization())
	if err != nil {
		f := s.safe(socket, err) // the transport sends the text of what is returned
		socket = transport.AppendCloseReason(socket, string(f.Code))
		return transport.WithWebsocketCloseCode(socket, closeRefused), nil, f
	}
	ctx, cancel := context.WithCancel(resolvers.WithPrincipal(socket, p))
	release := context.AfterFunc(server, cancel)
	context.AfterFunc(socket, func() { // or the server would remember every socket there ever was
		release()
		cancel()
	})
	return ctx, nil, nil
}

// limited bounds the size of what is read, and refuses what is not GraphQL over HTTP, before
// the executor sees it.
func (s *Server) limited(next http.Handler) http.Handler {
	// A body travels as a string inside JSON, where quotes and line ends take two bytes.
	largest := int64(2*s.cfg.MaxMeasurementBytes + s.cfg.MaxDocumentBytes)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case websocket.IsWebSocketUpgrade(r) && !s.originAllowed(r):
			s.writeFault(w, r, 0, fault.New(fault.Forbidden, "Pages of this origin may not open a websocket here."))
		case websocket.IsWebSocketUpgrade(r):
			next.ServeHTTP(w, r)
		case r.Method == http.MethodGet:
			s.limitedGet(w, r, next)
		case r.Method == http.MethodPost:
			s.limitedPost(w, r, next, largest)
		default:
			w.Header().Set("Allow", "GET, POST")
			s.writeFault(w, r, http.StatusMethodNotAllowed, fault.New(fault.Invalid, "Use POST, or GET for queries."))
		}
	})
}

func (s *Server) limitedGet(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if len(r.URL.RawQuery) > s.cfg.MaxDocumentBytes {
		s.writeFault(w, r, http.StatusRequestEntityTooLarge, s.tooLarge())
		return
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	for _, name := range []string{"variables", "extensions"} {
		if v := q.Get(name); err == nil && v != "" {
			err = json.Unmarshal([]byte(v), new(map[string]json.RawMessage))
		}
	}
	if err != nil {
		s.writeFault(w, r, http.StatusBadRequest, fault.New(fault.Invalid, "The query string cannot be read."))
		return
	}
	doc, err := parser.ParseQueryWithTokenLimit(&ast.Source{Input: q.Get("query")}, maxTokens)
	if err == nil { // otherwise the executor will say what is wrong
		if op := doc.Operations.ForName(q.Get("operationName")); op != nil && op.Operation != ast.Query {
			w.Header().Set("Allow", "POST")
			s.writeFault(w, r, http.StatusMethodNotAllowed, fault.New(fault.Invalid, "Use POST for a %s.", op.Operation))
			return
		}
	}
	next.ServeHTTP(w, r)
}

func (s *Server) limitedPost(w http.ResponseWriter, r *http.Request, next http.Handler, largest int64) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		s.writeFault(w, r, http.StatusUnsupportedMediaType, fault.New(fault.Invalid, "Send the request as application/json."))
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, largest))
	if err != nil {
		s.writeFault(w, r, http.StatusRequestEntityTooLarge,
			fault.New(fault.Invalid, "The request is larger than %d bytes, or was cut off.", largest))
		return
	}
	var outline struct {
		Query         *string                    `json:"query"`
		OperationName *string                    `json:"operationName"`
		Variables     map[string]json.RawMessage `json:"variables"`
		Extensions    map[string]json.RawMessage `json:"extensions"`
	}
	if err := json.Unmarshal(body, &outline); err != nil || outline.Query == nil || !exact(body) {
		s.writeFault(w, r, http.StatusBadRequest, fault.New(fault.Invalid, "The request is not a JSON object with a query."))
		return
	}
	if len(*outline.Query) > s.cfg.MaxDocumentBytes {
		s.writeFault(w, r, http.StatusRequestEntityTooLarge, s.tooLarge())
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	next.ServeHTTP(w, r)
}

// exact reports whether the strings of this JSON can be decoded without loss. The decoder puts
// U+FFFD in place of what is not UTF-8 and of half a surrogate pair, and so would change a body
// that must be kept as it was sent.
func exact(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	for {
		i := bytes.IndexByte(b, '\\')
		if i < 0 {
			return true
		}
		b = b[i:]
		switch r := escaped(b); {
		case r < 0 || !utf16.IsSurrogate(r):
			b = b[min(2, len(b)):]
		case len(b) < 12 || utf16.DecodeRune(r, escaped(b[6:])) == utf8.RuneError:
			return false
		default:
			b = b[12:]
		}
	}
}

// escaped is the code unit of the \uXXXX that b begins with; -1 when it begins with none.
func escaped(b []byte) rune {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}

func (s *Server) tooLarge() *fault.Error {
	return fault.New(fault.QueryTooCostly, "The document is larger than %d bytes. Send values as variables.", s.cfg.MaxDocumentBytes)
}

// originAllowed admits programs, which send no origin, our own pages, and the pages of the
// list; anything else could be a stranger's page in somebody's browser.
func (s *Server) originAllowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	for _, allowed := range s.cfg.AllowedOrigins {
		if strings.EqualFold(origin, allowed) {
			return true
		}
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host) && (u.Scheme == "http" || u.Scheme == "https")
}

// prefersHTML reports whether a browser is asking for a page.
func prefersHTML(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/html") && !r.URL.Query().Has("query") && !websocket.IsWebSocketUpgrade(r)
}
