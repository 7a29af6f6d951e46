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
	"strings"
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

// Free is an address where nobody listens yet.
func Free(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed at once
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
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
