package archive_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openvantage/vantage/archive"
	"github.com/openvantage/vantage/archive/archivetest"
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
)

var (
	hour = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	pile = archive.Pile{Hour: hour, Country: "IR", TestName: "webconnectivity"}
	// patience is for what must come; it is only reached by what never does.
	patience = archive.Options{Answer: 20 * time.Second, Stall: 20 * time.Second}
)

// A post is one body of a test.
type post struct {
	uid  measurement.ID
	body []byte
}

func posts(bodies ...string) (all []post) {
	for i, b := range bodies {
		all = append(all, post{measurement.NewID(hour.Add(time.Duration(i)*time.Second), pile.Country, pile.TestName, []byte(b)), []byte(b)})
	}
	return all
}

var some = posts(
	`{"test_name": "web_connectivity", "input": "a\nb",`+"\n"+`  "n": 1.50}`,
	`{"format": "json", "content": {"probe_cc": "IR", "x": [1, 2 , 3]}}`,
	`{"format": "yaml", "content": "a: b"}`,
	`not JSON`,
	`["no object"]`,
	`{"content": 1, "Format": "json", "format_": 1}`,
	`{"é": "`+strings.Repeat("long ", 50_000)+`"}`,
)

// lines are what some are in the file of lines.
var lines = []string{
	`{"test_name":"web_connectivity","input":"a\nb","n":1.50}`, `{"probe_cc":"IR","x":[1,2,3]}`, `{}`, `{}`, `{}`,
	`{"content":1,"Format":"json","format_":1}`, `{"é":"` + strings.Repeat("long ", 50_000) + `"}`,
}

func pack(tb testing.TB, all []post) (p archive.Pack, tarball, jsonl []byte) {
	tb.Helper()
	var a, b bytes.Buffer
	w := archive.NewWriter(pile, &a, &b)
	for _, one := range all {
		if err := w.Add(one.uid, one.body); err != nil {
			tb.Fatal(err)
		}
	}
	p, err := w.Close(pile.Name(1, 0))
	if err != nil {
		tb.Fatal(err)
	}
	return p, a.Bytes(), b.Bytes()
}

func TestNames(t *testing.T) {
	t.Parallel()
	uid := measurement.NewID(hour.Add(59*time.Minute), "IR", "web_connectivity", []byte("{}"))
	if p, ok := archive.PileOf(uid); !ok || p != pile {
		t.Errorf("%s belongs to %v", uid, p)
	}
	if got := pile.Name(7, 3); got != "raw/20260301/09/IR/webconnectivity/2026030109_IR_webconnectivity.n7.3" {
		t.Errorf("a pack is called %s", got)
	}
	t.Run("a name that a probe made up is part of a path all the same", func(t *testing.T) {
		t.Parallel()
		seen := map[string]bool{}
		for _, test := range []string{"", strings.Repeat("a", 2000), strings.Repeat("a", 1999), strings.Repeat("a", 100)} {
			name := archive.Pile{Hour: hour, Country: "IR", TestName: test}.Name(1, 0)
			if seen[name] || strings.Contains(name, "//") || len(filepath.Base(name)) > 200 {
				t.Errorf("%q", name)
			}
			seen[name] = true
		}
	})
}

func TestWriter(t *testing.T) {
	t.Parallel()
	p, tarball, jsonl := pack(t, some)

	t.Run("the same bodies make the same objects", func(t *testing.T) {
		t.Parallel()
		again, a, b := pack(t, some)
		if !bytes.Equal(a, tarball) || !bytes.Equal(b, jsonl) || cmp.Diff(p, again) != "" {
			t.Error("they differ")
		}
	})

	t.Run("other programs' gzip and tar read the whole files", func(t *testing.T) {
		t.Parallel()
		z, err := gzip.NewReader(bytes.NewReader(tarball))
		if err != nil {
			t.Fatal(err)
		}
		in := tar.NewReader(z)
		for _, want := range some {
			h, err := in.Next()
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(in)
			if err != nil || h.Name != "2026030109_IR_webconnectivity/"+string(want.uid)+".post" || !bytes.Equal(body, want.body) {
				t.Errorf("%s: %v", h.Name, err)
			}
		}
		if _, err := in.Next(); !errors.Is(err, io.EOF) {
			t.Error("there is more", err)
		}
		z, err = gzip.NewReader(bytes.NewReader(jsonl))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(z)
		if diff := cmp.Diff(strings.Join(lines, "\n")+"\n", string(text)); err != nil || diff != "" {
			t.Error(err, diff)
		}
	})

	t.Run("each body and each line is a file of its own where its entry says", func(t *testing.T) {
		t.Parallel()
		for i, e := range p.Entries {
			z, err := gzip.NewReader(bytes.NewReader(jsonl[e.LineOffset : e.LineOffset+e.LineLength]))
			if err != nil {
				t.Fatal(err)
			}
			line, err := io.ReadAll(z)
			if err != nil || string(line) != lines[i]+"\n" || e.Line != i || e.UID != some[i].uid {
				t.Errorf("line %d: %v", i, err)
			}
		}
	})

	t.Run("the system's programs read them, and Python's", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		for name, b := range map[string][]byte{"a.tar.gz": tarball, "a.jsonl.gz": jsonl} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		run := func(program string, args ...string) string {
			t.Helper()
			cmd := exec.CommandContext(t.Context(), program, args...)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v\n%s", program, err, out)
			}
			return string(out)
		}
		if n := strings.Count(run("tar", "tzf", "a.tar.gz"), "\n"); n != len(some) {
			t.Errorf("tar lists %d bodies", n)
		}
		run("tar", "xzf", "a.tar.gz")
		for _, want := range some {
			got, err := os.ReadFile(filepath.Join(dir, pile.String(), string(want.uid)+".post"))
			if err != nil || !bytes.Equal(got, want.body) {
				t.Errorf("%s: %v", want.uid, err)
			}
		}
		if n := strings.Count(run("zcat", "a.jsonl.gz"), "\n"); n != len(some) {
			t.Errorf("zcat shows %d lines", n)
		}
		if python, err := exec.LookPath("python3"); err == nil { // it is no part of what the project needs
			const script = "import gzip,json,tarfile;print(len([json.loads(l) for l in gzip.open('a.jsonl.gz')]),len(tarfile.open('a.tar.gz').getnames()))"
			if got := strings.TrimSpace(run(python, "-c", script)); got != fmt.Sprintf("%d %d", len(some), len(some)) {
				t.Errorf("Python sees %s", got)
			}
		}
	})

	t.Run("any bytes come back", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(rt *rapid.T) {
			var all []post
			for i, b := range rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 2000), 1, 10).Draw(rt, "bodies") {
				all = append(all, post{measurement.NewID(hour.Add(time.Duration(i)), "ZZ", strings.Repeat("t", i*40), append(b, byte(i))), append(b, byte(i))})
			}
			_, tarball, jsonl := pack(t, all)
			checkPosts(rt, tarball, all)
			n := 0
			for line, err := range archive.Lines(ctx, bytes.NewReader(jsonl)) {
				if err != nil || !json.Valid(line) {
					rt.Fatal(err)
				}
				n++
			}
			if n != len(all) {
				rt.Fatalf("%d lines", n)
			}
		})
	})
}

// ctx is what nobody ends.
var ctx = context.Background()

type fatal interface {
	Helper()
	Fatalf(format string, args ...any)
}

func checkPosts(t fatal, tarball []byte, want []post) {
	t.Helper()
	i := 0
	for got, err := range archive.Posts(ctx, bytes.NewReader(tarball)) {
		if err != nil || i == len(want) || got.UID != want[i].uid || !bytes.Equal(got.Body, want[i].body) {
			t.Fatalf("post %d is %s: %v", i, got.UID, err)
		}
		i++
	}
	if i != len(want) {
		t.Fatalf("%d posts", i)
	}
}

func TestPosts(t *testing.T) {
	t.Parallel()
	_, tarball, jsonl := pack(t, some)

	t.Run("a pack of the established network, which is one gzip member, is read too", func(t *testing.T) {
		t.Parallel()
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		out := tar.NewWriter(z)
		if err := out.WriteHeader(&tar.Header{Name: pile.String() + "/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
		for _, p := range some {
			if err := out.WriteHeader(&tar.Header{Name: pile.String() + "/" + string(p.uid) + ".post", Size: int64(len(p.body)), Mode: 0o644}); err != nil {
				t.Fatal(err)
			}
			if _, err := out.Write(p.body); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(out.Close(), z.Close()); err != nil {
			t.Fatal(err)
		}
		checkPosts(t, b.Bytes(), some)
	})

	t.Run("a file that is cut short is an error wherever it is cut", func(t *testing.T) {
		t.Parallel()
		for _, cut := range []int{0, 1, 100, len(tarball) / 2, len(tarball) - 60} {
			var last error
			for _, last = range archive.Posts(ctx, bytes.NewReader(tarball[:cut])) {
			}
			if last == nil && cut < len(tarball)-60 {
				t.Errorf("cut at %d it seems whole", cut)
			}
		}
		for _, cut := range []int{0, 5, len(jsonl) - 3} {
			var last error
			for _, last = range archive.Lines(ctx, bytes.NewReader(jsonl[:cut])) {
			}
			if last == nil {
				t.Errorf("lines cut at %d seem whole", cut)
			}
		}
	})

	t.Run("a bomb is refused before it is unpacked", func(t *testing.T) {
		t.Parallel()
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if err := tar.NewWriter(z).WriteHeader(&tar.Header{Name: "d/x.post", Size: 1 << 40, Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		for p, err := range archive.Posts(ctx, &b) {
			if err == nil {
				t.Errorf("it has %d bytes", len(p.Body))
			}
		}
	})

	t.Run("who gives up is not told of an end", func(t *testing.T) {
		t.Parallel()
		ended, cancel := context.WithCancel(ctx)
		cancel()
		var last error
		for _, last = range archive.Posts(ended, bytes.NewReader(tarball)) {
		}
		if !errors.Is(last, context.Canceled) {
			t.Error(last)
		}
	})
}

func open(tb testing.TB, address string, o archive.Options) *archive.Bucket {
	tb.Helper()
	b, err := archive.Open(ctx, address, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = b.Close() })
	return b
}

func put(b *archive.Bucket, name string, data []byte) error {
	u, err := b.Create(ctx, name)
	if err != nil {
		return err
	}
	defer u.Abort()
	if _, err := u.Write(data); err != nil {
		return err
	}
	return u.Commit()
}

func TestCreate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, archive.FolderURL(dir), patience)
	inDir := filepath.Join(dir, "a")
	if err := os.Mkdir(inDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"x.tar.gz.18ea6070494d187e.tmp", "x.tar.gz.2.tmp", "x.tar.gz2.3.tmp", "y.tar.gz.4.tmp", "x.tar.gz.keep"} {
		if err := os.WriteFile(filepath.Join(inDir, name), []byte("torn"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(b, "a/x.tar.gz", []byte("whole")); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(inDir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range left {
		names = append(names, f.Name())
	}
	want := []string{"x.tar.gz", "x.tar.gz.keep", "x.tar.gz2.3.tmp", "y.tar.gz.4.tmp"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("what killed attempts at this object left is gone, and nothing else (-want +got):\n%s", diff)
	}
}

// TestBucket holds every store to the same.
func TestBucket(t *testing.T) {
	t.Parallel()
	stores := map[string]func(testing.TB) string{
		"a folder":         func(tb testing.TB) string { tb.Helper(); return archive.FolderURL(filepath.Join(tb.TempDir(), "new")) },
		"memory":           func(testing.TB) string { return "mem://" },
		"a fake S3":        func(tb testing.TB) string { tb.Helper(); return archivetest.StartFake(tb).URL },
		"a real S3 server": func(tb testing.TB) string { tb.Helper(); return archivetest.StartGateway(tb).URL },
	}
	p, tarball, jsonl := pack(t, some)
	for name, address := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t, address(t), patience)
			if _, err := b.Body(ctx, p.Posts.Name, p.Entries[0]); !fault.Is(err, fault.NotFound) {
				t.Fatalf("before there is anything, a body is %v", err)
			}
			// An attempt that was given up leaves nothing; one that was not is written over.
			u, err := b.Create(ctx, p.Posts.Name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := u.Write(tarball[:100]); err != nil {
				t.Fatal(err)
			}
			u.Abort()
			if _, err := b.Body(ctx, p.Posts.Name, p.Entries[0]); !fault.Is(err, fault.NotFound) {
				t.Errorf("what was given up is there: %v", err)
			}
			for _, data := range [][]byte{[]byte("another attempt"), tarball} {
				if err := put(b, p.Posts.Name, data); err != nil {
					t.Fatal(err)
				}
			}
			if err := put(b, p.Lines.Name, jsonl); err != nil {
				t.Fatal(err)
			}
			if err := b.Verify(ctx, p); err != nil {
				t.Error(err)
			}
			for i, e := range p.Entries {
				if got, err := b.Body(ctx, p.Posts.Name, e); err != nil || !bytes.Equal(got, some[i].body) {
					t.Errorf("body %d: %v", i, err)
				}
			}
			in, err := b.Read(ctx, p.Posts.Name, 10, 20)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(in)
			if err != nil || !bytes.Equal(got, tarball[10:30]) {
				t.Errorf("a part of it: %v", err)
			}
			_ = in.Close()

			large := make([]byte, 12<<20) // more than one part of an upload
			_, _ = rand.NewChaCha8([32]byte{1}).Read(large)
			if err := put(b, "raw/large.tar.gz", large); err != nil {
				t.Fatal(err)
			}
			if in, err = b.Read(ctx, "raw/large.tar.gz", 0, -1); err != nil {
				t.Fatal(err)
			}
			if got, err = io.ReadAll(in); err != nil || !bytes.Equal(got, large) {
				t.Errorf("a large object comes back with %d bytes: %v", len(got), err)
			}
			_ = in.Close()
			ended, cancel := context.WithCancel(ctx)
			cancel()
			if _, err := b.Body(ended, p.Posts.Name, p.Entries[0]); !errors.Is(err, context.Canceled) {
				t.Errorf("who gives up gets %v", err)
			}
		})
	}
}

func TestDamage(t *testing.T) {
	t.Parallel()
	p, tarball, jsonl := pack(t, some)
	damaged := func(err error) bool { return errors.As(err, new(*archive.Damage)) }

	t.Run("one bit anywhere is found, and that body is not served", func(t *testing.T) {
		t.Parallel()
		b := open(t, "mem://", patience)
		for at := 0; at < len(tarball); at += 7 {
			bad := bytes.Clone(tarball)
			bad[at] ^= 4
			if err := errors.Join(put(b, p.Posts.Name, bad), put(b, p.Lines.Name, jsonl)); err != nil {
				t.Fatal(err)
			}
			if err := b.Verify(ctx, p); !damaged(err) {
				t.Fatalf("a bit at %d: %v", at, err)
			}
			for i, e := range p.Entries {
				got, err := b.Body(ctx, p.Posts.Name, e)
				if err == nil && !bytes.Equal(got, some[i].body) || err != nil && !damaged(err) {
					t.Fatalf("a bit at %d: body %d is %v", at, i, err)
				}
			}
		}
	})

	t.Run("lines and lengths count too", func(t *testing.T) {
		t.Parallel()
		b := open(t, "mem://", patience)
		bad := bytes.Clone(jsonl)
		bad[len(bad)/2] ^= 1
		for _, c := range [][2][]byte{{tarball, bad}, {tarball, jsonl[:len(jsonl)-1]}, {tarball[:len(tarball)-1], jsonl}, {append(bytes.Clone(tarball), 0), jsonl}, {nil, jsonl}} {
			if err := errors.Join(put(b, p.Posts.Name, c[0]), put(b, p.Lines.Name, c[1])); err != nil {
				t.Fatal(err)
			}
			if err := b.Verify(ctx, p); !damaged(err) {
				t.Errorf("%d and %d bytes: %v", len(c[0]), len(c[1]), err)
			}
		}
	})
}

func TestTrouble(t *testing.T) {
	t.Parallel()
	p, tarball, _ := pack(t, some)
	short := archive.Options{Answer: 3 * time.Second, Stall: time.Second}
	unavailable := func(t *testing.T, err error, advice string) {
		t.Helper()
		if f := fault.Of(err); f == nil || f.Code != fault.Unavailable || f.RetryAfter == 0 || !strings.Contains(archive.Advice(err), advice) {
			t.Errorf("%v, and %q", err, archive.Advice(err))
		}
	}

	t.Run("a folder that cannot be written to", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		// For root a folder cannot be made read-only; a file in its place can be written to by nobody.
		if err := os.WriteFile(filepath.Join(dir, "raw"), nil, 0o400); err != nil {
			t.Fatal(err)
		}
		unavailable(t, put(open(t, archive.FolderURL(dir), patience), p.Posts.Name, tarball), "let this server write")
	})

	t.Run("a folder that is gone, and back, and another one in its place", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(t.TempDir(), "disk")
		b := open(t, archive.FolderURL(dir), patience)
		if err := put(b, p.Posts.Name, tarball); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(dir, dir+"-away"); err != nil {
			t.Fatal(err)
		}
		_, err := b.Body(ctx, p.Posts.Name, p.Entries[0])
		unavailable(t, err, "mounted")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		unavailable(t, put(b, p.Posts.Name, tarball), "")
		if err := errors.Join(os.Remove(dir), os.Rename(dir+"-away", dir)); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Body(ctx, p.Posts.Name, p.Entries[0]); err != nil {
			t.Error(err)
		}
	})

	t.Run("a store that is full, that refuses, and that has no such bucket", func(t *testing.T) {
		t.Parallel()
		f := archivetest.StartFake(t)
		b := open(t, f.URL, archive.Options{Answer: 30 * time.Second, Stall: 30 * time.Second})
		for status, advice := range map[int]string{http.StatusInsufficientStorage: "full", http.StatusForbidden: "let this server write"} {
			f.Trouble(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
			unavailable(t, put(b, p.Posts.Name, tarball), advice)
		}
		f.Trouble(nil)
		other := open(t, strings.Replace(f.URL, "bodies", "nobodies", 1), patience)
		unavailable(t, put(other, p.Posts.Name, tarball), "ARCHIVE_URL")
		_, err := other.Body(ctx, p.Posts.Name, p.Entries[0])
		unavailable(t, err, "ARCHIVE_URL")
	})

	t.Run("a store that stalls is given up, when it is read and when it is written", func(t *testing.T) {
		t.Parallel()
		f := archivetest.StartFake(t)
		if err := put(open(t, f.URL, patience), p.Posts.Name, tarball); err != nil {
			t.Fatal(err)
		}
		b := open(t, f.URL, short)
		f.Trouble(f.Stall)
		began := time.Now()
		_, err := b.Body(ctx, p.Posts.Name, p.Entries[0])
		unavailable(t, err, "slow")
		unavailable(t, put(b, p.Posts.Name, tarball), "slow")
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("it took %s", took)
		}
		f.Trouble(nil)
		if _, err := b.Body(ctx, p.Posts.Name, p.Entries[0]); err != nil {
			t.Error(err)
		}
	})

	t.Run("a real server that is gone for a while", func(t *testing.T) {
		t.Parallel()
		g := archivetest.StartGateway(t)
		b := open(t, g.URL, archive.Options{Answer: 10 * time.Second, Stall: 20 * time.Second})
		if err := put(b, p.Posts.Name, tarball); err != nil {
			t.Fatal(err)
		}
		g.Stop(t)
		began := time.Now()
		_, err := b.Body(ctx, p.Posts.Name, p.Entries[0])
		unavailable(t, err, "up")
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("it took %s", took)
		}
		unavailable(t, put(b, p.Posts.Name, tarball), "")
		g.Start(t)
		if _, err := b.Body(ctx, p.Posts.Name, p.Entries[0]); err != nil {
			t.Error(err)
		}
	})
}

func TestOpen(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"http://x": "opened", "": "opened", "file:///nowhere/at/all": "made", "s3://b?secret=%zz&x=y": "", "://secret": "not a URL",
	} {
		if _, err := archive.Open(ctx, address, patience); want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", address, err)
		}
	}
	if _, err := url.Parse(archive.FolderURL("/a b/ü%?#")); err != nil {
		t.Error(err)
	}
}

// full is a pack of 20 MB of bodies of 6 kB, which compress as the real ones do.
func full(tb testing.TB) (archive.Pack, []byte, int64) {
	tb.Helper()
	var a bytes.Buffer
	w := archive.NewWriter(pile, &a, io.Discard)
	random := rand.New(rand.NewPCG(1, 2))
	var size int64
	for i := 0; !w.Full(); i++ {
		body := []byte(`{"format":"json","content":{"probe_cc":"IR","test_keys":{"requests":[`)
		for len(body) < 6000 {
			body = fmt.Appendf(body, `{"url":"https://example.org/%x","headers":{"content-type":"text/html; charset=utf-8"},"t":%d.%06d},`, random.Uint64(), i, len(body))
		}
		body = append(body, `0]}}}`...)
		size += int64(len(body))
		if err := w.Add(measurement.NewID(hour.Add(time.Duration(i)*time.Microsecond), country.Code("IR"), pile.TestName, body), body); err != nil {
			tb.Fatal(err)
		}
	}
	p, err := w.Close(pile.Name(1, 0))
	if err != nil {
		tb.Fatal(err)
	}
	return p, a.Bytes(), size
}

func BenchmarkBody(b *testing.B) {
	p, tarball, _ := full(b)
	bucket := open(b, archive.FolderURL(b.TempDir()), patience)
	if err := put(bucket, p.Posts.Name, tarball); err != nil {
		b.Fatal(err)
	}
	i := 0
	for b.Loop() {
		if _, err := bucket.Body(ctx, p.Posts.Name, p.Entries[i%len(p.Entries)]); err != nil {
			b.Fatal(err)
		}
		i += 997
	}
}

func BenchmarkPosts(b *testing.B) {
	_, tarball, size := full(b)
	b.SetBytes(size)
	for b.Loop() {
		for _, err := range archive.Posts(ctx, bytes.NewReader(tarball)) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkWriter(b *testing.B) {
	body := []byte(`{"format":"json","content":{"a":"` + strings.Repeat("some text that is much the same ", 190) + `"}}`)
	uid := measurement.NewID(hour, "IR", pile.TestName, body)
	b.SetBytes(int64(len(body)))
	w := archive.NewWriter(pile, io.Discard, io.Discard)
	for b.Loop() {
		if err := w.Add(uid, body); err != nil {
			b.Fatal(err)
		}
	}
}
