package measurement

import (
	"strconv"
	"strings"
	"time"

	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/network"
)

// Limits bound what Parse accepts from strangers. A field that is zero or less means
// its default.
type Limits struct {
	MaxBytes     int // of the body; at most 1 GiB is ever accepted
	MaxDepth     int // of containers in containers
	MaxValues    int // values and keys in the body; each costs 16 bytes while it is scored
	MaxTextBytes int // of each text that becomes a column; below what an index can hold
}

// DefaultLimits are what a server starts with. The largest of 159 real bodies has 836 kB, 9
// levels, 5,057 values and a text of 187 bytes; PostgreSQL cannot index a text of over 2,700.
var DefaultLimits = Limits{MaxBytes: 4 << 20, MaxDepth: 100, MaxValues: 400_000, MaxTextBytes: 2000}

// maxBytes keeps offsets in 32 bits with room to spare.
const maxBytes = 1 << 30

// complete puts the defaults in place.
func (l Limits) complete() Limits {
	set := func(field *int, fallback int) {
		if *field <= 0 {
			*field = fallback
		}
	}
	set(&l.MaxBytes, DefaultLimits.MaxBytes)
	set(&l.MaxDepth, DefaultLimits.MaxDepth)
	set(&l.MaxValues, DefaultLimits.MaxValues)
	set(&l.MaxTextBytes, DefaultLimits.MaxTextBytes)
	l.MaxBytes = min(l.MaxBytes, maxBytes)
	return l
}

// startTime is the layout of the times that a body names.
const startTime = "2006-01-02 15:04:05"

// Parse reads one measurement as probes send it: bare, or in an envelope {"format", "content"}.
// Unknown fields are ignored, for new probes talk to old servers. Of duplicate keys
// the last counts. The Measurement refers to body.
//
// It fails with INVALID, naming the field by its JSON path ("content.probe_cc"; "body" for
// the whole), when the body is over a limit, not JSON or not UTF-8, when its format is not
// json, or when a field that identifies the measurement is missing, malformed or of a wrong type.
func Parse(body []byte, lim Limits) (*Measurement, error) {
	lim = lim.complete()
	if len(body) > lim.MaxBytes {
		return nil, fault.Field("body", "The measurement has %d bytes; at most %d are accepted.", len(body), lim.MaxBytes)
	}
	d, err := scan(body, lim)
	if err != nil {
		return nil, err
	}
	root := value{doc: d}
	if root.kind() != objectKind {
		return nil, fault.Field("body", "The measurement is not a JSON object.")
	}
	r := reader{max: lim.MaxTextBytes}
	m := &Measurement{Verified: VerifiedUnknown}
	m.content = r.unwrap(root, m)
	if r.err == nil {
		r.identify(m)
		r.derive(m)
	}
	if r.err != nil {
		m.Release()
		return nil, r.err
	}
	return m, nil
}

// A reader takes fields out of a measurement and remembers the first that is wrong.
type reader struct {
	prefix string // of field names: "content." inside an envelope
	max    int
	err    error
}

func (r *reader) fail(field, format string, args ...any) {
	if r.err == nil {
		r.err = fault.Field(r.prefix+field, format, args...)
	}
}

// unwrap takes the measurement out of its envelope, if it is in one.
func (r *reader) unwrap(root value, m *Measurement) value {
	format, content := root.get("format"), root.get("content")
	if !format.exists() || !content.exists() {
		return root
	}
	if strings.ToLower(format.text()) != "json" {
		r.fail("format", "The envelope's format must be json; measurements in YAML or others are not read.")
		return root
	}
	if content.kind() != objectKind {
		r.fail("content", "The envelope's content is not a JSON object.")
		return root
	}
	switch v := Verified(root.get("is_verified").text()); v {
	case VerifiedTrue, VerifiedFalse:
		m.Verified = v
	case VerifiedUnknown:
	}
	r.prefix = "content."
	return content
}

// identify fills in the fields that say which measurement this is.
func (r *reader) identify(m *Measurement) {
	c := m.content
	m.TestName = r.text(c, "test_name", "")
	if m.TestName == "" {
		r.fail("test_name", "The measurement does not name its test.")
	}
	m.testKeys = r.testKeys(c)
	m.hasReportID = !c.get("report_id").none()
	m.ReportID = r.text(c, "report_id", "")
	r.place(m)
	m.StartedAt = r.time(c, "measurement_start_time")
	m.TestStartedAt = r.time(c, "test_start_time")
	r.input(m)
}

func (r *reader) testKeys(content value) value {
	keys := content.get("test_keys")
	if keys.none() {
		return value{}
	}
	if keys.kind() != objectKind {
		r.fail("test_keys", "The test keys are not a JSON object.")
	}
	return keys
}

// place fills in where the probe is.
func (r *reader) place(m *Measurement) {
	c, ok := upperCountry(r.text(m.content, "probe_cc", ""))
	if !ok {
		r.fail("probe_cc", "The probe's country is not two letters.")
	}
	m.Country = c
	asn, err := network.Parse(r.text(m.content, "probe_asn", ""))
	if err != nil {
		r.fail("probe_asn", "The probe's network is not a number like AS44244.")
	}
	m.ASN = asn
	m.ResolverASN, _ = network.Parse(m.content.get("resolver_asn").text())
}

// time reads a time by the probe's clock; the zero time when there is none.
func (r *reader) time(content value, field string) time.Time {
	if content.get(field).none() {
		return time.Time{}
	}
	s := r.text(content, field, "")
	t, err := time.Parse(startTime, s)
	if err != nil || len(s) != len(startTime) {
		r.fail(field, "The time is not of the form %q.", startTime)
	}
	return t
}

// meek is the one test whose input is a list.
const meek = "meek_fronted_requests_test"

func (r *reader) input(m *Measurement) {
	in := m.content.get("input")
	m.HasInput = !in.none()
	if in.kind() != arrayKind || m.TestName != meek {
		m.Input = r.text(m.content, "input", "")
		m.Domain = Netloc(m.Input)
		return
	}
	var all []string
	for i := range in.items() {
		if i.kind() != stringKind {
			r.fail("input", "The input is not a list of texts.")
			return
		}
		all = append(all, i.text())
	}
	if len(all) == 0 {
		return
	}
	m.Input = r.storable("input", "{"+strings.Join(all, ",")+"}")
	m.Domain = all[0]
}

// derive fills in the columns that only describe the measurement.
func (r *reader) derive(m *Measurement) {
	c := m.content
	m.TestVersion = r.text(c, "test_version", "")
	m.SoftwareName = r.text(c, "software_name", "unknown")
	m.SoftwareVersion = r.text(c, "software_version", "unknown")
	if runtime, ok := c.get("test_runtime").number(); ok {
		m.TestRuntime = &runtime
	}
	helper := c.get("test_helpers").get("backend")
	m.TestHelperAddress = r.note(helper, "test_helpers.backend.", "address", "")
	m.TestHelperType = r.note(helper, "test_helpers.backend.", "type", "")
	r.annotations(m, c.get("annotations"))
}

func (r *reader) annotations(m *Measurement, a value) {
	m.Platform = r.note(a, "annotations.", "platform", "unset")
	m.Architecture = r.note(a, "annotations.", "architecture", "")
	m.EngineName = r.note(a, "annotations.", "engine_name", "")
	m.EngineVersion = r.note(a, "annotations.", "engine_version", "")
	m.OONIRunLinkID = linkID(a.get("ooni_run_link_id"))
}

// linkID reads a whole number, which may be written as a string.
func linkID(v value) *int64 {
	s := v.text()
	if v.kind() == numberKind {
		s = string(v.raw())
	}
	id, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return nil
	}
	n := int64(id)
	return &n
}

// text is a field that must be a string if it is there.
func (r *reader) text(content value, field, fallback string) string {
	v := content.get(field)
	switch {
	case v.none():
		return fallback
	case v.kind() != stringKind:
		r.fail(field, "The field is not a text.")
		return fallback
	}
	return r.storable(field, v.text())
}

// note is a field that senders may fill with anything: only a string is taken.
func (r *reader) note(v value, path, field, fallback string) string {
	n := v.get(field)
	if n.kind() != stringKind {
		return fallback
	}
	return r.storable(path+field, n.text())
}

// storable lets through what the database can hold.
func (r *reader) storable(field, s string) string {
	switch {
	case len(s) > r.max:
		r.fail(field, "The text has %d bytes; at most %d are accepted.", len(s), r.max)
	case strings.IndexByte(s, 0) >= 0:
		r.fail(field, "The text contains U+0000.")
	default:
		return s
	}
	return ""
}
