package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"path"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"

	"github.com/openvantage/vantage/measurement"
)

// largest is the largest body or line that is read: far more than any collector takes, and little
// enough that a bomb does no harm.
const largest = 64 << 20

// A Post is a body as it was submitted. It is the receiver's to keep.
type Post struct {
	UID  measurement.ID
	Body []byte
}

// Posts reads the .tar.gz of a pack in its order, ours or the established network's. The first error
// is the last thing it yields; members that are no posts are passed over.
func Posts(ctx context.Context, r io.Reader) iter.Seq2[Post, error] {
	return func(yield func(Post, error) bool) {
		z, err := gzip.NewReader(bufio.NewReaderSize(r, 256<<10))
		if err != nil {
			yield(Post{}, err)
			return
		}
		defer z.Close()
		t := tar.NewReader(bufio.NewReaderSize(z, 64<<10))
		for ctx.Err() == nil {
			p, err := nextPost(t)
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
		yield(Post{}, ctx.Err())
	}
}

// nextPost fails with io.EOF at the end of the archive.
func nextPost(t *tar.Reader) (Post, error) {
	for {
		h, err := t.Next()
		if err != nil {
			return Post{}, err
		}
		if h.Size > largest { // it would be unpacked to be passed over, too
			return Post{}, fmt.Errorf("%s has %d bytes; at most %d are read", h.Name, h.Size, largest)
		}
		uid, ok := strings.CutSuffix(path.Base(h.Name), postSuffix)
		if h.Typeflag != tar.TypeReg || !ok {
			continue
		}
		p := Post{measurement.ID(uid), make([]byte, h.Size)}
		if _, err := io.ReadFull(t, p.Body); err != nil {
			return Post{}, cutShort(err)
		}
		return p, nil
	}
}

// cutShort keeps an end within something from looking like the end.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Lines reads the .jsonl.gz of a pack, ours or the established network's: one measurement each,
// without its newline, and valid until the next. The first error is the last thing it yields.
func Lines(ctx context.Context, r io.Reader) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		z, err := gzip.NewReader(bufio.NewReaderSize(r, 256<<10))
		if err != nil {
			yield(nil, err)
			return
		}
		defer z.Close()
		// Not a Scanner, which looks through all of a long line again at each read.
		in := bufio.NewReaderSize(z, 256<<10)
		var line []byte
		for ctx.Err() == nil {
			part, err := in.ReadSlice('\n')
			whole := err == nil || errors.Is(err, io.EOF)
			if len(line)+len(part) > largest {
				err, whole = fmt.Errorf("a line has more than %d bytes", largest), false
			}
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF) {
				yield(nil, err)
				return
			}
			if whole && line == nil {
				line = part // without a copy, as nearly always
			} else {
				line = append(line, part...)
			}
			if !whole {
				continue
			}
			if last := errors.Is(err, io.EOF); last && len(line) == 0 || !yield(bytes.TrimSuffix(line, []byte("\n")), nil) || last {
				return
			}
			line = nil
		}
		yield(nil, ctx.Err())
	}
}

// A memberReader reads a file of gzip members one by one, and knows where in the file it is.
type memberReader struct {
	raw  io.Reader
	in   *bufio.Reader
	gzip *gzip.Reader
	sum  hash.Hash
	read int64
}

func newMemberReader(r io.Reader) *memberReader {
	m := &memberReader{raw: r, sum: sha256.New()}
	m.in = bufio.NewReaderSize(m, 256<<10)
	return m
}

// Read is for the buffer.
func (m *memberReader) Read(p []byte) (int, error) {
	n, err := m.raw.Read(p)
	m.read += int64(n)
	_, _ = m.sum.Write(p[:n]) // a hash never fails
	return n, err
}

func (m *memberReader) offset() int64 { return m.read - int64(m.in.Buffered()) }

// next is what is in the next member, which must be read to its end; io.EOF after the last one.
func (m *memberReader) next() (io.Reader, error) {
	var err error
	if m.gzip == nil {
		m.gzip, err = gzip.NewReader(m.in)
	} else {
		err = m.gzip.Reset(m.in)
	}
	if err != nil {
		return nil, err
	}
	m.gzip.Multistream(false)
	return m.gzip, nil
}

// rest reads what is left of a file and reports whether it is the object.
func (m *memberReader) is(o Object) error {
	_, err := io.Copy(io.Discard, m.in)
	switch {
	case err != nil:
		return err
	case m.read != o.Size:
		return fmt.Errorf("it has %d bytes instead of %d", m.read, o.Size)
	case [32]byte(m.sum.Sum(nil)) != o.SHA256:
		return errors.New("its SHA-256 is another one")
	}
	return nil
}

// checkPosts decodes every member of r at the place that its entry names.
func checkPosts(r io.Reader, p Pack) error {
	m := newMemberReader(r)
	for _, e := range p.Entries {
		if m.offset() != e.PostOffset {
			return fmt.Errorf("%s begins at %d instead of %d", e.UID, m.offset(), e.PostOffset)
		}
		in, err := m.next()
		if err != nil {
			return cutShort(err)
		}
		if _, err := e.post(in); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, in); err != nil {
			return err
		}
	}
	in, err := m.next()
	if err != nil {
		return cutShort(err)
	}
	if _, err := tar.NewReader(in).Next(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("there is more in it than %d bodies (%w)", len(p.Entries), err)
	}
	return m.is(p.Posts)
}

// checkLines does the same for lines, whose content is covered by the hash.
func checkLines(r io.Reader, p Pack) error {
	m := newMemberReader(r)
	for _, e := range p.Entries {
		if m.offset() != e.LineOffset {
			return fmt.Errorf("line %d begins at %d instead of %d", e.Line, m.offset(), e.LineOffset)
		}
		in, err := m.next()
		if err != nil {
			return cutShort(err)
		}
		if _, err := io.Copy(io.Discard, in); err != nil {
			return err
		}
	}
	return m.is(p.Lines)
}

var gunzip = sync.Pool{New: func() any { return new(gzip.Reader) }}

// body takes the body out of its member.
func (e Entry) body(member []byte) ([]byte, error) {
	z := gunzip.Get().(*gzip.Reader) //nolint:forcetypeassert // nothing else is in there
	defer gunzip.Put(z)
	if err := z.Reset(bytes.NewReader(member)); err != nil {
		return nil, err
	}
	return e.post(z)
}

// post reads a tar of one body and compares it with the entry.
func (e Entry) post(r io.Reader) ([]byte, error) {
	p, err := nextPost(tar.NewReader(r))
	switch {
	case err != nil:
		return nil, cutShort(err)
	case p.UID != e.UID:
		return nil, fmt.Errorf("%s is where %s should be", p.UID, e.UID)
	case len(p.Body) != e.Size || sha256.Sum256(p.Body) != e.SHA256:
		return nil, fmt.Errorf("the SHA-256 of %s is another one", e.UID)
	}
	return p.Body, nil
}
