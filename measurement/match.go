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
	"github.com/openvantage/vantage/jsonlex"
)

// Fingerprints is a compiled set, ready to match. It is immutable and safe for concurrent
// use. Nil is the empty set.
//
// Matching is the peer's as it is implemented, not as the tables read: in bodies every pattern is
// a plain substring whatever its type, regexp too; in headers contains and regexp never match;
// DNS patterns must equal the one address that is looked at of an answer. What matches only as the tables
// read is found too, and told apart from the peer's matches.
//
// Source: design/measurements.md, section 2.9.
type Fingerprints struct {
	all     []Fingerprint
	dns     map[string][]int32 // indices into all, as everywhere here, ascending
	body    search
	headers map[string]*headerPatterns
}

// A betterMatch is a fingerprint that the peer's matching misses.
type betterMatch struct {
	ruleID      string
	fingerprint *Fingerprint
}

// headerPatterns are those of one header.
type headerPatterns struct {
	full    map[string][]int32
	prefix  map[string][]int32
	lengths []int // of the prefixes, each once, ascending
	inside  search
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
			f.body.addText(p.Pattern, int32(i))
			if p.PatternType == "regexp" {
				f.body.addExpression(p.Pattern, int32(i))
			}
		default:
			f.addHeader(strings.TrimPrefix(p.LocationFound, "header."), p, int32(i))
		}
	}
	f.body.compile()
	for _, h := range f.headers {
		h.inside.compile()
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
	case "contains":
		h.inside.addText(p.Pattern, i)
	case "regexp":
		h.inside.addExpression(p.Pattern, i)
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
func (f *Fingerprints) match(testKeys value) ([]*Fingerprint, []betterMatch, error) {
	return f.run(func(m *matcher) error {
		if err := m.queries(testKeys); err != nil {
			return err
		}
		return m.requests(testKeys, func(value) (bool, error) { return true, nil })
	})
}

// matchRequests is match for the responses of the wanted requests alone.
func (f *Fingerprints) matchRequests(testKeys value, wanted func(request value) (bool, error)) ([]*Fingerprint, []betterMatch, error) {
	return f.run(func(m *matcher) error { return m.requests(testKeys, wanted) })
}

func (f *Fingerprints) run(look func(*matcher) error) ([]*Fingerprint, []betterMatch, error) {
	if f == nil {
		f = &Fingerprints{}
	}
	m := matcher{set: f, scratch: scratches.Get().(*scratch), left: maxTried}
	defer scratches.Put(m.scratch)
	if err := look(&m); err != nil {
		return nil, nil, err
	}
	return m.found, m.better, nil
}

// A matcher is one pass over the test keys of one measurement.
type matcher struct {
	*scratch
	set    *Fingerprints
	found  []*Fingerprint
	better []betterMatch
	left   int // bytes that regular expressions may still look at
}

// scratch is memory that one measurement after the other uses.
type scratch struct {
	text    []byte  // a body or header, unescaped and decoded
	coded   []byte  // a base64 text, unescaped
	seen    []bool  // by an automaton's numbers; all false between uses
	numbers []int32 // of an automaton
	hits    []int32 // indices into Fingerprints.all
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// addBetter notes a match that the peer misses, each fingerprint once.
func (m *matcher) addBetter(ruleID string, i int32) {
	b := betterMatch{ruleID, &m.set.all[i]}
	if len(m.better) < maxEvidence && !slices.Contains(m.better, b) {
		m.better = append(m.better, b)
	}
}

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
		m.answer(a)
	}
	return nil
}

// answer looks for what an answer says. For the peer, the first of these keys that is there counts, even where
// it is null.
func (m *matcher) answer(answer value) {
	first := true
	for _, key := range []string{"ipv4", "hostname", "ipv6"} {
		v := answer.get(key)
		if !v.exists() {
			continue
		}
		hits := m.set.dns[v.text()]
		if first {
			m.add(hits)
		} else {
			for _, i := range hits {
				m.addBetter("FP_DNS_ANY_ADDRESS", i)
			}
		}
		first = false
	}
}

func (m *matcher) requests(testKeys value, wanted func(request value) (bool, error)) error {
	requests, err := list(testKeys, "requests")
	if err != nil {
		return err
	}
	for r := range requests.items() {
		if r.kind() != objectKind {
			return misfit("test_keys.requests", "has an item that is not an object")
		}
		if yes, err := wanted(r); err != nil || !yes {
			if err != nil {
				return err
			}
			continue
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
	s := &m.set.body
	if s.empty() || m.full() {
		return
	}
	m.hits = m.hits[:0]
	m.look(s, text, "FP_BODY_REGEXP", func(i int32) { m.hits = append(m.hits, i) })
	slices.Sort(m.hits)
	m.add(m.hits)
}

// look calls found for the texts of s that text holds, each once, and notes the expressions that match.
func (m *matcher) look(s *search, text []byte, ruleID string, found func(i int32)) {
	if s.auto != nil {
		m.numbers = m.numbers[:0]
		all := len(s.texts) + len(s.expressions)
		m.seen = slices.Grow(m.seen[:0], all)[:all]
		s.auto.scan(text, func(numbers []int32) {
			for _, n := range numbers {
				if !m.seen[n] {
					m.seen[n] = true
					m.numbers = append(m.numbers, n)
				}
			}
		})
		for _, n := range m.numbers {
			m.seen[n] = false
			if int(n) < len(s.texts) {
				found(s.texts[n])
			} else if e := &s.expressions[int(n)-len(s.texts)]; e.in(text, &m.left) {
				m.addBetter(ruleID, e.index)
			}
		}
	}
	for i := range s.bare {
		if e := &s.bare[i]; e.in(text, &m.left) {
			m.addBetter(ruleID, e.index)
		}
	}
}

// unescape is the content of a string; it is overwritten by the next call.
func (m *matcher) unescape(v value) []byte {
	if !v.token().escaped {
		return v.raw()
	}
	m.text, _ = jsonlex.AppendUnescaped(m.text[:0], v.raw())
	return m.text
}

// decode is the content of base64 data; it is overwritten by the next call.
func (m *matcher) decode(data value, field string) ([]byte, error) {
	if data.kind() != stringKind {
		return nil, misfit(field, "is not a text")
	}
	coded := data.raw()
	if data.token().escaped {
		m.coded, _ = jsonlex.AppendUnescaped(m.coded[:0], coded)
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
		m.inside(p, text)
		return nil
	}
	data := v.get("data")
	if !v.get("format").is("base64") || !data.exists() {
		return nil
	}
	text, err := m.decode(data, "test_keys.requests.response.headers.data")
	if err == nil {
		text = utf8OfLatin1(text)
		m.prefixes(p, text)
		m.inside(p, text)
	}
	if len(p.prefix) == 0 { // the peer does not look at it
		return nil
	}
	return err
}

// inside looks for what a header's value holds anywhere. The peer does not.
func (m *matcher) inside(p *headerPatterns, text []byte) {
	if !p.inside.empty() {
		text = text[:min(len(text), maxHeaderValue)]
		m.look(&p.inside, text, "FP_HEADER_REGEXP", func(i int32) { m.addBetter("FP_HEADER_CONTAINS", i) })
	}
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
