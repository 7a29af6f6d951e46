package server_test

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/server"
)

// places makes databases of a country and of a network, for one prefix.
func places(t *testing.T, prefix, cc string, asn uint32) func(*server.Config) {
	t.Helper()
	dir := t.TempDir()
	make := func(name string, record mmdbtype.Map) string {
		w, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test", BuildEpoch: 1_780_000_000})
		if err != nil {
			t.Fatal(err)
		}
		_, n, err := net.ParseCIDR(prefix)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Insert(n, record); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := w.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	countries := make("country.mmdb", mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String(cc)}})
	networks := make("asn.mmdb", mmdbtype.Map{"autonomous_system_number": mmdbtype.Uint32(asn)})
	return func(c *server.Config) {
		c.GeoIPCountryDatabase, c.GeoIPASNDatabase, c.TrustedProxies = countries, networks, []string{"127.0.0.0/8"}
	}
}

const healthDocument = `query ($id: ID!) { probe(id: $id) {
	impairments { impairment since sentence evidence { declared { country network } observed { country network } queueDepth receivedAt } }
	observed { country network databaseDate }
	heartbeats(first: 10) { edges { node { id occurredAt bootId bootSeq late sentAt shuttingDown observed { country network databaseDate } softwareVersion } } }
} }`

func TestPlaces(t *testing.T) {
	t.Parallel()
	const address, asn = "8.8.8.8", 4200000321
	a := start(t, places(t, "8.8.8.0/24", "FR", asn), func(c *server.Config) { c.HeartbeatMinInterval = time.Hour })
	operator := a.issue(t, access.Operator)
	alone := a.register(t, "IT", 30722)
	a.activate(t, operator, alone)
	header := bearer(alone.secret)
	header.Set("X-Forwarded-For", address)
	body := `{"probe_id": "` + alone.id + `", "probe_cc": "IT", "probe_asn": "AS30722", "software_version": "1.0", "uptime_seconds": 60, "queue_depth": 0,
		"boot_id": "b", "seq": 4, "sent_at": 1700000000.5, "transport": "https", "paused_reason": "data cap", "shutting_down": true}`
	res, text := a.send(t, http.MethodPost, a.HeartbeatURL(), header, []byte(body))
	for _, code := range []string{"CHECK_LOCATION", "CHECK_CLOCK"} {
		if res.StatusCode != http.StatusOK || !strings.Contains(text, code) {
			t.Fatalf("%d %s", res.StatusCode, text)
		}
	}
	if _, again := a.send(t, http.MethodPost, a.HeartbeatURL(), header, []byte(body)); again != text {
		t.Errorf("%s, and again %s", text, again)
	}
	soon := strings.Replace(body, `"seq": 4`, `"seq": 5`, 1)
	res, text = a.send(t, http.MethodPost, a.HeartbeatURL(), header, []byte(soon))
	if res.StatusCode != http.StatusTooManyRequests || !strings.Contains(text, string(fault.RateLimited)) || res.Header.Get("Retry-After") == "" {
		t.Errorf("too soon: %d %s", res.StatusCode, text)
	}
	in := beat(alone, "IT", 30722)
	in["bootId"], in["seq"] = "b", 6
	errs := at(t, a.ask(t, alone.secret, `mutation ($input: HeartbeatInput!) { heartbeat(input: $input) { userErrors { code retryAfterSeconds } advisories { code } } }`,
		object{"input": in}), "heartbeat", "userErrors", 0).(object)
	if errs["code"] != string(fault.RateLimited) || errs["retryAfterSeconds"] == nil {
		t.Errorf("too soon: %v", errs)
	}

	for who, token := range map[string]string{"staff": operator, "the probe itself": alone.secret} {
		t.Run(who+" sees where it is and what is wrong", func(t *testing.T) {
			t.Parallel()
			data := a.ask(t, token, healthDocument, object{"id": alone.id})
			equal(t, at(t, data, "probe", "observed"), any(object{"country": "FR", "network": "AS4200000321", "databaseDate": "2026-05-28T20:26:40Z"}))
			var names []any
			for _, i := range list(t, data, "probe", "impairments") {
				names = append(names, at(t, i, "impairment"))
			}
			equal(t, names, []any{"PAUSED", "LOCATION_MISMATCH", "CLOCK_SKEW"})
			h := at(t, data, "probe", "heartbeats", "edges", 0, "node").(object)
			equal(t, []any{h["bootId"], h["late"], h["shuttingDown"], h["sentAt"]}, []any{"b", false, true, "2023-11-14T22:13:20.5Z"})
			node := a.ask(t, token, `query ($id: ID!) { node(id: $id) { id ... on Heartbeat { bootId } } }`, object{"id": h["id"]})
			equal(t, at(t, node, "node", "bootId"), any("b"))
		})
	}

	// A second one in its country and network makes its own network public, but not where its address is.
	t.Run("strangers see neither, and less while it is alone", func(t *testing.T) {
		t.Parallel()
		const all = `query ($id: ID!) { events(first: 100) { edges { node { kind summary } } } probe(id: $id) {
			impairments { impairment sentence evidence { declared { network } observed { network country } sentAt receivedAt } } observed { network }
			heartbeats(first: 10) { edges { node { bootId sentAt observed { network } } } } } }`
		r := a.do(t, "", all, object{"id": alone.id})
		equal(t, at(t, r.Data, "probe", "impairments"), any(nil))
		for _, secret := range []string{"AS4200000321", "CLOCK_SKEW", "PROBE_PLACE_OBSERVED", "IMPAIRMENT_RAISED", "2023-11-14", `"b"`} {
			if strings.Contains(r.Raw, secret) {
				t.Errorf("a stranger learns %s: %s", secret, r.Raw)
			}
		}
		other := a.register(t, "IT", 30722)
		a.activate(t, operator, other)
		a.ask(t, other.secret, beatDocument, object{"input": beat(other, "IT", 30722)})
		r = a.do(t, "", all, object{"id": alone.id})
		equal(t, at(t, r.Data, "probe", "impairments", 1, "sentence"), any("The probe's address does not belong where the probe says it is."))
		for _, secret := range []string{"AS4200000321", "PROBE_PLACE_OBSERVED", `"FR"`, `"b"`} {
			if strings.Contains(r.Raw, secret) {
				t.Errorf("a stranger learns %s: %s", secret, r.Raw)
			}
		}
		if !strings.Contains(r.Raw, "IMPAIRMENT_RAISED") {
			t.Errorf("the log does not tell of it: %s", r.Raw)
		}
	})

	t.Run("the address is nowhere", func(t *testing.T) {
		t.Parallel()
		var n int
		if err := a.sql.QueryRow(t.Context(), `select (select count(*) from heartbeat h where h::text like '%8.8.8.8%') +
			(select count(*) from probe p where p::text like '%8.8.8.8%') + (select count(*) from event e where e::text like '%8.8.8.8%')`).Scan(&n); err != nil || n != 0 {
			t.Error(n, err)
		}
		if strings.Contains(a.logs.String(), address) {
			t.Error("the log tells it")
		}
	})

	t.Run("more than a week of heartbeats is too much", func(t *testing.T) {
		t.Parallel()
		r := a.do(t, operator, `query ($id: ID!) { probe(id: $id) { heartbeats(first: 1, since: "2020-01-01T00:00:00Z") { edges { cursor } } } }`, object{"id": alone.id})
		wantFault(t, r, fault.Invalid, "since")
	})
}

func TestBadCanaries(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Canaries = []string{"tweety"}
	if s, err := newServer(t, cfg); err == nil || !strings.Contains(err.Error(), "CANARIES") {
		t.Errorf("New = %v, %v", s, err)
	}
}

// TestSubmittedFromElsewhere: whichever way a measurement comes, it is told when its sender is seen elsewhere.
func TestSubmittedFromElsewhere(t *testing.T) {
	t.Parallel()
	a := start(t, places(t, "8.8.8.0/24", "FR", 4200000321))
	staff := a.issue(t, access.Operator)
	from := http.Header{"Content-Type": {"application/json"}, "X-Forwarded-For": {"8.8.8.8"}}
	request, err := json.Marshal(object{"query": submitDocument, "variables": object{"input": object{"content": body(nil)}}})
	if err != nil {
		t.Fatal(err)
	}
	entry, err := json.Marshal(object{"format": "json", "content": body(object{"report_id": ""})})
	if err != nil {
		t.Fatal(err)
	}
	for path, sent := range map[string][]byte{"/graphql": request, "/api/v1/submit_measurement": entry} {
		if res, text := a.send(t, http.MethodPost, a.URL()+path, from, sent); res.StatusCode != http.StatusOK || !strings.Contains(text, `uid":"`) {
			t.Fatalf("%s: %d %s", path, res.StatusCode, text)
		}
	}
	told := a.ask(t, staff, `{ faultyMeasurements(first: 10, filter: {kinds: [GEO_COUNTRY_MISMATCH]}) { edges { node { fault observedCountry { code } } } } }`, nil)
	mismatch := object{"node": object{"fault": "GEO_COUNTRY_MISMATCH", "observedCountry": object{"code": "FR"}}}
	equal(t, list(t, told, "faultyMeasurements", "edges"), []any{mismatch, mismatch})
}
