package ooniapi

import (
	"bytes"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	random "math/rand/v2"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/network"
	"github.com/openvantage/vantage/testlist"
)

// listRoutes serve what probes are to measure.
func (a *API) listRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /api/v1/check-in", a.checkIn)
	mux.HandleFunc("GET /api/v1/test-list/urls", a.testListURLs)
	mux.HandleFunc("GET /api/_/debug_prioritization", a.debugPrioritization)
	mux.HandleFunc("GET /api/_/show_countries_prioritization", a.showCountriesPrioritization)
}

// reportedTests are those for which a check-in opens a report.
//
// Source: the peer's check-in, 21 names.
var reportedTests = []string{
	"bridge_reachability", "dash", "dns_consistency", "dnscheck", "facebook_messenger", "http_header_field_manipulation", "http_host",
	"http_invalid_request_line", "http_requests", "meek_fronted_requests_test", "multi_protocol_traceroute", "ndt", "psiphon", "riseupvpn",
	"tcp_connect", "telegram", "tor", "urlgetter", "vanilla_tor", "web_connectivity", "whatsapp",
}

// How many URLs a probe is given: all of them when a person asked, few when it runs on a battery.
//
// Source: design/ooni-api.md, section 1.3.
const (
	urlsByHand   = 9999
	urlsCharging = 100
	urlsBattery  = 20
)

// maxCheckIn is the largest check-in; a real one has some 300 bytes.
const maxCheckIn = 64 << 10

// A checkInRequest is what a probe says of itself. What is missing or null has its default.
type checkInRequest struct {
	RunType         string        `json:"run_type"`
	ProbeCC         string        `json:"probe_cc"`
	ProbeASN        network.Text  `json:"probe_asn"`
	Charging        *bool         `json:"charging"`
	WebConnectivity categoryCodes `json:"web_connectivity"`
}

// mistyped is what encoding/json says of a field that reads itself; it puts the name in front.
func mistyped(field string) error {
	return &json.UnmarshalTypeError{Field: field, Value: "another type", Type: reflect.TypeFor[string]()}
}

// categoryCodes is {"category_codes": …}: an array, or a text with commas.
type categoryCodes []string

// UnmarshalJSON reads either form.
func (c *categoryCodes) UnmarshalJSON(b []byte) error {
	var in struct {
		Codes json.RawMessage `json:"category_codes"`
	}
	if json.Unmarshal(b, &in) != nil {
		return mistyped("category_codes")
	}
	if len(in.Codes) == 0 {
		return nil
	}
	var text string
	if json.Unmarshal(in.Codes, &text) == nil {
		*c = splitCodes(text)
		return nil
	}
	if json.Unmarshal(in.Codes, (*[]string)(c)) != nil {
		return mistyped("category_codes")
	}
	return nil
}

// splitCodes reads categories with commas between; no text is none.
func splitCodes(s string) (out []string) {
	for code := range strings.SplitSeq(s, ",") {
		if code = strings.TrimSpace(code); code != "" {
			out = append(out, code)
		}
	}
	return out
}

// upperCodes are the codes in upper case. It fails with INVALID unless they are letters; a category that does not
// exist has no URLs, for probes may know newer ones.
func upperCodes(field string, codes []string) ([]string, error) {
	out := make([]string, len(codes))
	for i, code := range codes {
		out[i] = strings.ToUpper(code)
		if out[i] == "" || strings.Trim(out[i], "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			return nil, fault.Field(field, "%.20q is no code of a category: those are letters.", code)
		}
	}
	return out, nil
}

// claimed reads what a caller says of where it is; nothing is ZZ and AS0.
func claimed(cc, asn string) (country.Code, network.ASN, error) {
	c := country.Code(strings.ToUpper(cmp.Or(cc, string(country.Unknown))))
	if len(c) != 2 || strings.Trim(string(c), "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return "", 0, fault.Field("probe_cc", "%.20q is no country, which is two letters.", cc)
	}
	a, err := network.Parse(cmp.Or(asn, "AS0"))
	if err != nil {
		return "", 0, fault.Of(err).At("probe_asn")
	}
	return c, a, nil
}

// A CheckIn is what a probe says of itself, to be told what to do.
type CheckIn struct {
	Country    country.Code // country.Unknown: not known
	ASN        network.ASN  // network.Unknown: not known
	Categories []string     // none: all
	ByHand     bool         // a person asked for it
	Battery    bool         // it runs on one
}

// Limit is how many URLs it is given.
func (c CheckIn) Limit() int {
	switch {
	case c.ByHand:
		return urlsByHand
	case c.Battery:
		return urlsBattery
	}
	return urlsCharging
}

// readCheckIn fails with INVALID, naming the field as the request spells it.
func readCheckIn(raw []byte) (in CheckIn, err error) {
	var r checkInRequest
	if len(bytes.TrimSpace(raw)) == 0 || bytes.TrimSpace(raw)[0] != '{' {
		return in, fault.New(fault.Invalid, "A check-in is a JSON object.")
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		f := fault.New(fault.Invalid, "The check-in is not JSON.")
		if typed := new(json.UnmarshalTypeError); errors.As(err, &typed) {
			f = fault.Field(typed.Field, "This field has another type.")
		}
		return in, f
	}
	if in.Country, in.ASN, err = claimed(r.ProbeCC, string(r.ProbeASN)); err != nil {
		return in, err
	}
	in.ByHand, in.Battery = r.RunType == "manual", r.Charging != nil && !*r.Charging
	in.Categories, err = upperCodes("web_connectivity.category_codes", r.WebConnectivity)
	return in, err
}

// A listedURL is a URL to measure as the peer writes it.
type listedURL struct {
	Category string `json:"category_code"`
	Country  string `json:"country_code"`
	URL      string `json:"url"`
	*reasons        // for those who ask why
}

// reasons put a URL into its place.
type reasons struct {
	Measured int64   `json:"msmt_cnt"`
	Priority int     `json:"priority"`
	Weight   float64 `json:"weight"`
}

// listed spells choices. The list of the world is that of XX, which is how the peer tells it from a probe
// that cannot be placed.
func listed(choices []testlist.Choice, why bool) []listedURL {
	out := make([]listedURL, len(choices))
	for i, c := range choices {
		out[i] = listedURL{Category: c.CategoryCode, Country: string(c.Country), URL: c.URL}
		if c.Country == testlist.Global {
			out[i].Country = "XX"
		}
		if why {
			out[i].reasons = &reasons{c.Measured, c.Priority, c.Weight}
		}
	}
	return out
}

// checkIn tells a probe what to measure, with which helpers, and where it seems to be.
func (a *API) checkIn(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCheckIn))
	if err != nil {
		a.Fail(w, r, http.StatusRequestEntityTooLarge, fault.New(fault.Invalid, "A check-in has at most %d bytes.", maxCheckIn))
		return
	}
	in, err := readCheckIn(raw)
	if err != nil {
		a.Fail(w, r, 0, err)
		return
	}
	seenIn, seenOn, name := a.Locate(r.Context())
	// What a probe says of itself stands: its address may be that of a circumvention tool.
	if in.Country == country.Unknown && in.ASN == network.Unknown {
		in.Country, in.ASN = seenIn, seenOn
	}
	choices := a.Flows.URLs(testlist.Question{
		Country: in.Country, Categories: in.Categories, Limit: in.Limit(), Seed: random.Uint64(),
	}, in.ASN)

	now := a.DB.Now()
	tests := make(map[string]any, len(reportedTests))
	for _, test := range reportedTests {
		id := a.reportID(now, test, in.Country, in.ASN)
		if test == "web_connectivity" {
			tests[test] = map[string]any{"report_id": id, "urls": listed(choices, false)}
		} else {
			tests[test] = map[string]any{"report_id": id}
		}
	}
	var called any // null where nobody knows
	if name != "" {
		called = name
	}
	answer(w, map[string]any{
		"v": 1, "probe_cc": seenIn, "probe_asn": seenOn.String(), "probe_network_name": called,
		"utc_time": now.Format("2006-01-02T15:04:05Z"), "tests": tests,
		"conf": map[string]any{"features": a.Services.Features, "test_helpers": a.Services.TestHelpers},
	})
}

// answer writes what is true at this moment for this caller.
func answer(w http.ResponseWriter, body any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(body) // the client is gone if this fails
}

// asked reads the parameters of a question about URLs.
func asked(r *http.Request, countryNames ...string) (q testlist.Question, n network.ASN, err error) {
	param := r.URL.Query().Get
	cc := ""
	for _, name := range countryNames {
		cc = cmp.Or(cc, param(name))
	}
	if q.Country, n, err = claimed(cc, param("probe_asn")); err != nil {
		return q, n, err
	}
	if q.Categories, err = upperCodes("category_codes", splitCodes(param("category_codes"))); err != nil {
		return q, n, err
	}
	q.Limit = urlsByHand
	if s := param("limit"); s != "" && s != "-1" {
		limit, err := strconv.Atoi(s)
		if err != nil || limit < 0 {
			return q, n, fault.Field("limit", "A limit is a number, 0 or more; -1 is none.")
		}
		q.Limit = min(limit, urlsByHand)
	}
	return q, n, nil
}

// testListURLs is what older probes ask instead of checking in.
func (a *API) testListURLs(w http.ResponseWriter, r *http.Request) {
	q, _, err := asked(r, "country_code", "probe_cc")
	if err != nil {
		a.Fail(w, r, 0, err)
		return
	}
	q.Seed = random.Uint64()
	why := slices.Contains([]string{"true", "1", "yes"}, strings.ToLower(r.URL.Query().Get("debug")))
	results := listed(a.Flows.URLs(q, network.Unknown), why)
	answer(w, map[string]any{
		"metadata": map[string]any{"count": len(results), "current_page": -1, "limit": -1, "next_url": "", "pages": 1},
		"results":  results,
	})
}

// A prioritised is a URL of a list with its priority, as the peer's editors of lists know it.
type prioritised struct {
	Category string `json:"category_code"`
	Domain   string `json:"domain"`
	URL      string `json:"url"`
	Country  string `json:"cc"`
	Measured int64  `json:"msmt_cnt"`
}

type prioRule struct {
	Category string       `json:"category_code"`
	Country  country.Code `json:"cc"`
	Domain   string       `json:"domain"`
	URL      string       `json:"url"`
	Priority int          `json:"priority"`
}

// debugPrioritization shows the choice for a probe with all that it was made of. Ties are in one order here.
func (a *API) debugPrioritization(w http.ResponseWriter, r *http.Request) {
	q, n, err := asked(r, "probe_cc")
	if err != nil {
		a.Fail(w, r, 0, err)
		return
	}
	_, entries, rules := a.Flows.TestLists()
	measured := a.Flows.Measured(q.Country, n)
	all, prio := []prioritised{}, []prioRule{}
	for _, e := range entries {
		if e.Country == q.Country || e.Country == testlist.Global {
			all = append(all, prioritised{e.CategoryCode, e.Domain(), e.URL, string(e.Country), measured(e.URL)})
		}
	}
	for _, rule := range rules {
		if rule.Country == testlist.Any || rule.Country == q.Country || rule.Country == testlist.Global {
			prio = append(prio, prioRule{rule.CategoryCode, rule.Country, rule.Domain, rule.URL, rule.Priority})
		}
	}
	answer(w, map[string]any{"test_items": listed(a.Flows.URLs(q, n), true), "entries": all, "prio_rules": prio})
}

// An overview is of all lists, as of a time.
type overview struct {
	mu   sync.Mutex
	at   time.Time
	rows []overviewRow
}

type overviewRow struct {
	prioritised
	AnomalyPercent int64 `json:"anomaly_perc"`
	Priority       int   `json:"priority"`
}

// overviewFor is how old an overview may be: it reads a week of measurements.
const overviewFor = 10 * time.Minute

func (a *API) overviewRows(ctx context.Context) ([]overviewRow, error) {
	o := &a.overview
	o.mu.Lock() // whoever comes meanwhile waits for the same answer
	defer o.mu.Unlock()
	now := a.DB.Now()
	if o.rows != nil && now.Sub(o.at) < overviewFor {
		return o.rows, nil
	}
	version, entries, rules := a.Flows.TestLists()
	weeks, err := a.DB.URLWeeks(ctx, version.Version, now.AddDate(0, 0, -7), now)
	if err != nil {
		return nil, err
	}
	type key struct {
		country country.Code
		url     string
	}
	rows, at := make([]overviewRow, len(entries)), make(map[key]*overviewRow, len(weeks))
	for i, e := range entries {
		rows[i] = overviewRow{
			prioritised: prioritised{e.CategoryCode, e.Domain(), e.URL, string(e.Country), 0}, Priority: testlist.Priority(e, rules),
		}
		at[key{e.Country, e.URL}] = &rows[i]
	}
	for _, week := range weeks {
		if row := at[key{week.Country, week.URL}]; row != nil {
			row.Measured, row.AnomalyPercent = week.Count, week.Anomaly*100/week.Count
		}
	}
	slices.SortStableFunc(rows, func(x, y overviewRow) int {
		return cmp.Or(cmp.Compare(x.Country, y.Country), cmp.Compare(y.Priority, x.Priority))
	})
	o.rows, o.at = rows, now
	return rows, nil
}

// showCountriesPrioritization lists every URL of every list with its priority and what was measured in a week.
func (a *API) showCountriesPrioritization(w http.ResponseWriter, r *http.Request) {
	format := strings.ToUpper(cmp.Or(r.URL.Query().Get("format"), "JSON"))
	if format != "JSON" && format != "CSV" {
		a.Fail(w, r, 0, fault.Field("format", "The formats are JSON and CSV."))
		return
	}
	rows, err := a.overviewRows(r.Context())
	if err != nil {
		a.Fail(w, r, 0, err)
		return
	}
	if format == "JSON" {
		answer(w, rows)
		return
	}
	w.Header().Set("Content-Type", "text/csv")
	w.Header().Set("Cache-Control", "no-store")
	out := csv.NewWriter(w)
	_ = out.Write([]string{"category_code", "domain", "url", "cc", "msmt_cnt", "anomaly_perc", "priority"}) // Flush would tell
	for _, x := range rows {
		_ = out.Write([]string{
			x.Category, x.Domain, x.URL, x.Country, strconv.FormatInt(x.Measured, 10), strconv.FormatInt(x.AnomalyPercent, 10), strconv.Itoa(x.Priority),
		})
	}
	out.Flush() // the client is gone if this fails
}
