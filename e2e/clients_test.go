//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openvantage/vantage/access"
)

// TestReferenceClients drives the server with the clients and the audits that define its
// protocols: see clients/*.mjs.
func TestReferenceClients(t *testing.T) {
	t.Parallel()
	installClients(t)
	t.Run("all audits of GraphQL over HTTP are ok", func(t *testing.T) {
		t.Parallel()
		s := serve(t)
		s.script(t, "audit.mjs", s.url+"/graphql")
	})
	t.Run("graphql-ws works, and resumes when the server restarts or its reader is slow", func(t *testing.T) {
		t.Parallel()
		s := serve(t)
		s.script(t, "ws.mjs", s.url)
	})
	t.Run("graphql-sse works, and resumes when the server restarts", func(t *testing.T) {
		t.Parallel()
		s := serve(t)
		s.script(t, "sse.mjs", s.url)
	})
}

func installClients(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		t.Fatal("The reference clients need node. Run, as root: apt-get install nodejs npm")
	}
	if _, err := os.Stat(filepath.Join("clients", "node_modules")); err != nil {
		if out, err := exec.CommandContext(deadline(t), "npm", "ci", "--no-audit", "--no-fund", "--prefix", "clients").CombinedOutput(); err != nil {
			t.Fatalf("npm ci: %v\n%s", err, out)
		}
	}
}

// script runs one of the scripts, which has an operator's token. It restarts the server whenever the
// script asks for it.
func (s *server) script(t *testing.T, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(deadline(t))
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", append([]string{filepath.Join("clients", name)}, args...)...)
	cmd.Env = append(os.Environ(), "TOKEN="+s.token(t, access.Operator))
	cmd.WaitDelay = time.Second
	in := must[io.WriteCloser](t)(cmd.StdinPipe())
	out, outEnd := io.Pipe()
	cmd.Stdout, cmd.Stderr = outEnd, outEnd
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- cmd.Wait()
		outEnd.Close()
	}()
	var said strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if lines.Text() == "restart" {
			s.restart(t)
			_, _ = io.WriteString(in, "\n") // it may have given up
			continue
		}
		said.WriteString(lines.Text() + "\n")
	}
	if err := <-ended; err != nil {
		t.Errorf("%v: %v\n%s", cmd.Args, err, said.String())
		return
	}
	t.Logf("%s", said.String())
}

// restart stops the server in order, and starts it at the same addresses.
func (s *server) restart(t *testing.T) {
	t.Helper()
	s.process.end(t, syscall.SIGTERM)
	s.settings = append(s.settings, "LISTEN="+strings.TrimPrefix(s.url, "http://"),
		"HEARTBEAT_LISTEN="+strings.TrimSuffix(strings.TrimPrefix(s.heartbeatURL, "http://"), "/heartbeat"))
	s.start(t)
}
