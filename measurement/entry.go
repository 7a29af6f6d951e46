package measurement

import (
	"crypto/sha256"
	"strings"
	"time"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/jsonlex"
	"github.com/openvantage/vantage/network"
)

// An Entry is a measurement as probes post it, and what it says of itself, as it is spelled.
// Content is the measurement byte for byte, without what was posted around it.
type Entry struct {
	Content []byte
	// Credentials: the sender also tried to prove that it is to be trusted.
	Credentials bool

	root        value
	hasReportID bool
	reportID    string
	testName    string
	country     string
	asn         string
	startedAt   time.Time
}

// ParseReportEntry reads {"format": "json", "content": {…}}, or a measurement alone, as old probes
// send. It fails with INVALID, naming the field. The Entry refers to post.
func ParseReportEntry(post []byte, lim Limits) (*Entry, error) {
	d, err := scan(post, lim.complete())
	if err != nil {
		return nil, err
	}
	root := value{doc: d}
	if root.kind() != objectKind {
		return nil, fault.Field("body", "The post is not a JSON object.")
	}
	r := reader{}
	content := r.unwrap(root, &Measurement{})
	if r.err != nil {
		return nil, r.err
	}
	return newEntry(content)
}

// ParseSubmission reads {"format": "json", "content": "…"}: the measurement is the text. What else is
// posted is ignored, but for whether there are credentials. It fails with INVALID, naming the field.
func ParseSubmission(post []byte, lim Limits) (*Entry, error) {
	lim = lim.complete()
	d, err := scan(post, lim)
	if err != nil {
		return nil, err
	}
	defer d.release() // the entry is that of the text within
	root := value{doc: d}
	if !strings.EqualFold(root.get("format").text(), "json") {
		return nil, fault.Field("format", "The format must be json.")
	}
	text := root.get("content")
	if text.kind() != stringKind {
		return nil, fault.Field("content", "The content is not a text with the measurement in it.")
	}
	// Half a surrogate pair has no bytes; what stands in for it is refused as what is not UTF-8.
	unescaped, _ := jsonlex.AppendUnescaped(nil, text.raw())
	inner, err := scan(unescaped, lim)
	if err != nil {
		f := fault.Of(err)
		if f.Field == "body" {
			return nil, f.At("content")
		}
		return nil, f.At("content." + f.Field)
	}
	content := value{doc: inner}
	if content.kind() != objectKind {
		return nil, fault.Field("content", "The measurement is not a JSON object.")
	}
	e, err := newEntry(content)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"nym", "zkp_request", "manifest_version", "protocol_version"} {
		e.Credentials = e.Credentials || !root.get(name).none()
	}
	return e, nil
}

// newEntry refuses an envelope in an envelope: Parse would take it off Content, and score another measurement than the
// one whose metadata are looked at here.
func newEntry(content value) (*Entry, error) {
	if content.get("format").exists() && content.get("content").exists() {
		return nil, fault.Field("content", "The measurement is in an envelope that is in another one.")
	}
	e := &Entry{
		Content: content.raw(), root: content, hasReportID: content.get("report_id").text() != "", reportID: content.get("report_id").text(),
		testName: content.get("test_name").text(), country: content.get("probe_cc").text(), asn: content.get("probe_asn").text(),
	}
	for _, field := range []string{"measurement_start_time", "test_start_time"} {
		if at, err := time.Parse(startTime, content.get(field).text()); err == nil {
			e.startedAt = at
		}
	}
	return e, nil
}

// Placed is false for probes that do not know their country or network; see Discard.
func (e *Entry) Placed() bool {
	n, err := network.Parse(e.asn)
	return !strings.EqualFold(e.country, string(country.Unknown)) && (err != nil || n != network.Unknown)
}

// CheckMetadata fails with INVALID, naming the field, when an entry spells what every reader looks at
// otherwise than the established network demands of its probes.
//
// Source: design/ooni-api.md, section 1.3, bad_metadata.
func (e *Entry) CheckMetadata() error {
	if c, ok := upperCountry(e.country); !ok || string(c) != e.country {
		return fault.Field("content.probe_cc", "The probe's country is not two letters in upper case.")
	}
	if CheckReportTest(e.testName) != nil || strings.ToLower(e.testName) != e.testName {
		return fault.Field("content.test_name", "The name of a test has 2 to 29 letters and digits, in lower case, and _.")
	}
	digits, ok := strings.CutPrefix(e.asn, "AS")
	if _, err := network.Parse(digits); !ok || err != nil || len(e.asn) > 12 || digits[0] < '1' || digits[0] > '9' {
		return fault.Field("content.probe_asn", "The probe's network is not a number like AS44244.")
	}
	return nil
}

// NewReportID is an id for this entry alone. It follows from what was sent, so that who sends the same
// again sends the same measurement: its time is when the test began, and its end is a hash of Content.
func (e *Entry) NewReportID(collector string) string {
	asn, _ := network.Parse(e.asn)
	at := e.startedAt
	if at.IsZero() {
		at = time.Unix(0, 0)
	}
	sum := sha256.Sum256(e.Content)
	return NewReportID(at, e.testName, country.Code(e.country), asn, collector, [12]byte(sum[:12]))
}

// HasReportID is false when the entry names no report.
func (e *Entry) HasReportID() bool { return e.hasReportID }

// WithReportID is Content with another report id, and otherwise the same bytes: in the place of what
// is there, or before all else. id is letters, digits and "_".
func (e *Entry) WithReportID(id string) []byte {
	doc, root := e.root.doc, e.root.token()
	out := make([]byte, 0, len(e.Content)+len(id)+len(`"report_id":"",`))
	from, found := root.start, false
	for k, v := range e.root.members() {
		if !k.is("report_id") {
			continue
		}
		t := v.token()
		found = true
		out = append(out, doc.body[from:t.start]...)
		if t.kind == stringKind {
			out = append(out, id...)
		} else {
			out = append(out, `"`+id+`"`...)
		}
		from = t.end
	}
	if !found {
		first := `{"report_id":"` + id + `"`
		if !e.root.empty() {
			first += ","
		}
		out = append(out, first...)
		from++
	}
	return append(out, doc.body[from:root.end]...)
}
