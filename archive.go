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

// archiveFlags name an archive and its database, of a server that may run.
type archiveFlags struct {
	databaseFlags
	ArchiveURL  string `name:"archive-url" env:"ARCHIVE_URL" help:"Where bodies are archived. Absent: the directory archive under the data directory."`
	CollectorID int    `name:"collector-id" env:"COLLECTOR_ID" default:"1" help:"Number of this server's database in the names of archived files."`
}

type archiveCommand struct {
	archiveFlags

	Verify archiveVerify `cmd:"" help:"Read the archive back and compare it with what was put there. Damage is recorded, and so is its repair."`
	Pack   archivePack   `cmd:"" help:"Archive now what the next look at minute ten would."`
}

type (
	archiveVerify struct {
		Since time.Time `format:"2006-01-02" help:"From this day on, by the receipt of bodies."`
		Until time.Time `format:"2006-01-02" help:"Before this day."`
		Quiet bool      `short:"q" help:"Say nothing but what is damaged, and the outcome."`
	}
	archivePack struct{}
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
	return all.Archive.with(ctx, func(s *service.Service) error { return s.Pack(ctx) })
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
