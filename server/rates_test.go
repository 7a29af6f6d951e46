package server_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/server"
)

// slowly gives the public points that do not come back within a test.
func slowly(points float64) func(*server.Config) {
	return func(c *server.Config) { c.RatePublic = server.Rate{PerSecond: points / 86400, Burst: points} }
}

// A cost is what a response tells of its price.
type cost struct{ Requested, Actual, Limit, Remaining int }

func costOf(t *testing.T, r answer) cost {
	t.Helper()
	var out struct{ Extensions struct{ Cost *cost } }
	if err := json.Unmarshal([]byte(r.Raw), &out); err != nil || out.Extensions.Cost == nil {
		t.Fatalf("%s has no extensions.cost: %v", r.Raw, err)
	}
	return *out.Extensions.Cost
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// dear costs more than a hundred points, whatever there is to find.
var dear = func() string {
	var b strings.Builder
	for i := range 9 {
		b.WriteString(" f" + strconv.Itoa(i) + ": service { figures { probeCount } }")
	}
	return "{" + b.String() + " }"
}()

// drain asks until the source has too few points left for that.
func drain(t *testing.T, a *api, token, document string) answer {
	t.Helper()
	for range 10_000 {
		if r := a.do(t, token, document, nil); len(r.Errors) > 0 {
			wantFault(t, r, fault.RateLimited, "")
			return r
		}
	}
	t.Fatal("there is no end to the points")
	return answer{}
}

func TestPoints(t *testing.T) {
	t.Parallel()
	const cheap = "{ service { version } }"

	t.Run("who has spent all is refused with 429 and the time to wait, and nobody else is", func(t *testing.T) {
		t.Parallel()
		a := start(t, slowly(2_000))
		p := a.register(t, "IT", 30722)
		r := drain(t, a, "", dear)
		equal(t, r.Status, http.StatusTooManyRequests)
		wait := r.Errors[0].Extensions.RetryAfter
		if wait <= 0 || wait > 86400 || r.Header.Get("Retry-After") != strconv.Itoa(wait) {
			t.Errorf("it should wait for %d s, and for %q by the header", wait, r.Header.Get("Retry-After"))
		}
		if r.Data != nil || strings.Contains(r.Raw, `"data"`) {
			t.Errorf("it was run: %s", r.Raw)
		}
		a.ask(t, "", cheap, nil) // there is enough for that
		a.ask(t, a.issue(t, access.Researcher), dear, nil)
		a.beat(t, p, "IT", 30722)
	})

	t.Run("what is not used is given back, and every response tells", func(t *testing.T) {
		t.Parallel()
		a := start(t, slowly(10_000))
		first := a.do(t, "", cheap, nil)
		before := costOf(t, first)
		if before.Limit != 10_000 || before.Requested == 0 || before.Remaining != 10_000-before.Actual {
			t.Errorf("%+v", before)
		}
		equal(t, first.Header.Get("RateLimit-Limit"), "10000")
		if reset := number(t, first.Header.Get("RateLimit-Reset")); reset < 1 || reset > 86400 {
			t.Errorf("all is back after %d s", reset)
		}
		r := a.do(t, "", "{ measurements(first: 100) { edges { node { uid } } } }", nil)
		after := costOf(t, r)
		if after.Requested <= after.Actual || after.Remaining != before.Remaining-after.Actual {
			t.Errorf("%+v, then %+v", before, after)
		}
		equal(t, number(t, r.Header.Get("RateLimit-Remaining")), after.Remaining)
	})

	t.Run("the price alone is free, and runs nothing", func(t *testing.T) {
		t.Parallel()
		a := start(t, slowly(10_000))
		h := bearer("")
		h.Set("GraphQL-Cost", "estimate")
		b, err := json.Marshal(object{"query": registerDocument, "variables": object{"input": object{"country": "IT", "asn": 1}}})
		if err != nil {
			t.Fatal(err)
		}
		if c := costOf(t, a.raw(t, h, b)); c.Requested < 10 || c.Actual != 0 {
			t.Errorf("%+v", c)
		}
		equal(t, a.counts(t)["probe"], 0)
		if c := costOf(t, a.do(t, "", cheap, nil)); c.Remaining != 10_000-c.Actual {
			t.Errorf("%+v", c)
		}
	})

	t.Run("more at once than there ever is cannot be waited for", func(t *testing.T) {
		t.Parallel()
		a := start(t, slowly(100))
		r := a.do(t, "", dear, nil)
		wantFault(t, r, fault.QueryTooCostly, "")
		equal(t, r.Header.Get("Retry-After"), "")
	})

	t.Run("everyone can ask what is left, and which limits hold", func(t *testing.T) {
		t.Parallel()
		a := start(t, func(c *server.Config) {
			// So slow that what the question costs is not back before it is answered.
			c.RatePublic, c.RateProbe = server.Rate{PerSecond: 0.5, Burst: 1001}, server.Rate{PerSecond: 0.125, Burst: 1002}
			c.RateResearcher, c.RateOperator = server.Rate{PerSecond: 0.25, Burst: 1003}, server.Rate{PerSecond: 0.375, Burst: 1004}
			c.RateAdmin = server.Rate{PerSecond: 0.625, Burst: 1005}
			c.RegistrationsPerHour, c.MaxDocumentBytes, c.MaxConnectionsPerClient = 7, 100_000, 77
		})
		for _, c := range []struct {
			token     string
			burst     int
			perSecond string
		}{
			{"", 1001, "0.5"},
			{a.register(t, "IT", 30722).secret, 1002, "0.125"},
			{a.issue(t, access.Researcher), 1003, "0.25"},
			{a.issue(t, access.Operator), 1004, "0.375"},
			{a.issue(t, access.Admin), 1005, "0.625"},
		} {
			asked := time.Now()
			data := a.ask(t, c.token, `{ rateLimit { ...R } viewer { rateLimit { ...R } }
				service { limits { pageSize documentBytes documentTokens documentDepth documentAliases documentRootFields documentSelectionsPerKey
					documentFragments documentDirectives operationCost pointsAtOnce pointsPerSecond registrationsPerHour measurementBytes
					batchSize connections websocketInitSeconds websocketMessageBytes websocketMessagesAtOnce websocketMessagesPerSecond websocketOperations } } }
				fragment R on RateLimit { limit remaining perSecond resetAt }`, nil)
			burst := json.Number(strconv.Itoa(c.burst))
			for _, path := range [][]any{{"rateLimit"}, {"viewer", "rateLimit"}} {
				r := at(t, data, path...)
				equal(t, at(t, r, "limit"), any(burst))
				equal(t, at(t, r, "perSecond"), any(json.Number(c.perSecond)))
				left := number(t, string(at(t, r, "remaining").(json.Number)))
				reset, err := time.Parse(time.RFC3339, str(t, r, "resetAt"))
				if err != nil || left >= c.burst || left < c.burst-100 || reset.Before(asked) || reset.After(asked.Add(patience+100*time.Second)) {
					t.Errorf("of %d points %d are left, and all are back at %v: %v", c.burst, left, reset, err)
				}
			}
			equal(t, at(t, data, "service", "limits"), any(object{
				"pageSize": json.Number("100"), "documentBytes": json.Number("100000"), "documentTokens": json.Number("2000"),
				"documentDepth": json.Number("15"), "documentAliases": json.Number("30"), "documentRootFields": json.Number("10"),
				"documentSelectionsPerKey": json.Number("20"), "documentFragments": json.Number("50"), "documentDirectives": json.Number("50"),
				"operationCost": at(t, data, "service", "limits", "operationCost"), "pointsAtOnce": burst,
				"pointsPerSecond": json.Number(c.perSecond), "registrationsPerHour": json.Number("7"),
				"measurementBytes": json.Number("4194304"), "batchSize": at(t, data, "service", "limits", "batchSize"),
				"connections": json.Number("77"), "websocketInitSeconds": json.Number("10"), "websocketMessageBytes": json.Number("65536"),
				"websocketMessagesAtOnce": json.Number("200"), "websocketMessagesPerSecond": json.Number("50"), "websocketOperations": json.Number("50"),
			}))
		}
	})
}

// refused is how a socket ends whose connection_init is not admitted.
func refused(t *testing.T, a *api, token string) *websocket.CloseError {
	t.Helper()
	_, err := a.openSocket(t.Context(), token)
	var ended *websocket.CloseError
	if !errors.As(err, &ended) {
		t.Fatalf("it ends with %v", err)
	}
	return ended
}

func TestBadTokens(t *testing.T) {
	t.Parallel()
	a := start(t, slowly(100))
	guess := "vantage_researcher_" + strings.Repeat("x", 43)
	for range 3 {
		wantFault(t, a.do(t, guess, "{ service { version } }", nil), fault.Unauthenticated, "")
	}
	for range 2 {
		if err := refused(t, a, guess); err.Text != string(fault.Unauthenticated) {
			t.Errorf("a socket with a bad token ends with %v", err)
		}
	}

	t.Run("too many from one source are refused with 429", func(t *testing.T) {
		t.Parallel()
		r := a.do(t, guess, "{ service { version } }", nil)
		wantFault(t, r, fault.RateLimited, "")
		equal(t, r.Status, http.StatusTooManyRequests)
		if r.Header.Get("Retry-After") == "" {
			t.Error("it is not told how long to wait")
		}
	})

	t.Run("on the listener for heartbeats, too", func(t *testing.T) {
		t.Parallel()
		res, text := a.send(t, http.MethodPost, a.HeartbeatURL(), bearer(guess), []byte("{}"))
		if res.StatusCode != http.StatusTooManyRequests {
			t.Errorf("answered %d %s", res.StatusCode, text)
		}
	})

	t.Run("and on websockets", func(t *testing.T) {
		t.Parallel()
		if err := refused(t, a, guess); err.Code != websocket.CloseTryAgainLater {
			t.Errorf("the socket ends with %v", err)
		}
	})

	t.Run("a good token works all the same", func(t *testing.T) {
		t.Parallel()
		a.ask(t, a.issue(t, access.Researcher), "{ service { version } }", nil)
	})
}

func TestServersShareABudget(t *testing.T) {
	t.Parallel()
	pair := func(t *testing.T, change func(*server.Config)) (a, b *api) {
		t.Helper()
		a = start(t, change)
		return a, startOn(t, a.dsn, change)
	}

	t.Run("what is spent at one is missing at the other, and the database has no address", func(t *testing.T) {
		t.Parallel()
		a, b := pair(t, slowly(100_000))
		left := 100_000
		for left > 90_000 {
			left = costOf(t, a.do(t, "", dear, nil)).Remaining
		}
		for here := 100_000; here > 94_000; { // more than goes untold
			here = costOf(t, b.do(t, "", dear, nil)).Remaining
		}
		eventually(t, "the other server knows", func() bool {
			return costOf(t, b.do(t, "", "{ service { version } }", nil)).Remaining < left
		})
		var payers []string
		if err := a.sql.QueryRow(t.Context(), "select array_agg(encode(payer, 'escape')) from rate_level").Scan(&payers); err != nil {
			t.Fatal(err)
		}
		if len(payers) != 1 || strings.Contains(payers[0], "127.0.0") {
			t.Errorf("it has %q", payers)
		}
	})

	t.Run("registrations at one count at the other", func(t *testing.T) {
		t.Parallel()
		a, b := pair(t, func(c *server.Config) { c.RegistrationsPerHour = 20 })
		told := func(minutes int) { // three for each
			t.Helper()
			eventually(t, "it is told", func() bool {
				var n int
				if err := a.sql.QueryRow(t.Context(), "select count(*) from rate_level where full_at > now() + ($1 - 1) * interval '1 minute'", minutes).Scan(&n); err != nil {
					t.Fatal(err)
				}
				return n == 1
			})
		}
		for range 17 {
			a.register(t, "IT", 1)
		}
		told(51)
		b.register(t, "IT", 1)
		b.register(t, "IT", 1) // one is too little to tell
		told(57)
		b.register(t, "IT", 1) // told of by one more exchange, before which it heard of the others
		told(60)
		wantFault(t, b.do(t, "", `mutation { registerProbe(input: {country: "IT", asn: 1}) { secret } }`, nil), fault.RateLimited, "")
	})
}

func TestRateSetting(t *testing.T) {
	t.Parallel()
	var r server.Rate
	if err := r.UnmarshalText([]byte("2.5/1000")); err != nil || r != (server.Rate{PerSecond: 2.5, Burst: 1000}) {
		t.Errorf("%v %v", r, err)
	}
	for _, text := range []string{"", "/", "1", "1/", "/1", "0/1", "1/0", "-1/5", "1/-5", "NaN/1", "1/NaN", "Inf/1", "1/Inf", "a/b", "1/2/3", "1/86401", "1e9/1e10"} {
		if err := new(server.Rate).UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), "1000/100000") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
