// Package country answers: which country is this, how many people live in it, and how much
// is at stake for those who measure there?
//
// The countries are a table compiled in; what operators decide about a country, and whether it
// meets its objective, are not here. Rules only: no clock, no disk, no database. Any package
// may import it.
package country

import (
	"iter"
	"slices"
	"strings"
)

//go:generate go run ./gen -packages $CLDR_PACKAGES

// A RiskTier says how many networks a country must be watched from, and how loudly we say
// that it is not.
type RiskTier string

// The tiers. Each country is in one.
const (
	HighRisk     RiskTier = "HIGH"
	StandardRisk RiskTier = "STANDARD"
)

// A Country is what does not change from day to day. Name is in English. Region and Subregion are
// the UN M49 names, such as "Asia" and "Southern Asia"; Antarctica, which M49 puts in no
// region, is in Oceania as CLDR has it. Population is an estimate of the people living there; 0 is
// unknown. The zero Country is none.
type Country struct {
	Code       Code
	Alpha3     string
	Name       string
	Region     string
	Subregion  string
	Population int64
	RiskTier   RiskTier
}

// All yields every country in order of code: the 249 of ISO 3166-1, and XK.
func All() iter.Seq[Country] {
	return func(yield func(Country) bool) {
		for _, c := range table {
			c.RiskTier = riskTier(c.Code)
			if !yield(c) {
				return
			}
		}
	}
}

// Lookup finds a country by its code. Unknown is not a country.
func Lookup(code Code) (Country, bool) {
	i, ok := slices.BinarySearchFunc(table[:], code, func(c Country, code Code) int {
		return strings.Compare(string(c.Code), string(code))
	})
	if !ok {
		return Country{}, false
	}
	c := table[i]
	c.RiskTier = riskTier(code)
	return c, true
}

// Monitored reports whether a coverage objective applies to c until an operator says otherwise in
// the database. It does wherever we know that people live: a country left out by default is a
// country whose silence nobody sees.
func (c Country) Monitored() bool { return c.Population > 0 }

// Source: probe-health document, coverage SLOs.
func riskTier(c Code) RiskTier {
	switch c {
	case "BY", "CN", "ET", "IR", "NG", "PK", "RU", "VN":
		return HighRisk
	}
	return StandardRisk
}
