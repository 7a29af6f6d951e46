package engine

import (
	"cmp"
	"iter"
	"strconv"
	"strings"
)

// A mediaType is how a response over HTTP is written. Who does not care gets the first.
type mediaType int

const (
	plainJSON    mediaType = iota // failures of a request are 200: any proxy may have made another status
	responseJSON                  // the status tells
	eventStream
)

// mediaTypes are in the order of the constants.
var mediaTypes = [...]string{"application/json", "application/graphql-response+json", "text/event-stream"}

// weighted goes through the elements of a header like Accept, in lower case, with how much each is
// wanted: 0, which is not at all, to 1. Parameters other than q do not count, and elements whose
// q is no such number are left out.
func weighted(fields []string) iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		for _, field := range fields {
			for element := range strings.SplitSeq(field, ",") {
				name, params, _ := strings.Cut(element, ";")
				if name = strings.ToLower(strings.TrimSpace(name)); name == "" {
					continue
				}
				if q, ok := quality(params); ok && !yield(name, q) {
					return
				}
			}
		}
	}
}

func quality(params string) (float64, bool) {
	for p := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(p, "=")
		if strings.EqualFold(strings.TrimSpace(name), "q") {
			q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return q, err == nil && q >= 0 && q <= 1
		}
	}
	return 1, true
}

// negotiate chooses by the Accept header: the type that is wanted most, then the one that is
// named more exactly, then the one named first. It reports false when none of ours is wanted.
func negotiate(accept []string) (mediaType, bool) {
	type rank struct {
		quality      float64
		exact, place int
	}
	var ranks [len(mediaTypes)]rank
	place := 0
	for name, q := range weighted(accept) {
		for t, ours := range mediaTypes {
			// RFC 9110, 12.5.1: of several ranges, the most exact has the say about a type.
			if exact := match(name, ours); exact > ranks[t].exact {
				ranks[t] = rank{q, exact, -place}
			}
		}
		place++
	}
	if place == 0 {
		return plainJSON, len(strings.TrimSpace(strings.Join(accept, ""))) == 0
	}
	best := plainJSON
	for t, r := range ranks {
		if b := ranks[best]; cmp.Or(cmp.Compare(r.quality, b.quality), cmp.Compare(r.exact, b.exact), cmp.Compare(r.place, b.place)) > 0 {
			best = mediaType(t)
		}
	}
	return best, ranks[best].quality > 0
}

// match is how exactly a range names a type: 3 by its name, 0 not at all.
func match(ranged, name string) int {
	switch {
	case ranged == name:
		return 3
	case strings.HasSuffix(ranged, "/*") && strings.HasPrefix(name, ranged[:len(ranged)-1]):
		return 2
	case ranged == "*/*":
		return 1
	}
	return 0
}
