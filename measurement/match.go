package measurement

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/fault"
)

// Fingerprints is a compiled set, ready to match. It is immutable and safe for concurrent
// use. Nil is the empty set.
//
// Matching is the peer's as it is implemented, not as the tables read: in bodies every pattern is
// a plain substring whatever its type, regexp too; in headers contains and regexp never match;
// DNS patterns must equal the answer.
//
// Source: design/measurements.md, section 2.9.
type Fingerprints struct {
	all     []Fingerprint
	dns     map[string][]int32 // indices into all, as everywhere here, ascending
	bodies  []int32            // by the automaton's numbers
	body    *automaton         // nil without body patterns
	headers map[string]*headerPatterns
}

// headerPatterns are those of one header.
type headerPatterns struct {
	full    map[string][]int32
	prefix  map[string][]int32
	lengths []int // of the prefixes, each once, ascending
}

// Compile prepares a set; its order is the order of matches. Fails with INVALID, naming
// the fingerprint, when one has an unknown location or pattern type, or a pattern that is empty
// or not UTF-8.
func Compile(all []Fingerprint) (*Fingerprints, error) {
	f := &Fingerprints{
		all:     slices.Clone(all),
		dns:     map[string][]int32{},
		headers: map[string]*headerPatterns{},
	}
	var patterns []string
	for i := range f.all {
		p := &f.all[i]
		err := p.check()
		if err == nil && !utf8.ValidString(p.Pattern) {
			err = fmt.Errorf("its pattern is not UTF-8")
		}
		if err != nil {
			return nil, fault.Wrap(err, fault.Invalid, "A fingerprint breaks a rule: %v.", err).At(p.Name)
		}
		p.ExpectedCountries = slices.Clone(p.ExpectedCountries)
		p.listed = p.list()
		switch p.LocationFound {
		case "dns":
			f.dns[p.Pattern] = append(f.dns[p.Pattern], int32(i))
		case "body":
			f.bodies = append(f.bodies, int32(i))
			patterns = append(patterns, p.Pattern)
		default:
			f.addHeader(strings.TrimPrefix(p.LocationFound, "header."), p, int32(i))
		}
	}
	if len(patterns) > 0 {
		f.body = newAutomaton(patterns)
	}
	return f, nil
}

func (f *Fingerprints) addHeader(name string, p *Fingerprint, i int32) {
	h := f.headers[name]
	if h == nil {
		h = &headerPatterns{full: map[string][]int32{}, prefix: map[string][]int32{}}
		f.headers[name] = h
	}
	switch p.PatternType {
	case "full":
		h.full[p.Pattern] = append(h.full[p.Pattern], i)
	case "prefix":
		h.prefix[p.Pattern] = append(h.prefix[p.Pattern], i)
		if at, ok := slices.BinarySearch(h.lengths, len(p.Pattern)); !ok {
			h.lengths = slices.Insert(h.lengths, at, len(p.Pattern))
		}
	}
}

// list is the fingerprint as an item of scores.fingerprints.
func (f *Fingerprint) list() []byte {
	countries := []byte("[")
	for i, c := range f.ExpectedCountries {
		if i > 0 {
			countries = append(countries, ',')
		}
		countries = append(countries, quote(string(c))...)
	}
	return object([]member{
		{"name", quote(f.Name)},
		{"scope", quote(f.Scope)},
		{"location_found", quote(f.LocationFound)},
		{"confidence_no_fp", integer(f.ConfidenceNoFP)},
		{"expected_countries", append(countries, ']')},
	})
}

// Len is how many fingerprints there are.
func (f *Fingerprints) Len() int {
	if f == nil {
		return 0
	}
	return len(f.all)
}

// Counts says how many there are for each location: "dns", "body", "header.location" …
func (f *Fingerprints) Counts() map[string]int {
	counts := map[string]int{}
	if f == nil {
		return counts
	}
	for i := range f.all {
		counts[f.all[i].LocationFound]++
	}
	return counts
}

// tells reports whether seeing f in c proves blocking there: it was made for c, or no
// page but that of an ISP's or a nation's censor has it.
func (f *Fingerprint) tells(c country.Code) bool {
	if c != country.Unknown && slices.Contains(f.ExpectedCountries, c) {
		return true
	}
	return f.Scope == "isp" || f.Scope == "nat"
}

// maxMatches is where matching ends: a body made of matches must not become scores
// many times its size. Real bodies have a handful.
const maxMatches = 1000

// match finds the fingerprints in the test keys of a web_connectivity measurement: first
// the answers of all queries, then per request the body and the headers, each in the order
// of the set. It fails with errBase64 or a misfit at the first place that the peer would.
func (f *Fingerprints) match(testKeys value) ([]*Fingerprint, error) {
	if f == nil {
		f = &Fingerprints{}
	}
	m := matcher{set: f, scratch: scratches.Get().(*scratch)}
	defer scratches.Put(m.scratch)
	if err := m.queries(testKeys); err != nil {
		return nil, err
	}
	if err := m.requests(testKeys); err != nil {
		return nil, err
	}
	return m.found, nil
}

// A matcher is one pass over the test keys of one measurement.
type matcher struct {
	*scratch
	set   *Fingerprints
	found []*Fingerprint
}

// scratch is memory that one measurement after the other uses.
type scratch struct {
	text  []byte  // a body or header, unescaped and decoded
	coded []byte  // a base64 text, unescaped
	seen  []bool  // by the automaton's numbers
	hits  []int32 // indices into Fingerprints.all
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func (m *matcher) full() bool { return len(m.found) >= maxMatches }

// add notes hits, which are in ascending order.
func (m *matcher) add(hits []int32) {
	for _, i := range hits {
		if m.full() {
			return
		}
		m.found = append(m.found, &m.set.all[i])
	}
}

func (m *matcher) queries(testKeys value) error {
	queries, err := list(testKeys, "queries")
	if err != nil {
		return err
	}
	for q := range queries.items() {
		if q.kind() != objectKind {
			return misfit("test_keys.queries", "has an item that is not an object")
		}
		if err := m.answers(q); err != nil {
			return err
		}
	}
	return nil
}

func (m *matcher) answers(query value) error {
	answers := query.get("answers")
	switch answers.kind() {
	case numberKind, trueKind, falseKind:
		return misfit("test_keys.queries.answers", "is not a list")
	}
	for a := range answers.items() {
		switch a.kind() {
		case nullKind, numberKind, trueKind, falseKind:
			return misfit("test_keys.queries.answers", "has an item that is not an object")
		}
		if !m.full() {
			m.add(m.set.dns[address(a).text()])
		}
	}
	return nil
}

// address is what an answer says. The first key that is there counts, even where it is null.
func address(answer value) value {
	for _, key := range []string{"ipv4", "hostname", "ipv6"} {
		if v := answer.get(key); v.exists() {
			return v
		}
	}
	return value{}
}

func (m *matcher) requests(testKeys value) error {
	requests, err := list(testKeys, "requests")
	if err != nil {
		return err
	}
	for r := range requests.items() {
		if r.kind() != objectKind {
			return misfit("test_keys.requests", "has an item that is not an object")
		}
		response := r.get("response")
		if response.none() {
			continue
		}
		if response.kind() != objectKind {
			return misfit("test_keys.requests.response", "is not an object")
		}
		if err := m.body(response.get("body")); err != nil {
			return err
		}
		if err := m.headers(response.get("headers")); err != nil {
			return err
		}
	}
	return nil
}

func (m *matcher) body(body value) error {
	switch body.kind() {
	case absentKind, nullKind:
		return nil
	case stringKind:
		m.scan(m.unescape(body))
		return nil
	case objectKind:
		data := body.get("data")
		if !data.exists() || !body.get("format").is("base64") {
			return nil
		}
		text, err := m.decode(data, "test_keys.requests.response.body.data")
		if err == nil {
			m.scan(text)
		}
		return err
	}
	return misfit("test_keys.requests.response.body", "is neither a text nor an object")
}

// scan looks for the body patterns, each of which counts once a body.
func (m *matcher) scan(text []byte) {
	if m.set.body == nil || m.full() {
		return
	}
	m.hits = m.hits[:0]
	m.seen = slices.Grow(m.seen[:0], len(m.set.bodies))[:len(m.set.bodies)]
	m.set.body.scan(text, func(numbers []int32) {
		for _, n := range numbers {
			if !m.seen[n] {
				m.seen[n] = true
				m.hits = append(m.hits, n)
			}
		}
	})
	for i, n := range m.hits {
		m.seen[n] = false
		m.hits[i] = m.set.bodies[n]
	}
	slices.Sort(m.hits)
	m.add(m.hits)
}

// unescape is the content of a string; it is overwritten by the next call.
func (m *matcher) unescape(v value) []byte {
	if !v.token().escaped {
		return v.raw()
	}
	m.text = appendUnescaped(m.text[:0], v.raw())
	return m.text
}

// decode is the content of base64 data; it is overwritten by the next call.
func (m *matcher) decode(data value, field string) ([]byte, error) {
	if data.kind() != stringKind {
		return nil, misfit(field, "is not a text")
	}
	coded := data.raw()
	if data.token().escaped {
		m.coded = appendUnescaped(m.coded[:0], coded)
		coded = m.coded
	}
	for _, c := range coded {
		if c >= utf8.RuneSelf {
			return nil, misfit(field, "is not ASCII")
		}
	}
	var err error
	m.text, err = appendBase64(m.text[:0], coded)
	return m.text, err
}

func (m *matcher) headers(headers value) error {
	if !headers.truthy() {
		return nil
	}
	if headers.kind() != objectKind {
		return misfit("test_keys.requests.response.headers", "is not an object")
	}
	type known struct {
		patterns *headerPatterns
		value    value
	}
	var relevant []known // the last of each name counts
	for name, v := range headers.members() {
		p := m.set.headers[string(m.lower(name))]
		if p == nil {
			continue
		}
		i := slices.IndexFunc(relevant, func(k known) bool { return k.patterns == p })
		if i < 0 {
			relevant = append(relevant, known{p, v})
		} else {
			relevant[i].value = v
		}
	}
	m.hits = m.hits[:0]
	for _, k := range relevant {
		if err := m.header(k.patterns, k.value); err != nil {
			return err
		}
	}
	slices.Sort(m.hits)
	m.add(m.hits)
	return nil
}

// lower is a header's name in lower case; it is overwritten by the next call. Only ASCII
// is lowered: no header that a fingerprint names has more.
func (m *matcher) lower(name value) []byte {
	m.text = append(m.text[:0], m.unescape(name)...)
	for i, c := range m.text {
		if c >= 'A' && c <= 'Z' {
			m.text[i] = c + 'a' - 'A'
		}
	}
	return m.text
}

// header looks for the patterns of one header in its value.
func (m *matcher) header(p *headerPatterns, v value) error {
	if v.kind() == stringKind {
		text := m.unescape(v)
		m.hits = append(m.hits, p.full[string(text)]...)
		m.prefixes(p, text)
		return nil
	}
	if !v.get("format").is("base64") || len(p.prefix) == 0 {
		return nil
	}
	data := v.get("data")
	if !data.exists() {
		return nil
	}
	text, err := m.decode(data, "test_keys.requests.response.headers.data")
	if err == nil {
		m.prefixes(p, utf8OfLatin1(text))
	}
	return err
}

func (m *matcher) prefixes(p *headerPatterns, text []byte) {
	for _, n := range p.lengths {
		if n > len(text) {
			return
		}
		m.hits = append(m.hits, p.prefix[string(text[:n])]...)
	}
}

// utf8OfLatin1 reads bytes as ISO 8859-1, which is what HTTP headers once were.
func utf8OfLatin1(text []byte) []byte {
	if bytes.IndexFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }) < 0 {
		return text
	}
	var b []byte
	for _, c := range text {
		b = utf8.AppendRune(b, rune(c))
	}
	return b
}
