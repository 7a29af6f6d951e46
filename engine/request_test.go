package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/openvantage/vantage/fault"
)

func TestParseRequest(t *testing.T) {
	t.Parallel()

	t.Run("a request is read as it was sent", func(t *testing.T) {
		t.Parallel()
		r, err := parseRequest([]byte(` {"query": "{ p\u00e4 \ud83c\udfc3 }", "operationName": "O", "variables": {"n": 9223372036854775807, "f": 1e400, "l": [null, true]},
			"extensions": {"a": {"b": 1.0}}, "documentId": "sha256:1", "other": [1]} `))
		if err != nil {
			t.Fatal(err)
		}
		if r.Query != "{ pä 🏃 }" || r.OperationName != "O" || r.DocumentID != "sha256:1" {
			t.Errorf("read %+v", r)
		}
		if r.Variables["n"] != json.Number("9223372036854775807") || r.Variables["f"] != json.Number("1e400") {
			t.Errorf("the numbers are %v and %v", r.Variables["n"], r.Variables["f"])
		}
		if text, _ := json.Marshal(r.Extensions); string(text) != `{"a":{"b":1.0}}` {
			t.Errorf("the extensions are %s", text)
		}
	})

	t.Run("null is as good as absent", func(t *testing.T) {
		t.Parallel()
		r, err := parseRequest([]byte(`{"query": "{ping}", "operationName": null, "variables": null, "extensions": null, "documentId": null}`))
		if err != nil || r.OperationName != "" || r.Variables != nil || r.Extensions != nil {
			t.Errorf("read %+v, %v", r, err)
		}
	})

	t.Run("a document may be named instead of sent", func(t *testing.T) {
		t.Parallel()
		for _, body := range []string{`{"documentId": "sha256:1"}`, `{"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "1"}}}`} {
			if _, err := parseRequest([]byte(body)); err != nil {
				t.Errorf("%s: %v", body, err)
			}
		}
	})

	t.Run("what is no request is INVALID and not repeated", func(t *testing.T) {
		t.Parallel()
		for _, body := range []string{
			"", " ", "null", "true", `"secretword"`, "7", "{", "[]", `[{"query": "{ping}"}]`, `{}`, `{"variables": {}}`, `{"query": null}`, `{"query": 1}`,
			`{"query": {"secretword": 1}}`, `{"query": ["{ping}"]}`, `{"query": "{ping}"} {"query": "{ping}"}`, `{"query": "{ping}"} x`, `{"query": "{ping}"}]`,
			`{"query": "{ping}", "variables": []}`, `{"query": "{ping}", "variables": "secretword"}`, `{"query": "{ping}", "variables": 0}`, `{"query": "{ping}", "variables": false}`,
			`{"query": "{ping}", "extensions": []}`, `{"query": "{ping}", "extensions": "secretword"}`, `{"query": "{ping}", "operationName": 7}`,
			`{"query": "{ping}", "operationName": {}}`, `{"query": "{ping}", "documentId": 7}`, `{"query": "secretword`, "{\"query\": \"\xff\"}",
			`{"query": "\ud83c"}`, `{"query": "\ud83cx"}`, `{"query": "{ping}", "variables": {"v": "\udfc3"}}`, `{"query": "{ping}", "variables": {"\ud83c\u0041": 1}}`,
			"\xef\xbb\xbf{\"query\": \"{ping}\"}", strings.Repeat("[", 100_000), `{"query": "{ping}", "variables": {"n": 01}}`, `{"query": "{ping}", "variables": {"n": 1.}}`,
			`{"query": "{ping}", "variables": {"n": -}}`, `{"query": "{ping}",}`, `{"query": "{ping}" "operationName": ""}`, `{query: "{ping}"}`, `{"query": "{ping}", "variables": {"n": tru}}`,
			"{\"query\": \"{ping}\n\"}", `{"query": "\x"}`, `{"query": "\u00g0"}`, `{"query": "{ping}", "variables": {"n": [1,]}}`, `{"query": "{ping}", "variables": {"n": NaN}}`, `{"QUERY": "{ping}"}`,
			`{"query": "{ping}", "variables": {"a": ` + strings.Repeat("[", 15_000) + strings.Repeat("]", 15_000) + "}}",
		} {
			r, err := parseRequest([]byte(body))
			if err == nil {
				t.Errorf("%.60q is read as %+v", body, r)
			} else if !fault.Is(err, fault.Invalid) || strings.Contains(err.Error(), "secretword") || len(err.Error()) > longest {
				t.Errorf("%.60q fails with %v", body, err)
			}
		}
	})
}

func TestValues(t *testing.T) {
	t.Parallel()

	t.Run("values are counted as there are, and decoded as encoding/json does", func(t *testing.T) {
		t.Parallel()
		var count func(v any) int
		count = func(v any) int {
			n := 1
			switch v := v.(type) {
			case []any:
				for _, x := range v {
					n += count(x)
				}
			case map[string]any:
				for _, x := range v {
					n += count(x)
				}
			}
			return n
		}
		text := rapid.SampledFrom([]string{``, `"`, `\`, `\"`, `,[{`, `\\",,"\`, "x"})
		var value func(depth int) *rapid.Generator[any]
		value = func(depth int) *rapid.Generator[any] {
			leaf := rapid.OneOf(text.AsAny(), rapid.SampledFrom([]any{nil, true, 1.5}))
			if depth == 0 {
				return leaf
			}
			return rapid.OneOf(leaf, rapid.SliceOfN(value(depth-1), 0, 4).AsAny(), rapid.MapOfN(text, value(depth-1), 0, 4).AsAny())
		}
		rapid.Check(t, func(t *rapid.T) {
			v := value(3).Draw(t, "value")
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			again, err := standard(b)
			if err != nil {
				t.Fatal(err)
			}
			d := decoder{b: b}
			got, err := d.all()
			if err != nil || !reflect.DeepEqual(got, again) || d.values != count(again) {
				t.Fatalf("%s is decoded to %v with %d values of %d: %v", b, got, d.values, count(again), err)
			}
		})
	})

	t.Run("a request with too many is refused", func(t *testing.T) {
		t.Parallel()
		fits := `{"query": "{ping}", "variables": {"n": [` + strings.Repeat("1,", maxValues-10) + `1]}}`
		if _, err := parseRequest([]byte(fits)); err != nil {
			t.Errorf("%d values: %v", maxValues-10, err)
		}
		for _, body := range []string{
			`{"query": "{ping}", "variables": {"n": [` + strings.Repeat("1,", maxValues) + `1]}}`, `{"query": "", "variables": {"n": [` + strings.Repeat("[],", maxValues), `{"query": ""` + strings.Repeat(`,"query":""`, maxValues) + "}",
		} {
			if _, err := parseRequest([]byte(body)); !fault.Is(err, fault.QueryTooCostly) {
				t.Errorf("%.60s: %v", body, err)
			}
		}
		text, _ := json.Marshal(map[string]any{"query": strings.Repeat(`{"a": [1, 2], "\": "," },`, 100_000)})
		if _, err := parseRequest(text); err != nil {
			t.Errorf("a long text: %v", err)
		}
	})
}

func TestExact(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		``: true, `"a"`: true, `"\\ud83c"`: true, `"\\\ud83c"`: false, `"\ud83c\udfc3"`: true, `"\uD83C\uDFC3"`: true, `"\ud83c\ud83c"`: false, `"\udfc3\ud83c"`: false,
		`"\ud83c`: false, `"\`: true, `"\u00`: true, "\"\xc3\"": false, "\"\xed\xa0\xbc\"": false, `"�"`: true, `"\ufffd"`: true,
	} {
		if got := Exact([]byte(text)); got != want {
			t.Errorf("%q is exact: %v", text, got)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	for _, s := range []string{
		`{"query": "{ping}"}`, `{"query": "{ping}", "operationName": "O", "variables": {"a": [1, 2.5e9, "\ud83c\udfc3"]}, "extensions": {"persistedQuery": {}}}`,
		`{"documentId": "x"}`, `[{"query": "{ping}"}]`, `{"query": "\ud83c"}`, "{\"query\": \"\xff\"}", `{"query": "{ping}"} {}`, `{"QUERY": "", "variables": {"": {}}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		kept := bytes.Clone(b)
		r, err := parseRequest(b)
		if !bytes.Equal(b, kept) {
			t.Fatal("the body was changed")
		}
		if err != nil {
			if !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.QueryTooCostly) || len(err.Error()) > longest {
				t.Errorf("it fails with %v", err)
			}
			return
		}
		if !json.Valid(b) || !utf8.Valid(b) || bytes.TrimLeft(b, " \t\r\n")[0] != '{' {
			t.Errorf("%q was read", b)
		}
		if !bytes.ContainsRune(b, utf8.RuneError) && !bytes.Contains(bytes.ToLower(b), []byte(`\ufffd`)) {
			text, err := json.Marshal(r)
			if err != nil || bytes.ContainsRune(text, utf8.RuneError) || bytes.Contains(text, []byte(`\ufffd`)) {
				t.Errorf("%q lost something: %s, %v", b, text, err)
			}
		}
		clear(b)
		if !utf8.ValidString(r.Query) || strings.Contains(r.Query, "\x00\x00\x00\x00\x00\x00\x00\x00") && !bytes.Contains(kept, []byte("u0000")) {
			t.Error("the request shares memory with the body")
		}
	})
}

// all decodes one value.
func (d *decoder) all() (v any, err error) {
	err = d.whole(func() error {
		v, err = d.value()
		return err
	})
	return v, err
}

// standard is what encoding/json makes of it.
func standard(b []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err = d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errRequest
	}
	return v, nil
}

// FuzzDecode: whatever can be decoded without loss is decoded as encoding/json does, and nothing else is.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		` {"a": [1, -2.50e+9, true, false, null, "\ud83c\udfc3\u0000\"\\\/\b\f\n\r\t", "é"], "": {}, "a": [[], {}]} `, `"\ud83c"`, "\"\xff\"", "1 2", "-", "0.e", "\"a\u0001\"", "[1,]", "nul", "01",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d := decoder{b: b}
		got, err := d.all()
		want, wrong := standard(b)
		if fault.Is(err, fault.QueryTooCostly) {
			return
		}
		if (err == nil) != (wrong == nil && Exact(b)) || err == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%q is decoded to %v, %v; encoding/json says %v, %v", b, got, err, want, wrong)
		}
	})
}

// submission is a request with a body of 6 kB in it, the median of real ones.
func submission() []byte {
	page, _ := json.Marshal(strings.Repeat(`<div class="row">8f14e45fceea167a5a36dedd4bea2543</div> lorem ipsum dolor sit amet, `, 40))
	entry := `{"engine": "system", "hostname": "www.example.org", "failure": null, "answers": [{"answer_type": "A", "ipv4": "192.0.2.1"}], "t": 0.1}`
	content := `{"test_keys": {"queries": [` + entry + strings.Repeat(","+entry, 15) + `], "body": ` + string(page) + `}}`
	b, _ := json.Marshal(map[string]any{
		"query": `mutation Submit($input: SubmitMeasurementInput!) { submitMeasurement(input: $input) { measurement { uid } duplicate } }`, "variables": map[string]any{"input": map[string]any{"content": content}},
	})
	return b
}

func BenchmarkParseRequest(b *testing.B) {
	request := submission()
	b.Run("ours", func(b *testing.B) {
		b.SetBytes(int64(len(request)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := parseRequest(request); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		b.SetBytes(int64(len(request)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := standard(request); err != nil {
				b.Fatal(err)
			}
		}
	})
}
