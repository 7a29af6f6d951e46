package service

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/archive"
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
)

// A peer is an archive of the established network's as files by name.
type peer map[string][]byte

// peerName is the name of one of its packs without its suffix.
func peerName(hour time.Time, cc, test string, k int) string {
	return fmt.Sprintf("raw/%s/%s/%s/%s_%s_%s.n1.%d", hour.Format("20060102/15"), cc, test, hour.Format("2006010215"), cc, test, k)
}

// zipped is one gzip member of it all, as the established network writes it.
func zipped(tb testing.TB, data []byte) []byte {
	tb.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(data); err != nil {
		tb.Fatal(err)
	}
	if err := z.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// posts is a file of original posts.
func posts(tb testing.TB, all ...Submission) []byte {
	tb.Helper()
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	for _, s := range all {
		if err := t.WriteHeader(&tar.Header{Name: "2026022811_IT_webconnectivity/" + string(s.UID) + ".post", Size: int64(len(s.Body)), Mode: 0o644}); err != nil {
			tb.Fatal(err)
		}
		if _, err := t.Write(s.Body); err != nil {
			tb.Fatal(err)
		}
	}
	if err := t.Close(); err != nil {
		tb.Fatal(err)
	}
	return zipped(tb, b.Bytes())
}

// old is a body as the established network received it.
func old(n int, cc string, at time.Time) Submission {
	b := website(n, cc, texts[n%len(texts)])
	return Submission{Body: b, ReceivedAt: at, UID: measurement.NewID(at, country.Code(cc), "web_connectivity", b)}
}

// write puts the files where they can be imported from.
func (p peer) write(tb testing.TB, address string) *archive.Bucket {
	tb.Helper()
	b, err := archive.Open(ctx, address, archive.Options{Answer: 20 * time.Second, Stall: 20 * time.Second})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = b.Close() })
	for name, data := range p {
		u, err := b.Create(ctx, name)
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := u.Write(data); err != nil {
			tb.Fatal(err)
		}
		if err := u.Commit(); err != nil {
			tb.Fatal(err)
		}
	}
	return b
}

func (w *world) load(s *Service, i ArchiveImport) ArchiveImported {
	w.t.Helper()
	sum, err := s.ImportArchive(ctx, i)
	if err != nil {
		w.t.Fatal(err)
	}
	return sum
}

func TestImportArchive(t *testing.T) {
	t.Parallel()
	hour := start.Add(-13 * time.Hour) // 2026-02-28 11:00
	stores := map[string]func(testing.TB) string{
		"a folder": folder,
		"a part of a real S3 server": func(tb testing.TB) string {
			tb.Helper()
			return gateway(tb) + "&prefix=peer%2F"
		},
	}
	for name, store := range stores {
		t.Run("what is whole is imported under its uids, from "+name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := w.archivist(folder(t))
			w.use([]measurement.Fingerprint{fingerprint("first", "one blocked page")}, s)
			var bodies []Submission
			for n := range 25 {
				bodies = append(bodies, old(n, "IT", hour.Add(time.Duration(n)*time.Minute+time.Duration(n))))
			}
			for i := range bodies { // as uids have it
				bodies[i].ReceivedAt = bodies[i].ReceivedAt.Truncate(time.Microsecond)
			}
			aside := old(100, "ZZ", hour.Add(time.Minute))
			lines := [][]byte{website(200, "IR", "plain"), website(201, "IR", texts[1])}
			line := func(b []byte) []byte { return append(bytes.ReplaceAll(b, []byte("\n"), nil), '\n') }
			from := peer{
				peerName(hour, "IT", "webconnectivity", 0) + ".tar.gz": posts(t, bodies[:20]...),
				// Of two files with the same bodies the posts are taken.
				peerName(hour, "IT", "webconnectivity", 0) + ".jsonl.gz": zipped(t, line(website(300, "IT", "plain"))),
				peerName(hour, "IT", "webconnectivity", 1) + ".tar.gz":   posts(t, bodies[20:]...),
				peerName(hour, "ZZ", "webconnectivity", 0) + ".tar.gz":   posts(t, aside),
				peerName(hour, "IR", "webconnectivity", 0) + ".jsonl.gz": zipped(t, append(line(lines[0]), line(lines[1])...)),
				"raw/20260228/11/IT/webconnectivity/notes.txt":           []byte("not a pack"),
			}.write(t, store(t))
			late := hour.Add(10 * time.Minute)
			if sum := w.load(s, ArchiveImport{From: from, Source: "x", Since: &late, Countries: []string{"IT"}, TestNames: []string{"web_connectivity"}}); sum.Scored != 15 || sum.Objects != 2 || sum.Problems != 0 {
				t.Errorf("a part: %+v", sum)
			}
			sum := w.load(s, ArchiveImport{From: from, Source: "x"})
			if diff := cmp.Diff(ArchiveImported{
				Objects: 4, Done: 4, Bytes: sum.BytesDone, BytesDone: sum.BytesDone, BodyBytes: sum.BodyBytes, Scored: 10 + 2, Discarded: 1, Duplicates: 15,
			}, sum); diff != "" {
				t.Error(diff)
			}
			for _, b := range append(bodies, aside) {
				if got, err := s.Body(ctx, b.UID); err != nil || !bytes.Equal(got, b.Body) {
					t.Errorf("%s: %v", b.UID, err)
				}
			}
			m, err := w.db.Measurement(ctx, bodies[1].UID)
			if err != nil || !m.ReceivedAt.Equal(bodies[1].ReceivedAt) || m.Provenance != db.FromArchive || !m.Confirmed || m.FingerprintVersion != 1 {
				t.Errorf("%+v %v", m, err)
			}
			if n := w.count("select count(*) from measurement where country = 'IR' and received_at = '2026-02-28 11:59:59.999999Z'"); n != 2 {
				t.Errorf("%d lines were received in their hour", n)
			}
			w.counted(t)
			was := w.tables()
			if sum := w.load(s, ArchiveImport{From: from, Source: "x"}); sum.Known != 4 || sum.Scored+sum.Duplicates+sum.Discarded+sum.Problems != 0 {
				t.Errorf("a second import: %+v", sum)
			}
			if sum := w.load(s, ArchiveImport{From: from, Source: "the same under another name"}); sum.Known != 0 || sum.Scored+sum.Problems != 0 || sum.Duplicates+sum.Discarded != 28 {
				t.Errorf("a second import that does not know of the first: %+v", sum)
			}
			if diff := cmp.Diff(was, w.tables()); diff != "" {
				t.Error(diff)
			}
			// They go the way of all bodies, and are rescored as others are.
			if err := s.Pack(ctx); err != nil {
				t.Fatal(err)
			}
			if n := w.count("select count(*) from packed_body"); n != 28 {
				t.Errorf("%d are archived", n)
			}
			w.use([]measurement.Fingerprint{fingerprint("second", "two blocked page")}, s)
			if sum := w.rescore(s, Rescoring{}); sum.Scored != 27 || sum.Problems != 0 {
				t.Errorf("%+v", sum)
			}
			w.counted(t)
		})
	}

	t.Run("what is broken is reported and passed over", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.archivist(folder(t))
		var all []Submission
		for n := range 12 {
			all = append(all, old(n, "IT", hour.Add(time.Duration(n)*time.Minute)))
		}
		short := posts(t, all[2:4]...)
		foreign := all[5]
		foreign.UID = measurement.ID(strings.Replace(string(foreign.UID), "_IT_", "_IR_", 1))
		nameless := all[6]
		nameless.UID = "0120200303abcdef"
		garbage := all[7]
		garbage.Body = []byte("{")
		name := func(k int) string { return peerName(hour, "IT", "webconnectivity", k) }
		dir := t.TempDir()
		from := peer{
			name(0) + ".tar.gz":   posts(t, all[0], all[1]),
			name(1) + ".tar.gz":   short[:len(short)-30],
			name(2) + ".tar.gz":   []byte("no gzip"),
			name(3) + ".tar.gz":   posts(t, all[4], foreign, nameless, garbage, all[8]),
			name(4) + ".jsonl.gz": zipped(t, []byte("{}\nnot JSON\n\n"+string(bytes.ReplaceAll(website(9, "IT", "plain"), []byte("\n"), nil))+"\n")),
			name(5) + ".jsonl.gz": zipped(t, make([]byte, 100<<20)),
			name(6) + ".jsonl.gz": zipped(t, bytes.Repeat(append(bytes.Repeat([]byte(" "), 3<<20), '\n'), 30)),
			name(7) + ".tar.gz":   {},
		}.write(t, archive.FolderURL(dir))
		sum := w.load(s, ArchiveImport{From: from, Source: "x"})
		if sum.Objects != 8 || sum.Done != 8 || sum.Scored < 2+2+1 || sum.Scored > 2+2+2+1 {
			t.Errorf("%+v", sum)
		}
		for _, want := range []string{".n1.1.tar.gz is broken", ".n1.2.tar.gz is broken", "would begin with", "is no uid", ".n1.5.jsonl.gz is broken", ".n1.6.jsonl.gz is broken: it unpacks to more", ".n1.7.tar.gz is broken"} {
			if !strings.Contains(strings.Join(sum.ProblemExamples, "\n"), want) {
				t.Errorf("nobody said that something %s: %q", want, sum.ProblemExamples)
			}
		}
		w.counted(t)
		if n := w.count("select count(*) from imported_object"); n != 1 {
			t.Errorf("%d objects count as imported whole", n)
		}
		// Put right, it is imported: what is there already is not twice.
		if err := os.WriteFile(filepath.Join(dir, filepath.FromSlash(name(1))+".tar.gz"), short, 0o600); err != nil {
			t.Fatal(err)
		}
		w.load(s, ArchiveImport{From: from, Source: "x"})
		if n := w.count("select count(*) from measurement where uid in ($1, $2)", all[2].UID, all[3].UID); n != 2 {
			t.Errorf("%d of 2 are there", n)
		}
	})

	t.Run("an import that ends early is gone on with", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.archivist(folder(t))
		files := peer{}
		for k := range 10 {
			var some []Submission
			for n := range 30 {
				some = append(some, old(100*k+n, "IT", hour.Add(time.Duration(100*k+n)*time.Millisecond)))
			}
			files[peerName(hour, "IT", "webconnectivity", k)+".tar.gz"] = posts(t, some...)
		}
		from := files.write(t, folder(t))
		tries := 0
		for over := false; !over; tries++ {
			ending, end := context.WithCancel(ctx)
			_, err := s.ImportArchive(ending, ArchiveImport{From: from, Source: "x", Progress: func(sum ArchiveImported) {
				if sum.Scored > 0 {
					end()
				}
			}})
			end()
			if over = err == nil; !over && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
		if n := w.rows(); n["measurement"] != 300 || n["body"] != 300 || n["submission"] != 300 || tries < 2 {
			t.Errorf("after %d tries: %v", tries, n)
		}
		if n := len(w.log(events.MeasurementScored)); n != 300 {
			t.Errorf("%d were announced", n)
		}
		w.counted(t)
	})
}

func TestSubmitUnderAUID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.process()
	at := start.Add(-time.Hour)
	good := Submission{Body: body(1), ReceivedAt: at, UID: measurement.NewID(at, "DE", "signal", []byte("the original post"))}
	with := func(change func(*Submission)) Submission {
		sub := good
		change(&sub)
		return sub
	}
	for name, c := range map[string]struct {
		who   access.Principal
		sub   Submission
		code  fault.Code
		field string
	}{
		"no uid":          {staff, with(func(s *Submission) { s.UID = "x" }), fault.Invalid, "input.uid"},
		"another instant": {staff, with(func(s *Submission) { s.ReceivedAt = at.Add(time.Microsecond) }), fault.Invalid, "input.uid"},
		"no instant":      {staff, with(func(s *Submission) { s.ReceivedAt = time.Time{} }), fault.Invalid, "input.uid"},
		"another country": {staff, with(func(s *Submission) { s.UID = measurement.NewID(at, "IT", "signal", nil) }), fault.Invalid, "input.uid"},
		"another test":    {staff, with(func(s *Submission) { s.UID = measurement.NewID(at, "DE", "signals", nil) }), fault.Invalid, "input.uid"},
		"nobody of ours":  {access.Anyone, good, fault.Unauthenticated, ""},
		"a probe":         {self(w.register(s, "DE", 3320)), good, fault.Forbidden, "input.receivedAt"},
	} {
		if _, err := s.Submit(ctx, c.who, "", c.sub); !fault.Is(err, c.code) && c.who != access.Anyone || fault.Of(err).Field != c.field && c.field != "" {
			t.Errorf("%s: %v", name, err)
		} else if err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if n := w.count("select count(*) from measurement"); n != 0 {
		t.Errorf("%d are stored", n)
	}
	got, err := s.Submit(ctx, staff, "", good)
	if err != nil || got.UID != good.UID {
		t.Errorf("%+v %v", got, err)
	}
}
