// Package measurement answers: what did a probe send, and does it show blocking? It reads one
// measurement body and scores it as the established network (OONI) does, so that verdicts
// of both can be compared row by row.
//
// Parse reads, Discard says what is not stored, Score judges, Release ends it. A body is scanned once, by
// our own JSON scanner: bodies are large, many and from strangers. Scorers are one file per
// test, registered in the table in score.go. Fingerprints of known block pages are values
// handed in; where they come from, and where verdicts go, is not known here.
//
// Rules only: no clock, no disk, no database. It imports fault, country and network; any
// package but those may import it.
package measurement

import (
	"time"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/network"
)

// A Measurement is one body as a probe sent it, with the derived columns that storage needs.
// It refers to the body given to Parse, which must not change while the Measurement is used.
// It is read-only after Parse and safe for concurrent use, until Release.
//
// Texts never contain U+0000, which PostgreSQL cannot store, and are at most
// Limits.MaxTextBytes long.
type Measurement struct {
	ReportID string
	// Input is the tested URL, or "" when HasInput is false. A meek test's list of inputs
	// is written "{a,b}".
	Input    string
	HasInput bool
	// Domain is the host of Input with its port, if it has one. A meek test's is its first input.
	Domain string

	// Country is in upper case. Any two letters are accepted: probes send what their
	// database said. country.Unknown when its look-up failed; see Discard.
	Country country.Code
	ASN     network.ASN
	// ResolverASN is network.Unknown when the body has none that is well formed.
	ResolverASN network.ASN

	TestName    string
	TestVersion string // "" when absent
	// TestStartedAt is when the run of the test began and StartedAt when this measurement
	// did, by the probe's clock, UTC, in whole seconds. Zero when the body has none.
	TestStartedAt time.Time
	StartedAt     time.Time
	// TestRuntime is in seconds, and nil when the body has none.
	TestRuntime *float64

	Platform        string // "unset" when absent
	Architecture    string // "" when absent
	SoftwareName    string // "unknown" when absent
	SoftwareVersion string // "unknown" when absent
	EngineName      string // "" when absent
	EngineVersion   string // "" when absent

	TestHelperAddress string
	TestHelperType    string
	// OONIRunLinkID is 0 or more; nil when the annotation is absent or not a whole number.
	OONIRunLinkID *int64
	Verified      Verified

	hasReportID bool
	content     value // the measurement object, whether it came in an envelope or not; absent once released
	testKeys    value // absent when missing or null
}

// Release gives back the memory that reading the body took, for the next one. Afterwards only the fields of m may
// be looked at. It need not be called; who scores many bodies is a tenth faster with it.
func (m *Measurement) Release() {
	if d := m.content.doc; d != nil {
		m.content, m.testKeys = value{}, value{}
		d.release()
	}
}

// Verified says whether the submission proved to come from a registered probe. The spelling is
// the peer's column is_verified.
type Verified string

// The values of Verified. Anything else in an envelope counts as VerifiedUnknown.
const (
	VerifiedUnknown Verified = "u"
	VerifiedTrue    Verified = "t"
	VerifiedFalse   Verified = "f"
)
