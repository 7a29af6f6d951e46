package server_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/server"
	"github.com/openvantage/vantage/service"
	"github.com/openvantage/vantage/testlist"
)

// A listed is an answer of the REST listing.
type listed struct {
	Metadata struct {
		Count       *int64
		CurrentPage int      `json:"current_page"`
		Ignored     []string `json:"ignored_parameters"`
		Limit       int
		NextURL     *string `json:"next_url"`
		Offset      int
		Pages       *int64
	}
	Results []object
	header  http.Header
}

// get asks a REST path and decodes what must be an answer.
func (a *api) get(t *testing.T, address string, into any) http.Header {
	t.Helper()
	if strings.HasPrefix(address, "/") {
		address = a.URL() + address
	}
	res, text := a.send(t, http.MethodGet, address, nil, nil)
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%s answered %d %s", address, res.StatusCode, text)
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%s answered %s: %v", address, text, err)
	}
	return res.Header
}

func (a *api) listing(t *testing.T, address string) (l listed) {
	t.Helper()
	l.header = a.get(t, address, &l)
	return l
}

func (l listed) uids() []string {
	out := []string{}
	for _, r := range l.Results {
		out = append(out, r["measurement_uid"].(string))
	}
	return out
}

// refused is the fault that a REST path answers with.
func (a *api) refused(t *testing.T, path string) (status int, code fault.Code, field string) {
	t.Helper()
	res, text := a.send(t, http.MethodGet, a.URL()+path, nil, nil)
	var f struct {
		Msg   string
		Error struct {
			Code           fault.Code
			Message, Field string
		}
	}
	if err := json.Unmarshal([]byte(text), &f); err != nil || f.Msg == "" || f.Msg != f.Error.Message {
		t.Fatalf("%s answered %d %s", path, res.StatusCode, text)
	}
	return res.StatusCode, f.Error.Code, f.Error.Field
}

const listPath = "/api/v1/measurements"

func TestMeasurementListing(t *testing.T) {
	t.Parallel()
	a := start(t)
	const report = "20261121T000000Z_webconnectivity_IT_30722_n1_abcdefghijklmnop"
	web := func(change object) string {
		o := object{
			"report_id": report, "test_name": "web_connectivity", "input": "https://www.example.org/a", "test_version": "0.4.0",
			"test_keys": object{"accessible": false, "blocking": "dns"},
		}
		for k, v := range change {
			o[k] = v
		}
		return body(o)
	}
	submitted := map[string]string{}
	for name, content := range map[string]string{
		"telegram": body(nil),
		"web":      web(nil),
		"shop":     web(object{"input": "https://shop.example.com:8443/", "probe_cc": "FR", "probe_asn": "AS3215"}),
		"ok": web(object{
			"input": "https://www.example.org/b", "test_keys": object{"accessible": true, "blocking": false}, "software_version": "2.0",
			"annotations": object{"engine_version": "9.9", "ooni_run_link_id": "10042"},
		}),
		"failed": web(object{"input": "https://www.example.org/c", "test_keys": object{"accessible": nil, "blocking": nil}, "test_version": "0.5.0"}),
		"old":    body(object{"measurement_start_time": time.Now().UTC().AddDate(0, 0, -40).Format(time.DateTime)}),
		"nobody": body(object{"probe_cc": "ZZ"}),
	} {
		out := a.submit(t, "", content)
		if m, ok := out["measurement"].(object); ok {
			submitted[name] = str(t, m, "uid")
		}
	}
	entry := func(c country.Code, url, category string) testlist.Entry {
		return testlist.Entry{Country: c, URL: url, CategoryCode: category}
	}
	for _, lists := range [][]testlist.Entry{ // the first are no longer in use
		{entry("IT", "https://www.example.org/a", "GMB"), entry("IT", "https://www.example.org/b", "GMB")},
		{
			entry("IT", "https://www.example.org/a", "NEWS"), entry("FR", "https://www.example.org/c", "NEWS"),
			entry("FR", "https://shop.example.com:8443/", "CTRL"), entry(testlist.Global, "https://shop.example.com:8443/", "COMM"),
			entry(testlist.Global, "https://www.example.org/b", "HUMR"), entry("IT", "https://shop.example.com:8443/", "ECON"),
		},
	} {
		if _, _, err := service.ImportTestLists(t.Context(), a.DB(), "test", lists, true, true); err != nil {
			t.Fatal(err)
		}
	}
	named := func(uids []string) []string {
		out := []string{}
		for name, uid := range submitted {
			if slices.Contains(uids, uid) {
				out = append(out, name)
			}
		}
		slices.Sort(out)
		return out
	}

	tomorrow := time.Now().UTC().AddDate(0, 0, 1).Format(time.DateOnly)
	ago := func(days int) string { return time.Now().UTC().AddDate(0, 0, -days).Format(time.DateOnly) }
	for query, want := range map[string]string{
		"":                             "failed ok shop telegram web",
		"since=" + ago(41):             "failed ok old shop telegram web",
		"until=" + ago(39):             "old",
		"since=" + tomorrow:            "",
		"probe_cc=IT":                  "failed ok telegram web",
		"probe_cc=it,FR":               "failed ok shop telegram web",
		"probe_cc=ZZ":                  "",
		"probe_cc=,":                   "",
		"probe_asn=AS0":                "",
		"probe_asn=3215":               "shop",
		"probe_asn=AS3215,AS30722":     "failed ok shop telegram web",
		"test_name=telegram":           "telegram",
		"test_name=telegram,signal":    "telegram",
		"domain=shop.example.com:8443": "shop",
		"domain=www.example.org,x":     "failed ok web",
		"domain=www.example.org'%3B--": "",
		"input=" + url.QueryEscape("https://www.example.org/b"):                                  "ok",
		"input=" + url.QueryEscape("https://www.example.org/b") + "&domain=x&category_code=NEWS": "ok",
		"input=" + url.QueryEscape("https://www.example.org/' or 1=1"):                           "",
		"category_code=NEWS":                        "web",
		"category_code=NEWS&probe_cc=FR":            "",
		"category_code=humr,NEWS":                   "ok web",
		"category_code=COMM":                        "shop",
		"category_code=CTRL":                        "shop",
		"category_code=CTRL,COMM,ECON":              "shop",
		"category_code=ECON":                        "",
		"category_code=GMB":                         "",
		"category_code=,":                           "",
		"category_code=HUMR&report_id=" + report:    "ok",
		"anomaly=true":                              "shop telegram web",
		"anomaly=true&probe_cc=FR":                  "shop",
		"anomaly=false&failure=false":               "ok",
		"failure=true":                              "failed",
		"failure=1":                                 "failed",
		"confirmed=true":                            "",
		"confirmed=&probe_cc=FR":                    "shop",
		"software_version=2.0,3":                    "ok",
		"test_version=0.5.0":                        "failed",
		"engine_version=9.9":                        "ok",
		"ooni_run_link_id=10042":                    "ok",
		"report_id=" + report:                       "failed ok shop web",
		"report_id=nowhere":                         "",
		"report_id=" + report + "&until=" + ago(39): "",
		"prob_cc=FR":                                "failed ok shop telegram web",
	} {
		l := a.listing(t, listPath+"?"+query)
		if got := strings.Join(named(l.uids()), " "); got != want || *l.Metadata.Count != int64(len(l.Results)) || l.Metadata.NextURL != nil {
			t.Errorf("%s: %s (%d), want %s", query, got, *l.Metadata.Count, want)
		}
	}

	t.Run("a row is as the established network's", func(t *testing.T) {
		t.Parallel()
		l := a.listing(t, listPath+"?input="+url.QueryEscape("https://www.example.org/a"))
		row := l.Results[0]
		scores := row["scores"].(object)
		equal(t, scores["blocking_general"], any(1.0))
		equal(t, scores["analysis"], any(object{"blocking_type": "dns"}))
		began, err := time.Parse("2006-01-02T15:04:05Z", row["measurement_start_time"].(string))
		if err != nil || began.Before(bodiesBegan) {
			t.Error(row["measurement_start_time"])
		}
		delete(row, "scores")
		delete(row, "measurement_start_time")
		equal(t, row, object{
			"anomaly": true, "confirmed": false, "failure": false, "input": "https://www.example.org/a", "measurement_uid": submitted["web"],
			"measurement_url": a.URL() + "/api/v1/raw_measurement?measurement_uid=" + submitted["web"], "probe_asn": "AS30722",
			"probe_cc": "IT", "report_id": report, "test_name": "web_connectivity", "verification_status": "unverified",
		})
		equal(t, l.header.Get("Cache-Control"), "public, max-age=60")
		equal(t, l.header.Get("Access-Control-Allow-Origin"), "*")
		l = a.listing(t, listPath+"?test_name=telegram")
		if in, ok := l.Results[0]["input"]; in != nil || !ok {
			t.Error("the input is", in)
		}
	})

	t.Run("the meta data have the category, of the country's own list first", func(t *testing.T) {
		t.Parallel()
		for name, want := range map[string]any{"web": "NEWS", "ok": "HUMR", "shop": "CTRL", "failed": nil, "telegram": nil} {
			var meta object
			a.get(t, "/api/v1/measurement_meta?measurement_uid="+submitted[name], &meta)
			if got, ok := meta["category_code"]; got != want || !ok {
				t.Errorf("%s has the category %v, want %v", name, got, want)
			}
		}
	})

	t.Run("a category goes with the list from page to page", func(t *testing.T) {
		t.Parallel()
		first := a.listing(t, listPath+"?category_code=NEWS,HUMR,CTRL&limit=2")
		second := a.listing(t, *first.Metadata.NextURL)
		equal(t, named(append(first.uids(), second.uids()...)), []string{"ok", "shop", "web"})
		equal(t, []any{*first.Metadata.Count, second.Metadata.NextURL == nil}, []any{int64(3), true})
	})

	t.Run("since is excluded and until is not", func(t *testing.T) {
		t.Parallel()
		at := a.listing(t, listPath+"?test_name=telegram").Results[0]["measurement_start_time"].(string)
		before := "2000-01-01"
		equal(t, named(a.listing(t, listPath+"?test_name=telegram&since="+at).uids()), []string{})
		equal(t, named(a.listing(t, listPath+"?test_name=telegram&since="+before+"&until="+at).uids()), []string{"old", "telegram"})
	})

	t.Run("it is sorted as is asked", func(t *testing.T) {
		t.Parallel()
		for by, key := range map[string]func(object) string{
			"measurement_start_time": func(r object) string { return r["measurement_start_time"].(string) },
			"probe_cc":               func(r object) string { return r["probe_cc"].(string) },
			"test_name":              func(r object) string { return r["test_name"].(string) },
			"input":                  func(r object) string { s, _ := r["input"].(string); return s },
			"probe_asn":              func(r object) string { return fmt.Sprintf("%12s", r["probe_asn"]) },
		} {
			for _, order := range []string{"asc", "desc"} {
				var keys []string
				var uids []string
				for next := listPath + "?limit=2&order=" + order + "&order_by=" + by; ; {
					l := a.listing(t, next)
					for _, r := range l.Results {
						keys = append(keys, key(r))
					}
					uids = append(uids, l.uids()...)
					if l.Metadata.NextURL == nil {
						break
					}
					next = *l.Metadata.NextURL
				}
				sorted := slices.Sorted(slices.Values(keys))
				if order == "desc" {
					slices.Reverse(sorted)
				}
				equal(t, keys, sorted)
				equal(t, named(uids), []string{"failed", "ok", "shop", "telegram", "web"})
			}
		}
	})

	t.Run("an old Android probe gets a row where there is none", func(t *testing.T) {
		t.Parallel()
		ask := func(query string) (l listed) {
			_, text := a.send(t, http.MethodGet, a.URL()+listPath+query, http.Header{"User-Agent": {"okhttp/3.14"}}, nil)
			if err := json.Unmarshal([]byte(text), &l); err != nil {
				t.Fatal(text)
			}
			return l
		}
		equal(t, ask("?report_id=nowhere").Results, []object{{"measurement_url": ""}})
		equal(t, len(ask("?report_id="+report).Results), 4)
		equal(t, len(ask("?probe_cc=DE").Results), 0)
	})

	t.Run("a limit of 0 counts", func(t *testing.T) {
		t.Parallel()
		l := a.listing(t, listPath+"?limit=0")
		if len(l.Results) != 0 || *l.Metadata.Count != 5 || *l.Metadata.Pages != 0 || l.Metadata.NextURL != nil {
			t.Error(l)
		}
	})

	t.Run("an offset is taken, and leads to a place", func(t *testing.T) {
		t.Parallel()
		whole := a.listing(t, listPath).uids()
		l := a.listing(t, listPath+"?limit=2&offset=2")
		equal(t, l.uids(), whole[2:4])
		if m := l.Metadata; *m.Count != 5 || *m.Pages != 3 || m.CurrentPage != 2 || m.Offset != 2 {
			t.Error(m)
		}
		if strings.Contains(*l.Metadata.NextURL, "offset") {
			t.Error(*l.Metadata.NextURL)
		}
		last := a.listing(t, *l.Metadata.NextURL)
		equal(t, last.uids(), whole[4:])
		if m := last.Metadata; *m.Count != 5 || *m.Pages != 3 || m.CurrentPage != 3 || m.Offset != 4 || m.NextURL != nil {
			t.Error(m)
		}
		beyond := a.listing(t, listPath+"?limit=2&offset=10000")
		if len(beyond.Results) != 0 || *beyond.Metadata.Count != 5 {
			t.Error(beyond)
		}
	})

	t.Run("unknown parameters are named", func(t *testing.T) {
		t.Parallel()
		equal(t, a.listing(t, listPath+"?prob_cc=IT&_=1&limit=1").Metadata.Ignored, []string{"_", "prob_cc"})
	})

	t.Run("a place of another list is refused", func(t *testing.T) {
		t.Parallel()
		next := strings.TrimPrefix(*a.listing(t, listPath+"?limit=1&probe_cc=IT").Metadata.NextURL, a.URL())
		for _, change := range []string{
			strings.Replace(next, "probe_cc=IT", "probe_cc=FR", 1), strings.Replace(next, "until=2", "until=3", 1),
			next + "&order=asc", next + "&failure=true", strings.Replace(next, "after=", "after=x", 1), listPath + "?after=e30", listPath + "?after=!!",
		} {
			if status, code, field := a.refused(t, change); status != http.StatusBadRequest || code != fault.Invalid || field != "after" {
				t.Errorf("%s: %d %s %s", change, status, code, field)
			}
		}
		equal(t, len(a.listing(t, strings.Replace(next, "limit=1", "limit=9", 1)).Results), 3)
	})
}

func TestMeasurementListingRefuses(t *testing.T) {
	t.Parallel()
	a := start(t)
	long := strings.TrimSuffix(strings.Repeat("IT,", 101), ",")
	for query, field := range map[string]string{
		"limit=-1": "limit", "limit=1001": "limit", "limit=99999999999999999999": "limit", "limit=ten": "limit", "limit=1.5": "limit", "limit=0x10": "limit",
		"offset=-1": "offset", "offset=10001": "offset", "offset=9616800": "offset", "offset=a": "offset", "limit=1&limit=2": "limit",
		"since=yesterday": "since", "since=2026-02-30": "since", "until=2026-13-01": "until", "until=20260101": "until", "since=-1": "since",
		"since=2026-03-02&until=2026-03-01": "since", "since=2099-01-01": "since", "since=infinity": "since", "until=10000-01-01": "until",
		"probe_cc=ITA": "probe_cc", "probe_cc=1T": "probe_cc", "probe_cc=IT'--": "probe_cc", "probe_cc=%C3%A9": "probe_cc", "probe_cc=%C4%B1%C4%B1": "probe_cc", "probe_cc=" + long: "probe_cc",
		"probe_cc=IT&probe_cc=FR": "probe_cc", "probe_asn=AS": "probe_asn", "probe_asn=-1": "probe_asn", "probe_asn=4294967296": "probe_asn",
		"probe_asn=1;drop": "", "probe_asn=1%3Bdrop": "probe_asn", "test_name=a'%20or%20'1'='1": "test_name", "test_name=" + strings.Repeat("a", 101): "test_name",
		"anomaly=maybe": "anomaly", "confirmed=2": "confirmed", "failure=null": "failure", "ooni_run_link_id=x": "ooni_run_link_id",
		"ooni_run_link_id=-1": "ooni_run_link_id", "order=up": "order", "order_by=uid": "order_by", "order_by=1;select": "", "order_by=scores": "order_by",
		"category_code=NOPE": "category_code", "category_code=N3WS": "category_code", "category_code=NEWS,XYZ": "category_code",
		"category_code=NEWS'--": "category_code", "report_id=ab": "report_id", "input=x": "input", "input=%00abc": "input", "domain=%ff": "domain",
		"after=%00": "after", "x=%zz": "", "report_id=abc%00": "report_id",
	} {
		if status, code, got := a.refused(t, listPath+"?"+query); status != http.StatusBadRequest || code != fault.Invalid || got != field {
			t.Errorf("%s: %d %s %q, want %q", query, status, code, got, field)
		}
	}
}

func TestMeasurementListingInPages(t *testing.T) {
	t.Parallel()
	a := start(t)
	instant := time.Now().UTC().Add(-time.Hour).Format(time.DateTime)
	for i := range 17 {
		change := object{"probe_cc": []string{"IT", "FR"}[i%2]}
		if i%3 > 0 {
			change["measurement_start_time"] = instant // many at one instant, so that the uid must decide
		}
		a.submit(t, "", body(change))
	}
	budget := 60 // new ones in all, so that lists stay short
	rapid.Check(t, func(rt *rapid.T) {
		query := rapid.SampledFrom([]string{"order=desc", "order=asc", "order_by=probe_cc", "probe_cc=IT", "test_name=telegram&order=asc&anomaly=true"}).Draw(rt, "query")
		there := a.listing(t, listPath+"?limit=1000&"+query).uids()
		limit := rapid.IntRange(3, 12).Draw(rt, "limit")
		var met []string
		for next, page := listPath+"?limit="+strconv.Itoa(limit)+"&"+query, 1; ; page++ {
			l := a.listing(t, next)
			met = append(met, l.uids()...)
			if m := l.Metadata; m.Count == nil || *m.Count != int64(len(there)) || m.CurrentPage != page || *m.Pages != int64((len(there)+limit-1)/limit) {
				rt.Fatalf("page %d of %d measurements: %+v", page, len(there), m)
			}
			if l.Metadata.NextURL == nil {
				break
			}
			next = *l.Metadata.NextURL
			for range rapid.IntRange(0, 2).Draw(rt, "new") {
				if budget--; budget < 0 {
					break
				}
				// Before, at and behind where the walk is.
				started := rapid.SampledFrom([]string{instant, startedAt(-1000).Format(time.DateTime), time.Now().UTC().Format(time.DateTime)}).Draw(rt, "start")
				a.submit(t, "", body(object{"measurement_start_time": started, "probe_cc": rapid.SampledFrom([]string{"AD", "IT", "ZW"}).Draw(rt, "country")}))
			}
		}
		if len(met) != len(distinct(met)) {
			rt.Fatalf("%s: %d measurements, %d of them distinct", query, len(met), len(distinct(met)))
		}
		old := slices.DeleteFunc(slices.Clone(met), func(uid string) bool { return !slices.Contains(there, uid) })
		if !slices.Equal(old, there) {
			rt.Fatalf("%s: what was there is met as %v, want %v", query, old, there)
		}
	})
}

func TestMeasurementListingIsPaidFor(t *testing.T) {
	t.Parallel()
	a := start(t, func(c *server.Config) { c.RatePublic = server.Rate{PerSecond: 0.01, Burst: 100} })
	if left := a.listing(t, listPath+"?limit=50").header.Get("X-Ratelimit-Remaining"); left != "40" {
		t.Error(left, "points are left")
	}
	if status, code, _ := a.refused(t, listPath+"?limit=50"); status != http.StatusTooManyRequests || code != fault.RateLimited {
		t.Error(status, code)
	}
	// A list without rows still costs 10, so 20 points are left for one body.
	res, _ := a.send(t, http.MethodGet, a.URL()+"/api/v1/measurement/x", nil, nil)
	equal(t, res.StatusCode, http.StatusNotFound)
	for _, path := range []string{"/api/v1/measurement/x", "/api/v1/raw_measurement?measurement_uid=x", "/api/v1/measurement_meta?measurement_uid=x"} {
		res, _ := a.send(t, http.MethodGet, a.URL()+path, nil, nil)
		if res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "" {
			t.Error(path, res.StatusCode, res.Header)
		}
	}
}

func TestMeasurementListingTooLongToCount(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.submit(t, "", body(nil))
	tx, err := a.sql.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "lock table measurement in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	null := object{
		"count": nil, "pages": nil, "current_page": 1.0, "limit": 0.0, "next_url": nil, "offset": 0.0, "query_time": nil,
		"count_problem": "There are too many to count in time. Narrow the query, or follow next_url to its end.",
	}
	for range 2 { // the second is not tried
		var l object
		a.get(t, listPath+"?limit=0&probe_cc=IT", &l)
		meta := l["metadata"].(object)
		meta["query_time"] = nil
		equal(t, meta, null)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l := a.listing(t, listPath+"?limit=0&probe_cc=IT"); l.Metadata.Count != nil {
		t.Error("what took too long was counted again at once")
	}
	if l := a.listing(t, listPath+"?limit=0&probe_cc=IT,FR"); *l.Metadata.Count != 1 {
		t.Error("another query has the count", *l.Metadata.Count)
	}
}

func TestMeasurementBodies(t *testing.T) {
	t.Parallel()
	a := start(t)
	const report = "20261121T000000Z_telegram_IT_30722_n1_abcdefghijklmnop"
	var uids, contents []string
	for range 2 { // of one report, with the same input
		contents = append(contents, body(object{"report_id": report, "input": "https://example.org/"}))
		uids = append(uids, str(t, a.submit(t, "", contents[len(contents)-1]), "measurement", "uid"))
	}
	named := "report_id=" + report + "&input=" + url.QueryEscape("https://example.org/")

	t.Run("each is found by its uid, byte for byte", func(t *testing.T) {
		t.Parallel()
		for i, uid := range uids {
			sum := sha256.Sum256([]byte(contents[i]))
			tag := `"` + hex.EncodeToString(sum[:]) + `"`
			for path, age := range map[string]string{"/api/v1/raw_measurement?measurement_uid=" + uid: "86400", "/api/v1/measurement/" + uid: "3600"} {
				res, text := a.send(t, http.MethodGet, a.URL()+path, nil, nil)
				equal(t, text, contents[i])
				equal(t, []string{res.Header.Get("ETag"), res.Header.Get("Cache-Control")}, []string{tag, "public, max-age=" + age})
				res, text = a.send(t, http.MethodHead, a.URL()+path, nil, nil)
				equal(t, []any{res.StatusCode, text, res.Header.Get("ETag"), res.ContentLength}, []any{200, "", tag, int64(len(contents[i]))})
				res, text = a.send(t, http.MethodGet, a.URL()+path, http.Header{"If-None-Match": {tag}}, nil)
				equal(t, []any{res.StatusCode, text}, []any{304, ""})
				res, _ = a.send(t, http.MethodGet, a.URL()+path, http.Header{"If-None-Match": {`"x"`}}, nil)
				equal(t, res.StatusCode, 200)
			}
		}
	})

	t.Run("of several the first is found by report and input, and a link leads to all", func(t *testing.T) {
		t.Parallel()
		res, text := a.send(t, http.MethodGet, a.URL()+"/api/v1/raw_measurement?"+named, nil, nil)
		equal(t, text, contents[0])
		link, _, _ := strings.Cut(strings.TrimPrefix(res.Header.Get("Link"), "<"), ">")
		got := a.listing(t, link).uids()
		slices.Sort(got)
		equal(t, got, slices.Sorted(slices.Values(uids)))
		var meta object
		header := a.get(t, "/api/v1/measurement_meta?"+named, &meta)
		equal(t, []any{meta["measurement_uid"], header.Get("Link")}, []any{uids[0], res.Header.Get("Link")})
	})

	t.Run("the meta data are as the established network's", func(t *testing.T) {
		t.Parallel()
		var meta, full object
		header := a.get(t, "/api/v1/measurement_meta?measurement_uid="+uids[1], &meta)
		equal(t, []string{header.Get("Link"), header.Get("Cache-Control")}, []string{"", "public, max-age=60"})
		a.get(t, "/api/v1/measurement_meta?full=true&measurement_uid="+uids[1], &full)
		equal(t, full["raw_measurement"], any(contents[1]))
		delete(full, "raw_measurement")
		equal(t, full, meta)
		var scores object
		if err := json.Unmarshal([]byte(meta["scores"].(string)), &scores); err != nil || scores["blocking_general"] == nil {
			t.Error(meta["scores"], err)
		}
		for _, name := range []string{"scores", "measurement_start_time"} {
			delete(meta, name)
		}
		equal(t, meta, object{
			"anomaly": true, "category_code": nil, "confirmed": false, "failure": false, "input": "https://example.org/", "measurement_uid": uids[1],
			"probe_asn": 30722.0, "probe_cc": "IT", "report_id": report, "test_name": "telegram",
			"test_start_time": startedAt(0).Format("2006-01-02T15:04:05Z"), "verification_status": "unverified",
		})
	})

	t.Run("what is not there is an empty object of meta data, as pages want it, and else not found", func(t *testing.T) {
		t.Parallel()
		for _, which := range []string{"measurement_uid=x", "measurement_uid=20261121000000.000000_IT_telegram_0000000000000000", "report_id=nowhere", "report_id=" + report} {
			var got object
			a.get(t, "/api/v1/measurement_meta?"+which, &got)
			equal(t, got, object{})
			a.get(t, "/api/v1/measurement_meta?full=true&"+which, &got)
			equal(t, got, object{"raw_measurement": ""})
			if status, code, _ := a.refused(t, "/api/v1/raw_measurement?"+which); status != 404 || code != fault.NotFound {
				t.Errorf("%s: %d %s", which, status, code)
			}
		}
		for _, path := range []string{"x", "x?download=true", "20261121000000.000000_IT_telegram_0000000000000000?download=true", "%00", "%ff%22"} {
			if status, code, _ := a.refused(t, "/api/v1/measurement/"+path); status != 404 || code != fault.NotFound {
				t.Errorf("%s: %d %s", path, status, code)
			}
		}
	})

	t.Run("a download is a file", func(t *testing.T) {
		t.Parallel()
		res, text := a.send(t, http.MethodGet, a.URL()+"/api/v1/measurement/"+uids[0]+"?download=true", nil, nil)
		equal(t, []string{text, res.Header.Get("Content-Disposition")}, []string{contents[0], `attachment; filename="measurement-` + uids[0] + `.json"`})
		res, _ = a.send(t, http.MethodGet, a.URL()+"/api/v1/measurement/"+uids[0]+"?download=false", nil, nil)
		equal(t, res.Header.Get("Content-Disposition"), "")
	})

	t.Run("bad input names its field", func(t *testing.T) {
		t.Parallel()
		for path, field := range map[string]string{
			"measurement_meta": "measurement_uid", "measurement_meta?input=https://example.org/": "measurement_uid", "raw_measurement?input=x": "measurement_uid",
			"measurement_meta?measurement_uid=x&full=perhaps": "full", "raw_measurement?measurement_uid=x&measurement_uid=y": "measurement_uid",
			"raw_measurement?report_id=abc%00": "report_id", "raw_measurement?report_id=abc&input=%ff": "input", "measurement/x?download=7": "download",
			"measurement_meta?report_id=ab": "report_id", "raw_measurement?measurement_uid=x%ff": "measurement_uid",
		} {
			if status, code, got := a.refused(t, "/api/v1/"+path); status != 400 || code != fault.Invalid || got != field {
				t.Errorf("%s: %d %s %q", path, status, code, got)
			}
		}
	})
}
