package engine

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// TestExactly: Exact is true of exactly what the decoder does not change.
func TestExactly(t *testing.T) {
	t.Parallel()
	pieces := []string{"a", `\\`, `\"`, `\n`, `\ud83d`, `\ude00`, `\uD800`, `\uDFFF`, `\u0041`, `\ufffd`, "é", "\xff", "\xc3", "u", "d800"}
	rapid.Check(t, func(t *rapid.T) {
		s := `"`
		for _, p := range rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 8).Draw(t, "pieces") {
			s += p
		}
		s += `"`
		var decoded string
		if json.Unmarshal([]byte(s), &decoded) != nil {
			return
		}
		lost, meant := 0, 0
		for _, r := range decoded {
			if r == utf8.RuneError {
				lost++
			}
		}
		for i := 0; i+5 < len(s); i++ {
			if s[i:i+6] == `\ufffd` && !escapedAt(s, i) {
				meant++
			}
		}
		if got := Exact([]byte(s)); got != (lost == meant) {
			t.Fatalf("exact(%s) = %v, and the decoder makes %q of it", s, got, decoded)
		}
	})
}

// escapedAt reports whether the backslash at i is itself the second of a pair.
func escapedAt(s string, i int) bool {
	n := 0
	for i--; i >= 0 && s[i] == '\\'; i-- {
		n++
	}
	return n%2 == 1
}
