// Package network answers: which network is this? A network is an autonomous system, named
// by its number. Names of networks, and where an address belongs, are data and not here.
//
// Rules only: no clock, no disk, no database. Any package may import it.
package network

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/openvantage/vantage/fault"
)

// An ASN is an autonomous system number, 32 bits (RFC 6793). Unknown is what a probe sends
// when it could not find its own network.
type ASN uint32

// Unknown is AS0, reserved by RFC 7607. It is nobody's network.
const Unknown ASN = 0

// Parse reads "AS44244" or "44244"; leading zeros are allowed, for old probes write them.
// It fails with INVALID.
func Parse(s string) (ASN, error) {
	digits := s
	if len(s) > 2 && strings.EqualFold(s[:2], "AS") {
		digits = s[2:]
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || digits == "" || digits[0] == '+' {
		return 0, fault.New(fault.Invalid, "%.20q is not a network number like AS44244.", s)
	}
	return ASN(n), nil
}

// String writes it as "AS44244".
func (a ASN) String() string { return "AS" + strconv.FormatUint(uint64(a), 10) }

// A Text is a network's number in JSON that others write, for Parse: "AS44244", and 44244 from those who send a
// number. Null is no text.
type Text string

// UnmarshalJSON reads either form.
func (t *Text) UnmarshalJSON(b []byte) error {
	if json.Unmarshal(b, (*string)(t)) == nil {
		return nil
	}
	return json.Unmarshal(b, (*json.Number)(t))
}
