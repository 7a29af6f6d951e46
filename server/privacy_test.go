package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/client"
	"github.com/openvantage/vantage/graph"
	"github.com/openvantage/vantage/server"
)

// A lone probe is our only one in its country and network. Everything about it is unlike
// anything else, so that a search finds it wherever it comes out.
type lone struct {
	probe
	asn      int
	name     string
	contact  string
	version  string
	uptime   int
	queue    int
	measured string
	uid      string // of its measurement
	heard    string // the exact time of its last heartbeat
	counted  int    // measurements behind its quality
	trouble  string // what an operator wrote of its operator
}

func (a *api) plant(t *testing.T, operator string) *lone {
	t.Helper()
	l := &lone{
		asn: 4200000123, name: "hermit", contact: "hermit@example.org", version: "9.8.7-hermit", uptime: 987654321, queue: 76543219, counted: 65432198,
		trouble: "Moved to the mountains.", measured: time.Now().Add(-7 * time.Minute).UTC().Truncate(time.Second).Format(time.RFC3339),
	}
	data := a.ask(t, "", registerDocument, object{"input": object{
		"country": "IT", "asn": l.asn, "displayName": l.name, "contact": l.contact, "softwareVersion": l.version,
	}})
	l.probe = probe{str(t, data, "registerProbe", "probe", "id"), str(t, data, "registerProbe", "secret")}
	a.activate(t, operator, l.probe)
	a.exec(t, `update probe set quality = json_build_object('At', '2026-03-01T12:00:00Z', 'Type', 'DESKTOP', 'Measurements', $2::int, 'Reached', $2::int,
		'Rate', 0.87654321, 'First', json_build_object('Score', 61)) where id = $1`, l.id, l.counted)
	a.exec(t, `insert into quality select now(), country, id, 'DESKTOP', now(), $2, 0, $2, 0, 0, 0, 0.87654321, 1, 1, 61, null, null, null, false, 1
		from probe where id = $1`, l.id, l.counted)
	a.sign(t, l) // it becomes ONLINE, which is dated exactly
	a.sign(t, l)
	a.ask(t, operator, openDocument, object{"input": object{"probeId": l.id, "mode": "CHURN", "reason": l.trouble}})
	return l
}

// sign sends a heartbeat of the lone probe.
func (a *api) sign(t *testing.T, l *lone) {
	t.Helper()
	in := beat(l.probe, "IT", l.asn)
	in["softwareVersion"], in["uptimeSeconds"], in["queueDepth"], in["lastMeasurementAt"] = l.version, l.uptime, l.queue, l.measured
	data := a.ask(t, l.secret, beatDocument, object{"input": in})
	l.heard = str(t, data, "heartbeat", "probe", "lastHeartbeatAt")
}

// never may come out to strangers, measurement or not.
func (l *lone) never() map[string]string {
	return map[string]string{
		"contact": l.contact, "secret": l.secret, "version": l.version, "uptime": fmt.Sprint(l.uptime), "queue depth": fmt.Sprint(l.queue),
		"last measurement": l.measured, "exact heartbeat": l.heard, "trouble": l.trouble,
		"measurements behind its quality": fmt.Sprint(l.counted), "share behind its quality": "0.87654321",
	}
}

// outputs are the answers of every query, in words, by the name of the query.
func (a *api) outputs(t *testing.T, token string, l *lone) map[string]answer {
	t.Helper()
	e := l.everything()
	out := map[string]answer{}
	for _, f := range rootFields(graph.Schema().Query) {
		r := e.ask(t, a, token, f)
		if r.refused(t, f) {
			continue
		}
		if len(r.Errors) > 0 {
			t.Fatalf("%s: %.2000s", f.Name, r.Raw)
		}
		out[f.Name] = r
	}
	return out
}

func (l *lone) everything() *everything {
	return newEverything(map[string]string{
		".first": "12", ".code": `"IT"`, ".asn": fmt.Sprint(l.asn), "probe.id": quoted(l.id), "node.id": quoted(l.id), ".uid": quoted(l.uid),
		".ids": fmt.Sprintf("[%q, %q, %q]", l.id, "msm_"+l.uid, "cty_IT"),
	})
}

// search looks for the lone probe in what a stranger gets.
func (l *lone) search(t *testing.T, where, raw string, data object) {
	t.Helper()
	for what, text := range l.never() {
		if strings.Contains(raw, text) {
			t.Errorf("%s tells the %s", where, what)
		}
	}
	for _, network := range []string{fmt.Sprintf("AS%d", l.asn), fmt.Sprintf("net_%d", l.asn), l.uid} {
		for _, name := range []string{l.id, l.name} {
			if network == "" {
				continue
			}
			for _, v := range together(data, name, network) {
				b, _ := json.Marshal(v) // it came as JSON
				t.Errorf("%s tells %s beside %s: %s", where, network, name, b)
			}
		}
	}
}

func TestPrivacy(t *testing.T) {
	t.Parallel()
	a := start(t, func(c *server.Config) {
		plenty := server.Rate{PerSecond: 1e6, Burst: 1e9}
		c.RatePublic, c.RateProbe, c.RateResearcher = plenty, plenty, plenty
	})
	operator, researcher := a.issue(t, access.Operator), a.issue(t, access.Researcher)
	stranger := a.register(t, "IT", 30722)
	l := a.plant(t, operator)
	network := fmt.Sprintf("AS%d", l.asn)
	strangers := map[string]string{"the public": "", "a researcher": researcher, "another probe": stranger.secret}

	// As long as it has measured nothing, its network is nowhere at all.
	for who, token := range strangers {
		for name, r := range a.outputs(t, token, l) {
			if name != "network" && (strings.Contains(r.Raw, network) || strings.Contains(r.Raw, fmt.Sprint(l.asn))) {
				t.Errorf("%s learns the network from %s: %.3000s", who, name, r.Raw)
			}
			l.search(t, name+" for "+who, r.Raw, r.Data)
		}
	}

	subscriptions := map[string]*client.Subscription{}
	e := newEverything(map[string]string{".first": "5"})
	e.depth = 2 // of the price that an operation may have
	const beats = "heartbeatReceived"
	for who, token := range strangers {
		s := a.subscribe(t, token, e.subscription(t, graph.Schema().Subscription.Fields.ForName(beats)), nil)
		until(t, s, func() { a.beat(t, stranger, "IT", 30722) })
		subscriptions[beats+" for "+who] = s
	}
	eventually(t, "Italy lacks networks", func() bool { // or nothing changes when it need not be covered
		var n int
		return a.sql.QueryRow(t.Context(), "select count(*) from event where kind = 'SLO_BREACHED' and country = 'IT'").Scan(&n) == nil && n > 0
	})
	origin := quoted(a.origin(t))
	for _, f := range rootFields(graph.Schema().Subscription) {
		if f.Name == beats || slices.Contains(staffOnly, f.Name) {
			continue // alert_test.go
		}
		e.arguments[f.Name+".after"] = origin
		for who, token := range strangers {
			subscriptions[f.Name+" for "+who] = a.subscribe(t, token, e.subscription(t, f), nil)
		}
	}
	l.uid = str(t, a.submit(t, l.secret, body(object{"probe_asn": network})), "measurement", "uid")
	a.sign(t, l)
	a.register(t, "IT", 30722)                                                                                                 // a change of state that all see
	a.ask(t, operator, `mutation { setCountryMonitored(input: {country: "IT", monitored: false}) { country { code } } }`, nil) // and one of coverage

	for where, s := range subscriptions {
		messages := 1
		if strings.HasPrefix(where, "events") {
			messages = 2
		}
		for range messages {
			m := next(t, s)
			for strings.HasPrefix(where, beats) && !strings.Contains(string(marshal(t, m)), l.id) {
				m = next(t, s) // what came first was the stranger's
			}
			l.search(t, "the subscription "+where, string(marshal(t, m)), m)
		}
	}

	for who, token := range strangers {
		for name, r := range a.outputs(t, token, l) {
			l.search(t, name+" for "+who, r.Raw, r.Data)
		}

		t.Run(who+" cannot ask for it by its network", func(t *testing.T) {
			t.Parallel()
			const probes = `query ($asns: [ASN!]) { probes(first: 10, filter: {asns: $asns}) { edges { node { id } } } probeBoard(filter: {asns: $asns}) { cells { id } } }`
			equal(t, a.ask(t, token, probes, object{"asns": []int{l.asn}}),
				object{"probes": object{"edges": []any{}}, "probeBoard": object{"cells": []any{}}})
			past := a.ask(t, token, `query ($asns: [ASN!], $at: DateTime) { probeBoard(filter: {asns: $asns}, asOf: $at) { cells { id } } }`,
				object{"asns": []int{l.asn}, "at": l.heard})
			equal(t, past, object{"probeBoard": object{"cells": []any{}}})
		})

		t.Run(who+" cannot ask for its measurements", func(t *testing.T) {
			t.Parallel()
			const measurements = `query ($id: ID, $asns: [ASN!], $uid: ID!) { measurements(first: 10, filter: {probeId: $id, asns: $asns}) { edges { node { uid } } }
				measurement(uid: $uid) { probe { id } provenance network { asn } } }`
			data := a.ask(t, token, measurements, object{"id": l.id, "uid": l.uid})
			equal(t, list(t, data, "measurements", "edges"), []any{})
			equal(t, at(t, data, "measurement"), any(object{"probe": nil, "provenance": "PROBE", "network": object{"asn": network}}))
			data = a.ask(t, token, measurements, object{"asns": []int{l.asn}, "uid": l.uid})
			equal(t, at(t, data, "measurements", "edges", 0, "node", "uid"), any(l.uid))
		})
	}

	uid := url.QueryEscape(l.uid)
	for _, path := range []string{
		"/metrics", "/schema.graphql", "/api/v1/raw_measurement?measurement_uid=" + uid, "/api/v1/measurement/" + uid,
		"/api/v1/measurement_meta?full=true&measurement_uid=" + uid, fmt.Sprintf("/api/v1/measurements?probe_asn=%d&since=2000-01-01", l.asn),
	} {
		res, text := a.send(t, http.MethodGet, a.URL()+path, nil, nil)
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
		for what, secret := range l.never() {
			if strings.Contains(text, secret) {
				t.Errorf("%s tells the %s", path, what)
			}
		}
		if strings.Contains(text, l.id) || strings.Contains(text, l.name) {
			t.Errorf("%s names the probe", path)
		}
	}
	if text := a.logs.String(); strings.Contains(text, l.secret) || strings.Contains(text, l.contact) || strings.Contains(text, network) {
		t.Error("the log tells more than it should")
	}

	t.Run("the search finds what staff is shown", func(t *testing.T) {
		t.Parallel()
		r := l.everything().ask(t, a, operator, graph.Schema().Query.Fields.ForName("probe"))
		for what, text := range l.never() {
			if found := strings.Contains(r.Raw, text); found != (what != "secret") {
				t.Errorf("%s: %v", what, found)
			}
		}
		if len(together(r.Data, l.name, network)) == 0 {
			t.Error("the network was not seen beside the probe")
		}
	})

	t.Run("staff and the probe itself see all", func(t *testing.T) {
		t.Parallel()
		const document = `query ($id: ID!, $uid: ID!, $asns: [ASN!]) { probe(id: $id) {
			network { asn } networkWithheld softwareVersion uptimeSeconds queueDepth lastMeasurementAt lastHeartbeatAt contact }
			measurement(uid: $uid) { probe { id } } probes(first: 1, filter: {asns: $asns}) { edges { node { id } } }
			measurements(first: 1, filter: {probeId: $id}) { edges { node { uid } } } }`
		for _, token := range []string{operator, l.secret} {
			equal(t, a.ask(t, token, document, object{"id": l.id, "uid": l.uid, "asns": []int{l.asn}}), object{
				"probe": object{
					"network": object{"asn": network}, "networkWithheld": false, "softwareVersion": l.version, "uptimeSeconds": json.Number(fmt.Sprint(l.uptime)),
					"queueDepth": json.Number(fmt.Sprint(l.queue)), "lastMeasurementAt": l.measured, "lastHeartbeatAt": l.heard, "contact": l.contact,
				},
				"measurement": object{"probe": object{"id": l.id}}, "probes": object{"edges": []any{object{"node": object{"id": l.id}}}},
				"measurements": object{"edges": []any{object{"node": object{"uid": l.uid}}}},
			})
		}
	})
}

// listening waits until so many subscriptions of a field are under way.
func (a *api) listening(t *testing.T, field string, n int) {
	t.Helper()
	want := fmt.Sprintf("vantage_subscriptions{field=%q} %d\n", field, n)
	eventually(t, want, func() bool {
		_, text := a.send(t, http.MethodGet, a.URL()+"/metrics", nil, nil)
		return strings.Contains(text, want)
	})
}

func TestCompany(t *testing.T) {
	t.Parallel()
	a := start(t)
	operator := a.issue(t, access.Operator)
	l := a.plant(t, operator)
	l.uid = str(t, a.submit(t, l.secret, body(object{"probe_asn": fmt.Sprintf("AS%d", l.asn)})), "measurement", "uid")
	abroad := str(t, a.submit(t, l.secret, body(nil)), "measurement", "uid") // from a network that it does not declare
	withheld := func(what string, want bool) {
		t.Helper()
		data := a.ask(t, "", `query ($id: ID!, $uid: ID!, $asns: [ASN!]) { probe(id: $id) { networkWithheld network { asn } contact } measurement(uid: $uid) { probe { id } }
			probes(first: 10, filter: {asns: $asns, ids: [$id]}) { edges { cursor } } measurements(first: 10, filter: {probeId: $id}) { edges { node { uid } } } }`,
			object{"id": l.id, "uid": l.uid, "asns": []int{l.asn}})
		shown := 1
		if want {
			shown = 0
		}
		got := []any{
			at(t, data, "probe", "networkWithheld"), at(t, data, "probe", "network") == nil, at(t, data, "probe", "contact"),
			at(t, data, "measurement", "probe") == nil, len(list(t, data, "probes", "edges")), len(list(t, data, "measurements", "edges")),
		}
		t.Log(what)
		equal(t, got, []any{want, want, nil, want, shown, shown})
	}
	withheld("alone", true)
	second := a.register(t, "IT", l.asn)
	withheld("with a PENDING probe", true)
	a.beat(t, second, "IT", l.asn)
	withheld("with a PENDING probe that was seen", true)
	elsewhere := a.register(t, "FR", l.asn)
	a.activate(t, operator, elsewhere)
	a.beat(t, elsewhere, "FR", l.asn)
	withheld("with one in the same network of another country", true)
	third := a.register(t, "IT", l.asn)
	a.activate(t, operator, third)
	withheld("with an ACTIVE probe that was never seen", true)
	a.activate(t, operator, second)
	withheld("with an ACTIVE probe that was seen", false)
	equal(t, a.ask(t, "", "query ($uid: ID!) { measurement(uid: $uid) { probe { id } } }", object{"uid": abroad}), object{"measurement": object{"probe": nil}})
	a.ask(t, operator, retireDocument, object{"id": second.id})
	withheld("alone again", true)
}

func TestPublicNetworks(t *testing.T) {
	t.Parallel()
	for setting, want := range map[access.PublicNetworks]bool{access.Always: false, access.Never: true} {
		t.Run(fmt.Sprintf("%s holds for the lonely and for the others", setting), func(t *testing.T) {
			t.Parallel()
			a := start(t, func(c *server.Config) { c.PublicNetworks, c.AutoActivate = setting, true })
			probes := []probe{a.register(t, "IT", 1), a.register(t, "IT", 2), a.register(t, "IT", 2)}
			for _, p := range probes {
				a.beat(t, p, "IT", 2)
			}
			for _, p := range probes {
				data := a.ask(t, "", `query ($id: ID!) { probe(id: $id) { networkWithheld contact } probes(first: 9, filter: {asns: [1, 2], ids: [$id]}) { edges { cursor } } }`, object{"id": p.id})
				equal(t, at(t, data, "probe"), any(object{"networkWithheld": want, "contact": nil}))
				equal(t, len(list(t, data, "probes", "edges")) == 0, want)
			}
		})
	}
}
