package archive

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/openvantage/vantage/measurement"
)

// A Writer makes the two objects of a pack. It holds one body at a time, and where each lies.
type Writer struct {
	dir          string
	posts, lines *stream
	entries      []Entry
	line         bytes.Buffer
}

// NewWriter begins a pack of the pile. What is written to posts and lines is of use after Close.
func NewWriter(p Pile, posts, lines io.Writer) *Writer {
	return &Writer{dir: p.String(), posts: newStream(posts), lines: newStream(lines)}
}

// Add adds a body. After an error the pack is of no use.
func (w *Writer) Add(uid measurement.ID, body []byte) error {
	at, _, ok := uid.Split()
	if !ok {
		return fmt.Errorf("%q is no uid", uid)
	}
	e := Entry{
		UID: uid, PostOffset: w.posts.size, LineOffset: w.lines.size, Line: len(w.entries), Size: len(body), SHA256: sha256.Sum256(body),
	}
	err := w.posts.member(func(out io.Writer) error {
		t := tar.NewWriter(out)
		h := tar.Header{Typeflag: tar.TypeReg, Name: w.dir + "/" + string(uid) + postSuffix, Mode: 0o644, Size: int64(len(body)), ModTime: at.Truncate(time.Second)}
		if err := t.WriteHeader(&h); err != nil {
			return err
		}
		if _, err := t.Write(body); err != nil {
			return err
		}
		return t.Flush() // not Close: the archive goes on in the next member
	})
	if err != nil {
		return err
	}
	w.line.Reset()
	appendLine(&w.line, body)
	if err := w.lines.member(func(out io.Writer) error { _, err := out.Write(w.line.Bytes()); return err }); err != nil {
		return err
	}
	e.PostLength, e.LineLength = w.posts.size-e.PostOffset, w.lines.size-e.LineOffset
	w.entries = append(w.entries, e)
	return nil
}

const postSuffix = ".post"

// Full reports whether the pack should end.
func (w *Writer) Full() bool { return w.posts.size >= PackBytes || len(w.entries) >= PackBodies }

// Len is the number of bodies so far.
func (w *Writer) Len() int { return len(w.entries) }

// Close ends the tar and returns what was written, under the name without its suffixes.
func (w *Writer) Close(name string) (Pack, error) {
	err := w.posts.member(func(out io.Writer) error { return tar.NewWriter(out).Close() })
	return Pack{w.posts.object(name + PostsSuffix), w.lines.object(name + LinesSuffix), w.entries}, err
}

// A Pack is what is in the store, and where in it each body lies, in its order.
type Pack struct {
	Posts, Lines Object
	Entries      []Entry
}

// appendLine writes a body as one line: the content of its envelope, without white space between its
// parts. What cannot be a line is {}, as at the peer.
func appendLine(out *bytes.Buffer, body []byte) {
	if json.Compact(out, content(body)) != nil || out.Len() == 0 || out.Bytes()[0] != '{' {
		out.Reset()
		out.WriteString("{}")
	}
	out.WriteByte('\n')
}

// content is the measurement in its envelope, {"format": "json", "content": {…}}, or the whole body.
func content(body []byte) []byte {
	if !bytes.Contains(body, []byte(`"content"`)) || !bytes.Contains(body, []byte(`"format"`)) {
		return body
	}
	var envelope map[string]json.RawMessage
	if json.Unmarshal(body, &envelope) != nil || envelope["content"] == nil || envelope["format"] == nil {
		return body
	}
	var format string
	if json.Unmarshal(envelope["format"], &format) != nil || !strings.EqualFold(format, "json") {
		return nil
	}
	return envelope["content"]
}

// A stream is a file of gzip members, counted and hashed on its way.
type stream struct {
	out  io.Writer
	gzip *gzip.Writer
	sum  hash.Hash
	size int64
}

func newStream(out io.Writer) *stream {
	s := &stream{out: out, sum: sha256.New()}
	s.gzip = gzip.NewWriter(s)
	return s
}

// Write is for the compressor.
func (s *stream) Write(p []byte) (int, error) {
	n, err := s.out.Write(p)
	s.size += int64(n)
	_, _ = s.sum.Write(p[:n]) // a hash never fails
	return n, err
}

func (s *stream) member(write func(io.Writer) error) error {
	s.gzip.Reset(s)
	if err := write(s.gzip); err != nil {
		return err
	}
	return s.gzip.Close()
}

func (s *stream) object(name string) Object {
	return Object{name, s.size, [32]byte(s.sum.Sum(nil))}
}
