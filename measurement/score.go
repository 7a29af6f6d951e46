package measurement

import (
	"time"
)

// ScorerVersion names the rules of Score. It changes whenever any body could score
// differently, so that stored verdicts can be told from present ones and rescored.
//
// 2 scores every test of the established network, and says an Outcome with its Evidence.
const ScorerVersion = "2"

// A Verdict is what Score makes of a measurement. Anomaly, Confirmed and Failure are independent:
// all may be true at once.
type Verdict struct {
	Anomaly   bool // something differs from an open network
	Confirmed bool // a known block page or address was seen
	Failure   bool // the measurement cannot be trusted

	Scores Scores
	// BlockingType is how a website was blocked ("dns", "tcp_ip", "http-diff",
	// "http-failure"), or "".
	BlockingType string
	// Matches are the fingerprints seen, in the peer's order, duplicates kept, at
	// most maxMatches. They belong to the Fingerprints: read only.
	Matches []*Fingerprint
	// ScorerVersion is the constant of that name at the time of scoring.
	ScorerVersion string
	// Outcome is what it shows, in a word, and Evidence why: at least one.
	Outcome  Outcome
	Evidence []Evidence
	// Reason is "" unless the body does not fit the rule of its test. Then it is a sentence naming the
	// field, and the measurement counts as failed. The peer loses such rows.
	Reason string

	judged bool // the scorer judges this test
}

// A scorer fills in the sheet of one kind of test. An error means that the body does not
// have the form that the test's rule reads; its text is for Verdict.Reason.
type scorer func(m *Measurement, fp *Fingerprints, s *sheet) error

// scorers has one row per test that is scored; every other test fails.
var scorers = map[string]scorer{
	"browser_web":                    scoreBrowserWeb,
	"dash":                           scoreDash,
	"dns_consistency":                scoreDNSConsistency,
	"facebook_messenger":             scoreFacebookMessenger,
	"http_header_field_manipulation": scoreHTTPHeaderFieldManipulation,
	"http_invalid_request_line":      scoreHTTPInvalidRequestLine,
	"http_requests":                  scoreHTTPRequests,
	"meek_fronted_requests_test":     scoreMeekFrontedRequestsTest,
	"ndt":                            scoreNDT,
	"openvpn":                        scoreOpenVPN,
	"psiphon":                        scorePsiphon,
	"riseupvpn":                      scoreRiseupVPN,
	"signal":                         scoreSignal,
	"stunreachability":               scoreSTUNReachability,
	"tcp_connect":                    scoreTCPConnect,
	"telegram":                       scoreTelegram,
	"tor":                            scoreTor,
	"torsf":                          scoreTorsf,
	"vanilla_tor":                    scoreVanillaTor,
	"web_connectivity":               scoreWebConnectivity,
	"whatsapp":                       scoreWhatsapp,
}

// Thresholds of the flags, and the window in which a probe's clock is believed.
//
// Source: design/measurements.md, section 2.0.
const (
	anomalyAbove  = 0.5
	failureBelow  = 0.5
	clockMayLead  = time.Hour
	startedWithin = 365 * 24 * time.Hour
)

// Score judges a measurement received at receivedAt. It never fails: a body that does not fit its test's rule gets
// a failed verdict with a Reason. It panics only for a measurement that was released. A nil fp means that no
// fingerprints are loaded. It may be called at the same time for the same m and fp.
//
// Score does not ask Discard; callers do, first.
func Score(m *Measurement, receivedAt time.Time, fp *Fingerprints) Verdict {
	if !m.content.exists() {
		panic("measurement: Score after Release")
	}
	score, scored := scorers[m.TestName]
	s, err := fill(score, m, fp)
	checkClock(m, receivedAt, s)
	failure := s.Accuracy != nil && *s.Accuracy < failureBelow
	s.settle(m, failure, scored, err)
	v := Verdict{
		Anomaly:       s.BlockingGeneral > anomalyAbove,
		Confirmed:     s.Confirmed,
		Failure:       failure,
		BlockingType:  s.blockingType,
		Matches:       s.fingerprints,
		Outcome:       s.outcome,
		Evidence:      s.evidence,
		ScorerVersion: ScorerVersion,
		Scores:        s.scores(),
		judged:        scored && !s.unjudged,
	}
	if err != nil {
		v.Reason = "The " + err.Error() + "."
	}
	return v
}

// fill runs the scorer of m's test, which may have none, on a fresh sheet. Where the scorer gives up, what it
// had written so far is dropped: nothing in a row that the peer would not have is worth comparing.
func fill(score scorer, m *Measurement, fp *Fingerprints) (*sheet, error) {
	if score == nil {
		return failedSheet(), nil
	}
	s := &sheet{}
	if err := score(m, fp, s); err != nil {
		return failedSheet(), err
	}
	return s, nil
}

func failedSheet() *sheet {
	s := &sheet{}
	s.inaccurate()
	return s
}

// checkClock distrusts measurements that say they began after they arrived, or long before.
func checkClock(m *Measurement, receivedAt time.Time, s *sheet) {
	if m.StartedAt.IsZero() {
		return
	}
	switch age := receivedAt.Sub(m.StartedAt); {
	case age < -clockMayLead:
		s.clock = true
		s.inaccurate()
		s.say("Measurement start time from the future")
	case age > startedWithin:
		s.clock = true
		s.inaccurate()
		s.say("Measurement start time too old")
	}
}
