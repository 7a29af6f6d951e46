//go:build unix

package embedded

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openvantage/vantage/fault"
)

// orphanWait bounds how long Start waits for the server of a process that was killed, and for what such a server
// left. A fast
// shutdown takes about 0.1 s; one that must write a full buffer cache to a slow disk, seconds.
const orphanWait = 30 * time.Second

// pollEvery is how often a file of PostgreSQL's is read while waiting for it to change.
const pollEvery = 10 * time.Millisecond

// A Server is a running cluster. Its methods may be called at the same time.
type Server struct {
	// URL is the connection string of the empty or existing application database. It holds
	// the password: do not log it.
	URL string

	child     *child
	lock      *os.File
	temporary string // socket directory to remove afterwards, or ""
	stop      sync.Once
	stopping  chan struct{}
	done      chan struct{}
	err       error // written before done is closed
}

// Start opens the cluster beneath c.DataDir, creating it first where there is none, and
// returns when it answers. That takes under a second, or longer after a crash; ctx bounds it.
//
// It fails with INVALID when a path cannot be used, with CONFLICT when another process has
// the data directory, and with UNAVAILABLE when no fitting binaries are installed or the
// server does not come up.
func Start(ctx context.Context, c Config) (*Server, error) {
	if c.DataDir == "" {
		return nil, fault.Field("DataDir", "The embedded PostgreSQL needs a data directory.")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(c.DataDir)
	if err != nil {
		return nil, err
	}
	dir, owner, err := prepare(dir)
	if err != nil {
		return nil, err
	}
	lock, err := acquire(dir, owner)
	if err != nil {
		return nil, err
	}
	s := &Server{lock: lock, stopping: make(chan struct{}), done: make(chan struct{})}
	if err := s.start(ctx, c, dir, owner); err != nil {
		s.release()
		return nil, err
	}
	go s.wait(dir)
	return s, nil
}

// start does everything that happens under the lock. When it fails, nothing is left running.
func (s *Server) start(ctx context.Context, c Config, dir string, owner user) error {
	data := filepath.Join(dir, "pg")
	bin, err := binaries(c.BinDir).fitting(ctx, data)
	if err != nil {
		return err
	}
	if err := owner.reaches("BinDir", bin); err != nil {
		return err
	}
	if err := awaitOrphan(ctx, data); err != nil {
		return err
	}
	if _, err := os.Stat(data); errors.Is(err, os.ErrNotExist) {
		err = create(ctx, bin, dir, owner)
		if err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	password, err := os.ReadFile(filepath.Join(dir, "password"))
	if err != nil {
		return err
	}
	socket, temporary, err := socketDir(dir, owner)
	if err != nil {
		return err
	}
	if temporary {
		s.temporary = socket
	}
	// Nobody serves this cluster, so a lock on its socket is left over from a server that was killed.
	// PostgreSQL would believe it if that one has not been reaped, or another has its number by now.
	if err := os.RemoveAll(socketFile(socket) + ".lock"); err != nil {
		return err
	}

	for began := time.Now(); ; {
		log := &logWriter{log: c.Log}
		cmd := exec.Command(filepath.Join(bin, "postgres"), arguments(data, socket, c.Params)...) //nolint:noctx // outlives the call: Stop ends it
		cmd.Stdout, cmd.Stderr = log, log
		// A process that PostgreSQL leaves behind must not keep us waiting for its end of the log.
		cmd.WaitDelay = 5 * time.Second
		if s.child, err = startChild(cmd, owner, syscall.SIGINT); err != nil {
			return err
		}
		s.URL, err = s.ready(ctx, data, socket, string(password))
		if err == nil {
			return nil
		}
		s.child.signal(syscall.SIGQUIT)
		<-s.child.done
		if !strings.Contains(log.reason, inUse) || time.Since(began) > orphanWait {
			return fault.Wrap(err, fault.Unavailable, "The embedded PostgreSQL in %s did not get ready. Its last word: %q.", dir, log.reason)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * pollEvery):
		}
	}
}

// inUse is why PostgreSQL does not start while a process of a killed server is left, with a statement that has not
// ended yet. It is no harm that waits, and would be if it did not: both would write.
const inUse = "pre-existing shared memory block"

// ready waits until the server accepts connections and returns the URL of the application
// database, which it creates where it is missing.
func (s *Server) ready(ctx context.Context, data, socket, password string) (string, error) {
	for {
		// The eighth line is the server's state, as pg_ctl reads it. Connecting before that
		// would only fill the log with refusals.
		if l := pidFile(data); len(l) > 7 && l[0] == strconv.Itoa(s.child.pid()) && strings.TrimSpace(l[7]) == "ready" {
			break
		}
		select {
		case <-s.child.done:
			return "", s.child.err()
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(pollEvery):
		}
	}
	conn, err := pgx.Connect(ctx, address(socket, password, "postgres"))
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(ctx) }()
	var exists bool
	if err := conn.QueryRow(ctx, "select exists (select from pg_database where datname = $1)", databaseName).Scan(&exists); err != nil {
		return "", err
	}
	if !exists {
		if _, err := conn.Exec(ctx, "create database "+databaseName); err != nil {
			return "", err
		}
	}
	return address(socket, password, databaseName), nil
}

// wait turns the end of the child into the end of the Server.
func (s *Server) wait(dir string) {
	<-s.child.done
	select {
	case <-s.stopping:
		s.err = s.child.err()
	default:
		s.err = fault.Wrap(s.child.err(), fault.Unavailable, "The embedded PostgreSQL in %s stopped though nobody here asked it to.", dir)
	}
	s.release()
	close(s.done)
}

// release gives the data directory to the next process.
func (s *Server) release() {
	if s.temporary != "" {
		_ = os.RemoveAll(s.temporary) // a server that was killed leaves its socket
	}
	_ = s.lock.Close()
}

// Done is closed when the server has stopped, asked to or not. Err tells which.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err is nil until Done is closed, and after an orderly Stop. It is UNAVAILABLE when the
// server died by itself.
func (s *Server) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// Stop disconnects every client, writes everything to disk and returns when the server has
// gone. When ctx ends first, the server is stopped without that; the next Start recovers what
// was committed. Stop may be called again.
func (s *Server) Stop(ctx context.Context) error {
	s.stop.Do(func() {
		close(s.stopping)
		s.child.signal(syscall.SIGINT)
	})
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		s.child.signal(syscall.SIGQUIT)
		<-s.done
		return errors.Join(ctx.Err(), s.err)
	}
}

// arguments are the server's command line. The last of equal settings wins, so ours come
// first, then the caller's, then those nobody may change.
func arguments(data, socket string, params map[string]string) []string {
	settings := maps.Clone(defaults)
	maps.Copy(settings, params)
	maps.Copy(settings, map[string]string{
		"listen_addresses":        "",
		"port":                    port,
		"unix_socket_directories": `"` + strings.ReplaceAll(socket, `"`, `""`) + `"`,
		"unix_socket_permissions": "0700",
	})
	args := []string{"-D", data}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}
