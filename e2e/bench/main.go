//go:build linux

// Bench answers: how fast and how large is the server as a whole? It runs the real program on
// a database of its own, loads it through the public API, and prints a table, each row with
// what it is to be compared with, measured in the same run where this machine can measure it.
// It is run by `make bench` and `make soak`, and imported by nothing.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A bench is one run: what to measure, and with how much.
type bench struct {
	binary       string
	fingerprints string
	parts        []string
	probes       int           // that send one heartbeat a second
	crowd        int           // subscribers at once at most; others of the measurements are a half and a tenth
	length       time.Duration // of each load
	idle         time.Duration // at most, until memory is measured
	soak         time.Duration // of the soak; 0 is none
	subscribers  int           // of the soak

	dir  string
	done []string // parts that another one had time for
	rows []row
}

// A row is one line of the table.
type row struct{ what, measured, compared string }

func (b *bench) row(what, compared, measured string, args ...any) {
	b.rows = append(b.rows, row{what, fmt.Sprintf(measured, args...), compared})
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// parts are what a bench can measure, in order. The soak is not one of them: it takes long and
// passes or fails.
var parts = []struct {
	name string
	run  func(*bench, context.Context) error
}{
	{"heartbeats", (*bench).heartbeats},
	{"ingest", (*bench).ingest},
	{"archive", (*bench).archive},
	{"delivery", (*bench).delivery},
	{"resume", (*bench).resume},
	{"memory", (*bench).memory},
	{"documents", (*bench).documents},
}

func main() {
	if err := command(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func command() error {
	var b bench
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	flag.StringVar(&b.binary, "vantage", "bin/vantage", "the program to measure")
	flag.StringVar(&b.fingerprints, "fingerprints", "", "a directory of fingerprints to load, if there is one")
	flag.IntVar(&b.probes, "probes", 1000, "probes that send one heartbeat a second")
	flag.IntVar(&b.crowd, "crowd", 10_000, "subscribers at once at most")
	flag.DurationVar(&b.length, "for", 15*time.Second, "how long to load the server, each time")
	flag.DurationVar(&b.idle, "idle", 4*time.Minute, "how long subscribers are idle at most before their memory is measured")
	flag.DurationVar(&b.soak, "soak", 0, "soak the server for so long instead, and fail when it does not stand it")
	flag.IntVar(&b.subscribers, "subscribers", 2000, "subscribers of the soak")
	which := flag.String("parts", strings.Join(names, ","), "what to measure")
	stock := flag.String("stock", "", "be the peer that listens at this address, instead; the bench starts it itself")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *stock != "" {
		return serveStock(ctx, *stock)
	}
	b.parts = strings.Split(*which, ",")
	for _, name := range b.parts {
		if !slices.Contains(names, name) {
			return fmt.Errorf("there is no part %q; the parts are %s", name, strings.Join(names, ", "))
		}
	}
	return b.run(ctx)
}

func (b *bench) run(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, b.soak+15*time.Minute)
	defer cancel()
	if b.dir, err = os.MkdirTemp("", "vantage-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if err := os.Chmod(b.dir, 0o755); err != nil { // PostgreSQL's user must get through
		return err
	}
	if b.soak > 0 {
		return b.withSubject(ctx, "soak", b.endure)
	}
	for _, p := range parts {
		if !slices.Contains(b.parts, p.name) || slices.Contains(b.done, p.name) {
			continue
		}
		progress("Measuring %s.", p.name)
		if err := p.run(b, ctx); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", p.name, err), b.print())
		}
	}
	return b.print()
}

// withSubject measures a server on an empty directory of its own.
func (b *bench) withSubject(ctx context.Context, name string, measure func(context.Context, *subject) error) error {
	s := &subject{binary: b.binary, data: filepath.Join(b.dir, name)}
	var err error
	if s.cold, err = s.start(ctx); err != nil {
		return err
	}
	defer s.stop()
	return measure(ctx, s)
}

func (b *bench) print() error {
	fmt.Printf("\n| what | measured | compared with |\n|---|---|---|\n")
	for _, r := range b.rows {
		fmt.Printf("| %s | %s | %s |\n", r.what, r.measured, r.compared)
	}
	return nil
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

func us(d time.Duration) string { return fmt.Sprintf("%.1f µs", float64(d.Nanoseconds())/1000) }

// at is a percentile of what was measured.
func at[T cmp.Ordered](all []T, percent int) (v T) {
	if len(all) == 0 {
		return v
	}
	slices.Sort(all)
	return all[min(len(all)-1, len(all)*percent/100)]
}

// pause waits, and fails when ctx ends before.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// eventually waits until ok, and fails when that takes too long.
func eventually(ctx context.Context, within time.Duration, what string, ok func() bool) error {
	for end := time.Now().Add(within); !ok(); {
		if time.Now().After(end) {
			return fmt.Errorf("%s: not within %v", what, within)
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
