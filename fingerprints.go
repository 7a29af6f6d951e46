package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/service"
)

type fingerprintsCommand struct {
	Check fingerprintsCheck `cmd:"" help:"Try a set on stored bodies and print what it would change, against the set in use. Nothing is changed."`
}

type fingerprintsCheck struct {
	archiveFlags
	fingerprintSource
	spanFlags
	Limit int  `default:"100000" help:"Try it on so many bodies at most, those received last before others. 0: on all."`
	Quiet bool `short:"q" help:"Say nothing but the outcome."`
}

// checkSpan is how far back bodies are tried where nobody says.
const checkSpan = "7d"

// Run fails when the set does not pass the sanity gate, or bodies cannot be read.
func (c *fingerprintsCheck) Run(ctx context.Context) error {
	all, err := c.read(ctx)
	if err != nil {
		return err
	}
	return c.archiveFlags.with(ctx, func(s *service.Service) error { return c.try(ctx, s, all, os.Stdout) })
}

func (c *fingerprintsCheck) try(ctx context.Context, s *service.Service, all []measurement.Fingerprint, out io.Writer) error {
	dns := 0
	for _, f := range all {
		if f.LocationFound == "dns" {
			dns++
		}
	}
	fmt.Fprintf(out, "The set passes the sanity gate: %d fingerprints for DNS, %d for HTTP.\n", dns, len(all)-dns)
	began := time.Now()
	c.Since = cmp.Or(c.Since, checkSpan)
	of, err := c.span(began)
	if err != nil {
		return err
	}
	bar := newProgress(c.Quiet)
	tried, err := s.TryFingerprints(ctx, all, service.FingerprintTrial{
		Since: of.since, Until: of.until, Countries: of.countries, TestNames: of.tests, Limit: c.Limit,
		Progress: func(sum service.Rescored) {
			done, all := sum.BytesDone, sum.Bytes
			if c.Limit > 0 && int64(sum.Scored)*all > done*int64(c.Limit) { // the limit is nearer than the end
				done, all = int64(sum.Scored), int64(c.Limit)
			}
			bar.tell(done, all, fmt.Sprintf("%d bodies tried, %s, %d would change", sum.Scored, pace(sum.BodyBytes, time.Since(began)), sum.Changed))
		},
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	bar.end(fmt.Sprintf("%d bodies tried in %s.", tried.Scored, time.Since(began).Round(time.Millisecond)))
	printChanges(out, tried.Changes)
	if len(tried.Examples) > 0 {
		fmt.Fprintln(out, "For example:")
		for _, uid := range tried.Examples {
			fmt.Fprintln(out, " ", uid)
		}
	}
	printFound(out, tried.Matches)
	for _, p := range tried.ProblemExamples {
		fmt.Fprintln(out, "Problem:", p)
	}
	fmt.Fprintf(out, "Of %d measurements %d would show something else than by set %d, which is in use.\n", tried.Scored, tried.Changed, tried.InUse)
	if err == nil && tried.Problems > 0 {
		err = fmt.Errorf("%d bodies or files could not be read", tried.Problems)
	}
	return err
}

// printFound prints the fingerprints that would be found more or less often, those first that differ most.
func printFound(out io.Writer, found map[string]service.Found) {
	names := slices.Collect(maps.Keys(found))
	by := func(name string) int {
		return max(found[name].After-found[name].Before, found[name].Before-found[name].After)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(by(b), by(a)), cmp.Compare(a, b)) })
	const shown = 50
	for _, name := range names[:min(shown, len(names))] {
		fmt.Fprintf(out, "%8d -> %d measurements with %s\n", found[name].Before, found[name].After, name)
	}
	if more := len(names) - shown; more > 0 {
		fmt.Fprintf(out, "and %d fingerprints more\n", more)
	}
}
