package server_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/server"
)

// A failure is an operation that goes wrong, and what is said of it.
type failure struct {
	name      string
	document  string
	variables object
	token     string
	code      fault.Code
	field     string
	numbers   []string    // that it has beside
	wait      bool        // it says when to come back
	runs      bool        // it began, so that there is data, if only null
	status    int         // over HTTP, of application/graphql-response+json
	by        []transport // nil for all
}

var subscriptionTransports = []transport{overSocket, overEvents}

// A world is a server in which certain things go wrong.
type world struct {
	*api
	failures []failure
}

// TestCodes has everything go wrong that can, on every transport: the code, what comes with it, and
// nothing else.
func TestCodes(t *testing.T) {
	t.Parallel()
	worlds := map[string]world{
		"where all is well": soundWorld(t), "where little may be asked": poorWorld(t), "where a table is gone": brokenWorld(t),
		"where resolvers panic": hollowWorld(t), "where the database is gone": lostWorld(t),
	}

	t.Run("each code is provoked on each transport where it can occur", func(t *testing.T) {
		t.Parallel()
		want, got := map[fault.Code]map[transport]bool{}, map[fault.Code]map[transport]bool{}
		for _, c := range codes(t) {
			want[c] = map[transport]bool{overHTTP: true, overSocket: true, overEvents: true}
		}
		delete(want[fault.Resync], overHTTP) // subscriptions alone
		for _, w := range worlds {
			for _, f := range w.failures {
				for _, by := range f.transports() {
					if got[f.code] == nil {
						got[f.code] = map[transport]bool{}
					}
					got[f.code][by] = true
				}
			}
		}
		equal(t, got, want)
	})

	t.Run("the schema and the manual have the same codes", func(t *testing.T) {
		t.Parallel()
		manual, err := os.ReadFile("../README.md")
		if err != nil {
			t.Fatal(err)
		}
		inSchema := map[fault.Code]bool{}
		data := worlds["where all is well"].ask(t, "", `{ __type(name: "ErrorCode") { enumValues { name } } }`, nil)
		for _, v := range list(t, data, "__type", "enumValues") {
			inSchema[fault.Code(str(t, v, "name"))] = true
		}
		for _, c := range codes(t) {
			ofDocument := c == fault.ParseFailed || c == fault.ValidationFailed // never a user error
			if inSchema[c] == ofDocument || !strings.Contains(string(manual), "`"+string(c)+"`") {
				t.Errorf("%s is missing", c)
			}
			delete(inSchema, c)
		}
		equal(t, inSchema, map[fault.Code]bool{})
	})

	for name, w := range worlds {
		for _, f := range w.failures {
			for _, by := range f.transports() {
				t.Run(fmt.Sprintf("%s, %s is %s over %s", name, f.name, f.code, by), func(t *testing.T) {
					t.Parallel()
					w.provoke(t, f, by)
				})
			}
		}
	}
}

// codes reads the closed set from its source, so that nobody adds to it unnoticed.
func codes(t *testing.T) (out []fault.Code) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../fault/fault.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			if kind, ok := v.Type.(*ast.Ident); !ok || kind.Name != "Code" {
				t.Fatalf("%s of fault.go is no Code", v.Names[0])
			}
			for _, x := range v.Values {
				text, err := strconv.Unquote(x.(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, fault.Code(text))
			}
		}
	}
	return out
}

func (f failure) transports() []transport {
	if f.by == nil {
		return []transport{overHTTP, overSocket, overEvents}
	}
	return f.by
}

// A complaint is an error of a response, with all that it has.
type complaint struct {
	Message    string         `json:"message"`
	Path       []any          `json:"path"`
	Locations  []any          `json:"locations"`
	Extensions map[string]any `json:"extensions"`
}

// provoke has it go wrong, and looks at what is said.
func (w world) provoke(t *testing.T, f failure, by transport) {
	t.Helper()
	raw, ran, id := w.attempt(t, f, by)
	var said struct{ Errors []complaint }
	if err := json.Unmarshal(raw, &said); err != nil || len(said.Errors) != 1 {
		t.Fatalf("answered %s, %v; want one error", raw, err)
	}
	e := said.Errors[0]
	want := object{"code": string(f.code)}
	if f.field != "" {
		want["field"] = f.field
	}
	if wait, ok := e.Extensions["retryAfter"].(float64); f.wait && (!ok || wait < 1 || wait != float64(int(wait))) {
		t.Errorf("the wait is %v", e.Extensions["retryAfter"])
	} else if f.wait {
		want["retryAfter"] = wait
	}
	for _, name := range f.numbers {
		n, ok := e.Extensions[name].(float64)
		if !ok || n < 1 {
			t.Errorf("%s is %v", name, e.Extensions[name])
		}
		want[name] = n
	}
	if f.code == fault.Internal {
		told, _ := e.Extensions["requestId"].(string)
		if told == "" || id != "" && told != id {
			t.Errorf("the request is called %q and its id is %q", told, id)
		}
		want["requestId"] = told
		if !strings.Contains(w.logs.String(), told) {
			t.Errorf("request %s is not in the log", told)
		}
	}
	equal(t, e.Extensions, want)
	if ran != f.runs {
		t.Errorf("it says whether it ran by %s", raw)
	}
	if len(e.Message) < 10 || len(e.Message) > 400 || !strings.HasSuffix(e.Message, ".") && f.code != fault.ParseFailed && f.code != fault.ValidationFailed {
		t.Errorf("the message is %q", e.Message)
	}
	for _, secret := range []string{"mislaid", "42P01", "SQLSTATE", "relation", "pgx", "pool", "dial", "127.0.0.1", "panic", "nil pointer", "runtime", ".go", "goroutine", "0x"} {
		if strings.Contains(string(raw), secret) {
			t.Errorf("it says %q: %s", secret, raw)
		}
	}
}

// attempt runs the operation, and gives back the response, whether it has data, and the request's id
// where the transport tells.
func (w world) attempt(t *testing.T, f failure, by transport) (raw []byte, ran bool, id string) {
	t.Helper()
	if by == overHTTP {
		return w.attemptHTTP(t, f)
	}
	s, err := w.open(t.Context(), by, f.token, f.document, f.variables)
	if err != nil {
		t.Fatal(err)
	}
	defer s.cut(closed)
	raw, err = s.next()
	var end *ending
	switch {
	case errors.As(err, &end) && end.kind == "error":
		return fmt.Appendf(nil, `{"errors":%s}`, end.payload), false, ""
	case errors.As(err, &end) && end.kind == "429 Too Many Requests":
		return end.payload, false, ""
	case err != nil:
		t.Fatal(err)
	}
	if payload, err := s.next(); !errors.As(err, &end) || end.kind != "complete" {
		t.Errorf("after the error came %s, %v", payload, err)
	}
	return raw, bytes.Contains(raw, []byte(`"data":`)), ""
}

// attemptHTTP runs it twice, for the two media types.
func (w world) attemptHTTP(t *testing.T, f failure) (raw []byte, ran bool, id string) {
	t.Helper()
	b, err := json.Marshal(object{"query": f.document, "variables": f.variables})
	if err != nil {
		t.Fatal(err)
	}
	for kind, status := range map[string]int{"application/json": 200, "application/graphql-response+json": f.status} {
		if f.status == http.StatusTooManyRequests {
			status = f.status
		}
		h := bearer(f.token)
		h.Set("Accept", kind)
		res, text := w.send(t, http.MethodPost, w.URL()+"/graphql", h, b)
		if got, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";"); res.StatusCode != status || got != kind {
			t.Errorf("%s: answered %d as %s, want %d: %s", kind, res.StatusCode, got, status, text)
		}
		if header := res.Header.Get("Retry-After"); f.wait && !f.runs && header == "" {
			t.Errorf("%s: there is no Retry-After: %s", kind, text)
		}
		raw, ran, id = []byte(text), strings.Contains(text, `"data":`), res.Header.Get("X-Request-Id")
	}
	return raw, ran, id
}

const (
	activateAlone = `mutation ($id: ID!) { activateProbe(input: {probeId: $id}) { probe { id } } }`
	resumeChanges = `subscription ($after: Cursor) { probeStateChanged(after: $after) { seq } }`
	presentStates = `subscription { probeStateChanged(snapshot: true) { seq probe { id } } }`
	somePage      = `{ measurements(first: 1) { edges { cursor } } }`
)

// soundWorld is where clients alone are at fault.
func soundWorld(t *testing.T) world {
	t.Helper()
	a := start(t)
	operator := a.issue(t, access.Operator)
	first := a.origin(t)
	p, active := a.register(t, "IT", 30722), a.register(t, "IT", 30722)
	a.activate(t, operator, active)
	a.exec(t, "update log_floor set seq = (select max(seq) from event)")
	return world{a, []failure{
		{
			name: "an id of nothing", document: activateAlone, variables: object{"id": "prb_0000000000000000"}, token: operator,
			code: fault.NotFound, field: "input.probeId", runs: true, status: 200,
		},
		{name: "an empty page", document: "{ probes(first: 0) { edges { cursor } } }", code: fault.Invalid, field: "first", status: 200, runs: true},
		{
			name: "a cursor that is none", document: resumeChanges, variables: object{"after": "x"}, by: subscriptionTransports,
			code: fault.Invalid,
		},
		{
			name: "what is done already", document: activateAlone, variables: object{"id": active.id}, token: operator,
			code: fault.Conflict, runs: true, status: 200,
		},
		{
			name: "what needs a token", document: `mutation { createToken(input: {role: ADMIN, name: "me"}) { secret } }`,
			code: fault.Unauthenticated, runs: true, status: 200,
		},
		{
			name: "what needs another token", document: activateAlone, variables: object{"id": p.id}, token: p.secret,
			code: fault.Forbidden, runs: true, status: 200,
		},
		{name: "a deep document", document: strings.Repeat("{ a ", 16) + strings.Repeat("}", 16), code: fault.QueryTooCostly, field: "query", numbers: []string{"limit"}, status: 400},
		{
			name: "a dear document", document: strings.Repeat("{ probes(first: 100) { edges { node { country ", 3) + "{ code }" + strings.Repeat(" } } } }", 3),
			code: fault.QueryTooCostly, field: "query", numbers: []string{"cost", "limit"}, status: 400,
		},
		{name: "no document", document: "{ probes(first: }", code: fault.ParseFailed, status: 400},
		{name: "an unknown field", document: "{ nothing }", code: fault.ValidationFailed, status: 400},
		{
			name: "a cursor that is no text", document: resumeChanges, variables: object{"after": object{}}, by: subscriptionTransports,
			code: fault.Invalid,
		},
		{
			name: "a variable of another type", document: "query ($n: Int) { probes(first: $n) { edges { cursor } } }", variables: object{"n": "x"},
			code: fault.ValidationFailed, field: "n", status: 400,
		},
		{
			name: "a cursor of what is gone", document: resumeChanges, variables: object{"after": first}, by: subscriptionTransports,
			code: fault.Resync, numbers: []string{"from", "to"},
		},
	}}
}

// poorWorld is where everything was spent.
func poorWorld(t *testing.T) world {
	t.Helper()
	a := start(t, func(c *server.Config) { c.RatePublic = server.Rate{PerSecond: 0.0001, Burst: 20} })
	for a.do(t, "", "{ viewer { role } }", nil).Status != http.StatusTooManyRequests {
	}
	return world{a, []failure{
		{name: "a query", document: "{ viewer { role } }", code: fault.RateLimited, wait: true, numbers: []string{"cost", "limit"}, status: 429},
		{name: "a subscription", document: resumeChanges, by: subscriptionTransports, code: fault.RateLimited, wait: true, numbers: []string{"cost", "limit"}},
	}}
}

// brokenWorld is where we made a mistake.
func brokenWorld(t *testing.T) world {
	t.Helper()
	a := start(t)
	a.exec(t, "alter table measurement rename to mislaid")
	a.exec(t, "alter table probe rename to mislaid_too")
	t.Cleanup(func() {
		if !strings.Contains(a.logs.String(), "42P01") {
			t.Error("the log does not say why")
		}
	})
	return world{a, []failure{
		{name: "a query", document: somePage, code: fault.Internal, runs: true, status: 200},
		{
			name: "a mutation", document: `mutation { registerProbe(input: {country: "IT", asn: 1}) { secret userErrors { code } } }`,
			code: fault.Internal, runs: true, status: 200,
		},
		{name: "a subscription", document: presentStates, by: subscriptionTransports, code: fault.Internal},
	}}
}

// hollowWorld is where we made another.
func hollowWorld(t *testing.T) world {
	t.Helper()
	b := start(t)
	origin := b.origin(t)
	b.register(t, "IT", 30722)
	a := prepare(t, b.dsn)
	a.Hollow()
	a.run(t)
	t.Cleanup(func() {
		if n := strings.Count(a.logs.String(), "a resolver panicked"); n == 0 {
			t.Error("the log tells of no panic")
		}
	})
	return world{a, []failure{
		{name: "a query", document: somePage, code: fault.Internal, runs: true, status: 200},
		{
			name: "a mutation", document: `mutation { registerProbe(input: {country: "IT", asn: 1}) { secret userErrors { code } } }`,
			code: fault.Internal, runs: true, status: 200,
		},
		{name: "a snapshot", document: presentStates, by: subscriptionTransports, code: fault.Internal},
		{
			name: "an event", document: "subscription ($after: Cursor) { events(after: $after) { summary } }", variables: object{"after": origin},
			by: subscriptionTransports, code: fault.Internal,
		},
	}}
}

// lostWorld is where a part of ours is down.
func lostWorld(t *testing.T) world {
	t.Helper()
	a := start(t)
	a.cutOff(t)
	return world{a, []failure{
		{name: "a query", document: somePage, code: fault.Unavailable, wait: true, runs: true, status: 200},
		{
			name: "a mutation", document: `mutation { registerProbe(input: {country: "IT", asn: 1}) { secret } }`,
			code: fault.Unavailable, wait: true, runs: true, status: 200,
		},
		{name: "a subscription", document: presentStates, by: subscriptionTransports, code: fault.Unavailable, wait: true},
	}}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	a := start(t)
	p := a.register(t, "IT", 30722)
	cursor := func(parts ...string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(strings.Join(parts, "\x1f")))
	}
	tooMany := make([]string, 101)
	for i := range tooMany {
		tooMany[i] = "cty_IT"
	}
	for name, c := range map[string]struct {
		document  string
		variables object
		code      fault.Code
		field     string
	}{
		"a document that is none":                  {"{ probes(first: }", nil, fault.ParseFailed, ""},
		"an empty document":                        {"", nil, fault.Invalid, "query"},
		"a field that there is not":                {"{ nothing }", nil, fault.ValidationFailed, ""},
		"an enum value that there is not":          {"{ probes(first: 1, filter: {states: [ASLEEP]}) { edges { cursor } } }", nil, fault.ValidationFailed, ""},
		"a variable of another type":               {"query ($n: Int) { probes(first: $n) { edges { cursor } } }", object{"n": "many"}, fault.ValidationFailed, "n"},
		"a variable that is missing":               {"query ($id: ID!) { node(id: $id) { id } }", nil, fault.ValidationFailed, "id"},
		"no slicing argument":                      {"{ probes { edges { cursor } } }", nil, fault.Invalid, "first"},
		"both slicing arguments":                   {"{ probes(first: 1, last: 1) { edges { cursor } } }", nil, fault.Invalid, "last"},
		"a page of 101":                            {"{ measurements(first: 101) { edges { cursor } } }", nil, fault.Invalid, "first"},
		"a last page of 101":                       {"{ events(last: 101) { edges { cursor } } }", nil, fault.Invalid, "last"},
		"a page of 0":                              {"{ probes(first: 0) { edges { cursor } } }", nil, fault.Invalid, "first"},
		"a page of -1":                             {"{ probes(last: -1) { edges { cursor } } }", nil, fault.Invalid, "last"},
		"a page of 101 in a country":               {`{ country(code: "IT") { probes(first: 101) { edges { cursor } } } }`, nil, fault.Invalid, "first"},
		"no cursor":                                {`{ probes(first: 1, after: "nonsense") { edges { cursor } } }`, nil, fault.Invalid, "after"},
		"an empty cursor":                          {`{ probes(last: 1, before: "") { edges { cursor } } }`, nil, fault.Invalid, "before"},
		"a cursor of another list":                 {"query ($c: Cursor) { probes(first: 1, after: $c) { edges { cursor } } }", object{"c": cursor("1", "measurement", "2026-01-01T00:00:00Z", "x")}, fault.Invalid, "after"},
		"a cursor of another version":              {"query ($c: Cursor) { events(first: 1, after: $c) { edges { cursor } } }", object{"c": cursor("2", "log", "1", "1")}, fault.Invalid, "after"},
		"a cursor that names no instant":           {"query ($c: Cursor) { measurements(first: 1, after: $c) { edges { cursor } } }", object{"c": cursor("1", "measurement", "yesterday", "x")}, fault.Invalid, "after"},
		"a cursor of the year 0":                   {"query ($c: Cursor) { measurements(first: 1, after: $c) { edges { cursor } } }", object{"c": cursor("1", "measurement", "0000-01-01T00:00:00Z", "x")}, fault.Invalid, "after"},
		"a cursor with a comma":                    {"query ($c: Cursor) { probes(first: 1, after: $c) { edges { cursor } } }", object{"c": cursor("1", "probe", "2026-01-01T00:00:00,5Z", "x")}, fault.Invalid, "after"},
		"a cursor with NUL":                        {"query ($c: Cursor) { probes(first: 1, after: $c) { edges { cursor } } }", object{"c": cursor("1", "probe", "2026-01-01T00:00:00Z", "\x00")}, fault.Invalid, "after"},
		"a cursor that is not UTF-8":               {"query ($c: Cursor) { probes(first: 1, after: $c, orderBy: {field: COUNTRY}) { edges { cursor } } }", object{"c": cursor("1", "probe", "\xff", "x")}, fault.Invalid, "after"},
		"a cursor of a number below 0":             {"query ($c: Cursor) { events(first: 1, after: $c) { edges { cursor } } }", object{"c": cursor("1", "log", "-1", "1")}, fault.Invalid, "after"},
		"a text with NUL in a filter":              {"query ($d: [String!]) { measurements(first: 1, filter: {domains: $d}) { edges { cursor } } }", object{"d": []string{"a\x00"}}, fault.Invalid, ""},
		"an id with NUL in a filter":               {"query ($d: [ID!]) { events(first: 1, filter: {subjects: $d}) { edges { cursor } } }", object{"d": []string{"a\x00"}}, fault.Invalid, ""},
		"a time that is none":                      {`{ events(first: 1, filter: {since: "now"}) { edges { cursor } } }`, nil, fault.Invalid, ""},
		"a country that is none":                   {`query ($c: CountryCode!) { country(code: $c) { id } }`, object{"c": "it"}, fault.Invalid, ""},
		"a network that is none":                   {`{ network(asn: "AS-1") { id } }`, nil, fault.Invalid, ""},
		"a board of tomorrow":                      {`{ probeBoard(asOf: "2999-01-01T00:00:00Z") { asOf } }`, nil, fault.Invalid, "asOf"},
		"a probe of tomorrow":                      {`query ($id: ID!) { probe(id: $id, asOf: "2999-01-01T00:00:00Z") { id } }`, object{"id": p.id}, fault.Invalid, "asOf"},
		"101 ids":                                  {"query ($ids: [ID!]!) { nodes(ids: $ids) { id } }", object{"ids": tooMany}, fault.Invalid, "ids"},
		"a mutation that fails without userErrors": {`mutation { registerProbe(input: {country: "ZZ", asn: 1}) { secret } }`, nil, fault.Invalid, "input.country"},
		"an unknown probe without userErrors":      {`mutation ($id: ID!) { retireProbe(input: {probeId: $id}) { probe { id } } }`, object{"id": "prb_0000000000000000"}, fault.Unauthenticated, ""},
		"a right that is missing":                  {`mutation { createToken(input: {role: ADMIN, name: "me"}) { secret userErrors { code } } }`, nil, fault.Unauthenticated, ""},
		"a name that only PROBE may have":          {`mutation { createToken(input: {role: PROBE, name: "me"}) { secret } }`, nil, fault.Unauthenticated, ""},
	} {
		t.Run(name+" is "+string(c.code), func(t *testing.T) {
			t.Parallel()
			wantFault(t, a.do(t, "", c.document, c.variables), c.code, c.field)
		})
	}

	t.Run("what does not exist is null and no error", func(t *testing.T) {
		t.Parallel()
		uid := "20260101000000.000000_IT_telegram_0000000000000000"
		for _, id := range []string{
			"", "x", "prb_", "prb_0000000000000000", "msm_" + uid, "msm_x", "msm_" + uid + "\x00", "evt_0", "evt_-1", "evt_+1", "evt_01", "evt_999999",
			"evt_99999999999999999999", "tok_1", "cty_it", "cty_ITA", "net_0", "net_-1", "net_4294967296", "net_01", "net_AS1", "\x00\x00\x00\x00\x00",
		} {
			equal(t, a.ask(t, "", "query ($id: ID!) { node(id: $id) { id } nodes(ids: [$id]) { id } }", object{"id": id}),
				object{"node": nil, "nodes": []any{nil}})
		}
		equal(t, a.ask(t, "", `query ($uid: ID!) { measurement(uid: $uid) { id } probe(id: $uid) { id } country(code: "ZZ") { id } network(asn: 0) { id } }`, object{"uid": uid}),
			object{"measurement": nil, "probe": nil, "country": nil, "network": nil})
	})

	t.Run("a bad token is UNAUTHENTICATED, and 401, for reads too", func(t *testing.T) {
		t.Parallel()
		for _, h := range []string{"Bearer vantage_admin_x", "Bearer", "Basic YTpi", "Bearer " + p.secret[:len(p.secret)-1] + "!", p.secret} {
			r := a.raw(t, http.Header{"Content-Type": {"application/json"}, "Authorization": {h}}, []byte(`{"query": "{ viewer { role } }"}`))
			wantFault(t, r, fault.Unauthenticated, "")
			equal(t, r.Status, http.StatusUnauthorized)
		}
	})

	t.Run("each role is told who it is", func(t *testing.T) {
		t.Parallel()
		for _, r := range []access.Role{access.Researcher, access.Operator, access.Admin} {
			equal(t, str(t, a.ask(t, a.issue(t, r), "{ viewer { role } }", nil), "viewer", "role"), string(r))
		}
		equal(t, at(t, a.ask(t, p.secret, "{ viewer { role probe { id } } }", nil), "viewer"), any(object{"role": "PROBE", "probe": object{"id": p.id}}))
		equal(t, str(t, a.ask(t, "", "{ viewer { role } }", nil), "viewer", "role"), "PUBLIC")
	})
}

func TestFailures(t *testing.T) {
	t.Parallel()

	t.Run("a row that makes a resolver panic or fail leaves the server alive", func(t *testing.T) {
		t.Parallel()
		a := start(t)
		uid := str(t, a.submit(t, "", body(nil)), "measurement", "uid")
		a.exec(t, "update body set data = ''::bytea")
		const document = "query ($uid: ID!) { measurement(uid: $uid) { uid body } }"
		if r := a.do(t, "", document, object{"uid": uid}); !strings.Contains(r.Raw, uid) {
			t.Errorf("one broken field takes the measurement with it: %s", r.Raw)
		}
		a.exec(t, `update body set data = '\x00'::bytea`)
		r := a.do(t, "", document, object{"uid": uid})
		wantFault(t, r, fault.Internal, "")
		equal(t, at(t, r.Data, "measurement", "uid"), any(uid))
		res, text := a.send(t, http.MethodGet, a.URL()+"/api/v1/raw_measurement?measurement_uid="+url.QueryEscape(uid), nil, nil)
		if res.StatusCode != http.StatusInternalServerError || !strings.Contains(text, "INTERNAL") || strings.Contains(text, "magic") {
			t.Errorf("REST answers %d %s", res.StatusCode, text)
		}
	})

	t.Run("a database that is gone is UNAVAILABLE, with a time to wait, whatever needs it", func(t *testing.T) {
		t.Parallel()
		a := start(t)
		p := a.register(t, "IT", 30722)
		a.cutOff(t)
		fresh, _ := access.NewToken(access.Researcher, [32]byte{1})
		r := a.do(t, fresh, "{ viewer { role } }", nil)
		wantFault(t, r, fault.Unavailable, "")
		equal(t, r.Status, http.StatusServiceUnavailable)
		if r.Header.Get("Retry-After") == "" {
			t.Error("there is no Retry-After")
		}
		data := a.ask(t, "", registerDocument, object{"input": object{"country": "IT", "asn": 1}})
		equal(t, at(t, data, "registerProbe", "userErrors", 0, "code"), any("UNAVAILABLE"))
		res, text := a.send(t, http.MethodPost, a.HeartbeatURL(), bearer(p.secret), packet(p, nil))
		if res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(text, "UNAVAILABLE") {
			t.Errorf("the heartbeat listener answers %d %s", res.StatusCode, text)
		}
		res, _ = a.send(t, http.MethodGet, a.URL()+"/readyz", nil, nil)
		equal(t, res.StatusCode, http.StatusServiceUnavailable)
		res, _ = a.send(t, http.MethodGet, a.URL()+"/healthz", nil, nil)
		equal(t, res.StatusCode, http.StatusOK)
		if _, err := a.openSocket(t.Context(), fresh); !websocket.IsCloseError(errors.Unwrap(err), websocket.CloseTryAgainLater) {
			t.Errorf("the websocket is refused with %v", err)
		}
	})

	t.Run("a connection too many is told to come back later, and finds room then", func(t *testing.T) {
		t.Parallel()
		a := start(t, func(c *server.Config) { c.MaxConnectionsPerClient = 1 })
		one, err := a.openSocket(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.openSocket(t.Context(), ""); !websocket.IsCloseError(errors.Unwrap(err), websocket.CloseTryAgainLater) {
			t.Errorf("another websocket is refused with %v", err)
		}
		h := bearer("")
		h.Set("Accept", "text/event-stream")
		res, text := a.send(t, http.MethodPost, a.URL()+"/graphql", h, []byte(`{"query": "subscription { pulse { seq } }"}`))
		if res.StatusCode != http.StatusTooManyRequests || !strings.Contains(text, `"RATE_LIMITED"`) || res.Header.Get("Retry-After") == "" {
			t.Errorf("an event stream is refused with %d %s", res.StatusCode, text)
		}
		one.cut(closed)
		eventually(t, "there is room again", func() bool {
			s, err := a.openEvents(t.Context(), "", "subscription { pulse { seq } }", nil)
			if err == nil {
				_, err = s.next()
			}
			return err == nil
		})
	})

	t.Run("a busy port fails at the start", func(t *testing.T) {
		t.Parallel()
		a := start(t)
		cfg := config(t)
		cfg.Listen = strings.TrimPrefix(a.URL(), "http://")
		if _, err := newServer(t, cfg); err == nil || !strings.Contains(err.Error(), "LISTEN") {
			t.Errorf("New fails with %v", err)
		}
		cfg = config(t)
		cfg.HeartbeatListen = strings.TrimPrefix(a.URL(), "http://")
		if _, err := newServer(t, cfg); err == nil || !strings.Contains(err.Error(), "HEARTBEAT_LISTEN") {
			t.Errorf("New fails with %v", err)
		}
	})
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	a := start(t, func(c *server.Config) { c.MaxDocumentBytes = 10_000 })
	get := func(t *testing.T, path string, h http.Header) (*http.Response, string) {
		t.Helper()
		return a.send(t, http.MethodGet, a.URL()+path, h, nil)
	}

	t.Run("the plain pages answer", func(t *testing.T) {
		t.Parallel()
		for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ready\n"} {
			if res, text := get(t, path, nil); res.StatusCode != http.StatusOK || text != want {
				t.Errorf("%s answers %d %q", path, res.StatusCode, text)
			}
		}
		a.submit(t, "", body(nil))
		if res, text := get(t, "/metrics", nil); res.StatusCode != http.StatusOK || !strings.Contains(text, `vantage_submissions_total{outcome="SCORED"}`) {
			t.Errorf("/metrics answers %d %s", res.StatusCode, text)
		}
	})

	t.Run("the schema has an ETag, and is not sent to who has it", func(t *testing.T) {
		t.Parallel()
		res, text := get(t, "/schema.graphql", nil)
		etag := res.Header.Get("ETag")
		if !strings.Contains(text, "type Query") || etag == "" {
			t.Fatalf("answered %d with ETag %q", res.StatusCode, etag)
		}
		equal(t, `"`+str(t, a.ask(t, "", "{ service { schemaHash } }", nil), "service", "schemaHash")+`"`, etag)
		for match, status := range map[string]int{
			etag: http.StatusNotModified, "W/" + etag: http.StatusNotModified, `"x", ` + etag: http.StatusNotModified, "*": http.StatusNotModified, `"x"`: http.StatusOK,
		} {
			res, text := get(t, "/schema.graphql", http.Header{"If-None-Match": {match}})
			if res.StatusCode != status || (status == http.StatusNotModified) != (text == "") {
				t.Errorf("If-None-Match: %s is answered with %d and %d bytes", match, res.StatusCode, len(text))
			}
		}
	})

	t.Run("a browser that opens /graphql comes to GraphiQL", func(t *testing.T) {
		t.Parallel()
		html := http.Header{"Accept": {"text/html,application/xhtml+xml,*/*;q=0.8"}}
		res, _ := get(t, "/graphql", html)
		equal(t, []any{res.StatusCode, res.Header.Get("Location")}, []any{http.StatusSeeOther, "/graphiql"})
		res, text := get(t, "/graphql?query=%7Bviewer%7Brole%7D%7D", html)
		if res.StatusCode != http.StatusOK || !strings.HasPrefix(text, `{"data":{"viewer":{"role":"PUBLIC"}},"extensions":{"cost":{"requested":`) {
			t.Errorf("answered %d %s", res.StatusCode, text)
		}
	})

	t.Run("a GET changes nothing", func(t *testing.T) {
		t.Parallel()
		before := a.counts(t)["probe"]
		res, text := get(t, "/graphql?query="+url.QueryEscape(`mutation { registerProbe(input: {country: "IT", asn: 1}) { secret } }`), nil)
		if res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != "POST" {
			t.Errorf("answered %d, Allow: %s, %s", res.StatusCode, res.Header.Get("Allow"), text)
		}
		equal(t, a.counts(t)["probe"], before)
	})

	t.Run("what is not GraphQL over HTTP is turned away", func(t *testing.T) {
		t.Parallel()
		query := `{"query": "{ viewer { role } }"}`
		for _, c := range []struct {
			name, method, path, kind, body string
			status                         int
		}{
			{"a form", http.MethodPost, "/graphql", "application/x-www-form-urlencoded", "query=%7Bviewer%7Brole%7D%7D", 415},
			{"plain text", http.MethodPost, "/graphql", "text/plain", query, 415},
			{"multipart", http.MethodPost, "/graphql", "multipart/form-data; boundary=x", query, 415},
			{"no type", http.MethodPost, "/graphql", "", query, 415},
			{"JSON in UTF-8", http.MethodPost, "/graphql", "application/json; charset=utf-8", query, 200},
			{"PUT", http.MethodPut, "/graphql", "application/json", query, 405},
			{"DELETE", http.MethodDelete, "/graphql", "", "", 405},
			{"bad JSON", http.MethodPost, "/graphql", "application/json", `{"query": "{ secretword`, 400},
			{"no query", http.MethodPost, "/graphql", "application/json", `{"variables": {}}`, 400},
			{"an empty body", http.MethodPost, "/graphql", "application/json", "", 400},
			{"a batch", http.MethodPost, "/graphql", "application/json", "[" + query + "]", 400},
			{"a query that is a number", http.MethodPost, "/graphql", "application/json", `{"query": 1}`, 400},
			{"variables that are a list", http.MethodPost, "/graphql", "application/json", `{"query": "{ viewer { role } }", "variables": ["secretword"]}`, 400},
			{"an operation name that is a number", http.MethodPost, "/graphql", "application/json", `{"query": "{ viewer { role } }", "operationName": 7, "x": "secretword"}`, 400},
			{"a document of 10,001 bytes", http.MethodPost, "/graphql", "application/json", `{"query": "{ viewer { role } } #` + strings.Repeat("x", 10_000) + `"}`, 413},
			{"a GET of 10,001 bytes", http.MethodGet, "/graphql?query=" + strings.Repeat("x", 10_000), "", "", 413},
			{"a query string that cannot be read", http.MethodGet, "/graphql?query=%zz", "", "", 400},
			{"variables that cannot be read", http.MethodGet, "/graphql?query=%7Bviewer%7Brole%7D%7D&variables=secretword", "", "", 400},
			{"a path below /api", http.MethodGet, "/api/v2/nothing", "", "", 404},
			{"a raw measurement of nobody", http.MethodGet, "/api/v1/raw_measurement", "", "", 400},
			{"a raw measurement that there is not", http.MethodGet, "/api/v1/raw_measurement?measurement_uid=x", "", "", 404},
		} {
			h := http.Header{}
			if c.kind != "" {
				h.Set("Content-Type", c.kind)
			}
			res, text := a.send(t, c.method, a.URL()+c.path, h, []byte(c.body))
			if res.StatusCode != c.status {
				t.Errorf("%s: answered %d %s, want %d", c.name, res.StatusCode, text, c.status)
			}
			if strings.Contains(text, "secretword") {
				t.Errorf("%s: it is echoed: %s", c.name, text)
			}
			if c.status >= 400 && !strings.Contains(text, `"code":`) {
				t.Errorf("%s: there is no code in %s", c.name, text)
			}
			if c.status == 405 && res.Header.Get("Allow") == "" {
				t.Errorf("%s: there is no Allow", c.name)
			}
		}
	})

	t.Run("documents that are built to hurt are refused quickly", func(t *testing.T) {
		t.Parallel()
		for name, document := range map[string]string{
			"deep nesting": strings.Repeat("{a", 3000) + strings.Repeat("}", 3000),
			"a long list":  "{ nodes(ids: [" + strings.Repeat("1 ", 4500) + "]) { id } }",
			"an open list": "{ nodes(ids: " + strings.Repeat("[", 9000),
		} {
			if r := a.do(t, "", document, nil); len(r.Errors) == 0 || len(r.Raw) > 5000 {
				t.Errorf("%s: answered %d with %d bytes", name, r.Status, len(r.Raw))
			}
		}
	})
}
