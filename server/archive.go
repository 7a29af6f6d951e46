package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/openvantage/vantage/archive"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/fault"
)

// archivePath is where the archive's objects are, under their names in the store.
const archivePath = "/archive/"

// downloadPoints, of some 10 µs, are what it takes to read, hash and send a common pack; one of 20 MB takes
// twice as much. Whoever has no token may have 200 at once, and two a second.
const downloadPoints = 1000

func openArchive(ctx context.Context, c Config) (*archive.Bucket, error) {
	if c.ArchiveURL == "" || strings.HasPrefix(c.ArchiveURL, "mem:") {
		return nil, errors.New("ARCHIVE_URL must name a place that lasts: file:///DIR or s3://BUCKET")
	}
	if c.CollectorID < 0 {
		return nil, fmt.Errorf("COLLECTOR_ID is %d; it must be 0 or more", c.CollectorID)
	}
	b, err := archive.Open(ctx, c.ArchiveURL, archive.Options{})
	if err != nil {
		return nil, fmt.Errorf("ARCHIVE_URL: %w", err)
	}
	return b, nil
}

// download sends an object of a pack to anybody. What is in the store and in no pack is not there, and
// neither is what is known to be damaged.
func (s *Server) download(w http.ResponseWriter, r *http.Request) {
	if err := s.charge(w, r, downloadPoints); err != nil {
		s.writeFault(w, r, 0, err)
		return
	}
	pack, o, err := s.packed(r.Context(), strings.TrimPrefix(r.URL.Path, archivePath))
	if err != nil {
		s.writeFault(w, r, 0, err)
		return
	}
	in := &object{ctx: r.Context(), s: s, pack: pack, o: o}
	defer in.close()
	// Before the header leaves: an outage must be told by its status.
	if err := in.open(0); err != nil {
		s.writeFault(w, r, 0, err)
		return
	}
	h := w.Header()
	h.Set("Etag", `"`+hex.EncodeToString(o.SHA256[:])+`"`)
	h.Set("Content-Type", "application/gzip")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	http.ServeContent(w, r, "", time.Time{}, in)
}

// packed is the object of that name and its pack.
func (s *Server) packed(ctx context.Context, name string) (pack db.Pack, o archive.Object, err error) {
	stem, posts := strings.CutSuffix(name, archive.PostsSuffix)
	if !posts {
		var lines bool
		if stem, lines = strings.CutSuffix(name, archive.LinesSuffix); !lines {
			return pack, o, fault.New(fault.NotFound, "The archive has nothing of this name. The query packs of the API lists what there is.")
		}
	}
	if pack, err = s.db.PackOf(ctx, stem); err != nil {
		return pack, o, err
	}
	if !pack.DamagedAt.IsZero() {
		return pack, o, fault.New(fault.NotFound, "This file is damaged and is not handed out until it is repaired.")
	}
	if posts {
		return pack, pack.Posts, nil
	}
	return pack, pack.Lines, nil
}

// An object is what http.ServeContent reads. Of one that is read from its start, the last
// bytes are only given away once the hash of all is right.
type object struct {
	ctx  context.Context //nolint:containedctx // of the request, which io.Reader cannot be told
	s    *Server
	pack db.Pack
	o    archive.Object
	in   io.ReadCloser
	at   int64 // in the object
	want int64 // where it is to be read next
	sum  hash.Hash
}

func (o *object) open(at int64) (err error) {
	o.close()
	if o.in, err = o.s.flows.OpenPacked(o.ctx, o.o.Name, at); err != nil {
		o.in = nil
		return err
	}
	o.at, o.sum = at, nil
	if at == 0 {
		o.sum = sha256.New()
	}
	return nil
}

func (o *object) close() {
	if o.in != nil {
		_ = o.in.Close() // it was only read
		o.in = nil
	}
}

func (o *object) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += o.want
	case io.SeekEnd:
		offset += o.o.Size
	}
	if offset < 0 {
		return 0, errors.New("before the start")
	}
	o.want = offset
	return offset, nil
}

func (o *object) Read(p []byte) (int, error) {
	if o.want >= o.o.Size {
		return 0, io.EOF
	}
	if o.in == nil || o.at != o.want {
		if err := o.open(o.want); err != nil {
			return 0, err
		}
	}
	n, err := o.in.Read(p)
	o.at += int64(n)
	o.want = o.at
	if o.sum != nil {
		_, _ = o.sum.Write(p[:n]) // a hash never fails
	}
	short := errors.Is(err, io.EOF) && o.at != o.o.Size
	wrong := o.at == o.o.Size && o.sum != nil && [32]byte(o.sum.Sum(nil)) != o.o.SHA256
	if short || wrong || o.at > o.o.Size {
		damage := &archive.Damage{Object: o.o.Name, Problem: "its SHA-256 or its length is another one"}
		o.s.flows.ReportDamage(o.ctx, o.pack, damage)
		return 0, damage
	}
	return n, err
}
