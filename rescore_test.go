package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/db/dbtest"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/service"
)

// received is when the bodies of the tests were.
var received = time.Date(2026, 2, 28, 11, 0, 0, 0, time.UTC)

// layout writes an archive in the established network's layout, of n bodies whose pages have a text, and returns its directory.
func layout(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	out := tar.NewWriter(z)
	for i := range n {
		body := fmt.Appendf(nil, `{"report_id": "20260228T000000Z_webconnectivity_IT_3320_n1_%08d", "test_name": "web_connectivity", "test_version": "0.4.3",
			"probe_cc": "IT", "probe_asn": "AS3320", "measurement_start_time": "2026-02-28 00:00:00", "test_start_time": "2026-02-28 00:00:00",
			"input": "https://example.org/", "software_name": "example", "software_version": "1.0", "annotations": {},
			"test_keys": {"blocking": "http-diff", "accessible": false, "requests": [{"failure": null, "request": {"url": "https://example.org/"},
				"response": {"code": 200, "headers": {}, "body": "<html>page number %d.</html>"}}]}}`, i, i)
		uid := measurement.NewID(received.Add(time.Duration(i)*time.Second), "IT", "web_connectivity", body)
		if err := out.WriteHeader(&tar.Header{Name: string(uid) + ".post", Size: int64(len(body)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "raw/20260228/11/IT/webconnectivity/2026022811_IT_webconnectivity.n1.0.tar.gz")
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// command parses a command line, with the database of a test.
func command(t *testing.T, url string, args ...string) *cli {
	t.Helper()
	c := &cli{}
	k, err := kong.New(c, kong.Vars{"version": "test"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Parse(append(args, "--database-url", url, "--data-dir", t.TempDir(), "--quiet")); err != nil {
		t.Fatal(err)
	}
	return c
}

func page(n int) measurement.Fingerprint {
	return measurement.Fingerprint{
		Name: fmt.Sprint("page ", n), Scope: "nat", LocationFound: "body", PatternType: "contains", Pattern: fmt.Sprintf("page number %d.", n), ConfidenceNoFP: 5,
	}
}

func TestRescoreCommand(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	url := dbtest.New(t)
	from := layout(t, 10)
	for range 2 { // the second time there is nothing to do
		if err := command(t, url, "import", "archive", from).Import.Archive.Run(ctx); err != nil {
			t.Fatal(err)
		}
	}
	d, err := db.Open(ctx, url, db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	if _, err := service.ImportFingerprints(ctx, d, "test", []measurement.Fingerprint{page(3), page(4)}); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		c := command(t, url, append([]string{"rescore"}, args...)...)
		var out bytes.Buffer
		if err := c.Rescore.with(ctx, func(s *service.Service) error { return c.Rescore.run(ctx, s, &out) }); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	says := func(out string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(out, want) {
				t.Errorf("nothing says %q:\n%s", want, out)
			}
		}
	}
	says(run("--no-write"), "10 measurements scored: 0 problems.")
	says(run("--dry-run", "--countries", "it", "--tests", "web_connectivity", "--since", "2026-02-28"),
		"10 measurements scored: 10 rows would be written, 2 changed, 2 announced", "ANOMALY INSUFFICIENT -> CONFIRMED BLOCKED", "_IT_webconnectivity_")
	says(run("--dry-run", "--since", "2026-02-28T11:00:04Z", "--until", "2026-02-28T11:00:05Z"), "1 measurements scored: 1 rows would be written, 1 changed")
	if lines := strings.Split(strings.TrimSpace(run("--no-write", "--stdout")), "\n"); len(lines) != 10 || strings.Contains(lines[0], "before") || !strings.Contains(lines[0], `"after"`) {
		t.Errorf("scored are %q", lines)
	}
	var line changedLine
	lines := strings.Split(strings.TrimSpace(run("--stdout")), "\n")
	if err := json.Unmarshal([]byte(lines[0]), &line); err != nil || len(lines) != 2 || line.Before.Confirmed || !line.After.Confirmed || line.UID == "" || line.After.FingerprintVersion != 1 {
		t.Errorf("%v %q", err, lines)
	}
	says(run(), "0 measurements scored: 0 rows written, 0 changed")

	check := command(t, url, "fingerprints", "check", "unread", "--since", "2026-02-28", "--limit", "0")
	var out bytes.Buffer
	if err := check.Fingerprints.Check.with(ctx, func(s *service.Service) error {
		return check.Fingerprints.Check.try(ctx, s, []measurement.Fingerprint{page(4), page(5)}, &out)
	}); err != nil {
		t.Fatal(err)
	}
	says(out.String(), "0 fingerprints for DNS, 2 for HTTP", "1 -> 0 measurements with page 3", "0 -> 1 measurements with page 5",
		"Of 10 measurements 2 would show something else than by set 1")

	for name, args := range map[string][]string{
		"since":     {"--since", "yesterday"},
		"until":     {"--until", "x"},
		"countries": {"--countries", "Italy"},
	} {
		c := command(t, url, append([]string{"rescore"}, args...)...)
		if _, err := c.Rescore.span(received); fault.Of(err).Field != name {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := (spanFlags{Since: "2026-03-01", Until: "2026-02-01"}).span(received); fault.Of(err).Field != "since" {
		t.Error(err)
	}
}

func TestImportArchiveCommand(t *testing.T) {
	t.Parallel()
	t.Run("it fails when something is broken, and imports the rest", func(t *testing.T) {
		t.Parallel()
		url, dir := dbtest.New(t), layout(t, 3)
		broken := filepath.Join(dir, "raw/20260228/11/IT/webconnectivity/2026022811_IT_webconnectivity.n1.1.jsonl.gz")
		if err := os.WriteFile(broken, []byte("no gzip"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := command(t, url, "import", "archive", dir).Import.Archive.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "1 bodies or objects") {
			t.Error(err)
		}
	})
	t.Run("a directory must be there", func(t *testing.T) {
		t.Parallel()
		missing := filepath.Join(t.TempDir(), "missing")
		if _, _, err := foreignArchive(missing); !os.IsNotExist(err) {
			t.Error(err)
		}
	})
	t.Run("a path in a bucket is a prefix, and secrets are not remembered", func(t *testing.T) {
		t.Parallel()
		address, source, err := foreignArchive("s3://bucket/a/b?region=x&endpoint=http://h&secret=y")
		if err != nil || address != "s3://bucket?endpoint=http%3A%2F%2Fh&prefix=a%2Fb%2F&region=x&secret=y" || source != "s3://bucket/a/b?endpoint=http%3A%2F%2Fh" {
			t.Errorf("%s %s %v", address, source, err)
		}
	})
}

func TestProgress(t *testing.T) {
	t.Parallel()
	now := received
	var out bytes.Buffer
	p := &progress{out: &out, bar: true, now: func() time.Time { return now }}
	p.tell(0, 100, "nothing yet")
	now = now.Add(10 * time.Second)
	p.tell(25, 100, "a quarter")
	now = now.Add(time.Millisecond)
	p.tell(26, 100, "too soon")
	p.end("over")
	if got := out.String(); got != "\r[######..................]  25 %  a quarter, 30s left\rover"+strings.Repeat(" ", 49)+"\n" {
		t.Errorf("%q", got)
	}
	out.Reset()
	p = &progress{out: &out, now: func() time.Time { return now }}
	p.tell(0, 100, "nothing yet")
	now = now.Add(11 * time.Second)
	p.tell(50, 100, "half")
	p.end("over")
	if got := out.String(); got != " 50 %  half, 11s left\nover\n" {
		t.Errorf("%q", got)
	}
	p = &progress{}
	p.tell(1, 2, "")
	p.end("")
}
