package client

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openvantage/vantage/fault"
)

// Bounds of one request. The server takes 100 bodies and 4 MiB, so we leave room for what is around
// the bodies.
const (
	maxBatchItems = 100
	maxBatchBytes = 4<<20 - 64<<10
)

// maxBodyBytes is far above what a server accepts: it only bounds what we hold of a file.
const maxBodyBytes = 16 << 20

const (
	defaultWorkers  = 4
	defaultAttempts = 8 // about a minute of trying, by Backoff
)

// progressEvery is how often a progress line is written, at most.
const progressEvery = 2 * time.Second

// SubmitOptions say how files are submitted. The zero value is good.
type SubmitOptions struct {
	Backfill bool // date each body by its own start time; needs the token of an operator
	Workers  int  // requests at the same time; 0 for 4
	Attempts int  // how often one request is tried while the server is away; 0 for 8

	Stdin    io.Reader        // what "-" reads; nil for os.Stdin
	Each     func(BodyResult) // what became of each body, one call at a time; may be nil
	Progress io.Writer        // a line now and then, and one for each body that was not scored; may be nil
}

// A Status is what became of a body that was read from a file.
type Status string

// The statuses.
const (
	StatusScored    Status = "scored"
	StatusDuplicate Status = "duplicate"
	StatusDiscarded Status = "discarded"
	StatusFailed    Status = "failed"
)

// A BodyResult is what became of one body. Line is where it stands in the file, 0 when it
// is the whole file. Reason is empty for what was scored, now or before; Outcome is zero for what failed.
type BodyResult struct {
	File    string
	Line    int
	Status  Status
	Reason  string
	Outcome Outcome
}

func (r BodyResult) String() string {
	where := r.File
	if r.Line > 0 {
		where = fmt.Sprintf("%s:%d", r.File, r.Line)
	}
	if r.Reason == "" {
		return fmt.Sprintf("%s: %s", where, r.Status)
	}
	return fmt.Sprintf("%s: %s: %s", where, r.Status, r.Reason)
}

// A Summary counts bodies. The first four add up to all; Anomaly, Confirmed and Failure count
// flags among the scored and duplicate ones.
type Summary struct {
	Scored, Duplicate, Discarded, Failed int
	Anomaly, Confirmed, Failure          int
	Bytes                                int64 // of the bodies that were sent
}

// Bodies is how many there were.
func (s Summary) Bodies() int { return s.Scored + s.Duplicate + s.Discarded + s.Failed }

func (s Summary) String() string {
	return fmt.Sprintf("%d bodies, %.1f MB: %d scored, %d duplicate, %d discarded, %d failed; %d anomaly, %d confirmed, %d failure",
		s.Bodies(), float64(s.Bytes)/1e6, s.Scored, s.Duplicate, s.Discarded, s.Failed, s.Anomaly, s.Confirmed, s.Failure)
}

// SubmitFiles submits every body in the named files, "-" being standard input: JSON files, which hold one body, and
// JSON lines, which hold one on each line, compressed with gzip or not. A file is taken for one body when the whole
// of it is one JSON value and its name does not say jsonl or ndjson. Bodies are sent byte for byte.
//
// Sending the same files again is harmless: the server answers with what it has. The error tells of files that could not be
// read, after all others were submitted, and of a server that refused or stayed away, at once. What was
// wrong with single bodies is in the Summary and in the results.
func (c *Client) SubmitFiles(ctx context.Context, files []string, o SubmitOptions) (Summary, error) {
	t := &tally{options: o, began: time.Now(), said: time.Now()}
	batches := make(chan []fileBody)
	g, ctx := errgroup.WithContext(ctx)
	var unread []error
	g.Go(func() error {
		defer close(batches)
		b := batcher{send: func(batch []fileBody) error {
			select {
			case batches <- batch:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}}
		for _, name := range files {
			err := readFile(name, o, func(body fileBody) error {
				if body.err != nil {
					t.count(body, Outcome{Err: body.err})
					return nil
				}
				return b.add(body)
			})
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				unread = append(unread, err)
			}
		}
		return b.flush()
	})
	for range cmp.Or(o.Workers, defaultWorkers) {
		g.Go(func() error {
			for batch := range batches {
				if err := c.submitBodies(ctx, batch, cmp.Or(o.Attempts, defaultAttempts), t.count); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := g.Wait()
	t.say("%s", t.summary)
	return t.summary, errors.Join(append(unread, err)...)
}

// A fileBody is one body found in a file, or err about it.
type fileBody struct {
	item
	file string
	line int
	size int
	key  string // hexadecimal: the same body with the same date has the same
	err  error
}

// submitBodies sends a batch until each body has an outcome, which it reports. It fails when there is
// no sense in sending more.
func (c *Client) submitBodies(ctx context.Context, batch []fileBody, attempts int, report func(fileBody, Outcome)) error {
	for attempt := 1; ; attempt++ {
		last := attempt == attempts
		outcomes, err := c.sendBodies(ctx, batch)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		wait := fault.Of(err)
		switch {
		case err == nil:
			var again []fileBody
			for n, o := range outcomes {
				if o.Err != nil && Retriable(o.Err) && !last {
					again = append(again, batch[n])
					wait = fault.Of(o.Err)
					continue
				}
				report(batch[n], o)
			}
			if batch = again; len(batch) == 0 {
				return nil
			}
		case Retriable(err) && !last:
		case len(batch) > 1 && !hopeless(err):
			// One bad body must not take the others with it.
			for n := range batch {
				if err := c.submitBodies(ctx, batch[n:n+1], attempts, report); err != nil {
					return err
				}
			}
			return nil
		default:
			for _, b := range batch {
				report(b, Outcome{Err: err})
			}
			if hopeless(err) {
				return err
			}
			return nil
		}
		if err := Wait(ctx, max(Backoff(attempt), wait.RetryAfter)); err != nil {
			return err
		}
	}
}

// hopeless errors concern the sender or the server, not the bodies.
func hopeless(err error) bool {
	return Retriable(err) || fault.Is(err, fault.Unauthenticated) || fault.Is(err, fault.Forbidden)
}

func (c *Client) sendBodies(ctx context.Context, batch []fileBody) ([]Outcome, error) {
	if len(batch) == 1 {
		o, err := c.submit(ctx, batch[0].key, batch[0].item)
		return []Outcome{o}, err
	}
	h := sha256.New()
	items := make([]item, len(batch))
	for n, b := range batch {
		items[n] = b.item
		h.Write([]byte(b.key))
	}
	return c.submitBatch(ctx, hex.EncodeToString(h.Sum(nil)), items)
}

// A batcher collects bodies up to the bounds of a request.
type batcher struct {
	send  func([]fileBody) error
	batch []fileBody
	bytes int
}

func (b *batcher) add(body fileBody) error {
	if len(b.batch) == maxBatchItems || (len(b.batch) > 0 && b.bytes+len(body.content) > maxBatchBytes) {
		if err := b.flush(); err != nil {
			return err
		}
	}
	b.batch = append(b.batch, body)
	b.bytes += len(body.content)
	return nil
}

func (b *batcher) flush() error {
	if len(b.batch) == 0 {
		return nil
	}
	batch := b.batch
	b.batch, b.bytes = nil, 0
	return b.send(batch)
}

// A tally counts results and tells of them. Its methods may be called at the same time.
type tally struct {
	options SubmitOptions
	mu      sync.Mutex
	summary Summary
	began   time.Time
	said    time.Time
}

func (t *tally) count(b fileBody, o Outcome) {
	r := BodyResult{File: b.file, Line: b.line, Outcome: o}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.summary
	switch {
	case o.Err != nil:
		s.Failed++
		r.Status, r.Reason, r.Outcome = StatusFailed, reason(o.Err), Outcome{}
	case o.Discarded != nil:
		s.Discarded++
		r.Status, r.Reason = StatusDiscarded, string(o.Discarded.Reason)
	case o.Duplicate:
		s.Duplicate++
		r.Status = StatusDuplicate
	default:
		s.Scored++
		r.Status = StatusScored
	}
	s.Bytes += int64(b.size)
	if o.Anomaly {
		s.Anomaly++
	}
	if o.Confirmed {
		s.Confirmed++
	}
	if o.Failure {
		s.Failure++
	}
	if t.options.Each != nil {
		t.options.Each(r)
	}
	if r.Reason != "" {
		t.say("%s", r)
	}
	if now := time.Now(); now.Sub(t.said) >= progressEvery {
		t.said = now
		t.say("%s, %.0f/s", s, float64(s.Bodies())/now.Sub(t.began).Seconds())
	}
}

// reason is what to tell a person: without the cause, which is for our log.
func reason(err error) string {
	f := fault.Of(err)
	if f.Field != "" {
		return fmt.Sprintf("%s %s: %s", f.Code, f.Field, f.Message)
	}
	return fmt.Sprintf("%s: %s", f.Code, f.Message)
}

func (t *tally) say(format string, args ...any) {
	if t.options.Progress != nil {
		fmt.Fprintf(t.options.Progress, format+"\n", args...)
	}
}

// readFile calls each for every body of a file until that fails.
func readFile(name string, o SubmitOptions, each func(fileBody) error) error {
	r := cmp.Or[io.Reader](o.Stdin, os.Stdin)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		r = f
	}
	// By content, since archives are renamed and piped.
	in := bufio.NewReaderSize(r, 1<<16)
	if magic, _ := in.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		in = bufio.NewReaderSize(z, 1<<16)
	}
	err := split(in, saysLines(name), func(content []byte, line int, err error) error {
		b := fileBody{file: name, line: line, size: len(content), err: err}
		if b.err == nil {
			b.err = b.fill(content, o.Backfill)
		}
		return each(b)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func saysLines(name string) bool {
	name = strings.TrimSuffix(strings.ToLower(name), ".gz")
	return strings.HasSuffix(name, ".jsonl") || strings.HasSuffix(name, ".ndjson")
}

// split finds the bodies in r. Line is 0 for a body that is the whole of it; err is about one body,
// which then has no content.
func split(r io.Reader, lines bool, each func(content []byte, line int, err error) error) error {
	if !lines {
		head, err := io.ReadAll(io.LimitReader(r, maxBodyBytes+1))
		if err != nil {
			return err
		}
		if len(head) <= maxBodyBytes && json.Valid(head) {
			return each(head, 0, nil)
		}
		first, _, _ := bytes.Cut(bytes.TrimSpace(head), []byte("\n"))
		if !json.Valid(first) {
			return each(nil, 0, fault.Field("input.content", "The file is neither JSON nor JSON lines."))
		}
		r = io.MultiReader(bytes.NewReader(head), r)
	}
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 1<<16), maxBodyBytes)
	for line := 1; s.Scan(); line++ {
		content := s.Bytes() // without its "\n" or "\r\n"
		var err error
		switch {
		case len(bytes.TrimSpace(content)) == 0:
			continue
		case json.Valid(content):
			err = each(content, line, nil)
		default:
			err = each(nil, line, fault.Field("input.content", "The line is not JSON."))
		}
		if err != nil {
			return err
		}
	}
	return s.Err()
}

// fill makes the body ready to be sent.
func (b *fileBody) fill(content []byte, backfill bool) error {
	var receivedAt time.Time
	var err error
	if backfill {
		if receivedAt, err = startedAt(content); err != nil {
			return err
		}
	}
	if b.item, err = newItem(content, receivedAt); err != nil {
		return err
	}
	h := sha256.New()
	h.Write(content)
	if !receivedAt.IsZero() {
		fmt.Fprintf(h, "\x00%s", receivedAt.Format(time.RFC3339))
	}
	b.key = hex.EncodeToString(h.Sum(nil))
	return nil
}

// startedAt is when a body says that it was measured, or its test begun, whether it is in the established
// network's envelope or not. It fails with INVALID when it does not say.
func startedAt(content []byte) (time.Time, error) {
	var body struct {
		MeasurementStartTime string          `json:"measurement_start_time"`
		TestStartTime        string          `json:"test_start_time"`
		Format               string          `json:"format"`
		Content              json.RawMessage `json:"content"`
	}
	if err := json.Unmarshal(content, &body); err != nil {
		return time.Time{}, fault.Wrap(err, fault.Invalid, "The body is not a JSON object with times as text.").At("input.content")
	}
	if body.Content != nil && body.Format != "" {
		return startedAt(body.Content)
	}
	for _, s := range []string{body.MeasurementStartTime, body.TestStartTime} {
		if t, err := time.Parse(time.DateTime, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fault.Field("input.receivedAt", "The body does not say when it was measured.")
}
