package ooniapi

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/testlist"
)

// Bounds of a listing (docs/decisions/023-rest-reads.md).
const (
	defaultLimit = 100
	maxLimit     = 1000
	maxOffset    = 10_000
	listPatience = 10 * time.Second
)

// orders are what a listing may be sorted by, with the text of a row's key.
var orders = map[string]struct {
	by  db.MeasurementOrder
	key func(db.Measurement) string
}{
	"measurement_start_time": {db.ByStartedAt, func(m db.Measurement) string { return m.SortAt().UTC().Format(time.RFC3339Nano) }},
	"input":                  {db.ByInput, func(m db.Measurement) string { return m.Input }},
	"probe_cc":               {db.ByProbeCountry, func(m db.Measurement) string { return string(m.Country) }},
	"probe_asn":              {db.ByProbeASN, func(m db.Measurement) string { return strconv.FormatUint(uint64(m.ASN), 10) }},
	"test_name":              {db.ByTestName, func(m db.Measurement) string { return m.TestName }},
}

// A listing is what a request for measurements asks for.
type listing struct {
	query   db.MeasurementQuery
	orderBy string
	desc    bool
	limit   int
	offset  int
	after   *place
	params  url.Values // of the query alone, with the times that hold by default
	ignored []string
}

// listParams are the parameters of a listing.
var listParams = []string{
	"report_id", "input", "domain", "probe_cc", "probe_asn", "test_name", "category_code", "since", "until", "confirmed", "anomaly",
	"failure", "software_version", "test_version", "engine_version", "ooni_run_link_id", "order_by", "order", "offset", "limit", "after",
}

// listingOf reads a request. It fails with INVALID, naming the parameter.
func listingOf(r *http.Request, now time.Time) (listing, error) {
	p := paramsOf(r, listParams...)
	l := listing{params: p.values, ignored: slices.Sorted(slices.Values(p.ignored)), limit: defaultLimit}
	q := &l.query
	if id := p.text("report_id", 3); id != "" {
		q.ReportID = &id
	}
	if input := p.text("input", 3); input != "" {
		q.Inputs = []string{input}
		p.values.Del("domain")
		p.values.Del("category_code")
	}
	q.Domains = p.list("domain")
	q.Categories = p.categories("category_code", p.list("category_code"))
	for _, code := range q.Categories {
		if !testlist.IsCategory(code) {
			p.fail("category_code", "%.20q is none of the categories of test lists, such as NEWS.", code)
		}
	}
	q.Countries, q.ASNs, q.TestNames = p.countries("probe_cc"), p.networks("probe_asn"), p.words("test_name")
	q.SoftwareVersions, q.TestVersions, q.EngineVersions = p.list("software_version"), p.list("test_version"), p.list("engine_version")
	q.Confirmed, q.Anomaly, q.Failure = p.boolean("confirmed"), p.boolean("anomaly"), p.boolean("failure")
	q.OONIRunLinkID = p.number("ooni_run_link_id", 0, 1<<62)
	l.window(p, now)
	l.orderBy = p.choice("order_by", "measurement_start_time", "input", "probe_cc", "probe_asn", "test_name")
	l.desc = p.choice("order", "desc", "asc") == "desc"
	if n := p.number("limit", 0, maxLimit); n != nil {
		l.limit = int(*n)
	}
	if n := p.number("offset", 0, 1<<62); n != nil {
		if *n > maxOffset {
			p.fail("offset", "An offset is at most %d. Follow next_url: it goes as far as you like, and nothing comes twice.", maxOffset)
		}
		l.offset = int(min(*n, maxOffset))
	}
	after := p.values.Get("after")
	for _, name := range []string{"after", "offset", "limit"} {
		p.values.Del(name) // what is left says which measurements, and in which order
	}
	if after != "" && p.err == nil {
		l.follow(p, after)
	}
	return l, p.err
}

// window reads the times: since is excluded, and until is not. They hold by default unless a report is asked for, and stand
// in next_url from then on, so that a walk ends where it began to.
func (l *listing) window(p *params, now time.Time) {
	since, until := p.instant("since"), p.instant("until")
	if l.query.ReportID == nil {
		if until == nil {
			tomorrow := now.UTC().Truncate(24*time.Hour).AddDate(0, 0, 1)
			until = &tomorrow
		}
		if since == nil {
			before := until.AddDate(0, 0, -30)
			since = &before
		}
	}
	if since != nil && until != nil && since.After(*until) {
		p.fail("since", "This is after until.")
	}
	// The query's own times are half-open the other way round, and the database counts microseconds.
	if since != nil {
		p.values.Set("since", since.Format(time.RFC3339Nano))
		t := since.Add(time.Microsecond)
		l.query.Since = &t
	}
	if until != nil {
		p.values.Set("until", until.Format(time.RFC3339Nano))
		t := until.Add(time.Microsecond)
		l.query.Until = &t
	}
}

// A place is where a page ended. Count is how many measurements there were when the walk began, and nil when nobody
// could say: each page of a walk says the same, and no page counts again.
type place struct {
	Query  string `json:"q"`
	Key    string `json:"k"`
	UID    string `json:"u"`
	Offset int    `json:"o"`
	Count  *int64 `json:"n"`
}

// hash names the query that a place belongs to.
func (l *listing) hash() string {
	sum := sha256.Sum256([]byte(l.params.Encode()))
	return hex.EncodeToString(sum[:6])
}

func (l *listing) follow(p *params, after string) {
	var at place
	b, err := base64.RawURLEncoding.DecodeString(after)
	if err == nil {
		err = json.Unmarshal(b, &at)
	}
	switch l.orderBy {
	case "measurement_start_time":
		_, e := time.Parse(time.RFC3339Nano, at.Key)
		err = errorOf(err, e)
	case "probe_asn":
		_, e := strconv.ParseUint(at.Key, 10, 32)
		err = errorOf(err, e)
	}
	switch {
	case err != nil || at.Offset < 0 || at.Count != nil && *at.Count < 0 || strings.Contains(at.Key+at.UID, "\x00"):
		p.fail("after", "This is no place in a list. Follow next_url as it is.")
	case at.Query != l.hash():
		p.fail("after", "This is a place in another list: the other parameters have changed. Follow next_url as it is.")
	case l.offset != 0:
		p.fail("offset", "This cannot be combined with after, which says where the page begins.")
	}
	l.after, l.offset = &at, at.Offset
}

func errorOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// next is the address of the page after m.
func (l *listing) next(base string, m db.Measurement, offset int, count *int64) string {
	at, _ := json.Marshal(place{l.hash(), orders[l.orderBy].key(m), string(m.UID), offset, count}) // texts and numbers always encode
	v := url.Values{"limit": {strconv.Itoa(l.limit)}, "after": {base64.RawURLEncoding.EncodeToString(at)}}
	for name := range l.params {
		v.Set(name, l.params.Get(name))
	}
	return base + "/api/v1/measurements?" + v.Encode()
}

// metadata of a page. Count and Pages are exact, as of the first page; where there was no time to count they are
// null, and CountProblem says so.
type metadata struct {
	Count        *int64   `json:"count"`
	CountProblem string   `json:"count_problem,omitempty"`
	CurrentPage  int      `json:"current_page"`
	Ignored      []string `json:"ignored_parameters,omitempty"`
	Limit        int      `json:"limit"`
	NextURL      *string  `json:"next_url"`
	Offset       int      `json:"offset"`
	Pages        *int64   `json:"pages"`
	QueryTime    float64  `json:"query_time"`
}

// A summary is what both a list and measurement_meta tell of a measurement.
type summary struct {
	Anomaly              bool           `json:"anomaly"`
	Confirmed            bool           `json:"confirmed"`
	Failure              bool           `json:"failure"`
	Input                *string        `json:"input"`
	MeasurementStartTime *string        `json:"measurement_start_time"`
	MeasurementUID       measurement.ID `json:"measurement_uid"`
	ProbeCC              string         `json:"probe_cc"`
	ReportID             string         `json:"report_id"`
	TestName             string         `json:"test_name"`
	VerificationStatus   string         `json:"verification_status"`
}

func summaryOf(m db.Measurement) summary {
	return summary{
		Anomaly: m.Anomaly, Confirmed: m.Confirmed, Failure: m.Failure, Input: text(m.Input), MeasurementStartTime: stamp(m.StartedAt),
		MeasurementUID: m.UID, ProbeCC: string(m.Country), ReportID: m.ReportID, TestName: m.TestName, VerificationStatus: verification(m.Verified),
	}
}

// A row is a measurement in a list.
type row struct {
	summary
	MeasurementURL string          `json:"measurement_url"`
	ProbeASN       string          `json:"probe_asn"`
	Scores         json.RawMessage `json:"scores"`
}

// bodyURL finds the body by its uid: a report may have several measurements of one input.
func bodyURL(base string, uid measurement.ID) string {
	return base + "/api/v1/raw_measurement?measurement_uid=" + url.QueryEscape(string(uid))
}

// text writes nothing as null.
func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// stamp is null for a time that the body does not have.
func stamp(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	return text(t.UTC().Format(time.RFC3339))
}

func verification(v measurement.Verified) string {
	switch v {
	case measurement.VerifiedTrue:
		return "verified"
	case measurement.VerifiedFalse:
		return "failed"
	case measurement.VerifiedUnknown:
	}
	return "unverified"
}

// list answers GET /api/v1/measurements.
func (a *API) list(w http.ResponseWriter, r *http.Request) error {
	began := a.DB.Now()
	l, err := listingOf(r, began)
	if err == nil {
		err = a.Charge(w, r, float64(rowPrice*l.limit))
	}
	if err != nil {
		return err
	}
	rows, err := a.page(r.Context(), &l)
	if err != nil {
		return err
	}
	more := len(rows) > l.limit
	rows = rows[:min(len(rows), l.limit)]
	meta := metadata{Limit: l.limit, Offset: l.offset, CurrentPage: 1, Ignored: l.ignored}
	switch end := int64(l.offset + len(rows)); {
	case l.after != nil:
		meta.Count = l.after.Count
	case l.limit > 0 && !more && (len(rows) > 0 || l.offset == 0):
		meta.Count = &end
	default:
		if err = a.Charge(w, r, countPrice); err == nil {
			meta.Count, err = a.counts.of(r.Context(), a.DB, l.hash(), l.query)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case meta.Count == nil:
		meta.CountProblem = "There are too many to count in time. Narrow the query, or follow next_url to its end."
	case l.limit == 0:
		meta.Pages = new(int64)
	default:
		pages := (*meta.Count + int64(l.limit) - 1) / int64(l.limit)
		meta.Pages, meta.CurrentPage = &pages, l.offset/l.limit+1
	}
	base := a.base(r)
	results := make([]row, len(rows))
	for i, m := range rows {
		results[i] = row{summaryOf(m), bodyURL(base, m.UID), m.ASN.String(), m.Scores}
	}
	if more && l.limit > 0 {
		next := l.next(base, rows[l.limit-1], l.offset+l.limit, meta.Count)
		meta.NextURL = &next
	}
	meta.QueryTime = a.DB.Now().Sub(began).Seconds()
	if l.query.ReportID != nil {
		w.Header().Set("Vary", "User-Agent")
		if len(results) == 0 && strings.HasPrefix(r.UserAgent(), "okhttp") {
			one := int64(1)
			meta.Count, meta.Pages = &one, &one
			writeJSON(w, keep, map[string]any{"metadata": meta, "results": []any{map[string]string{"measurement_url": ""}}})
			return nil
		}
	}
	writeJSON(w, keep, map[string]any{"metadata": meta, "results": results})
	return nil
}

// page reads the rows of a page, and one more where there is one.
func (a *API) page(ctx context.Context, l *listing) (rows []db.Measurement, err error) {
	p := db.Page{N: l.limit + 1, Skip: l.offset}
	if l.after != nil {
		p.After, p.Skip = []string{l.after.Key, l.after.UID}, 0
	}
	if l.limit == 0 {
		return nil, nil
	}
	err = a.DB.ReadWithin(ctx, listPatience, func(v db.View) (err error) {
		rows, err = v.Measurements(ctx, l.query, orders[l.orderBy].by, l.desc, p)
		return err
	})
	return rows, err
}
