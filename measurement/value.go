package measurement

import (
	"bytes"
	"encoding/json"
	"iter"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/openvantage/vantage/jsonlex"
)

// A value is one JSON value of a scanned document. The zero value is absent: every method may be
// called on it, and on values of any kind. Where a name says "none", missing and null are alike.
type value struct {
	doc *doc
	at  uint32
}

func (v value) token() token {
	if v.doc == nil {
		return token{}
	}
	return v.doc.tokens[v.at]
}

func (v value) kind() kind { return v.token().kind }

func (v value) exists() bool { return v.doc != nil }

// none is true for a missing value and for null.
func (v value) none() bool { return v.kind() <= nullKind }

// raw is the value as it stands in the body; a string's is without quotes.
func (v value) raw() []byte {
	if v.doc == nil {
		return nil
	}
	t := v.token()
	return v.doc.body[t.start:t.end]
}

// get is the member of an object with that key. Of several, the last counts, as in Python.
func (v value) get(key string) value {
	var found value
	t := v.token()
	if t.kind != objectKind {
		return found
	}
	// Not a range over members: this is where values are read from.
	for k := v.at + 1; k < t.next; k = v.doc.tokens[k+1].next {
		if name := &v.doc.tokens[k]; (name.escaped || int(name.end-name.start) == len(key)) && (value{v.doc, k}).is(key) {
			found = value{v.doc, k + 1}
		}
	}
	return found
}

// members yields the keys of an object with their values, duplicates included.
func (v value) members() iter.Seq2[value, value] {
	return func(yield func(value, value) bool) {
		t := v.token()
		if t.kind != objectKind {
			return
		}
		for k := v.at + 1; k < t.next; k = v.doc.tokens[k+1].next {
			if !yield(value{v.doc, k}, value{v.doc, k + 1}) {
				return
			}
		}
	}
}

// distinct yields the members of an object whose key is wanted, as a Python dict has them: each key
// once, where it first stands, with its last value.
func distinct(object value, wanted func(key value) bool) iter.Seq2[value, value] {
	return func(yield func(value, value) bool) {
		type entry struct{ key, value value }
		var all []entry
		at := map[string]int{}
		for k, m := range object.members() {
			if !wanted(k) {
				continue
			}
			name := k.text()
			if i, ok := at[name]; ok {
				all[i].value = m
				continue
			}
			at[name] = len(all)
			all = append(all, entry{k, m})
		}
		for _, e := range all {
			if !yield(e.key, e.value) {
				return
			}
		}
	}
}

// items yields the items of an array.
func (v value) items() iter.Seq[value] {
	return func(yield func(value) bool) {
		t := v.token()
		if t.kind != arrayKind {
			return
		}
		for i := v.at + 1; i < t.next; i = v.doc.tokens[i].next {
			if !yield(value{v.doc, i}) {
				return
			}
		}
	}
}

// empty is true for an array, object or string that holds nothing.
func (v value) empty() bool {
	switch t := v.token(); t.kind {
	case arrayKind, objectKind:
		return t.next == v.at+1
	case stringKind:
		return t.start == t.end
	}
	return false
}

// is reports whether the value is that string.
func (v value) is(s string) bool {
	t := v.token()
	if t.kind != stringKind {
		return false
	}
	if !t.escaped {
		return string(v.raw()) == s
	}
	return int(t.end-t.start) <= len(`\uffff`)*len(s) && v.text() == s
}

// oneOf reports whether the value is one of those strings.
func (v value) oneOf(all ...string) bool {
	for _, s := range all {
		if v.is(s) {
			return true
		}
	}
	return false
}

// text is the string, or "" for what is no string. It is valid UTF-8: half a surrogate pair
// becomes U+FFFD.
func (v value) text() string {
	t := v.token()
	if t.kind != stringKind {
		return ""
	}
	if !t.escaped {
		return string(v.raw())
	}
	b, _ := jsonlex.AppendUnescaped(nil, v.raw())
	return string(bytes.ReplaceAll(b, []byte{jsonlex.LoneSurrogate}, []byte(string(utf8.RuneError))))
}

// number is the value of a number that a float64 can hold.
func (v value) number() (float64, bool) {
	if v.kind() != numberKind {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(v.raw()), 64)
	return f, err == nil
}

// truthy is Python's bool().
func (v value) truthy() bool {
	switch v.kind() {
	case trueKind:
		return true
	case numberKind:
		return !v.equals(0)
	case stringKind, arrayKind, objectKind:
		return !v.empty()
	}
	return false
}

// equals is Python's comparison with a number, where False is 0 and True is 1.
func (v value) equals(n float64) bool {
	switch v.kind() {
	case falseKind:
		return n == 0
	case trueKind:
		return n == 1
	}
	f, ok := v.number()
	return ok && f == n
}

// maxCopied bounds what of a body is repeated in its scores.
const maxCopied = 1000

// copied is the value as JSON to be stored beside the body. What PostgreSQL's jsonb cannot
// hold is changed: U+0000 becomes U+FFFD, a number beyond float64 becomes null. A string is
// cut at maxCopied bytes; a container longer than that becomes null.
func (v value) copied() json.RawMessage {
	switch v.kind() {
	case stringKind:
		return quote(cut(v.text()))
	case numberKind:
		if _, ok := v.number(); !ok {
			return json.RawMessage("null")
		}
	case arrayKind, objectKind:
		if bytes.Contains(v.raw(), []byte(`\u0000`)) {
			return json.RawMessage("null")
		}
	}
	if raw := v.raw(); raw != nil && len(raw) <= maxCopied {
		return bytes.Clone(raw)
	}
	return json.RawMessage("null")
}

// cut is s without U+0000 and without what lies beyond maxCopied bytes.
func cut(s string) string {
	return strings.ReplaceAll(cutTo(s, maxCopied), "\x00", string(utf8.RuneError))
}

// cutTo is s without what lies beyond n bytes, and without half a rune.
func cutTo(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
