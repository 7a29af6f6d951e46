// Package web answers: what does a browser get? It holds the pages for people, built by Vite into
// dist and embedded, and serves them so that nothing is fetched from another host.
//
// Pages are static: what they show they ask the API for, as any client does. No GraphQL, no
// domain and no session is here. Only server may import it.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

//go:embed all:dist
var dist embed.FS

// Every page but GraphiQL gets by without inline styles, images from elsewhere or code from strings.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Monaco, GraphiQL's editor, writes style elements, starts workers and has its icons in a data URL.
const graphiqlPolicy = "default-src 'self'; worker-src 'self' blob:; style-src 'self' 'unsafe-inline'; font-src 'self' data:; " +
	"img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// A worker obeys the policy that its own script came with, not that of the page that starts it.
const assetPolicy = "default-src 'none'; script-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// By hand, because mime.TypeByExtension answers from files of the machine it runs on.
var contentTypes = map[string]string{
	".css":   "text/css; charset=utf-8",
	".html":  "text/html; charset=utf-8",
	".js":    "text/javascript; charset=utf-8",
	".json":  "application/json",
	".svg":   "image/svg+xml",
	".ttf":   "font/ttf",
	".woff2": "font/woff2",
}

// A page served while dist holds no bundle, which is the case until npm has run.
const unbuilt = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Vantage: no web application</title>
<h1>The web application is not built</h1>
<p>This server was compiled without it. Run <code>make build</code> and start it again. The API works meanwhile.</p>
</html>
`

// Handler serves the pages "/" and "/graphiql" and what they load from "/assets/". Any other path
// is 404 and any method but GET and HEAD is 405. Where the bundle is missing, the pages are 503 and say
// how to build it. The handler is safe for concurrent use and holds the whole bundle in memory.
func Handler() http.Handler {
	bundle, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // the embedded folder is named wrongly, in this file
	}
	return newHandler(bundle)
}

type handler map[string]*file

// A file has its packed form in gzip, whose body is nil where packing gains nothing.
type file struct {
	name, policy, cache string
	plain, gzip         representation
}

// Each form of a file has its own tag, or a cache could revalidate one and serve the other.
type representation struct {
	body []byte
	etag string
}

func newHandler(bundle fs.FS) handler {
	h := handler{}
	for url, page := range map[string]file{
		"/":         {name: "index.html", policy: pagePolicy},
		"/graphiql": {name: "graphiql.html", policy: graphiqlPolicy},
	} {
		page.cache = "no-cache" // kept, but asked for again with its ETag
		h.add(bundle, url, page)
	}
	assets, _ := fs.Glob(bundle, "assets/*") // only a malformed pattern is an error
	for _, name := range assets {
		if path.Ext(name) != ".gz" {
			// Vite puts a hash of the content into the name, so an asset never changes.
			h.add(bundle, "/"+name, file{name: name, policy: assetPolicy, cache: "public, max-age=31536000, immutable"})
		}
	}
	return h
}

func (h handler) add(bundle fs.FS, url string, f file) {
	f.plain, f.gzip = load(bundle, f.name), load(bundle, f.name+".gz")
	if f.plain.body != nil {
		h[url] = &f
	}
}

func load(bundle fs.FS, name string) representation {
	body, err := fs.ReadFile(bundle, name)
	if err != nil { // it is not in the bundle: reading from memory has no other failure
		return representation{}
	}
	sum := sha256.Sum256(body)
	return representation{body, `"` + hex.EncodeToString(sum[:16]) + `"`}
}

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Referrer-Policy", "no-referrer")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		head.Set("Allow", "GET, HEAD")
		http.Error(w, "Only GET and HEAD are answered here.", http.StatusMethodNotAllowed)
		return
	}
	f, ok := h[r.URL.Path]
	switch {
	case !ok && (r.URL.Path == "/" || r.URL.Path == "/graphiql"):
		head.Set("Cache-Control", "no-store")
		head.Set("Content-Security-Policy", pagePolicy)
		head.Set("Content-Type", contentTypes[".html"])
		head.Set("Content-Length", strconv.Itoa(len(unbuilt)))
		w.WriteHeader(http.StatusServiceUnavailable)
		if r.Method == http.MethodGet {
			_, _ = w.Write([]byte(unbuilt)) // the reader has gone, and there is nobody to tell
		}
		return
	case !ok:
		head.Set("Cache-Control", "no-store") // it may exist after the next start
		http.NotFound(w, r)
		return
	}

	form := f.plain
	if f.gzip.body != nil {
		head.Set("Vary", "Accept-Encoding")
		if acceptsGzip(r.Header.Values("Accept-Encoding")) {
			form = f.gzip
			head.Set("Content-Encoding", "gzip")
			// ServeContent leaves the length out where a coding is set, for others pack on the fly.
			head.Set("Content-Length", strconv.Itoa(len(form.body)))
		}
	}
	kind, ok := contentTypes[path.Ext(f.name)]
	if !ok {
		kind = "application/octet-stream"
	}
	head.Set("Content-Type", kind)
	head.Set("Content-Security-Policy", f.policy)
	head.Set("Cache-Control", f.cache)
	head.Set("ETag", form.etag)
	http.ServeContent(w, r, f.name, time.Time{}, bytes.NewReader(form.body))
}

// A coding that is named decides over *, and a quality of zero refuses it.
//
// Source: RFC 9110, section 12.5.3.
func acceptsGzip(accept []string) bool {
	others := false
	for _, item := range strings.Split(strings.Join(accept, ","), ",") {
		coding, params, _ := strings.Cut(item, ";")
		q := 1.0
		if v, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(params)), "q="); ok {
			q, _ = strconv.ParseFloat(v, 64) // what cannot be read is refused
		}
		switch strings.ToLower(strings.TrimSpace(coding)) {
		case "gzip", "x-gzip":
			return q > 0
		case "*":
			others = q > 0
		}
	}
	return others
}
