//go:build unix

package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openvantage/vantage/fault"
)

// install makes programs that say they are of a version, in dir.
func install(t *testing.T, dir, version string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"initdb", "postgres"} {
		script := fmt.Sprintf("#!/bin/sh\necho '%s (PostgreSQL) %s'\n", program, version)
		syscall.ForkLock.RLock() // a process that began meanwhile would have the file open, too, and what is open for writing cannot be run
		err := os.WriteFile(filepath.Join(dir, program), []byte(script), 0o755)
		syscall.ForkLock.RUnlock()
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestSearch(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	packages := filepath.Join(root, "packages")
	nine := install(t, filepath.Join(packages, "9.6", "bin"), "9.6.24")
	fifteen := install(t, filepath.Join(packages, "15", "bin"), "15.18 (Debian 15.18-0+deb12u1)")
	eighteen := install(t, filepath.Join(root, "eighteen"), "18.4")
	onPath := install(t, filepath.Join(root, "onpath"), "17beta1")
	if err := os.MkdirAll(filepath.Join(packages, "16", "bin"), 0o755); err != nil { // a client's package
		t.Fatal(err)
	}
	link := filepath.Join(root, "postgres")
	if err := os.Symlink(filepath.Join(onPath, "postgres"), link); err != nil {
		t.Fatal(err)
	}
	absent := func(string) (string, error) { return "", os.ErrNotExist }
	present := func(string) (string, error) { return link, nil }

	t.Run("what was named comes first, then the newest package by number, then PATH", func(t *testing.T) {
		t.Parallel()
		got, err := search{explicit: eighteen, env: nine, packages: packages, path: present}.all()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{eighteen, nine, fifteen, nine, onPath}, got); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("a named directory without a server is the namer's mistake", func(t *testing.T) {
		t.Parallel()
		for field, s := range map[string]search{
			"BinDir":    {explicit: root, env: fifteen, packages: packages, path: present},
			"PG_BINDIR": {env: root, packages: packages, path: present},
		} {
			if _, err := s.fitting(t.Context(), root); !fault.Is(err, fault.Invalid) || fault.Of(err).Field != field {
				t.Errorf("got %v, want INVALID %s", err, field)
			}
		}
	})

	t.Run("where none is installed the error says what to install", func(t *testing.T) {
		t.Parallel()
		_, err := search{packages: filepath.Join(root, "none"), path: absent}.fitting(t.Context(), root)
		if !fault.Is(err, fault.Unavailable) {
			t.Fatalf("got %v, want UNAVAILABLE", err)
		}
		for _, part := range []string{"apt-get install postgresql", "PG_BINDIR", "DATABASE_URL"} {
			if !strings.Contains(fault.Of(err).Message, part) {
				t.Errorf("%q does not mention %s", fault.Of(err).Message, part)
			}
		}
	})

	t.Run("a cluster is opened by the programs that made it, or not at all", func(t *testing.T) {
		t.Parallel()
		s := search{explicit: eighteen, packages: packages, path: present}
		for version, want := range map[string]string{"": eighteen, "18": eighteen, "15": fifteen, "17": onPath} {
			data := t.TempDir()
			if version != "" {
				if err := os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte(version+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := s.fitting(t.Context(), data); got != want || err != nil {
				t.Errorf("a cluster of %q gets %s, %v, want %s", version, got, err, want)
			}
		}
		data := t.TempDir()
		if err := os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte("14\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := s.fitting(t.Context(), data)
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.Of(err).Message, "postgresql-14") || !strings.Contains(fault.Of(err).Message, "18 in "+eighteen) {
			t.Errorf("a cluster of 14 gets %v, want UNAVAILABLE naming postgresql-14 and what was found", err)
		}
	})
}

func TestReaches(t *testing.T) {
	t.Parallel()
	stranger := dropped("somebody", 54321, 54321)
	shut := t.TempDir()
	inner := filepath.Join(shut, "data")
	if err := errors.Join(os.Mkdir(inner, 0o755), os.Chmod(shut, 0o700)); err != nil {
		t.Fatal(err)
	}
	err := stranger.reaches("DataDir", inner)
	if !fault.Is(err, fault.Invalid) || fault.Of(err).Field != "DataDir" || !strings.Contains(err.Error(), shut+".") || !strings.Contains(err.Error(), "somebody") {
		t.Errorf("got %v, want INVALID that names %s and the user", err, shut)
	}
	if err := stranger.reaches("DataDir", os.TempDir()); err != nil {
		t.Errorf("the temporary directory: %v", err)
	}
	if err := (user{}).reaches("DataDir", inner); err != nil {
		t.Errorf("we ourselves: %v", err)
	}
}

func TestSocketDirRefusesAStrangersDirectory(t *testing.T) {
	t.Parallel()
	us := user{uid: os.Geteuid(), gid: os.Getegid()}
	long := filepath.Join(t.TempDir(), strings.Repeat("x", socketPathLimit))
	path, temporary, err := socketDir(long, us)
	if err != nil || !temporary {
		t.Fatalf("got %s, %v, %v", path, temporary, err)
	}
	t.Cleanup(func() { _ = os.Remove(path) })
	if again, _, err := socketDir(long, us); again != path || err != nil {
		t.Errorf("our own is not taken again: %s, %v", again, err)
	}
	if err := os.Chmod(path, 0o711); err != nil {
		t.Fatal(err)
	}
	if _, _, err := socketDir(long, us); !fault.Is(err, fault.Conflict) {
		t.Errorf("one that others may enter gives %v, want CONFLICT", err)
	}
	if err := errors.Join(os.Remove(path), os.Symlink(t.TempDir(), path)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := socketDir(long, us); !fault.Is(err, fault.Conflict) {
		t.Errorf("a link gives %v, want CONFLICT", err)
	}
}

func TestServes(t *testing.T) {
	t.Parallel()
	if serves(os.Getpid(), "/nowhere") {
		t.Error("this process serves a cluster")
	}
	if syscall.Kill(1<<22+1, 0) == nil || serves(1<<22+1, "/nowhere") {
		t.Error("a process that cannot be serves a cluster")
	}
}

func TestLogWriter(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	w := &logWriter{log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))}
	for _, piece := range []string{"LOG:  star", "ting\nWARNING:  full", " disk\n\tcontinued\nFATAL:  no more\nPANIC:  at all\nLOG:  cut"} {
		if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	want := `level=DEBUG msg=starting
level=WARN msg="full disk"
level=DEBUG msg=continued
level=DEBUG msg="no more"
level=ERROR msg="at all"
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	if w.reason != "at all" {
		t.Errorf("the reason is %q", w.reason)
	}
}
