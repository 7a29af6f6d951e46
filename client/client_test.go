package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openvantage/vantage/client"
	"github.com/openvantage/vantage/client/clienttest"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/probe"
)

const schemaDir = "../graph/schema"

// serve starts a server that checks against the schema, and a client of it.
func serve(t *testing.T, s *clienttest.Server, token string) *client.Client {
	t.Helper()
	n := clienttest.Serve(t, s)
	return client.New(client.Options{BaseURL: "http://vantage.test/", Token: token, HTTPClient: n.HTTPClient(t), Dialer: n.Dialer()})
}

// serveFunc starts a server that does as handler does, and a client of it.
func serveFunc(t *testing.T, handler http.HandlerFunc) *client.Client {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return client.New(client.Options{BaseURL: s.URL, Token: "tok", HTTPClient: s.Client()})
}

// want fails the test unless err is the fault.
func want(t *testing.T, err error, code fault.Code, field string, retryAfter time.Duration) {
	t.Helper()
	got, ok := errors.AsType[*fault.Error](err)
	if !ok || got.Code != code || got.Field != field || got.RetryAfter != retryAfter {
		t.Errorf("got %v, want %s %s after %v", err, code, field, retryAfter)
	}
}

func TestDo(t *testing.T) {
	t.Parallel()
	t.Run("a request says who is asking and what it can read", func(t *testing.T) {
		t.Parallel()
		c := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			got := []string{
				r.Method, r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("Content-Type"), r.Header.Get("Accept"), string(body),
			}
			if diff := cmp.Diff([]string{
				"POST", "/graphql", "Bearer tok", "application/json", "application/graphql-response+json, application/json",
				`{"query":"query($a: Int) { x }","variables":{"a":"<&>"}}`,
			}, got); diff != "" {
				t.Error(diff)
			}
			w.Header().Set("Content-Type", "application/graphql-response+json; charset=utf-8")
			fmt.Fprint(w, `{"data": {"x": 5}}`)
		})
		var out struct{ X int }
		err := c.Do(t.Context(), "query($a: Int) { x }", map[string]any{"a": "<&>"}, &out)
		if err != nil || out.X != 5 {
			t.Errorf("got %v, %v", out, err)
		}
	})
	t.Run("data beside errors is kept", func(t *testing.T) {
		t.Parallel()
		c := serveFunc(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"data": {"x": 5}, "errors": [{"message": "No.", "extensions": {"code": "NOT_FOUND"}}]}`)
		})
		var out struct{ X int }
		err := c.Do(t.Context(), "{ x }", nil, &out)
		want(t, err, fault.NotFound, "", 0)
		if out.X != 5 {
			t.Errorf("got %v", out)
		}
	})
	t.Run("a caller who gives up is told so, not that the server is away", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		c := serveFunc(t, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // or the server would not notice that the client leaves
			cancel()
			<-r.Context().Done()
		})
		if err := c.Do(ctx, "{ x }", nil, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a server that cannot be reached is UNAVAILABLE", func(t *testing.T) {
		t.Parallel()
		n := clienttest.Serve(t, http.NotFoundHandler())
		n.Close()
		c := client.New(client.Options{BaseURL: "http://vantage.test", HTTPClient: n.HTTPClient(t)}) // a port that was free may be another's by now
		want(t, c.Do(t.Context(), "{ x }", nil, nil), fault.Unavailable, "", 0)
	})
	t.Run("an address without a scheme is INVALID", func(t *testing.T) {
		t.Parallel()
		want(t, client.New(client.Options{BaseURL: "\x00"}).Do(t.Context(), "{ x }", nil, nil), fault.Invalid, "", 0)
	})
}

func TestDoErrors(t *testing.T) {
	t.Parallel()
	graphql := "application/graphql-response+json"
	for name, test := range map[string]struct {
		status      int
		contentType string
		body        string
		retryAfter  string
		code        fault.Code
		field       string
		after       time.Duration
	}{
		"an error carries code, field and wait": {
			200, graphql, `{"errors": [{"message": "Slow down.", "extensions": {"code": "RATE_LIMITED", "field": "input", "retryAfter": 2.5}}]}`, "",
			fault.RateLimited, "input", 2500 * time.Millisecond,
		},
		"an error without code is INTERNAL":            {200, graphql, `{"errors": [{"message": "Oh."}]}`, "", fault.Internal, "", 0},
		"an error with status 400 keeps its code":      {400, graphql, `{"errors": [{"message": "?", "extensions": {"code": "GRAPHQL_PARSE_FAILED"}}]}`, "", fault.ParseFailed, "", 0},
		"a proxy's 502 is UNAVAILABLE":                 {502, "text/html", "<h1>Bad gateway</h1>", "", fault.Unavailable, "", 0},
		"a proxy's 503 says how long to wait":          {503, "text/html", "", "7", fault.Unavailable, "", 7 * time.Second},
		"an absurd wait is cut to a day":               {503, "text/html", "", "1e300", fault.Unavailable, "", 24 * time.Hour},
		"a wait in the past is none":                   {503, "text/html", "", "-5", fault.Unavailable, "", 0},
		"a proxy's 429 is RATE_LIMITED":                {429, "", "", "1", fault.RateLimited, "", time.Second},
		"a proxy's 413 is QUERY_TOO_COSTLY":            {413, "", "", "", fault.QueryTooCostly, "", 0},
		"a proxy's 401 is UNAUTHENTICATED":             {401, "", "", "", fault.Unauthenticated, "", 0},
		"a proxy's 403 is FORBIDDEN":                   {403, "", "", "", fault.Forbidden, "", 0},
		"a wrong path is NOT_FOUND":                    {404, "text/plain", "404 page not found", "", fault.NotFound, "", 0},
		"a page that is not GraphQL is UNAVAILABLE":    {200, "text/html", "<h1>Log in to this wifi</h1>", "", fault.Unavailable, "", 0},
		"JSON that is not GraphQL is UNAVAILABLE":      {200, "application/json", `{"hello": 1}`, "", fault.Unavailable, "", 0},
		"JSON that is cut off is UNAVAILABLE":          {200, "application/json", `{"data": {"x"`, "", fault.Unavailable, "", 0},
		"a status nobody expects is INTERNAL":          {418, "", "", "", fault.Internal, "", 0},
		"a request that is refused as such is INVALID": {415, "", "", "", fault.Invalid, "", 0},
		"a heartbeat-like conflict status is CONFLICT": {409, "", "", "", fault.Conflict, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := serveFunc(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", test.contentType)
				w.Header().Set("Retry-After", test.retryAfter)
				w.WriteHeader(test.status)
				fmt.Fprint(w, test.body)
			})
			want(t, c.Do(t.Context(), "{ x }", nil, nil), test.code, test.field, test.after)
		})
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 21, 14, 3, 22, 123456789, time.UTC)
	heartbeat := client.Heartbeat{
		ProbeID: "prb_0000000000000001", Country: "IR", ASN: 64512, SoftwareVersion: "2.4.0",
		Uptime: 90*time.Second + 1, QueueDepth: 3, LastMeasurementAt: at,
	}
	const secret = "secret of prb_0000000000000001"
	register := func(t *testing.T, c *client.Client) client.Registered {
		t.Helper()
		r, err := c.Register(t.Context(), client.Registration{
			IdempotencyKey: "key", DisplayName: "quiet-heron", Country: "IR", ASN: 64512, Type: probe.Community,
			SoftwareVersion: "2.4.0", Contact: "a@example.org",
		})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	t.Run("a probe registers, is activated and beats by GraphQL", func(t *testing.T) {
		t.Parallel()
		s := clienttest.New(t, schemaDir)
		s.Now = func() time.Time { return at }
		c := serve(t, s, "operator")
		if diff := cmp.Diff(client.Registered{ID: heartbeat.ProbeID, Lifecycle: probe.Pending, Secret: secret}, register(t, c)); diff != "" {
			t.Error(diff)
		}
		if err := c.Activate(t.Context(), heartbeat.ProbeID); err != nil {
			t.Error(err)
		}
		got, err := c.As(secret).Heartbeat(t.Context(), heartbeat)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(client.HeartbeatAnswer{State: probe.StateOnline, ServerTime: at, NextAfter: time.Minute, Advisories: []probe.Advisory{}}, got); diff != "" {
			t.Error(diff)
		}
		rs := s.Requests()
		if len(rs) != 3 || rs[0].Token != "operator" || rs[2].Token != secret {
			t.Fatalf("got %v", rs)
		}
		if diff := cmp.Diff(map[string]any{
			"probeId": "prb_0000000000000001", "probeCc": "IR", "probeAsn": "64512", "softwareVersion": "2.4.0",
			"uptimeSeconds": "90", "queueDepth": "3", "lastMeasurementAt": "2026-11-21T14:03:22.123456Z",
		}, printed(rs[2].Input)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a probe beats on the second listener", func(t *testing.T) {
		t.Parallel()
		s := clienttest.New(t, schemaDir)
		s.Now = func() time.Time { return at }
		c := serve(t, s, "")
		register(t, c)
		got, err := c.As(secret).PostHeartbeat(t.Context(), "http://heartbeat.test/heartbeat", heartbeat)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(client.HeartbeatAnswer{State: probe.StateOnline, ServerTime: at, NextAfter: time.Minute}, got); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(map[string]any{
			"probe_id": "prb_0000000000000001", "probe_cc": "IR", "probe_asn": "AS64512", "software_version": "2.4.0",
			"uptime_seconds": "90", "queue_depth": "3", "last_measurement_at": "1795269802",
		}, printed(s.Requests("POST /heartbeat")[0].Input)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a probe that has not measured sends null", func(t *testing.T) {
		t.Parallel()
		s := clienttest.New(t, schemaDir)
		c := serve(t, s, "")
		c = c.As(register(t, c).Secret)
		fresh := heartbeat
		fresh.LastMeasurementAt = time.Time{}
		if _, err := c.Heartbeat(t.Context(), fresh); err != nil {
			t.Error(err)
		}
		if _, err := c.PostHeartbeat(t.Context(), "http://heartbeat.test/heartbeat", fresh); err != nil {
			t.Error(err)
		}
		for _, r := range s.Requests("heartbeat", "POST /heartbeat") {
			if v, ok := r.Input["lastMeasurementAt"]; ok && v != nil {
				t.Errorf("got %v", v)
			}
			if v := r.Input["last_measurement_at"]; v != nil {
				t.Errorf("got %v", v)
			}
		}
	})
	t.Run("refused heartbeats carry their code on both listeners", func(t *testing.T) {
		t.Parallel()
		s := clienttest.New(t, schemaDir)
		s.Refuse = func(r clienttest.Request) *fault.Error {
			return fault.Field("probe_asn", "Not yours.").After(10 * time.Second)
		}
		c := serve(t, s, "")
		_, err := c.Heartbeat(t.Context(), heartbeat)
		want(t, err, fault.Invalid, "probe_asn", 10*time.Second)
		_, err = c.PostHeartbeat(t.Context(), "http://heartbeat.test/heartbeat", heartbeat)
		want(t, err, fault.Invalid, "probe_asn", 10*time.Second)
	})
	t.Run("a second listener that answers no JSON is judged by its status", func(t *testing.T) {
		t.Parallel()
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "9")
			http.Error(w, "no", http.StatusBadGateway)
		}))
		t.Cleanup(s.Close)
		_, err := client.New(client.Options{}).PostHeartbeat(t.Context(), s.URL+"/heartbeat", heartbeat)
		want(t, err, fault.Unavailable, "", 9*time.Second)
	})
}

// printed makes numbers comparable, however they were decoded.
func printed(in map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range in {
		out[k] = fmt.Sprint(v)
	}
	return out
}

func TestSubmit(t *testing.T) {
	t.Parallel()
	// Everything that a careless encoder changes, in a body that is not even compact.
	body := "{\n \"a\" : \"<script>&amp; \u2028 \\u00e9 é \U0001F600\", \"n\": 1.0E+2 }\n"
	t.Run("a body arrives byte for byte and its outcome comes back", func(t *testing.T) {
		t.Parallel()
		s := clienttest.New(t, schemaDir)
		s.Verdict = func(string) map[string]any {
			return map[string]any{"measurement": map[string]any{"uid": "", "anomaly": true, "confirmed": true, "failure": false}}
		}
		c := serve(t, s, "operator")
		at := time.Date(2024, 2, 12, 20, 33, 47, 0, time.FixedZone("", 3600))
		sub := client.Submission{Content: []byte(body), ReceivedAt: at, IdempotencyKey: "k"}
		got, err := c.Submit(t.Context(), sub)
		if err != nil || !got.Anomaly || !got.Confirmed || got.Failure || got.Duplicate || got.ID == "" {
			t.Errorf("got %+v, %v", got, err)
		}
		if diff := cmp.Diff(map[string]any{
			"idempotencyKey": "k", "content": body, "receivedAt": "2024-02-12T19:33:47Z",
		}, s.Requests()[0].Input); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a batch has one outcome for each body", func(t *testing.T) {
		t.Parallel()
		s := clienttest.New(t, schemaDir)
		s.Verdict = func(content string) map[string]any {
			switch content {
			case "discard":
				return map[string]any{"measurement": nil, "discarded": map[string]any{
					"uid": "u", "reason": "COUNTRY_UNKNOWN", "message": "Nobody knows.",
				}}
			case "refuse":
				return map[string]any{"measurement": nil, "userErrors": []map[string]any{{
					"code": "INVALID", "field": "input.content", "message": "No.", "retryAfterSeconds": 3,
				}}}
			}
			return nil
		}
		c := serve(t, s, "")
		var ss []client.Submission
		for _, content := range []string{body, "discard", "refuse", body} {
			ss = append(ss, client.Submission{Content: []byte(content)})
		}
		got, err := c.SubmitBatch(t.Context(), "k", ss)
		if err != nil || len(got) != 4 {
			t.Fatalf("got %v, %v", got, err)
		}
		if got[0].ID == "" || got[0].Duplicate || got[0].Err != nil {
			t.Errorf("got %+v for a good body", got[0])
		}
		if diff := cmp.Diff(&client.Discarded{ID: "u", Reason: measurement.CountryUnknown, Message: "Nobody knows."}, got[1].Discarded); diff != "" {
			t.Error(diff)
		}
		want(t, got[2].Err, fault.Invalid, "input.content", 3*time.Second)
		if !got[3].Duplicate || got[3].ID != got[0].ID {
			t.Errorf("got %+v for the first body again", got[3])
		}
		// The same refusal is an error where there is one body only.
		_, err = c.Submit(t.Context(), ss[2])
		want(t, err, fault.Invalid, "input.content", 3*time.Second)
	})
	t.Run("a body that JSON cannot carry unchanged is not sent", func(t *testing.T) {
		t.Parallel()
		s := clienttest.New(t, schemaDir)
		c := serve(t, s, "")
		bad := client.Submission{Content: []byte{'"', 0xff, '"'}}
		_, err := c.Submit(t.Context(), bad)
		want(t, err, fault.Invalid, "input.content", 0)
		_, err = c.SubmitBatch(t.Context(), "", []client.Submission{bad})
		want(t, err, fault.Invalid, "input.content", 0)
		if n := len(s.Requests()); n != 0 {
			t.Errorf("%d requests", n)
		}
	})
	t.Run("a server that says nothing of a body is not believed", func(t *testing.T) {
		t.Parallel()
		s := clienttest.New(t, schemaDir)
		s.Verdict = func(string) map[string]any { return map[string]any{"measurement": nil} }
		_, err := serve(t, s, "").Submit(t.Context(), client.Submission{Content: []byte("{}")})
		want(t, err, fault.Internal, "", 0)
	})
}
