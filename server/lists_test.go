package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/server"
	"github.com/openvantage/vantage/service"
	"github.com/openvantage/vantage/testlist"
)

// withLists imports lists before the server starts: n URLs of the world, and two of Italy.
func withLists(t *testing.T, n int, change ...func(*server.Config)) *api {
	t.Helper()
	a := start(t, change...)
	all := []testlist.Entry{
		{Country: "IT", URL: "https://one.example/", CategoryCode: "NEWS"},
		{Country: "IT", URL: "http://two.example:8080/x?a=1&b=2", CategoryCode: "CTRL"},
	}
	for i := range n {
		all = append(all, testlist.Entry{Country: testlist.Global, URL: fmt.Sprintf("https://world%d.example/", i), CategoryCode: "POLR"})
	}
	if _, _, err := service.ImportTestLists(t.Context(), a.DB(), "test", all, true, true); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lists are in use", func() bool {
		res, body := a.send(t, http.MethodGet, a.URL()+"/api/v1/test-list/urls?country_code=IT", nil, nil)
		return res.StatusCode == http.StatusOK && strings.Contains(body, "one.example")
	})
	return a
}

// restCheckIn posts a check-in that must succeed.
func (a *api) restCheckIn(t *testing.T, body string) object {
	t.Helper()
	res, text := a.send(t, http.MethodPost, a.URL()+"/api/v1/check-in", http.Header{"Content-Type": {"application/json"}}, []byte(body))
	var out object
	if err := json.Unmarshal([]byte(text), &out); err != nil || res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%s\nanswered %d %s", body, res.StatusCode, text)
	}
	return out
}

// reported takes the report ids out of an answer, checks them, and leaves their tests.
func reported(t *testing.T, out object, place string) {
	t.Helper()
	tests, _ := out["tests"].(object)
	if len(tests) != 21 {
		t.Errorf("%d tests, want 21", len(tests))
	}
	for name, v := range tests {
		form := regexp.MustCompile(`^\d{8}T\d{6}Z_` + strings.ReplaceAll(name, "_", "") + "_" + place + `_n7_[A-Za-z0-9]{16}$`)
		if id, _ := v.(object)["report_id"].(string); !form.MatchString(id) {
			t.Errorf("the report of %s is %q, want %s", name, id, form)
		}
	}
}

func TestCheckIn(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "services.json")
	if err := os.WriteFile(file, []byte(`{"collector_id": "7", "features": {"vanilla_tor_enabled": true},
		"test_helpers": {"web-connectivity": [{"address": "https://th.example", "type": "https"}, {"address": "https://f.example", "type": "cloudfront", "front": "g.example"}]}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	a := withLists(t, 200, func(c *server.Config) { c.ProbeServicesFile = file })

	t.Run("a probe is answered field by field", func(t *testing.T) {
		t.Parallel()
		out := a.restCheckIn(t, `{"charging":true,"on_wifi":true,"platform":"linux","probe_asn":"AS30722","probe_cc":"IT","run_type":"manual",
			"software_name":"miniooni","software_version":"3.29.1","web_connectivity":{"category_codes":["NEWS","CTRL"]}}`)
		reported(t, out, "IT_30722")
		at, _ := out["utc_time"].(string)
		if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`).MatchString(at) {
			t.Errorf("utc_time is %q", at)
		}
		urls := out["tests"].(object)["web_connectivity"].(object)["urls"]
		delete(out, "tests")
		delete(out, "utc_time")
		want := object{
			"v": 1.0, "probe_cc": "ZZ", "probe_asn": "AS0", "probe_network_name": nil,
			"conf": object{
				"features": object{"vanilla_tor_enabled": true, "torsf_enabled": false, "openvpn_enabled": false, "webconnectivity_0.5": false},
				"test_helpers": object{"web-connectivity": []any{
					object{"address": "https://th.example", "type": "https"},
					object{"address": "https://f.example", "type": "cloudfront", "front": "g.example"},
				}},
			},
		}
		if diff := cmp.Diff(want, out); diff != "" {
			t.Error(diff)
		}
		wantURLs := []any{ // NEWS has priority 100, CTRL 20
			object{"category_code": "NEWS", "country_code": "IT", "url": "https://one.example/"},
			object{"category_code": "CTRL", "country_code": "IT", "url": "http://two.example:8080/x?a=1&b=2"},
		}
		if diff := cmp.Diff(wantURLs, urls); diff != "" {
			t.Error(diff)
		}
	})

	for name, c := range map[string]struct {
		body  string
		urls  int
		place string
	}{
		"the newer generation, by hand, gets all": {`{"charging":true,"on_wifi":true,"platform":"linux","probe_asn":"AS30722","probe_cc":"IT","run_type":"manual","software_name":"miniooni","software_version":"3.31.0","web_connectivity":{"category_codes":[]}}`, 202, "IT_30722"},
		"a timed run that charges gets 100":       {`{"run_type":"timed","charging":true,"probe_cc":"it","probe_asn":30722}`, 100, "IT_30722"},
		"who does not say charges":                {`{"probe_cc":"IT"}`, 100, "IT_0"},
		"a battery gets 20":                       {`{"run_type":"timed","charging":false,"probe_cc":"IT","probe_asn":"AS1"}`, 20, "IT_1"},
		"who says nothing is where it is seen":    {`{"run_type":"manual"}`, 200, "ZZ_0"},
		"null is nothing":                         {`{"run_type":null,"charging":null,"probe_cc":null,"probe_asn":null,"web_connectivity":null}`, 100, "ZZ_0"},
		"categories may have commas":              {`{"probe_cc":"IT","web_connectivity":{"category_codes":"news,CTRL"}}`, 2, "IT_0"},
		"no text is no category":                  {`{"probe_cc":"IT","run_type":"manual","web_connectivity":{"category_codes":""}}`, 202, "IT_0"},
		"a category that is yet to come has none": {`{"probe_cc":"IT","web_connectivity":{"category_codes":["FUTURE"]}}`, 0, "IT_0"},
		"another country gets the world":          {`{"probe_cc":"FR","run_type":"manual"}`, 200, "FR_0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := a.restCheckIn(t, c.body)
			reported(t, out, c.place)
			urls, _ := out["tests"].(object)["web_connectivity"].(object)["urls"].([]any)
			if urls == nil || len(urls) != c.urls {
				t.Errorf("%d URLs, want %d", len(urls), c.urls)
			}
			for _, u := range urls {
				u, _ := u.(object)
				if of := u["country_code"]; strings.Contains(u["url"].(string), "world") != (of == "XX") {
					t.Errorf("%v is of %v", u["url"], of)
				}
			}
		})
	}

	for body, field := range map[string]string{
		`{"web_connectivity":{"category_codes":["NEWS","N3WS"]}}`: "web_connectivity.category_codes",
		`{"web_connectivity":{"category_codes":[""]}}`:            "web_connectivity.category_codes",
		`{"web_connectivity":{"category_codes":"NEWS;CTRL"}}`:     "web_connectivity.category_codes",
		`{"web_connectivity":{"category_codes":[1]}}`:             "web_connectivity.category_codes",
		`{"web_connectivity":{"category_codes":{}}}`:              "web_connectivity.category_codes",
		`{"probe_cc":"Italy"}`:                                    "probe_cc",
		`{"probe_cc":"1T"}`:                                       "probe_cc",
		`{"probe_cc":"ıt"}`:                                       "probe_cc",
		`{"web_connectivity":{"category_codes":"newſ"}}`:          "web_connectivity.category_codes",
		`{"probe_asn":"Vodafone"}`:                                "probe_asn",
		`{"probe_asn":"AS-1"}`:                                    "probe_asn",
		`{"probe_asn":true}`:                                      "probe_asn",
		`{"charging":"yes"}`:                                      "charging",
		`{"run_type":1}`:                                          "run_type",
		``:                                                        "body",
		`[]`:                                                      "body",
		`{"probe_cc":`:                                            "body",
		`null`:                                                    "body",
	} {
		t.Run("refused, and no fault of ours: "+body, func(t *testing.T) {
			t.Parallel()
			res, text := a.send(t, http.MethodPost, a.URL()+"/api/v1/check-in", nil, []byte(body))
			var out struct {
				Error struct {
					Code  fault.Code
					Field string
				}
			}
			if err := json.Unmarshal([]byte(text), &out); err != nil || res.StatusCode != http.StatusBadRequest || out.Error.Code != fault.Invalid || out.Error.Field != field {
				t.Errorf("answered %d %s, want INVALID of %q", res.StatusCode, text, field)
			}
		})
	}
}

func TestTestListURLs(t *testing.T) {
	t.Parallel()
	a := withLists(t, 3)
	get := func(t *testing.T, path string, want int) any {
		t.Helper()
		res, text := a.send(t, http.MethodGet, a.URL()+path, nil, nil)
		var out any
		if err := json.Unmarshal([]byte(text), &out); err != nil || res.StatusCode != want {
			t.Fatalf("%s answered %d %s", path, res.StatusCode, text)
		}
		return out
	}
	t.Run("the list that older probes ask for", func(t *testing.T) {
		t.Parallel()
		got := get(t, "/api/v1/test-list/urls?country_code=it&category_codes=news,ctrl&limit=1&debug=true", http.StatusOK)
		want := object{
			"metadata": object{"count": 1.0, "current_page": -1.0, "limit": -1.0, "next_url": "", "pages": 1.0},
			"results": []any{object{
				"category_code": "NEWS", "country_code": "IT", "url": "https://one.example/", "msmt_cnt": 0.0, "priority": 100.0, "weight": 1000.0,
			}},
		}
		if diff := cmp.Diff(any(want), got); diff != "" {
			t.Error(diff)
		}
		all := get(t, "/api/v1/test-list/urls?probe_cc=IT&limit=-1", http.StatusOK)
		if n := len(at(t, all, "results").([]any)); n != 5 {
			t.Errorf("%d URLs without a limit, want 5", n)
		}
	})
	for _, bad := range []string{"country_code=Italy", "limit=x", "limit=-2", "category_codes=N3WS", "country_code=IT%00", "probe_asn=x", "limit=1&limit=2"} {
		field, _, _ := strings.Cut(bad, "=")
		for _, path := range []string{"/api/v1/test-list/urls?", "/api/_/debug_prioritization?"} {
			if strings.Contains(path, "debug") && field == "country_code" { // not a parameter of that
				continue
			}
			if got := at(t, get(t, path+bad, http.StatusBadRequest), "error", "field"); got != field {
				t.Errorf("%s%s: the fault is of %v", path, bad, got)
			}
		}
	}
	t.Run("what the choice was made of", func(t *testing.T) {
		t.Parallel()
		got := get(t, "/api/_/debug_prioritization?probe_cc=IT&probe_asn=AS1", http.StatusOK)
		if n, m, k := len(at(t, got, "test_items").([]any)), len(at(t, got, "entries").([]any)), len(at(t, got, "prio_rules").([]any)); n != 5 || m != 5 || k != 31 {
			t.Errorf("%d items, %d entries, %d rules", n, m, k)
		}
	})
	t.Run("all lists with their priorities", func(t *testing.T) {
		t.Parallel()
		got, _ := get(t, "/api/_/show_countries_prioritization", http.StatusOK).([]any)
		want := object{
			"cc": "IT", "category_code": "NEWS", "domain": "one.example", "url": "https://one.example/", "msmt_cnt": 0.0, "anomaly_perc": 0.0, "priority": 100.0,
		}
		if len(got) != 5 || cmp.Diff(any(want), got[0]) != "" {
			t.Errorf("%v, want %v first", got, want)
		}
		res, text := a.send(t, http.MethodGet, a.URL()+"/api/_/show_countries_prioritization?format=CSV", nil, nil)
		if res.StatusCode != http.StatusOK || len(strings.Split(strings.TrimSpace(text), "\n")) != 6 {
			t.Errorf("as CSV: %d %s", res.StatusCode, text)
		}
		get(t, "/api/_/show_countries_prioritization?format=XML", http.StatusBadRequest)
	})
}

func TestListsArePaidFor(t *testing.T) {
	t.Parallel()
	const overview = "/api/_/show_countries_prioritization"
	routes := []struct {
		method, path, post string
		points             int
	}{
		{http.MethodPost, "/api/v1/check-in", "{}", 100},
		{http.MethodGet, "/api/v1/test-list/urls", "", 100},
		{http.MethodGet, "/api/_/debug_prioritization", "", 500},
		{http.MethodGet, overview, "", 3000},
		{http.MethodGet, overview + "?format=CSV", "", 3000},
	}
	left := 0
	for _, r := range routes {
		left += r.points
	}
	a := start(t, func(c *server.Config) { c.RatePublic = server.Rate{PerSecond: 0.01, Burst: float64(left)} })
	for _, r := range routes {
		left -= r.points
		res, text := a.send(t, r.method, a.URL()+r.path, nil, []byte(r.post))
		if res.StatusCode != http.StatusOK || res.Header.Get("X-Ratelimit-Remaining") != strconv.Itoa(left) {
			t.Errorf("%s answered %d %s, and %s points are left, want %d", r.path, res.StatusCode, text, res.Header.Get("X-Ratelimit-Remaining"), left)
		}
	}
	for _, r := range routes {
		res, text := a.send(t, r.method, a.URL()+r.path, nil, []byte(r.post))
		if res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "" || !strings.Contains(text, string(fault.RateLimited)) {
			t.Errorf("%s answered %d %v %s", r.path, res.StatusCode, res.Header, text)
		}
	}
}

func TestURLPriorities(t *testing.T) {
	t.Parallel()
	a := withLists(t, 3)
	staff := a.issue(t, access.Operator)
	const set = `mutation($in: SetUrlPriorityInput!) { setUrlPriority(input: $in) { urlPriority { id categoryCode country domain urlPattern priority } userErrors { code field } } }`
	const drop = `mutation($in: DeleteUrlPriorityInput!) { deleteUrlPriority(input: $in) { urlPriority { priority } userErrors { code field } } }`
	rule := func(priority int) object {
		return object{"country": "IT", "domain": "two.example:8080", "priority": priority}
	}
	wantFault(t, a.do(t, "", set, object{"in": object{"after": rule(5)}}), fault.Unauthenticated, "")
	wantFault(t, a.do(t, "", `{ urlPriorities(first: 1) { edges { cursor } } }`, nil), fault.Unauthenticated, "")

	made := a.ask(t, staff, set, object{"in": object{"after": rule(500), "idempotencyKey": "k"}})
	again := a.ask(t, staff, set, object{"in": object{"after": rule(500), "idempotencyKey": "k"}})
	if diff := cmp.Diff(made, again); diff != "" || fmt.Sprint(at(t, made, "setUrlPriority", "urlPriority", "priority")) != "500" {
		t.Errorf("%v\n%s", made, diff)
	}
	for _, c := range []struct {
		name, document string
		in             object
		code, field    string
	}{
		{"a second rule for the same URLs", set, object{"after": rule(7)}, "CONFLICT", "input.after"},
		{"a rule that changed meanwhile", set, object{"before": rule(1), "after": rule(7)}, "CONFLICT", "input.before.priority"},
		{"a rule that is not there", drop, object{"before": object{"categoryCode": "NEWS", "domain": "x", "priority": 1}}, "NOT_FOUND", "input.before"},
		{"no category", set, object{"after": object{"categoryCode": "X", "priority": 1}}, "INVALID", "input.after.categoryCode"},
	} {
		out := a.ask(t, staff, c.document, object{"in": c.in})
		field := "setUrlPriority"
		if c.document == drop {
			field = "deleteUrlPriority"
		}
		if got := at(t, out, field, "userErrors", 0); cmp.Diff(any(object{"code": c.code, "field": c.field}), got) != "" {
			t.Errorf("%s: %v, want %s of %s", c.name, got, c.code, c.field)
		}
	}
	first := func() any {
		out := a.ask(t, "", `{ checkIn(input: {country: IT, limit: 1}) { urls { url priority weight measuredLately categoryCode country } version { version entryCount lists { country entryCount } } } }`, nil)
		return at(t, out, "checkIn", "urls", 0, "url")
	}
	if got := first(); got != "http://two.example:8080/x?a=1&b=2" {
		t.Errorf("%v comes first, in spite of the rule", got)
	}
	a.ask(t, staff, set, object{"in": object{"before": rule(500), "after": rule(-500)}})
	if got := first(); got == "http://two.example:8080/x?a=1&b=2" {
		t.Errorf("%v is measured, in spite of the rule", got)
	}
	out := a.ask(t, staff, drop, object{"in": object{"before": rule(-500)}})
	if fmt.Sprint(at(t, out, "deleteUrlPriority", "urlPriority", "priority")) != "-500" {
		t.Error(out)
	}
	rows := 0
	if err := a.sql.QueryRow(t.Context(), "select count(*) from audit where action like 'urlPriority.%' and actor <> ''").Scan(&rows); err != nil || rows != 3 {
		t.Errorf("%d changes in the audit log, %v, want 3", rows, err)
	}

	lists := a.ask(t, "", `{ testList(country: IT) { version { version } entries(first: 1) { edges { cursor node { url domain categoryCode } } pageInfo { hasNextPage } } }
		none: testList(country: IT, version: 99) { country } testListVersions(first: 2) { edges { node { id version entryCount } } } }`, nil)
	if at(t, lists, "testList", "entries", "edges", 0, "node", "domain") != "two.example:8080" || lists["none"] != nil ||
		fmt.Sprint(at(t, lists, "testListVersions", "edges", 0, "node", "entryCount")) != "5" {
		t.Error(lists)
	}
}
