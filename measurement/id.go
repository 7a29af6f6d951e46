package measurement

import (
	"crypto/sha512"
	"encoding/hex"
	"strings"
	"time"

	"github.com/openvantage/vantage/country"
)

// An ID names one measurement: the peer's measurement_uid,
// YYYYMMDDHHMMSS.ffffff_CC_testname_16 hex digits of the body's SHA-512.
// IDs sort by receive time.
//
// Source: design/measurements.md, section 1.
type ID string

// idTime is the layout of an ID's receive time, UTC.
const idTime = "20060102150405.000000"

// NameInID is a test's name as ids and archives spell it, the peer's way: in lower case and without underscores;
// whatever else is neither letter nor digit is dropped too, since "_" separates the parts of an id.
func NameInID(testName string) string { return strings.Map(idLetter, testName) }

// NewID makes the ID of a body received at receivedAt, which is cut to microseconds. A country that
// is not two letters becomes ZZ.
func NewID(receivedAt time.Time, c country.Code, testName string, body []byte) ID {
	c, ok := upperCountry(string(c))
	if !ok {
		c = country.Unknown
	}
	sum := sha512.Sum512(body)
	return ID(receivedAt.UTC().Truncate(time.Microsecond).Format(idTime) + "_" + string(c) + "_" +
		NameInID(testName) + "_" + hex.EncodeToString(sum[:8]))
}

// At is the ID of the same body, had it been received at another time.
func (id ID) At(receivedAt time.Time) ID {
	return ID(receivedAt.UTC().Truncate(time.Microsecond).Format(idTime)) + id[len(idTime):]
}

// Split returns the receive time and country in the ID. It is false for anything NewID
// cannot have made, such as the peer's ids of before 2020 ("0120200303…").
func (id ID) Split() (receivedAt time.Time, c country.Code, ok bool) {
	part := strings.Split(string(id), "_")
	if len(part) != 4 || len(part[0]) != len(idTime) {
		return time.Time{}, "", false
	}
	receivedAt, err := time.Parse(idTime, part[0])
	if err != nil || receivedAt.Format(idTime) != part[0] {
		return time.Time{}, "", false
	}
	c, ok = upperCountry(part[1])
	if !ok || string(c) != part[1] || strings.Map(idLetter, part[2]) != part[2] || !isDigest(part[3]) {
		return time.Time{}, "", false
	}
	return receivedAt, c, true
}

func idLetter(r rune) rune {
	switch {
	case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
		return r
	case r >= 'A' && r <= 'Z':
		return r + 'a' - 'A'
	}
	return -1
}

func isDigest(s string) bool {
	if len(s) != 16 {
		return false
	}
	return strings.Trim(s, "0123456789abcdef") == ""
}

// upperCountry is the country of two ASCII letters in any case.
func upperCountry(s string) (country.Code, bool) {
	if len(s) != 2 || !isLetter(s[0]) || !isLetter(s[1]) {
		return "", false
	}
	return country.Code(strings.ToUpper(s)), true
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
