//go:build unix

package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/openvantage/vantage/fault"
)

// pidFile returns the lines of a cluster's postmaster.pid, or nil when no server has it open.
func pidFile(data string) []string {
	b, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return nil
	}
	return strings.Split(string(b), "\n")
}

// awaitOrphan waits for a server whose parent was killed to finish, and removes the file that
// one without time to finish left behind. We hold the lock, so the server is nobody's.
func awaitOrphan(ctx context.Context, data string) error {
	ctx, cancel := context.WithTimeout(ctx, orphanWait)
	defer cancel()
	for asked := false; ; {
		lines := pidFile(data)
		if lines == nil {
			return nil
		}
		pid, err := strconv.Atoi(lines[0])
		if err != nil || !serves(pid, data) {
			// PostgreSQL would refuse to start if another process had this number by now.
			return os.RemoveAll(filepath.Join(data, "postmaster.pid"))
		}
		if !asked {
			asked = true
			_ = syscall.Kill(pid, syscall.SIGINT)
		}
		select {
		case <-ctx.Done():
			return fault.Wrap(ctx.Err(), fault.Unavailable,
				"A PostgreSQL left over from an earlier run, process %d, still uses %s. Stop it and try again.", pid, data)
		case <-time.After(pollEvery):
		}
	}
}

// create makes the cluster under another name first: a directory called pg is a whole one.
func create(ctx context.Context, bin, dir string, owner user) error {
	torn, err := filepath.Glob(filepath.Join(dir, "initdb-*"))
	if err != nil {
		return err
	}
	for _, d := range torn {
		if err := os.RemoveAll(d); err != nil {
			return err
		}
	}
	fresh, err := os.MkdirTemp(dir, "initdb-")
	if err != nil {
		return err
	}
	password := filepath.Join(dir, "password")
	if err := writePassword(password); err != nil {
		return err
	}
	for _, path := range []string{fresh, password} {
		if err := owner.own(path); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", fresh, "-U", roleName, "-A", "scram-sha-256",
		"--pwfile="+password, "-E", "UTF8", "--locale=C.UTF-8", "--no-instructions")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	c, err := startChild(cmd, owner, syscall.SIGKILL)
	if err != nil {
		return err
	}
	<-c.done
	if err := c.err(); err != nil {
		return fault.Wrap(fmt.Errorf("initdb: %w: %s", err, out.String()), fault.Unavailable, "A new PostgreSQL cluster could not be made in %s.", dir)
	}
	if err := os.Rename(fresh, filepath.Join(dir, "pg")); err != nil {
		return err
	}
	return flush(dir)
}

// writePassword makes a password and has it on disk before the cluster that knows it.
func writePassword(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(rand.Text())
	return errors.Join(err, f.Sync(), f.Close())
}

// flush makes a rename within dir survive a power cut.
func flush(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
