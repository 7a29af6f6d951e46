package country

import "github.com/openvantage/vantage/fault"

// A Code is an ISO 3166-1 alpha-2 country code in upper case, XK, or Unknown.
//
// XK (Kosovo) is not assigned by ISO but left to users by it. It is a country here because the address
// databases that probes look themselves up in answer XK: without it those probes could not register.
type Code string

// Unknown is the country of a probe whose address no database could place. It takes part
// in no per-country objective and opens no incident.
//
// Source: ISO 3166-1 leaves ZZ to users; OONI probes send it when their look-up fails.
const Unknown Code = "ZZ"

// Parse accepts the code of a country in upper case and nothing else, so not Unknown: a caller to
// whom that is a valid answer compares first. It fails with INVALID.
func Parse(s string) (Code, error) {
	c := Code(s)
	if _, ok := Lookup(c); !ok {
		return "", fault.New(fault.Invalid, "%.10q is not an ISO 3166-1 alpha-2 country code in upper case.", s)
	}
	return c, nil
}
