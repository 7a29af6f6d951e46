package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/openvantage/vantage/archive"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/service"
)

type archiveCommand struct {
	databaseFlags
	ArchiveURL  string `name:"archive-url" env:"ARCHIVE_URL" help:"Where bodies are archived. Absent: the directory archive under the data directory."`
	CollectorID int    `name:"collector-id" env:"COLLECTOR_ID" default:"1" help:"Number of this server's database in the names of archived files."`

	Verify archiveVerify `cmd:"" help:"Read the archive back and compare it with what was put there. Damage is recorded, and so is its repair."`
	Pack   archivePack   `cmd:"" help:"Archive what the server would at the next minute ten: all bodies of hours that are over for five minutes. A server may run beside it."`
}

type (
	archiveVerify struct {
		Since time.Time `format:"2006-01-02" help:"From this day on, by the receipt of bodies."`
		Until time.Time `format:"2006-01-02" help:"Before this day."`
		Quiet bool      `short:"q" help:"Say nothing but what is damaged, and the outcome."`
	}
	archivePack struct {
		Now   bool `help:"Hours that are not over too. Their later bodies get packs of their own."`
		Quiet bool `short:"q" help:"Say nothing but the outcome."`
	}
)

// Run fails when anything is damaged, or cannot be read.
func (c *archiveVerify) Run(ctx context.Context, all *cli) error {
	return all.Archive.with(ctx, func(s *service.Service) error {
		var q db.PackQuery
		if !c.Since.IsZero() {
			q.Since = &c.Since
		}
		if !c.Until.IsZero() {
			q.Until = &c.Until
		}
		sum, err := s.VerifyArchive(ctx, q, func(v service.Verification) {
			if !c.Quiet {
				fmt.Fprintf(os.Stderr, "\r%d packs, %d MB read, %d damaged", v.Packs, v.Bytes/1e6, v.Damaged)
			}
			for _, p := range v.Problems {
				fmt.Fprintf(os.Stderr, "\n%s\n", p)
			}
		})
		if !c.Quiet {
			fmt.Fprintln(os.Stderr)
		}
		fmt.Printf("%d packs: %d damaged, %d whole again.\n", sum.Packs, sum.Damaged, sum.Repaired)
		if err == nil && sum.Damaged > 0 {
			err = fmt.Errorf("%d packs are damaged: put their files back from a copy, and verify again", sum.Damaged)
		}
		return err
	})
}

func (c *archivePack) Run(ctx context.Context, all *cli) error {
	return all.Archive.with(ctx, func(s *service.Service) error {
		sum, err := s.PackBeside(ctx, c.Now, func(p service.Packing) {
			if !c.Quiet {
				fmt.Fprintf(os.Stderr, "\r%d packs, %d bodies archived, %d left", p.Packs, p.Bodies, p.Waiting)
			}
		})
		if !c.Quiet && sum.Packs > 0 {
			fmt.Fprintln(os.Stderr)
		}
		fmt.Printf("%d packs with %d bodies were archived. %d bodies stay where they are.\n", sum.Packs, sum.Bodies, sum.Waiting)
		if err != nil {
			err = fmt.Errorf("%w (%s)", err, archive.Advice(err))
		}
		return err
	})
}

// with runs do on the archive and the database of a server that may run.
func (c *archiveCommand) with(ctx context.Context, do func(*service.Service) error) error {
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
