package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/server"
)

func TestRegisterProbe(t *testing.T) {
	t.Parallel()
	a := start(t)

	t.Run("a new probe is PENDING, and sees all of itself", func(t *testing.T) {
		t.Parallel()
		data := a.ask(t, "", registerDocument, object{"input": object{
			"country": "IT", "asn": "AS30722", "displayName": "quiet-owl", "contact": "owl@example.org", "type": "COMMUNITY",
		}})
		p := at(t, data, "registerProbe", "probe").(object)
		delete(p, "id")
		equal(t, p, object{
			"displayName": "quiet-owl", "lifecycle": "PENDING", "country": object{"code": "IT"}, "network": object{"asn": "AS30722"},
			"contact": "owl@example.org",
		})
	})

	t.Run("the same key and input give the same secret and one probe", func(t *testing.T) {
		t.Parallel()
		in := object{"idempotencyKey": "lost answer", "country": "IT", "asn": 1, "displayName": "lost-answer"}
		first := a.ask(t, "", registerDocument, object{"input": in})
		again := a.ask(t, "", registerDocument, object{"input": in})
		equal(t, again, first)
		var n int
		if err := a.sql.QueryRow(t.Context(), "select count(*) from probe where display_name = 'lost-answer'").Scan(&n); err != nil || n != 1 {
			t.Errorf("there are %d probes, %v", n, err)
		}
		in["country"] = "FR"
		r := a.do(t, "", `mutation ($input: RegisterProbeInput!) { registerProbe(input: $input) { secret } }`, object{"input": in})
		wantFault(t, r, fault.Conflict, "input.idempotencyKey")
	})

	t.Run("sixteen at once with one key register one probe", func(t *testing.T) {
		t.Parallel()
		in := object{"idempotencyKey": "storm", "country": "IT", "asn": 1, "displayName": "storm"}
		body, err := json.Marshal(object{"query": registerDocument, "variables": object{"input": in}})
		if err != nil {
			t.Fatal(err)
		}
		answers := make([]answer, 16)
		var wg sync.WaitGroup
		for i := range answers {
			wg.Go(func() { answers[i] = a.raw(t, bearer(""), body) })
		}
		wg.Wait()
		for _, r := range answers {
			equal(t, r.Data, answers[0].Data)
		}
		if !strings.HasPrefix(str(t, answers[0].Data, "registerProbe", "secret"), "vantage_probe_") {
			t.Errorf("answered %s", answers[0].Raw)
		}
	})

	t.Run("each broken rule names its field", func(t *testing.T) {
		t.Parallel()
		before := a.counts(t)["probe"]
		for name, c := range map[string]struct {
			change object
			field  string
		}{
			"the unknown country":                  {object{"country": "ZZ"}, "input.country"},
			"nobody's network":                     {object{"asn": 0}, "input.asn"},
			"a name with a line end":               {object{"displayName": "a\nb"}, "input.displayName"},
			"a name with NUL":                      {object{"displayName": "a\x00b"}, "input.displayName"},
			"an address for a name":                {object{"displayName": "me@example.org"}, "input.displayName"},
			"a name of 65 characters":              {object{"displayName": strings.Repeat("ä", 65)}, "input.displayName"},
			"a contact of 255 characters":          {object{"contact": strings.Repeat("a", 255)}, "input.contact"},
			"a version of 65 characters":           {object{"softwareVersion": strings.Repeat("1", 65)}, "input.softwareVersion"},
			"an idempotency key of 129 characters": {object{"idempotencyKey": strings.Repeat("k", 129)}, "input.idempotencyKey"},
		} {
			in := object{"country": "IT", "asn": 1, "displayName": "never"}
			for k, v := range c.change {
				in[k] = v
			}
			data := a.ask(t, "", registerDocument, object{"input": in})
			errs := list(t, data, "registerProbe", "userErrors")
			if len(errs) != 1 || at(t, errs, 0, "code") != "INVALID" || at(t, errs, 0, "field") != c.field {
				t.Errorf("%s: %v, want INVALID of %s", name, errs, c.field)
			}
			if at(t, data, "registerProbe", "secret") != nil {
				t.Errorf("%s: there is a secret", name)
			}
		}
		var n int
		if err := a.sql.QueryRow(t.Context(), "select count(*) from probe where display_name = 'never'").Scan(&n); err != nil || n != 0 {
			t.Errorf("%d probes were registered all the same, %v (of %d)", n, err, before)
		}
	})

	t.Run("the secret is stored nowhere", func(t *testing.T) {
		t.Parallel()
		p := a.register(t, "IT", 2)
		for _, table := range []string{"probe", "event", "idempotency"} {
			var n int
			sql := "select count(*) from " + table + " x where x::text like '%' || $1 || '%'"
			if err := a.sql.QueryRow(t.Context(), sql, p.secret).Scan(&n); err != nil || n != 0 {
				t.Errorf("%s holds it, %v", table, err)
			}
		}
	})
}

func TestAutoActivate(t *testing.T) {
	t.Parallel()
	a := start(t, func(c *server.Config) { c.AutoActivate = true })
	data := a.ask(t, "", registerDocument, object{"input": object{"country": "IT", "asn": 1}})
	equal(t, str(t, data, "registerProbe", "probe", "lifecycle"), "ACTIVE")
}

func TestLifecycleRights(t *testing.T) {
	t.Parallel()
	a := start(t)
	operator, admin, researcher := a.issue(t, access.Operator), a.issue(t, access.Admin), a.issue(t, access.Researcher)

	t.Run("nobody but staff activates", func(t *testing.T) {
		t.Parallel()
		p := a.register(t, "IT", 1)
		for token, code := range map[string]fault.Code{"": fault.Unauthenticated, p.secret: fault.Forbidden, researcher: fault.Forbidden} {
			wantFault(t, a.do(t, token, activateDocument, object{"id": p.id}), code, "")
		}
		a.activate(t, operator, p)
		data := a.ask(t, operator, activateDocument, object{"id": p.id})
		equal(t, at(t, data, "activateProbe", "userErrors", 0, "code"), any("CONFLICT"))
	})

	t.Run("staff retires, and a probe itself, and nobody else", func(t *testing.T) {
		t.Parallel()
		p, other := a.register(t, "IT", 1), a.register(t, "IT", 1)
		for token, code := range map[string]fault.Code{"": fault.Unauthenticated, other.secret: fault.Forbidden, researcher: fault.Forbidden} {
			wantFault(t, a.do(t, token, retireDocument, object{"id": p.id}), code, "")
		}
		equal(t, str(t, a.ask(t, p.secret, retireDocument, object{"id": p.id}), "retireProbe", "probe", "lifecycle"), "INACTIVE")
		equal(t, str(t, a.ask(t, admin, retireDocument, object{"id": other.id}), "retireProbe", "probe", "lifecycle"), "INACTIVE")
	})

	t.Run("an unknown probe is NOT_FOUND", func(t *testing.T) {
		t.Parallel()
		for _, id := range []string{"prb_0000000000000000", "prb_x", "cty_IT", ""} {
			for _, document := range []string{activateDocument, retireDocument} {
				data := a.ask(t, operator, document, object{"id": id})
				for _, payload := range data {
					equal(t, list(t, payload, "userErrors"), []any{object{"code": "NOT_FOUND", "field": "input.probeId"}})
				}
			}
		}
	})

	t.Run("a reason of 501 characters is INVALID", func(t *testing.T) {
		t.Parallel()
		p := a.register(t, "IT", 1)
		r := a.do(t, operator, `mutation ($input: RetireProbeInput!) { retireProbe(input: $input) { probe { id } } }`,
			object{"input": object{"probeId": p.id, "reason": strings.Repeat("x", 501)}})
		wantFault(t, r, fault.Invalid, "input.reason")
	})

	t.Run("ADMIN alone makes tokens, which work at once", func(t *testing.T) {
		t.Parallel()
		const document = `mutation { createToken(input: {role: RESEARCHER, name: "Ada", idempotencyKey: "ada"}) { token { id name role } secret userErrors { code } } }`
		for token, code := range map[string]fault.Code{"": fault.Unauthenticated, researcher: fault.Forbidden, operator: fault.Forbidden} {
			wantFault(t, a.do(t, token, document, nil), code, "")
		}
		made := a.ask(t, admin, document, nil)
		equal(t, a.ask(t, admin, document, nil), made)
		viewer := a.ask(t, str(t, made, "createToken", "secret"), `{ viewer { role name probe { id } } }`, nil)
		equal(t, viewer, object{"viewer": object{"role": "RESEARCHER", "name": "Ada", "probe": nil}})
	})
}

func TestRegistrationRate(t *testing.T) {
	t.Parallel()
	limited := func(c *server.Config) { c.RegistrationsPerHour = 3 }
	const document = `mutation ($name: String) { registerProbe(input: {country: "IT", asn: 1, displayName: $name}) { secret } }`
	from := func(t *testing.T, a *api, forwarded string) answer {
		t.Helper()
		h := bearer("")
		if forwarded != "" {
			h.Set("X-Forwarded-For", forwarded)
		}
		b, err := json.Marshal(object{"query": document})
		if err != nil {
			t.Fatal(err)
		}
		return a.raw(t, h, b)
	}
	thirdOfAnHour := func(seconds int) bool { return seconds <= 1200 && seconds > 1200-int(patience.Seconds()) }
	wantLimited := func(t *testing.T, r answer) {
		t.Helper()
		wantFault(t, r, fault.RateLimited, "")
		if len(r.Errors) == 1 && !thirdOfAnHour(r.Errors[0].Extensions.RetryAfter) {
			t.Errorf("the wait is %d seconds, want a third of an hour", r.Errors[0].Extensions.RetryAfter)
		}
	}

	t.Run("the fourth of a source is RATE_LIMITED, whatever it says of where it comes from", func(t *testing.T) {
		t.Parallel()
		a := start(t, limited)
		for i := range 3 {
			if r := from(t, a, fmt.Sprintf("192.0.2.%d", i)); len(r.Errors) > 0 {
				t.Fatalf("registration %d: %s", i, r.Raw)
			}
		}
		wantLimited(t, from(t, a, "198.51.100.1"))
		data := a.ask(t, "", registerDocument, object{"input": object{"country": "IT", "asn": 1}})
		errs := list(t, data, "registerProbe", "userErrors")
		equal(t, at(t, errs, 0, "code"), any("RATE_LIMITED"))
		if wait, err := at(t, errs, 0, "retryAfterSeconds").(json.Number).Int64(); err != nil || !thirdOfAnHour(int(wait)) {
			t.Errorf("the wait is %d seconds, %v", wait, err)
		}
		if data := a.ask(t, a.issue(t, access.Operator), registerDocument, object{"input": object{"country": "IT", "asn": 1}}); at(t, data, "registerProbe", "secret") == nil {
			t.Error("staff is limited, too")
		}
	})

	t.Run("a trusted proxy is believed about the last hop that it does not vouch for", func(t *testing.T) {
		t.Parallel()
		a := start(t, limited, func(c *server.Config) { c.TrustedProxies = []string{"127.0.0.0/8", "10.0.0.0/8"} })
		for i := range 3 {
			if r := from(t, a, fmt.Sprintf("203.0.113.%d, 192.0.2.%d, 10.0.0.7", i, i)); len(r.Errors) > 0 {
				t.Fatalf("registration %d: %s", i, r.Raw)
			}
		}
		wantLimited(t, from(t, a, "198.51.100.9, 192.0.2.77")) // the first hop is what the client claims
		if r := from(t, a, "198.51.100.9"); len(r.Errors) > 0 {
			t.Errorf("another source is limited: %s", r.Raw)
		}
	})

	t.Run("a proxy that is no network stops the start", func(t *testing.T) {
		t.Parallel()
		cfg := config(t)
		cfg.TrustedProxies = []string{"everyone"}
		if s, err := newServer(t, cfg); err == nil || !strings.Contains(err.Error(), "TRUSTED_PROXIES") {
			t.Errorf("New = %v, %v", s, err)
		}
	})
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	a := start(t)
	p, other := a.register(t, "IT", 30722), a.register(t, "IT", 30722)

	t.Run("the first one makes the probe ONLINE", func(t *testing.T) {
		t.Parallel()
		p := a.register(t, "IT", 30722)
		data := a.ask(t, p.secret, beatDocument, object{"input": beat(p, "IT", 30722)})
		equal(t, str(t, data, "heartbeat", "probe", "state"), "ONLINE")
		if n, _ := strconv.Atoi(string(at(t, data, "heartbeat", "nextHeartbeatAfter").(json.Number))); n < 50 || n > 70 {
			t.Errorf("the next one is due after %d s", n)
		}
		equal(t, at(t, data, "heartbeat", "serverTime"), at(t, data, "heartbeat", "probe", "lastHeartbeatAt"))
	})

	t.Run("who sends it matters", func(t *testing.T) {
		t.Parallel()
		in := object{"input": beat(p, "IT", 30722)}
		wantFault(t, a.do(t, "", beatDocument, in), fault.Unauthenticated, "")
		wantFault(t, a.do(t, other.secret, beatDocument, in), fault.Forbidden, "")
		wantFault(t, a.do(t, a.issue(t, access.Operator), beatDocument, in), fault.Forbidden, "")
		data := a.ask(t, p.secret, beatDocument, object{"input": beat(probe{id: "prb_no"}, "IT", 1)})
		equal(t, list(t, data, "heartbeat", "userErrors"), []any{object{"code": "NOT_FOUND", "field": "input.probeId"}})
	})

	t.Run("one from the future is INVALID", func(t *testing.T) {
		t.Parallel()
		in := beat(p, "IT", 30722)
		in["lastMeasurementAt"] = time.Now().Add(2 * time.Hour).UTC().Format(time.RFC3339)
		data := a.ask(t, p.secret, beatDocument, object{"input": in})
		equal(t, list(t, data, "heartbeat", "userErrors"), []any{object{"code": "INVALID", "field": "input.lastMeasurementAt"}})
	})

	t.Run("a retired probe is told so", func(t *testing.T) {
		t.Parallel()
		p := a.register(t, "IT", 30722)
		a.ask(t, p.secret, retireDocument, object{"id": p.id})
		data := a.ask(t, p.secret, beatDocument, object{"input": beat(p, "IT", 30722)})
		equal(t, list(t, data, "heartbeat", "userErrors"), []any{object{"code": "CONFLICT", "field": "input.probeId"}})
	})

	t.Run("a key that is used again has one effect", func(t *testing.T) {
		t.Parallel()
		p := a.register(t, "IT", 30722)
		in := beat(p, "IT", 30722)
		in["idempotencyKey"] = "twice"
		first := a.ask(t, p.secret, beatDocument, object{"input": in})
		equal(t, a.ask(t, p.secret, beatDocument, object{"input": in}), first)
		var n int
		if err := a.sql.QueryRow(t.Context(), "select count(*) from heartbeat where probe_id = $1", p.id).Scan(&n); err != nil || n != 1 {
			t.Errorf("%d heartbeats are stored, %v", n, err)
		}
	})
}

// packet is the heartbeat as probes send it to the second listener.
func packet(p probe, change object) []byte {
	o := object{
		"probe_id": p.id, "probe_cc": "IT", "probe_asn": "AS30722", "software_version": "1.2.3", "uptime_seconds": 60,
		"queue_depth": 3, "last_measurement_at": time.Now().Add(-time.Minute).Unix(),
	}
	for k, v := range change {
		if o[k] = v; v == nil {
			delete(o, k)
		}
	}
	b, err := json.Marshal(o)
	if err != nil {
		panic(err) // texts and numbers always encode
	}
	return b
}

func TestHeartbeatPacket(t *testing.T) {
	t.Parallel()
	a := start(t)
	p, other := a.register(t, "IT", 30722), a.register(t, "IT", 30722)
	post := func(t *testing.T, token string, body []byte) (int, object) {
		t.Helper()
		res, text := a.send(t, http.MethodPost, a.HeartbeatURL(), bearer(token), body)
		out := object{}
		if err := json.Unmarshal([]byte(text), &out); err != nil {
			t.Fatalf("%d %s", res.StatusCode, text)
		}
		return res.StatusCode, out
	}
	want := func(t *testing.T, token string, body []byte, status int, code fault.Code, field string) {
		t.Helper()
		got, out := post(t, token, body)
		ext := at(t, out, "errors", 0, "extensions").(object)
		if f, _ := ext["field"].(string); got != status || ext["code"] != string(code) || f != field || at(t, out, "error", "code") != string(code) {
			t.Errorf("%s: answered %d %v, want %d %s of %q", body, got, out, status, code, field)
		}
	}

	t.Run("it does what the mutation does", func(t *testing.T) {
		t.Parallel()
		p := a.register(t, "IT", 30722)
		status, out := post(t, p.secret, packet(p, nil))
		equal(t, status, http.StatusOK)
		equal(t, out["state"], any("ONLINE"))
		if n := out["next_heartbeat_after"].(float64); n < 50 || n > 70 {
			t.Errorf("the next one is due after %v s", n)
		}
		shown := a.ask(t, p.secret, `query ($id: ID!) { probe(id: $id) { state softwareVersion uptimeSeconds queueDepth lastHeartbeatAt } }`, object{"id": p.id})
		equal(t, shown, object{"probe": object{
			"state": "ONLINE", "softwareVersion": "1.2.3", "uptimeSeconds": json.Number("60"), "queueDepth": json.Number("3"),
			"lastHeartbeatAt": out["server_time"],
		}})
	})

	t.Run("each bad field is named", func(t *testing.T) {
		t.Parallel()
		for _, c := range []struct {
			change object
			field  string
		}{
			{object{"probe_id": nil}, "probe_id"},
			{object{"probe_id": 7}, "probe_id"},
			{object{"probe_cc": nil}, "probe_cc"},
			{object{"probe_cc": "Italy"}, "probe_cc"},
			{object{"probe_cc": "it"}, "probe_cc"},
			{object{"probe_cc": 39}, "probe_cc"},
			{object{"probe_asn": nil}, "probe_asn"},
			{object{"probe_asn": "ASx"}, "probe_asn"},
			{object{"probe_asn": -1}, "probe_asn"},
			{object{"probe_asn": 1.5}, "probe_asn"},
			{object{"probe_asn": true}, "probe_asn"},
			{object{"probe_asn": object{}}, "probe_asn"},
			{object{"software_version": nil}, "software_version"},
			{object{"software_version": strings.Repeat("1", 65)}, "software_version"},
			{object{"software_version": "1\x00"}, "software_version"},
			{object{"software_version": 1}, "software_version"},
			{object{"uptime_seconds": nil}, "uptime_seconds"},
			{object{"uptime_seconds": -1}, "uptime_seconds"},
			{object{"uptime_seconds": "60"}, "uptime_seconds"},
			{object{"uptime_seconds": 1e30}, "uptime_seconds"},
			{object{"queue_depth": nil}, "queue_depth"},
			{object{"queue_depth": -1}, "queue_depth"},
			{object{"queue_depth": []int{}}, "queue_depth"},
			{object{"last_measurement_at": -1}, "last_measurement_at"},
			{object{"last_measurement_at": "now"}, "last_measurement_at"},
			{object{"last_measurement_at": time.Now().Add(2 * time.Hour).Unix()}, "last_measurement_at"},
			{object{"last_measurement_at": int64(1) << 60}, "last_measurement_at"},
		} {
			want(t, p.secret, packet(p, c.change), http.StatusBadRequest, fault.Invalid, c.field)
		}
	})

	t.Run("who sends it matters", func(t *testing.T) {
		t.Parallel()
		want(t, "", packet(p, nil), http.StatusUnauthorized, fault.Unauthenticated, "")
		want(t, "vantage_probe_nonsense", packet(p, nil), http.StatusUnauthorized, fault.Unauthenticated, "")
		want(t, other.secret, packet(p, nil), http.StatusForbidden, fault.Forbidden, "")
		want(t, p.secret, packet(probe{id: "prb_no"}, nil), http.StatusNotFound, fault.NotFound, "probe_id")
		retired := a.register(t, "IT", 30722)
		a.ask(t, retired.secret, retireDocument, object{"id": retired.id})
		want(t, retired.secret, packet(retired, nil), http.StatusConflict, fault.Conflict, "probe_id")
	})

	t.Run("what is no packet is refused, and not echoed", func(t *testing.T) {
		t.Parallel()
		for _, body := range []string{"", "{", "[]", "null", `"x"`, `{"probe_id":`, "\xff\xfe"} {
			if status, out := post(t, p.secret, []byte(body)); status != http.StatusBadRequest {
				t.Errorf("%q: answered %d %v", body, status, out)
			}
		}
		want(t, p.secret, []byte(`{"probe_id": "`+strings.Repeat("x", 9000)+`"}`), http.StatusRequestEntityTooLarge, fault.Invalid, "")
		res, _ := a.send(t, http.MethodGet, a.HeartbeatURL(), nil, nil)
		equal(t, res.StatusCode, http.StatusMethodNotAllowed)
		res, _ = a.send(t, http.MethodPost, strings.TrimSuffix(a.HeartbeatURL(), "heartbeat")+"graphql", bearer(""), []byte("{}"))
		equal(t, res.StatusCode, http.StatusNotFound)
	})
}
