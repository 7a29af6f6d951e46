package measurement

import (
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/network"
)

// A Discard is why a well-formed measurement is not stored.
//
// Source: design/measurements.md, section 2.0, rule 2.
type Discard string

// The reasons, in the order in which they are looked for.
const (
	ReportIDMissing Discard = "REPORT_ID_MISSING"
	CountryUnknown  Discard = "COUNTRY_UNKNOWN"
	NetworkUnknown  Discard = "NETWORK_UNKNOWN"
)

// String is the reason as a sentence for the probe's operator.
func (d Discard) String() string {
	switch d {
	case ReportIDMissing:
		return "The measurement has no report_id."
	case CountryUnknown:
		return "The probe does not know its country (ZZ)."
	case NetworkUnknown:
		return "The probe does not know its network (AS0)."
	}
	return string(d)
}

// Discard reports whether the measurement must not be stored, and why: nobody could say
// later where it was taken, or find it.
func (m *Measurement) Discard() (Discard, bool) {
	switch {
	case !m.hasReportID:
		return ReportIDMissing, true
	case m.Country == country.Unknown:
		return CountryUnknown, true
	case m.ASN == network.Unknown:
		return NetworkUnknown, true
	}
	return "", false
}
