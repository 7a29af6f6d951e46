package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"

	"github.com/openvantage/vantage/fault"
)

// A site is an engine that is served, with a journal behind its subscriptions.
type site struct {
	*Engine
	url     string
	journal *journal
	runs    atomic.Int64 // executions
	rates   *testRates
	client  *http.Client
}

const (
	siteRequestBytes  = 1 << 20
	siteDocumentBytes = 20_000
)

// counting counts executions.
type counting struct {
	*testSchema
	runs *atomic.Int64
}

func (s counting) Exec(ctx context.Context) graphql.ResponseHandler {
	s.runs.Add(1)
	return s.testSchema.Exec(ctx)
}

// testRates is one account.
type testRates struct {
	mu    sync.Mutex
	spent float64
	fail  error
}

func (r *testRates) Spend(_ Payer, points float64) (Balance, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return r.balance(), r.fail
	}
	r.spent += points
	return r.balance(), nil
}

func (r *testRates) Refund(_ Payer, points float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spent -= points
}

func (r *testRates) Balance(Payer) Balance {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.balance()
}

func (r *testRates) balance() Balance {
	return Balance{Limit: 1000.9, Remaining: 1000.9 - r.spent, ResetAt: time.Now().Add(29_500 * time.Millisecond)}
}

// refuse is what a server might do with what is no GraphQL.
func refuse(w http.ResponseWriter, _ *http.Request, status int, err error) {
	f := fault.Of(err)
	if status == 0 {
		status = map[fault.Code]int{fault.RateLimited: http.StatusTooManyRequests}[f.Code]
	}
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(f.RetrySeconds()))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]any{"message": f.Message, "extensions": map[string]any{"code": f.Code}}}})
}

func newSiteEngine(tb testing.TB, change func(*Options)) *site {
	tb.Helper()
	s := &site{journal: newJournal(), rates: &testRates{}}
	open := func(states bool) func(context.Context, map[string]any) (any, error) {
		return func(ctx context.Context, args map[string]any) (any, error) {
			return s.journal.feed(args, states).Open(ctx)
		}
	}
	opt := Options{
		Schema: counting{newTestSchema(tb, map[string]func(context.Context, map[string]any) (any, error){
			"ticks": open(false), "states": open(true),
		}), &s.runs},
		Present: presentTest, Recover: func(context.Context, any) error { return fault.New(fault.Internal, "The server failed.") }, Refuse: refuse,
		Caller: func(context.Context) Caller {
			limits := DefaultLimits
			limits.DocumentBytes = siteDocumentBytes
			return Caller{Limits: limits, Payer: Payer{Key: "somebody"}}
		},
		Rates: s.rates, RequestBytes: siteRequestBytes, DocumentBytes: siteDocumentBytes,
	}
	if change != nil {
		change(&opt)
	}
	s.Engine = New(opt)
	return s
}

func newSite(tb testing.TB, change func(*Options)) *site {
	tb.Helper()
	s := newSiteEngine(tb, change)
	server := httptest.NewServer(s.Engine)
	s.url, s.client = server.URL, server.Client()
	s.client.Transport.(*http.Transport).DisableCompression = true
	tb.Cleanup(func() {
		s.stop()
		server.Close()
	})
	return s
}

// A reply is a response, read to its end.
type reply struct {
	status int
	header http.Header
	raw    []byte
}

func (r reply) String() string { return string(r.raw) }

// do sends a request; fields are names and values of header fields.
func (s *site) do(tb testing.TB, method, path string, body io.Reader, fields ...string) reply {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), method, s.url+path, body)
	if err != nil {
		tb.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		if fields[i+1] == "" {
			req.Header.Del(fields[i])
		} else {
			req.Header.Add(fields[i], fields[i+1])
		}
	}
	res, err := s.client.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, raw}
}

func (s *site) post(tb testing.TB, body string, fields ...string) reply {
	tb.Helper()
	return s.do(tb, http.MethodPost, "/graphql", strings.NewReader(body), append([]string{"Content-Type", "application/json"}, fields...)...)
}

// asJSON is a request's body.
func asJSON(tb testing.TB, v map[string]any) string {
	tb.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)

	// Each kind of answer in each way of writing it.
	const absent, here = "", "here"
	for _, c := range []struct {
		says          string
		request       map[string]any
		plain, strict int // statuses
		data          string
		code          fault.Code
	}{
		{"a query that succeeds", map[string]any{"query": "{ ping }"}, 200, 200, here, ""},
		{"a query of several, by name", map[string]any{"query": "query A { ping } query B { echo(text: \"x\") }", "operationName": "A"}, 200, 200, here, ""},
		{"a query with variables", map[string]any{"query": "query ($t: String) { echo(text: $t) }", "variables": map[string]any{"t": "x"}}, 200, 200, here, ""},
		{"a mutation", map[string]any{"query": "mutation { set(value: \"x\") }"}, 200, 200, here, ""},
		{"a query that succeeds in part", map[string]any{"query": "{ ping fail(code: \"CONFLICT\") }"}, 200, 200, here, fault.Conflict},
		{"a field that fails with a code that has a status elsewhere", map[string]any{"query": "{ ping fail(code: \"RATE_LIMITED\") }"}, 200, 200, here, fault.RateLimited},
		{"a panic", map[string]any{"query": "{ panic }"}, 200, 200, here, fault.Internal},
		{"a document that is not GraphQL", map[string]any{"query": "{"}, 200, 400, absent, fault.ParseFailed},
		{"a field that there is not", map[string]any{"query": "{ pong }"}, 200, 400, absent, fault.ValidationFailed},
		{"a variable that does not fit", map[string]any{"query": "query ($i: ID!) { person(id: $i) { name } }", "variables": map[string]any{"i": nil}}, 200, 400, absent, fault.ValidationFailed},
		{"an operation that there is not", map[string]any{"query": "query A { ping }", "operationName": "B"}, 200, 400, absent, fault.ValidationFailed},
		{"no operation of two", map[string]any{"query": "query A { ping } query B { ping }"}, 200, 400, absent, fault.ValidationFailed},
	} {
		body := asJSON(t, c.request)
		for accept, want := range map[string]struct {
			status int
			kind   string
		}{
			"":                                  {c.plain, "application/json"},
			"*/*":                               {c.plain, "application/json"},
			"application/json":                  {c.plain, "application/json"},
			"application/graphql-response+json": {c.strict, "application/graphql-response+json"},
		} {
			t.Run(fmt.Sprintf("%s, accepting %q, is answered", c.says, accept), func(t *testing.T) {
				t.Parallel()
				r := s.post(t, body, "Accept", accept)
				if r.status != want.status || r.header.Get("Content-Type") != want.kind+"; charset=utf-8" || r.header.Get("Cache-Control") != "no-store" {
					t.Errorf("answered %d as %s, want %d as %s", r.status, r.header.Get("Content-Type"), want.status, want.kind)
				}
				checkResponse(t, r.raw, c.data, c.code)
			})
		}
		t.Run(c.says+" is answered by an event", func(t *testing.T) {
			t.Parallel()
			r := s.post(t, body, "Accept", "text/event-stream")
			if r.status != http.StatusOK || r.header.Get("Content-Type") != "text/event-stream; charset=utf-8" || r.header.Get("Cache-Control") != "no-store" {
				t.Errorf("answered %d as %s", r.status, r.header.Get("Content-Type"))
			}
			text, ok := strings.CutPrefix(r.String(), ":\n\nevent: next\ndata: ")
			data, ends := strings.CutSuffix(text, "\n\nevent: complete\ndata: \n\n")
			if !ok || !ends {
				t.Fatalf("the stream is %q", r)
			}
			checkResponse(t, []byte(data), c.data, c.code)
		})
	}
}

// checkResponse looks at the keys of a response, and at the code of its last error.
func checkResponse(t *testing.T, raw []byte, data string, code fault.Code) {
	t.Helper()
	var out struct {
		Data   json.RawMessage
		Errors []struct{ Extensions struct{ Code fault.Code } }
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	if (out.Data != nil) != (data != "") {
		t.Errorf("data is %q in %s", out.Data, raw)
	}
	switch {
	case code == "" && out.Errors != nil, code != "" && (len(out.Errors) == 0 || out.Errors[len(out.Errors)-1].Extensions.Code != code):
		t.Errorf("the errors are %+v, want %s", out.Errors, code)
	case strings.Contains(string(raw), "a secret of ours"):
		t.Errorf("it says too much: %s", raw)
	}
}

func TestHTTPRefusals(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	ping := `{"query": "{ ping }"}`
	get := func(parts ...string) string {
		q := url.Values{}
		for i := 0; i < len(parts); i += 2 {
			q.Set(parts[i], parts[i+1])
		}
		return "/graphql?" + q.Encode()
	}
	const js, strict, stream = "application/json", "application/graphql-response+json", "text/event-stream"
	for _, c := range []struct {
		says, method, path, accept, kind, body string
		status                                 int
		allow                                  string
	}{
		{"PUT", http.MethodPut, "/graphql", "", js, ping, 405, "GET, POST"},
		{"DELETE", http.MethodDelete, "/graphql", "", "", "", 405, "GET, POST"},
		{"OPTIONS", http.MethodOptions, "/graphql", "", "", "", 405, "GET, POST"},
		{"HEAD", http.MethodHead, get("query", "{ ping }"), "", "", "", 405, "GET, POST"},
		{"PUT that accepts nothing of ours", http.MethodPut, "/graphql", "text/html", js, ping, 405, "GET, POST"},
		{"a type that we do not write", http.MethodPost, "/graphql", "text/html", js, ping, 406, ""},
		{"a type that we do not write, by GET", http.MethodGet, get("query", "{ ping }"), "image/png", "", "", 406, ""},
		{"an Accept that is none", http.MethodPost, "/graphql", "nonsense", js, ping, 406, ""},
		{"a form", http.MethodPost, "/graphql", "", "application/x-www-form-urlencoded", "query=%7Bping%7D", 415, ""},
		{"plain text", http.MethodPost, "/graphql", "", "text/plain", ping, 415, ""},
		{"a multipart form", http.MethodPost, "/graphql", "", "multipart/form-data; boundary=x", ping, 415, ""},
		{"a document as GraphQL", http.MethodPost, "/graphql", "", "application/graphql", "{ ping }", 415, ""},
		{"another JSON", http.MethodPost, "/graphql", "", "application/graphql+json", ping, 415, ""},
		{"another charset", http.MethodPost, "/graphql", "", "application/json; charset=utf-16", ping, 415, ""},
		{"no type", http.MethodPost, "/graphql", "", "", ping, 415, ""},
		{"a type that is none", http.MethodPost, "/graphql", "", "application/json; =", ping, 415, ""},
		{"an empty body", http.MethodPost, "/graphql", "", js, "", 400, ""},
		{"bad JSON", http.MethodPost, "/graphql", "", js, `{"query": "{ secretword`, 400, ""},
		{"bad JSON, strictly", http.MethodPost, "/graphql", strict, js, `{"query": "{ secretword`, 400, ""},
		{"bad JSON, for a stream", http.MethodPost, "/graphql", stream, js, `{"query": "{ secretword`, 400, ""},
		{"a batch", http.MethodPost, "/graphql", "", js, "[" + ping + "]", 400, ""},
		{"something after the request", http.MethodPost, "/graphql", "", js, ping + ping, 400, ""},
		{"no query", http.MethodPost, "/graphql", "", js, `{"qeury": "{ ping }"}`, 400, ""},
		{"variables that are a list", http.MethodPost, "/graphql", "", js, `{"query": "{ ping }", "variables": ["secretword"]}`, 400, ""},
		{"half a surrogate pair", http.MethodPost, "/graphql", "", js, `{"query": "{ ping }", "variables": {"secretword": "\ud83c"}}`, 400, ""},
		{"a document that is too long", http.MethodPost, "/graphql", "", js, asJSON(t, map[string]any{"query": "{ ping } #" + strings.Repeat("x", siteDocumentBytes)}), 413, ""},
		{"a body that is too long", http.MethodPost, "/graphql", "", js, ping + strings.Repeat(" ", siteRequestBytes), 413, ""},
		{"a query string that is too long", http.MethodGet, get("query", "{ ping }", "x", strings.Repeat("x", siteDocumentBytes)), "", "", "", 413, ""},
		{"a query string that cannot be read", http.MethodGet, "/graphql?query=%zz", "", "", "", 400, ""},
		{"a query string without a query", http.MethodGet, get("variables", "{}"), "", "", "", 400, ""},
		{"no query string", http.MethodGet, "/graphql", "", "", "", 400, ""},
		{"a query that is not UTF-8", http.MethodGet, "/graphql?query=%7Bping%7D%23%ff", "", "", "", 400, ""},
		{"variables that are no JSON", http.MethodGet, get("query", "{ ping }", "variables", "secretword"), "", "", "", 400, ""},
		{"variables that are a list, by GET", http.MethodGet, get("query", "{ ping }", "variables", `["secretword"]`), "", "", "", 400, ""},
		{"extensions that are text, by GET", http.MethodGet, get("query", "{ ping }", "extensions", `"secretword"`), "", "", "", 400, ""},
		{"a mutation by GET", http.MethodGet, get("query", `mutation { set(value: "x") }`), "", "", "", 405, "POST"},
		{"a mutation by GET, strictly", http.MethodGet, get("query", `mutation { set(value: "x") }`), strict, "", "", 405, "POST"},
		{"a mutation by GET, for a stream", http.MethodGet, get("query", `mutation { set(value: "x") }`), stream, "", "", 405, "POST"},
		{"a mutation of several by GET", http.MethodGet, get("query", `query Q { ping } mutation M { set(value: "x") }`, "operationName", "M"), "", "", "", 405, "POST"},
		{"a subscription by GET", http.MethodGet, get("query", "subscription { ticks { seq } }"), "", "", "", 405, "POST"},
		{"a subscription by POST", http.MethodPost, "/graphql", "", js, `{"query": "subscription { ticks { seq } }"}`, 406, ""},
		{"a subscription by POST, strictly", http.MethodPost, "/graphql", strict, js, `{"query": "subscription { ticks { seq } }"}`, 406, ""},
	} {
		t.Run(c.says+" is refused", func(t *testing.T) {
			t.Parallel()
			r := s.do(t, c.method, c.path, strings.NewReader(c.body), "Content-Type", c.kind, "Accept", c.accept)
			if r.status != c.status || r.header.Get("Allow") != c.allow {
				t.Errorf("answered %d, Allow: %q, %s", r.status, r.header.Get("Allow"), r)
			}
			if c.method != http.MethodHead && (!strings.Contains(r.String(), `"code":`) || strings.Contains(r.String(), "secretword") || strings.Contains(r.String(), `"data"`) || len(r.raw) > 500) {
				t.Errorf("it says %s", r)
			}
		})
	}
	t.Cleanup(func() { // after those above
		if s.rates.spent != 0 || s.runs.Load() != 0 {
			t.Errorf("what was refused cost %v points and ran %d times", s.rates.spent, s.runs.Load())
		}
	})
}

func TestHTTPGet(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	q := url.Values{"query": {"query A($t: String) { echo(text: $t) } query B { ping }"}, "operationName": {"A"}, "variables": {`{"t": "ä+\ud83c\udfc3"}`}, "extensions": {"null"}}
	r := s.do(t, http.MethodGet, "/graphql?"+q.Encode(), nil)
	if want := `"data":{"echo":"ä+🏃"}`; r.status != http.StatusOK || !strings.Contains(r.String(), want) {
		t.Errorf("answered %d %s, want %s", r.status, r, want)
	}
	q = url.Values{"query": {"{ ping }"}, "operationName": {""}, "variables": {""}, "extensions": {""}}
	if r := s.do(t, http.MethodGet, "/graphql?"+q.Encode(), nil); !strings.Contains(r.String(), `"data":{"ping":"pong"}`) {
		t.Errorf("empty parameters: answered %d %s", r.status, r)
	}
}

func TestHTTPRates(t *testing.T) {
	t.Parallel()

	t.Run("the headers tell what is left, in whole numbers", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) { // no time passes meanwhile
			s := newSiteEngine(t, nil)
			s.bubble(t, &http.Server{})
			for _, accept := range []string{"application/json", "application/graphql-response+json", "text/event-stream"} {
				r := s.post(t, `{"query": "{ person { name } }"}`, "Accept", accept)
				got := []string{r.header.Get("RateLimit-Limit"), r.header.Get("RateLimit-Reset")}
				var remaining int
				if _, err := fmt.Sscanf(r.header.Get("RateLimit-Remaining")+"\n", "%d\n", &remaining); err != nil || remaining < 900 || remaining > 1000 || got[0] != "1000" || got[1] != "30" {
					t.Errorf("%s: the headers are %v", accept, r.header)
				}
			}
		})
	})

	t.Run("who has too few points is told to wait, whatever he accepts", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		s.rates.fail = fault.New(fault.RateLimited, "Wait.").After(2500 * time.Millisecond)
		for _, accept := range []string{"application/json", "application/graphql-response+json", "text/event-stream"} {
			for _, query := range []string{"{ ping }", "subscription { ticks { seq } }", "mutation { set(value: \"x\") }"} {
				r := s.post(t, asJSON(t, map[string]any{"query": query}), "Accept", accept)
				if r.status != http.StatusTooManyRequests || r.header.Get("Retry-After") != "3" || r.header.Get("RateLimit-Limit") != "1000" {
					t.Errorf("%s as %s: answered %d with %v", query, accept, r.status, r.header)
				}
				checkResponse(t, r.raw, "", fault.RateLimited)
			}
		}
		if s.runs.Load() != 0 {
			t.Error("something ran")
		}
	})

	t.Run("strictly, a request that may not run has the status of its code", func(t *testing.T) {
		t.Parallel()
		for code, status := range map[fault.Code]int{
			fault.Unauthenticated: 401, fault.Forbidden: 403, fault.Unavailable: 503, fault.Internal: 500, fault.QueryTooCostly: 400, fault.Invalid: 400, fault.NotFound: 400,
		} {
			s := newSite(t, nil)
			s.rates.fail = fault.New(code, "No.")
			for accept, want := range map[string]int{"application/json": 200, "application/graphql-response+json": status} {
				r := s.post(t, `{"query": "{ ping }"}`, "Accept", accept)
				if r.status != want {
					t.Errorf("%s as %s: answered %d", code, accept, r.status)
				}
				checkResponse(t, r.raw, "", code)
			}
		}
	})

	t.Run("an estimate runs nothing and costs nothing", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		for _, query := range []string{"{ person { name } }", "mutation { set(value: \"x\") }", "subscription { ticks { seq } }"} {
			for _, accept := range []string{"application/json", "text/event-stream"} {
				r := s.post(t, asJSON(t, map[string]any{"query": query}), "GraphQL-Cost", "estimate", "Accept", accept)
				if r.status != http.StatusOK || !strings.Contains(r.String(), `"data":null`) || !strings.Contains(r.String(), `"cost"`) {
					t.Errorf("%s: answered %d %s", query, r.status, r)
				}
			}
		}
		if s.runs.Load() != 0 || s.rates.spent != 0 {
			t.Errorf("it ran %d times for %v points", s.runs.Load(), s.rates.spent)
		}
	})

	t.Run("without rates there are no headers", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, func(o *Options) { o.Rates = nil })
		if r := s.post(t, `{"query": "{ ping }"}`); r.status != http.StatusOK || r.header.Get("RateLimit-Limit") != "" {
			t.Errorf("answered %d with %v", r.status, r.header)
		}
		if r := s.do(t, http.MethodGet, "/graphql?query=mutation%7B__typename%7D", nil); r.status != http.StatusMethodNotAllowed {
			t.Errorf("a mutation by GET is answered with %d", r.status)
		}
	})
}

func TestHTTPSize(t *testing.T) {
	t.Parallel()
	const size = 10 << 20
	fill := func(s string) string { return strings.Repeat(s, size/len(s)) }
	bodies := map[string]string{
		"zeros": fill("\x00"), "blanks": fill(" "), "brackets": fill("["), "braces": fill("{"), "objects": fill(`{"query":`), "quotes": fill(`"`), "backslashes": fill(`\`),
		"surrogates": `{"query": "` + fill(`\ud83c`), "a document": `{"query": "` + fill("{a") + `"}`, "a name": `{"query": "{ ping }", "operationName": "` + fill("x") + `"}`,
		"a variable": `{"query": "query ($v: String) { echo(text: $v) }", "variables": {"w": "` + fill("x") + `"}}`,
		"numbers":    `{"query": "{ ping }", "variables": {"n": [` + fill("1,") + `1]}}`,
		"a number":   `{"query": "{ ping }", "variables": {"n": ` + fill("1") + `}}`,
		"keys":       `{"query": "{ ping }"` + fill(`, "query": ""`) + `}`,
		"noise":      fill("\xfe\xed\xfa\xce"),
	}
	for name, limit := range map[string]int{"over": siteRequestBytes, "within": 2 * size} {
		s := newSite(t, func(o *Options) { o.RequestBytes = limit })
		for what, body := range bodies {
			for _, sized := range []bool{true, false} {
				if name == "within" && !sized {
					continue // it is read to its end all the same
				}
				t.Run(fmt.Sprintf("10 MB of %s %s the limit, with a length: %v, is answered briefly", what, name, sized), func(t *testing.T) {
					t.Parallel()
					var from io.Reader = strings.NewReader(body)
					if !sized {
						from = struct{ io.Reader }{from}
					}
					req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url, from)
					if err != nil {
						t.Fatal(err)
					}
					req.Header.Set("Content-Type", "application/json")
					res, err := s.client.Do(req)
					if err != nil { // the server may close before it has all
						if name == "over" {
							return
						}
						t.Fatal(err)
					}
					defer res.Body.Close()
					raw, err := io.ReadAll(res.Body)
					if err != nil {
						t.Fatal(err)
					}
					if name == "over" && res.StatusCode != http.StatusRequestEntityTooLarge || res.StatusCode >= 500 || len(raw) > 10_000 {
						t.Errorf("answered %d with %d bytes: %.300s", res.StatusCode, len(raw), raw)
					}
				})
			}
		}
	}
}

func TestHTTPSlowBody(t *testing.T) {
	t.Parallel()
	s := newSiteEngine(t, nil)
	t.Cleanup(s.stop)
	server := httptest.NewUnstartedServer(s.Engine)
	server.Config.ReadTimeout = 3 * time.Second // in which clients that run late say what they have to say
	server.Start()
	t.Cleanup(server.Close)

	t.Run("a body that does not come ends the request", func(t *testing.T) {
		t.Parallel()
		c, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"query\": "); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(c)
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if _, _ = io.Copy(io.Discard, res.Body); res.StatusCode != http.StatusRequestTimeout {
			t.Errorf("answered %d", res.StatusCode)
		}
		if _, err := in.ReadByte(); err != io.EOF {
			t.Errorf("the connection goes on: %v", err)
		}
	})

	t.Run("a body that is said to be too long is not waited for", func(t *testing.T) {
		t.Parallel()
		c, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", siteRequestBytes+1); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("answered %d", res.StatusCode)
		}
	})

	t.Run("a body that is cut off ends the request", func(t *testing.T) {
		t.Parallel()
		c, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"query\": "); err != nil {
			t.Fatal(err)
		}
		_ = c.(*net.TCPConn).CloseWrite()
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("answered %d", res.StatusCode)
		}
	})
}

func TestConstant(t *testing.T) {
	t.Parallel()

	t.Run("what is asked about the schema is found out once", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		asked := map[string]int64{
			`{"query": "{ __typename __schema { queryType { name } } }"}`:                                           1,
			`{"query": "query A { __typename } query B { __schema { queryType { name } } }", "operationName": "B"}`: 1,
			`{"query": "query A { __typename } query B { __schema { queryType { name } } }", "operationName": "A"}`: 1,
			`{"query": "query ($n: String!) { __type(name: $n) { name } }", "variables": {"n": "Query"}}`:           3,
			`{"query": "{ __typename ping }"}`:                   3,
			`{"query": "{ ...F } fragment F on Query { ping }"}`: 3,
			`{"query": "mutation { __typename }"}`:               3,
		}
		for body, runs := range asked {
			before := s.runs.Load()
			first := s.post(t, body)
			for range 2 {
				if r := s.post(t, body); r.status != http.StatusOK || data(t, r.raw) != data(t, first.raw) {
					t.Errorf("%s: at first %s, then %d %s", body, first, r.status, r)
				}
			}
			if got := s.runs.Load() - before; got != runs {
				t.Errorf("%s ran %d times", body, got)
			}
		}
	})

	t.Run("an estimate is no answer", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		s.post(t, `{"query": "{ __typename }"}`, "GraphQL-Cost", "estimate")
		if r := s.post(t, `{"query": "{ __typename }"}`); !strings.Contains(r.String(), `"__typename":`) {
			t.Errorf("answered %s", r)
		}
	})

	t.Run("what is kept is bounded", func(t *testing.T) {
		t.Parallel()
		var c constants
		for i := range 300 {
			size := constantBytes / 100
			if i%50 == 0 {
				size = constantBytes/2 + i
			}
			key := constantKey{operation: fmt.Sprint(i)}
			c.add(key, bytes.Repeat([]byte{'x'}, size))
			sum := 0
			for _, b := range c.answers {
				sum += len(b)
			}
			if c.answers[key] == nil || sum != c.bytes || sum > constantBytes {
				t.Fatalf("after %d there are %d bytes, counted as %d", i, sum, c.bytes)
			}
		}
		c.add(constantKey{operation: "large"}, make([]byte, constantBytes+1))
		if len(c.answers) < 10 || c.answers[constantKey{operation: "large"}] != nil {
			t.Errorf("there are %d answers", len(c.answers))
		}
	})
}

func data(t *testing.T, raw []byte) string {
	t.Helper()
	var out struct{ Data json.RawMessage }
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return string(out.Data)
}

// BenchmarkHTTPNormalQuery is what the engine adds around the execution of a query such as the
// Explorer's: it is known, and answered with some 2 KB that took no time to make.
func BenchmarkHTTPNormalQuery(b *testing.B) {
	answer := []byte(`{"person":{"name":"` + strings.Repeat("x", 2000) + `"}}`)
	s := newSiteEngine(b, func(o *Options) { o.Schema = instant{o.Schema, answer} })
	b.Cleanup(s.stop)
	body := asJSON(b, map[string]any{
		"query":     "query People($id: ID, $n: Int) { person(id: $id) { name friends(first: $n) { count edges { node { name best { name } } } } } }",
		"variables": map[string]any{"id": "prb_0123456789", "n": 20}, "operationName": "People",
	})
	for _, how := range []string{"", "gzip", "zstd"} {
		b.Run("encoding="+how, func(b *testing.B) {
			h := http.Header{"Content-Type": {"application/json"}, "Accept": {"application/graphql-response+json, application/json"}, "Accept-Encoding": {how}}
			w := &discard{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				s.ServeHTTP(w, &http.Request{Method: http.MethodPost, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), URL: &url.URL{Path: "/graphql"}})
			}
			if w.status != http.StatusOK || w.n < 100 {
				b.Fatalf("answered %d with %d bytes", w.status, w.n)
			}
		})
	}
}

// instant answers everything with the same.
type instant struct {
	graphql.ExecutableSchema
	answer []byte
}

func (s instant) Exec(context.Context) graphql.ResponseHandler {
	return func(context.Context) *graphql.Response { return &graphql.Response{Data: s.answer} }
}

func (s instant) Schema() *ast.Schema { return s.ExecutableSchema.Schema() }

// discard is a response that nobody reads.
type discard struct {
	header    http.Header
	status, n int
}

func (w *discard) Header() http.Header    { return w.header }
func (w *discard) WriteHeader(status int) { w.status = status }

func (w *discard) Write(b []byte) (int, error) {
	w.n = len(b)
	return len(b), nil
}
