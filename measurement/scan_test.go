package measurement

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// deep has the depth that encoding/json allows, so that both agree.
var deep = Limits{MaxBytes: maxBytes, MaxDepth: 10_000, MaxValues: 1 << 30, MaxTextBytes: maxBytes}

// decode is what encoding/json would make of v with UseNumber.
func decode(v value) any {
	switch v.kind() {
	case falseKind, trueKind:
		return v.kind() == trueKind
	case numberKind:
		return json.Number(v.raw())
	case stringKind:
		return v.text()
	case arrayKind:
		list := []any{}
		for i := range v.items() {
			list = append(list, decode(i))
		}
		return list
	case objectKind:
		m := map[string]any{}
		for k, v := range v.members() {
			m[k.text()] = decode(v)
		}
		return m
	}
	return nil
}

// checkAgainstStandard demands that scan and encoding/json agree whether data is JSON and what
// it says. Only bytes that are not UTF-8 are judged otherwise: encoding/json replaces them.
func checkAgainstStandard(t *testing.T, data []byte) {
	t.Helper()
	d, err := scan(data, deep)
	if want := json.Valid(data) && utf8.Valid(data); want != (err == nil) {
		t.Fatalf("scan of %.200q: %v, encoding/json finds it valid: %v", data, err, want)
	}
	if err != nil {
		return
	}
	var want any
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := decoder.Decode(&want); err != nil {
		t.Fatal(err)
	}
	// cmp.Diff takes exponential time in the depth.
	if got := decode(value{doc: d}); !reflect.DeepEqual(got, want) {
		t.Fatalf("scan of %.200q = %.500v, encoding/json has %.500v", data, got, want)
	}
}

var scanSeeds = []string{
	`{}`, `[]`, ` [ 1 , 2 ] `, `{"a":{"b":[true,false,null]},"a":1}`, `-0`, `1.5e-7`, `1E+2`, `01`, `1.`, `.5`, `-`, `1e`, `+1`,
	`"\u00e9\ud83d\ude00\ud800\udc00\ud800x\udc00"`, `"\"\\\/\b\f\n\r\t"`, `"\x"`, `"\u12"`, `"`, `"abc`, `tru`, `nulll`, `[1,]`,
	`{"a"}`, `{"a":}`, `{,}`, `{"":{"":[]}}`, "\"\x01\"", "\"\xff\"", "\"é€😀\"", "\"\xed\xa0\x80\"", "\"\xf4\x8f\xbf\xbf\"", "\"\xf0\x8f\xbf\xbf\"",
	"\"\xe0\x9f\xbf\"", "\"\xef\xbf\xbe\"", "\"\xc2\"", "\"\xe2\x82\"", "\ufeff{}", `"aaaaaaa\u003caaaaaaaa\n"`, `"\u0000"`,
	strings.Repeat("[", 50) + strings.Repeat("]", 50), strings.Repeat(`{"a":`, 50), `"` + strings.Repeat("é", 20) + `"`,
	`["` + strings.Repeat(`\\`, 100) + `","` + strings.Repeat(`\"`, 100) + `"]`, `"` + strings.Repeat("x", 4090) + `\u00e9\\"`,
}

func TestScan(t *testing.T) {
	t.Parallel()
	for _, seed := range scanSeeds {
		checkAgainstStandard(t, []byte(seed))
	}
	t.Run("every pair of bytes in a text", func(t *testing.T) {
		t.Parallel()
		for pair := range 1 << 16 {
			checkAgainstStandard(t, []byte{'"', byte(pair >> 8), byte(pair), '"'})
		}
	})
	t.Run("every rune, plain and escaped", func(t *testing.T) {
		t.Parallel()
		for r := rune(0); r <= utf8.MaxRune; r += 13 {
			plain, _ := json.Marshal(string(r) + "aaaaaaa" + string(r))
			checkAgainstStandard(t, plain)
			if r < 0x10000 {
				checkAgainstStandard(t, []byte(`"\u`+hex4(r)+`"`))
			}
		}
	})
	t.Run("a quote at every offset of a block, and where chunks of blocks meet", func(t *testing.T) {
		t.Parallel()
		for n := range 140 {
			for _, special := range []string{"", `\n`, `\\`, `é`, `\"`, `\\\"`, `\ud83d\ude00`, `\x`, `\u12`, "\xe2\x82", "\x1f", "\x7f"} {
				for _, before := range []int{0, 4096 - 70} {
					checkAgainstStandard(t, []byte(`"`+strings.Repeat("x", before+n)+special+strings.Repeat("y", 140-n)+`"`))
					checkAgainstStandard(t, []byte(`"`+strings.Repeat("x", before+n)+special))
				}
			}
		}
	})
}

func hex4(r rune) string {
	const digits = "0123456789aBcDeF"
	return string([]byte{digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15]})
}

func FuzzScan(f *testing.F) {
	for _, seed := range scanSeeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) { checkAgainstStandard(t, data) })
}

func TestAppendBase64(t *testing.T) {
	t.Parallel()
	// What Python 3.11 gives; "!" is its error.
	for in, want := range map[string]string{
		"": "", "YQ==": "a", "YWI=": "ab", "YWJj": "abc", "YWJjZA==": "abcd",
		"Y W\nJ*j": "abc", "YQ==YQ==": "a", "YQ=x=": "a\x0c", "Y=Q==": "a", "=YQ==": "a", "====": "", "YWJj=": "abc", "YWJj==YQ==": "abca",
		"YQ": "!", "YQ=": "!", "YWI": "!", "Y": "!", "Y===": "!", "YWJjY": "!", "YQ=Q": "!", "YQ=Q=": "a\x04",
	} {
		got, err := appendBase64([]byte("."), []byte(in))
		if want == "!" {
			if !errors.Is(err, errBase64) {
				t.Errorf("appendBase64(%q) = %q, %v, want an error", in, got, err)
			}
			continue
		}
		if err != nil || string(got) != "."+want {
			t.Errorf("appendBase64(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestVersionCompare(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int{
		"3.17.2": 0, "v3.17.2": 0, "\t3.17.2\n": 0, "3.17.2.0.0": 0, "03.017.2": 0, "0!3.17.2": 0,
		"3.17.1": -1, "3.9.9": -1, "3.17": -1, "3": -1, "0": -1, "3.17.2a1": -1, "3.17.2-beta.1": -1, "3.17.2.dev3": -1, "3.17.2rc": -1,
		"3.17.3": 1, "3.17.10": 1, "3.17.2.1": 1, "4": 1, "3.17.2.post1": 1, "3.17.2-1": 1, "3.17.2+local": 1, "1!0": 1,
		"3.17.2.post1.dev2": 1, "99999999999999999999": 1,
	} {
		v, ok := parseVersion(in)
		if got := v.compare("3.17.2"); !ok || got != want {
			t.Errorf("%q compares as %d, %v, want %d", in, got, ok, want)
		}
	}
	for _, in := range []string{"", "x", "3.17.2-", "3..1", "3.17.2 x", "3.17.2-gamma", "3.17.2+", "-1", "1.2.3-rc.1.2"} {
		if v, ok := parseVersion(in); ok {
			t.Errorf("%q is read as %v", in, v)
		}
	}
}

func TestNetloc(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", "https://example.org": "example.org", "https://example.org/": "example.org", "http://example.org:8080?x": "example.org:8080",
		"HTTP://Example.org#x": "Example.org", "//example.org/x": "example.org", "example.org": "", "example.org:443": "", "example.org/x": "",
		"dot://user:pass@example.org:853/": "user:pass@example.org:853", "https://[2001:db8::1]:443/": "[2001:db8::1]:443",
		"https://[2001:db8::1/": "", "\x20https://example.org": "example.org", "ht\ntps://exa\tmple.org": "example.org",
		"1ttp://example.org": "", "stun+x.y-z://example.org": "example.org", "http:/example.org": "", "http:///x": "", "https://exämple.org": "exämple.org",
	} {
		if got := Netloc(in); got != want {
			t.Errorf("Netloc(%q) = %q, want %q", in, got, want)
		}
	}
}
