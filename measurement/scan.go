package measurement

import (
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/jsonlex"
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
	scratch := tokenScratches.Get().(*[]token)
	s := scanner{body: body, depth: lim.MaxDepth, values: lim.MaxValues, tokens: (*scratch)[:0:min(cap(*scratch), lim.MaxValues)]}
	defer func() {
		if cap(s.tokens) <= maxTokenScratch {
			*scratch = s.tokens
			tokenScratches.Put(scratch)
		}
	}()
	at := s.value(s.skipSpace(0))
	if at == failed {
		return nil, s.fault()
	}
	if at = s.skipSpace(at); at != len(body) {
		s.fail(at, "has something after its end")
		return nil, s.fault()
	}
	return &doc{body: body, tokens: slices.Clone(s.tokens)}, nil
}

// tokenScratches are where tokens are written first, for their number is known only at the end. Larger ones than
// maxTokenScratch, 1 MB, are not kept.
var tokenScratches = sync.Pool{New: func() any { return new([]token) }}

const maxTokenScratch = 1 << 16

// A scanner descends through a body by recursion. Methods are told where to read and say where they came to, or
// failed: the place stays in a register so.
type scanner struct {
	body   []byte
	tokens []token
	depth  int // containers that may still be opened
	values int // values and keys that there may be
	marks  jsonlex.Marker

	at    int      // where it is wrong
	wrong string   // what is, as the end of a sentence
	path  []string // where, innermost first
}

// failed is no place.
const failed = -1

// fail notes what is wrong, unless the body has simply ended.
func (s *scanner) fail(at int, wrong string) int {
	s.at, s.wrong = at, wrong
	if at >= len(s.body) {
		s.wrong = "is cut short"
	}
	return failed
}

// inside notes, while a failure travels up, which member or item it came from.
func (s *scanner) inside(step string) int {
	s.path = append(s.path, step)
	return failed
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

func (s *scanner) skipSpace(at int) int {
	for at < len(s.body) && s.body[at] <= ' ' && 1<<s.body[at]&(1<<' '|1<<'\n'|1<<'\r'|1<<'\t') != 0 {
		at++
	}
	return at
}

// peek is the byte there, or 0 at the end, which starts nothing in JSON.
func (s *scanner) peek(at int) byte {
	if at < len(s.body) {
		return s.body[at]
	}
	return 0
}

// add adds the token of a value that holds no others, and says where to go on, or failed.
func (s *scanner) add(k kind, start, end int, escaped bool, next int) int {
	i := len(s.tokens)
	if i == cap(s.tokens) && !s.grow(start) {
		return failed
	}
	// Field by field: what is written in parts cannot be copied as a whole for some time.
	s.tokens = s.tokens[:i+1]
	t := &s.tokens[i]
	t.start, t.end, t.next, t.kind, t.escaped = uint32(start), uint32(end), uint32(i+1), k, escaped
	return next
}

// grow makes room for tokens, if there may be more.
func (s *scanner) grow(at int) bool {
	if len(s.tokens) >= s.values {
		s.fail(at, "has too many values")
		return false
	}
	s.tokens = slices.Grow(s.tokens, 1)
	s.tokens = s.tokens[:len(s.tokens):min(cap(s.tokens), s.values)]
	return true
}

// value reads one value.
func (s *scanner) value(at int) int {
	c := s.peek(at)
	if c == '"' {
		return s.string(at)
	}
	switch c {
	case '{':
		return s.container(at, objectKind, '}')
	case '[':
		return s.container(at, arrayKind, ']')
	case 't':
		return s.word(at, "true", trueKind)
	case 'f':
		return s.word(at, "false", falseKind)
	case 'n':
		return s.word(at, "null", nullKind)
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return s.number(at)
	}
	return s.fail(at, "has no value where one must be")
}

func (s *scanner) word(at int, w string, k kind) int {
	end := at
	for j := range len(w) {
		if s.peek(end) != w[j] {
			return s.fail(end, "has an unknown word")
		}
		end++
	}
	return s.add(k, at, end, false, end)
}

func (s *scanner) number(at int) int {
	start := at
	if s.peek(at) == '-' {
		at++
	}
	if s.peek(at) == '0' {
		at++
	} else if at = s.digits(at); at == failed {
		return failed
	}
	if s.peek(at) == '.' {
		if at = s.digits(at + 1); at == failed {
			return failed
		}
	}
	if s.peek(at)|0x20 == 'e' {
		at++
		if c := s.peek(at); c == '+' || c == '-' {
			at++
		}
		if at = s.digits(at); at == failed {
			return failed
		}
	}
	return s.add(numberKind, start, at, false, at)
}

// digits reads one digit or more.
func (s *scanner) digits(at int) int {
	from := at
	for at < len(s.body) && s.body[at]-'0' <= 9 {
		at++
	}
	if at == from {
		return s.fail(at, "has a number without digits")
	}
	return at
}

// container reads a list or an object, which end closes.
func (s *scanner) container(at int, k kind, end byte) int {
	if s.depth--; s.depth < 0 {
		return s.fail(at, "is nested too deep")
	}
	i := len(s.tokens)
	if at = s.add(k, at, 0, false, at+1); at == failed {
		return failed
	}
	at = s.skipSpace(at)
	for n := 0; n > 0 || s.peek(at) != end; n++ {
		if k == objectKind {
			at = s.member(at)
		} else if at = s.value(at); at == failed {
			return s.inside("[" + strconv.Itoa(n) + "]")
		}
		if at == failed {
			return failed
		}
		at = s.skipSpace(at)
		c := s.peek(at)
		if c == end {
			break
		}
		if c != ',' {
			return s.fail(at, "has a list or an object without a comma or end")
		}
		at = s.skipSpace(at + 1)
	}
	s.depth++
	s.tokens[i].end, s.tokens[i].next = uint32(at+1), uint32(len(s.tokens))
	return at + 1
}

// member reads a key, a colon and a value.
func (s *scanner) member(at int) int {
	if s.peek(at) != '"' {
		return s.fail(at, "has an object with something that is no key")
	}
	key := len(s.tokens)
	if at = s.string(at); at == failed {
		return failed
	}
	if at = s.skipSpace(at); s.peek(at) != ':' {
		return s.fail(at, "has a key without a colon")
	}
	if at = s.value(s.skipSpace(at + 1)); at == failed {
		t := s.tokens[key]
		return s.inside("." + string(s.body[t.start:t.end]))
	}
	return at
}

// string reads a string or a key, which starts at a quote.
func (s *scanner) string(at int) int {
	end, escaped, flaw := s.marks.StringEnd(s.body, at+1)
	if flaw != jsonlex.Sound {
		return s.fail(end, string(flaw))
	}
	return s.add(stringKind, at+1, end, escaped, end+1)
}
