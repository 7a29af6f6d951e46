package service

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/probe"
)

// A Submission is one body as a probe wrote it. ReceivedAt is zero for now, or the instant as
// of which an operator has an archived body judged and dated; then UID may be the one that it has in
// the archive. Observed is where the sender's address was seen; the zero Place is nowhere.
type Submission struct {
	Body       []byte
	ReceivedAt time.Time
	UID        measurement.ID
	Observed   probe.Place
}

// An Outcome is what became of a submission: a measurement, the first one of a duplicate, or
// a body kept aside with the rule that says so.
type Outcome struct {
	UID       measurement.ID
	Duplicate bool
	Discarded measurement.Discard // empty when it was scored

	// Stored is the measurement as this call stored it; nil when it was there already.
	Stored *db.Measurement `json:"-"`
}

// A submission is one body on its way through a shared transaction.
type submission struct {
	row        db.Measurement
	discard    measurement.Discard
	conduct    measurement.Conduct // of a probe's own, when it is scored
	faults     []measurement.Fault
	compressed []byte
	call       *call
	answer     Outcome
	err        error
	ready      chan struct{}
}

func (s *submission) done() chan struct{} { return s.ready }

// size is about what it and the request it came in hold.
func (s *submission) size() int { return s.row.BodySize + len(s.compressed) }

// Submit scores, stores and announces one body. What is acknowledged is durable. It fails
// with INVALID, naming the field; with UNAUTHENTICATED when the collector is closed; with
// FORBIDDEN when the probe is retired, or a date is given by others than staff; and with UNAVAILABLE
// when too much is waiting to be stored.
func (s *Service) Submit(ctx context.Context, p access.Principal, key string, sub Submission) (Outcome, error) {
	done := s.SubmitAll(ctx, p, []string{key}, []Submission{sub})
	return done[0].Outcome, done[0].Err
}

// Waiting is how many submissions wait for the database, and how many bytes they hold.
func (s *Service) Waiting() (items, bytes int) { return s.submissions.waiting() }

// A Submitted is what became of one of several bodies.
type Submitted struct {
	Outcome
	Err error
}

// SubmitAll is Submit for several bodies, each with its own key and outcome. They wait for the
// database together.
func (s *Service) SubmitAll(ctx context.Context, p access.Principal, keys []string, subs []Submission) []Submitted {
	out := make([]Submitted, len(subs))
	items := s.prepareAll(ctx, p, keys, subs, out)
	handed := make([]*submission, 0, len(items))
	for _, item := range items {
		if item != nil {
			handed = append(handed, item)
		}
	}
	err := s.submissions.do(ctx, handed...)
	for i, item := range items {
		if item != nil {
			out[i] = Submitted{Err: err}
			if err == nil {
				out[i] = s.submitted(ctx, item)
			}
		}
		s.meter.Submission(out[i].label())
	}
	return out
}

func (d Submitted) label() string {
	switch {
	case d.Err != nil:
		return outcomeOf(d.Err)
	case d.Duplicate:
		return "DUPLICATE"
	case d.Discarded != "":
		return "DISCARDED"
	}
	return "SCORED"
}

// prepareAll does all that comes before the transaction. What has its outcome already is in out,
// and nil among the items.
func (s *Service) prepareAll(ctx context.Context, p access.Principal, keys []string, subs []Submission, out []Submitted) []*submission {
	items := make([]*submission, len(subs))
	bytes := 0
	for i := range subs {
		bytes += len(subs[i].Body)
	}
	full := s.submissions.room(len(subs), bytes) // before any work is done for them
	prepare := func(i int) {
		if full != nil {
			out[i].Err = full
			return
		}
		items[i], out[i].Outcome, out[i].Err = s.prepare(ctx, p, keys[i], subs[i])
	}
	if len(subs) == 1 {
		prepare(0)
		return items
	}
	var all sync.WaitGroup
	var next atomic.Int32
	for range min(len(subs), runtime.GOMAXPROCS(0)) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(subs); i = int(next.Add(1)) - 1 {
				prepare(i)
			}
		})
	}
	all.Wait()
	return items
}

// prepare returns what is to be stored; or nil, and the answer that the key got before or what is
// wrong.
func (s *Service) prepare(ctx context.Context, p access.Principal, key string, sub Submission) (*submission, Outcome, error) {
	now := s.db.Now()
	if err := s.maySubmit(p, sub, now); err != nil {
		return nil, Outcome{}, err
	}
	sum := sha256.Sum256(sub.Body)
	c, err := newSubmitCall(p, key, sum, sub, now)
	if err != nil {
		return nil, Outcome{}, err
	}
	item, err := s.judge(p, sub, sum, now)
	if err != nil {
		var before Outcome
		if ok, e := c.recall(ctx, s.db, &before); ok || e != nil { // the key comes first
			return nil, before, e
		}
		return nil, Outcome{}, err
	}
	item.call = c
	if !sub.ReceivedAt.IsZero() {
		if err := s.db.MakePartitionsFor(ctx, item.row.ReceivedAt); err != nil {
			return nil, Outcome{}, err
		}
	}
	return item, Outcome{}, nil
}

func newSubmitCall(p access.Principal, key string, sum [32]byte, sub Submission, now time.Time) (*call, error) {
	if key == "" {
		return nil, nil
	}
	return newCall(p, "submitMeasurement", key, []string{hex.EncodeToString(sum[:]), sub.ReceivedAt.UTC().Format(time.RFC3339Nano)}, now)
}

// submitted is what became of a body whose transaction is over.
func (s *Service) submitted(ctx context.Context, item *submission) Submitted {
	if item.call != nil && fault.Is(item.err, fault.Conflict) {
		var before Outcome
		if ok, err := item.call.recall(ctx, s.db, &before); ok && err == nil {
			return Submitted{Outcome: before}
		}
	}
	if item.err != nil {
		return Submitted{Err: item.err}
	}
	return Submitted{Outcome: item.answer}
}

func (s *Service) maySubmit(p access.Principal, sub Submission, now time.Time) error {
	if p.Role == access.Public && !s.settings.OpenCollector {
		return fault.New(fault.Unauthenticated, "This collector takes measurements of registered probes only. Send the probe's secret.")
	}
	if sub.ReceivedAt.IsZero() {
		if sub.UID != "" {
			return fault.Field("input.uid", "Only an archived body has a uid of its own: say when it was received.")
		}
		return nil
	}
	if err := p.NeedStaff(); err != nil {
		return fault.Of(err).At("input.receivedAt")
	}
	if sub.ReceivedAt.After(now) || sub.ReceivedAt.Year() < 2000 {
		return fault.Field("input.receivedAt", "An archived body was received between the year 2000 and now.")
	}
	return nil
}

// judge does all that needs no database: parse, score and compress.
func (s *Service) judge(p access.Principal, sub Submission, sum [32]byte, now time.Time) (*submission, error) {
	began := time.Now()
	m, err := measurement.Parse(sub.Body, s.settings.Limits)
	if err != nil {
		f := fault.Of(err)
		if f.Field == "" {
			return nil, f.At("input.content")
		}
		return nil, f.At("input." + f.Field)
	}
	defer m.Release()
	receivedAt := now
	if !sub.ReceivedAt.IsZero() {
		receivedAt = sub.ReceivedAt.UTC().Truncate(time.Microsecond)
	}
	item := &submission{ready: make(chan struct{})}
	uid, err := sub.uid(m, receivedAt)
	if err != nil {
		return nil, err
	}
	if reason, yes := m.Discard(); yes {
		item.discard = reason
		item.row = db.Measurement{UID: uid, ReceivedAt: receivedAt, Country: m.Country, ASN: m.ASN}
	} else {
		set := s.fingerprints.Load()
		verdict := measurement.Score(m, receivedAt, set.compiled)
		item.row = row(m, uid, receivedAt, verdict, set.version)
		item.faults = m.Faults(sub.Observed.Country, sub.Observed.ASN, receivedAt)
		if p.Role == access.Probe {
			item.conduct = m.Conduct(verdict)
		}
	}
	item.row.StartedAt, item.row.BodySize, item.row.BodySHA256 = m.StartedAt, len(sub.Body), sum
	s.meter.Scored(time.Since(began))
	item.compressed = db.Compress(sub.Body)
	switch {
	case p.Role == access.Probe:
		item.row.ProbeID = p.ProbeID
	case !sub.ReceivedAt.IsZero():
		item.row.Provenance = db.FromArchive
	default:
		item.row.Provenance = db.FromAnyone
	}
	return item, nil
}

// uid is a new one, or the one in the archive: that of a body from whose lines the measurement was cut out has another hash.
func (sub Submission) uid(m *measurement.Measurement, receivedAt time.Time) (measurement.ID, error) {
	own := measurement.NewID(receivedAt, m.Country, m.TestName, sub.Body)
	if sub.UID == "" {
		return own, nil
	}
	upTo := strings.LastIndex(string(own), "_")
	if _, _, ok := sub.UID.Split(); !ok || !strings.HasPrefix(string(sub.UID), string(own[:upTo+1])) {
		return "", fault.Field("input.uid", "The uid %.200q is not of this body: it would begin with %q.", string(sub.UID), string(own[:upTo+1]))
	}
	return sub.UID, nil
}

func row(m *measurement.Measurement, uid measurement.ID, receivedAt time.Time, v measurement.Verdict, set int) db.Measurement {
	return db.Measurement{
		UID: uid, ReceivedAt: receivedAt, ReportID: m.ReportID, Input: m.Input, Domain: m.Domain,
		Country: m.Country, ASN: m.ASN, ResolverASN: m.ResolverASN, TestName: m.TestName, TestVersion: m.TestVersion,
		TestStartedAt: m.TestStartedAt, TestRuntime: m.TestRuntime, Platform: m.Platform, Architecture: m.Architecture,
		SoftwareName: m.SoftwareName, SoftwareVersion: m.SoftwareVersion, EngineName: m.EngineName, EngineVersion: m.EngineVersion,
		TestHelperAddress: m.TestHelperAddress, TestHelperType: m.TestHelperType, OONIRunLinkID: m.OONIRunLinkID,
		Verified: m.Verified, Anomaly: v.Anomaly, Confirmed: v.Confirmed, Failure: v.Failure, BlockingType: v.BlockingType,
		Scores: v.Scores.JSON(), Outcome: v.Outcome, Evidence: v.Evidence, ScoringProblem: v.Reason, ScorerVersion: v.ScorerVersion, FingerprintVersion: set,
		Stamp: probe.Stamp{MaxTier: probe.TierNone}, // a probe of ours gets its own
	}
}

// takeSubmissions gives each body its outcome. Claims are made in the order of hash and sender, so that
// two transactions never wait for each other in a circle. Where the shared transaction fails, each is
// tried alone, so that one cannot spoil the others; but not where the database is out of reach.
func (s *Service) takeSubmissions(ctx context.Context, batch []*submission) {
	slices.SortFunc(batch, func(a, b *submission) int {
		return cmp.Or(bytes.Compare(a.row.BodySHA256[:], b.row.BodySHA256[:]), cmp.Compare(a.row.ProbeID, b.row.ProbeID))
	})
	err := s.writeSubmissions(ctx, batch)
	for _, item := range batch {
		if err != nil {
			item.err = err
			if !fault.Is(err, fault.Unavailable) {
				item.err = s.takeAlone(ctx, item)
			}
		}
		close(item.ready)
	}
}

// takeAlone fails with what is wrong with this submission; nil says that it has its outcome.
func (s *Service) takeAlone(ctx context.Context, item *submission) error {
	err := s.writeSubmissions(ctx, []*submission{item})
	if fault.Is(err, fault.Conflict) { // two senders had the same body at the same microsecond: one was later
		item.row.ReceivedAt = item.row.ReceivedAt.Add(time.Microsecond)
		item.row.UID = item.row.UID.At(item.row.ReceivedAt)
		err = s.writeSubmissions(ctx, []*submission{item})
	}
	if err == nil {
		err = item.err
	}
	return err
}

func (s *Service) writeSubmissions(ctx context.Context, batch []*submission) error {
	return s.db.WriteOften(ctx, func(tx *db.Tx) error {
		c := collection{tx: tx, batch: batch}
		for _, item := range batch {
			item.err, item.answer = nil, Outcome{}
		}
		for _, step := range []func(context.Context) error{c.recall, c.identify, c.claim, c.store} {
			if err := step(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}

// A collection is one shared transaction of submissions, in order of hash and sender. Whoever has
// its outcome already leaves the batch.
type collection struct {
	tx    *db.Tx
	batch []*submission
	again map[*submission]*submission // those with the key of another one in the batch, and that one
}

// recall answers those whose key was answered before. Of several with one key the first is taken; the
// others get its answer.
func (c *collection) recall(ctx context.Context) error {
	var keys [][32]byte
	var since time.Time
	for _, item := range c.batch {
		if item.call != nil {
			keys, since = append(keys, item.call.lookup), item.call.since
		}
	}
	answers, err := c.tx.Answers(ctx, keys, since)
	if err != nil || keys == nil {
		return err
	}
	first := map[[32]byte]*submission{}
	c.again = map[*submission]*submission{}
	c.leave(func(item *submission) bool {
		if item.call == nil {
			return false
		}
		if a, ok := answers[item.call.lookup]; ok {
			item.err = item.call.open(a, &item.answer)
			return true
		}
		if f := first[item.call.lookup]; f != nil {
			c.again[item] = f
			return true
		}
		first[item.call.lookup] = item
		return false
	})
	return nil
}

// leave takes those out of the batch for which has reports true.
func (c *collection) leave(has func(*submission) bool) {
	stay := make([]*submission, 0, len(c.batch))
	for _, item := range c.batch {
		if !has(item) {
			stay = append(stay, item)
		}
	}
	c.batch = stay
}

// identify says of probes' own measurements how far they count.
func (c *collection) identify(ctx context.Context) error {
	probes, histories, err := senders(ctx, c.tx, c.batch)
	if err != nil {
		return err
	}
	c.leave(func(item *submission) bool {
		r := &item.row
		if r.ProbeID == "" {
			return false
		}
		p := probes[r.ProbeID]
		if item.err = provenance(r, p); item.err != nil {
			return true
		}
		r.Stamp = histories[r.ProbeID].Stamp(r.StartedAt, r.ReceivedAt)
		r.Peers, r.ProbeASN = p.Peers, p.ASN
		return false
	})
	return nil
}

// claim says who is a duplicate: of what was stored before, or of another one in the batch.
func (c *collection) claim(ctx context.Context) error {
	first := make(map[db.SubmissionKey]measurement.ID, len(c.batch))
	claims := make([]db.Submission, 0, len(c.batch))
	for _, item := range c.batch {
		r := &item.row
		s := db.Submission{StartedAt: started(*r), Country: r.Country, BodySHA256: r.BodySHA256, Sender: string(r.ProbeID), UID: r.UID}
		uid, copied := first[s.Key()]
		if !copied {
			uid = r.UID
			first[s.Key()] = uid
			claims = append(claims, s)
		}
		item.answer = Outcome{UID: uid, Duplicate: copied, Discarded: item.discard}
	}
	if len(claims) == 0 {
		return nil
	}
	earlier, err := c.tx.ClaimSubmissions(ctx, claims)
	for _, item := range c.batch {
		if uid, ok := earlier[db.SubmissionKey{BodySHA256: item.row.BodySHA256, Sender: string(item.row.ProbeID)}]; ok {
			item.answer.UID, item.answer.Duplicate = uid, true
		}
	}
	return err
}

// store writes what is new, and remembers all answers.
func (c *collection) store(ctx context.Context) error {
	var rows []db.Measurement
	var kept []db.Discarded
	var bodies []db.CompressedBody
	var conduct []db.Conduct
	var faulty []db.Faulty
	for _, item := range c.batch {
		if item.answer.Duplicate {
			continue
		}
		r := &item.row
		bodies = append(bodies, db.CompressedBody{UID: r.UID, ReceivedAt: r.ReceivedAt, Country: r.Country, Data: item.compressed})
		if item.discard != "" {
			kept = append(kept, db.Discarded{
				UID: r.UID, ReceivedAt: r.ReceivedAt, Country: r.Country, Reason: item.discard, Sender: string(r.ProbeID),
			})
			c.tx.Append(events.Event{
				OccurredAt: r.ReceivedAt, Kind: events.SubmissionDiscarded, Country: known(r.Country), ASN: r.ASN,
				Payload: events.Payload(events.Discarded{UID: r.UID, Reason: string(item.discard)}),
			})
			continue
		}
		rows = append(rows, *r)
		item.answer.Stored = r
		c.tx.Append(scored(*r))
		c.tx.MoveRollup(r.Counted(1))
		for _, f := range item.faults {
			faulty = append(faulty, db.Faulty{Fault: f, UID: r.UID, Country: r.Country, ASN: r.ASN, FoundAt: c.tx.Now})
		}
		if r.ProbeID != "" {
			conduct = append(conduct, db.Conduct{
				ProbeID: r.ProbeID, ReceivedAt: r.ReceivedAt, MeasuredAt: probe.MeasuredAt(r.StartedAt, r.ReceivedAt), Conduct: item.conduct,
			})
		}
	}
	if err := c.tx.InsertMeasurements(ctx, rows...); err != nil {
		return err
	}
	if err := c.tx.InsertDiscarded(ctx, kept...); err != nil {
		return err
	}
	if err := c.tx.InsertBodies(ctx, bodies...); err != nil {
		return err
	}
	c.tx.InsertConduct(conduct)
	c.tx.InsertFaulty(faulty...)
	return c.remember()
}

func (c *collection) remember() error {
	answers := map[[32]byte]db.Answer{}
	var since time.Time
	for _, item := range c.batch {
		if item.call == nil {
			continue
		}
		a, err := item.call.seal(item.answer)
		if err != nil {
			return err
		}
		answers[item.call.lookup], since = a, item.call.since
	}
	for item, first := range c.again {
		if item.err = first.err; item.err == nil {
			item.err = item.call.open(answers[item.call.lookup], &item.answer)
		}
	}
	c.tx.InsertAnswers(answers, since)
	return nil
}

// senders are the probes that measured, and what they were when they did.
func senders(ctx context.Context, tx *db.Tx, batch []*submission) (map[probe.ID]db.Sender, map[probe.ID]probe.History, error) {
	var ids []probe.ID
	oldest := tx.Now
	for _, item := range batch {
		r := item.row
		if r.ProbeID == "" {
			continue
		}
		if !slices.Contains(ids, r.ProbeID) {
			ids = append(ids, r.ProbeID)
		}
		if at := probe.MeasuredAt(r.StartedAt, r.ReceivedAt); at.Before(oldest) {
			oldest = at
		}
	}
	if len(ids) == 0 {
		return nil, nil, nil
	}
	probes, err := tx.Senders(ctx, ids)
	if err != nil {
		return nil, nil, err
	}
	histories, err := tx.Histories(ctx, ids, oldest)
	return probes, histories, err
}

// provenance says how far a probe's own measurement counts.
func provenance(row *db.Measurement, p db.Sender) error {
	switch p.Lifecycle {
	case probe.Inactive:
		return fault.New(fault.Forbidden, "This probe is retired. An operator can reinstate it.")
	case probe.Active:
		row.Provenance = db.FromProbe
	case probe.Pending, probe.Warmup, probe.Standby:
		row.Provenance = db.FromInactiveProbe
	}
	return nil
}

// FindVolumeFaults records who sent too much in one of the last minutes.
func (s *Service) FindVolumeFaults(ctx context.Context) error {
	const lookBack = 5 * time.Minute // a run may be missed, and a transaction be late
	return s.db.Write(ctx, func(tx *db.Tx) error {
		_, err := tx.InsertVolumeFaults(ctx, tx.Now.Add(-lookBack), tx.Now, measurement.VolumeLimit)
		return err
	})
}

func scored(r db.Measurement) events.Event {
	version, _ := strconv.Atoi(r.ScorerVersion)
	return events.Event{
		OccurredAt: r.ReceivedAt, Kind: events.MeasurementScored, Subject: "msm_" + string(r.UID), Country: r.Country, ASN: r.ASN,
		Payload: events.Payload(scoredPayload(r)), RuleID: "SCORER", RuleVersion: version,
	}
}

func scoredPayload(r db.Measurement) events.Scored {
	body := events.Scored{
		UID: r.UID, ReceivedAt: r.ReceivedAt, TestName: r.TestName, Input: r.Input, Domain: r.Domain, ReportID: r.ReportID,
		SoftwareVersion: r.SoftwareVersion, OONIRunLinkID: r.OONIRunLinkID, ProbeID: r.ProbeID,
		Anomaly: r.Anomaly, Confirmed: r.Confirmed, Failure: r.Failure,
		Flapping: r.Stamp.ProbeFlapping, Suspended: r.Stamp.ProbeSuspended, Warmup: r.Stamp.ProbeWarmup, MaxTier: r.Stamp.MaxTier,
	}
	if !r.StartedAt.IsZero() {
		body.StartedAt = &r.StartedAt
	}
	return body
}

// known leaves out the country that stands for none.
func known(c country.Code) country.Code {
	if c == country.Unknown {
		return ""
	}
	return c
}

// started is what a body says of its start, which is the same each time it is sent.
func started(r db.Measurement) time.Time {
	if r.StartedAt.IsZero() {
		return time.Unix(0, 0)
	}
	return r.StartedAt
}
