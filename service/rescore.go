package service

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openvantage/vantage/archive"
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
)

// Sizes of rescoring; our decisions. A transaction holds the locks of its rows and of the rollup for a moment only.
const (
	rescoreBatch   = 500
	rescorePage    = 100
	rescoreSegment = 2 << 20 // bytes of a pack that are read at a time, so that few packs keep all processors busy
	// maxExamples is how many changes and problems a Rescored holds.
	maxExamples = 20
)

// A Rescoring says what is to be judged anew, with the scorer of this program and the fingerprints in use. What is
// current is passed over unless All is set, so a run that ended early is gone on with by another one.
type Rescoring struct {
	Since, Until         *time.Time // of receipt
	Countries, TestNames []string
	All                  bool
	DryRun               bool // compare, and write nothing
	NoWrite              bool // only score: the database is not asked what was said before

	// Progress, unless nil, is told from time to time. Changed, unless nil, is told of each measurement that shows something
	// else, after the commit: of its verdicts, and what names it. With NoWrite it is told of all, without what was said before.
	// They are called one at a time.
	Progress func(Rescored)
	Changed  func(before, after db.Measurement)
}

// A Change is by what measurements differ that were rescored: how they count and their outcomes, before and after.
// Of is empty, or what differs where these do not: "blocking type", "scores" or "evidence".
type Change struct {
	Country           country.Code
	TestName          string
	Before, After     string // such as CONFIRMED
	BeforeIs, AfterIs measurement.Outcome
	Of                string
}

// A Rescored is how far rescoring came.
type Rescored struct {
	Packs, PacksDone   int   // those that may hold bodies of the span
	Bytes, BytesDone   int64 // of their posts, as they are stored
	Scored             int
	BodyBytes          int64 // of what was scored
	Written            int   // rows that are current now, or would be
	Changed, Announced int   // of them
	Changes            map[Change]int
	Examples           []measurement.ID // of what changed
	Problems           int
	ProblemExamples    []string
}

// A rescorer is one run.
type rescorer struct {
	s     *Service
	r     Rescoring
	q     db.RescoreQuery
	set   *loaded
	trial *trial // nil unless another set is tried, and nothing written

	mu  sync.Mutex
	sum Rescored
}

// Rescore judges stored bodies anew. Verdicts that differ are replaced, each with its part of the rollup, and the
// earlier ones kept; what differs in more than its reasons is announced. Bodies that cannot be read, or that
// would not be stored today, keep their verdicts and are counted as problems. When ctx ends, transactions under way
// are finished first. It fails with UNAVAILABLE when the archive or the database cannot be used; what was written
// by then stays.
func (s *Service) Rescore(ctx context.Context, r Rescoring) (Rescored, error) {
	scorer, err := strconv.Atoi(measurement.ScorerVersion)
	if err != nil {
		return Rescored{}, err
	}
	run := &rescorer{s: s, r: r, set: s.fingerprints.Load(), sum: Rescored{Changes: map[Change]int{}}}
	run.q = db.RescoreQuery{
		Since: r.Since, Until: r.Until, Countries: r.Countries, TestNames: r.TestNames, All: r.All, Scorer: scorer, Fingerprints: run.set.version,
	}
	err = run.all(ctx)
	return run.sum, err
}

// all goes over everything. The spool comes first: what is packed meanwhile is found in its pack.
func (r *rescorer) all(ctx context.Context) error {
	var err error
	if r.sum.Packs, r.sum.Bytes, err = r.s.db.RescoreSize(ctx, r.q); err != nil {
		return err
	}
	if err := r.spool(ctx); err != nil || r.s.settings.Archive == nil {
		return err
	}
	return r.packs(ctx)
}

// spool rescores bodies that are not archived yet.
func (r *rescorer) spool(ctx context.Context) error {
	var after measurement.ID
	for {
		some, err := r.s.db.RescoreSpooled(ctx, r.q, after, rescorePage)
		if err != nil || len(some) == 0 {
			return err
		}
		after = some[len(some)-1].UID
		for len(some) > 0 {
			var uids []measurement.ID
			for size := 0; len(some) > 0 && (uids == nil || size+some[0].Bytes <= packBatch); some = some[1:] {
				uids, size = append(uids, some[0].UID), size+some[0].Bytes
			}
			bodies, err := r.s.db.Spooled(ctx, uids)
			if err != nil {
				return err
			}
			c := chunk{r: r}
			for _, uid := range uids {
				body, here := bodies[uid]
				switch {
				case !here: // it was packed at this moment
				case body == nil:
					r.problem("%s cannot be read in the spool", uid)
				default:
					c.score(uid, body)
				}
			}
			if err := c.flush(ctx); err != nil {
				return err
			}
		}
	}
}

// packs rescores archived bodies, some packs at a time: while one waits for the disk or the database, another
// has the processor.
func (r *rescorer) packs(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	todo := make(chan segment)
	g.Go(func() error {
		defer close(todo)
		p := db.Page{N: rescorePage, Backward: r.trial != nil}
		for {
			packs, err := r.s.db.RescorePacks(ctx, r.q, p)
			if err != nil {
				return err
			}
			if p.Backward {
				slices.Reverse(packs)
			}
			for _, pack := range packs {
				if err := r.segments(ctx, pack, todo); err != nil {
					return err
				}
			}
			if len(packs) < p.N {
				return nil
			}
			last := []string{strconv.FormatInt(packs[len(packs)-1].ID, 10)}
			if p.Backward {
				p.Before = last
			} else {
				p.After = last
			}
		}
	})
	for range 2 * runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			for part := range todo {
				if err := r.segment(ctx, part); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// A segment is bodies of a pack that lie beside each other.
type segment struct {
	pack    db.Pack
	entries []archive.Entry
	bytes   int64 // of the pack's posts that are over with it
	last    bool
}

// segments hands out what of a pack is to be rescored.
func (r *rescorer) segments(ctx context.Context, pack db.Pack, todo chan<- segment) error {
	entries, err := r.s.db.RescorePacked(ctx, r.q, pack)
	if err != nil {
		return err
	}
	left := segment{pack: pack, bytes: pack.Posts.Size, last: true}
	for len(entries) > 0 {
		n, from := 1, entries[0].PostOffset
		for n < len(entries) && entries[n].PostOffset+entries[n].PostLength-from <= rescoreSegment {
			n++
		}
		part := segment{pack: pack, entries: entries[:n], bytes: entries[n-1].PostOffset + entries[n-1].PostLength - from}
		if entries = entries[n:]; len(entries) == 0 {
			part.bytes, part.last = left.bytes, true
		}
		left.bytes -= part.bytes
		select {
		case todo <- part:
		case <-ctx.Done():
			return ctx.Err()
		}
		if part.last {
			return nil
		}
	}
	r.over(left)
	return nil
}

func (r *rescorer) over(part segment) {
	r.tell(func(sum *Rescored) {
		sum.BytesDone += part.bytes
		if part.last {
			sum.PacksDone++
		}
	})
}

func (r *rescorer) segment(ctx context.Context, part segment) error {
	pack, entries := part.pack, part.entries
	want := make(map[measurement.ID]archive.Entry, len(entries))
	for _, e := range entries {
		want[e.UID] = e
	}
	from, to := entries[0], entries[len(entries)-1]
	in, err := r.s.settings.Archive.Read(ctx, pack.Posts.Name, from.PostOffset, to.PostOffset+to.PostLength-from.PostOffset)
	if fault.Is(err, fault.NotFound) {
		r.damaged(ctx, pack, "it is missing")
		r.over(part)
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close()
	c, broken := chunk{r: r}, false
	for post, err := range archive.Posts(ctx, in) {
		var known *fault.Error
		switch e := want[post.UID]; {
		case len(want) == 0: // the end of the file was not asked for
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &known): // the store's doing, not the object's
			return err
		case err != nil:
			broken = true
			r.damaged(ctx, pack, err.Error())
		case e.UID == "":
		case sha256.Sum256(post.Body) != e.SHA256:
			delete(want, post.UID)
			r.damaged(ctx, pack, fmt.Sprintf("the SHA-256 of %s is another one", post.UID))
		default:
			delete(want, post.UID)
			c.score(post.UID, post.Body)
		}
		if c.scored == rescoreBatch {
			if err := c.flush(ctx); err != nil {
				return err
			}
		}
	}
	if err := c.flush(ctx); err != nil {
		return err
	}
	if len(want) > 0 && !broken {
		r.damaged(ctx, pack, fmt.Sprintf("%d of its bodies are not in it", len(want)))
	}
	r.over(part)
	return nil
}

func (r *rescorer) damaged(ctx context.Context, pack db.Pack, problem string) {
	if !r.r.DryRun && !r.r.NoWrite {
		r.s.reportDamage(ctx, pack.ID, &archive.Damage{Object: pack.Posts.Name, Problem: problem})
	}
	r.problem("%s is damaged: %s", pack.Posts.Name, problem)
}

func (r *rescorer) problem(format string, args ...any) {
	r.tell(func(sum *Rescored) {
		sum.Problems++
		if len(sum.ProblemExamples) < maxExamples {
			sum.ProblemExamples = append(sum.ProblemExamples, fmt.Sprintf(format, args...))
		}
	})
}

// tell changes the sum, and says so.
func (r *rescorer) tell(change func(*Rescored)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.sum)
	if r.r.Progress != nil {
		r.r.Progress(r.sum)
	}
}

// A chunk is measurements that were judged and wait to be compared with their rows.
type chunk struct {
	r      *rescorer
	after  []db.Measurement // verdicts and uids alone
	tried  []comparison     // of a trial, which asks no rows
	bytes  int64
	scored int
}

func (c *chunk) score(uid measurement.ID, body []byte) {
	if c.r.trial != nil && !c.r.trial.take() {
		return
	}
	c.scored++
	c.bytes += int64(len(body))
	m, err := measurement.Parse(body, c.r.s.settings.Limits)
	if err != nil {
		c.r.problem("%s keeps its verdict: it cannot be parsed any more: %v", uid, err)
		return
	}
	defer m.Release()
	if reason, yes := m.Discard(); yes {
		c.r.problem("%s keeps its verdict: it would not be stored today: %s", uid, reason)
		return
	}
	at, _, _ := uid.Split()
	if t := c.r.trial; t != nil {
		c.tried = append(c.tried, t.score(c.r, m, uid, at))
		return
	}
	c.after = append(c.after, judged(m, uid, measurement.Score(m, at, c.r.set.compiled), c.r.set.version))
}

// judged is a verdict as a row has it, and what names the row.
func judged(m *measurement.Measurement, uid measurement.ID, v measurement.Verdict, set int) db.Measurement {
	return db.Measurement{
		UID: uid, Country: m.Country, TestName: m.TestName, Anomaly: v.Anomaly, Confirmed: v.Confirmed, Failure: v.Failure,
		BlockingType: v.BlockingType, Scores: v.Scores.JSON(), Outcome: v.Outcome, Evidence: v.Evidence, ScoringProblem: v.Reason,
		ScorerVersion: v.ScorerVersion, FingerprintVersion: set,
	}
}

// flush compares what was judged with its rows, and writes what differs.
func (c *chunk) flush(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := c.r
	byUID := make(map[measurement.ID]db.Measurement, len(c.after))
	uids := make([]measurement.ID, len(c.after))
	for i, m := range c.after {
		uids[i], byUID[m.UID] = m.UID, m
	}
	done := c.tried
	var err error
	switch {
	case r.trial != nil:
	case r.r.NoWrite || len(uids) == 0:
	case r.r.DryRun:
		var rows []db.StoredVerdict
		rows, err = r.s.db.StoredVerdicts(ctx, uids)
		for _, before := range rows {
			done = append(done, r.compare(before, byUID[before.UID]))
		}
	default:
		done, err = r.write(ctx, uids, byUID)
	}
	if err != nil {
		return err
	}
	r.tell(func(sum *Rescored) {
		sum.Scored += c.scored
		sum.BodyBytes += c.bytes
		if r.r.NoWrite && r.r.Changed != nil {
			for _, m := range c.after {
				r.r.Changed(db.Measurement{}, m)
			}
		}
		for _, d := range done {
			if d.kind > current {
				sum.Written++
			}
			if d.kind <= versionsDiffer {
				continue
			}
			sum.Changes[d.change]++
			if d.kind < scoresDiffer {
				continue
			}
			sum.Changed++
			if d.kind == verdictDiffers {
				sum.Announced++
			}
			if len(sum.Examples) < maxExamples {
				sum.Examples = append(sum.Examples, d.after.UID)
			}
			if r.r.Changed != nil {
				r.r.Changed(d.before, d.after)
			}
		}
	})
	*c = chunk{r: r, after: c.after[:0], tried: c.tried[:0]}
	if r.trial != nil {
		return r.trial.over()
	}
	return nil
}

// write replaces verdicts in one transaction. Rows are locked in the order of uids, then the rollup and the log
// as everywhere (docs/decisions/019).
func (r *rescorer) write(ctx context.Context, uids []measurement.ID, byUID map[measurement.ID]db.Measurement) (done []comparison, err error) {
	received := make([]time.Time, len(uids))
	for i, uid := range uids {
		received[i], _, _ = uid.Split()
	}
	if err := r.s.db.MakePartitionsFor(ctx, received...); err != nil {
		return nil, err
	}
	err = r.s.db.WriteOften(context.WithoutCancel(ctx), func(tx *db.Tx) error {
		rows, err := tx.LockVerdicts(ctx, uids)
		if err != nil {
			return err
		}
		done = make([]comparison, len(rows))
		var after []db.Measurement
		var keep []bool
		var same, told []measurement.ID
		for i, before := range rows {
			d := r.compare(before, byUID[before.UID])
			done[i] = d
			switch {
			case d.kind == current:
				continue
			case d.kind == versionsDiffer:
				same = append(same, before.UID)
				continue
			case d.kind == verdictDiffers:
				told = append(told, before.UID)
				tx.MoveRollup(d.before.Counted(-1), d.after.Counted(1))
			}
			after, keep = append(after, d.after), append(keep, d.kind >= scoresDiffer)
		}
		tx.SaveVersions(same, measurement.ScorerVersion, r.set.version)
		tx.ReplaceVerdicts(after, keep)
		if told == nil {
			return nil
		}
		whole, err := tx.MeasurementsByUID(ctx, told)
		for _, d := range done {
			if d.kind == verdictDiffers {
				tx.Append(rescored(tx.Now, d.before, withVerdict(whole[d.after.UID], d.after)))
			}
		}
		return err
	})
	return done, err
}

// A comparison is a measurement before and after, and how far both differ.
type comparison struct {
	before, after db.Measurement
	kind          difference
	change        Change // unless nothing but the versions differs
}

// A difference is what is done about it: more and more.
type difference int

const (
	current         difference = iota // nothing, or somebody newer was here
	versionsDiffer                    // the row is written
	evidenceDiffers                   // and the change is counted
	scoresDiffer                      // and the earlier verdict is kept
	verdictDiffers                    // and it is announced
)

// compare puts a verdict in the place of the row's.
func (r *rescorer) compare(stored db.StoredVerdict, judged db.Measurement) comparison {
	before := stored.Measurement
	after := withVerdict(before, judged)
	scorer, _ := strconv.Atoi(before.ScorerVersion)
	if scorer > r.q.Scorer || before.FingerprintVersion > after.FingerprintVersion {
		return comparison{before: before, after: before}
	}
	d := comparison{before: before, after: after, change: Change{
		Country: before.Country, TestName: before.TestName, Before: counts(before), After: counts(after), BeforeIs: before.Outcome, AfterIs: after.Outcome,
	}}
	switch {
	case before.Anomaly != after.Anomaly || before.Confirmed != after.Confirmed || before.Failure != after.Failure || before.Outcome != after.Outcome:
		d.kind = verdictDiffers
	case before.BlockingType != after.BlockingType:
		d.kind, d.change.Of = verdictDiffers, "blocking type"
	case !bytes.Equal(before.Scores, after.Scores):
		d.kind, d.change.Of = scoresDiffer, "scores"
	case before.ScoringProblem != after.ScoringProblem || !stored.SaysSo(after.Evidence):
		d.kind, d.change.Of = evidenceDiffers, "evidence"
	case before.ScorerVersion != after.ScorerVersion || before.FingerprintVersion != after.FingerprintVersion:
		d.kind = versionsDiffer
	}
	return d
}

// withVerdict puts the verdict of one measurement into another one.
func withVerdict(m, of db.Measurement) db.Measurement {
	m.Anomaly, m.Confirmed, m.Failure, m.BlockingType = of.Anomaly, of.Confirmed, of.Failure, of.BlockingType
	m.Scores, m.Outcome, m.Evidence, m.ScoringProblem = of.Scores, of.Outcome, of.Evidence, of.ScoringProblem
	m.ScorerVersion, m.FingerprintVersion = of.ScorerVersion, of.FingerprintVersion
	return m
}

// counts says as which of the four disjoint cases the rollup counts a measurement.
func counts(m db.Measurement) string {
	switch {
	case m.Failure:
		return db.OutcomeFailure
	case m.Confirmed:
		return db.OutcomeConfirmed
	case m.Anomaly:
		return db.OutcomeAnomaly
	}
	return db.OutcomeOK
}

func rescored(now time.Time, before, after db.Measurement) events.Event {
	e := scored(after)
	e.Kind, e.OccurredAt = events.MeasurementRescored, now
	e.Payload = events.Payload(events.Rescored{
		Scored: scoredPayload(after), Outcome: after.Outcome, BlockingType: after.BlockingType,
		Before: events.Verdict{
			Anomaly: before.Anomaly, Confirmed: before.Confirmed, Failure: before.Failure, Outcome: before.Outcome, BlockingType: before.BlockingType,
		},
	})
	return e
}
