// Package client answers: how does a program talk to a Vantage server? It is the public API in
// Go, for probes and tools: GraphQL over HTTP, subscriptions over a websocket, the heartbeat packet
// of the second listener, and the submission of whole files.
//
// It knows the wire and no rules: what a heartbeat means is the server's business. Failures
// are fault errors with the code that the server gave; a server that cannot be reached is
// UNAVAILABLE. It imports the rule packages for their types alone. The server must not import it.
package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/openvantage/vantage/fault"
)

// maxAnswerBytes bounds what a server can make us hold: a page of 100 of the largest bodies is not
// something that a probe or a tool should ask for at once.
const maxAnswerBytes = 64 << 20

// requestTimeout is for the default HTTP client alone. It is longer than the server's own deadlines.
const requestTimeout = time.Minute

// Options say which server, and as whom.
type Options struct {
	BaseURL string // such as https://vantage.example.org, without /graphql
	Token   string // a bearer token or a probe's secret; empty for the public

	HTTPClient *http.Client      // nil for one with a timeout of a minute
	Dialer     *websocket.Dialer // for subscriptions; nil for gorilla's default with our subprotocol
}

// A Client talks to one server as one principal. It has no connection of its own but
// those of its HTTP client. All methods may be called at the same time.
type Client struct {
	baseURL string
	token   string
	http    *http.Client
	dialer  websocket.Dialer
	textual *atomic.Bool // the server holds none of our documents
}

// New makes a Client. It does not connect: a bad BaseURL fails with the first request.
func New(o Options) *Client {
	c := &Client{
		baseURL: strings.TrimSuffix(o.BaseURL, "/"),
		token:   o.Token,
		http:    cmp.Or(o.HTTPClient, &http.Client{Timeout: requestTimeout}),
		textual: new(atomic.Bool),
		dialer:  websocket.Dialer{Proxy: http.ProxyFromEnvironment},
	}
	if o.Dialer != nil {
		c.dialer = *o.Dialer
	}
	c.dialer.Subprotocols = []string{subprotocol}
	return c
}

// As returns a client of the same server, sharing connections, with another token.
func (c *Client) As(token string) *Client {
	other := *c
	other.token = token
	return &other
}

// Do runs a query or mutation. Variables may be nil, a map or a struct with json tags; out, when not nil,
// is what data is decoded into, as encoding/json does.
//
// A response with errors fails with the first of them, by its code; whatever data came with it is in out
// all the same. It also fails with UNAVAILABLE when the server cannot be reached or answers with
// something else than GraphQL, and with ctx's error once ctx has ended.
func (c *Client) Do(ctx context.Context, document string, variables, out any) error {
	id := documentID(document)
	if documents[id] != "" && !c.textual.Load() {
		r, err := c.run(ctx, operation{DocumentID: id, Variables: variables})
		if err != nil || !r.unknownDocument() {
			return cmp.Or(err, r.into(out))
		}
		c.textual.Store(true) // it is of another version
	}
	r, err := c.run(ctx, operation{Query: document, Variables: variables})
	return cmp.Or(err, r.into(out))
}

// run makes one request.
func (c *Client) run(ctx context.Context, op operation) (r response, err error) {
	body, err := encode(op)
	if err != nil {
		return r, err
	}
	res, err := c.post(ctx, c.baseURL+"/graphql", "application/graphql-response+json, application/json", body)
	if err != nil {
		return r, err
	}
	if !isJSON(res.header) || json.Unmarshal(res.body, &r) != nil || (r.Data == nil && len(r.Errors) == 0) {
		return response{}, res.fault()
	}
	return r, nil
}

// An operation is the body of a request, over HTTP and in a subscribe message alike.
type operation struct {
	Query      string `json:"query,omitempty"`
	DocumentID string `json:"documentId,omitempty"` // instead of Query
	Variables  any    `json:"variables,omitempty"`
}

// A response is what GraphQL answers with. Data is nil when it is absent, and "null" when null.
type response struct {
	Data   json.RawMessage `json:"data"`
	Errors []graphqlError  `json:"errors"`
}

// unknownDocument reports whether the server does not hold the document of that id.
func (r response) unknownDocument() bool {
	return len(r.Errors) == 1 && r.Errors[0].Message == "PersistedQueryNotFound"
}

func (r response) into(out any) error {
	var err error
	if out != nil && len(r.Data) > 0 && string(r.Data) != "null" {
		if e := json.Unmarshal(r.Data, out); e != nil {
			err = fmt.Errorf("reading the answer: %w", e)
		}
	}
	if len(r.Errors) > 0 {
		return r.Errors[0].fault()
	}
	return err
}

type graphqlError struct {
	Message    string `json:"message"`
	Extensions struct {
		Code       fault.Code `json:"code"`
		Field      string     `json:"field"`
		RetryAfter float64    `json:"retryAfter"` // seconds
	} `json:"extensions"`
}

func (e graphqlError) fault() *fault.Error {
	f := fault.New(cmp.Or(e.Extensions.Code, fault.Internal), "%s", e.Message)
	f.Field = e.Extensions.Field
	f.RetryAfter = seconds(e.Extensions.RetryAfter)
	return f
}

// An answer is an HTTP response that has been read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (c *Client) post(ctx context.Context, url, accept string, body []byte) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return answer{}, fault.Wrap(err, fault.Invalid, "%q is not an address to send requests to.", url)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", accept)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return answer{}, unreachable(ctx, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswerBytes+1))
	if err != nil {
		return answer{}, unreachable(ctx, err)
	}
	if len(b) > maxAnswerBytes {
		return answer{}, fault.New(fault.QueryTooCostly, "The answer is larger than %d MiB.", maxAnswerBytes>>20)
	}
	return answer{status: res.StatusCode, header: res.Header, body: b}, nil
}

// unreachable tells a server that is away from a caller who has given up.
func unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fault.Wrap(err, fault.Unavailable, "The server cannot be reached.")
}

// fault is for answers that do not say what is wrong in their body: those of proxies, mostly.
func (a answer) fault() *fault.Error {
	code := fault.Internal
	switch a.status {
	case http.StatusBadRequest, http.StatusNotAcceptable, http.StatusUnsupportedMediaType:
		code = fault.Invalid
	case http.StatusUnauthorized:
		code = fault.Unauthenticated
	case http.StatusForbidden:
		code = fault.Forbidden
	case http.StatusNotFound:
		code = fault.NotFound
	case http.StatusConflict:
		code = fault.Conflict
	case http.StatusRequestEntityTooLarge:
		code = fault.QueryTooCostly
	case http.StatusTooManyRequests:
		code = fault.RateLimited
	case http.StatusOK, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		code = fault.Unavailable
	}
	f := fault.New(code, "The server answered with HTTP status %d and no reason.", a.status)
	if s, err := strconv.ParseFloat(a.header.Get("Retry-After"), 64); err == nil {
		f.RetryAfter = seconds(s)
	}
	return f
}

// seconds bounds what a server can make us wait for, and keeps NaN and overflow out of a Duration.
func seconds(s float64) time.Duration {
	return time.Duration(math.Max(0, math.Min(s, 86400)) * float64(time.Second))
}

func isJSON(h http.Header) bool {
	t, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && (t == "application/json" || strings.HasSuffix(t, "+json"))
}

// encode writes JSON without the HTML escapes that would make bodies of web pages a third larger.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("writing the request: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Retriable reports whether the same request may succeed later: err is UNAVAILABLE, RATE_LIMITED
// or the end of a connection that the server invites to come back from.
func Retriable(err error) bool {
	if e, ok := errors.AsType[*CloseError](err); ok {
		return e.Retriable()
	}
	f, ok := errors.AsType[*fault.Error](err)
	return ok && (f.Code == fault.Unavailable || f.Code == fault.RateLimited)
}
