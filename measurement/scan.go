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

// docs are free ones. Their tokens are half of what a body makes us allocate, if they are not used again.
var docs = sync.Pool{New: func() any { return new(doc) }}

// Bounds of the tokens of a doc: what is made room for at first, 4 kB, and what is kept for the next, 1 MB.
const (
	minTokens = 1 << 8
	maxTokens = 1 << 16
)

// release gives the doc back. Nobody may have a value of it.
func (d *doc) release() {
	if cap(d.tokens) <= maxTokens {
		d.body = nil
		docs.Put(d)
	}
}

// scan reads body, which must be one JSON value (RFC 8259) in valid UTF-8, in a single
// pass. It fails with INVALID at the path of the offending value. The doc refers to body.
func scan(body []byte, lim Limits) (*doc, error) {
	d := docs.Get().(*doc)
	s := scanner{body: body, depth: lim.MaxDepth, values: lim.MaxValues, tokens: d.tokens[:0:min(cap(d.tokens), lim.MaxValues)]}
	at := s.run(s.skipSpace(0))
	if at != failed {
		if at = s.skipSpace(at); at != len(body) {
			at = s.fail(at, "has something after its end")
		}
	}
	d.body, d.tokens = body, s.tokens
	if at == failed {
		err := s.fault()
		d.release()
		return nil, err
	}
	return d, nil
}

// A scanner goes through a body from value to value. Methods are told where to read and say where they came to, or
// failed: the place stays in a register so.
type scanner struct {
	body   []byte
	tokens []token
	depth  int // containers that may still be opened
	values int // values and keys that there may be
	marks  jsonlex.Marker
	open   uint32 // the innermost container that is not closed; the token of one that is open has in next what it is in

	at      int    // where it is wrong
	wrong   string // what is, as the end of a sentence
	inValue bool   // it is in a value of the innermost container, not between them
}

// outermost is the place of no container.
const outermost = ^uint32(0)

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

// path is the keys and indices that lead to what is wrong.
func (s *scanner) path() (steps []string) {
	value := uint32(len(s.tokens))
	for in := s.open; in != outermost; value, in = in, s.tokens[in].next {
		switch {
		case value == uint32(len(s.tokens)) && !s.inValue:
		case s.tokens[in].kind == objectKind:
			key := s.tokens[value-1]
			steps = append(steps, "."+string(s.body[key.start:key.end]))
		default:
			n := 0
			for at := in + 1; at < value; at = s.tokens[at].next {
				n++
			}
			steps = append(steps, "["+strconv.Itoa(n)+"]")
		}
	}
	slices.Reverse(steps)
	return steps
}

// maxPath bounds the bytes of a path in a message: keys are the sender's.
const maxPath = 200

func (s *scanner) fault() error {
	var path string
	for _, step := range s.path() {
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

// add adds the token of a value or a key that holds no others. There must be room.
func (s *scanner) add(k kind, start, end int, escaped bool) {
	i := len(s.tokens)
	// Field by field: what is written in parts cannot be copied as a whole for some time.
	s.tokens = s.tokens[:i+1]
	t := &s.tokens[i]
	t.start, t.end, t.next, t.kind, t.escaped = uint32(start), uint32(end), uint32(i+1), k, escaped
}

// grow makes room for a token, if there may be more.
func (s *scanner) grow() bool {
	if len(s.tokens) >= s.values {
		return false
	}
	s.tokens = slices.Grow(s.tokens, max(minTokens, len(s.tokens)))
	s.tokens = s.tokens[:len(s.tokens):min(cap(s.tokens), s.values)]
	return true
}

// run reads one value and all it holds.
func (s *scanner) run(at int) int {
	s.open = outermost
	end := byte(0) // what closes s.open
	isKey := false // what comes is a key, not a value
	for {
		s.inValue = !isKey
		if len(s.tokens) == cap(s.tokens) && !s.grow() {
			return s.fail(at, "has too many values")
		}
		c := s.peek(at)
		switch {
		case c == '"':
			from, escaped := at+1, false
			if at = s.marks.PlainEnd(from); at < 0 {
				var flaw jsonlex.Flaw
				if at, escaped, flaw = s.marks.StringEnd(s.body, from); flaw != jsonlex.Sound {
					return s.fail(at, string(flaw))
				}
			}
			s.add(stringKind, from, at, escaped)
			at++
			if isKey {
				if at = s.skipSpace(at); s.peek(at) != ':' {
					return s.fail(at, "has a key without a colon")
				}
				at = s.skipSpace(at + 1)
				isKey = false
				continue
			}
		case isKey:
			return s.fail(at, "has an object with something that is no key")
		case c == '{' || c == '[':
			if at = s.container(at, c); at == failed {
				return failed
			}
			end = c + 2 // in ASCII
			if s.peek(at) != end {
				isKey = end == '}'
				continue
			}
		default:
			if at = s.scalar(at, c); at == failed {
				return failed
			}
		}
		s.inValue = false
		for { // what is closed behind the value
			if s.open == outermost {
				return at
			}
			at = s.skipSpace(at)
			c := s.peek(at)
			if c == ',' {
				at = s.skipSpace(at + 1)
				isKey = end == '}'
				break
			}
			if c != end {
				return s.fail(at, "has a list or an object without a comma or end")
			}
			at++
			end = s.close(at)
		}
	}
}

// container opens a list or an object and goes to the first thing in it.
func (s *scanner) container(at int, c byte) int {
	if s.depth--; s.depth < 0 {
		return s.fail(at, "is nested too deep")
	}
	k := arrayKind
	if c == '{' {
		k = objectKind
	}
	i := uint32(len(s.tokens))
	s.add(k, at, 0, false)
	s.tokens[i].next, s.open = s.open, i
	return s.skipSpace(at + 1)
}

// close closes the innermost container, and says what closes the one around it.
func (s *scanner) close(at int) byte {
	s.depth++
	t := &s.tokens[s.open]
	s.open, t.end, t.next = t.next, uint32(at), uint32(len(s.tokens))
	switch {
	case s.open == outermost:
		return 0
	case s.tokens[s.open].kind == objectKind:
		return '}'
	}
	return ']'
}

// scalar reads a word or a number, which begins with c.
func (s *scanner) scalar(at int, c byte) int {
	switch c {
	case 't':
		return s.word(at, "true", trueKind)
	case 'f':
		return s.word(at, "false", falseKind)
	case 'n':
		return s.word(at, "null", nullKind)
	}
	end, ok := jsonlex.NumberEnd(s.body, at)
	switch {
	case end == at:
		return s.fail(at, "has no value where one must be")
	case !ok:
		return s.fail(end, "has a number without digits")
	}
	s.add(numberKind, at, end, false)
	return end
}

func (s *scanner) word(at int, w string, k kind) int {
	end := at
	for j := range len(w) {
		if s.peek(end) != w[j] {
			return s.fail(end, "has an unknown word")
		}
		end++
	}
	s.add(k, at, end, false)
	return end
}
