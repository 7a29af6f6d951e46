package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/openvantage/vantage/archive"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/service"
)

// archiveFlags name an archive and its database, of a server that may run.
type archiveFlags struct {
	databaseFlags
	ArchiveURL  string `name:"archive-url" env:"ARCHIVE_URL" help:"Where bodies are archived. Absent: the directory archive under the data directory."`
	CollectorID int    `name:"collector-id" env:"COLLECTOR_ID" default:"1" help:"Number of this server's database in the names of archived files."`
}

type archiveCommand struct {
	archiveFlags

	Verify archiveVerify `cmd:"" help:"Read the archive back and compare it with what was put there. Damage is recorded, and so is its repair."`
	Pack   archivePack   `cmd:"" help:"Archive what the server would at the next minute ten: all bodies of hours that are over for five minutes. A server may run beside it."`
}

type (
	archiveVerify struct {
		spanFlags
		Quiet bool `short:"q" help:"Say nothing but what is damaged, and the outcome."`
	}
	archivePack struct {
		Now   bool `help:"Hours that are not over too. Their later bodies get packs of their own."`
		Quiet bool `short:"q" help:"Say nothing but the outcome."`
	}
)

// Run fails when anything is damaged, or cannot be read.
func (c *archiveVerify) Run(ctx context.Context, all *cli) error {
	return all.Archive.with(ctx, func(s *service.Service) error { return c.run(ctx, s, os.Stdout) })
}

func (c *archiveVerify) run(ctx context.Context, s *service.Service, out io.Writer) error {
	began := time.Now()
	of, err := c.span(began)
	if err != nil {
		return err
	}
	bar := newProgress(c.Quiet)
	q := db.PackQuery{Since: of.since, Until: of.until, Countries: of.countries, TestNames: of.tests}
	sum, err := s.VerifyArchive(ctx, q, func(v service.Verification) {
		bar.tell(0, 0, fmt.Sprintf("%s, %.1f MB read, %d damaged", packs(v.Packs), float64(v.Bytes)/1e6, v.Damaged))
		for _, p := range v.Problems {
			bar.interrupt()
			fmt.Fprintln(out, p)
		}
	})
	bar.end(fmt.Sprintf("%.1f MB read in %s.", float64(sum.Bytes)/1e6, time.Since(began).Round(time.Millisecond)))
	fmt.Fprintf(out, "%s: %d damaged, %d whole again.\n", packs(sum.Packs), sum.Damaged, sum.Repaired)
	if err == nil && sum.Damaged > 0 {
		err = errors.New("the archive is damaged: put these files back from a copy, and verify again")
	}
	return err
}

// Run fails when a body that is due cannot be archived.
func (c *archivePack) Run(ctx context.Context, all *cli) error {
	return all.Archive.with(ctx, func(s *service.Service) error { return c.run(ctx, s, os.Stdout) })
}

func (c *archivePack) run(ctx context.Context, s *service.Service, out io.Writer) error {
	bar, began := newProgress(c.Quiet), time.Now()
	sum, err := s.PackBeside(ctx, c.Now, func(p service.Packing) {
		bar.tell(int64(p.Bodies), int64(p.Bodies+p.Waiting), fmt.Sprintf("%s in %s archived", bodies(p.Bodies), packs(p.Packs)))
	})
	bar.end(fmt.Sprintf("The spool was gone through in %s.", time.Since(began).Round(time.Millisecond)))
	fmt.Fprintf(out, "%s in %s archived; %s left for later.\n", bodies(sum.Bodies), packs(sum.Packs), bodies(sum.Waiting))
	if fault.Is(err, fault.Unavailable) {
		err = fmt.Errorf("%w (%s)", err, archive.Advice(err))
	}
	return err
}

func packs(n int) string { return count(n, "pack", "packs") }

func bodies(n int) string { return count(n, "body", "bodies") }

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", many)
}

// with runs do on the archive and the database.
func (c archiveFlags) with(ctx context.Context, do func(*service.Service) error) error {
	return c.databaseFlags.withDatabase(ctx, func(d *database, pool *db.DB) error {
		address, err := d.archiveURL(c.ArchiveURL)
		if err != nil {
			return err
		}
		bucket, err := archive.Open(ctx, address, archive.Options{})
		if err != nil {
			return err
		}
		defer bucket.Close()
		settings := service.DefaultRules()
		settings.Archive, settings.Collector = bucket, c.CollectorID
		s, err := service.New(ctx, pool, settings, unread{}, quiet())
		if err != nil {
			return err
		}
		return do(s)
	})
}

// unread is a meter that nobody looks at.
type unread struct{}

func (unread) Heartbeat(string, time.Duration) {}
func (unread) Submission(string)               {}
func (unread) Refused(string)                  {}
func (unread) Scored(time.Duration)            {}
func (unread) Relayed(time.Duration)           {}
func (unread) Packed(string)                   {}
func (unread) Spooled(int64)                   {}
func (unread) Damaged()                        {}
