package service

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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

// files are the objects of the store, without those that are being written.
func files(tb testing.TB, s *Service) (names []string) {
	tb.Helper()
	for o, err := range s.settings.Archive.List(ctx, "") {
		if err != nil {
			tb.Fatal(err)
		}
		if !strings.HasSuffix(o.Name, ".tmp") {
			names = append(names, o.Name)
		}
	}
	return names
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

	for _, step := range []string{"chosen", "half written", "verified"} {
		t.Run("who loses the lock after "+step+" writes no more", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := w.archivist(folder(t))
			all := w.bodies(s, 12)
			w.wait(2 * time.Hour)
			var before []string
			s.packing = func(at string) error {
				if at == step && before == nil {
					w.count("select count(pg_terminate_backend(pid, 10000)) from pg_locks where locktype = 'advisory' and objsubid = 1 and database = (select oid from pg_database where datname = current_database())")
					before = append(files(t, s), "")
				}
				return nil
			}
			if err := s.Pack(ctx); !fault.Is(err, fault.Unavailable) {
				t.Fatal(err)
			}
			w.holds(s, all, 0)
			if after := append(files(t, s), ""); !slices.Equal(before, after) {
				t.Errorf("there was %q, and is %q", before, after)
			}
			s.packing = nil
			if err := s.Pack(ctx); err != nil {
				t.Fatal(err)
			}
			w.holds(s, all, 13)
		})
	}

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
		reads := make(chan struct{})
		for range 2 {
			readers.Go(func() {
				for last := false; !last; {
					last = over.Load() // one more round after the last commit
					for uid, want := range all {
						if got, err := s.Body(ctx, uid); err != nil || !bytes.Equal(got, want) {
							t.Errorf("%s: %v", uid, err)
						}
						select {
						case reads <- struct{}{}:
						default:
						}
					}
				}
			})
		}
		// At each step readers get through everything before the next.
		s.packing = func(string) error {
			for range all {
				<-reads
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

func TestPackBySize(t *testing.T) {
	t.Parallel()

	// large are bodies of 3 MB that do not compress.
	large := func(w *world, s *Service, n int) map[measurement.ID][]byte {
		w.t.Helper()
		all := map[measurement.ID][]byte{}
		random := rand.New(rand.NewPCG(1, uint64(w.clock().UnixNano())))
		for i := range n {
			fill := make([]byte, 0, 2_250_000)
			for len(fill) < cap(fill) {
				fill = binary.LittleEndian.AppendUint64(fill, random.Uint64())
			}
			b := fmt.Appendf(nil, `{"report_id": "r%d", "probe_cc": "IR", "probe_asn": "AS3320", "test_name": "web_connectivity", "test_keys": {"fill": %q}}`,
				i, base64.StdEncoding.EncodeToString(fill))
			got, err := s.Submit(ctx, access.Anyone, "", Submission{Body: b})
			if err != nil {
				w.t.Fatal(err)
			}
			all[got.UID] = b
		}
		return all
	}

	t.Run("a pile that is large is packed before its hour is over, as far as it fills packs", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.archivist(folder(t))
		all := large(w, s, 6) // 18 MB
		if err := s.PackLarge(ctx); err != nil {
			t.Fatal(err)
		}
		w.holds(s, all, 0)
		w.wait(time.Minute)
		for uid, b := range large(w, s, 10) { // 48 MB
			all[uid] = b
		}
		if err := s.PackLarge(ctx); err != nil {
			t.Fatal(err)
		}
		if n := w.count("select count(*) from pack where posts_size between 20000000 and 23000000"); n != 2 {
			t.Errorf("there are %d full packs", n)
		}
		w.holds(s, all, 14)
		w.wait(2 * time.Hour)
		if err := s.Pack(ctx); err != nil {
			t.Fatal(err)
		}
		w.holds(s, all, 16)
		sum, err := s.VerifyArchive(ctx, db.PackQuery{}, func(Verification) {})
		if err != nil || sum.Packs != 3 || sum.Damaged != 0 || w.count("select max(sequence) from pack") != 2 {
			t.Errorf("%+v %v", sum, err)
		}
	})

	t.Run("a pile of more bodies than a pack has becomes several", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.archivist(folder(t))
		const n = archive.PackBodies + 5
		w.sql(`insert into body select at, 'IR', to_char(at at time zone 'UTC', 'YYYYMMDDHH24MISS.US') || '_IR_ndt_0123456789abcdef', $1
			from (select timestamptz '2026-03-01T00:10:00Z' + i * interval '1 millisecond' as at from generate_series(1, $2) i) x`, db.Compress([]byte("{}")), n)
		w.wait(2 * time.Hour)
		var told []Packing
		sum, err := s.PackBeside(ctx, false, func(p Packing) { told = append(told, p) })
		if diff := cmp.Diff(Packing{Packs: 2, Bodies: n}, sum); diff != "" || err != nil || len(told) != 2 || told[0].Bodies != archive.PackBodies || told[0].Waiting != 5 {
			t.Errorf("%v %v %v", diff, told, err)
		}
		if w.count("select count(*) from packed_body") != n || w.count("select count(*) from body") != 0 {
			t.Error("bodies are missing")
		}
	})

	t.Run("who asks for it gets the present hour packed", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.archivist(folder(t))
		all := w.bodies(s, 4)
		for _, c := range []struct {
			now    bool
			packed int
		}{{false, 0}, {true, 5}} {
			sum, err := s.PackBeside(ctx, c.now, nil)
			if err != nil || sum.Bodies != c.packed || sum.Waiting != 5-c.packed {
				t.Errorf("%+v %v", sum, err)
			}
			w.holds(s, all, c.packed)
		}
	})
}

// TestPackInAnotherProcess is the process that TestPack kills.
func TestPackInAnotherProcess(t *testing.T) { //nolint:paralleltest // it is, where it is a test
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

	t.Run("a disk that is full", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		dir := t.TempDir()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4k"); err != nil {
			t.Skipf("Only root can mount a small disk here: %v. That a store is full is tested above, too.", err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(dir, 0) })
		trouble(t, w.archivist(archive.FolderURL(dir)), w, "make room", func() {}, func() {
			if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=1m"); err != nil {
				t.Fatal(err)
			}
		})
		torn, err := filepath.Glob(filepath.Join(dir, "raw/*/*/*/*/*.tmp"))
		if err != nil || len(torn) > 0 {
			t.Errorf("%v was left, %v", torn, err)
		}
	})

	t.Run("a store that is gone for an hour, while bodies come and are read", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		f := archivetest.StartFake(t)
		s := w.archivist(f.URL)
		all := w.bodies(s, 6)
		w.wait(time.Hour)
		f.Trouble(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusForbidden) }) // not tried again by the driver
		for minute := range 70 {
			look := s.PackLarge
			if w.clock().Minute() == 10 {
				look = s.Pack
			}
			err := look(ctx)
			if due := minute == 10 || minute >= 20; due != fault.Is(err, fault.Unavailable) || !due && err != nil {
				t.Fatalf("at minute %d: %v", minute, err)
			}
			if minute%30 == 0 {
				for uid, b := range w.bodies(s, 3) {
					all[uid] = b
				}
				w.holds(s, all, 0)
			}
			w.wait(time.Minute)
		}
		f.Trouble(nil)
		w.wait(20 * time.Minute)
		if err := s.PackLarge(ctx); err != nil {
			t.Fatal(err)
		}
		w.holds(s, all, len(all)-4) // the last hour is not over for long enough
		w.wait(time.Hour)
		if err := s.PackLarge(ctx); err != nil {
			t.Fatal(err)
		}
		w.holds(s, all, len(all))
	})

	t.Run("a store that is slow and answers", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		f := archivetest.StartFake(t)
		s := w.archivist(f.URL)
		all := w.bodies(s, 6)
		w.wait(2 * time.Hour)
		f.Trouble(func(rw http.ResponseWriter, r *http.Request) {
			<-time.After(100 * time.Millisecond)
			f.Store(rw, r)
		})
		if err := s.Pack(ctx); err != nil {
			t.Fatal(err)
		}
		w.holds(s, all, len(all))
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
