package db

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/network"
	"github.com/openvantage/vantage/probe"
)

// A Provenance says from whom a measurement came, as the API spells it.
type Provenance string

// The provenances. Only those of FromProbe count as our own probes'.
const (
	FromProbe         Provenance = "PROBE"
	FromInactiveProbe Provenance = "INACTIVE_PROBE"
	FromAnyone        Provenance = "ANONYMOUS"
	FromArchive       Provenance = "ARCHIVE"
)

// A Measurement is a scored measurement as it is stored. ProbeID is empty when no registered
// probe sent it; then Peers is 0 and ProbeASN is 0. FingerprintVersion is 0 when none were
// loaded.
type Measurement struct {
	UID                measurement.ID
	ReceivedAt         time.Time
	ReportID           string
	Input              string
	Domain             string
	Country            country.Code
	ASN                network.ASN
	ResolverASN        network.ASN
	TestName           string
	TestVersion        string
	TestStartedAt      time.Time
	StartedAt          time.Time
	TestRuntime        *float64
	Platform           string
	Architecture       string
	SoftwareName       string
	SoftwareVersion    string
	EngineName         string
	EngineVersion      string
	TestHelperAddress  string
	TestHelperType     string
	OONIRunLinkID      *int64
	Verified           measurement.Verified
	Anomaly            bool
	Confirmed          bool
	Failure            bool
	BlockingType       string
	Scores             json.RawMessage
	ScoringProblem     string
	ScorerVersion      string
	FingerprintVersion int
	Provenance         Provenance
	ProbeID            probe.ID
	Stamp              probe.Stamp // its Reason is not stored
	BodySize           int
	BodySHA256         [32]byte
	Outcome            measurement.Outcome
	Evidence           []measurement.Evidence

	// Of the probe as it is now, for the privacy rule.
	Peers    int
	ProbeASN network.ASN
}

// SortAt is what lists are sorted by: the start, or the receipt where no start can be read.
func (m Measurement) SortAt() time.Time {
	if m.StartedAt.IsZero() {
		return m.ReceivedAt
	}
	return m.StartedAt
}

const measurementColumns = `received_at, country, uid, started_at, test_started_at, test_runtime, asn, resolver_asn, report_id,
	input, domain, test_name, test_version, platform, architecture, software_name, software_version, engine_name,
	engine_version, test_helper_address, test_helper_type, ooni_run_link_id, verified, anomaly, confirmed, failure,
	blocking_type, scores, scoring_problem, scorer_version, fingerprint_version, provenance, probe_id, body_size, body_sha256,
	probe_flapping, probe_suspended, probe_warmup, eligible_for_anomaly_scoring, max_tier, outcome, evidence`

// visibleColumns are read beside the row, for the privacy rule.
const visibleColumns = `coalesce((select ` + peers + ` from probe p where p.id = m.probe_id), 0),
	coalesce((select p.asn from probe p where p.id = m.probe_id), 0)`

const measurementSelect = "select " + measurementColumns + ", " + visibleColumns + " from measurement m"

func scanMeasurement(row pgx.CollectableRow) (m Measurement, err error) {
	var started, testStarted *time.Time
	var asn, probeASN int64
	var resolver *int64
	var fingerprints *int
	var probeID *string
	var sum []byte
	err = row.Scan(&m.ReceivedAt, &m.Country, &m.UID, &started, &testStarted, &m.TestRuntime, &asn, &resolver, &m.ReportID,
		&m.Input, &m.Domain, &m.TestName, &m.TestVersion, &m.Platform, &m.Architecture, &m.SoftwareName, &m.SoftwareVersion,
		&m.EngineName, &m.EngineVersion, &m.TestHelperAddress, &m.TestHelperType, &m.OONIRunLinkID, &m.Verified, &m.Anomaly,
		&m.Confirmed, &m.Failure, &m.BlockingType, &m.Scores, &m.ScoringProblem, &m.ScorerVersion, &fingerprints,
		&m.Provenance, &probeID, &m.BodySize, &sum, &m.Stamp.ProbeFlapping, &m.Stamp.ProbeSuspended, &m.Stamp.ProbeWarmup,
		&m.Stamp.EligibleForAnomalyScoring, &m.Stamp.MaxTier, &m.Outcome, &m.Evidence, &m.Peers, &probeASN)
	m.ReceivedAt, m.StartedAt, m.TestStartedAt = m.ReceivedAt.UTC(), zero(started), zero(testStarted)
	m.ASN, m.ProbeASN = network.ASN(asn), network.ASN(probeASN)
	if resolver != nil {
		m.ResolverASN = network.ASN(*resolver)
	}
	if fingerprints != nil {
		m.FingerprintVersion = *fingerprints
	}
	if probeID != nil {
		m.ProbeID = probe.ID(*probeID)
	}
	copy(m.BodySHA256[:], sum)
	if len(m.Evidence) == 0 {
		m.Evidence = nil
	}
	return m, err
}

// A MeasurementQuery says which measurements; every nil condition holds.
type MeasurementQuery struct {
	Since, Until, ReceivedSince *time.Time
	Countries                   []string
	ASNs                        []int64
	TestNames                   []string
	Domains                     []string
	Inputs                      []string
	Categories                  []string // of the input in the test lists in use
	Anomaly, Confirmed, Failure *bool
	Outcomes                    []string
	Verdicts                    []string // measurement.Outcome
	ReportID                    *string
	ProbeID                     *string
	SoftwareVersions            []string
	TestVersions                []string
	EngineVersions              []string
	OONIRunLinkID               *int64
	Flapping, Suspended, Warmup *bool // of the probe, when it measured
	Eligible                    *bool
	MaxTiers                    []string
	Visible                     Visibility
}

// Outcomes of measurements: disjoint, and together all. The names are the API's.
const (
	OutcomeConfirmed = "CONFIRMED"
	OutcomeAnomaly   = "ANOMALY"
	OutcomeFailure   = "FAILURE"
	OutcomeOK        = "OK"
)

// outcome is the same four cases in SQL. A confirmed failure counts as a failure.
const outcome = `case when failure then 'FAILURE' when confirmed then 'CONFIRMED' when anomaly then 'ANOMALY' else 'OK' end`

func (q MeasurementQuery) where() *where {
	w := &where{}
	w.since("sort_at", q.Since)
	w.until("sort_at", q.Until)
	w.since("received_at", q.ReceivedSince)
	w.in("country", q.Countries)
	w.inNumbers("asn", q.ASNs)
	w.in("test_name", q.TestNames)
	w.in("domain", q.Domains)
	w.in("input", q.Inputs)
	w.in("domain", domainsOf(q.Inputs))
	w.categories(q.Categories)
	w.is("anomaly", q.Anomaly)
	w.is("confirmed", q.Confirmed)
	w.is("failure", q.Failure)
	w.in(outcome, q.Outcomes)
	w.in("outcome", q.Verdicts)
	if q.ReportID != nil {
		w.add("report_id = $", *q.ReportID)
	}
	w.in("software_version", q.SoftwareVersions)
	w.in("test_version", q.TestVersions)
	w.in("engine_version", q.EngineVersions)
	if q.OONIRunLinkID != nil {
		w.add("ooni_run_link_id = $", *q.OONIRunLinkID)
	}
	w.is("probe_flapping", q.Flapping)
	w.is("probe_suspended", q.Suspended)
	w.is("probe_warmup", q.Warmup)
	w.is("eligible_for_anomaly_scoring", q.Eligible)
	w.in("max_tier", q.MaxTiers)
	if q.ProbeID != nil {
		w.add("probe_id = $", *q.ProbeID)
		q.Visible.probeOf(w)
	}
	return w
}

// probeOf adds the condition that the principal may learn which probe made measurement m.
func (v Visibility) probeOf(w *where) {
	inner := &where{args: w.args}
	v.network(inner)
	w.args = inner.args
	if len(inner.conds) > 0 {
		w.args = append(w.args, string(v.Principal.ProbeID))
		w.conds = append(w.conds, "exists (select 1 from probe p where p.id = m.probe_id and "+inner.conds[0]+
			" and (p.asn = m.asn or p.id = "+dollar(len(w.args))+"))")
	}
}

// A MeasurementOrder is what measurements are sorted by.
type MeasurementOrder int

// The orders. Page keys are the value, an instant in RFC 3339, and the uid. The first two have an index; by the others
// all that match are sorted for each page.
const (
	ByStartedAt MeasurementOrder = iota
	ByReceivedAt
	ByInput
	ByProbeCountry
	ByProbeASN
	ByTestName
)

var measurementOrders = map[MeasurementOrder]order{
	ByStartedAt:    {column: "sort_at", cast: "timestamptz", tie: "uid"},
	ByReceivedAt:   {column: "received_at", cast: "timestamptz", tie: "uid"},
	ByInput:        {column: "input", cast: "text", tie: "uid"},
	ByProbeCountry: {column: "country", cast: "text", tie: "uid"},
	ByProbeASN:     {column: "asn", cast: "bigint", tie: "uid"},
	ByTestName:     {column: "test_name", cast: "text", tie: "uid"},
}

// Measurements returns a page of measurements.
func (r reader) Measurements(ctx context.Context, q MeasurementQuery, by MeasurementOrder, desc bool, p Page) ([]Measurement, error) {
	o := measurementOrders[by]
	o.desc = desc
	w := q.where()
	sql := measurementSelect + w.page(p, o)
	rows, err := list(ctx, r, scanMeasurement, sql, w.args...)
	return inOrder(rows, p), err
}

// Measurement returns one measurement. NOT_FOUND when there is none.
func (r reader) Measurement(ctx context.Context, uid measurement.ID) (Measurement, error) {
	at, cc, ok := uid.Split()
	if !ok {
		return Measurement{}, fault.New(fault.NotFound, "There is no measurement with this uid.")
	}
	return one(ctx, r, scanMeasurement, measurementSelect+" where received_at = $1 and country = $2 and uid = $3", at, cc, uid)
}

// MeasurementsByUID returns those of the measurements that exist.
func (r reader) MeasurementsByUID(ctx context.Context, uids []measurement.ID) (map[measurement.ID]Measurement, error) {
	at, cc, ids := splitAll(uids)
	rows, err := list(ctx, r, scanMeasurement, measurementSelect+
		" where (received_at, country, uid) in (select * from unnest($1::timestamptz[], $2::text[], $3::text[]))", at, cc, ids)
	out := make(map[measurement.ID]Measurement, len(rows))
	for _, m := range rows {
		out[m.UID] = m
	}
	return out, err
}

// InsertMeasurements stores scored measurements. CONFLICT when one has the uid of another.
func (t *Tx) InsertMeasurements(ctx context.Context, all ...Measurement) error {
	if len(all) == 0 {
		return nil
	}
	return copyIn(ctx, t, "measurement", "sort_at, "+measurementColumns, all, func(m *Measurement) []any {
		return []any{
			m.SortAt(), m.ReceivedAt, string(m.Country), string(m.UID), null(m.StartedAt), null(m.TestStartedAt), m.TestRuntime,
			int64(m.ASN), known(int64(m.ResolverASN)), m.ReportID, m.Input, m.Domain, m.TestName, m.TestVersion, m.Platform, m.Architecture,
			m.SoftwareName, m.SoftwareVersion, m.EngineName, m.EngineVersion, m.TestHelperAddress, m.TestHelperType, m.OONIRunLinkID,
			string(m.Verified), m.Anomaly, m.Confirmed, m.Failure, m.BlockingType, m.Scores, m.ScoringProblem, m.ScorerVersion,
			known(int32(m.FingerprintVersion)), string(m.Provenance), known(string(m.ProbeID)), int32(m.BodySize), m.BodySHA256[:],
			m.Stamp.ProbeFlapping, m.Stamp.ProbeSuspended, m.Stamp.ProbeWarmup, m.Stamp.EligibleForAnomalyScoring, string(m.Stamp.MaxTier),
			string(m.Outcome), evidenceJSON(m.Evidence),
		}
	})
}

// known stores what is zero as NULL. Of times null knows more zeros.
func known[T comparable](v T) *T {
	if v == *new(T) {
		return nil
	}
	return &v
}

// evidenceJSON is a list, though it be empty.
func evidenceJSON(all []measurement.Evidence) []byte {
	if len(all) == 0 {
		return []byte("[]")
	}
	b, _ := json.Marshal(all) // texts always encode
	return b
}

// A Submission is what makes the same body from the same sender one measurement. Sender is a
// probe's id, or empty for everybody else.
type Submission struct {
	StartedAt  time.Time
	Country    country.Code
	BodySHA256 [32]byte
	Sender     string
	UID        measurement.ID
}

// A SubmissionKey is what submissions of the same body by the same sender have in common.
type SubmissionKey struct {
	BodySHA256 [32]byte
	Sender     string
}

// Key is what the submission is told apart by: its start and country are in its body.
func (s Submission) Key() SubmissionKey { return SubmissionKey{s.BodySHA256, s.Sender} }

// ClaimSubmissions records that each UID stands for its body. It returns the uids of the earlier
// submissions of those that were claimed before; the others are new. No two may have one key. A
// claim by a transaction that is still under way is waited for, so claims must be made in the same
// order everywhere: by hash, then by sender. It fails with CONFLICT when retention takes a claim
// away at this moment.
func (t *Tx) ClaimSubmissions(ctx context.Context, all []Submission) (earlier map[SubmissionKey]measurement.ID, err error) {
	n := len(all)
	started, cc, sums := make([]time.Time, n), make([]string, n), make([][]byte, n)
	senders, uids := make([]string, n), make([]string, n)
	for i, s := range all {
		started[i], cc[i], sums[i], senders[i], uids[i] = s.StartedAt, string(s.Country), s.BodySHA256[:], s.Sender, string(s.UID)
	}
	fresh, err := list(ctx, t.reader, scanKey, `insert into submission (started_at, country, body_sha256, sender, uid)
		select * from unnest($1::timestamptz[], $2::text[], $3::bytea[], $4::text[], $5::text[])
		on conflict do nothing returning body_sha256, sender, uid`, started, cc, sums, senders, uids)
	if err != nil || len(fresh) == n {
		return nil, err
	}
	known, err := list(ctx, t.reader, scanKey, `select s.body_sha256, s.sender, s.uid
		from unnest($1::timestamptz[], $2::text[], $3::bytea[], $4::text[]) k (started_at, country, body_sha256, sender)
		join submission s using (started_at, country, body_sha256, sender)`, started, cc, sums, senders)
	if err != nil {
		return nil, err
	}
	if len(known) < n {
		return nil, fault.New(fault.Conflict, "Someone changed this at the same time. Try again.").After(time.Second)
	}
	earlier = make(map[SubmissionKey]measurement.ID, n-len(fresh))
	for _, s := range known {
		earlier[s.Key()] = s.UID
	}
	for _, s := range fresh {
		delete(earlier, s.Key())
	}
	return earlier, nil
}

func scanKey(row pgx.CollectableRow) (s Submission, err error) {
	var sum []byte
	err = row.Scan(&sum, &s.Sender, &s.UID)
	copy(s.BodySHA256[:], sum)
	return s, err
}

// A Discarded is a body that was kept aside.
type Discarded struct {
	UID        measurement.ID
	ReceivedAt time.Time
	Country    country.Code
	Reason     measurement.Discard
	Sender     string
}

// InsertDiscarded records bodies that were kept aside.
func (t *Tx) InsertDiscarded(ctx context.Context, all ...Discarded) error {
	if len(all) == 0 {
		return nil
	}
	return copyIn(ctx, t, "discarded_submission", "received_at, country, uid, reason, sender", all, func(d *Discarded) []any {
		return []any{d.ReceivedAt, string(d.Country), string(d.UID), string(d.Reason), d.Sender}
	})
}

// Discarded returns the record of a body that was kept aside. NOT_FOUND when there is none.
func (r reader) Discarded(ctx context.Context, uid measurement.ID) (Discarded, error) {
	at, cc, ok := uid.Split()
	if !ok {
		return Discarded{}, fault.New(fault.NotFound, "There is no submission with this uid.")
	}
	return one(ctx, r, func(row pgx.CollectableRow) (d Discarded, err error) {
		err = row.Scan(&d.UID, &d.ReceivedAt, &d.Country, &d.Reason, &d.Sender)
		d.ReceivedAt = d.ReceivedAt.UTC()
		return d, err
	}, `select uid, received_at, country, reason, sender from discarded_submission
		where received_at = $1 and country = $2 and uid = $3`, at, cc, uid)
}

// A stored body begins with the byte that says how it was made small. S2 takes a quarter of the time
// of zstd, which was a tenth of what a submission costs, and a third more bytes, which stay for an
// hour or two. Those of zstd are from earlier versions of this program: their first byte is its own.
const (
	inS2   = 0x00
	inZstd = 0x28
)

// largestBody is beyond what any setting lets in.
const largestBody = 64 << 20

// legacy is safe for concurrent use, and holds its tables once.
var legacy, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(largestBody))

// Compress is how bodies are stored. It is separate from InsertBodies so that it can be done
// before a transaction begins.
func Compress(body []byte) []byte {
	room := compressed.Get().(*[]byte)
	small := s2.Encode((*room)[:cap(*room)], body)
	out := append(append(make([]byte, 0, len(small)+1), inS2), small...)
	if cap(small) <= largestRoom {
		*room = small[:0]
		compressed.Put(room)
	}
	return out
}

// compressed is room for what is copied when its size is known. A large one is not kept.
var compressed = sync.Pool{New: func() any { return new([]byte) }}

const largestRoom = 1 << 20

// expand is the body that Compress was given.
func expand(stored []byte) (body []byte, err error) {
	if len(stored) == 0 {
		return nil, errUnreadable
	}
	switch stored[0] {
	case inS2:
		if n, e := s2.DecodedLen(stored[1:]); e != nil || n > largestBody {
			return nil, errUnreadable
		}
		body, err = s2.Decode([]byte{}, stored[1:])
	case inZstd:
		body, err = legacy.DecodeAll(stored, []byte{})
	default:
		err = errUnreadable
	}
	return body, err
}

var errUnreadable = errors.New("a stored body has a form that is not known")

// A CompressedBody is a body that Compress has made small, on its way into the spool.
type CompressedBody struct {
	UID        measurement.ID
	ReceivedAt time.Time
	Country    country.Code
	Data       []byte
}

// InsertBodies stores bodies.
func (t *Tx) InsertBodies(ctx context.Context, all ...CompressedBody) error {
	if len(all) == 0 {
		return nil
	}
	return copyIn(ctx, t, "body", "received_at, country, uid, data", all, func(c *CompressedBody) []any {
		return []any{c.ReceivedAt, string(c.Country), string(c.UID), c.Data}
	})
}
