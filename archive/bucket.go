package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"gocloud.dev/blob"
	_ "gocloud.dev/blob/fileblob" // file://
	_ "gocloud.dev/blob/memblob"  // mem://, for tests
	_ "gocloud.dev/blob/s3blob"   // s3://
	"gocloud.dev/gcerrors"

	"github.com/openvantage/vantage/fault"
)

// Patience with a store. Zero values mean these.
const (
	DefaultAnswer = 10 * time.Second
	DefaultStall  = time.Minute
	retryAfter    = 30 * time.Second
)

// Options say how long a store is waited for.
type Options struct {
	Answer time.Duration // one body
	Stall  time.Duration // one step of a transfer that may go on for long
}

// A Bucket is the object store. All methods may be called at the same time. They fail with UNAVAILABLE
// when the store is gone, full, read-only or too slow (Advice says which), with NOT_FOUND when it has
// no such object, and with a *Damage when an object is not what it should be.
type Bucket struct {
	blob *blob.Bucket
	dir  string // of a file:// store
	here os.FileInfo
	o    Options
}

// FolderURL is the address of a store in a directory.
func FolderURL(dir string) string {
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(dir)}).String()
}

// Open opens the store at a URL: file:///DIR, whose directory is made where its parent is there, or
// s3://BUCKET?endpoint=…&region=…, which is not asked anything yet. mem:// keeps nothing and is for tests.
func Open(ctx context.Context, address string, o Options) (*Bucket, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("the archive's address is not a URL") // which may hold a secret
	}
	if o.Answer <= 0 {
		o.Answer = DefaultAnswer
	}
	if o.Stall <= 0 {
		o.Stall = DefaultStall
	}
	b := &Bucket{o: o}
	if u.Scheme == "file" {
		b.dir = filepath.FromSlash(u.Path)
		if err := os.Mkdir(b.dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("the archive's directory cannot be made: %w", err)
		}
		if b.here, err = os.Stat(b.dir); err != nil {
			return nil, fmt.Errorf("the archive's directory cannot be used: %w", err)
		}
		q := u.Query()
		q.Set("no_tmp_dir", "true") // a rename must not cross file systems
		q.Set("metadata", "skip")   // nothing but packs in there
		u.RawQuery = q.Encode()
	}
	if b.blob, err = blob.OpenBucket(ctx, u.String()); err != nil {
		return nil, fmt.Errorf("the archive cannot be opened: %w", err)
	}
	return b, nil
}

// Close ends what the bucket holds open.
func (b *Bucket) Close() error { return b.blob.Close() }

// present fails when a directory is not the one that was opened, as when a disk is not mounted: what
// is written then would be hidden once it is back.
func (b *Bucket) present(ctx context.Context) error {
	if b.dir == "" || ctx.Err() != nil { // not every driver looks
		return ctx.Err()
	}
	now, err := os.Stat(b.dir)
	if err == nil && !os.SameFile(now, b.here) {
		err = errors.New("the archive's directory is not the one that it was at the start")
	}
	return err
}

// An Upload is an object that is being written. Nothing is there before Commit, and Abort after it does nothing.
type Upload struct {
	b     *Bucket
	name  string
	out   *blob.Writer
	watch *watch
}

// contentType says what a pack's object is.
func contentType(name string) string {
	if strings.HasSuffix(name, PostsSuffix) {
		return "application/gzip"
	}
	return "application/x-ndjson+gzip"
}

// Create begins to write an object, in whose place there may be one, or the remains of an attempt that was
// cut off. Nobody else may be writing it.
func (b *Bucket) Create(ctx context.Context, name string) (*Upload, error) {
	if err := b.present(ctx); err != nil {
		return nil, b.translate(ctx, err)
	}
	if err := b.clear(name); err != nil {
		return nil, b.translate(ctx, err)
	}
	u := &Upload{b: b, name: name, watch: newWatch(ctx, b.o.Stall)}
	defer u.watch.step()()
	var err error
	// Two parts of an upload wait in memory.
	u.out, err = b.blob.NewWriter(u.watch.ctx, name, &blob.WriterOptions{ //nolint:contextcheck // it comes from ctx
		ContentType: contentType(name), DisableContentTypeDetection: true, BufferSize: 5 << 20, MaxConcurrency: 1,
	})
	if err != nil {
		err = b.translate(u.watch.ctx, err) //nolint:contextcheck // it comes from ctx
		u.watch.cancel(nil)
		return nil, err
	}
	return u, nil
}

// Write adds to the object.
func (u *Upload) Write(p []byte) (int, error) {
	defer u.watch.step()()
	n, err := u.out.Write(p)
	return n, u.b.translate(u.watch.ctx, err)
}

// Commit puts the object there, durably.
func (u *Upload) Commit() error {
	defer u.watch.cancel(nil)
	defer u.watch.step()()
	err := u.out.Close()
	if err == nil && u.b.dir != "" {
		err = u.b.sync(u.name)
	}
	err = u.b.translate(u.watch.ctx, err)
	u.out = nil
	return err
}

// Abort leaves no object.
func (u *Upload) Abort() {
	u.watch.cancel(nil)
	if u.out != nil {
		_ = u.out.Close() // it fails: that is what is wanted
		u.out = nil
	}
}

// clear removes what the driver calls an unfinished object, as a process leaves it that is killed. Stores of
// other kinds have rules for this.
func (b *Bucket) clear(name string) error {
	if b.dir == "" {
		return nil
	}
	dir, base := filepath.Split(filepath.Join(b.dir, filepath.FromSlash(name)))
	files, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), base+".") && strings.HasSuffix(f.Name(), ".tmp") {
			err = errors.Join(err, os.Remove(filepath.Join(dir, f.Name())))
		}
	}
	return err
}

// sync makes a file, and the names that lead to it, survive a loss of power, which the driver does not.
func (b *Bucket) sync(name string) error {
	for ; ; name = path.Dir(name) {
		f, err := os.Open(filepath.Join(b.dir, filepath.FromSlash(name)))
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
		if name == "." {
			return nil
		}
	}
}

// A download reads an object, and is given up when the store stalls.
type download struct {
	b     *Bucket
	in    *blob.Reader
	watch *watch
}

// Read reads n bytes of an object from an offset on; n below 0 is all there is.
func (b *Bucket) Read(ctx context.Context, name string, offset, n int64) (io.ReadCloser, error) {
	if err := b.present(ctx); err != nil {
		return nil, b.translate(ctx, err)
	}
	d := &download{b: b, watch: newWatch(ctx, b.o.Stall)}
	defer d.watch.step()()
	var err error
	if d.in, err = b.blob.NewRangeReader(d.watch.ctx, name, offset, n, nil); err != nil { //nolint:contextcheck // it comes from ctx
		err = b.translate(d.watch.ctx, err) //nolint:contextcheck // it comes from ctx
		d.watch.cancel(nil)
		return nil, err
	}
	return d, nil
}

func (d *download) Read(p []byte) (int, error) {
	defer d.watch.step()()
	n, err := d.in.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = d.b.translate(d.watch.ctx, err)
	}
	return n, err
}

func (d *download) Close() error {
	defer d.watch.cancel(nil)
	return d.in.Close()
}

// List yields the objects whose names begin with a prefix, in the order of their names, without their sums. An error is the
// last thing it yields.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		if err := b.present(ctx); err != nil {
			yield(Object{}, b.translate(ctx, err))
			return
		}
		for all := b.blob.List(&blob.ListOptions{Prefix: prefix}); ; {
			o, err := all.Next(ctx)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(Object{}, b.translate(ctx, err))
				return
			}
			if !o.IsDir && !yield(Object{Name: o.Key, Size: o.Size}, nil) {
				return
			}
		}
	}
}

// Body reads the body of an entry out of the posts of its pack, with one request.
func (b *Bucket) Body(ctx context.Context, posts string, e Entry) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, b.o.Answer, errSlow)
	defer cancel()
	in, err := b.Read(ctx, posts, e.PostOffset, e.PostLength)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	member := make([]byte, e.PostLength)
	if n, err := io.ReadFull(in, member); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, &Damage{posts, fmt.Sprintf("it ends at %d", e.PostOffset+int64(n))}
	} else if err != nil {
		return nil, err
	}
	body, err := e.body(member)
	if err != nil {
		return nil, &Damage{posts, err.Error()}
	}
	return body, nil
}

// Empty reports whether there is no object at all.
func (b *Bucket) Empty(ctx context.Context) (bool, error) {
	if err := b.present(ctx); err != nil {
		return false, b.translate(ctx, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, b.o.Answer, errSlow)
	defer cancel()
	_, err := b.blob.List(nil).Next(ctx)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, b.translate(ctx, err)
}

// Verify reads both objects of a pack whole and decodes every member.
func (b *Bucket) Verify(ctx context.Context, p Pack) error {
	if err := b.verify(ctx, p.Posts, p, checkPosts); err != nil {
		return err
	}
	return b.verify(ctx, p.Lines, p, checkLines)
}

func (b *Bucket) verify(ctx context.Context, o Object, p Pack, check func(io.Reader, Pack) error) error {
	in, err := b.Read(ctx, o.Name, 0, -1)
	if fault.Is(err, fault.NotFound) {
		return &Damage{o.Name, "it is missing"}
	}
	if err != nil {
		return err
	}
	defer in.Close()
	err = check(in, p)
	var f *fault.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &f), ctx.Err() != nil:
		return err // the store's fault, not the object's
	}
	return &Damage{o.Name, err.Error()}
}

// errSlow is why a transfer was given up.
var errSlow = errors.New("the archive took too long")

// A watch ends a transfer one step of which takes too long. What happens between steps is not the
// store's doing.
type watch struct {
	ctx    context.Context //nolint:containedctx // of the transfer, which outlives the call that began it
	cancel context.CancelCauseFunc
	stall  time.Duration
}

func newWatch(ctx context.Context, stall time.Duration) *watch {
	w := &watch{stall: stall}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	return w
}

// step begins a step and returns what ends it.
func (w *watch) step() func() {
	t := time.AfterFunc(w.stall, func() { w.cancel(errSlow) })
	return func() { t.Stop() }
}

// translate makes a fault of what a driver says. What the caller gave up stays what it is.
func (b *Bucket) translate(ctx context.Context, err error) error {
	var known *fault.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case errors.Is(context.Cause(ctx), errSlow):
		err = errSlow
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled):
		return ctx.Err()
	case gcerrors.Code(err) == gcerrors.NotFound && !isCode(err, "NoSuchBucket"):
		return fault.Wrap(err, fault.NotFound, "The archive does not have this.")
	}
	return fault.Wrap(err, fault.Unavailable, "The archive cannot be used at the moment. Try again.").After(retryAfter)
}

func isCode(err error, codes ...string) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	for _, c := range codes {
		if api.ErrorCode() == c {
			return true
		}
	}
	return false
}

// Advice says what a person can do about an error of a Bucket.
func Advice(err error) string {
	var answer *smithyhttp.ResponseError
	status := 0
	if errors.As(err, &answer) {
		status = answer.HTTPStatusCode()
	}
	var damage *Damage
	switch {
	case errors.As(err, &damage):
		return "look after the disk: what was just written reads differently"
	case errors.Is(err, errSlow):
		return "see why the store is slow, or whether the way to it is cut"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), status == http.StatusInsufficientStorage, isCode(err, "QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity"):
		return "the store is full: make room in it"
	case errors.Is(err, syscall.EROFS), errors.Is(err, os.ErrPermission), errors.Is(err, syscall.ENOTDIR),
		status == http.StatusForbidden, status == http.StatusUnauthorized, status == http.StatusMethodNotAllowed:
		return "let this server write to the store"
	case errors.Is(err, os.ErrNotExist), isCode(err, "NoSuchBucket"):
		return "see whether ARCHIVE_URL names a directory or bucket that is there, and mounted"
	}
	return "see whether the store is up and ARCHIVE_URL is right"
}
