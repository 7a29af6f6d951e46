package measurement

import (
	"errors"
	"strings"
)

// scoreWebConnectivity tells whether a website is blocked. The probe's own conclusion counts,
// and known block pages confirm it.
//
// title_match and body_proportion are deliberately not scored: pages differ for many reasons.
//
// Source: design/measurements.md, section 2.1; the steps are numbered as there.
func scoreWebConnectivity(m *Measurement, fp *Fingerprints, s *sheet) error {
	matches, err := fp.match(m.testKeys) // step 1
	undecodable := errors.Is(err, errBase64)
	if err != nil && !undecodable {
		return err
	}
	s.fingerprints = matches
	if err := s.judgeWebsite(m); err != nil {
		return err
	}
	if undecodable {
		s.inaccurate()
	}
	return nil
}

func (s *sheet) judgeWebsite(m *Measurement) error {
	for _, f := range s.fingerprints { // step 2
		if f.tells(m.Country) {
			s.confirm(f)
		}
	}
	if title := m.testKeys.get("title_match"); !title.none() && !title.equals(0) && !title.equals(1) { // step 3
		s.inaccurate()
		return nil
	}
	s.judgeBlocking(m.testKeys.get("blocking")) // step 4
	unknown, err := hasUnknownFailure(m.testKeys)
	if err != nil {
		return err
	}
	if unknown { // step 5
		s.inaccurate()
	}
	s.BlockingGeneral += s.BlockingCountry + s.BlockingGlobal + s.BlockingISP + s.BlockingLocal // step 6
	if m.testKeys.get("accessible").kind() == nullKind && len(s.fingerprints) == 0 {            // step 7
		s.inaccurate()
	}
	return nil
}

// confirm notes blocking where f's scope says it happens.
func (s *sheet) confirm(f *Fingerprint) {
	s.Confirmed = true
	switch f.Scope {
	case "inst":
		s.BlockingLocal = 1
	case "isp":
		s.BlockingISP = 1
	case "nat":
		s.BlockingCountry = 1
	default:
		s.BlockingGeneral = 1
	}
}

// judgeBlocking is step 4: the probe's conclusion.
func (s *sheet) judgeBlocking(blocking value) {
	switch {
	case blocking.oneOf("tcp_ip", "dns", "http-diff", "http-failure"):
		s.BlockingGeneral = 1
		s.blockingType = blocking.text()
		s.Analysis = object([]member{{"blocking_type", quote(s.blockingType)}})
	case blocking.equals(0):
	case blocking.none():
		if len(s.fingerprints) == 0 {
			s.inaccurate()
		}
	default:
		s.Analysis = object([]member{{"msg", quote("Unsupported blocking type")}})
		s.inaccurate()
	}
}

// hasUnknownFailure reports whether any test key "…_failure" says that the probe met an error it
// has no name for.
func hasUnknownFailure(testKeys value) (bool, error) {
	for key, v := range distinct(testKeys, func(key value) bool { return strings.HasSuffix(key.text(), "_failure") }) {
		switch {
		case v.kind() == stringKind:
			if strings.HasPrefix(v.text(), "unknown_failure") {
				return true, nil
			}
		case v.truthy():
			return false, misfit("test_keys."+cut(key.text()), "is not a text")
		}
	}
	return false, nil
}
