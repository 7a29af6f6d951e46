package db

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"
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
	var at []time.Time
	var cc, ids []string
	for _, uid := range uids {
		if t, c, ok := uid.Split(); ok {
			at, cc, ids = append(at, t), append(cc, string(c)), append(ids, string(uid))
		}
	}
	rows, err := list(ctx, r, scanMeasurement, measurementSelect+
		" where (received_at, country, uid) in (select * from unnest($1::timestamptz[], $2::text[], $3::text[]))", at, cc, ids)
	out := make(map[measurement.ID]Measurement, len(rows))
	for _, m := range rows {
		out[m.UID] = m
	}
	return out, err
}

// InsertMeasurement stores a scored measurement.
func (t *Tx) InsertMeasurement(ctx context.Context, m Measurement) error {
	return t.exec(ctx, "insert into measurement (sort_at, "+measurementColumns+`)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
			$24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41, $42, $43)`,
		m.SortAt(), m.ReceivedAt, m.Country, m.UID, null(m.StartedAt), null(m.TestStartedAt), m.TestRuntime, int64(m.ASN),
		known(int64(m.ResolverASN)), m.ReportID, m.Input, m.Domain, m.TestName, m.TestVersion, m.Platform, m.Architecture,
		m.SoftwareName, m.SoftwareVersion, m.EngineName, m.EngineVersion, m.TestHelperAddress, m.TestHelperType,
		m.OONIRunLinkID, m.Verified, m.Anomaly, m.Confirmed, m.Failure, m.BlockingType, []byte(m.Scores), m.ScoringProblem,
		m.ScorerVersion, known(m.FingerprintVersion), m.Provenance, known(m.ProbeID), m.BodySize, m.BodySHA256[:],
		m.Stamp.ProbeFlapping, m.Stamp.ProbeSuspended, m.Stamp.ProbeWarmup, m.Stamp.EligibleForAnomalyScoring, m.Stamp.MaxTier,
		m.Outcome, evidenceJSON(m.Evidence))
}

// evidenceJSON is a list, though it be empty.
func evidenceJSON(all []measurement.Evidence) []byte {
	if len(all) == 0 {
		return []byte("[]")
	}
	b, _ := json.Marshal(all) // texts always encode
	return b
}

// known stores the zero value as NULL.
func known[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
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

// ClaimSubmission records that s.UID stands for the body and reports true, or returns the uid
// of the earlier submission that does. A claim by a transaction that is still under way is
// waited for, so claims must be made in the same order everywhere: by hash.
func (t *Tx) ClaimSubmission(ctx context.Context, s Submission) (uid measurement.ID, fresh bool, err error) {
	tag, err := t.q.Exec(ctx, `insert into submission (started_at, country, body_sha256, sender, uid)
		values ($1, $2, $3, $4, $5) on conflict do nothing`, s.StartedAt, s.Country, s.BodySHA256[:], s.Sender, s.UID)
	if err != nil || tag.RowsAffected() == 1 {
		return s.UID, true, translate(err)
	}
	uid, err = one(ctx, t.reader, pgx.RowTo[measurement.ID],
		"select uid from submission where started_at = $1 and country = $2 and body_sha256 = $3 and sender = $4",
		s.StartedAt, s.Country, s.BodySHA256[:], s.Sender)
	return uid, false, err
}

// A Discarded is a body that was kept aside.
type Discarded struct {
	UID        measurement.ID
	ReceivedAt time.Time
	Country    country.Code
	Reason     measurement.Discard
	Sender     string
}

// InsertDiscarded records a body that was kept aside.
func (t *Tx) InsertDiscarded(ctx context.Context, d Discarded) error {
	return t.exec(ctx, "insert into discarded_submission (received_at, country, uid, reason, sender) values ($1, $2, $3, $4, $5)",
		d.ReceivedAt, d.Country, d.UID, d.Reason, d.Sender)
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

// The encoder and the decoder are safe for concurrent use and hold their tables once.
var (
	encoder, _ = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithLowerEncoderMem(true))
	decoder, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(64<<20))
)

// Compress is how bodies are stored. It is separate from InsertBody so that it can be done
// before a transaction begins.
func Compress(body []byte) []byte { return encoder.EncodeAll(body, nil) }

// InsertBody stores a body that Compress has made small.
func (t *Tx) InsertBody(ctx context.Context, uid measurement.ID, receivedAt time.Time, cc country.Code, compressed []byte) error {
	return t.exec(ctx, "insert into body (received_at, country, uid, data) values ($1, $2, $3, $4)", receivedAt, cc, uid, compressed)
}

// Body returns a body byte for byte. NOT_FOUND when there is none.
func (r reader) Body(ctx context.Context, uid measurement.ID) ([]byte, error) {
	at, cc, ok := uid.Split()
	if !ok {
		return nil, fault.New(fault.NotFound, "There is no measurement with this uid.")
	}
	data, err := one(ctx, r, pgx.RowTo[[]byte],
		"select data from body where received_at = $1 and country = $2 and uid = $3", at, cc, uid)
	if err != nil {
		return nil, err
	}
	return decoder.DecodeAll(data, nil)
}
