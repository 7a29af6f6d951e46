package measurement

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/network"
)

// reportTime is the layout of a report id's time, UTC.
const reportTime = "20060102T150405Z"

// NewReportID makes the name under which a probe sends what one run of a test measured:
// YYYYMMDDTHHMMSSZ_testname_CC_asn_ncollector_16 characters of random. Test name, country and collector
// are spelled so that "_" separates six parts, whatever they are: a country that is not two letters
// becomes ZZ.
//
// Source: design/ooni-api.md, section 1.3.
func NewReportID(at time.Time, testName string, c country.Code, a network.ASN, collector string, random [12]byte) string {
	c, ok := upperCountry(string(c))
	if !ok {
		c = country.Unknown
	}
	// The peer has "o" for both signs of base64 that are no letters: a report id is letters and digits.
	tail := strings.NewReplacer("+", "o", "/", "o").Replace(base64.StdEncoding.EncodeToString(random[:]))
	return at.UTC().Format(reportTime) + "_" + strings.Map(idLetter, testName) + "_" + string(c) + "_" +
		strconv.FormatUint(uint64(a), 10) + "_n" + strings.Map(idLetter, collector) + "_" + tail
}

// A Report is what a report id says of the measurements that are sent under it. Country is
// country.Unknown and ASN network.Unknown for probes that do not know where they are.
type Report struct {
	ID       string
	TestName string // without "_"
	Country  country.Code
	ASN      network.ASN
}

// maxReportID is the longest id that is read.
//
// Source: design/ooni-api.md, section 1.1.
const maxReportID = 100

// ParseReportID reads what NewReportID makes, here or elsewhere: its time and its last two parts may be
// anything, for old probes bring ids of other collectors. It fails with INVALID.
//
// Source: design/ooni-api.md, section 1.3.
func ParseReportID(s string) (Report, error) {
	part := strings.Split(s, "_")
	if len(s) > maxReportID || len(part) != 6 || strings.ContainsFunc(s, func(r rune) bool { return r != '_' && idLetter(r) < 0 }) {
		return Report{}, fault.Field("report_id", "A report id has six parts of letters and digits, with _ between them.")
	}
	r := Report{ID: s, TestName: part[1]}
	if !reportTest(r.TestName) {
		return Report{}, fault.Field("report_id", "The second part of a report id is a test's name of 2 to 29 characters.")
	}
	var ok bool
	if r.Country, ok = upperCountry(part[2]); !ok {
		return Report{}, fault.Field("report_id", "The third part of a report id is a country of two letters.")
	}
	var err error
	if r.ASN, err = network.Parse(part[3]); err != nil {
		return Report{}, fault.Field("report_id", "The fourth part of a report id is the number of a network.")
	}
	return r, nil
}

// reportTest reports whether a test can be named like that in a report id.
func reportTest(name string) bool { return len(name) >= 2 && len(name) <= 29 }

// maxTestName is the longest name of a test that the established network takes, in bytes.
const maxTestName = 30

// CheckReportTest fails with INVALID when no report can be opened for a test of this name.
func CheckReportTest(name string) error {
	if !reportTest(strings.Map(idLetter, name)) || len(name) > maxTestName {
		return fault.Field("test_name", "The name of a test has 2 to 29 letters and digits, and _.")
	}
	return nil
}

// Check fails with INVALID, naming the field, when an entry is not of this report: another place,
// another test or another id.
func (r Report) Check(e *Entry) error {
	const inconsistent = "Inconsistent measurement: "
	if c, ok := upperCountry(e.country); !ok || c != r.Country {
		return fault.Field("content.probe_cc", inconsistent+"the report is of another country.")
	}
	if n, err := network.Parse(e.asn); err != nil || n != r.ASN {
		return fault.Field("content.probe_asn", inconsistent+"the report is of another network.")
	}
	if strings.ReplaceAll(e.testName, "_", "") != r.TestName {
		return fault.Field("content.test_name", inconsistent+"the report is of another test.")
	}
	if e.hasReportID && e.reportID != r.ID {
		return fault.Field("content.report_id", inconsistent+"it names another report.")
	}
	return nil
}
