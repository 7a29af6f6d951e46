package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/openvantage/vantage/archive"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/service"
)

type importArchive struct {
	databaseFlags
	spanFlags
	From  string `arg:"" help:"The directory, or s3://BUCKET/PREFIX, that has raw/YYYYMMDD/HH/CC/test/ in it. Parameters of the store follow a question mark: s3://BUCKET?region=eu-central-1&anonymous=true."`
	Quiet bool   `short:"q" help:"Say nothing but the outcome."`
}

// Run fails when anything could not be imported.
func (c *importArchive) Run(ctx context.Context) error {
	address, source, err := foreignArchive(c.From)
	if err != nil {
		return err
	}
	from, err := archive.Open(ctx, address, archive.Options{})
	if err != nil {
		return err
	}
	defer from.Close()
	return c.withDatabase(ctx, func(_ *database, pool *db.DB) error {
		s, err := service.New(ctx, pool, service.DefaultRules(), unread{}, quiet())
		if err != nil {
			return err
		}
		return c.load(ctx, s, from, source, os.Stdout)
	})
}

// foreignArchive is the address of a store that must be there, and what it is remembered as.
func foreignArchive(from string) (address, source string, err error) {
	u, err := url.Parse(from)
	if err != nil || u.Scheme == "" || len(u.Scheme) == 1 { // a drive
		dir, err := filepath.Abs(from)
		if err != nil {
			return "", "", err
		}
		st, err := os.Stat(dir)
		if err != nil {
			return "", "", err
		}
		if !st.IsDir() {
			return "", "", fault.Field("from", "%s is no directory.", from)
		}
		return archive.FolderURL(dir), archive.FolderURL(dir), nil
	}
	if u.Scheme == "file" {
		return foreignArchive(filepath.FromSlash(u.Path))
	}
	source = u.Scheme + "://" + u.Host + u.Path + "?" + url.Values{"endpoint": u.Query()["endpoint"]}.Encode() // the rest may be secret
	if prefix := strings.Trim(u.Path, "/"); prefix != "" {
		q := u.Query()
		q.Set("prefix", prefix+"/")
		u.Path, u.RawQuery = "", q.Encode()
	}
	return u.String(), source, nil
}

func (c *importArchive) load(ctx context.Context, s *service.Service, from *archive.Bucket, source string, out io.Writer) error {
	began := time.Now()
	of, err := c.span(began)
	if err != nil {
		return err
	}
	bar := newProgress(c.Quiet)
	sum, err := s.ImportArchive(ctx, service.ArchiveImport{
		From: from, Source: source, Since: of.since, Until: of.until, Countries: of.countries, TestNames: of.tests,
		Progress: func(sum service.ArchiveImported) {
			bar.tell(sum.BytesDone, sum.Bytes, fmt.Sprintf("%d of %d objects, %d measurements, %s", sum.Done, sum.Objects, sum.Scored, pace(sum.BodyBytes, time.Since(began))))
		},
	})
	bar.end(fmt.Sprintf("%d of %d objects read in %s, %d of them were imported before.", sum.Done, sum.Objects, time.Since(began).Round(time.Millisecond), sum.Known))
	for _, p := range sum.ProblemExamples {
		fmt.Fprintln(out, "Problem:", p)
	}
	fmt.Fprintf(out, "%d measurements scored, %d bodies kept aside, %d duplicates, %d problems.\n", sum.Scored, sum.Discarded, sum.Duplicates, sum.Problems)
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "Stopped early. What is imported stays; the same command goes on with the rest.")
		return ctx.Err()
	case err == nil && sum.Problems > 0:
		err = fmt.Errorf("%d bodies or objects could not be imported", sum.Problems)
	}
	return err
}
