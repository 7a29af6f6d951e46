package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"pgregory.net/rapid"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/client"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/server"
)

const changesDocument = `subscription ($filter: ProbeFilter, $after: Cursor, $snapshot: Boolean) { probeStateChanged(filter: $filter, after: $after, snapshot: $snapshot) {
	cursor seq occurredAt probe { id } from to conflated } }`

// tail is a cursor of the end of the log.
func (a *api) tail(t *testing.T) string {
	t.Helper()
	return str(t, a.ask(t, "", "{ events(first: 1) { pageInfo { endCursor } } }", nil), "events", "pageInfo", "endCursor")
}

func TestProbeStateChanged(t *testing.T) {
	t.Parallel()
	a := start(t)
	operator := a.issue(t, access.Operator)
	first := a.register(t, "IT", 1)
	origin := a.tail(t)
	change := func(t *testing.T, m object, p probe, from any, to string) {
		t.Helper()
		c := at(t, m, "probeStateChanged").(object)
		equal(t, []any{at(t, c, "probe", "id"), c["from"], c["to"], c["conflated"]}, []any{p.id, from, to, json.Number("0")})
	}

	live := a.subscribe(t, "", changesDocument, object{"after": origin, "filter": object{"countries": []string{"IT"}}})
	snapshot := a.subscribe(t, "", changesDocument, object{"snapshot": true})
	change(t, next(t, snapshot), first, nil, "OFFLINE")
	a.beat(t, first, "IT", 1)
	second := a.register(t, "FR", 1)
	a.activate(t, operator, second) // no change of what is displayed
	a.ask(t, operator, retireDocument, object{"id": first.id})

	var cursors []string
	for _, s := range []string{"live", "snapshot", "resumed"} {
		sub := map[string]func() object{
			"live": func() object { return next(t, live) }, "snapshot": func() object { return next(t, snapshot) },
		}[s]
		if s == "resumed" {
			resumed := a.subscribe(t, "", changesDocument, object{"after": origin})
			sub = func() object { return next(t, resumed) }
		}
		m := sub()
		change(t, m, first, "OFFLINE", "ONLINE")
		cursors = append(cursors, str(t, m, "probeStateChanged", "cursor"))
		if s != "live" {
			change(t, sub(), second, nil, "OFFLINE")
		}
		change(t, sub(), first, "ONLINE", "INACTIVE")
	}
	equal(t, slices.Compact(cursors), cursors[:1])

	t.Run("after continues without gap or duplicate", func(t *testing.T) {
		t.Parallel()
		s := a.subscribe(t, "", changesDocument, object{"after": cursors[0], "filter": object{"countries": []string{"IT"}}})
		change(t, next(t, s), first, "ONLINE", "INACTIVE")
	})

	t.Run("each filter lets through what the query finds", func(t *testing.T) {
		t.Parallel()
		for name, c := range map[string]struct {
			filter object
			want   []probe
		}{
			"ids":        {object{"ids": []string{second.id}}, []probe{second}},
			"countries":  {object{"countries": []string{"FR"}}, []probe{second}},
			"lifecycles": {object{"lifecycles": []string{"ACTIVE"}}, []probe{second}},
			"types":      {object{"types": []string{"DESKTOP"}, "states": []string{"INACTIVE"}}, []probe{first}},
			"states":     {object{"states": []string{"OFFLINE"}}, []probe{second}},
		} {
			s := a.subscribe(t, "", changesDocument, object{"snapshot": true, "filter": c.filter})
			for _, p := range c.want {
				if id := str(t, next(t, s), "probeStateChanged", "probe", "id"); id != p.id {
					t.Errorf("%s: the snapshot has %s", name, id)
				}
			}
		}
	})

	t.Run("a cursor that is none, or beyond the log, is told", func(t *testing.T) {
		t.Parallel()
		for cursor, code := range map[string]fault.Code{"nonsense": fault.Invalid, beyond(t, a): fault.Resync} {
			for _, document := range []string{changesDocument, "subscription ($after: Cursor) { events(after: $after) { seq } }", "subscription ($after: Cursor) { measurementScored(after: $after) { seq } }"} {
				if f := end(t, a.subscribe(t, "", document, object{"after": cursor})); f.Code != code {
					t.Errorf("%q ends with %v, want %s", cursor, f, code)
				}
			}
		}
	})

	t.Run("with a cursor there is no snapshot", func(t *testing.T) {
		t.Parallel()
		s := a.subscribe(t, "", changesDocument, object{"after": cursors[0], "snapshot": true, "filter": object{"countries": []string{"IT"}}})
		change(t, next(t, s), first, "ONLINE", "INACTIVE")
	})
}

func TestFromNowOn(t *testing.T) {
	t.Parallel()
	a := start(t)
	for _, document := range []string{
		"subscription { probeStateChanged { seq } }", "subscription { events { seq } }", "subscription { measurementScored { seq } }",
	} {
		until(t, a.subscribe(t, "", document, nil), func() {
			a.register(t, "IT", 1)
			a.submit(t, "", body(nil))
		})
	}
}

// beyond is a cursor of a log that is longer than ours: that of a database that was lost.
func beyond(t *testing.T, a *api) string {
	t.Helper()
	other := start(t)
	for range 20 {
		other.register(t, "IT", 1)
	}
	for range 30 {
		other.submit(t, "", body(nil))
	}
	_ = a
	return other.tail(t)
}

func TestResync(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.register(t, "IT", 1)
	old := a.tail(t)
	a.register(t, "IT", 1)
	a.exec(t, "update log_floor set seq = (select max(seq) from event)")
	at := a.tail(t)
	for _, document := range []string{changesDocument, "subscription ($after: Cursor) { events(after: $after) { seq } }", "subscription ($after: Cursor) { measurementScored(after: $after) { seq } }"} {
		if f := end(t, a.subscribe(t, "", document, object{"after": old})); f.Code != fault.Resync {
			t.Errorf("a cursor before what is kept ends with %v", f)
		}
	}
	s := a.subscribe(t, "", changesDocument, object{"after": at})
	p := a.register(t, "IT", 1)
	equal(t, str(t, next(t, s), "probeStateChanged", "probe", "id"), p.id)
}

func TestHeartbeatReceived(t *testing.T) {
	t.Parallel()
	a := start(t)
	operator := a.issue(t, access.Operator)
	p, other := a.register(t, "IT", 1), a.register(t, "FR", 1)
	const document = `subscription ($filter: ProbeFilter) { heartbeatReceived(filter: $filter) { cursor seq occurredAt softwareVersion uptimeSeconds queueDepth lastMeasurementAt probe { id state } } }`
	public := a.subscribe(t, "", document, object{"filter": object{"countries": []string{"IT"}}})
	staff := a.subscribe(t, operator, document, object{"filter": object{"asns": []int{1}}})
	hidden := a.subscribe(t, "", document, object{"filter": object{"asns": []int{1}}})
	first := a.register(t, "IT", 1)
	for _, s := range []*client.Subscription{public, staff} {
		until(t, s, func() { a.beat(t, first, "IT", 1) })
	}
	told := func(s *client.Subscription) object {
		for {
			if m := at(t, next(t, s), "heartbeatReceived").(object); at(t, m, "probe", "id") != first.id {
				return m
			}
		}
	}
	a.beat(t, other, "FR", 1)
	exact := str(t, a.beat(t, p, "IT", 1), "lastHeartbeatAt")
	m := told(staff)
	equal(t, at(t, m, "probe", "id"), any(other.id))
	m = told(staff)
	equal(t, []any{at(t, m, "probe", "id"), m["occurredAt"], m["softwareVersion"], m["uptimeSeconds"]}, []any{p.id, exact, "1.2.3", json.Number("60")})
	m = told(public)
	equal(t, []any{at(t, m, "probe", "id"), at(t, m, "probe", "state"), m["softwareVersion"], m["uptimeSeconds"]}, []any{p.id, "ONLINE", nil, nil})
	if minute := exact[:16] + ":00Z"; m["occurredAt"] != minute {
		t.Errorf("the public is told %v, want %s", m["occurredAt"], minute)
	}
	// Two ACTIVE probes make the network public: the next heartbeat is the first that a search by it may show.
	for _, q := range []probe{p, a.register(t, "IT", 1)} {
		a.activate(t, operator, q)
		a.beat(t, q, "IT", 1)
	}
	last := a.register(t, "IT", 1)
	a.activate(t, operator, last)
	if m := at(t, until(t, hidden, func() { a.beat(t, last, "IT", 1) }), "heartbeatReceived"); at(t, m, "probe", "id") == other.id || at(t, m, "softwareVersion") != "1.2.3" {
		t.Errorf("the search by network shows %v", m)
	}
}

//nolint:paralleltest,tparallel // the second part adds to what the first compares
func TestMeasurementScored(t *testing.T) {
	t.Parallel()
	a := start(t, func(c *server.Config) { c.RegistrationsPerHour = 1000 })
	operator := a.issue(t, access.Operator)
	mates := []probe{a.register(t, "IT", 30722), a.register(t, "IT", 30722), a.register(t, "FR", 1)} // the last is alone
	for i, p := range mates {
		a.activate(t, operator, p)
		a.beat(t, p, []string{"IT", "IT", "FR"}[i], []int{30722, 30722, 1}[i])
	}
	a.register(t, "IT", 1)
	origin := a.tail(t)
	for i := range 24 {
		change := object{
			"probe_cc": []string{"IT", "FR"}[i%2], "probe_asn": []string{"AS30722", "AS1"}[i%3%2], "software_version": fmt.Sprintf("1.%d", i%3),
			"annotations": object{"ooni_run_link_id": fmt.Sprint(i % 3)},
		}
		switch i % 4 {
		case 1:
			change["test_keys"] = object{"telegram_http_blocking": true, "telegram_tcp_blocking": true, "telegram_web_failure": nil, "telegram_web_status": "ok"}
		case 2:
			change["test_name"], change["input"] = "example_test", "https://www.example.org/"
		case 3:
			change["test_keys"] = object{}
		}
		if i%5 == 0 {
			change["measurement_start_time"] = nil
		}
		if i%6 == 0 {
			change["report_id"] = "one-report"
		}
		a.submit(t, []string{"", mates[0].secret, mates[2].secret}[i%3], body(change))
	}
	rows := list(t, a.ask(t, operator, "{ measurements(first: 100) { edges { node { uid startedAt receivedAt } } } }", nil), "measurements", "edges")
	instants := []string{"2020-01-01T00:00:00Z"}
	for _, r := range rows {
		for _, name := range []string{"startedAt", "receivedAt"} {
			if s, ok := at(t, r, "node", name).(string); ok {
				instants = append(instants, s)
			}
		}
	}
	slices.Sort(instants)

	maybe := func(g *rapid.Generator[any]) *rapid.Generator[any] {
		return rapid.OneOf(rapid.Just[any](nil), rapid.Just[any](nil), rapid.Just[any](nil), g)
	}
	some := func(values ...any) *rapid.Generator[any] {
		return rapid.Map(rapid.SliceOfN(rapid.SampledFrom(values), 0, 2), func(v []any) any { return v })
	}
	one := func(values ...any) *rapid.Generator[any] { return rapid.SampledFrom(values) }
	when := rapid.Map(rapid.SampledFrom(instants), func(s string) any { return s })
	filters := map[string]*rapid.Generator[any]{
		"since": when, "until": when, "receivedSince": when,
		"countries": some("IT", "FR", "DE"), "asns": some(30722, "AS1"), "testNames": some("telegram", "example_test"),
		"domains": some("www.example.org", ""), "inputs": some("https://www.example.org/", ""),
		"anomaly": one(true, false), "confirmed": one(true, false), "failure": one(true, false),
		"outcomes": some("OK", "ANOMALY", "FAILURE", "CONFIRMED"), "reportId": one("one-report", ""),
		"probeId": one(mates[0].id, mates[2].id, "prb_0000000000000000"), "softwareVersions": some("1.0", "1.1"), "ooniRunLinkId": one(0, 1, "2"),
	}
	const query = `query ($filter: MeasurementFilter) { measurements(first: 100, filter: $filter, orderBy: {field: RECEIVED_AT, direction: ASC}) { edges { node { uid } } } }`
	const follow = `subscription ($filter: MeasurementFilter, $after: Cursor) { measurementScored(filter: $filter, after: $after) { seq measurement { uid } } }`
	matched := 0

	t.Run("a filter lets through what the query finds, for whoever asks", func(t *testing.T) {
		rapid.Check(t, func(rt *rapid.T) {
			filter := object{}
			for _, name := range slices.Sorted(keys(filters)) {
				if v := maybe(filters[name]).Draw(rt, name); v != nil {
					filter[name] = v
				}
			}
			token := rapid.SampledFrom([]string{"", operator, mates[2].secret}).Draw(rt, "token")
			var want []string
			for _, e := range list(t, a.ask(t, token, query, object{"filter": filter}), "measurements", "edges") {
				want = append(want, str(t, e, "node", "uid"))
			}
			matched += len(want)
			s := a.subscribe(t, token, follow, object{"filter": filter, "after": origin})
			defer s.Close()
			var got []string
			for range want {
				got = append(got, str(t, next(t, s), "measurementScored", "measurement", "uid"))
			}
			equal(t, got, want)
			if t.Failed() {
				rt.Fatalf("%v", filter)
			}
		})
		if matched == 0 {
			t.Error("no filter matched anything")
		}
	})

	t.Run("what does not match is passed over", func(t *testing.T) {
		// The property cannot see a message too many at the end; here all that was stored is passed over.
		for name, filter := range map[string]object{
			"countries": {"countries": []string{"DE"}}, "asns": {"asns": []int{64500}}, "testNames": {"testNames": []string{"last"}},
			"softwareVersions": {"softwareVersions": []string{"last"}}, "reportId": {"reportId": "last"}, "inputs": {"inputs": []string{"last"}},
			"ooniRunLinkId": {"ooniRunLinkId": 99},
		} {
			s := a.subscribe(t, "", follow, object{"filter": filter, "after": origin})
			last := a.submit(t, "", body(object{
				"probe_cc": "DE", "probe_asn": "AS64500", "test_name": "last", "software_version": "last", "report_id": "last", "input": "last",
				"annotations": object{"ooni_run_link_id": "99"},
			}))
			origin = a.tail(t) // so that the next filter does not meet this one
			if got := str(t, next(t, s), "measurementScored", "measurement", "uid"); got != str(t, last, "measurement", "uid") {
				t.Errorf("%s let %s through", name, got)
			}
		}
	})
}

// keys are the keys of a map, to be sorted.
func keys[V any](m map[string]V) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func TestEventsAndPulse(t *testing.T) {
	t.Parallel()
	a := start(t)
	operator := a.issue(t, access.Operator)
	const document = `subscription ($filter: EventFilter, $after: Cursor) { events(filter: $filter, after: $after) { id cursor seq kind summary } }`
	// What the server finds by itself comes when it comes.
	mine := object{"kinds": []string{
		"PROBE_REGISTERED", "PROBE_LIFECYCLE_CHANGED", "PROBE_LIVENESS_CHANGED", "PROBE_DISPLAY_CHANGED", "MEASUREMENT_SCORED",
		"SUBMISSION_DISCARDED", "TOKEN_CREATED",
	}}
	p := a.register(t, "IT", 1)
	origin := a.tail(t)
	a.relayed(t)
	pulse := a.subscribe(t, "", "subscription { pulse { cursor seq at occurredAt lagMs } }", nil)
	beatAt := at(t, next(t, pulse), "pulse").(object)
	equal(t, beatAt["at"], beatAt["occurredAt"])
	fromPulse := a.subscribe(t, "", document, object{"filter": mine, "after": beatAt["cursor"]})
	a.activate(t, operator, p)
	a.submit(t, "", body(object{"probe_cc": "ZZ"})) // kept aside: for staff alone
	a.submit(t, "", body(nil))
	a.beat(t, p, "IT", 1)
	a.ask(t, operator, retireDocument, object{"id": p.id})

	kinds := func(t *testing.T, token string, filter any, n int) (out []any) {
		t.Helper()
		s := a.subscribe(t, token, document, object{"filter": filter, "after": origin})
		seq := int64(0)
		for range n {
			e := at(t, next(t, s), "events").(object)
			got, err := e["seq"].(json.Number).Int64()
			if err != nil || got <= seq || e["id"] != fmt.Sprintf("evt_%d", got) {
				t.Errorf("after %d came %v", seq, e)
			}
			seq = got
			out = append(out, e["kind"])
		}
		return out
	}
	var log []any
	for _, e := range list(t, a.ask(t, operator, "query ($filter: EventFilter) { events(filter: $filter, last: 100) { edges { node { kind } } } }", object{"filter": mine}), "events", "edges") {
		log = append(log, at(t, e, "node", "kind"))
	}
	slices.Reverse(log)
	isNews := slices.Index(log, any("PROBE_REGISTERED")) + 1
	news := log[isNews:]
	public := slices.DeleteFunc(slices.Clone(news), func(k any) bool { return k == "SUBMISSION_DISCARDED" || k == "TOKEN_CREATED" })
	equal(t, kinds(t, operator, mine, len(news)), news)
	equal(t, kinds(t, "", mine, len(public)), public)
	equal(t, kinds(t, "", object{"kinds": []string{"MEASUREMENT_SCORED"}}, 1), []any{"MEASUREMENT_SCORED"})
	equal(t, kinds(t, "", object{"subjects": []string{p.id}, "kinds": []string{"PROBE_LIVENESS_CHANGED"}}, 1), []any{"PROBE_LIVENESS_CHANGED"})
	equal(t, kinds(t, operator, object{"kinds": []string{"SUBMISSION_DISCARDED"}}, 1), []any{"SUBMISSION_DISCARDED"})
	equal(t, at(t, next(t, fromPulse), "events", "kind"), public[0])
	equal(t, a.ask(t, "", "{ events(first: 9, filter: {kinds: [SUBMISSION_DISCARDED, TOKEN_CREATED]}) { edges { cursor } } }", nil), object{"events": object{"edges": []any{}}})
}

func TestWebsocket(t *testing.T) {
	t.Parallel()
	a := start(t, func(c *server.Config) { c.AllowedOrigins = []string{"https://status.example.org"} })
	p := a.register(t, "IT", 1)
	address := "ws" + strings.TrimPrefix(a.URL(), "http") + "/graphql"
	dial := func(t *testing.T, h http.Header, protocols ...string) (*websocket.Conn, *http.Response, error) {
		t.Helper()
		d := websocket.Dialer{Subprotocols: protocols}
		c, res, err := d.DialContext(t.Context(), address, h)
		if err == nil {
			t.Cleanup(func() { c.Close() })
			if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
		}
		return c, res, err
	}

	t.Run("pages of other sites are refused", func(t *testing.T) {
		t.Parallel()
		for origin, ok := range map[string]bool{
			"": true, a.URL(): true, "https://status.example.org": true, "https://STATUS.example.org": true, "https://evil.example.org": false,
			"http://status.example.org": false, "null": false, "https://status.example.org.evil.example": false, "http://127.0.0.1:1": false,
			"file://" + strings.TrimPrefix(a.URL(), "http://"): false,
		} {
			h := http.Header{}
			if origin != "" {
				h.Set("Origin", origin)
			}
			_, res, err := dial(t, h, "graphql-transport-ws")
			if (err == nil) != ok || !ok && res.StatusCode != http.StatusForbidden {
				t.Errorf("origin %q: %v", origin, err)
			}
		}
	})

	t.Run("the token counts that connection_init brings", func(t *testing.T) {
		t.Parallel()
		for token, role := range map[string]string{"": "PUBLIC", p.secret: "PROBE", a.issue(t, access.Operator): "OPERATOR"} {
			s := a.subscribe(t, token, "query { viewer { role } }", nil)
			equal(t, next(t, s), object{"viewer": object{"role": role}})
		}
		s, err := a.client("").Subscribe(t.Context(), "mutation { createToken(input: {role: ADMIN, name: \"me\"}) { secret } }", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if f := end(t, s); f.Code != fault.Unauthenticated {
			t.Errorf("a mutation over the websocket ends with %v", f)
		}
	})

	t.Run("a bad token closes the connection with 4403", func(t *testing.T) {
		t.Parallel()
		for _, auth := range []string{"Bearer nonsense", "Basic x", "Bearer " + p.secret + "x"} {
			c, _, err := dial(t, nil, "graphql-transport-ws")
			if err != nil {
				t.Fatal(err)
			}
			if err := c.WriteJSON(object{"type": "connection_init", "payload": object{"authorization": auth}}); err != nil {
				t.Fatal(err)
			}
			for err == nil {
				_, _, err = c.ReadMessage()
			}
			if !websocket.IsCloseError(err, 4403) {
				t.Errorf("%s: %v", auth, err)
			}
		}
	})

	t.Run("a message that would be changed by reading it closes the connection", func(t *testing.T) {
		t.Parallel()
		c, _, err := dial(t, nil, "graphql-transport-ws")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.WriteMessage(websocket.TextMessage, []byte("{\"type\": \"connection_init\", \"payload\": {\"x\": \"\xff\"}}")); err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, _, err = c.ReadMessage()
		}
		if !websocket.IsCloseError(err, 4400) {
			t.Errorf("closed with %v", err)
		}
	})

	t.Run("another protocol is refused with 4406", func(t *testing.T) {
		t.Parallel()
		for _, protocols := range [][]string{nil, {"graphql-ws"}, {"chat", "graphql-ws"}} {
			c, _, err := dial(t, nil, protocols...)
			if err == nil {
				_, _, err = c.ReadMessage()
			}
			if !websocket.IsCloseError(err, 4406) {
				t.Errorf("%v: %v", protocols, err)
			}
		}
	})

	t.Run("a message over the limit closes the connection", func(t *testing.T) {
		t.Parallel()
		c, _, err := dial(t, nil, "graphql-transport-ws")
		if err != nil {
			t.Fatal(err)
		}
		_ = c.WriteMessage(websocket.TextMessage, []byte(`{"type": "connection_init", "payload": {"x": "`+strings.Repeat("x", 65<<10)+`"}}`)) // it may be cut off
		for err == nil {
			_, _, err = c.ReadMessage()
		}
		if !websocket.IsCloseError(err, websocket.CloseMessageTooBig) {
			t.Errorf("closed with %v", err)
		}
	})

	t.Run("a bad document is told by its code", func(t *testing.T) {
		t.Parallel()
		for document, code := range map[string]fault.Code{"subscription {": fault.ParseFailed, "subscription { nothing }": fault.ValidationFailed} {
			if f := end(t, a.subscribe(t, "", document, nil)); f.Code != code {
				t.Errorf("%s: %v", document, f)
			}
		}
	})
}

func TestProbeBoard(t *testing.T) {
	t.Parallel()
	a := start(t)
	operator := a.issue(t, access.Operator)
	const document = `query ($at: DateTime, $filter: ProbeFilter) { probeBoard(asOf: $at, filter: $filter) { cursor asOf truncated cells { id state stateSince } } }`
	board := func(t *testing.T, asOf, filter any) (object, map[string]any) {
		t.Helper()
		b := at(t, a.ask(t, "", document, object{"at": asOf, "filter": filter}), "probeBoard").(object)
		states := map[string]any{}
		for _, c := range list(t, b, "cells") {
			states[str(t, c, "id")] = at(t, c, "state")
		}
		return b, states
	}
	instant := func(t *testing.T) string {
		t.Helper()
		return str(t, a.ask(t, "", "{ service { now } }", nil), "service", "now")
	}
	before := instant(t)
	p := a.register(t, "IT", 1)
	registered := instant(t)
	a.beat(t, p, "IT", 1)
	online := instant(t)
	b, states := board(t, nil, nil)
	equal(t, states, map[string]any{p.id: "ONLINE"})
	equal(t, b["truncated"], any(false))

	// What happens between the board and the subscription is not missed.
	q := a.register(t, "FR", 1)
	a.ask(t, operator, retireDocument, object{"id": p.id})
	s := a.subscribe(t, "", changesDocument, object{"after": b["cursor"]})
	equal(t, str(t, next(t, s), "probeStateChanged", "probe", "id"), q.id)
	equal(t, str(t, next(t, s), "probeStateChanged", "to"), "INACTIVE")

	for name, c := range map[string]struct {
		at   any
		want map[string]any
	}{
		"before anything": {before, map[string]any{}}, "when it was registered": {registered, map[string]any{p.id: "OFFLINE"}},
		"when it was online": {online, map[string]any{p.id: "ONLINE"}}, "now": {nil, map[string]any{p.id: "INACTIVE", q.id: "OFFLINE"}},
	} {
		t.Run("it shows "+name, func(t *testing.T) {
			t.Parallel()
			b, got := board(t, c.at, nil)
			equal(t, got, c.want)
			if c.at != nil {
				equal(t, b["asOf"], c.at)
				for id, state := range c.want {
					data := a.ask(t, "", "query ($id: ID!, $at: DateTime) { probe(id: $id, asOf: $at) { state } }", object{"id": id, "at": c.at})
					equal(t, at(t, data, "probe", "state"), state)
				}
			}
			for _, state := range []string{"ONLINE", "OFFLINE", "INACTIVE"} {
				_, some := board(t, c.at, object{"states": []string{state}})
				for id, s := range c.want {
					if _, ok := some[id]; ok != (s == state) {
						t.Errorf("filtered by %s it shows %v", state, some)
					}
				}
			}
		})
	}
	equal(t, a.ask(t, "", "query ($id: ID!, $at: DateTime) { probe(id: $id, asOf: $at) { id } }", object{"id": p.id, "at": before}), object{"probe": nil})
}
