package web

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/validator/rules"
)

const script = "/assets/graphiql-1a2B3c4D.js"

func bundle(t *testing.T) fstest.MapFS {
	t.Helper()
	files := fstest.MapFS{}
	for name, body := range map[string]string{
		"index.html": "<h1>home</h1>", "graphiql.html": "<h1>graphiql</h1>", "README": "secret", "assets/icon-x.svg": "<svg/>",
		"assets/odd-x.bin": "odd", script[1:]: strings.Repeat("let x = 1\n", 100),
	} {
		files[name] = &fstest.MapFile{Data: []byte(body)}
	}
	for _, name := range []string{"graphiql.html", script[1:]} {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		if _, err := z.Write(files[name].Data); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		files[name+".gz"] = &fstest.MapFile{Data: packed.Bytes()}
	}
	return files
}

func get(t *testing.T, h http.Handler, method, target string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, "http://vantage.test/", nil)
	r.URL.Path = target // as a client may send it, not cleaned
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func read(t *testing.T, r *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestHandler(t *testing.T) {
	t.Parallel()
	files := bundle(t)
	h := newHandler(files)

	t.Run("each document comes with its headers", func(t *testing.T) {
		t.Parallel()
		const forever = "public, max-age=31536000, immutable"
		for target, want := range map[string]http.Header{
			"/":                  {"Content-Type": {"text/html; charset=utf-8"}, "Cache-Control": {"no-cache"}, "Content-Security-Policy": {pagePolicy}},
			"/graphiql":          {"Content-Type": {"text/html; charset=utf-8"}, "Cache-Control": {"no-cache"}, "Content-Security-Policy": {graphiqlPolicy}, "Vary": {"Accept-Encoding"}},
			script:               {"Content-Type": {"text/javascript; charset=utf-8"}, "Cache-Control": {forever}, "Content-Security-Policy": {assetPolicy}, "Vary": {"Accept-Encoding"}},
			"/assets/icon-x.svg": {"Content-Type": {"image/svg+xml"}, "Cache-Control": {forever}, "Content-Security-Policy": {assetPolicy}},
			"/assets/odd-x.bin":  {"Content-Type": {"application/octet-stream"}, "Cache-Control": {forever}, "Content-Security-Policy": {assetPolicy}},
		} {
			r := get(t, h, "GET", target)
			want["X-Content-Type-Options"] = []string{"nosniff"}
			want["Referrer-Policy"] = []string{"no-referrer"}
			want["Accept-Ranges"] = []string{"bytes"}
			body := read(t, r)
			want["Content-Length"] = []string{strconv.Itoa(len(body))}
			got := r.Header.Clone()
			if etag := got.Get("ETag"); len(etag) != 34 {
				t.Errorf("GET %s: ETag is %q, want 32 digits in quotes", target, etag)
			}
			got.Del("ETag")
			if diff := cmp.Diff(want, got); diff != "" || r.StatusCode != 200 {
				t.Errorf("GET %s: %s, headers (-want +got):\n%s", target, r.Status, diff)
			}
			if name := map[string]string{"/": "/index.html", "/graphiql": "/graphiql.html"}[target]; name != "" {
				target = name
			}
			if want := string(files[target[1:]].Data); body != want {
				t.Errorf("GET %s: body %q, want %q", target, body, want)
			}
		}
	})
	t.Run("a client that takes gzip gets the packed form with its own tag", func(t *testing.T) {
		t.Parallel()
		plain, packed := get(t, h, "GET", script), get(t, h, "GET", script, "Accept-Encoding", "br, gzip")
		if got := packed.Header.Get("Content-Encoding"); got != "gzip" {
			t.Fatalf("Content-Encoding is %q, want gzip", got)
		}
		if plain.Header.Get("ETag") == packed.Header.Get("ETag") {
			t.Error("both forms have one ETag")
		}
		body := read(t, packed)
		if got := packed.Header.Get("Content-Length"); got != strconv.Itoa(len(body)) {
			t.Errorf("Content-Length is %q, want %d", got, len(body))
		}
		z, err := gzip.NewReader(strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(z)
		if err != nil || string(got) != read(t, plain) {
			t.Errorf("the packed form is another text: %v", err)
		}
	})
	t.Run("a file without a packed form is never called packed", func(t *testing.T) {
		t.Parallel()
		r := get(t, h, "GET", "/assets/icon-x.svg", "Accept-Encoding", "gzip")
		if r.Header.Get("Content-Encoding") != "" || r.Header.Get("Vary") != "" || read(t, r) != "<svg/>" {
			t.Errorf("headers %v", r.Header)
		}
	})
	t.Run("a copy that is still good is not sent again", func(t *testing.T) {
		t.Parallel()
		for _, target := range []string{"/", "/graphiql", script} {
			etag := get(t, h, "GET", target, "Accept-Encoding", "gzip").Header.Get("ETag")
			r := get(t, h, "GET", target, "Accept-Encoding", "gzip", "If-None-Match", `"old", W/`+etag)
			if body := read(t, r); r.StatusCode != 304 || body != "" || r.Header.Get("ETag") != etag {
				t.Errorf("GET %s: %s, %d bytes, ETag %s", target, r.Status, len(body), r.Header.Get("ETag"))
			}
			if r := get(t, h, "GET", target, "Accept-Encoding", "gzip", "If-None-Match", `"old"`); r.StatusCode != 200 {
				t.Errorf("GET %s with another tag: %s", target, r.Status)
			}
		}
	})
	t.Run("HEAD answers as GET without a body", func(t *testing.T) {
		t.Parallel()
		for _, target := range []string{"/", "/graphiql", script, "/nothing"} {
			for _, accept := range []string{"gzip", "identity"} {
				want, got := get(t, h, "GET", target, "Accept-Encoding", accept), get(t, h, "HEAD", target, "Accept-Encoding", accept)
				if diff := cmp.Diff(want.Header, got.Header); diff != "" || got.StatusCode != want.StatusCode {
					t.Errorf("HEAD %s: %s, headers (-GET +HEAD):\n%s", target, got.Status, diff)
				}
			}
		}
		if body := read(t, get(t, h, "HEAD", script)); body != "" {
			t.Errorf("HEAD has %d bytes of body", len(body))
		}
	})
	t.Run("what is no page and no asset is not found", func(t *testing.T) {
		t.Parallel()
		for _, target := range []string{
			"/README", "/index.html", "/graphiql.html", "/graphiql/", "/assets", "/assets/", "/assets/none.js", script + ".gz", "/favicon.ico",
			"", "//", "/assets/../README", "/assets/../../web.go", "/../web.go", "/assets/%2e%2e/README", `/assets\..\README`, "/assets/./icon-x.svg", "/\x00",
		} {
			r := get(t, h, "GET", target)
			if body := read(t, r); r.StatusCode != 404 || strings.Contains(body, "secret") {
				t.Errorf("GET %q: %s, %q", target, r.Status, body)
			}
			if got := r.Header.Get("Cache-Control"); got != "no-store" {
				t.Errorf("GET %q: Cache-Control is %q", target, got)
			}
		}
	})
	t.Run("a way out of the folder does not survive a real request either", func(t *testing.T) {
		t.Parallel()
		s := httptest.NewServer(h)
		defer s.Close()
		for _, target := range []string{"/assets/%2e%2e/README", "/assets/..%2fREADME", "/%2e%2e/web.go"} {
			r, err := http.Get(s.URL + target)
			if err != nil {
				t.Fatal(err)
			}
			if r.StatusCode != 404 {
				t.Errorf("GET %s: %s", target, r.Status)
			}
			if err := r.Body.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("nothing can be sent", func(t *testing.T) {
		t.Parallel()
		for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
			if r := get(t, h, method, "/"); r.StatusCode != 405 || r.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s /: %s, Allow %q", method, r.Status, r.Header.Get("Allow"))
			}
		}
	})
	t.Run("without a bundle the pages say how to build it", func(t *testing.T) {
		t.Parallel()
		h := newHandler(fstest.MapFS{"README": {Data: []byte("secret")}})
		for _, target := range []string{"/", "/graphiql"} {
			r := get(t, h, "GET", target)
			body := read(t, r)
			if r.StatusCode != 503 || !strings.Contains(body, "make build") || r.Header.Get("Content-Type") != "text/html; charset=utf-8" ||
				r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("Content-Security-Policy") != pagePolicy {
				t.Errorf("GET %s: %s, %v, %s", target, r.Status, r.Header, body)
			}
			head := get(t, h, "HEAD", target)
			if body := read(t, head); head.StatusCode != 503 || body != "" {
				t.Errorf("HEAD %s: %s, %q", target, head.Status, body)
			}
		}
		if r := get(t, h, "GET", script); r.StatusCode != 404 {
			t.Errorf("GET %s: %s", script, r.Status)
		}
	})
	t.Run("what is embedded answers, built or not", func(t *testing.T) {
		t.Parallel()
		r := get(t, Handler(), "GET", "/graphiql")
		if body := read(t, r); r.StatusCode != 503 && !strings.Contains(body, "/assets/") {
			t.Errorf("%s, %q", r.Status, body)
		}
	})
}

func TestAcceptsGzip(t *testing.T) {
	t.Parallel()
	for accept, want := range map[string]bool{
		"": false, "gzip": true, "GZIP": true, "x-gzip": true, "br, gzip;q=0.5": true, "deflate,gzip ; q=1.0": true, "*": true, "br,*;q=0.1": true,
		"gzip;q=0": false, "gzip;q=0.000, *": false, "*, gzip;q=0": false, "*;q=0": false, "identity": false, "br": false, "gzipped": false, "gzip;q=x": false,
	} {
		if got := acceptsGzip([]string{accept}); got != want {
			t.Errorf("acceptsGzip(%q) = %t, want %t", accept, got, want)
		}
	}
	if !acceptsGzip([]string{"br", "gzip"}) {
		t.Error("the second header is not read")
	}
}

// The examples that GraphiQL opens on are the first thing a newcomer runs.
func TestExamples(t *testing.T) {
	t.Parallel()
	var sources []*ast.Source
	files, err := filepath.Glob("../graph/schema/*.graphqls")
	if err != nil || len(files) == 0 {
		t.Fatalf("no schema in ../graph/schema: %v", err)
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, &ast.Source{Name: file, Input: string(body)})
	}
	schema, err := gqlparser.LoadSchema(sources...)
	if err != nil {
		t.Fatal(err)
	}
	examples, err := filepath.Glob("src/examples/*.graphql")
	if err != nil || len(examples) != 5 {
		t.Fatalf("%d examples, want 5: %v", len(examples), err)
	}
	for _, file := range examples {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, errs := gqlparser.LoadQueryWithRules(schema, string(body), rules.NewDefaultRules()); len(errs) > 0 {
			t.Errorf("%s does not fit the schema: %v", file, errs)
		}
	}
}
