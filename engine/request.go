package engine

import (
	"bytes"
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
	var req Request
	var sent bool
	scratch := takeBuffer()
	d := decoder{b: b, buf: *scratch}
	defer func() {
		*scratch = d.buf
		scratch.release()
	}()
	err := d.whole(func() error {
		return d.object(func(name string) (err error) {
			switch name {
			case "query":
				sent, err = d.text(&req.Query)
			case "documentId":
				_, err = d.text(&req.DocumentID)
			case "operationName":
				_, err = d.text(&req.OperationName)
			case "variables":
				req.Variables, err = d.fields()
			case "extensions":
				req.Extensions, err = d.fields()
			default:
				_, err = d.value()
			}
			return err
		})
	})
	if err == nil && !sent && !req.named() {
		err = errRequest
	}
	if err != nil {
		return nil, err
	}
	return &req, nil
}

// named reports whether the document is named by its id, and need not be sent.
func (r *Request) named() bool { return r.DocumentID != "" || r.Extensions["persistedQuery"] != nil }

// maxValues bounds the values in a request: one may be two bytes of it, and takes a hundred of
// memory. Our decision: a full batch of submissions has some 300.
const maxValues = 20_000

var errValues = fault.New(fault.QueryTooCostly, "The request has more than %d values in its lists and objects. Ask in parts.", maxValues).With("limit", maxValues)

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
