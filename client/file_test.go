package client_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openvantage/vantage/client"
	"github.com/openvantage/vantage/client/clienttest"
	"github.com/openvantage/vantage/fault"
)

// write makes a file in a directory of the test's own.
func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func zipped(t *testing.T, content string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// contents are the bodies that were sent, sorted, with their dates.
func contents(s *clienttest.Server) []string {
	var all []string
	add := func(in map[string]any) {
		c := in["content"].(string)
		if at, ok := in["receivedAt"]; ok {
			c += fmt.Sprint(" at ", at)
		}
		all = append(all, c)
	}
	for _, r := range s.Requests("submitMeasurement") {
		add(r.Input)
	}
	for _, r := range s.Requests("submitMeasurements") {
		for _, item := range r.Input["items"].([]any) {
			add(item.(map[string]any))
		}
	}
	slices.Sort(all)
	return all
}

func TestSubmitFilesForms(t *testing.T) {
	t.Parallel()
	pretty := "{\n  \"a\": 1\n}\n"
	for name, test := range map[string]struct {
		file, content string
		want          []string
	}{
		"a pretty-printed file is one body":          {"a.json", pretty, []string{pretty}},
		"a file of one line is one body, unchanged":  {"a.json", "{\"a\":1} \r\n", []string{"{\"a\":1} \r\n"}},
		"a compressed file is known by its content":  {"a.json", zipped(t, pretty), []string{pretty}},
		"lines are bodies without their line ends":   {"a.json", "{\"a\":1}\r\n\n {\"a\": 2} \n{\"a\":3}", []string{" {\"a\": 2} ", `{"a":1}`, `{"a":3}`}},
		"compressed lines are bodies":                {"a.jsonl.gz", zipped(t, "{\"a\":1}\n{\"a\":2}\n"), []string{`{"a":1}`, `{"a":2}`}},
		"a file that says lines may have one only":   {"a.jsonl", "{\"a\":1}\n", []string{`{"a":1}`}},
		"a gz that is not compressed is read as is":  {"a.ndjson.gz", "{\"a\":1}\n", []string{`{"a":1}`}},
		"an empty file of lines has no bodies":       {"a.jsonl", "", nil},
		"a line that is not JSON spares the others":  {"a.jsonl", "{\"a\":1}\n{\"a\":\n{\"a\":2}\n", []string{`{"a":1}`, `{"a":2}`}},
		"a file that is nothing of all this is left": {"a.json", "a: 1\nb: 2\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := clienttest.New(t, schemaDir)
			got, err := serve(t, s, "").SubmitFiles(t.Context(), []string{write(t, test.file, test.content)}, client.SubmitOptions{})
			if err != nil || got.Scored != len(test.want) {
				t.Errorf("got %v, %v", got, err)
			}
			if diff := cmp.Diff(test.want, contents(s)); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("standard input is read for a dash", func(t *testing.T) {
		t.Parallel()
		s := clienttest.New(t, schemaDir)
		o := client.SubmitOptions{Stdin: strings.NewReader(zipped(t, pretty))}
		if _, err := serve(t, s, "").SubmitFiles(t.Context(), []string{"-"}, o); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{pretty}, contents(s)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a file that is missing or cut off is told after the others were sent", func(t *testing.T) {
		t.Parallel()
		s := clienttest.New(t, schemaDir)
		cut := zipped(t, strings.Repeat(pretty, 1000))
		files := []string{filepath.Join(t.TempDir(), "none"), write(t, "cut.json", cut[:len(cut)-9]), write(t, "a.json", pretty)}
		got, err := serve(t, s, "").SubmitFiles(t.Context(), files, client.SubmitOptions{})
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(fmt.Sprint(err), "cut.json") || got.Scored != 1 {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

func TestSubmitFilesBackfill(t *testing.T) {
	t.Parallel()
	s := clienttest.New(t, schemaDir)
	lines := []string{
		`{"measurement_start_time":"2024-02-12 20:33:47","test_start_time":"2024-02-12 20:00:00"}`,
		`{"test_start_time":"2023-01-02 03:04:05"}`,
		`{"format":"json","content":{"measurement_start_time":"2022-01-02 03:04:05"}}`,
		`{"measurement_start_time":"yesterday"}`,
		`[]`,
	}
	var progress strings.Builder
	got, err := serve(t, s, "operator").SubmitFiles(t.Context(), []string{write(t, "a.jsonl", strings.Join(lines, "\n"))},
		client.SubmitOptions{Backfill: true, Progress: &progress})
	if err != nil || got.Scored != 3 || got.Failed != 2 {
		t.Errorf("got %v, %v", got, err)
	}
	want := []string{lines[0] + " at 2024-02-12T20:33:47Z", lines[2] + " at 2022-01-02T03:04:05Z", lines[1] + " at 2023-01-02T03:04:05Z"}
	slices.Sort(want)
	if diff := cmp.Diff(want, contents(s)); diff != "" {
		t.Error(diff)
	}
	for _, line := range []string{
		"a.jsonl:4: failed: INVALID input.receivedAt: The body does not say when it was measured.\n",
		"a.jsonl:5: failed: INVALID input.content: ",
		"5 bodies, 0.0 MB: 3 scored, 0 duplicate, 0 discarded, 2 failed; 0 anomaly, 0 confirmed, 0 failure\n",
	} {
		if !strings.Contains(progress.String(), line) {
			t.Errorf("%q is not in\n%s", line, progress.String())
		}
	}
}

func TestSubmitFilesResults(t *testing.T) {
	t.Parallel()
	s := clienttest.New(t, schemaDir)
	s.Verdict = func(content string) map[string]any {
		if strings.Contains(content, "ZZ") {
			return map[string]any{"measurement": nil, "discarded": map[string]any{"uid": "u", "reason": "COUNTRY_UNKNOWN", "message": "?"}}
		}
		if strings.Contains(content, "bad") {
			return map[string]any{"measurement": nil, "userErrors": []map[string]any{
				{"code": "INVALID", "field": "input.content", "message": "No.", "retryAfterSeconds": nil},
			}}
		}
		return map[string]any{"measurement": map[string]any{
			"uid": "", "anomaly": true, "confirmed": strings.Contains(content, "10.10.34.34"), "failure": strings.Contains(content, "null"),
		}}
	}
	file := write(t, "a.jsonl", `{"a":"10.10.34.34"}
{"a":null}
{"a":"ZZ"}
{"a":"bad"}
{"a":null}
`)
	got := map[int]client.Status{}
	sum, err := serve(t, s, "").SubmitFiles(t.Context(), []string{file}, client.SubmitOptions{
		Each: func(r client.BodyResult) { got[r.Line] = r.Status },
	})
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(map[int]client.Status{
		1: client.StatusScored, 2: client.StatusScored, 3: client.StatusDiscarded, 4: client.StatusFailed, 5: client.StatusDuplicate,
	}, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(client.Summary{Scored: 2, Duplicate: 1, Discarded: 1, Failed: 1, Anomaly: 3, Confirmed: 1, Failure: 2, Bytes: 60}, sum); diff != "" {
		t.Error(diff)
	}
}

func TestSubmitFilesBatches(t *testing.T) {
	t.Parallel()
	t.Run("every body is sent once, within the bounds of a request", func(t *testing.T) {
		t.Parallel()
		s := clienttest.New(t, schemaDir)
		var lines []string
		for n := range 250 {
			lines = append(lines, fmt.Sprintf(`{"n":%d}`, n))
		}
		for n := range 7 { // of 1.5 MiB, and twice that when its escapes are escaped
			lines = append(lines, fmt.Sprintf(`{"big":%d,"x":"%s"}`, n, strings.Repeat("\\n", 3<<18)))
		}
		o := client.SubmitOptions{Stdin: strings.NewReader(strings.Join(lines, "\n"))}
		sum, err := serve(t, s, "").SubmitFiles(t.Context(), []string{"-"}, o)
		if err != nil || sum.Scored != len(lines) {
			t.Fatalf("got %v, %v", sum, err)
		}
		slices.Sort(lines)
		if got := contents(s); !slices.Equal(lines, got) {
			t.Errorf("sent %d bodies of %d, or others", len(got), len(lines))
		}
		// 100, 100, 50 and the first big one, and six alone.
		if n := len(s.Requests()); n != 9 {
			t.Errorf("%d requests", n)
		}
	})
	t.Run("a batch that is refused is sent one by one", func(t *testing.T) {
		t.Parallel()
		s := clienttest.New(t, schemaDir)
		s.Refuse = func(r clienttest.Request) *fault.Error {
			if c, _ := r.Input["content"].(string); r.Name == "submitMeasurements" || strings.Contains(c, "bad") {
				return fault.New(fault.QueryTooCostly, "Too large.")
			}
			return nil
		}
		file := write(t, "a.jsonl", "{\"a\":1}\n{\"a\":\"bad\"}\n{\"a\":2}\n")
		got, err := serve(t, s, "").SubmitFiles(t.Context(), []string{file}, client.SubmitOptions{})
		if err != nil || got.Scored != 2 || got.Failed != 1 {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("sending again uses the same keys, and other dates use others", func(t *testing.T) {
		t.Parallel()
		s := clienttest.New(t, schemaDir)
		c := serve(t, s, "")
		lines := "{\"test_start_time\":\"2023-01-02 03:04:05\"}\n{\"test_start_time\":\"2023-01-02 03:04:06\"}\n"
		files := []string{write(t, "a.jsonl", lines), write(t, "b.jsonl", lines)}
		for _, o := range []client.SubmitOptions{{}, {}, {Backfill: true}} {
			for _, f := range files {
				if _, err := c.SubmitFiles(t.Context(), []string{f}, o); err != nil {
					t.Error(err)
				}
			}
		}
		var keys []any
		for _, r := range s.Requests("submitMeasurements") {
			keys = append(keys, r.Input["idempotencyKey"])
		}
		if len(keys) != 6 || keys[0] != keys[1] || keys[0] != keys[3] || keys[4] != keys[5] || keys[0] == keys[4] || len(keys[0].(string)) != 64 {
			t.Errorf("got %v", keys)
		}
	})
}

func TestSubmitFilesRetry(t *testing.T) {
	t.Parallel()
	lines := "{\"a\":1}\n{\"a\":2}\n"
	// refuse makes the first n submissions fail with f.
	refuse := func(n int, f *fault.Error) func(clienttest.Request) *fault.Error {
		return func(clienttest.Request) *fault.Error {
			if n--; n >= 0 {
				return f
			}
			return nil
		}
	}
	t.Run("a server that comes back gets everything, under the same key", func(t *testing.T) {
		t.Parallel()
		file := write(t, "a.jsonl", lines)
		synctest.Test(t, func(t *testing.T) {
			s := clienttest.New(t, schemaDir)
			s.Refuse = refuse(3, fault.New(fault.Unavailable, "Down."))
			began := time.Now()
			got, err := serve(t, s, "").SubmitFiles(t.Context(), []string{file}, client.SubmitOptions{})
			if err != nil || got.Scored != 2 {
				t.Errorf("got %v, %v", got, err)
			}
			keys := map[any]bool{}
			for _, r := range s.Requests() {
				keys[r.Input["idempotencyKey"]] = true
			}
			if d := time.Since(began); len(keys) != 1 || d < 2*time.Second || d > 5*time.Second {
				t.Errorf("%d keys, %v", len(keys), d)
			}
		})
	})
	t.Run("a rate limit is waited for as long as the server says", func(t *testing.T) {
		t.Parallel()
		file := write(t, "a.jsonl", lines)
		synctest.Test(t, func(t *testing.T) {
			s := clienttest.New(t, schemaDir)
			s.Refuse = refuse(2, fault.New(fault.RateLimited, "Slow down.").After(time.Minute))
			began := time.Now()
			got, err := serve(t, s, "").SubmitFiles(t.Context(), []string{file}, client.SubmitOptions{})
			if err != nil || got.Scored != 2 || time.Since(began) < 2*time.Minute {
				t.Errorf("got %v, %v after %v", got, err, time.Since(began))
			}
		})
	})
	t.Run("single bodies that failed for now are sent again without the others", func(t *testing.T) {
		t.Parallel()
		file := write(t, "a.jsonl", lines)
		synctest.Test(t, func(t *testing.T) {
			s := clienttest.New(t, schemaDir)
			tries := 0
			s.Verdict = func(content string) map[string]any {
				if tries++; content == `{"a":2}` && tries == 2 {
					return map[string]any{"measurement": nil, "userErrors": []map[string]any{
						{"code": "UNAVAILABLE", "field": nil, "message": "Not now.", "retryAfterSeconds": 1},
					}}
				}
				return nil
			}
			got, err := serve(t, s, "").SubmitFiles(t.Context(), []string{file}, client.SubmitOptions{})
			if err != nil || got.Scored != 2 || got.Failed != 0 {
				t.Errorf("got %v, %v", got, err)
			}
			if diff := cmp.Diff([]string{`{"a":1}`, `{"a":2}`, `{"a":2}`}, contents(s)); diff != "" {
				t.Error(diff)
			}
		})
	})
	for name, f := range map[string]*fault.Error{
		"a server that stays away":   fault.New(fault.Unavailable, "Down."),
		"a token that is not enough": fault.New(fault.Forbidden, "No."),
	} {
		t.Run(name+" ends everything", func(t *testing.T) {
			t.Parallel()
			files := []string{write(t, "a.jsonl", lines), write(t, "b.jsonl", strings.Repeat("{\"b\":1}\n", 1000))}
			synctest.Test(t, func(t *testing.T) {
				s := clienttest.New(t, schemaDir)
				s.Refuse = refuse(1<<30, f)
				o := client.SubmitOptions{Workers: 1, Attempts: 3}
				got, err := serve(t, s, "").SubmitFiles(t.Context(), files, o)
				if !fault.Is(err, f.Code) || got.Scored != 0 || got.Failed == 0 || len(s.Requests()) > 3 {
					t.Errorf("got %v, %v after %d requests", got, err, len(s.Requests()))
				}
			})
		})
	}
	t.Run("a caller who gives up ends the waiting", func(t *testing.T) {
		t.Parallel()
		file := write(t, "a.jsonl", lines)
		synctest.Test(t, func(t *testing.T) {
			s := clienttest.New(t, schemaDir)
			s.Refuse = refuse(1<<30, fault.New(fault.RateLimited, "Slow down.").After(time.Hour))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := serve(t, s, "").SubmitFiles(ctx, []string{file}, client.SubmitOptions{})
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
	})
}

func TestBodyResultString(t *testing.T) {
	t.Parallel()
	whole := client.BodyResult{File: "a", Status: client.StatusScored}
	line := client.BodyResult{File: "a", Line: 3, Status: client.StatusDiscarded, Reason: "R"}
	if diff := cmp.Diff([]string{"a: scored", "a:3: discarded: R"}, []string{whole.String(), line.String()}); diff != "" {
		t.Error(diff)
	}
}
