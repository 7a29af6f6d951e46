// Package programtest answers one question: where are the programs that tests need, and do they answer yet?
//
// What programs do is for the packages that start them. Only tests and such packages import it. Where a
// program is missing tests fail rather than skip.
package programtest

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Find is where make puts a program that it builds once, from this directory upwards, or where a variable of its name
// in capitals says.
func Find(tb testing.TB, name string) string {
	tb.Helper()
	variable := strings.ToUpper(name)
	if p := os.Getenv(variable); p != "" {
		return p
	}
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if found, _ := filepath.Glob(filepath.Join(dir, ".cache", "bin", name+"-*")); len(found) > 0 {
			return found[len(found)-1]
		}
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); !errors.Is(err, fs.ErrNotExist) {
			tb.Fatalf("This test needs %s, and there is none in .cache/bin of %s: run `make %s`, or name it in %s.", name, dir, name, variable)
		}
		dir = filepath.Dir(dir)
	}
}

// given counts the ports that this process has given out.
var given atomic.Int64

// Free is an address where nobody listens, and nobody will but who is told of it: its port is below those that systems
// give to whoever asks for any, and each process counts on from a place of its own.
func Free(tb testing.TB) string {
	tb.Helper()
	const first, ports, each = 10_000, 20_000, 100
	for range ports {
		port := first + (int64(os.Getpid())*each+given.Add(1))%ports
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.FormatInt(port, 10))) //nolint:noctx // it is closed at once
		if err != nil {
			continue // somebody's of this machine
		}
		_ = l.Close()
		return l.Addr().String()
	}
	tb.Fatal("every port is in use")
	return ""
}

// Answers waits until something answers at the URL; said is what to tell if it does not within a minute.
func Answers(tb testing.TB, url string, said *bytes.Buffer) {
	tb.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		if res, err := http.Get(url); err == nil { //nolint:noctx // it is our own child
			_ = res.Body.Close()
			return
		}
		if time.Since(began) > time.Minute {
			tb.Fatalf("nothing answers at %s: %s", url, said.String())
		}
	}
}
