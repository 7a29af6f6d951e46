package jsonlex_test

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/openvantage/vantage/jsonlex"
)

// FuzzString: a string is sound when encoding/json takes it and it is UTF-8, and says the same, but for
// half surrogate pairs.
func FuzzString(f *testing.F) {
	for _, s := range []string{
		``, `"`, `plain and longer than eight bytes"`, `\"\\\/\b\f\n\r\t"`, `\u0000\u00e9\ud83c\udfc3 é 🏃"`, `\ud83c"`, `\udfc3\ud83c"`, "\x1f\"", "\xff\"", "\xc0\x80\"", "\xed\xa0\x80\"", `\x"`, `\u12"`, `1234567\"8"`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		end, escaped, flaw := new(jsonlex.Marker).StringEnd(b, 0)
		if flaw != jsonlex.Sound {
			for i := range b { // no quote ends a string that encoding/json takes
				if b[i] == '"' && json.Valid(append([]byte{'"'}, b[:i+1]...)) && utf8.Valid(b[:i]) {
					t.Fatalf("%q %s, and is a string", b, flaw)
				}
			}
			return
		}
		var want string
		if err := json.Unmarshal(append([]byte{'"'}, b[:end+1]...), &want); err != nil || !utf8.Valid(b[:end]) {
			t.Fatalf("%q is sound, and %v", b[:end], err)
		}
		text, whole := jsonlex.AppendUnescaped([]byte("x"), b[:end])
		if !escaped && string(text[1:]) != string(b[:end]) {
			t.Fatalf("%q says %q", b[:end], text[1:])
		}
		if whole && string(text[1:]) != want {
			t.Fatalf("%q says %q, and %q to encoding/json", b[:end], text[1:], want)
		}
	})
}

// FuzzNumber: a number ends where encoding/json takes what lies before, and no longer one.
func FuzzNumber(f *testing.F) {
	for _, s := range []string{"", "0", "01", "-", "-0.5e+7x", "1.", "1e", "12345678901234567890", ".5", "1E5", "2-"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		end, ok := jsonlex.NumberEnd(b, 0)
		if ok && !json.Valid(b[:end]) {
			t.Fatalf("%q is a number of %d bytes", b, end)
		}
		number := len(b) > 0 && (b[0] == '-' || b[0]-'0' <= 9) && json.Valid(b) && b[len(b)-1]-'0' <= 9
		if number && (!ok || end != len(b)) {
			t.Fatalf("%q is no number, or one of %d bytes", b, end)
		}
	})
}
