package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/graph"
	"github.com/openvantage/vantage/server"
)

// silence makes it so that the probes were registered an hour ago and last heard half an hour ago, and
// waits until that is explained.
func (a *api) silence(t *testing.T, ids ...string) {
	t.Helper()
	a.exec(t, "update event set occurred_at = occurred_at - interval '1 hour' where subject = any($1)", ids)
	a.exec(t, `update probe set last_heartbeat_at = last_heartbeat_at - interval '30 minutes', deadline_at = now() - interval '25 minutes',
		last_change_at = last_change_at - interval '1 hour', online_since = online_since - interval '1 hour', liveness_since = liveness_since - interval '1 hour',
		state_since = state_since - interval '1 hour' where id = any($1)`, ids)
	for _, id := range ids {
		eventually(t, "the silence of "+id+" is explained", func() bool {
			return at(t, a.ask(t, "", "query ($id: ID!) { probe(id: $id) { offlineCause { ruleId } } }", object{"id": id}), "probe", "offlineCause") != nil
		})
	}
}

const causeDocument = `query ($id: ID!) { probe(id: $id) { offlineCause { id cause ruleId ruleVersion provisional explanation inputs silentSince
	evidence { kind decisive probeCount probes networks measurementCount failureCount share } nearestChange { input cause ruleId explanation }
	probe { id } history(first: 10) { edges { cursor node { id ruleId } } pageInfo { hasNextPage } } } } }`

// Nothing about a silence tells a stranger where a lone probe is, or another.
func TestPrivacyOfCauses(t *testing.T) { //nolint:tparallel // its end changes what the subtests look at
	t.Parallel()
	a := start(t, func(c *server.Config) {
		plenty := server.Rate{PerSecond: 1e6, Burst: 1e9}
		c.RatePublic, c.RateProbe, c.RateResearcher = plenty, plenty, plenty
	})
	operator, researcher := a.issue(t, access.Operator), a.issue(t, access.Researcher)
	const elsewhere = 4200000321
	l, peer := a.plant(t, operator), a.register(t, "IT", elsewhere)
	a.activate(t, operator, peer)
	a.beat(t, peer, "IT", elsewhere)
	told := a.subscribe(t, researcher, `subscription ($after: Cursor) { events(filter: {kinds: [CAUSE_CHANGED]}, after: $after) {
		kind summary network { asn } subject { id } ruleId country { code } } }`, object{"after": a.origin(t)})
	a.silence(t, l.id, peer.id)
	for _, e := range []object{next(t, told), next(t, told)} {
		if text := string(marshal(t, e)); strings.Contains(text, "AS42") || !strings.Contains(text, "POSSIBLE_COUNTRY_BLOCK") && !strings.Contains(text, "UNKNOWN") {
			t.Errorf("told was %s", text)
		}
	}
	eventually(t, "both are explained together", func() bool {
		data := a.ask(t, "", "query ($ids: [ID!]!) { nodes(ids: $ids) { ... on Probe { offlineCause { ruleId } } } }", object{"ids": []string{l.id, peer.id}})
		return at(t, data, "nodes", 0, "offlineCause", "ruleId") == "C1" && at(t, data, "nodes", 1, "offlineCause", "ruleId") == "C1"
	})

	for who, token := range map[string]string{"the public": "", "a researcher": researcher, "the probe itself": l.secret, "its peer": peer.secret} {
		c := at(t, a.ask(t, token, causeDocument, object{"id": l.id}), "probe", "offlineCause")
		equal(t, []any{at(t, c, "cause"), at(t, c, "ruleId"), at(t, c, "inputs"), at(t, c, "explanation")}, []any{
			"POSSIBLE_COUNTRY_BLOCK", "C1", nil,
			"Possible block or outage of the whole country: one other probe in this country fell silent within ten minutes of this one, and they are not all on one network.",
		})
		for _, e := range list(t, c, "evidence") {
			for _, field := range []string{"probeCount", "probes", "networks", "measurementCount", "failureCount", "share"} {
				if v := at(t, e, field); v != nil {
					t.Errorf("%s learns %s: %v", who, field, e)
				}
			}
		}
		if text := string(marshal(t, c)); strings.Contains(text, peer.id) || strings.Contains(text, "AS42") {
			t.Errorf("%s learns of a peer or of a network: %s", who, text)
		}
	}
	// Wherever the schema leads.
	for who, token := range map[string]string{"the public": "", "a researcher": researcher, "its peer": peer.secret} {
		e := newEverything(map[string]string{
			".first": "12", ".code": `"IT"`, ".asn": "1", "probe.id": quoted(l.id), "node.id": quoted("cau_1"), ".uid": quoted("none"),
			".ids": fmt.Sprintf("[%q, %q]", l.id, "cau_1"),
		})
		for _, f := range rootFields(graph.Schema().Query) {
			r := e.ask(t, a, token, f)
			if !r.refused(t, f) && len(r.Errors) > 0 {
				t.Fatalf("%s: %.2000s", f.Name, r.Raw)
			}
			own := fmt.Sprint(elsewhere)
			if token == peer.secret {
				own = "its own" // which it may see
			}
			if strings.Contains(r.Raw, fmt.Sprint(l.asn)) || strings.Contains(r.Raw, own) {
				t.Errorf("%s learns a network from %s: %.3000s", who, f.Name, r.Raw)
			}
			l.search(t, f.Name+" for "+who, r.Raw, r.Data)
		}
	}

	t.Run("while both are silent", func(t *testing.T) {
		t.Run("staff sees all of it", func(t *testing.T) {
			t.Parallel()
			c := at(t, a.ask(t, operator, causeDocument, object{"id": l.id}), "probe", "offlineCause")
			want := fmt.Sprintf("Possible block or outage of the whole country: one other probe in this country, on AS%d, fell silent within ten minutes of this one on AS%d.", elsewhere, l.asn)
			equal(t, at(t, c, "explanation"), any(want))
			equal(t, at(t, c, "evidence", 0), any(object{
				"kind": "SILENT_TOGETHER", "decisive": true, "probes": []any{peer.id}, "networks": []any{fmt.Sprintf("AS%d", elsewhere)},
				"probeCount": at(t, c, "evidence", 0, "probeCount"), "measurementCount": nil, "failureCount": nil, "share": nil,
			}))
			equal(t, at(t, c, "inputs", "peers", 0, "id"), any(peer.id))
			equal(t, at(t, c, "nearestChange", "ruleId"), any("C2"))
			if !strings.Contains(str(t, c, "nearestChange", "explanation"), peer.id) {
				t.Errorf("nearest: %v", at(t, c, "nearestChange"))
			}
			events := a.ask(t, operator, "{ events(first: 10, filter: {kinds: [CAUSE_CHANGED]}) { edges { node { summary } } } }", nil)
			if !strings.Contains(string(marshal(t, events)), "AS42") {
				t.Errorf("events: %v", events)
			}
		})

		t.Run("each look is found again, and pages fit together", func(t *testing.T) {
			t.Parallel()
			c := at(t, a.ask(t, "", causeDocument, object{"id": l.id}), "probe", "offlineCause")
			all := list(t, c, "history", "edges")
			equal(t, at(t, all[0], "node", "id"), at(t, c, "id"))
			const page = `query ($id: ID!, $after: Cursor) { node(id: $id) { ... on OfflineCause { id history(first: 1, after: $after) { edges { cursor node { id } } pageInfo { hasNextPage } } } } }`
			var after any
			for i, e := range all {
				got := at(t, a.ask(t, "", page, object{"id": at(t, c, "id"), "after": after}), "node", "history")
				equal(t, at(t, got, "edges", 0, "node", "id"), at(t, e, "node", "id"))
				equal(t, at(t, got, "pageInfo", "hasNextPage"), any(i < len(all)-1))
				after = at(t, got, "edges", 0, "cursor")
			}
			wantFault(t, a.do(t, "", page, object{"id": at(t, c, "id"), "after": "MR9jYXVzZR94"}), fault.Invalid, "after")
		})
	})

	a.beat(t, peer, "IT", elsewhere)
	data := a.ask(t, operator, causeDocument, object{"id": peer.id})
	equal(t, at(t, data, "probe", "offlineCause"), any(nil)) // it is heard again
}

func TestInvestigations(t *testing.T) {
	t.Parallel()
	a := start(t, func(c *server.Config) { c.AutoActivate = true })
	operator := a.issue(t, access.Operator)
	probes := []probe{a.register(t, "IR", 1), a.register(t, "IR", 2)}
	for i, p := range probes {
		a.beat(t, p, "IR", i+1)
	}
	a.silence(t, probes[0].id, probes[1].id)
	const all = `query ($filter: InvestigationFilter) { investigations(first: 10, filter: $filter) { edges { cursor node { id country { code } openedAt closedAt closedBy finding url
		members(first: 10) { edges { node { probe { id } cause explanation } } } } } } }`
	var id string
	eventually(t, "both are looked into", func() bool {
		found := list(t, a.ask(t, operator, all, nil), "investigations", "edges")
		if len(found) != 1 {
			return false
		}
		id = str(t, found[0], "node", "id")
		return len(list(t, found[0], "node", "members", "edges")) == 2
	})
	for token, code := range map[string]fault.Code{"": fault.Unauthenticated, probes[0].secret: fault.Forbidden, a.issue(t, access.Researcher): fault.Forbidden} {
		wantFault(t, a.do(t, token, all, nil), code, "")
		wantFault(t, a.do(t, token, `mutation ($id: ID!) { closeInvestigation(input: {investigationId: $id, finding: "none"}) { userErrors { code } } }`, object{"id": id}), code, "")
		equal(t, a.ask(t, token, "query ($id: ID!) { node(id: $id) { id } events(first: 10, filter: {kinds: [INVESTIGATION_OPENED, INVESTIGATION_JOINED]}) { edges { cursor } } }",
			object{"id": id}), object{"node": nil, "events": object{"edges": []any{}}})
	}
	equal(t, len(list(t, a.ask(t, operator, all, object{"filter": object{"open": false}}), "investigations", "edges")), 0)
	equal(t, len(list(t, a.ask(t, operator, all, object{"filter": object{"countries": []string{"DE"}}}), "investigations", "edges")), 0)

	const closing = `mutation ($in: CloseInvestigationInput!) { closeInvestigation(input: $in) { investigation { id closedBy finding } userErrors { code field } } }`
	closed := func(in object) object {
		t.Helper()
		return at(t, a.ask(t, operator, closing, object{"in": in}), "closeInvestigation").(object)
	}
	refusal := func(code, field string) object {
		return object{"investigation": nil, "userErrors": []any{object{"code": code, "field": field}}}
	}
	equal(t, closed(object{"investigationId": "inv_999", "finding": "none"}), refusal("NOT_FOUND", "input.investigationId"))
	equal(t, closed(object{"investigationId": probes[0].id, "finding": "none"}), refusal("NOT_FOUND", "input.investigationId"))
	equal(t, closed(object{"investigationId": id, "finding": ""}), refusal("INVALID", "input.finding"))
	equal(t, closed(object{"investigationId": id, "finding": strings.Repeat("é", 2001)}), refusal("INVALID", "input.finding"))
	want := object{"investigation": object{"id": id, "closedBy": "a operator", "finding": "A cable was cut."}, "userErrors": []any{}}
	for range 2 {
		equal(t, closed(object{"idempotencyKey": "k", "investigationId": id, "finding": "A cable was cut."}), want)
	}
	equal(t, closed(object{"investigationId": id, "finding": "none"}), refusal("CONFLICT", "input.investigationId"))
	equal(t, len(list(t, a.ask(t, operator, all, object{"filter": object{"open": true}}), "investigations", "edges")), 0)
	events := a.ask(t, operator, "{ events(first: 10, filter: {kinds: [INVESTIGATION_CLOSED]}) { edges { node { summary subject { id } ruleId } } } }", nil)
	equal(t, list(t, events, "events", "edges"), []any{object{"node": object{
		"summary": "a operator closed the investigation in Iran: A cable was cut.", "subject": object{"id": id}, "ruleId": nil,
	}}})
}

func TestChangesOfState(t *testing.T) {
	t.Parallel()
	a := start(t, func(c *server.Config) { c.AutoActivate = true })
	probes := []probe{a.register(t, "IR", 1), a.register(t, "DE", 2), a.register(t, "DE", 3)}
	for i, p := range probes {
		a.beat(t, p, "IR", i+1)
	}
	a.silence(t, probes[0].id, probes[1].id)
	p := probes[0].id

	t.Run("intervals cover the probe's life without gaps, newest first", func(t *testing.T) {
		t.Parallel()
		const document = `query ($id: ID!, $since: DateTime, $until: DateTime) { probe(id: $id) { stateSince registeredAt stateHistory(since: $since, until: $until) { state from to reason ruleId } } }`
		data := at(t, a.ask(t, "", document, object{"id": p}), "probe")
		var states []any
		all := list(t, data, "stateHistory")
		for i, v := range all {
			states = append(states, at(t, v, "state"))
			if i == 0 {
				equal(t, []any{at(t, v, "from"), at(t, v, "to")}, []any{at(t, data, "stateSince"), nil})
			} else {
				equal(t, at(t, v, "to"), at(t, all[i-1], "from"))
			}
			if str(t, v, "reason") == "" {
				t.Errorf("there is no reason in %v", v)
			}
		}
		equal(t, states, []any{"OFFLINE", "DEGRADED", "ONLINE", "OFFLINE"})

		// A window shows what lies in it, and what it began with.
		degraded, online := str(t, all[1], "from"), str(t, all[2], "from")
		for _, c := range []struct {
			since, until string
			want         []any
		}{{degraded, str(t, all[1], "to"), all[1:2]}, {online, degraded, all[2:3]}, {before(t, degraded), degraded, all[2:3]}, {degraded, degraded, []any{}}} {
			got := list(t, a.ask(t, "", document, object{"id": p, "since": c.since, "until": c.until}), "probe", "stateHistory")
			equal(t, got, c.want)
		}
		equal(t, list(t, a.ask(t, "", document, object{"id": p, "until": "2020-01-01T00:00:00Z"}), "probe", "stateHistory"), []any{})
		wantFault(t, a.do(t, "", document, object{"id": p, "since": degraded, "until": online}), fault.Invalid, "since")
	})

	t.Run("others that changed at the same time are found, wherever they are", func(t *testing.T) {
		t.Parallel()
		const document = `query ($id: ID!, $within: Duration!) { probe(id: $id) { simultaneousChanges(within: $within) { from to probe { id country { code } } } } }`
		data := a.ask(t, "", "query ($id: ID!) { probe(id: $id) { simultaneousChanges { from to probe { id country { code } } } } }", object{"id": p})
		other := object{"id": probes[1].id, "country": object{"code": "DE"}}
		lost := object{"from": "DEGRADED", "to": "OFFLINE", "probe": other}
		equal(t, list(t, data, "probe", "simultaneousChanges"), []any{object{"from": "ONLINE", "to": "DEGRADED", "probe": other}, lost})
		equal(t, list(t, a.ask(t, "", document, object{"id": p, "within": "PT1M"}), "probe", "simultaneousChanges"), []any{lost})
		wantFault(t, a.do(t, "", document, object{"id": p, "within": "PT1H0.000001S"}), fault.Invalid, "within")
		wantFault(t, a.do(t, "", document, object{"id": p, "within": "P1M"}), fault.Invalid, "")
		never := a.register(t, "DE", 4)
		equal(t, list(t, a.ask(t, "", document, object{"id": never.id, "within": "PT1H"}), "probe", "simultaneousChanges"), []any{})
	})
}

func before(t *testing.T, at string) string {
	t.Helper()
	when, err := time.Parse(time.RFC3339Nano, at)
	if err != nil {
		t.Fatal(err)
	}
	return when.Add(-time.Microsecond).Format(time.RFC3339Nano)
}
