package server_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/server"
)

// grade gives a probe a quality score, as the scoring does.
func (a *api) grade(t *testing.T, p probe, n int) {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Microsecond)
	standing := marshal(t, object{"JudgedAt": now, "Score": n, "ScoredAt": now})
	if _, err := a.sql.Exec(t.Context(), "update probe set standing = $2 where id = $1", p.id, string(standing)); err != nil {
		t.Fatal(err)
	}
	err := pgx.BeginFunc(t.Context(), a.sql, func(tx pgx.Tx) error {
		// Without the lock, a later number may be committed before this one, which whoever reads the log then passes by.
		if _, err := tx.Exec(t.Context(), "select pg_advisory_xact_lock($1)", int64(logLock)); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), `insert into event (seq, recorded_at, occurred_at, kind, subject, country, asn, payload, rule_id, rule_version, caused_by)
			select nextval('log_seq'), $2, $2, 'QUALITY_SCORED', id, country, asn, $3, 'R7', 1, '{}' from probe where id = $1`, p.id, now, string(marshal(t, object{"judged": n})))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// counting makes a probe that counts.
func (a *api) counting(t *testing.T, operator, cc string, asn int) probe {
	t.Helper()
	p := a.register(t, cc, asn)
	a.activate(t, operator, p)
	a.beat(t, p, cc, asn)
	a.grade(t, p, 90)
	return p
}

const coverageDocument = `query ($codes: [CountryCode!], $asOf: DateTime) { coverage(filter: {codes: $codes}, asOf: $asOf) {
	country { code } required have deficit met monitored asns asnsWithheld excludedCount excluded { probe { id } reason reasons { code } }
	wouldRestore remedies { probe { id } sentence } breachSince replacement { id } replacements { id } summary } }`

func TestCoverage(t *testing.T) {
	t.Parallel()
	a := start(t)
	operator := a.issue(t, access.Operator)
	changes := a.subscribe(t, "", `subscription ($after: Cursor) { coverageChanged(filter: {codes: ["DE"]}, after: $after) {
		cursor seq country { code } kind have required deficit reason replacement { id } coverage { have } } }`, object{"after": a.origin(t)})
	alone := a.counting(t, operator, "DE", 1)
	breached := next(t, changes) // before nothing is missing any more: who looks late sees no breach
	equal(t, at(t, breached, "coverageChanged", "kind"), any("SLO_BREACHED"))
	first, second := a.counting(t, operator, "DE", 2), a.counting(t, operator, "DE", 2)
	silent := a.register(t, "DE", 3)
	restored := breached
	for at(t, restored, "coverageChanged", "kind") != "SLO_RESTORED" {
		restored = next(t, changes)
	}
	equal(t, at(t, restored, "coverageChanged", "reason"), any("Germany has the two networks it needs."))
	equal(t, at(t, restored, "coverageChanged", "replacement"), nil)

	t.Run("it says who counts, and why not", func(t *testing.T) {
		t.Parallel()
		c := at(t, a.ask(t, operator, coverageDocument, object{"codes": []string{"DE"}}), "coverage", 0).(object)
		equal(t, c["asns"], any([]any{"AS1", "AS2"}))
		equal(t, c["excludedCount"], any(json.Number("1")))
		equal(t, at(t, c, "excluded", 0, "probe", "id"), any(silent.id))
		equal(t, at(t, c, "excluded", 0, "reason"), any("It is PENDING, not ACTIVE. It was never heard. It has no quality score."))
		equal(t, []any{c["met"], c["wouldRestore"], c["breachSince"], c["summary"]}, []any{true, nil, nil, "Germany has the two networks it needs."})
		counts := a.ask(t, "", `query ($ids: [ID!]!) { nodes(ids: $ids) { ... on Probe { countsForCoverage { counts reasons { code } } } } }`,
			object{"ids": []string{first.id, silent.id}})
		equal(t, at(t, counts, "nodes", 0, "countsForCoverage"), any(object{"counts": true, "reasons": []any{}}))
		equal(t, at(t, counts, "nodes", 1, "countsForCoverage", "reasons", 0, "code"), any("NOT_ACTIVE"))
	})

	t.Run("the network of a lone probe is withheld, and counted", func(t *testing.T) {
		t.Parallel()
		researcher := a.issue(t, access.Researcher)
		for _, token := range []string{"", researcher, second.secret} {
			c := at(t, a.ask(t, token, coverageDocument, object{"codes": []string{"DE"}}), "coverage", 0).(object)
			equal(t, []any{c["asns"], c["asnsWithheld"], c["have"]}, []any{[]any{"AS2"}, json.Number("1"), json.Number("2")})
		}
		own := at(t, a.ask(t, alone.secret, coverageDocument, object{"codes": []string{"DE"}}), "coverage", 0).(object)
		equal(t, own["asns"], any([]any{"AS1", "AS2"}))
	})

	t.Run("the past is folded by the same rule", func(t *testing.T) {
		t.Parallel()
		now := time.Now().UTC().Format(time.RFC3339Nano)
		for _, token := range []string{"", operator} {
			present := a.ask(t, token, coverageDocument, object{"codes": []string{"DE", "IR", "AQ"}})
			then := a.ask(t, token, coverageDocument, object{"codes": []string{"DE", "IR", "AQ"}, "asOf": now})
			equal(t, then, present)
		}
		long := a.ask(t, "", coverageDocument, object{"codes": []string{"DE"}, "asOf": "2020-01-01T00:00:00Z"})
		equal(t, at(t, long, "coverage", 0, "wouldRestore"), any("Germany would have the two networks it needs if probes on two more networks were recruited."))
		r := a.do(t, "", coverageDocument, object{"asOf": "2999-01-01T00:00:00Z"})
		if len(r.Errors) != 1 || r.Errors[0].Extensions.Field != "asOf" {
			t.Errorf("the time to come: %s", r.Raw)
		}
	})

	t.Run("a country that need not be covered lacks nothing", func(t *testing.T) {
		t.Parallel()
		const set = `mutation ($in: SetCountryMonitoredInput!) { setCountryMonitored(input: $in) { country { code monitored } userErrors { code field } } }`
		data := a.ask(t, operator, set, object{"in": object{"country": "FR", "monitored": false}})
		equal(t, data, object{"setCountryMonitored": object{"country": object{"code": "FR", "monitored": false}, "userErrors": []any{}}})
		data = a.ask(t, "", `{ country(code: "FR") { monitored coverage { monitored required } } countries(filter: {codes: ["FR"], monitored: true}) { code } }`, nil)
		equal(t, data, object{"country": object{"monitored": false, "coverage": object{"monitored": false, "required": json.Number("0")}}, "countries": []any{}})
	})
}

//nolint:paralleltest,tparallel // each part begins with what the others left
func TestWaitlist(t *testing.T) {
	t.Parallel()
	a := start(t)
	operator := a.issue(t, access.Operator)
	p := a.register(t, "DE", 64501)
	a.beat(t, p, "DE", 64501)

	t.Run("what staff alone may see or do is refused to others", func(t *testing.T) {
		for _, document := range []string{
			"{ waitlist(first: 1) { edges { cursor } } }", "{ auditLog(first: 1) { edges { cursor } } }", "{ tasks(first: 1) { edges { cursor } } }",
			`mutation { standbyProbe(input: {probeId: "` + p.id + `"}) { probe { id } } }`,
			`mutation { reinstateProbe(input: {probeId: "` + p.id + `"}) { probe { id } } }`,
			`mutation { recordAgreement(input: {probeId: "` + p.id + `"}) { probe { id } } }`,
			`mutation { setCountryMonitored(input: {country: "DE", monitored: false}) { country { code } } }`,
			`mutation { closeTask(input: {taskId: "tsk_1"}) { task { id } } }`,
		} {
			for token, code := range map[string]string{"": "UNAUTHENTICATED", p.secret: "FORBIDDEN"} {
				r := a.do(t, token, document, nil)
				if len(r.Errors) != 1 || string(r.Errors[0].Extensions.Code) != code {
					t.Errorf("%s: %s", document, r.Raw)
				}
			}
		}
	})

	t.Run("a vetted probe begins to warm up by itself, and the audit log says who did what", func(t *testing.T) {
		a.ask(t, operator, `mutation ($id: ID!) { recordAgreement(input: {probeId: $id}) { probe { id } } }`, object{"id": p.id})
		eventually(t, "the warm-up", func() bool {
			return at(t, a.ask(t, "", "query ($id: ID!) { probe(id: $id) { lifecycle } }", object{"id": p.id}), "probe", "lifecycle") == "WARMUP"
		})
		list := a.ask(t, operator, `{ waitlist(first: 5, filter: {codes: ["DE"]}) { edges { node { id } vetting { warmAt restores missing { code } } } } }`, nil)
		equal(t, at(t, list, "waitlist", "edges", 0, "vetting", "restores"), any(true))
		equal(t, at(t, list, "waitlist", "edges", 0, "vetting", "missing", 0, "code"), any("WARMING_UP"))
		log := a.ask(t, operator, `query ($id: ID!) { auditLog(first: 5, subject: $id) { edges { node { id actor ruleId action before after reason subject { id } } } } }`, object{"id": p.id})
		edges := at(t, log, "auditLog", "edges").([]any)
		newest := edges[0].(object)["node"].(object)
		equal(t, []any{len(edges), newest["ruleId"], newest["actor"], newest["action"], at(t, newest, "subject", "id")}, []any{2, "R1", nil, "probe.WARMUP", p.id})
		if !strings.Contains(newest["before"].(string), `"PENDING"`) || !strings.Contains(newest["after"].(string), `"WARMUP"`) {
			t.Errorf("the entry is %v", newest)
		}
		equal(t, at(t, edges[1].(object)["node"], "actor"), any("a operator"))
	})

	t.Run("a waiting probe takes the place of a silent one, and the public is told without its network", func(t *testing.T) {
		a.ask(t, operator, `mutation ($id: ID!) { standbyProbe(input: {probeId: $id}) { probe { lifecycle } userErrors { code } } }`, object{"id": p.id})
		lost := a.counting(t, operator, "DE", 64502)
		changes := a.subscribe(t, "", `subscription ($after: Cursor) { coverageChanged(after: $after) {
			kind country { code } replacement { id state for { id } candidate { id } network { asn } deadline reason } } }`, object{"after": a.origin(t)})
		if _, err := a.sql.Exec(t.Context(), `update probe set liveness = 'OFFLINE', offline_since = now() - interval '3 hours', deadline_at = null where id = $1`, lost.id); err != nil {
			t.Fatal(err)
		}
		a.grade(t, lost, 90) // which has the country looked at
		var told object
		for told == nil || told["replacement"] == nil {
			told = at(t, next(t, changes), "coverageChanged").(object)
		}
		r := told["replacement"].(object)
		equal(t, []any{told["kind"], r["state"], at(t, r, "for", "id"), at(t, r, "candidate", "id"), r["network"]},
			[]any{"REPLACEMENT_ACTIVATING", "ACTIVATING", lost.id, p.id, nil})
		const document = `query ($id: ID!) { replacements(first: 2, filter: {countries: ["DE"]}) { edges { node { id network { asn } } } } node(id: $id) { ... on Replacement { network { asn } } }
			coverage(filter: {codes: ["DE"]}) { replacement { id network { asn } } } }`
		for token, network := range map[string]any{"": nil, operator: object{"asn": "AS64501"}, p.secret: object{"asn": "AS64501"}} {
			data := a.ask(t, token, document, object{"id": r["id"]})
			for _, path := range [][]any{{"replacements", "edges", 0, "node", "network"}, {"node", "network"}, {"coverage", 0, "replacement", "network"}} {
				equal(t, at(t, data, path...), network)
			}
		}
		text := a.do(t, "", `{ events(first: 50, filter: {countries: ["DE"]}) { edges { node { kind summary network { asn } } } } }`, nil).Raw
		if strings.Contains(text, "6450") {
			t.Errorf("the log tells a network: %s", text)
		}
	})
}

func TestRotateProbeKey(t *testing.T) {
	t.Parallel()
	a := start(t, func(c *server.Config) { c.AutoActivate = true })
	p := a.register(t, "DE", 1)
	data := a.ask(t, p.secret, `mutation ($id: ID!) { rotateProbeKey(input: {probeId: $id}) { secret probe { id } } }`, object{"id": p.id})
	old := p.secret
	p.secret = str(t, data, "rotateProbeKey", "secret")
	a.beat(t, p, "DE", 1)
	if r := a.do(t, old, "{ viewer { role } }", nil); len(r.Errors) != 1 || string(r.Errors[0].Extensions.Code) != "UNAUTHENTICATED" {
		t.Errorf("the old secret: %s", r.Raw)
	}
}
