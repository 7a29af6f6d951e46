package engine

import (
	"encoding/json"

	"github.com/openvantage/vantage/jsonlex"
)

// A decoder reads JSON into what variables are: nil, bool, json.Number, string, []any and map[string]any.
// Numbers stay as they were written, for a float would lose some of 64 bits. What cannot be decoded without loss
// fails. It counts values as it goes, so that what is too much is never built. encoding/json
// reads the text three times, and was a sixth of what a submission costs.
type decoder struct {
	b      []byte
	at     int
	values int
	depth  int
	marks  jsonlex.Marker
	buf    []byte // of texts with escapes
}

// maxDepth is encoding/json's.
const maxDepth = 10_000

// whole reads one value with read, and fails when anything follows.
func (d *decoder) whole(read func() error) error {
	d.space()
	if err := read(); err != nil {
		return err
	}
	if d.space(); d.at < len(d.b) {
		return errRequest
	}
	return nil
}

func (d *decoder) space() {
	for d.at < len(d.b) {
		switch d.b[d.at] {
		case ' ', '\n', '\r', '\t':
			d.at++
		default:
			return
		}
	}
}

// peek is the next byte, and 0 at the end, which begins nothing.
func (d *decoder) peek() byte {
	if d.at < len(d.b) {
		return d.b[d.at]
	}
	return 0
}

// is steps over the byte, if it is the next.
func (d *decoder) is(c byte) bool {
	if d.peek() != c {
		return false
	}
	d.at++
	return true
}

// word steps over the word, which must be next.
func (d *decoder) word(w string) error {
	if len(d.b)-d.at < len(w) || string(d.b[d.at:d.at+len(w)]) != w {
		return errRequest
	}
	d.at += len(w)
	return nil
}

func (d *decoder) count() error {
	if d.values++; d.values > maxValues {
		return errValues
	}
	return nil
}

func (d *decoder) value() (any, error) {
	switch d.peek() {
	case '{':
		return d.fields()
	case '[':
		return d.list()
	}
	if err := d.count(); err != nil {
		return nil, err
	}
	switch d.peek() {
	case '"':
		return d.string()
	case 't':
		return true, d.word("true")
	case 'f':
		return false, d.word("false")
	case 'n':
		return nil, d.word("null")
	}
	end, ok := jsonlex.NumberEnd(d.b, d.at)
	if !ok {
		return nil, errRequest
	}
	n := json.Number(d.b[d.at:end])
	d.at = end
	return n, nil
}

// text reads a string or null, and says which.
func (d *decoder) text(to *string) (given bool, err error) {
	if err := d.count(); err != nil {
		return false, err
	}
	*to = ""
	if d.peek() == 'n' {
		return false, d.word("null")
	}
	*to, err = d.string()
	return true, err
}

func (d *decoder) string() (string, error) {
	if !d.is('"') {
		return "", errRequest
	}
	end, escaped, flaw := d.marks.StringEnd(d.b, d.at)
	if flaw != jsonlex.Sound {
		return "", errRequest
	}
	text := d.b[d.at:end]
	d.at = end + 1
	if !escaped {
		return string(text), nil
	}
	var whole bool
	if d.buf, whole = jsonlex.AppendUnescaped(d.buf[:0], text); !whole {
		return "", errRequest
	}
	return string(d.buf), nil
}

// fields reads an object or null, which is none.
func (d *decoder) fields() (map[string]any, error) {
	if d.peek() == 'n' {
		if err := d.count(); err != nil {
			return nil, err
		}
		return nil, d.word("null")
	}
	out := map[string]any{}
	err := d.object(func(name string) error {
		v, err := d.value()
		out[name] = v
		return err
	})
	return out, err
}

// object reads an object, of which member reads each value.
func (d *decoder) object(member func(name string) error) error {
	return d.items('{', '}', func() error {
		name, err := d.string()
		if err != nil {
			return err
		}
		if d.space(); !d.is(':') {
			return errRequest
		}
		d.space()
		return member(name)
	})
}

func (d *decoder) list() ([]any, error) {
	out := []any{}
	err := d.items('[', ']', func() error {
		v, err := d.value()
		out = append(out, v)
		return err
	})
	return out, err
}

// items reads what stands between brackets, with commas between.
func (d *decoder) items(begin, end byte, item func() error) error {
	if !d.is(begin) {
		return errRequest
	}
	if err := d.count(); err != nil {
		return err
	}
	if d.depth++; d.depth > maxDepth {
		return errRequest
	}
	if d.space(); !d.is(end) {
		for {
			if err := item(); err != nil {
				return err
			}
			if d.space(); d.is(end) {
				break
			}
			if !d.is(',') {
				return errRequest
			}
			d.space()
		}
	}
	d.depth--
	return nil
}
