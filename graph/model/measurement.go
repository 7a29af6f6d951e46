package model

import (
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/probe"
)

// A Measurement is a scored measurement as the viewer may see it.
type Measurement struct {
	ID              string
	UID             string
	ReportID        string
	TestName        string
	TestVersion     string
	Input           string
	Domain          string
	Country         *Country
	Network         *Network
	ResolverNetwork *Network
	StartedAt       *time.Time
	ReceivedAt      time.Time
	Anomaly         bool
	Confirmed       bool
	Failure         bool
	Verdict         *Verdict
	ScoringProblem  *string
	ScorerVersion   string
	Software        *Software
	Platform        string
	Provenance      db.Provenance

	ProbeFlapping             bool
	ProbeSuspended            bool
	ProbeWarmup               bool
	EligibleForAnomalyScoring bool
	MaxTier                   probe.Tier

	BodySizeBytes int
	BodySha256    string
	BodyURL       string
	Permalink     string

	ProbeID   probe.ID               // empty when there is none, or it is not the viewer's to know
	LoadProbe func() (*Probe, error) // finds the probe of that id

	LoadFaults  func() ([]db.Faulty, error)
	LoadEarlier func() ([]db.Verdict, error)

	scores json.RawMessage // as stored; read when somebody asks
}

// IsNode marks an entity.
func (*Measurement) IsNode() {}

// NewMeasurement shows m to the viewer.
func NewMeasurement(v Viewer, m db.Measurement) *Measurement {
	uid := string(m.UID)
	out := &Measurement{
		ID: measurementPrefix + uid, UID: uid, ReportID: m.ReportID, TestName: m.TestName, TestVersion: m.TestVersion,
		Input: m.Input, Domain: m.Domain, Country: NewCountry(m.Country), Network: NewNetwork(m.ASN),
		ResolverNetwork: NewNetwork(m.ResolverASN), StartedAt: optional(m.StartedAt), ReceivedAt: m.ReceivedAt,
		Anomaly: m.Anomaly, Confirmed: m.Confirmed, Failure: m.Failure, ScoringProblem: text(m.ScoringProblem),
		ScorerVersion: m.ScorerVersion, Platform: m.Platform, Provenance: m.Provenance, BodySizeBytes: m.BodySize,
		Software: &Software{
			Name: m.SoftwareName, Version: m.SoftwareVersion, EngineName: m.EngineName, EngineVersion: m.EngineVersion,
		},
		ProbeFlapping: m.Stamp.ProbeFlapping, ProbeSuspended: m.Stamp.ProbeSuspended, ProbeWarmup: m.Stamp.ProbeWarmup,
		EligibleForAnomalyScoring: m.Stamp.EligibleForAnomalyScoring, MaxTier: m.Stamp.MaxTier,
		BodySha256: hex.EncodeToString(m.BodySHA256[:]),
		BodyURL:    "/api/v1/raw_measurement?measurement_uid=" + uid, Permalink: "/explorer/measurement/" + uid,
		scores: m.Scores,
	}
	out.Verdict = newVerdict(m)
	if m.ProbeID != "" && v.Networks.SeesProbeOf(v.Principal, m.ProbeID, m.Peers, m.ProbeASN, m.ASN) {
		out.ProbeID = m.ProbeID
	}
	return out
}

// A Verdict is what a measurement shows, and why.
type Verdict struct {
	Outcome  measurement.Outcome
	Evidence []*VerdictEvidence
	RuleIds  []string
}

func newVerdict(m db.Measurement) *Verdict {
	v := &Verdict{Outcome: m.Outcome, Evidence: []*VerdictEvidence{}, RuleIds: []string{}}
	for _, e := range m.Evidence {
		v.Evidence = append(v.Evidence, &VerdictEvidence{
			RuleID: e.RuleID, Explanation: e.Explanation, Matched: text(e.Matched), Fingerprint: text(e.Fingerprint),
		})
		if !slices.Contains(v.RuleIds, e.RuleID) {
			v.RuleIds = append(v.RuleIds, e.RuleID)
		}
	}
	return v
}

// A VerdictEvidence is one thing that was found.
type VerdictEvidence struct {
	RuleID      string
	Explanation string
	Matched     *string
	Fingerprint *string
}

// Scores are the scores behind the flags.
type Scores struct {
	BlockingGeneral float64
	BlockingGlobal  float64
	BlockingCountry float64
	BlockingIsp     float64
	BlockingLocal   float64
	Accuracy        *float64
	Analysis        json.RawMessage
	Extra           json.RawMessage
	Verbatim        json.RawMessage
}

// Scores are those behind the flags.
func (m *Measurement) Scores() *Scores { return newScores(m.scores) }

// Fingerprints are those that were found, in their order.
func (m *Measurement) Fingerprints() []*FingerprintMatch {
	var listed struct {
		Fingerprints []*FingerprintMatch `json:"fingerprints"`
	}
	_ = json.Unmarshal(m.scores, &listed)
	if listed.Fingerprints == nil {
		return []*FingerprintMatch{}
	}
	return listed.Fingerprints
}

// newScores reads a stored score object; what our own scorer wrote always reads.
func newScores(stored json.RawMessage) *Scores {
	var s measurement.Scores
	_ = json.Unmarshal(stored, &s)
	return &Scores{
		BlockingGeneral: s.BlockingGeneral, BlockingGlobal: s.BlockingGlobal, BlockingCountry: s.BlockingCountry,
		BlockingIsp: s.BlockingISP, BlockingLocal: s.BlockingLocal, Accuracy: s.Accuracy,
		Analysis: s.Analysis, Extra: s.Extra, Verbatim: stored,
	}
}

// A FingerprintMatch is a fingerprint that was found.
type FingerprintMatch struct {
	Name              string         `json:"name"`
	Scope             string         `json:"scope"`
	LocationFound     string         `json:"location_found"`
	ConfidenceNoFp    int            `json:"confidence_no_fp"`
	ExpectedCountries []country.Code `json:"expected_countries"`
}

// A MeasurementScored is the news of a scored measurement.
type MeasurementScored struct {
	Cursor      string
	Seq         int64
	OccurredAt  time.Time
	Measurement *Measurement
}
