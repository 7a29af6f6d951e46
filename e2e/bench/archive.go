//go:build linux

package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	packs "github.com/openvantage/vantage/archive"
	"github.com/openvantage/vantage/client"
	"github.com/openvantage/vantage/measurement"
)

// archive measures what becomes of bodies: how fast they are packed, and how fast one is had out of a
// pack, beside submissions.
func (b *bench) archive(ctx context.Context) error {
	return b.withSubject(ctx, "archive", func(ctx context.Context, s *subject) error {
		c, err := s.collectors(ctx)
		if err != nil {
			return err
		}
		if err := s.fill(ctx); err != nil {
			return err
		}
		progress("More than a pack of bodies waits, which the server sees within a minute. Meanwhile %d connections submit others.", collectors)
		var largest pack
		var most float64
		began := time.Now()
		for largest.Posts.SizeBytes < packs.PackBytes { // smaller ones have many small bodies
			if time.Since(began) > 3*time.Minute {
				return errors.New("no whole pack was written in three minutes")
			}
			if _, err = c.load(ctx, s.api, 2*time.Second); err != nil {
				return err
			}
			resident, err := s.resident()
			if err != nil {
				return err
			}
			most = max(most, resident)
			if largest, err = s.largestPack(ctx); err != nil {
				return err
			}
		}
		tar, err := s.get(ctx, largest.Posts.URL)
		if err != nil {
			return err
		}
		var uids []measurement.ID
		for p, err := range packs.Posts(ctx, bytes.NewReader(tar)) {
			if err != nil {
				return err
			}
			uids = append(uids, p.UID)
		}
		var took []time.Duration
		for i := range 2000 {
			began := time.Now()
			if _, err := s.get(ctx, "/api/v1/raw_measurement?measurement_uid="+string(uids[i*997%len(uids)])); err != nil {
				return err
			}
			took = append(took, time.Since(began))
		}
		lines, err := s.get(ctx, largest.Lines.URL)
		if err != nil {
			return err
		}
		peer, err := counted(lines, len(uids))
		if err != nil {
			return err
		}
		b.row(fmt.Sprintf("a body by uid from a pack of %d MB, over HTTP: p50, p99", largest.Posts.SizeBytes/1e6),
			"at most 5 ms wanted; the peer's way, its file inflated from the start and lines counted, without HTTP: "+ms(at(peer, 50))+", "+ms(at(peer, 99)),
			"%s, %s", ms(at(took, 50)), ms(at(took, 99)))
		b.row("resident memory at most, while bodies are taken and packed", "at most 400 MB wanted", "%.0f MB", most)
		return nil
	})
}

// fill submits 12,000 bodies of 5 kB, of which half is left when they are compressed, as of real ones.
func (s *subject) fill(ctx context.Context) error {
	token, err := s.token(ctx)
	if err != nil {
		return err
	}
	api := client.New(client.Options{BaseURL: "http://" + s.api, Token: token})
	now := time.Now().UTC().Format(time.DateTime)
	for range 120 {
		some := make([]client.Submission, 100)
		for i := range some {
			random := make([]byte, 2200)
			_, _ = rand.Read(random) // never fails
			some[i].Content = fmt.Appendf(nil, `{"report_id":"20261121T000000Z_ndt_IT_64512_n1_abcdefghijklmnop","test_name":"ndt","test_version":"1.0.0","probe_cc":"IT","probe_asn":"AS64512",`+
				`"measurement_start_time":%q,"test_start_time":%[1]q,"software_name":"bench","software_version":"1","test_keys":{"fill":"%x"}}`, now, random)
		}
		if _, err := api.SubmitBatch(ctx, "", some); err != nil {
			return err
		}
	}
	return nil
}

// A pack is one of the archive, with what is to be known of it.
type pack struct {
	Posts, Lines struct {
		URL       string
		SizeBytes int64
	}
}

func (s *subject) largestPack(ctx context.Context) (largest pack, err error) {
	var out struct {
		Packs struct{ Edges []struct{ Node pack } }
	}
	err = client.New(client.Options{BaseURL: "http://" + s.api}).Do(ctx, `{ packs(first: 20) { edges { node { posts { url sizeBytes } lines { url sizeBytes } } } } }`, nil, &out)
	for _, e := range out.Packs.Edges {
		if e.Node.Posts.SizeBytes > largest.Posts.SizeBytes {
			largest = e.Node
		}
	}
	return largest, err
}

func (p *process) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.api+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", path, strconv.Quote(string(b)))
	}
	return b, err
}

// counted is how long it takes to find lines of a file as the peer writes them, one gzip stream, where
// only their numbers are known.
//
// Source: design/measurements.md, section 1 (jsonl: s3path, linenum).
func counted(members []byte, n int) (took []time.Duration, err error) {
	z, err := gzip.NewReader(bytes.NewReader(members))
	if err != nil {
		return nil, err
	}
	var file bytes.Buffer
	out := gzip.NewWriter(&file)
	if _, err := io.Copy(out, z); err != nil { //nolint:gosec // our own file
		return nil, err
	}
	if err := out.Close(); err != nil {
		return nil, err
	}
	for i := range 20 {
		began := time.Now()
		z, err := gzip.NewReader(bytes.NewReader(file.Bytes()))
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(z)
		lines.Buffer(make([]byte, 1<<20), 64<<20)
		for range i*997%n + 1 {
			if !lines.Scan() {
				return nil, errors.Join(io.ErrUnexpectedEOF, lines.Err())
			}
		}
		took = append(took, time.Since(began))
	}
	return took, nil
}
