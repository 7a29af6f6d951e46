package measurement

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// found is the numbers of the patterns in text, ascending, each once.
func found(a *automaton, text string) []int32 {
	var all []int32
	a.scan([]byte(text), func(numbers []int32) { all = append(all, numbers...) })
	slices.Sort(all)
	return slices.Compact(all)
}

// contained is what found must be.
func contained(patterns []string, text string) []int32 {
	var all []int32
	for i, p := range patterns {
		if strings.Contains(text, p) {
			all = append(all, int32(i))
		}
	}
	return all
}

func TestAutomaton(t *testing.T) {
	t.Parallel()
	for _, letters := range []string{`[ab]`, `[abcé]`, `[<>a-e/ ]`} {
		for _, length := range []string{"{1,6}", "{3,9}", "{4,20}", "{8,12}", "{7,60}"} {
			t.Run("finds what strings.Contains finds: "+letters+length, func(t *testing.T) {
				t.Parallel()
				rapid.Check(t, func(t *rapid.T) {
					patterns := rapid.SliceOfN(rapid.StringMatching(letters+length), 1, 12).Draw(t, "patterns")
					parts := rapid.SliceOfN(rapid.OneOf(rapid.StringMatching(letters+"{0,8}"), rapid.SampledFrom(patterns)), 0, 12).Draw(t, "text")
					text := strings.Join(parts, "")
					if got, want := found(newAutomaton(patterns), text), contained(patterns, text); !slices.Equal(got, want) {
						t.Fatalf("found %v, want %v", got, want)
					}
				})
			})
		}
	}
	t.Run("a pattern is found at every offset and at the very end", func(t *testing.T) {
		t.Parallel()
		for _, p := range []string{"x", "xy", "xyz", "wxyz", "uvwxyz", "stuvwxyz", "opqrstuvwxyz"} {
			a := newAutomaton([]string{p, "opq-", "wxy-"})
			for n := range 30 {
				for _, after := range []string{"", ".", "opqrstuvwx"} {
					text := strings.Repeat("o", n) + p + after
					if got := found(a, text); !slices.Contains(got, 0) {
						t.Fatalf("%q is not found in %q", p, text)
					}
				}
			}
		}
	})
}

// TestAutomatonWork demands that time does not explode where a text is made of the beginnings of a
// pattern.
func TestAutomatonWork(t *testing.T) {
	t.Parallel()
	a := newAutomaton([]string{strings.Repeat("a", 1000) + "b", strings.Repeat("ab", 500) + "c"})
	text := strings.Repeat("a", 1<<20) + strings.Repeat("ab", 1<<19)
	if got := found(a, text); len(got) != 1 || got[0] != 0 {
		t.Errorf("found %v, want [0]", got)
	}
}

func TestMatchIsBounded(t *testing.T) {
	t.Parallel()
	fp, err := Compile([]Fingerprint{{Name: "a", Scope: "nat", LocationFound: "dns", PatternType: "full", Pattern: "192.0.2.1"}})
	if err != nil {
		t.Fatal(err)
	}
	answers := strings.TrimSuffix(strings.Repeat(`{"ipv4":"192.0.2.1"},`, maxMatches+5), ",")
	body := fmt.Sprintf(`{"report_id":"x","test_name":"web_connectivity","probe_cc":"IT","probe_asn":"AS1",`+
		`"test_keys":{"blocking":false,"queries":[{"answers":[%s]}]}}`, answers)
	m, err := Parse([]byte(body), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if v := Score(m, m.StartedAt, fp); len(v.Matches) != maxMatches || !v.Confirmed {
		t.Errorf("%d matches, confirmed %v, want %d and true", len(v.Matches), v.Confirmed, maxMatches)
	}
}
