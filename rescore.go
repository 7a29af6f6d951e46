package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/service"
)

// spanFlags say which bodies. They are of receipt.
type spanFlags struct {
	Since     string   `placeholder:"WHEN" help:"Those received from then on: an instant such as 2026-11-01T00:00:00Z, a day, or how long ago, such as 36h or 14d."`
	Until     string   `placeholder:"WHEN" help:"Those received before then, written in the same way."`
	Countries []string `placeholder:"CC" help:"Those of these countries, such as IR,IT."`
	Tests     []string `placeholder:"TEST" help:"Those of these tests, such as web_connectivity,signal."`
}

// A span is what spanFlags say. Nil is no bound.
type span struct {
	since, until     *time.Time
	countries, tests []string
}

func (f spanFlags) span(now time.Time) (s span, err error) {
	for _, b := range []struct {
		field, text string
		to          **time.Time
	}{{"since", f.Since, &s.since}, {"until", f.Until, &s.until}} {
		if b.text == "" {
			continue
		}
		at, err := instant(b.field, b.text, now)
		if err != nil {
			return s, err
		}
		*b.to = &at
	}
	if s.since != nil && s.until != nil && !s.since.Before(*s.until) {
		return s, fault.Field("since", "It must lie before the end.")
	}
	for _, name := range f.Countries {
		cc, err := country.Parse(strings.ToUpper(name))
		if err != nil {
			return s, fault.Of(err).At("countries")
		}
		s.countries = append(s.countries, string(cc))
	}
	s.tests = f.Tests
	return s, nil
}

type rescoreCommand struct {
	archiveFlags
	spanFlags
	All     bool `help:"Also what is current already. Absent: a run passes over what was rescored before, so that one that was stopped is gone on with."`
	DryRun  bool `help:"Say what would change, and change nothing."`
	NoWrite bool `help:"Only read and score, and say how fast that is: the database is not asked what was said before."`
	Stdout  bool `help:"Print a line of JSON for each measurement that changes, with what it shows before and after; with --no-write for each that is scored."`
	Quiet   bool `short:"q" help:"Say nothing but the outcome."`
}

// Run fails when bodies could not be read or judged.
func (c *rescoreCommand) Run(ctx context.Context) error {
	return c.archiveFlags.with(ctx, func(s *service.Service) error { return c.run(ctx, s, os.Stdout) })
}

func (c *rescoreCommand) run(ctx context.Context, s *service.Service, out io.Writer) error {
	now := time.Now()
	of, err := c.span(now)
	if err != nil {
		return err
	}
	r := service.Rescoring{
		Since: of.since, Until: of.until, Countries: of.countries, TestNames: of.tests, All: c.All || c.NoWrite, DryRun: c.DryRun, NoWrite: c.NoWrite,
	}
	bar := newProgress(c.Quiet)
	r.Progress = func(sum service.Rescored) {
		bar.tell(sum.BytesDone, sum.Bytes, fmt.Sprintf("%d of %d packs, %d measurements scored, %s, %d changed", sum.PacksDone, sum.Packs, sum.Scored,
			pace(sum.BodyBytes, time.Since(now)), sum.Changed))
	}
	summary := out
	if c.Stdout {
		lines := json.NewEncoder(out)
		summary = os.Stderr
		r.Changed = func(before, after db.Measurement) {
			line := changedLine{UID: after.UID, After: verdictOf(after)}
			if !c.NoWrite {
				was := verdictOf(before)
				line.Before = &was
			}
			_ = lines.Encode(line) // a reader who left wants no more
		}
	}
	sum, err := s.Rescore(ctx, r)
	bar.end(fmt.Sprintf("%d packs and the spool read in %s: %d measurements, %s.", sum.PacksDone, time.Since(now).Round(time.Millisecond), sum.Scored,
		pace(sum.BodyBytes, time.Since(now))))
	c.print(summary, sum)
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "Stopped early. What is written stays; the same command goes on with the rest.")
		return ctx.Err()
	case err == nil && sum.Problems > 0:
		err = fmt.Errorf("%d bodies or files could not be judged; their measurements say what they said before", sum.Problems)
	}
	return err
}

func pace(bytes int64, took time.Duration) string {
	return fmt.Sprintf("%.0f MB/s of bodies", float64(bytes)/1e6/max(took.Seconds(), 1e-9))
}

func (c *rescoreCommand) print(out io.Writer, sum service.Rescored) {
	printChanges(out, sum.Changes)
	if len(sum.Examples) > 0 {
		fmt.Fprintln(out, "For example:")
		for _, uid := range sum.Examples {
			fmt.Fprintln(out, " ", uid)
		}
	}
	for _, p := range sum.ProblemExamples {
		fmt.Fprintln(out, "Problem:", p)
	}
	written := "written"
	if c.DryRun {
		written = "would be written"
	}
	if c.NoWrite {
		fmt.Fprintf(out, "%d measurements scored: %d problems. Nothing was compared or written.\n", sum.Scored, sum.Problems)
		return
	}
	fmt.Fprintf(out, "%d measurements scored: %d rows %s, %d changed, %d announced, %d problems.\n", sum.Scored, sum.Written, written, sum.Changed, sum.Announced, sum.Problems)
}

// printChanges prints a line for each kind of change, those that are many first.
func printChanges(out io.Writer, changes map[service.Change]int) {
	kinds := slices.Collect(maps.Keys(changes))
	slices.SortFunc(kinds, func(a, b service.Change) int {
		return cmp.Or(cmp.Compare(changes[b], changes[a]), cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)))
	})
	for _, k := range kinds {
		what := fmt.Sprintf("%s %s -> %s %s", k.Before, k.BeforeIs, k.After, k.AfterIs)
		if k.Of != "" {
			what = fmt.Sprintf("%s %s, other %s", k.After, k.AfterIs, k.Of)
		}
		fmt.Fprintf(out, "%8d  %s %-24s %s\n", changes[k], k.Country, k.TestName, what)
	}
}

// A changedLine is one measurement that changed, for machines; without Before it was only scored.
type changedLine struct {
	UID    measurement.ID `json:"uid"`
	Before *verdictLine   `json:"before,omitempty"`
	After  verdictLine    `json:"after"`
}

type verdictLine struct {
	Anomaly            bool                `json:"anomaly"`
	Confirmed          bool                `json:"confirmed"`
	Failure            bool                `json:"failure"`
	Outcome            measurement.Outcome `json:"outcome"`
	BlockingType       string              `json:"blockingType"`
	Scores             json.RawMessage     `json:"scores"`
	ScorerVersion      string              `json:"scorerVersion"`
	FingerprintVersion int                 `json:"fingerprintVersion"`
}

func verdictOf(m db.Measurement) verdictLine {
	return verdictLine{m.Anomaly, m.Confirmed, m.Failure, m.Outcome, m.BlockingType, m.Scores, m.ScorerVersion, m.FingerprintVersion}
}
