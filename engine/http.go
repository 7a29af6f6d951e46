package engine

import (
	"bytes"
	"cmp"
	"errors"
	"math"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/openvantage/vantage/fault"
)

// ServeHTTP answers GraphQL, however it comes: over HTTP, as an event stream when the Accept
// header asks for one, or over a websocket. What is no request of one of them is handed to
// Options.Refuse.
//
// A client that sends its body slowly is bounded by the http.Server's ReadTimeout, one that reads its
// answer slowly by WriteTimeout. Event streams and websockets outlast both, and have their own.
//
// Source: GraphQL over HTTP, of which it does all that the suite of npm graphql-http audits.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if websocket.IsWebSocketUpgrade(r) {
		e.serveSocket(w, r)
		return
	}
	h := w.Header()
	h["Vary"] = varies
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		h.Set("Allow", "GET, POST")
		e.opt.Refuse(w, r, http.StatusMethodNotAllowed, fault.New(fault.Invalid, "Use POST, or GET for queries."))
		return
	}
	as, ok := negotiate(r.Header["Accept"])
	if !ok {
		e.opt.Refuse(w, r, http.StatusNotAcceptable, fault.New(fault.Invalid, "Answers are written as %s.", strings.Join(mediaTypes[:], ", ")))
		return
	}
	req, status, err := e.read(w, r)
	switch {
	case err != nil:
		e.opt.Refuse(w, r, status, err)
	case as == eventStream:
		e.serveEvents(w, r, req)
	default:
		e.serveOnce(w, r, as, req)
	}
}

var (
	varies       = []string{"Accept, Accept-Encoding"}
	noStore      = []string{"no-store"}
	contentTypes = [len(mediaTypes)][]string{
		{mediaTypes[plainJSON] + "; charset=utf-8"}, {mediaTypes[responseJSON] + "; charset=utf-8"}, {mediaTypes[eventStream] + "; charset=utf-8"},
	}
)

// serveOnce answers with one response.
func (e *Engine) serveOnce(w http.ResponseWriter, r *http.Request, as mediaType, req *Request) {
	op, errs := e.prepare(r.Context(), req)
	if errs != nil {
		e.fail(w, r, as, errs)
		return
	}
	if !e.permit(w, r, as, op) {
		return
	}
	res := e.answer(r.Context(), op)
	announce(w.Header(), op.price.balance)
	how := identity
	// The payload of a mutation may hold a secret, and something that a stranger chose beside it; their
	// common length would tell (BREACH).
	if op.Operation.Operation == ast.Query {
		how = acceptedEncoding(r.Header["Accept-Encoding"])
	}
	write(w, as, http.StatusOK, res, how)
}

// permit refuses what cannot be done in this way, and gives the points back.
func (e *Engine) permit(w http.ResponseWriter, r *http.Request, as mediaType, op *operation) bool {
	kind := op.Operation.Operation
	status := http.StatusMethodNotAllowed
	var err *fault.Error
	switch {
	case kind == ast.Mutation && r.Method == http.MethodGet:
		err = fault.New(fault.Invalid, "Use POST for a mutation.")
		w.Header().Set("Allow", "POST")
	case kind == ast.Subscription && as != eventStream && !op.estimate:
		err = fault.New(fault.Invalid, "A subscription has many answers: use a websocket, or send the header Accept: %s.", mediaTypes[eventStream])
		if status = http.StatusNotAcceptable; r.Method == http.MethodGet {
			status = http.StatusMethodNotAllowed
			w.Header().Set("Allow", "POST")
		}
	default:
		return true
	}
	if e.opt.Rates != nil && !op.estimate {
		e.opt.Rates.Refund(op.caller.Payer, float64(op.price.requested))
	}
	e.opt.Refuse(w, r, status, err)
	return false
}

// failures are the statuses of requests that do not run, where statuses tell; the others are 400.
var failures = map[fault.Code]int{
	fault.Unauthenticated: http.StatusUnauthorized, fault.Forbidden: http.StatusForbidden,
	fault.Unavailable: http.StatusServiceUnavailable, fault.Internal: http.StatusInternalServerError,
}

// fail answers a request that does not run.
func (e *Engine) fail(w http.ResponseWriter, r *http.Request, as mediaType, errs gqlerror.List) {
	code, retryAfter := told(errs)
	status := http.StatusOK
	switch {
	case code == fault.RateLimited: // always: clients and proxies that know no GraphQL know this one
		status = http.StatusTooManyRequests
		if e.opt.Rates != nil {
			announce(w.Header(), e.opt.Rates.Balance(e.opt.Caller(r.Context()).Payer))
		}
	case as == responseJSON:
		status = cmp.Or(failures[code], http.StatusBadRequest)
	}
	if retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	write(w, as, status, response{errors: errs}, identity)
}

// told is what errors, as they were presented, say first.
func told(errs gqlerror.List) (code fault.Code, retryAfter int) {
	if len(errs) == 0 {
		return "", 0
	}
	name, _ := errs[0].Extensions["code"].(string)
	retryAfter, _ = errs[0].Extensions["retryAfter"].(int)
	return fault.Code(name), retryAfter
}

// write sends a response, encoded when that saves something.
func write(w http.ResponseWriter, as mediaType, status int, res response, how encoding) {
	b := takeBuffer()
	defer b.release()
	*b = res.append(*b)
	out := *b
	h := w.Header()
	if how != identity && len(out) >= compressFrom {
		packed := takeBuffer()
		defer packed.release()
		*packed = how.compress(*packed, out)
		out = *packed
		h.Set("Content-Encoding", string(how))
	}
	h["Content-Type"], h["Cache-Control"] = contentTypes[as], noStore
	h.Set("Content-Length", strconv.Itoa(len(out)))
	w.WriteHeader(status)
	_, _ = w.Write(out) // the client is gone if this fails
}

// announce tells who pays what is left.
//
// Source: RateLimit header fields for HTTP, in the spelling of the IETF draft's first six versions, which
// clients know.
func announce(h http.Header, b Balance) {
	if b.Limit <= 0 {
		return
	}
	h["RateLimit-Limit"] = []string{strconv.FormatInt(int64(b.Limit), 10)}
	h["RateLimit-Remaining"] = []string{strconv.FormatInt(int64(max(0, b.Remaining)), 10)}
	h["RateLimit-Reset"] = []string{strconv.FormatInt(int64(math.Ceil(max(0, time.Until(b.ResetAt).Seconds()))), 10)}
}

// read makes a Request of an HTTP request, or says why not and with which status.
func (e *Engine) read(w http.ResponseWriter, r *http.Request) (req *Request, status int, err error) {
	if r.Method == http.MethodGet {
		req, status, err = e.readQuery(r.URL.RawQuery)
	} else {
		req, status, err = e.readBody(w, r)
	}
	if err != nil {
		return nil, status, err
	}
	if len(req.Query) > e.opt.DocumentBytes {
		return nil, http.StatusRequestEntityTooLarge, e.documentTooLarge()
	}
	req.Estimate = strings.EqualFold(r.Header.Get("GraphQL-Cost"), "estimate")
	return req, 0, nil
}

func (e *Engine) documentTooLarge() error {
	return fault.New(fault.QueryTooCostly, "The document is larger than %d bytes. Send values as variables.", e.opt.DocumentBytes).With("limit", int64(e.opt.DocumentBytes))
}

var errQueryString = fault.New(fault.Invalid,
	"The query string cannot be read: it has `query` and, if need be, `operationName`, `variables` and `extensions`, the latter two as JSON objects.")

func (e *Engine) readQuery(raw string) (*Request, int, error) {
	if len(raw) > e.opt.DocumentBytes {
		return nil, http.StatusRequestEntityTooLarge, e.documentTooLarge()
	}
	q, err := url.ParseQuery(raw)
	if err != nil {
		return nil, http.StatusBadRequest, errQueryString
	}
	req := &Request{Query: q.Get("query"), DocumentID: q.Get("documentId"), OperationName: q.Get("operationName")}
	for name, to := range map[string]*map[string]any{"variables": &req.Variables, "extensions": &req.Extensions} {
		text := q.Get(name)
		if text == "" {
			continue
		}
		d := decoder{b: []byte(text)}
		err := d.whole(func() (err error) { *to, err = d.fields(); return err })
		if errors.Is(err, errValues) {
			return nil, http.StatusBadRequest, err
		} else if err != nil {
			return nil, http.StatusBadRequest, errQueryString
		}
	}
	if !q.Has("query") && !req.named() || !utf8.ValidString(req.Query) || !utf8.ValidString(req.OperationName) {
		return nil, http.StatusBadRequest, errQueryString
	}
	return req, 0, nil
}

func (e *Engine) readBody(w http.ResponseWriter, r *http.Request) (*Request, int, error) {
	if !isJSON(r.Header.Get("Content-Type")) {
		return nil, http.StatusUnsupportedMediaType, fault.New(fault.Invalid, "Send the request as application/json, in UTF-8.")
	}
	tooLarge := func() (*Request, int, error) {
		return nil, http.StatusRequestEntityTooLarge, fault.New(fault.Invalid, "The request is larger than %d bytes.", e.opt.RequestBytes)
	}
	if r.ContentLength > int64(e.opt.RequestBytes) {
		return tooLarge()
	}
	b := takeBuffer()
	defer b.release()
	body := bytes.NewBuffer(*b) // grows with what comes, whatever the client says will come
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, int64(e.opt.RequestBytes)))
	*b = body.Bytes()
	switch {
	case errors.As(err, new(*http.MaxBytesError)):
		return tooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, http.StatusRequestTimeout, fault.New(fault.Invalid, "The request took too long to arrive.")
	case err != nil:
		return nil, http.StatusBadRequest, fault.New(fault.Invalid, "The request was cut off.")
	}
	req, err := parseRequest(*b)
	return req, http.StatusBadRequest, err
}

func isJSON(contentType string) bool {
	if contentType == mediaTypes[plainJSON] {
		return true
	}
	kind, params, err := mime.ParseMediaType(contentType)
	charset, given := params["charset"]
	return err == nil && kind == mediaTypes[plainJSON] && (!given || strings.EqualFold(charset, "utf-8"))
}

// A buffer is memory that is used again.
type buffer []byte

// largestBuffer is what is kept: a few large answers should not hold memory for ever.
const largestBuffer = 1 << 20

var buffers = sync.Pool{New: func() any { return &buffer{} }}

func takeBuffer() *buffer {
	b := buffers.Get().(*buffer)
	*b = (*b)[:0]
	return b
}

func (b *buffer) release() {
	if cap(*b) <= largestBuffer {
		buffers.Put(b)
	}
}
