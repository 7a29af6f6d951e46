package server_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/archive"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/server"
)

func TestArchive(t *testing.T) { //nolint:tparallel // what comes last damages what is read before
	t.Parallel()
	dir := t.TempDir()
	a := start(t, func(c *server.Config) { c.ArchiveURL = archive.FolderURL(dir) })
	operator := a.issue(t, access.Operator)
	content := body(nil)
	received := time.Now().UTC().Add(-72 * time.Hour).Truncate(time.Second)
	sent := a.ask(t, operator, `mutation ($c: String!, $at: DateTime!) { submitMeasurement(input: {content: $c, receivedAt: $at}) { measurement { uid bodyUrl } } }`,
		object{"c": content, "at": received.Format(time.RFC3339)})
	uid, bodyURL := str(t, sent, "submitMeasurement", "measurement", "uid"), str(t, sent, "submitMeasurement", "measurement", "bodyUrl")
	const list = `query ($f: PackFilter) { packs(filter: $f, first: 2) { pageInfo { hasNextPage } edges { cursor node { id hour country { code } testName measurementCount
		damagedAt url posts { name url sizeBytes sha256 } lines { name url sizeBytes sha256 } } } } }`
	var edges []any
	eventually(t, "it is archived", func() bool { // once an hour the server is at it as well, and is left alone
		if err := a.Archive(t.Context()); err != nil {
			t.Fatal(err)
		}
		edges, _ = at(t, a.ask(t, "", list, nil), "packs", "edges").([]any)
		return len(edges) > 0
	})
	if len(edges) != 1 {
		t.Fatalf("there are %d packs", len(edges))
	}
	pack, _ := edges[0].(object)["node"].(object)
	equal(t, fmt.Sprint(pack["measurementCount"]), "1")
	equal(t, at(t, a.ask(t, "", `query ($id: ID!) { node(id: $id) { id ... on Pack { testName } } }`, object{"id": pack["id"]}), "node", "testName"), pack["testName"])
	for _, f := range []object{{"countries": []string{"FR"}}, {"testNames": []string{}}, {"until": received.Add(-time.Hour)}, {"since": received.Add(time.Hour)}} {
		if some, _ := at(t, a.ask(t, "", list, object{"f": f}), "packs", "edges").([]any); len(some) != 0 {
			t.Errorf("%v finds %d packs", f, len(some))
		}
	}
	files := map[string]object{}
	for _, which := range []string{"posts", "lines"} {
		files[which], _ = pack[which].(object)
	}

	res, raw := a.send(t, http.MethodGet, a.URL()+bodyURL, nil, nil)
	if res.StatusCode != http.StatusOK || raw != content {
		t.Errorf("the archived body of %s is served as %d %q", uid, res.StatusCode, raw)
	}
	for which, f := range files {
		address := a.URL() + fmt.Sprint(f["url"])
		res, whole := a.send(t, http.MethodGet, address, nil, nil)
		sum := sha256.Sum256([]byte(whole))
		if res.StatusCode != http.StatusOK || hex.EncodeToString(sum[:]) != f["sha256"] || fmt.Sprint(len(whole)) != fmt.Sprint(f["sizeBytes"]) ||
			res.Header.Get("Etag") != fmt.Sprintf("%q", f["sha256"]) || !strings.Contains(res.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s are served as %d, %d bytes, %v", which, res.StatusCode, len(whole), res.Header)
		}
		res, part := a.send(t, http.MethodGet, address, http.Header{"Range": {"bytes=5-14"}}, nil)
		if res.StatusCode != http.StatusPartialContent || part != whole[5:15] {
			t.Errorf("a part of %s is served as %d, %d bytes", which, res.StatusCode, len(part))
		}
		if res, _ = a.send(t, http.MethodGet, address, http.Header{"If-None-Match": {res.Header.Get("Etag")}}, nil); res.StatusCode != http.StatusNotModified {
			t.Errorf("who has it gets %d", res.StatusCode)
		}
		if res, nothing := a.send(t, http.MethodHead, address, nil, nil); res.StatusCode != http.StatusOK || nothing != "" || fmt.Sprint(res.ContentLength) != fmt.Sprint(len(whole)) {
			t.Errorf("HEAD answers %d", res.StatusCode)
		}
	}

	name := filepath.Join(dir, fmt.Sprint(files["posts"]["name"]))
	t.Run("what is in the store and in no pack is not there", func(t *testing.T) { //nolint:paralleltest // in this order
		orphan := strings.Replace(name, "n1.0", "n1.1", 1)
		if err := os.WriteFile(orphan, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{strings.Replace(fmt.Sprint(files["posts"]["url"]), "n1.0", "n1.1", 1), "/archive/", "/archive/x.tar.gz", "/archive/../etc/passwd", "/archive/raw/%00.tar.gz"} {
			if res, raw := a.send(t, http.MethodGet, a.URL()+path, nil, nil); res.StatusCode == http.StatusOK && strings.HasPrefix(path, "/archive/") && !strings.Contains(path, "..") {
				t.Errorf("%s is served: %q", path, raw)
			}
		}
	})

	t.Run("a damaged file is not served, as soon as somebody noticed", func(t *testing.T) { //nolint:paralleltest // in this order
		whole, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		whole[len(whole)/2] ^= 1
		if err := os.WriteFile(name, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		// Whoever notices first is cut off before the end.
		first, err := a.http.Get(a.URL() + fmt.Sprint(files["posts"]["url"]))
		if err == nil {
			b, err := io.ReadAll(first.Body)
			if err == nil {
				t.Errorf("all %d bytes came", len(b))
			}
			_ = first.Body.Close()
		}
		res, raw := a.send(t, http.MethodGet, a.URL()+fmt.Sprint(files["posts"]["url"]), nil, nil)
		if res.StatusCode != http.StatusNotFound || !strings.Contains(raw, "damaged") {
			t.Errorf("then it is %d %q", res.StatusCode, raw)
		}
		got := a.do(t, "", `query ($uid: ID!) { measurement(uid: $uid) { body } }`, object{"uid": uid})
		if len(got.Errors) != 1 || !strings.Contains(fmt.Sprint(got.Errors), string(fault.Internal)) || !strings.Contains(fmt.Sprint(got.Errors), "damaged") {
			t.Errorf("its body is %+v", got)
		}
		again, _ := at(t, a.ask(t, "", list, nil), "packs", "edges").([]any)
		if node, _ := again[0].(object)["node"].(object); node["damagedAt"] == nil {
			t.Error("the pack does not say so")
		}
	})
}

// TestDownloadsArePaidFor: who has spent what a source may is told when to come back.
func TestDownloadsArePaidFor(t *testing.T) {
	t.Parallel()
	a := start(t, func(c *server.Config) { c.RatePublic = server.Rate{PerSecond: 0.01, Burst: 1500} })
	address := a.URL() + "/archive/raw/20260301/00/IT/ndt/2026030100_IT_ndt.n1.0.tar.gz"
	for _, want := range []int{http.StatusNotFound, http.StatusTooManyRequests} {
		res, text := a.send(t, http.MethodGet, address, nil, nil)
		if res.StatusCode != want || (want == http.StatusTooManyRequests) != (res.Header.Get("Retry-After") != "") {
			t.Errorf("answered %d %v %s, want %d", res.StatusCode, res.Header, text, want)
		}
	}
}
