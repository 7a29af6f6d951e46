package server_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/graph"
)

// written are the rows that mutations write, and nothing else does: what rules draw from them comes
// when it comes.
const written = `select coalesce(string_agg(what || ' ' || n, ', ' order by what), '') from (
	select 'audit' what, count(*) n from audit where actor <> '' union all
	select 'event', count(*) from event where kind in ('PROBE_REGISTERED', 'MEASUREMENT_SCORED', 'URL_PRIORITY_CHANGED', 'SUBMISSION_DISCARDED', 'ALERT_ACKNOWLEDGED') union all
	select 'measurement', count(*) from measurement union all
	select 'body', count(*) from body union all
	select 'heartbeat', count(*) from heartbeat union all
	select 'probe', count(*) from probe union all
	select 'token', count(*) from token union all
	select 'release', count(*) from release union all
	select 'silence', count(*) from silence union all
	select 'webhook', count(*) from webhook) x`

// answered selects the whole of a payload, and of the entities in it the id: they may change later.
func answered(d *ast.Definition) string {
	var fields []string
	for _, f := range d.Fields {
		switch of := graph.Schema().Types[f.Type.Name()]; {
		case strings.HasPrefix(f.Name, "__"):
		case !of.IsCompositeType():
			fields = append(fields, f.Name)
		case of.Fields.ForName("id") != nil:
			fields = append(fields, f.Name+" { id }")
		default:
			fields = append(fields, f.Name+" "+answered(of))
		}
	}
	return "{ " + strings.Join(fields, " ") + " }"
}

// Property 17: each mutation that there is, twice with one key.
func TestEveryMutationTwice(t *testing.T) {
	t.Parallel()
	a := start(t)
	operator, admin := a.issue(t, access.Operator), a.issue(t, access.Admin)
	p, candidate, other := a.register(t, "IT", 30722), a.register(t, "IT", 1267), a.register(t, "FR", 3215)
	a.exec(t, "update probe set lifecycle = 'WARMUP' where id = any($1)", []string{p.id, candidate.id})
	a.found(t, "FLAPPING_STARTED", "IT", candidate.id, object{"reason": "Up and down."})
	a.found(t, "FLAPPING_STARTED", "FR", other.id, object{"reason": "Up and down."})
	var alerts []object
	eventually(t, "there are alerts", func() bool {
		alerts = a.alertsOf(t, operator, object{"kinds": []string{"PROBE_TROUBLE"}})
		return len(alerts) == 2
	})
	if err := a.DB().Write(t.Context(), func(tx *db.Tx) error {
		return tx.OpenTask(context.Background(), db.RecruitProbe, "cty_AQ", "AQ", "Nobody.")
	}); err != nil {
		t.Fatal(err)
	}
	var task, investigation int64
	if err := a.sql.QueryRow(t.Context(), "select id from task where country = 'AQ'").Scan(&task); err != nil {
		t.Fatal(err)
	}
	if err := a.sql.QueryRow(t.Context(), "insert into investigation (country, opened_at) values ('AQ', now()) returning id").Scan(&investigation); err != nil {
		t.Fatal(err)
	}
	tomorrow := time.Now().UTC().Add(24 * time.Hour).Format(time.RFC3339)
	churn := func(more object) object {
		in := object{"probeId": other.id, "mode": "CHURN"}
		for k, v := range more {
			in[k] = v
		}
		return in
	}
	var silence, webhook string

	steps := []struct {
		mutation, token, key string
		input                func() object
		keep                 func(payload object)
	}{
		{mutation: "registerProbe", input: func() object { return object{"country": "IT", "asn": 30722} }},
		{mutation: "createToken", token: admin, input: func() object { return object{"role": "RESEARCHER", "name": "Ada"} }},
		{mutation: "heartbeat", token: p.secret, input: func() object { return beat(p, "IT", 30722) }},
		{mutation: "submitMeasurement", token: p.secret, input: func() object { return object{"content": body(nil)} }},
		{mutation: "submitMeasurements", token: p.secret, input: func() object {
			return object{"items": []object{{"content": body(nil)}, {"content": body(object{"probe_cc": "ZZ"})}}}
		}},
		{mutation: "recordAgreement", token: operator, input: func() object { return object{"probeId": other.id} }},
		{mutation: "activateProbe", token: operator, input: func() object { return object{"probeId": p.id} }},
		{mutation: "standbyProbe", token: operator, input: func() object { return object{"probeId": candidate.id} }},
		{mutation: "rotateProbeKey", token: operator, input: func() object { return object{"probeId": p.id} }},
		{mutation: "retireProbe", token: operator, input: func() object { return object{"probeId": p.id, "reason": "It is old."} }},
		{mutation: "reinstateProbe", token: operator, input: func() object { return object{"probeId": p.id} }},
		{mutation: "setCountryMonitored", token: operator, input: func() object { return object{"country": "DE", "monitored": false} }},
		{mutation: "closeTask", token: operator, input: func() object { return object{"taskId": fmt.Sprint("tsk_", task)} }},
		{mutation: "closeInvestigation", token: operator, input: func() object {
			return object{"investigationId": fmt.Sprint("inv_", investigation), "finding": "A cable was cut."}
		}},
		{mutation: "openWorkflow", token: operator, input: func() object { return churn(nil) }},
		{mutation: "snoozeWorkflow", token: operator, input: func() object { return churn(object{"until": tomorrow}) }},
		{mutation: "recordWorkflowReply", token: operator, input: func() object { return churn(nil) }},
		{mutation: "openWorkflow", token: operator, key: "another", input: func() object { return object{"probeId": other.id, "mode": "CRASH_LOOP"} }},
		{mutation: "resolveWorkflow", token: operator, input: func() object { return object{"probeId": other.id, "mode": "CRASH_LOOP"} }},
		{mutation: "recordRelease", token: operator, input: func() object { return object{"type": "DESKTOP", "version": "2.1.0"} }},
		{mutation: "acknowledgeAlert", token: operator, input: func() object { return object{"alertId": alerts[0]["id"]} }},
		{mutation: "resolveAlert", token: operator, input: func() object { return object{"alertId": alerts[1]["id"]} }},
		{
			mutation: "silenceAlerts", token: operator,
			input: func() object {
				return object{"matchers": []object{{"field": "COUNTRY", "values": []string{"AQ"}}}, "until": tomorrow, "reason": "A drill."}
			},
			keep: func(payload object) { silence = str(t, payload, "silence", "id") },
		},
		{mutation: "unsilenceAlerts", token: operator, input: func() object { return object{"silenceId": silence} }},
		{
			mutation: "registerWebhook", token: admin, input: func() object { return object{"url": "https://example.org/hook"} },
			keep: func(payload object) { webhook = str(t, payload, "webhook", "id") },
		},
		{mutation: "setUrlPriority", token: operator, input: func() object {
			return object{"after": object{"categoryCode": "NEWS", "country": "AQ", "priority": 5}}
		}},
		{mutation: "deleteUrlPriority", token: operator, input: func() object {
			return object{"before": object{"categoryCode": "NEWS", "country": "AQ", "priority": 5}}
		}},
		{mutation: "deleteWebhook", token: admin, input: func() object { return object{"webhookId": webhook} }},
	}
	tried := map[string]bool{}
	for _, s := range steps {
		tried[s.mutation] = true
		f := graph.Schema().Mutation.Fields.ForName(s.mutation)
		if f == nil {
			t.Fatalf("there is no %s", s.mutation)
		}
		document := fmt.Sprintf("mutation ($input: %s) { %s(input: $input) %s }", f.Arguments[0].Type, s.mutation, answered(graph.Schema().Types[f.Type.Name()]))
		in := s.input()
		in["idempotencyKey"] = "once" + s.key
		before := a.written(t)
		first := a.do(t, s.token, document, object{"input": in})
		after := a.written(t)
		if len(first.Errors) > 0 || len(list(t, first.Data, s.mutation, "userErrors")) > 0 || after == before {
			t.Errorf("%s did nothing: %s; from %s to %s", s.mutation, first.Raw, before, after)
			continue
		}
		again := a.do(t, s.token, document, object{"input": in})
		equal(t, again.Data, first.Data)
		if n := a.written(t); n != after {
			t.Errorf("%s has a second effect: from %s to %s", s.mutation, after, n)
		}
		if s.keep != nil {
			s.keep(at(t, first.Data, s.mutation).(object))
		}
	}
	for _, f := range rootFields(graph.Schema().Mutation) {
		if !tried[f.Name] {
			t.Errorf("%s was not tried", f.Name)
		}
	}
}

func (a *api) written(t *testing.T) (rows string) {
	t.Helper()
	if err := a.sql.QueryRow(t.Context(), written).Scan(&rows); err != nil {
		t.Fatal(err)
	}
	return rows
}
