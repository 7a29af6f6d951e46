package server_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/fault"
)

// found appends what another rule found.
func (a *api) found(t *testing.T, kind string, cc country.Code, subject string, payload object) {
	t.Helper()
	err := a.DB().Write(context.Background(), func(tx *db.Tx) error {
		tx.Append(events.Event{OccurredAt: tx.Now, Kind: events.Kind(kind), Subject: subject, Country: cc, Payload: events.Payload(payload), RuleID: "R0"})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

const alertsDocument = `query ($filter: AlertFilter) { alerts(first: 10, filter: $filter) { edges { node {
	id fingerprint kind severity state summary members ackedBy resolvedBy country { code } probe { id } mode subject { id }
	hold { outage by silences } deliveries(first: 5) { channel destination attempts outcome problem } } } } }`

// alertsOf are the alerts that match, newest first.
func (a *api) alertsOf(t *testing.T, token string, filter object) (out []object) {
	t.Helper()
	for _, e := range list(t, a.ask(t, token, alertsDocument, object{"filter": filter}), "alerts", "edges") {
		out = append(out, at(t, e, "node").(object))
	}
	return out
}

func TestAlerts(t *testing.T) {
	t.Parallel()
	a := start(t)
	operator, second, admin := a.issue(t, access.Operator), a.issue(t, access.Operator), a.issue(t, access.Admin)
	// Otherwise its coverage has an alert as well.
	const monitored = "mutation { setCountryMonitored(input: {country: NZ, monitored: false}) { userErrors { code } } }"
	equal(t, a.ask(t, operator, monitored, nil), object{"setCountryMonitored": object{"userErrors": []any{}}})
	p := a.register(t, "NZ", 1)
	changes := a.subscribe(t, operator, `subscription ($after: Cursor) { alertChanged(after: $after) { cursor seq kind from to reason actor alert { id fingerprint } } }`,
		object{"after": a.origin(t)})
	members := []object{{"probe": p.id}, {"probe": "prb_0000000000000002"}}
	a.found(t, "COORDINATED_OFFLINE_OPENED", "NZ", "cty_NZ", object{
		"reason": "Two probes went OFFLINE together.", "coordinated": object{"openedAt": time.Now(), "members": members},
	})
	opened := at(t, next(t, changes), "alertChanged").(object)
	equal(t, []any{opened["kind"], opened["from"], opened["to"], opened["actor"], at(t, opened, "alert", "fingerprint")}, []any{"ALERT_OPENED", nil, "OPEN", nil, "coord:NZ"})
	id := str(t, opened, "alert", "id")
	a.found(t, "FLAPPING_STARTED", "NZ", p.id, object{"reason": "Up and down."})
	equal(t, str(t, next(t, changes), "alertChanged", "alert", "fingerprint"), "probe:"+p.id+":FLAPPING")

	var all []object
	eventually(t, "the page went nowhere", func() bool {
		all = a.alertsOf(t, operator, object{})
		return at(t, all[1], "deliveries", 0, "outcome") != nil
	})
	equal(t, all[1], object{
		"id": id, "fingerprint": "coord:NZ", "kind": "COORDINATED_OFFLINE", "severity": "PAGE", "state": "OPEN",
		"summary": "Two probes went OFFLINE together.", "members": []any{"prb_0000000000000002", p.id}, "ackedBy": nil, "resolvedBy": nil,
		"country": object{"code": "NZ"}, "probe": nil, "mode": nil, "subject": object{"id": "cty_NZ"}, "hold": nil,
		"deliveries": []any{object{"channel": "PAGER", "destination": "pager", "attempts": json.Number("1"), "outcome": "SKIPPED", "problem": "No destination is configured."}},
	})
	held := object{"outage": false, "by": []any{"coord:NZ"}, "silences": []any{}}
	equal(t, []any{all[0]["hold"], all[0]["mode"], all[0]["probe"], all[0]["severity"]}, []any{held, "FLAPPING", object{"id": p.id}, "DIGEST"})

	for name, c := range map[string]struct {
		filter object
		want   int
	}{
		"states":         {object{"states": []string{"OPEN"}}, 2},
		"no state":       {object{"states": []string{}}, 0},
		"kinds":          {object{"kinds": []string{"PROBE_TROUBLE"}}, 1},
		"countries":      {object{"countries": []string{"DE"}}, 0},
		"severities":     {object{"severities": []string{"PAGE"}}, 1},
		"fingerprints":   {object{"fingerprints": []string{"coord:NZ", "slo:NZ"}}, 1},
		"inhibited":      {object{"inhibited": true}, 1},
		"not inhibited":  {object{"inhibited": false}, 1},
		"in the future":  {object{"since": "2100-01-01T00:00:00Z"}, 0},
		"until long ago": {object{"until": "2000-01-01T00:00:00Z"}, 0},
	} {
		if n := len(a.alertsOf(t, operator, c.filter)); n != c.want {
			t.Errorf("%s: %d, want %d", name, n, c.want)
		}
	}

	t.Run("a second operator meets a CONFLICT", func(t *testing.T) {
		t.Parallel()
		const document = `mutation ($id: ID!) { acknowledgeAlert(input: {alertId: $id}) { alert { state ackedBy } userErrors { code field } } }`
		equal(t, a.ask(t, operator, document, object{"id": id}),
			object{"acknowledgeAlert": object{"alert": object{"state": "ACKED", "ackedBy": "a operator"}, "userErrors": []any{}}})
		equal(t, a.ask(t, second, document, object{"id": id}),
			object{"acknowledgeAlert": object{"alert": nil, "userErrors": []any{object{"code": "CONFLICT", "field": nil}}}})
		equal(t, a.ask(t, second, document, object{"id": "alr_x"}),
			object{"acknowledgeAlert": object{"alert": nil, "userErrors": []any{object{"code": "NOT_FOUND", "field": "input.alertId"}}}})
		equal(t, str(t, next(t, changes), "alertChanged", "kind"), "ALERT_ACKNOWLEDGED")
		data := a.ask(t, operator, `query ($id: ID!) { node(id: $id) { __typename id } events(first: 1, filter: {kinds: [ALERT_ACKNOWLEDGED]}) { edges { node { summary subject { id } } } } }`, object{"id": id})
		equal(t, at(t, data, "node"), any(object{"__typename": "Alert", "id": id}))
		equal(t, at(t, data, "events", "edges", 0, "node"), any(object{"summary": "a operator deals with this: Two probes went OFFLINE together.", "subject": object{"id": id}}))
	})

	t.Run("a silence shows what it hides, and ends", func(t *testing.T) {
		t.Parallel()
		const document = `mutation ($input: SilenceAlertsInput!) { silenceAlerts(input: $input) {
			silence { id lasting actor reason matchers { field values } alerts(first: 5) { edges { node { fingerprint } } } } userErrors { code field } } }`
		made := a.ask(t, operator, document, object{"input": object{
			"matchers": []object{{"field": "MODE", "values": []string{"FLAPPING"}}}, "until": time.Now().Add(time.Hour), "reason": "A drill.",
		}})
		sid := str(t, made, "silenceAlerts", "silence", "id")
		equal(t, at(t, made, "silenceAlerts", "silence"), any(object{
			"id": sid, "lasting": true, "actor": "a operator", "reason": "A drill.", "matchers": []any{object{"field": "MODE", "values": []any{"FLAPPING"}}},
			"alerts": object{"edges": []any{object{"node": object{"fingerprint": "probe:" + p.id + ":FLAPPING"}}}},
		}))
		equal(t, a.alertsOf(t, operator, object{"kinds": []string{"PROBE_TROUBLE"}})[0]["hold"], any(object{"outage": false, "by": []any{"coord:NZ"}, "silences": []any{sid}}))
		const lasting = `{ silences(first: 5, lasting: true) { edges { node { id } } } }`
		equal(t, len(list(t, a.ask(t, second, lasting, nil), "silences", "edges")), 1)
		const end = `mutation ($id: ID!) { unsilenceAlerts(input: {silenceId: $id}) { silence { lasting liftedBy } userErrors { code } } }`
		equal(t, a.ask(t, second, end, object{"id": sid}), object{"unsilenceAlerts": object{"silence": object{"lasting": false, "liftedBy": "a operator"}, "userErrors": []any{}}})
		equal(t, len(list(t, a.ask(t, second, lasting, nil), "silences", "edges")), 0)
		equal(t, at(t, a.ask(t, operator, document, object{"input": object{"matchers": []object{}, "until": time.Now().Add(time.Hour), "reason": "x"}}), "silenceAlerts", "userErrors"),
			any([]any{object{"code": "INVALID", "field": "input.matchers"}}))
	})

	t.Run("a webhook's secret is shown once", func(t *testing.T) {
		t.Parallel()
		const document = `mutation ($input: RegisterWebhookInput!) { registerWebhook(input: $input) { webhook { id target kinds } secret userErrors { code field } } }`
		made := at(t, a.ask(t, admin, document, object{"input": object{"url": "https://example.org/x", "kinds": []string{"ALERT_OPENED"}}}), "registerWebhook").(object)
		secret := str(t, made, "secret")
		r := a.do(t, admin, "{ webhooks(first: 5) { edges { node { id target kinds createdBy } } } }", nil)
		equal(t, at(t, r.Data, "webhooks", "edges", 0, "node"), any(object{"id": at(t, made, "webhook", "id"), "target": "https://example.org/x", "kinds": []any{"ALERT_OPENED"}, "createdBy": "a admin"}))
		if len(secret) < 64 || !json.Valid([]byte(r.Raw)) {
			t.Errorf("the secret is %q", secret)
		}
		wantFault(t, a.do(t, operator, "{ webhooks(first: 5) { edges { cursor } } }", nil), fault.Forbidden, "")
		equal(t, at(t, a.ask(t, admin, document, object{"input": object{"url": "http://example.org"}}), "registerWebhook", "userErrors"),
			any([]any{object{"code": "INVALID", "field": "input.url"}}))
		gone := a.ask(t, admin, "mutation ($id: ID!) { deleteWebhook(input: {webhookId: $id}) { webhook { id } userErrors { code } } }", object{"id": at(t, made, "webhook", "id")})
		equal(t, at(t, gone, "deleteWebhook", "userErrors"), any([]any{}))
	})

	t.Run("nobody but staff sees any of it", func(t *testing.T) {
		t.Parallel()
		for token, code := range map[string]fault.Code{"": fault.Unauthenticated, p.secret: fault.Forbidden, a.issue(t, access.Researcher): fault.Forbidden} {
			for _, document := range []string{
				"{ alerts(first: 1) { edges { cursor } } }", "{ silences(first: 1) { edges { cursor } } }", "{ digests(first: 1) { edges { cursor } } }",
				"{ webhooks(first: 1) { edges { cursor } } }", `mutation { resolveAlert(input: {alertId: "` + id + `"}) { alert { id } } }`,
			} {
				wantFault(t, a.do(t, token, document, nil), code, "")
			}
			equal(t, a.ask(t, token, "query ($id: ID!) { node(id: $id) { id } }", object{"id": id}), object{"node": nil})
			data := a.ask(t, token, `{ events(first: 10, filter: {kinds: [ALERT_OPENED, ALERT_ACKNOWLEDGED]}) { edges { cursor } } }`, nil)
			equal(t, len(list(t, data, "events", "edges")), 0)
			if f := end(t, a.subscribe(t, token, "subscription { alertChanged { seq } }", nil)); f.Code != code {
				t.Errorf("the subscription ended with %v", f)
			}
		}
	})
}
