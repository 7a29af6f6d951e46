package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/openvantage/vantage/fault"
)

var errRequest = fault.New(fault.Invalid,
	"The request is not one JSON object in UTF-8 with a `query`. `query` and `operationName` are strings; `variables` and `extensions` are objects.")

// parseRequest reads a request as HTTP bodies and websocket messages have it. It keeps no
// reference to b, and fails with INVALID, or with QUERY_TOO_COSTLY when there are too many values,
// without repeating any of it.
func parseRequest(b []byte) (*Request, error) {
	var in struct {
		Query         *string        `json:"query"`
		DocumentID    string         `json:"documentId"`
		OperationName string         `json:"operationName"`
		Variables     map[string]any `json:"variables"`
		Extensions    map[string]any `json:"extensions"`
	}
	if err := decode(b, &in); err != nil {
		return nil, err
	}
	req := &Request{DocumentID: in.DocumentID, OperationName: in.OperationName, Variables: in.Variables, Extensions: in.Extensions}
	if in.Query != nil {
		req.Query = *in.Query
	} else if !req.named() {
		return nil, errRequest
	}
	return req, nil
}

// named reports whether the document is named by its id, and need not be sent.
func (r *Request) named() bool { return r.DocumentID != "" || r.Extensions["persistedQuery"] != nil }

// maxValues bounds the values in a request: one may be two bytes of it, and takes a hundred of
// memory. Our decision: a full batch of submissions has some 300.
const maxValues = 20_000

var errValues = fault.New(fault.QueryTooCostly, "The request has more than %d values in its lists and objects. Ask in parts.", maxValues).With("limit", maxValues)

// decode reads one JSON value and nothing after it. Numbers stay as they were written: a float
// would lose some of 64 bits.
func decode(b []byte, to any) error {
	switch n, _ := survey(b); {
	case n > maxValues:
		return errValues
	case !Exact(b):
		return errRequest
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if d.Decode(to) != nil {
		return errRequest
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errRequest
	}
	return nil
}

// survey looks at JSON without decoding it: how many values it has, or more, and how
// long the text of a `query` of the outermost object is, as it is written. A value is the first of
// the text, of a list or of an object, or stands behind a comma. It stops above maxValues.
func survey(b []byte) (values, query int) {
	values = 1
	depth, name := 0, []byte(nil)
	for values <= maxValues {
		text := bytes.IndexByte(b, '"')
		outside := b
		if text >= 0 {
			outside = b[:text]
		}
		for _, c := range outside {
			switch c {
			case '[', '{':
				depth++
				values++
			case ']', '}':
				depth--
			case ',':
				values++
				name = nil
			}
		}
		if text < 0 {
			break
		}
		b = b[text+1:]
		begin := b
		for inside := true; inside; {
			i := bytes.IndexByte(b, '"')
			if i < 0 {
				return values, query
			}
			run := 0
			for run < i && b[i-1-run] == '\\' {
				run++
			}
			inside = run%2 == 1 // the quote is escaped, and of the text
			b = b[i+1:]
		}
		said := begin[:len(begin)-len(b)-1]
		switch {
		case depth != 1:
		case name == nil:
			name = said
		case bytes.EqualFold(name, []byte("query")):
			query = max(query, len(said))
		}
	}
	return values, query
}

// Exact reports whether the strings of this JSON can be decoded without loss. The decoder puts
// U+FFFD in place of what is not UTF-8 and of half a surrogate pair, and so would change a text
// that must be kept as it was sent.
func Exact(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	for {
		i := bytes.IndexByte(b, '\\')
		if i < 0 {
			return true
		}
		b = b[i:]
		switch r := escaped(b); {
		case r < 0 || !utf16.IsSurrogate(r):
			b = b[min(2, len(b)):]
		case len(b) < 12 || utf16.DecodeRune(r, escaped(b[6:])) == utf8.RuneError:
			return false
		default:
			b = b[12:]
		}
	}
}

// escaped is the code unit of the \uXXXX that b begins with; -1 when it begins with none.
func escaped(b []byte) rune {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}
