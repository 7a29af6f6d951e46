package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/archive"
	"github.com/openvantage/vantage/archive/archivetest"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/db/dbtest"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
)

// archivist is a process with an archive.
func (w *world) archivist(address string) *Service {
	w.t.Helper()
	b, err := archive.Open(ctx, address, archive.Options{Answer: 20 * time.Second, Stall: 20 * time.Second})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = b.Close() })
	return w.archivistWith(b)
}

func (w *world) archivistWith(b *archive.Bucket) *Service {
	w.t.Helper()
	settings := DefaultRules()
	settings.OpenCollector, settings.Archive, settings.Collector = true, b, 1
	s, err := New(ctx, w.db, settings, silent{}, slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// bodies submits n of them from two countries, one more that is discarded, and returns all by uid.
func (w *world) bodies(s *Service, n int) map[measurement.ID][]byte {
	w.t.Helper()
	all := map[measurement.ID][]byte{}
	for i := range n + 1 {
		cc := []string{"IT", "IR"}[i%2]
		if i == n {
			cc = "ZZ"
		}
		b := fmt.Appendf(nil, `{"report_id": "r%d", "probe_cc": %q, "probe_asn": "AS3320", "test_name": "web_connectivity",`+"\n"+` "test_keys": {"n": %d, "at": %d}}`, i, cc, i, w.clock().Unix())
		got, err := s.Submit(ctx, access.Anyone, "", Submission{Body: b})
		if err != nil || (got.Discarded != "") != (cc == "ZZ") {
			w.t.Fatal(got, err)
		}
		all[got.UID] = b
	}
	return all
}

// holds checks that every body is there byte for byte, in one place each, so many of them in packs.
func (w *world) holds(s *Service, all map[measurement.ID][]byte, packed int) {
	w.t.Helper()
	for uid, want := range all {
		if got, err := s.Body(ctx, uid); err != nil || !bytes.Equal(got, want) {
			w.t.Errorf("%s: %v", uid, err)
		}
	}
	spool, archived := w.count("select count(*) from body"), w.count("select count(*) from packed_body")
	both := w.count("select count(*) from body join packed_body using (received_at, country, uid)")
	named := w.count("select coalesce(sum(body_count), 0) from pack")
	if spool+archived != len(all) || both != 0 || archived != packed || named != packed {
		w.t.Errorf("%d bodies are in the spool, %d are archived, %d are both, packs have %d; there are %d", spool, archived, both, named, len(all))
	}
}

func folder(tb testing.TB) string {
	tb.Helper()
	return archive.FolderURL(tb.TempDir())
}

var errKilled = errors.New("killed")

func TestPack(t *testing.T) {
	t.Parallel()

	t.Run("hours that are over are archived, discarded bodies too, and each body stays byte for byte", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.archivist(folder(t))
		all := w.bodies(s, 20)
		for _, c := range []struct {
			wait   time.Duration
			packed int
		}{{0, 0}, {time.Hour + 4*time.Minute, 0}, {2 * time.Minute, 21}, {time.Hour, 21}} {
			w.wait(c.wait)
			if err := s.Pack(ctx); err != nil {
				t.Fatal(err)
			}
			w.holds(s, all, c.packed)
		}
		if n := w.count("select count(*) from pack where sequence = 0"); n != 3 {
			t.Errorf("there are %d packs", n)
		}
		// What comes later for the same hour is another pack of it.
		late, err := s.Submit(ctx, staff, "", Submission{Body: body(1), ReceivedAt: start.Add(time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		all[late.UID] = body(1)
		if err := s.PackLarge(ctx); err != nil { // 46 minutes later: it makes up for a look that failed
			t.Fatal(err)
		}
		w.holds(s, all, 22)
		sum, err := s.VerifyArchive(ctx, db.PackQuery{}, func(Verification) {})
		if err != nil || sum.Packs != 4 || sum.Damaged != 0 {
			t.Errorf("%+v %v", sum, err)
		}
	})

	for _, step := range []string{"chosen", "half written", "written", "verified", "committed"} {
		t.Run("a process that ends after "+step+" loses nothing and leaves nothing twice", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := w.archivist(folder(t))
			all := w.bodies(s, 12)
			w.wait(2 * time.Hour)
			s.packing = func(at string) error {
				if at == step {
					return errKilled
				}
				return nil
			}
			if err := s.Pack(ctx); !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
			w.holds(s, all, map[bool]int{true: 13}[step == "committed"])
			s.packing = nil
			next := w.archivistWith(s.settings.Archive)
			late := w.bodies(next, 3) // other bodies than the attempt had, in the next hour
			for uid, b := range late {
				all[uid] = b
			}
			w.wait(2 * time.Hour)
			for range 2 {
				if err := next.Pack(ctx); err != nil {
					t.Fatal(err)
				}
				w.holds(next, all, len(all))
			}
			if n := w.count("select count(*) from pack where sequence > 0"); n != 0 {
				t.Errorf("%d packs have not the name of the attempt", n)
			}
		})
	}

	t.Run("who reads while bodies are packed always gets them", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.archivist(folder(t))
		all := w.bodies(s, 30)
		w.wait(2 * time.Hour)
		var over atomic.Bool
		var readers sync.WaitGroup
		var reads atomic.Int64
		for range 2 {
			readers.Go(func() {
				for last := false; !last; {
					last = over.Load() // one more round after the last commit
					for uid, want := range all {
						if got, err := s.Body(ctx, uid); err != nil || !bytes.Equal(got, want) {
							t.Errorf("%s: %v", uid, err)
						}
						reads.Add(1)
					}
				}
			})
		}
		// At each step readers get through everything before the next.
		s.packing = func(string) error {
			for from := reads.Load(); reads.Load() < from+int64(len(all)); {
				time.Sleep(time.Millisecond) //nolint:forbidigo // the readers' pace, not a guess
			}
			return nil
		}
		err := s.Pack(ctx)
		over.Store(true)
		readers.Wait()
		if err != nil {
			t.Fatal(err)
		}
		w.holds(s, all, 31)
	})

	t.Run("two processes at once pack each body once", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.archivist(folder(t))
		other := w.archivistWith(s.settings.Archive)
		all := w.bodies(s, 30)
		w.wait(2 * time.Hour)
		var both sync.WaitGroup
		for _, p := range []*Service{s, other} {
			both.Go(func() {
				if err := p.Pack(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		w.holds(s, all, 31)
	})

	t.Run("a process that is killed while it uploads is followed by one that completes it", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		address := folder(t)
		s := w.archivist(address)
		all := w.bodies(s, 12)
		for _, step := range []string{"half written", "written", "verified"} {
			cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestPackInAnotherProcess$", "-test.v")
			cmd.Env = append(os.Environ(), "PACK_DATABASE="+w.url, "PACK_ARCHIVE="+address, "PACK_UNTIL="+step)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Exited() {
				t.Fatalf("it was not killed: %v\n%s", err, out)
			}
			w.holds(s, all, 0)
		}
		w.wait(2 * time.Hour)
		// The dead process's session may hold the lock for a moment longer.
		for began := time.Now(); w.count("select count(*) from body") > 0 && time.Since(began) < time.Minute; {
			if err := s.Pack(ctx); err != nil {
				t.Fatal(err)
			}
		}
		w.holds(s, all, 13)
	})
}

// TestPackInAnotherProcess is the process that TestPack kills.
func TestPackInAnotherProcess(t *testing.T) {
	url := os.Getenv("PACK_DATABASE")
	if url == "" {
		t.Parallel()
		return
	}
	w := newWorldOn(t, url)
	w.wait(2 * time.Hour)
	s := w.archivist(os.Getenv("PACK_ARCHIVE"))
	s.packing = func(step string) error {
		if step == os.Getenv("PACK_UNTIL") {
			me, err := os.FindProcess(os.Getpid())
			if err == nil {
				err = me.Kill()
			}
			if err != nil {
				return err
			}
			select {}
		}
		return nil
	}
	t.Error(s.Pack(ctx))
}

func TestPackInTrouble(t *testing.T) {
	t.Parallel()

	// trouble has a store fail, and mend.
	trouble := func(t *testing.T, s *Service, w *world, advice string, breaks, mends func()) map[measurement.ID][]byte {
		t.Helper()
		all := w.bodies(s, 6)
		w.wait(2 * time.Hour)
		breaks()
		if err := s.Pack(ctx); !fault.Is(err, fault.Unavailable) || !strings.Contains(archive.Advice(err), advice) {
			t.Fatalf("%v, and %q", err, archive.Advice(err))
		}
		w.holds(s, all, 0)
		mends()
		if err := s.Pack(ctx); err != nil {
			t.Fatal(err)
		}
		w.holds(s, all, 7)
		return all
	}

	t.Run("a folder that cannot be written to", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		dir := t.TempDir()
		inTheWay := filepath.Join(dir, "raw")
		trouble(t, w.archivist(archive.FolderURL(dir)), w, "let this server write", func() {
			if err := os.WriteFile(inTheWay, nil, 0o400); err != nil {
				t.Fatal(err)
			}
		}, func() { _ = os.Remove(inTheWay) })
	})

	t.Run("a store that is full after a while", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		f := archivetest.StartFake(t)
		trouble(t, w.archivist(f.URL), w, "full", func() {
			f.Trouble(func(rw http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet {
					rw.WriteHeader(http.StatusInsufficientStorage)
					return
				}
				f.Store(rw, r)
			})
		}, func() { f.Trouble(nil) })
	})

	t.Run("a real server that is gone for a while, and reads meanwhile", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		g := archivetest.StartGateway(t)
		s := w.archivist(g.URL)
		all := trouble(t, s, w, "", func() { g.Stop(t) }, func() { g.Start(t) })
		g.Stop(t)
		for uid := range all {
			began := time.Now()
			_, err := s.Body(ctx, uid)
			if f := fault.Of(err); f == nil || f.Code != fault.Unavailable || f.RetryAfter == 0 || time.Since(began) > 30*time.Second {
				t.Errorf("after %s: %v", time.Since(began), err)
			}
			break
		}
	})

	t.Run("a store that stalls", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		f := archivetest.StartFake(t)
		b, err := archive.Open(ctx, f.URL, archive.Options{Answer: 3 * time.Second, Stall: 2 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		trouble(t, w.archivistWith(b), w, "slow", func() { f.Trouble(f.Stall) }, func() { f.Trouble(nil) })
	})

	t.Run("what is written differently than it reads is not trusted", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		dir := t.TempDir()
		s := w.archivist(archive.FolderURL(dir))
		all := w.bodies(s, 6)
		w.wait(2 * time.Hour)
		s.packing = func(step string) error {
			if step == "written" {
				spoil(t, dir, 100)
			}
			return nil
		}
		if err := s.Pack(ctx); !errors.As(err, new(*archive.Damage)) {
			t.Error(err)
		}
		w.holds(s, all, 0)
		s.packing = nil
		if err := s.Pack(ctx); err != nil {
			t.Fatal(err)
		}
		w.holds(s, all, 7)
	})
}

// spoil changes a byte of every tar in a folder.
func spoil(t *testing.T, dir string, at int64) {
	t.Helper()
	found := 0
	err := filepath.WalkDir(dir, func(name string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, archive.PostsSuffix) {
			return err
		}
		found++
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		b[at] ^= 1
		return os.WriteFile(name, b, 0o600)
	})
	if err != nil || found == 0 {
		t.Fatal(found, err)
	}
}

func TestBodyOfADamagedPack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := t.TempDir()
	s := w.archivist(archive.FolderURL(dir))
	all := w.bodies(s, 2)
	w.wait(2 * time.Hour)
	if err := s.Pack(ctx); err != nil {
		t.Fatal(err)
	}
	spoil(t, dir, 150)
	for range 2 {
		for uid := range all {
			if got, err := s.Body(ctx, uid); got != nil || !fault.Is(err, fault.Internal) || !strings.Contains(fault.Of(err).Message, "damaged") {
				t.Errorf("%q %v", got, err)
			}
		}
		w.wait(time.Minute)
	}
	if n := w.count("select count(*) from pack where damaged_at = '2026-03-01T02:00:00Z'"); n != 3 {
		t.Errorf("%d packs were marked when it was first seen", n)
	}
	spoil(t, dir, 150) // the bit is back
	sum, err := s.VerifyArchive(ctx, db.PackQuery{}, func(Verification) {})
	if err != nil || sum.Repaired != 3 || sum.Damaged != 0 || w.count("select count(*) from pack where damaged_at is not null") != 0 {
		t.Errorf("%+v %v", sum, err)
	}
	w.holds(s, all, 3)
}

func BenchmarkPack(b *testing.B) {
	w := newWorldOn(b, dbtest.New(b))
	s := w.archivist(folder(b))
	for b.Loop() {
		b.StopTimer()
		w.bodies(s, 2000)
		w.wait(2 * time.Hour)
		b.StartTimer()
		if err := s.Pack(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
