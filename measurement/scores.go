package measurement

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/openvantage/vantage/fault"
)

// Scores is the object a scorer computes, key for key the peer's column scores. The fields are
// what an API shows of it; JSON has the whole. The zero Scores is the empty object,
// which is what tests that are not scored at all have.
//
// Fields are for reading: changing one does not change JSON.
type Scores struct {
	// BlockingGeneral is the sum that decides Anomaly: 0 or more, and not bounded by 1.
	BlockingGeneral float64
	// The others are 1 where a fingerprint confirmed blocking at that place, else 0.
	BlockingGlobal  float64
	BlockingCountry float64
	BlockingISP     float64
	BlockingLocal   float64
	// Accuracy is 0 when the measurement cannot be trusted; nil counts as 1.
	Accuracy  *float64
	Analysis  json.RawMessage // nil when absent
	Extra     json.RawMessage // nil when absent
	Msg       string
	Confirmed bool

	raw json.RawMessage
}

// JSON returns the whole object, keys sorted. The caller must not change it.
func (s Scores) JSON() []byte {
	if s.raw == nil {
		return []byte("{}")
	}
	return s.raw
}

// MarshalJSON writes JSON.
func (s Scores) MarshalJSON() ([]byte, error) { return s.JSON(), nil }

// UnmarshalJSON rebuilds Scores from what JSON gave, or from the peer's column. Fails with
// INVALID when data is not an object or a known key has the wrong type.
func (s *Scores) UnmarshalJSON(data []byte) error {
	var known struct {
		BlockingGeneral float64         `json:"blocking_general"`
		BlockingGlobal  float64         `json:"blocking_global"`
		BlockingCountry float64         `json:"blocking_country"`
		BlockingISP     float64         `json:"blocking_isp"`
		BlockingLocal   float64         `json:"blocking_local"`
		Accuracy        *float64        `json:"accuracy"`
		Analysis        json.RawMessage `json:"analysis"`
		Extra           json.RawMessage `json:"extra"`
		Msg             string          `json:"msg"`
		Confirmed       bool            `json:"confirmed"`
	}
	if !bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		return fault.Field("scores", "The scores are not a JSON object.")
	}
	if err := json.Unmarshal(data, &known); err != nil {
		return fault.Wrap(err, fault.Invalid, "The scores are not in the form a scorer writes.").At("scores")
	}
	*s = Scores{
		BlockingGeneral: known.BlockingGeneral,
		BlockingGlobal:  known.BlockingGlobal,
		BlockingCountry: known.BlockingCountry,
		BlockingISP:     known.BlockingISP,
		BlockingLocal:   known.BlockingLocal,
		Accuracy:        known.Accuracy,
		Analysis:        known.Analysis,
		Extra:           known.Extra,
		Msg:             known.Msg,
		Confirmed:       known.Confirmed,
		raw:             slices.Clone(data),
	}
	return nil
}

// A sheet is a Scores being filled in by a scorer. It starts at the zero of every
// locality, the peer's init_scores.
type sheet struct {
	Scores
	blockingType string
	hasMsg       bool
	fingerprints []*Fingerprint
	own          []member // keys that one test alone writes
	bare         bool     // the object is to be empty unless something is added

	outcome  Outcome
	evidence []Evidence
	better   []betterMatch
	unjudged bool // the test does not tell blocking
	clock    bool // the probe's clock is not believed
}

// A member is one key of a scores object with its value as JSON.
type member struct {
	key   string
	value json.RawMessage
}

// inaccurate marks the measurement as not to be trusted.
func (s *sheet) inaccurate() { s.Accuracy = new(float64) }

// accurate marks it as one to trust, where the peer says so.
func (s *sheet) accurate() {
	one := 1.0
	s.Accuracy = &one
}

func (s *sheet) say(msg string) { s.Msg, s.hasMsg = msg, true }

func (s *sheet) set(key string, v json.RawMessage) { s.own = append(s.own, member{key, v}) }

// scores writes the object, keys sorted so that equal verdicts are equal bytes.
func (s *sheet) scores() Scores {
	all := append(make([]member, 0, 16), s.own...)
	if !s.bare {
		all = append(all,
			member{"blocking_country", float(s.BlockingCountry)},
			member{"blocking_general", float(s.BlockingGeneral)},
			member{"blocking_global", float(s.BlockingGlobal)},
			member{"blocking_isp", float(s.BlockingISP)},
			member{"blocking_local", float(s.BlockingLocal)},
		)
	}
	if s.Accuracy != nil {
		all = append(all, member{"accuracy", float(*s.Accuracy)})
	}
	if s.Analysis != nil {
		all = append(all, member{"analysis", s.Analysis})
	}
	if s.Extra != nil {
		all = append(all, member{"extra", s.Extra})
	}
	if s.hasMsg {
		all = append(all, member{"msg", quote(s.Msg)})
	}
	if s.Confirmed {
		all = append(all, member{"confirmed", json.RawMessage("true")})
	}
	if len(s.fingerprints) > 0 {
		all = append(all, member{"fingerprints", listed(s.fingerprints)})
	}
	s.raw = object(all)
	return s.Scores
}

// object writes members, sorted by key.
func object(all []member) json.RawMessage {
	slices.SortFunc(all, func(a, b member) int { return strings.Compare(a.key, b.key) })
	b := append(make([]byte, 0, 256), '{')
	for i, m := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendQuoted(b, m.key), ':')
		b = append(b, m.value...)
	}
	return append(b, '}')
}

// listed writes the matched fingerprints, in match order.
func listed(matches []*Fingerprint) json.RawMessage {
	b := []byte("[")
	for i, f := range matches {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, f.listed...)
	}
	return append(b, ']')
}

// float writes a number as the peer does: whole ones with ".0".
func float(f float64) json.RawMessage {
	if f == 0 {
		return json.RawMessage("0.0")
	}
	b := strconv.AppendFloat(nil, f, 'g', -1, 64)
	if !bytes.ContainsAny(b, ".e") {
		b = append(b, ".0"...)
	}
	return b
}

func boolean(v bool) json.RawMessage { return strconv.AppendBool(nil, v) }

func integer(n int) json.RawMessage { return strconv.AppendInt(nil, int64(n), 10) }

// quote writes a JSON string without the HTML escapes of encoding/json's default.
func quote(s string) json.RawMessage { return appendQuoted(nil, s) }

func appendQuoted(b []byte, s string) []byte {
	if plain(s) {
		return append(append(append(slices.Grow(b, len(s)+2), '"'), s...), '"')
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always encodes
	return append(b, bytes.TrimSuffix(out.Bytes(), []byte("\n"))...)
}

// plain is true for what JSON has as it is. Nearly all that is quoted are our own keys and words.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
