package engine

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"
)

func TestAcceptedEncoding(t *testing.T) {
	t.Parallel()
	for accept, want := range map[string]encoding{
		"":                                  identity,
		"identity":                          identity,
		"br, deflate":                       identity,
		"gzip":                              gzipped,
		"X-GZIP":                            gzipped,
		"zstd":                              zstandard,
		"gzip, deflate, br, zstd":           zstandard,
		"gzip;q=1.0, zstd;q=0.9":            gzipped,
		"gzip;q=0":                          identity,
		"gzip;q=0, zstd;q=0":                identity,
		"*":                                 zstandard,
		"*;q=0.5, zstd;q=0":                 gzipped,
		"gzip;q=0.5, *;q=0":                 gzipped,
		"*;q=0":                             identity,
		"identity;q=1, gzip;q=0.5":          identity,
		"identity;q=0.5, gzip;q=0.5":        gzipped,
		"gzip;q=x":                          identity,
		"gzip;q=0.001, identity;q=0, *;q=0": gzipped,
	} {
		t.Run(fmt.Sprintf("%q is %q", accept, want), func(t *testing.T) {
			t.Parallel()
			if got := acceptedEncoding([]string{accept}); got != want {
				t.Errorf("it is %q", got)
			}
		})
	}
	if got := acceptedEncoding(nil); got != identity {
		t.Errorf("without a header it is %q", got)
	}
}

// unpack decodes a body as its Content-Encoding says, with other libraries where there are.
func unpack(tb testing.TB, how string, b []byte) []byte {
	tb.Helper()
	var r io.Reader = bytes.NewReader(b)
	var err error
	switch how {
	case "":
	case "gzip":
		r, err = gzip.NewReader(r)
	case "zstd":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(r, zstd.WithDecoderConcurrency(1)); err == nil {
			defer d.Close()
			r = d
		}
	default:
		err = fmt.Errorf("there is no encoding %q", how)
	}
	if err == nil {
		b, err = io.ReadAll(r)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestCompress(t *testing.T) {
	t.Parallel()

	t.Run("what was compressed comes back", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(rt *rapid.T) {
			src := rapid.SliceOfN(rapid.ByteRange('a', 'h'), 0, 5000).Draw(rt, "text")
			dst := rapid.SliceOfN(rapid.Byte(), 0, 10).Draw(rt, "before")
			for _, how := range []encoding{gzipped, zstandard} {
				out := how.compress(bytes.Clone(dst), src)
				if !bytes.HasPrefix(out, dst) || !bytes.Equal(unpack(t, string(how), out[len(dst):]), src) {
					rt.Fatalf("%q changed the text", how)
				}
			}
		})
	})

	t.Run("many are compressed at a time", func(t *testing.T) {
		t.Parallel()
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				src := []byte(strings.Repeat(fmt.Sprint(i, " "), 20_000))
				for _, how := range []encoding{gzipped, zstandard} {
					out := how.compress(nil, src)
					if !bytes.Equal(unpack(t, string(how), out), src) || len(out) > len(src)/10 {
						t.Errorf("%q made %d bytes of %d", how, len(out), len(src))
					}
				}
			})
		}
		wg.Wait()
	})

	t.Run("answers are compressed as was asked, if they are large", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		large := `{"query": "{ large(bytes: 5000) }"}`
		for accept, want := range map[string]string{"": "", "gzip, deflate": "gzip", "zstd, gzip": "zstd", "br": ""} {
			r := s.post(t, large, "Accept-Encoding", accept)
			if got := r.header.Get("Content-Encoding"); got != want {
				t.Errorf("Accept-Encoding: %s is answered in %q", accept, got)
			}
			if r.header.Get("Content-Length") != fmt.Sprint(len(r.raw)) || want != "" && len(r.raw) > 500 {
				t.Errorf("%q: %d bytes, Content-Length: %s", want, len(r.raw), r.header.Get("Content-Length"))
			}
			if text := string(unpack(t, want, r.raw)); !strings.Contains(text, strings.Repeat("x", 5000)) || !strings.HasSuffix(text, "}") {
				t.Errorf("%q: the answer is %.100s", want, text)
			}
			if r.header.Get("Vary") != "Accept, Accept-Encoding" {
				t.Errorf("%q: Vary: %s", want, r.header.Get("Vary"))
			}
		}
		if r := s.post(t, `{"query": "{ ping }"}`, "Accept-Encoding", "gzip"); r.header.Get("Content-Encoding") != "" {
			t.Error("a short answer is compressed")
		}
	})

	t.Run("what may hold a secret is not compressed", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		long := strings.Repeat("x", 5000)
		for _, accept := range []string{"application/json", "application/graphql-response+json", "text/event-stream"} {
			r := s.post(t, `{"query": "mutation ($v: String!) { set(value: $v) }", "variables": {"v": "`+long+`"}}`, "Accept-Encoding", "gzip, zstd", "Accept", accept)
			if r.status != http.StatusOK || r.header.Get("Content-Encoding") != "" || !strings.Contains(string(r.raw), long) {
				t.Errorf("%s: %d in %q", accept, r.status, r.header.Get("Content-Encoding"))
			}
		}
		if r := s.post(t, `{"query": "{ large(bytes: 5000) }"}`, "Accept-Encoding", "gzip, zstd", "Accept", "text/event-stream"); r.header.Get("Content-Encoding") != "" {
			t.Error("an event stream is compressed")
		}
	})
}
