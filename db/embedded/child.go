//go:build unix

package embedded

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
)

// A child is a process of ours. done is closed when it has ended, and result is set then.
type child struct {
	cmd    *exec.Cmd
	done   chan struct{}
	result error
}

// startChild runs cmd as u. The kernel sends it last when this process ends before it.
func startChild(cmd *exec.Cmd, u user, last syscall.Signal) (*child, error) {
	cmd.SysProcAttr = attributes(u.credential, last)
	// Settings such as PGDATA or LC_MESSAGES that we happen to run with are not for it.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TZ=UTC"}
	cmd.Dir = "/"
	c := &child{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel takes the end of the thread that forked for the end of the parent: this
		// thread must live, and do nothing else, until the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			c.result = cmd.Wait()
			close(c.done)
		}
	}()
	return c, <-started
}

func (c *child) err() error { return c.result }

func (c *child) pid() int { return c.cmd.Process.Pid }

// signal does nothing when the child has ended already.
func (c *child) signal(sig syscall.Signal) { _ = c.cmd.Process.Signal(sig) }

// A logWriter hands the server's log on, line by line, and remembers why the server gave up.
type logWriter struct {
	log    *slog.Logger
	rest   []byte
	reason string
}

// Write takes any piece of the log; only whole lines are handed on.
func (w *logWriter) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		line, rest, found := bytes.Cut(w.rest, []byte("\n"))
		if !found {
			return len(p), nil
		}
		w.line(strings.TrimSpace(string(line)))
		w.rest = append(w.rest[:0], rest...)
	}
}

func (w *logWriter) line(line string) {
	severity, message, found := strings.Cut(line, ":  ")
	if !found {
		message = line
	}
	level := slog.LevelDebug
	switch severity {
	case "WARNING":
		level = slog.LevelWarn
	case "FATAL": // ends a session, which was told, like an ERROR; or the start, which quotes it
		w.reason = message
	case "PANIC":
		level, w.reason = slog.LevelError, message
	}
	w.log.Log(context.Background(), level, message)
}
