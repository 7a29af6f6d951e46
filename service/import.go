package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/archive"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
)

// Bounds of what is imported; our decisions. A pack of the established network has 20 MB and unpacks to ten times that.
const (
	largestObject  = 256 << 20
	unpacksTo      = 100 // times its size, beyond 64 MB
	importBatch    = 100
	importInFlight = 4 << 20 // bytes of bodies that a worker hands in at a time
	importWorkers  = 3       // as many as the queue of submissions has room for
)

// An ArchiveImport says what of another archive is to be imported. Source is its name, without secrets: an object that
// was imported from there whole is passed over.
type ArchiveImport struct {
	From                 *archive.Bucket
	Source               string
	Since, Until         *time.Time // of receipt
	Countries, TestNames []string

	Progress func(ArchiveImported) // unless nil
}

// ArchiveImported is how far an import came.
type ArchiveImported struct {
	Objects, Done, Known int   // those of the span, those that are over, those of them that were imported before
	Bytes, BytesDone     int64 // of objects
	BodyBytes            int64
	Scored, Discarded    int
	Duplicates           int
	Problems             int
	ProblemExamples      []string
}

// An importer is one run.
type importer struct {
	s    *Service
	o    ArchiveImport
	who  access.Principal
	size map[string]int64 // of those that were imported before

	mu    sync.Mutex
	sum   ArchiveImported
	named map[string]int // how many problems of each object have been named
}

// ImportArchive submits the bodies of an archive in the established network's layout, as received at the instants of their
// uids. Where an object of original posts is missing its lines are taken instead, which tell the hour alone: those
// count as received at its end, and get uids of their own. What is there already is a duplicate. An object that is broken
// is read as far as it goes, and a body that cannot be stored is passed over: both are problems. It fails when
// that archive or the database cannot be used.
func (s *Service) ImportArchive(ctx context.Context, o ArchiveImport) (ArchiveImported, error) {
	run := &importer{s: s, o: o, who: access.Principal{Role: access.Operator, Name: "vantage import archive"}, named: map[string]int{}}
	var err error
	if run.size, err = s.db.ImportedObjects(ctx, o.Source); err != nil {
		return run.sum, err
	}
	objects, err := run.objects(ctx)
	if err != nil {
		return run.sum, err
	}
	run.tell(func(sum *ArchiveImported) {
		sum.Objects = len(objects)
		for _, o := range objects {
			sum.Bytes += o.Size
		}
	})
	g, ctx := errgroup.WithContext(ctx)
	todo := make(chan archive.Object)
	g.Go(func() error {
		defer close(todo)
		for _, o := range objects {
			select {
			case todo <- o:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range importWorkers {
		g.Go(func() error {
			for o := range todo {
				if err := run.object(ctx, o); err != nil {
					return err
				}
				run.tell(func(sum *ArchiveImported) { sum.Done++; sum.BytesDone += o.Size })
			}
			return nil
		})
	}
	err = g.Wait()
	return run.sum, err
}

// objects are those of the span: of two with the same bodies, the posts.
func (r *importer) objects(ctx context.Context) ([]archive.Object, error) {
	var all []archive.Object
	for _, prefix := range r.prefixes() {
		for o, err := range r.o.From.List(ctx, prefix) {
			if err != nil {
				return nil, err
			}
			pile, suffix, ok := archive.PileOfObject(o.Name)
			if !ok || !r.wanted(pile) {
				continue
			}
			// ".jsonl.gz" comes just before ".tar.gz".
			if n := len(all); suffix == archive.PostsSuffix && n > 0 && all[n-1].Name == strings.TrimSuffix(o.Name, suffix)+archive.LinesSuffix {
				all = all[:n-1]
			}
			all = append(all, o)
		}
	}
	return all, nil
}

// prefixes are the days to look at; everything where the beginning is open.
func (r *importer) prefixes() []string {
	if r.o.Since == nil {
		return []string{"raw/"}
	}
	until := r.s.db.Now()
	if r.o.Until != nil && r.o.Until.Before(until) {
		until = *r.o.Until
	}
	var days []string
	for at := r.o.Since.UTC().Truncate(24 * time.Hour); at.Before(until); at = at.Add(24 * time.Hour) {
		days = append(days, "raw/"+at.Format("20060102")+"/")
	}
	return days
}

func (r *importer) wanted(p archive.Pile) bool {
	if r.o.Since != nil && !p.Hour.Add(time.Hour).After(*r.o.Since) || r.o.Until != nil && !p.Hour.Before(*r.o.Until) {
		return false
	}
	if r.o.Countries != nil && !slices.Contains(r.o.Countries, string(p.Country)) {
		return false
	}
	return r.o.TestNames == nil || slices.ContainsFunc(r.o.TestNames, func(name string) bool {
		return measurement.NameInID(name) == p.TestName
	})
}

// object imports one object. Where all of it is stored, that is remembered.
func (r *importer) object(ctx context.Context, o archive.Object) error {
	if size, ok := r.size[o.Name]; ok && size == o.Size {
		r.tell(func(sum *ArchiveImported) { sum.Known++ })
		return nil
	}
	if o.Size > largestObject {
		r.problem(o, " has %d bytes: that is no pack", o.Size)
		return nil
	}
	in, err := r.o.From.Read(ctx, o.Name, 0, -1)
	if err != nil {
		return err
	}
	defer in.Close()
	whole, err := r.bodies(ctx, o, in)
	if err != nil || !whole || r.o.Since != nil || r.o.Until != nil { // of the span, it may be a part alone
		return err
	}
	return r.s.db.Write(ctx, func(tx *db.Tx) error { return tx.SaveImported(ctx, r.o.Source, o) })
}

// bodies submits what is in an object and reports whether all of it is stored.
func (r *importer) bodies(ctx context.Context, o archive.Object, in io.Reader) (whole bool, err error) {
	pile, suffix, _ := archive.PileOfObject(o.Name)
	whole = true
	var waiting []Submission
	var size, unpacked int64
	flush := func() error {
		all, err := r.submit(ctx, o, waiting)
		whole = whole && all
		waiting, size = waiting[:0], 0
		return err
	}
	take := func(body []byte, uid measurement.ID) error {
		unpacked += int64(len(body))
		if unpacked > unpacksTo*o.Size+64<<20 {
			return fmt.Errorf("it unpacks to more than %d times its size", unpacksTo)
		}
		at := pile.Hour.Add(time.Hour - time.Microsecond)
		if uid != "" {
			var ok bool
			if at, _, ok = uid.Split(); !ok {
				whole = false
				r.refused(o, ": %q is no uid", string(uid))
				return nil
			}
		}
		if r.o.Since != nil && at.Before(*r.o.Since) || r.o.Until != nil && !at.Before(*r.o.Until) {
			return nil
		}
		waiting, size = append(waiting, Submission{Body: body, ReceivedAt: at, UID: uid}), size+int64(len(body))
		if len(waiting) == importBatch || size >= importInFlight {
			if err := flush(); err != nil {
				return storing{err}
			}
		}
		return nil
	}
	for body, uid := range everyBody(ctx, in, suffix, &err) {
		if err = take(body, uid); err != nil {
			break
		}
	}
	var fatal storing
	var known *fault.Error
	switch {
	case errors.As(err, &fatal):
		return false, fatal.error
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.As(err, &known): // that archive's doing, not the object's
		return false, err
	case err != nil:
		r.problem(o, " is broken: %v", err)
		whole = false
	}
	if err := flush(); err != nil {
		return false, err
	}
	return whole, nil
}

// storing is an error of our own side.
type storing struct{ error }

// everyBody yields the bodies of an object, of posts with their uids; err is why it ended early.
func everyBody(ctx context.Context, in io.Reader, suffix string, err *error) func(func([]byte, measurement.ID) bool) {
	return func(yield func([]byte, measurement.ID) bool) {
		if suffix == archive.PostsSuffix {
			for p, e := range archive.Posts(ctx, in) {
				if *err = e; e != nil || !yield(p.Body, p.UID) {
					return
				}
			}
			return
		}
		for line, e := range archive.Lines(ctx, in) {
			if *err = e; e != nil || !yield(slices.Clone(line), "") {
				return
			}
		}
	}
}

// submit hands bodies in, and reports whether all are stored.
func (r *importer) submit(ctx context.Context, o archive.Object, subs []Submission) (whole bool, err error) {
	var uids []measurement.ID
	for _, sub := range subs {
		if sub.UID != "" {
			uids = append(uids, sub.UID)
		}
	}
	taken, err := r.s.db.Taken(ctx, uids)
	if err != nil {
		return false, err
	}
	var fresh []Submission
	limit := int64(r.s.settings.Limits.MaxBytes)
	if limit <= 0 {
		limit = int64(measurement.DefaultLimits.MaxBytes)
	}
	whole = true
	var sum ArchiveImported
	for _, sub := range subs {
		switch {
		case taken[sub.UID]:
			sum.Duplicates++
		case int64(len(sub.Body)) > limit: // more than the queue takes
			whole = false
			r.refused(o, ": %sa body has %d bytes; at most %d are accepted", whose(sub.UID), len(sub.Body), limit)
		default:
			fresh = append(fresh, sub)
		}
	}
	for i, done := range r.s.SubmitAll(ctx, r.who, make([]string, len(fresh)), fresh) {
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case fault.Is(done.Err, fault.Unavailable):
			return false, done.Err
		case done.Err != nil:
			whole = false
			r.refused(o, ": %s%s", whose(fresh[i].UID), fault.Of(done.Err).Message)
		case done.Duplicate:
			sum.Duplicates++
		case done.Discarded != "":
			sum.Discarded++
		default:
			sum.Scored++
		}
	}
	for _, sub := range subs {
		sum.BodyBytes += int64(len(sub.Body))
	}
	r.tell(func(all *ArchiveImported) {
		all.Scored += sum.Scored
		all.Discarded += sum.Discarded
		all.Duplicates += sum.Duplicates
		all.BodyBytes += sum.BodyBytes
	})
	return whole, nil
}

// whose is a uid as the beginning of a problem; lines have none.
func whose(uid measurement.ID) string {
	if uid == "" {
		return ""
	}
	return string(uid) + ": "
}

// problem is of a whole object.
func (r *importer) problem(o archive.Object, format string, args ...any) {
	r.tell(func(sum *ArchiveImported) { sum.problem(o, fmt.Sprintf(format, args...)) })
}

// refused is of one body. The first ones of each object are named.
func (r *importer) refused(o archive.Object, format string, args ...any) {
	const each = 3
	r.tell(func(sum *ArchiveImported) {
		if r.named[o.Name]++; r.named[o.Name] > each {
			sum.Problems++
			return
		}
		sum.problem(o, fmt.Sprintf(format, args...))
	})
}

func (sum *ArchiveImported) problem(o archive.Object, text string) {
	sum.Problems++
	if len(sum.ProblemExamples) < maxExamples {
		sum.ProblemExamples = append(sum.ProblemExamples, o.Name+text)
	}
}

func (r *importer) tell(change func(*ArchiveImported)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.sum)
	if r.o.Progress != nil {
		r.o.Progress(r.sum)
	}
}
