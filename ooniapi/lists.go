package ooniapi

import (
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	random "math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/network"
	"github.com/openvantage/vantage/testlist"
)

// Prices in points of some 10 µs: of a choice, of all that it was made of, and of writing all lists.
const (
	choicePrice   = 100
	reasonsPrice  = 500
	overviewPrice = 3000
)

// listRoutes serve what probes are to measure.
func (a *API) listRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /api/v1/check-in", a.answer(choicePrice, maxSmall, a.checkIn))
	mux.HandleFunc("GET /api/v1/test-list/urls", a.answer(choicePrice, maxSmall, a.testListURLs))
	mux.HandleFunc("GET /api/_/debug_prioritization", a.answer(reasonsPrice, maxSmall, a.debugPrioritization))
	mux.HandleFunc("GET /api/_/show_countries_prioritization", a.route(overviewPrice, maxSmall, a.showCountriesPrioritization))
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

// categoryCodes are an array, or a text with commas.
type categoryCodes []string

// UnmarshalJSON reads either form.
func (c *categoryCodes) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) == nil {
		*c = split(text)
		return nil
	}
	return json.Unmarshal(b, (*[]string)(c))
}

// readCheckIn fails with INVALID, naming the field as the request spells it. What is missing or null has its default.
func readCheckIn(r *http.Request) (CheckIn, error) {
	var in struct {
		RunType         string       `json:"run_type"`
		ProbeCC         string       `json:"probe_cc"`
		ProbeASN        network.Text `json:"probe_asn"`
		Charging        *bool        `json:"charging"`
		WebConnectivity struct {
			CategoryCodes categoryCodes `json:"category_codes"`
		} `json:"web_connectivity"`
	}
	if err := decode(r, &in); err != nil {
		return CheckIn{}, err
	}
	var p params
	out := CheckIn{
		Country: p.country("probe_cc", in.ProbeCC), ASN: p.network("probe_asn", string(in.ProbeASN)),
		Categories: p.categories("web_connectivity.category_codes", in.WebConnectivity.CategoryCodes),
		ByHand:     in.RunType == "manual", Battery: in.Charging != nil && !*in.Charging,
	}
	return out, p.err
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
func (a *API) checkIn(r *http.Request) (any, error) {
	in, err := readCheckIn(r)
	if err != nil {
		return nil, err
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
	return map[string]any{
		"v": 1, "probe_cc": seenIn, "probe_asn": seenOn.String(), "probe_network_name": called,
		"utc_time": now.Format("2006-01-02T15:04:05Z"), "tests": tests,
		"conf": map[string]any{"features": a.Services.Features, "test_helpers": a.Services.TestHelpers},
	}, nil
}

// asked reads the parameters of a question about URLs; the country is the first of those named that is given.
func asked(r *http.Request, countryNames ...string) (q testlist.Question, n network.ASN, why bool, err error) {
	p := paramsOf(r, append(countryNames, "probe_asn", "category_codes", "limit", "debug")...)
	q.Country = country.Unknown
	for _, name := range countryNames {
		if cc := p.text(name, 0); cc != "" {
			q.Country = p.country(name, cc)
			break
		}
	}
	n = p.network("probe_asn", p.text("probe_asn", 0))
	q.Categories = p.categories("category_codes", p.list("category_codes"))
	q.Limit = urlsByHand
	if limit := p.number("limit", -1, 1<<62); limit != nil && *limit >= 0 {
		q.Limit = int(min(*limit, urlsByHand))
	}
	why = slices.Contains([]string{"true", "1", "yes"}, strings.ToLower(p.text("debug", 0)))
	return q, n, why, p.err
}

// testListURLs is what older probes ask instead of checking in.
func (a *API) testListURLs(r *http.Request) (any, error) {
	q, _, why, err := asked(r, "country_code", "probe_cc")
	if err != nil {
		return nil, err
	}
	q.Seed = random.Uint64()
	results := listed(a.Flows.URLs(q, network.Unknown), why)
	return map[string]any{
		"metadata": map[string]any{"count": len(results), "current_page": -1, "limit": -1, "next_url": "", "pages": 1},
		"results":  results,
	}, nil
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
func (a *API) debugPrioritization(r *http.Request) (any, error) {
	q, n, _, err := asked(r, "probe_cc")
	if err != nil {
		return nil, err
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
	return map[string]any{"test_items": listed(a.Flows.URLs(q, n), true), "entries": all, "prio_rules": prio}, nil
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
func (a *API) showCountriesPrioritization(w http.ResponseWriter, r *http.Request) error {
	p := paramsOf(r, "format")
	format := p.choice("format", "JSON", "CSV")
	if p.err != nil {
		return p.err
	}
	rows, err := a.overviewRows(r.Context())
	if err != nil {
		return err
	}
	if format == "JSON" {
		writeJSON(w, 0, rows)
		return nil
	}
	head(w, "text/csv", 0)
	out := csv.NewWriter(w)
	_ = out.Write([]string{"category_code", "domain", "url", "cc", "msmt_cnt", "anomaly_perc", "priority"}) // Flush would tell
	for _, x := range rows {
		_ = out.Write([]string{
			x.Category, x.Domain, x.URL, x.Country, strconv.FormatInt(x.Measured, 10), strconv.FormatInt(x.AnomalyPercent, 10), strconv.Itoa(x.Priority),
		})
	}
	out.Flush() // the client is gone if this fails
	return nil
}
