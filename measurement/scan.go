package measurement

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/openvantage/vantage/fault"
)

// A kind is what a JSON value is. The zero kind is no value at all.
type kind uint8

const (
	absentKind kind = iota
	nullKind
	falseKind
	trueKind
	numberKind
	stringKind
	arrayKind
	objectKind
)

// A token is one value, or one key, of a scanned document. Tokens lie in document order, so a
// container is followed by what it holds: items, or keys each followed by its value.
type token struct {
	start, end uint32 // the span in the body; a string's is without its quotes
	next       uint32 // the first token after this value and all it holds
	kind       kind
	escaped    bool // a string has backslashes
}

// A doc is a body that was found to be JSON.
type doc struct {
	body   []byte
	tokens []token
}

// scan reads body, which must be one JSON value (RFC 8259) in valid UTF-8, in a single
// pass. It fails with INVALID at the path of the offending value. The doc refers to body.
func scan(body []byte, lim Limits) (*doc, error) {
	s := scanner{body: body, depth: lim.MaxDepth, values: lim.MaxValues}
	scratch := tokenScratches.Get().(*[]token)
	s.tokens = (*scratch)[:0]
	defer func() {
		if cap(s.tokens) <= maxTokenScratch {
			*scratch = s.tokens
			tokenScratches.Put(scratch)
		}
	}()
	s.skipSpace()
	if !s.value() {
		return nil, s.fault()
	}
	s.skipSpace()
	if s.at != len(body) {
		s.fail("has something after its end")
		return nil, s.fault()
	}
	return &doc{body: body, tokens: slices.Clone(s.tokens)}, nil
}

// tokenScratches are where tokens are written first, for their number is known only at the end. Larger ones than
// maxTokenScratch, 1 MB, are not kept.
var tokenScratches = sync.Pool{New: func() any { return new([]token) }}

const maxTokenScratch = 1 << 16

// A scanner descends through a body by recursion; every method moves at past what it read, or
// calls fail and returns false.
type scanner struct {
	body   []byte
	at     int
	tokens []token
	depth  int // containers that may still be opened
	values int // values and keys that may still be read
	marks  marker

	wrong string   // what is wrong, as the end of a sentence
	path  []string // where, innermost first
}

func (s *scanner) fail(wrong string) bool {
	s.wrong = wrong
	return false
}

// failHere is fail, unless the body has simply ended.
func (s *scanner) failHere(wrong string) bool {
	if s.at >= len(s.body) {
		wrong = "is cut short"
	}
	return s.fail(wrong)
}

// inside notes, while a failure travels up, which member or item it came from.
func (s *scanner) inside(step string) bool {
	s.path = append(s.path, step)
	return false
}

// maxPath bounds the bytes of a path in a message: keys are the sender's.
const maxPath = 200

func (s *scanner) fault() error {
	slices.Reverse(s.path)
	var path string
	for _, step := range s.path {
		if len(path)+len(step) > maxPath {
			break
		}
		path += step
	}
	path = strings.TrimPrefix(path, ".")
	if path == "" {
		path = "body"
	}
	return fault.Field(path, "The measurement cannot be read as JSON: at byte %d, it %s.", s.at, s.wrong)
}

func (s *scanner) skipSpace() {
	for s.at < len(s.body) {
		switch s.body[s.at] {
		case ' ', '\n', '\r', '\t':
			s.at++
		default:
			return
		}
	}
}

// peek is the byte at the scanner, or 0 at the end, which starts nothing in JSON.
func (s *scanner) peek() byte {
	if s.at < len(s.body) {
		return s.body[s.at]
	}
	return 0
}

// open appends a token; close completes it.
func (s *scanner) open(k kind) (int, bool) {
	if s.values--; s.values < 0 {
		return 0, s.fail("has too many values")
	}
	s.tokens = append(s.tokens, token{start: uint32(s.at), kind: k})
	return len(s.tokens) - 1, true
}

func (s *scanner) close(i int) bool {
	s.tokens[i].end = uint32(s.at)
	s.tokens[i].next = uint32(len(s.tokens))
	return true
}

// value reads one value that starts at the scanner.
func (s *scanner) value() bool {
	switch c := s.peek(); c {
	case '"':
		return s.string()
	case '{':
		return s.object()
	case '[':
		return s.array()
	case 't':
		return s.word("true", trueKind)
	case 'f':
		return s.word("false", falseKind)
	case 'n':
		return s.word("null", nullKind)
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return s.number()
	}
	return s.failHere("has no value where one must be")
}

func (s *scanner) word(w string, k kind) bool {
	i, ok := s.open(k)
	if !ok {
		return false
	}
	for j := range len(w) {
		if s.peek() != w[j] {
			return s.failHere("has an unknown word")
		}
		s.at++
	}
	return s.close(i)
}

func (s *scanner) number() bool {
	i, ok := s.open(numberKind)
	if !ok {
		return false
	}
	if s.peek() == '-' {
		s.at++
	}
	if s.peek() == '0' {
		s.at++
	} else if !s.digits() {
		return false
	}
	if s.peek() == '.' {
		s.at++
		if !s.digits() {
			return false
		}
	}
	if s.peek()|0x20 == 'e' {
		s.at++
		if c := s.peek(); c == '+' || c == '-' {
			s.at++
		}
		if !s.digits() {
			return false
		}
	}
	return s.close(i)
}

// digits reads one digit or more.
func (s *scanner) digits() bool {
	from := s.at
	for s.at < len(s.body) && s.body[s.at]-'0' <= 9 {
		s.at++
	}
	return s.at > from || s.failHere("has a number without digits")
}

func (s *scanner) array() bool {
	i, ok := s.enter(arrayKind)
	if !ok {
		return false
	}
	for n := 0; ; n++ {
		s.skipSpace()
		if n == 0 && s.peek() == ']' {
			break
		}
		if !s.value() {
			return s.inside("[" + strconv.Itoa(n) + "]")
		}
		s.skipSpace()
		if s.peek() == ']' {
			break
		}
		if s.peek() != ',' {
			return s.failHere("has a list without a comma or end")
		}
		s.at++
	}
	return s.leave(i)
}

func (s *scanner) object() bool {
	i, ok := s.enter(objectKind)
	if !ok {
		return false
	}
	for n := 0; ; n++ {
		s.skipSpace()
		if n == 0 && s.peek() == '}' {
			break
		}
		if !s.member() {
			return false
		}
		s.skipSpace()
		if s.peek() == '}' {
			break
		}
		if s.peek() != ',' {
			return s.failHere("has an object without a comma or end")
		}
		s.at++
	}
	return s.leave(i)
}

// member reads a key, a colon and a value.
func (s *scanner) member() bool {
	if s.peek() != '"' {
		return s.failHere("has an object with something that is no key")
	}
	key := len(s.tokens)
	if !s.string() {
		return false
	}
	s.skipSpace()
	if s.peek() != ':' {
		return s.failHere("has a key without a colon")
	}
	s.at++
	s.skipSpace()
	if !s.value() {
		t := s.tokens[key]
		return s.inside("." + string(s.body[t.start:t.end]))
	}
	return true
}

// enter opens a container and steps over its bracket.
func (s *scanner) enter(k kind) (int, bool) {
	if s.depth--; s.depth < 0 {
		return 0, s.fail("is nested too deep")
	}
	i, ok := s.open(k)
	s.at++
	return i, ok
}

func (s *scanner) leave(i int) bool {
	s.at++
	s.depth++
	return s.close(i)
}

// string reads a string or a key, which starts at a quote.
func (s *scanner) string() bool {
	i, ok := s.open(stringKind)
	if !ok {
		return false
	}
	at, checked, escaped := s.at+1, 0, false
	s.tokens[i].start = uint32(at)
	for at < len(s.body) {
		m, skip := s.marks.at(s.body, at), at%64
		ends := (m.quotes &^ m.escaped) >> skip
		n := min(lowest(ends), 64-skip)
		if (m.escaped|m.odd)>>skip&before(n) != 0 {
			escaped = escaped || m.escaped>>skip&before(n) != 0
			if !s.escapes(at, m.escaped>>skip&before(n)) {
				return false
			}
			if checked, ok = s.runes(at, m.odd>>skip&before(n), checked); !ok {
				return false
			}
		}
		at += n
		if ends != 0 {
			s.at = at
			s.tokens[i].escaped = escaped
			s.close(i)
			s.at++
			return true
		}
	}
	return s.failAt(len(s.body), "")
}

// escapes checks the bytes from at on whose bits are set: a backslash is before them.
func (s *scanner) escapes(at int, escaped uint64) bool {
	for ; escaped != 0; escaped &= escaped - 1 {
		i := at + lowest(escaped)
		if i >= len(s.body) {
			break
		}
		if unescaped[s.body[i]] == 0 && !isUnicodeEscape(s.body[i:]) {
			return s.failAt(i-1, "has an unknown or unfinished escape in a string")
		}
	}
	return true
}

// runes checks the bytes from at on whose bits are set, which are control characters or begin or continue runes.
// Those before checked are known to be right; it says how far they are now.
func (s *scanner) runes(at int, odd uint64, checked int) (int, bool) {
	for ; odd != 0; odd &= odd - 1 {
		i := at + lowest(odd)
		if i < checked {
			continue
		}
		if s.body[i] < 0x20 {
			return 0, s.failAt(i, "has a control character in a string")
		}
		n := runesLen(s.body[i:])
		if n == 0 {
			return 0, s.failAt(i, "has a string that is not UTF-8")
		}
		checked = i + n
	}
	return checked, true
}

// failAt is failHere for another place.
func (s *scanner) failAt(at int, wrong string) bool {
	s.at = at
	return s.failHere(wrong)
}

// isUnicodeEscape is true for u and four hexadecimal digits.
func isUnicodeEscape(b []byte) bool {
	return len(b) >= 5 && b[0] == 'u' && hexValue[b[1]]|hexValue[b[2]]|hexValue[b[3]]|hexValue[b[4]] < 16
}

// hexValue is the value of a hexadecimal digit, and 0xff for any other byte.
var hexValue = func() (t [256]byte) {
	for c := range t {
		switch {
		case c >= '0' && c <= '9':
			t[c] = byte(c - '0')
		case c >= 'a' && c <= 'f':
			t[c] = byte(c - 'a' + 10)
		case c >= 'A' && c <= 'F':
			t[c] = byte(c - 'A' + 10)
		default:
			t[c] = 0xff
		}
	}
	return t
}()

// runesLen is the length of the run of runes beyond ASCII that b starts with, or 0 when the
// run is not valid UTF-8.
func runesLen(b []byte) int {
	n := 0
	for n < len(b) && b[n] >= utf8.RuneSelf {
		w := runeLen(b[n:])
		if w == 0 {
			return 0
		}
		n += w
	}
	return n
}

// runeLen is the length of the one rune beyond ASCII that b starts with, or 0. It spares the
// decoding that utf8.DecodeRune does.
func runeLen(b []byte) int {
	switch c := b[0]; {
	case c < 0xc2:
		return 0
	case c < 0xe0:
		if len(b) >= 2 && b[1]&0xc0 == 0x80 {
			return 2
		}
	case c < 0xf0:
		if len(b) < 3 || b[1]&0xc0 != 0x80 || b[2]&0xc0 != 0x80 {
			return 0
		}
		if r := uint(c&0x0f)<<12 | uint(b[1]&0x3f)<<6; r >= 0x800 && r&0xf800 != 0xd800 {
			return 3
		}
	case c < 0xf5:
		if len(b) < 4 || b[1]&0xc0 != 0x80 || b[2]&0xc0 != 0x80 || b[3]&0xc0 != 0x80 {
			return 0
		}
		if r := uint(c&0x07)<<18 | uint(b[1]&0x3f)<<12; r >= 0x10000 && r <= utf8.MaxRune {
			return 4
		}
	}
	return 0
}
