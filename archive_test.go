package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/archive"
	"github.com/openvantage/vantage/service"
)

func TestArchiveCommands(t *testing.T) { //nolint:tparallel // one after the other
	t.Parallel()
	h, ctx := newHistory(t), context.Background()
	dir := filepath.Join(t.TempDir(), "archive")
	bucket, err := archive.Open(ctx, archive.FolderURL(dir), archive.Options{})
	h.check(err)
	t.Cleanup(func() { _ = bucket.Close() })
	settings := service.DefaultRules()
	settings.OpenCollector, settings.Archive, settings.Collector = true, bucket, 1
	h.s, err = service.New(ctx, h.db, settings, unread{}, slog.New(slog.DiscardHandler))
	h.check(err)
	for _, n := range []string{"1", "2"} {
		_, err := h.s.Submit(ctx, access.Anyone, "", service.Submission{Body: []byte(`{"report_id": "r", "probe_cc": "IT", "probe_asn": "AS1", "test_name": "ndt", "test_keys": {"n": ` + n + `}}`)})
		h.check(err)
	}
	const posts = "raw/20260301/00/IT/ndt/2026030100_IT_ndt.n1.0.tar.gz"
	file, away := filepath.Join(dir, posts), filepath.Join(dir, "away")
	rename := func(from, to string) func() { return func() { h.check(os.Rename(from, to)) } }
	type command func(out io.Writer) error
	pack := func(c archivePack) command {
		return func(out io.Writer) error { return c.run(ctx, h.s, out) }
	}
	verify := func(c archiveVerify) command {
		return func(out io.Writer) error { return c.run(ctx, h.s, out) }
	}
	for _, c := range []struct { //nolint:paralleltest // one after the other
		name     string
		before   func()
		run      command
		out, err string
	}{
		{"an empty archive is whole", nil, verify(archiveVerify{}), "0 packs: 0 damaged, 0 whole again.\n", ""},
		{"an hour that is not over is left", nil, pack(archivePack{}), "0 bodies in 0 packs archived; 2 bodies left for later.\n", ""},
		{
			"it is packed when somebody says so", nil, pack(archivePack{Now: true}), "2 bodies in 1 pack archived; 0 bodies left for later.\n", "",
		},
		{"what was packed is whole", nil, verify(archiveVerify{}), "1 pack: 0 damaged, 0 whole again.\n", ""},
		{
			"a test is named as probes name it", nil, verify(archiveVerify{spanFlags: spanFlags{Tests: []string{"N_D_T"}}}),
			"1 pack: 0 damaged, 0 whole again.\n", "",
		},
		{"other days are passed over", nil, verify(archiveVerify{spanFlags: spanFlags{Since: h.clock().Add(24 * time.Hour).Format(time.RFC3339)}}), "0 packs: 0 damaged, 0 whole again.\n", ""},
		{
			"a file that is missing is named", rename(file, away), verify(archiveVerify{Quiet: true}),
			posts + " is damaged: it is missing\n1 pack: 1 damaged, 0 whole again.\n", "put these files back",
		},
		{"it is whole again", rename(away, file), verify(archiveVerify{Quiet: true}), "1 pack: 0 damaged, 1 whole again.\n", ""},
		{
			"a disk that is not mounted is no damage", func() {
				h.check(os.Rename(filepath.Join(dir, "raw"), filepath.Join(t.TempDir(), "raw")))
			}, verify(archiveVerify{Quiet: true}),
			"0 packs: 0 damaged, 0 whole again.\n", "UNAVAILABLE: The archive is empty",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.before != nil {
				c.before()
			}
			var out strings.Builder
			err := c.run(&out)
			if diff := cmp.Diff(c.out, out.String()); diff != "" {
				t.Errorf("said (-want +got):\n%s", diff)
			}
			if (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("failed with %v", err)
			}
		})
	}
}
