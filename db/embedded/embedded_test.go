//go:build unix

package embedded_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/golang-migrate/migrate/v4"
	_ "github.com/golang-migrate/migrate/v4/database/pgx/v5"
	"github.com/golang-migrate/migrate/v4/source/iofs"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/openvantage/vantage/db/embedded"
	"github.com/openvantage/vantage/fault"
)

// holdEnv makes this test binary a process that holds the cluster in the named directory.
const holdEnv = "VANTAGE_TEST_HOLD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdEnv); dir != "" {
		hold(dir)
	}
	goleak.VerifyTestMain(m)
}

func hold(dir string) {
	s, err := embedded.Start(context.Background(), embedded.Config{DataDir: dir})
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	fmt.Println("ready")
	<-s.Done()
	os.Exit(2)
}

// dataDir returns a path that the server's user can reach, too: t.TempDir's is for us alone.
func dataDir(tb testing.TB) string {
	tb.Helper()
	parent, err := os.MkdirTemp("", "vantage-embedded-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(parent) })
	if err := os.Chmod(parent, 0o755); err != nil {
		tb.Fatal(err)
	}
	return filepath.Join(parent, "data")
}

func start(tb testing.TB, c embedded.Config) *embedded.Server {
	tb.Helper()
	s, err := embedded.Start(tb.Context(), c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Stop(context.Background()) })
	return s
}

func stop(tb testing.TB, s *embedded.Server) {
	tb.Helper()
	if err := s.Stop(tb.Context()); err != nil {
		tb.Fatal(err)
	}
}

// query returns the one text that a statement answers with.
func query(tb testing.TB, url, sql string, args ...any) string {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), url)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var text string
	if err := conn.QueryRow(tb.Context(), sql, args...).Scan(&text); err != nil {
		tb.Fatal(err)
	}
	return text
}

func postmaster(tb testing.TB, dir string) int {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "pg", "postmaster.pid"))
	if err != nil {
		tb.Fatal(err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(line)
	if err != nil {
		tb.Fatal(err)
	}
	return pid
}

func TestStart(t *testing.T) {
	t.Parallel()

	t.Run("a cluster keeps what was committed when it is stopped and started", func(t *testing.T) {
		t.Parallel()
		dir := dataDir(t)
		began := time.Now()
		s := start(t, embedded.Config{DataDir: dir})
		t.Logf("cold start took %v", time.Since(began).Round(time.Millisecond))
		if got := query(t, s.URL, "select current_database()"); got != "vantage" {
			t.Errorf("the URL leads to database %q", got)
		}
		conn, err := pgx.Connect(t.Context(), s.URL)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), "create table kept (what text); insert into kept values ('it')"); err != nil {
			t.Fatal(err)
		}
		pid := postmaster(t, dir)
		stop(t, s) // with a connection open
		if err := conn.Ping(t.Context()); err == nil {
			t.Error("a connection outlived the server")
		}
		if syscall.Kill(pid, 0) == nil {
			t.Errorf("process %d outlived Stop", pid)
		}
		if err := s.Stop(t.Context()); err != nil || s.Err() != nil {
			t.Errorf("a second Stop says %v, Err %v", err, s.Err())
		}
		began = time.Now()
		s = start(t, embedded.Config{DataDir: dir})
		t.Logf("restart took %v", time.Since(began).Round(time.Millisecond))
		if got := query(t, s.URL, "select what from kept"); got != "it" {
			t.Errorf("after a restart the row says %q", got)
		}
	})

	t.Run("the server is durable, private and in UTF-8, and takes the caller's settings", func(t *testing.T) {
		t.Parallel()
		dir := dataDir(t)
		s := start(t, embedded.Config{DataDir: dir, Params: map[string]string{
			"work_mem": "5MB", "jit": "on", "listen_addresses": "127.0.0.1", "port": "1",
		}})
		got := map[string]string{}
		for _, name := range []string{
			"fsync", "full_page_writes", "synchronous_commit", "listen_addresses", "unix_socket_permissions", "server_encoding",
			"lc_collate", "TimeZone", "max_connections", "shared_buffers", "work_mem", "jit", "port", "password_encryption",
		} {
			// PostgreSQL 16 and later keep the locale in the catalogue alone.
			if name == "lc_collate" {
				got[name] = query(t, s.URL, "select datcollate from pg_database where datname = current_database()")
				continue
			}
			got[name] = query(t, s.URL, "select current_setting($1)", name)
		}
		want := map[string]string{
			"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "listen_addresses": "", "unix_socket_permissions": "0700", "server_encoding": "UTF8",
			"lc_collate": "C.UTF-8", "TimeZone": "UTC", "max_connections": "100", "shared_buffers": "128MB", "work_mem": "5MB", "jit": "on", "port": "5432", "password_encryption": "scram-sha-256",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		for path, mode := range map[string]os.FileMode{"": 0o700, "password": 0o600, "pg": 0o700, "run": 0o700, "lock": 0o600} {
			info, err := os.Stat(filepath.Join(dir, path))
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != mode {
				t.Errorf("%q has mode %o, want %o", path, info.Mode().Perm(), mode)
			}
		}
		if conn, err := pgx.Connect(t.Context(), strings.Replace(s.URL, "@", "x@", 1)); err == nil {
			_ = conn.Close(t.Context())
			t.Error("a wrong password opened the database")
		}
	})

	t.Run("golang-migrate takes the same URL", func(t *testing.T) {
		t.Parallel()
		s := start(t, embedded.Config{DataDir: dataDir(t)})
		src, err := iofs.New(fstest.MapFS{"0001_create_thing.up.sql": {Data: []byte("create table thing (); comment on table thing is 'there'")}}, ".")
		if err != nil {
			t.Fatal(err)
		}
		m, err := migrate.NewWithSourceInstance("iofs", src, "pgx5"+strings.TrimPrefix(s.URL, "postgres"))
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Up(); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(m.Close()); err != nil {
			t.Fatal(err)
		}
		if got := query(t, s.URL, "select obj_description('thing'::regclass)"); got != "there" {
			t.Errorf("the migrated table says %q", got)
		}
	})

	t.Run("a second owner is told who the first is", func(t *testing.T) {
		t.Parallel()
		dir := dataDir(t)
		start(t, embedded.Config{DataDir: dir})
		_, err := embedded.Start(t.Context(), embedded.Config{DataDir: dir})
		if !fault.Is(err, fault.Conflict) {
			t.Fatalf("the second Start says %v, want CONFLICT", err)
		}
		for _, part := range []string{dir, fmt.Sprintf("process %d.", os.Getpid())} {
			if !strings.Contains(fault.Of(err).Message, part) {
				t.Errorf("%q does not name %q", fault.Of(err).Message, part)
			}
		}
	})

	for name, parts := range map[string][]string{
		"a directory too long for a socket works":    {strings.Repeat("long", 20), strings.Repeat("longer", 10), "data"},
		"a directory that a URL's host cannot works": {"a,b", `quo"te and space?&%`, "data"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(append([]string{dataDir(t)}, parts...)...)
			s := start(t, embedded.Config{DataDir: dir})
			socket := query(t, s.URL, "select current_setting('unix_socket_directories')")
			socket = strings.Trim(socket, `"`)
			if _, err := os.Stat(filepath.Join(socket, ".s.PGSQL.5432")); err != nil {
				t.Error(err)
			}
			stop(t, s)
			if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is still there: %v", socket, err)
			}
		})
	}

	t.Run("a relative directory is one of this process's working directory", func(t *testing.T) {
		t.Parallel()
		dir := dataDir(t)
		here, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		relative, err := filepath.Rel(here, dir)
		if err != nil {
			t.Fatal(err)
		}
		s := start(t, embedded.Config{DataDir: relative})
		if got := query(t, s.URL, "select current_setting('data_directory')"); got != filepath.Join(dir, "pg") {
			t.Errorf("the cluster is in %s, want %s", got, dir)
		}
	})

	t.Run("a directory with something else in it is left alone", func(t *testing.T) {
		t.Parallel()
		dir := dataDir(t)
		if err := os.MkdirAll(filepath.Join(dir, "photos"), 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := embedded.Start(t.Context(), embedded.Config{DataDir: dir})
		if !fault.Is(err, fault.Invalid) || fault.Of(err).Field != "DataDir" {
			t.Errorf("Start says %v, want INVALID DataDir", err)
		}
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("its mode is %v (%v)", info.Mode(), err)
		}
	})

	t.Run("a setting that PostgreSQL refuses is quoted and nothing stays behind", func(t *testing.T) {
		t.Parallel()
		dir := dataDir(t)
		_, err := embedded.Start(t.Context(), embedded.Config{DataDir: dir, Params: map[string]string{"work_mem": "plenty"}})
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.Of(err).Message, "work_mem") {
			t.Errorf("Start says %v, want UNAVAILABLE about work_mem", err)
		}
		start(t, embedded.Config{DataDir: dir})
	})

	t.Run("a start that is given no time leaves nothing behind", func(t *testing.T) {
		t.Parallel()
		dir := dataDir(t)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := embedded.Start(ctx, embedded.Config{DataDir: dir}); !fault.Is(err, fault.Unavailable) {
			t.Errorf("Start says %v, want UNAVAILABLE", err)
		}
		start(t, embedded.Config{DataDir: dir})
	})
}

func TestFind(t *testing.T) {
	t.Parallel()
	for name, parts := range map[string][]string{
		"a server is found from beside it while it runs":           {"data"},
		"a server whose socket is elsewhere is found all the same": {strings.Repeat("long", 30), "data"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(append([]string{dataDir(t)}, parts...)...)
			if _, err := embedded.Find(dir); !fault.Is(err, fault.Unavailable) {
				t.Errorf("before there is one, Find says %v", err)
			}
			s := start(t, embedded.Config{DataDir: dir})
			if got, err := embedded.Find(dir); got != s.URL || err != nil {
				t.Errorf("Find = %q, %v, want %q", got, err, s.URL)
			}
			if err := syscall.Kill(postmaster(t, dir), syscall.SIGKILL); err != nil { // leaves its file
				t.Fatal(err)
			}
			<-s.Done()
			if _, err := embedded.Find(dir); !fault.Is(err, fault.Unavailable) {
				t.Errorf("after a crash, Find says %v", err)
			}
		})
	}
}

func TestStartAfterACrash(t *testing.T) {
	t.Parallel()

	t.Run("an interrupted initdb is done again", func(t *testing.T) {
		t.Parallel()
		dir := dataDir(t)
		bin := t.TempDir()
		if err := os.Chmod(filepath.Dir(bin), 0o755); err != nil {
			t.Fatal(err)
		}
		for program, script := range map[string]string{
			"initdb":   "#!/bin/sh\nmkdir $2/base && echo 15 >$2/PG_VERSION && echo half done && exit 1\n",
			"postgres": "#!/bin/sh\nexit 1\n",
		} {
			syscall.ForkLock.RLock() // a process that began meanwhile would have the file open, too, and what is open for writing cannot be run
			err := os.WriteFile(filepath.Join(bin, program), []byte(script), 0o755)
			syscall.ForkLock.RUnlock()
			if err != nil {
				t.Fatal(err)
			}
		}
		if _, err := embedded.Start(t.Context(), embedded.Config{DataDir: dir, BinDir: bin}); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "half done") {
			t.Fatalf("Start says %v, want UNAVAILABLE because of initdb", err)
		}
		if torn, _ := filepath.Glob(filepath.Join(dir, "initdb-*", "PG_VERSION")); len(torn) != 1 {
			t.Fatalf("the interrupted initdb left %v", torn)
		}
		start(t, embedded.Config{DataDir: dir})
		if torn, _ := filepath.Glob(filepath.Join(dir, "initdb-*")); len(torn) != 0 {
			t.Errorf("%v is still there", torn)
		}
	})

	t.Run("a server that is killed is reported and its cluster opens again", func(t *testing.T) {
		t.Parallel()
		dir := dataDir(t)
		s := start(t, embedded.Config{DataDir: dir})
		query(t, s.URL, "select set_config('search_path', '', false)")
		if err := s.Err(); err != nil {
			t.Errorf("while it runs Err says %v", err)
		}
		if err := syscall.Kill(postmaster(t, dir), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-s.Done()
		if !fault.Is(s.Err(), fault.Unavailable) {
			t.Errorf("Err says %v, want UNAVAILABLE", s.Err())
		}
		start(t, embedded.Config{DataDir: dir})
	})

	t.Run("a stop that is given no time loses nothing that was committed", func(t *testing.T) {
		t.Parallel()
		dir := dataDir(t)
		s := start(t, embedded.Config{DataDir: dir})
		query(t, s.URL, "select pg_create_physical_replication_slot('kept', true)::text")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Stop(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Stop says %v, want that it was cut short", err)
		}
		s = start(t, embedded.Config{DataDir: dir})
		if got := query(t, s.URL, "select slot_name::text from pg_replication_slots"); got != "kept" {
			t.Errorf("after recovery the slot is %q", got)
		}
	})

	t.Run("the server of a killed process stops by itself and the next process waits for it", func(t *testing.T) {
		t.Parallel()
		dir := dataDir(t)
		holder := holding(t, dir)
		if _, err := embedded.Start(t.Context(), embedded.Config{DataDir: dir}); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), strconv.Itoa(holder.Process.Pid)) {
			t.Errorf("while another process has it, Start says %v", err)
		}
		kill(t, holder)
		var log bytes.Buffer
		s := start(t, embedded.Config{DataDir: dir, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}) // at once
		stop(t, s)
		if !strings.Contains(log.String(), "database system was shut down at") {
			t.Errorf("the first server did not finish:\n%s", log.String())
		}

		kill(t, holding(t, dir))
		pidFile := filepath.Join(dir, "pg", "postmaster.pid")
		for deadline := time.After(time.Minute); ; {
			if _, err := os.Stat(pidFile); errors.Is(err, os.ErrNotExist) {
				break
			}
			select {
			case <-deadline:
				t.Fatal("the server outlived its process by a minute")
			case <-time.After(10 * time.Millisecond):
			}
		}
	})

	t.Run("a statement that outlives a killed server is waited for", func(t *testing.T) {
		t.Parallel()
		dir := dataDir(t)
		holder := holding(t, dir)
		url, err := embedded.Find(dir)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		const lasts = 2 * time.Second
		began := time.Now()
		go func() {
			_, _ = conn.Exec(t.Context(), "do $$ begin while clock_timestamp() < now() + interval '2 s' loop end loop; end $$")
		}()
		for query(t, url, "select count(*)::text from pg_stat_activity where state = 'active' and query like 'do %'") != "1" {
		}
		if err := syscall.Kill(postmaster(t, dir), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		kill(t, holder)
		start(t, embedded.Config{DataDir: dir})
		if took := time.Since(began); took < lasts {
			t.Errorf("two servers had one cluster, %v after a statement of %v had begun", took, lasts)
		}
	})

	t.Run("a number in postmaster.pid that is another program's by now is no hindrance", func(t *testing.T) {
		t.Parallel()
		dir := dataDir(t)
		s := start(t, embedded.Config{DataDir: dir})
		path := filepath.Join(dir, "pg", "postmaster.pid")
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		stop(t, s)
		_, rest, _ := strings.Cut(string(content), "\n")
		if err := os.WriteFile(path, fmt.Appendf(nil, "%d\n%s", os.Getpid(), rest), 0o600); err != nil {
			t.Fatal(err)
		}
		start(t, embedded.Config{DataDir: dir})
	})
}

// holding starts a process that has the cluster open, and returns when it has.
func holding(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), holdEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the process says %q, %v", line, err)
	}
	return cmd
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

func BenchmarkColdStart(b *testing.B) {
	for b.Loop() {
		s := start(b, embedded.Config{DataDir: dataDir(b), Log: slog.New(slog.DiscardHandler)})
		stop(b, s)
	}
}
