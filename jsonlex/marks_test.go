package jsonlex

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// anyText has what marks tell apart, more often than chance would.
var anyText = rapid.Custom(func(t *rapid.T) string {
	parts := rapid.SliceOfN(rapid.SampledFrom([]string{
		"\\", "\\\\", `"`, "\\\"", "x", "0123456789abcdef", "\x1f", "\x00", " ", "\x7f", "\x80", "\xff", "é", "!", "#", "[", "]", "\x21",
	}), 0, 300).Draw(t, "parts")
	return strings.Join(parts, "")
})

func TestMarks(t *testing.T) {
	t.Parallel()
	t.Run("are the same in assembly and in Go", func(t *testing.T) {
		t.Parallel()
		random := rand.New(rand.NewPCG(1, 2))
		for range 2000 {
			var block [64]byte
			for i := range block {
				block[i] = byte(random.Uint32())
				if random.IntN(3) == 0 {
					block[i] = "\"\\ \x1f\x80!#[]"[random.IntN(9)]
				}
			}
			var got [1]marks
			var want marks
			mark(got[:], block[:])
			if markOne(&want, &block); got[0] != want {
				t.Fatalf("%q has %x, in Go %x", block, got[0], want)
			}
		}
	})
	t.Run("say what reading byte by byte says", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, checkMarks)
	})
}

func checkMarks(t *rapid.T) {
	text := []byte(strings.Repeat("x", rapid.IntRange(0, 70).Draw(t, "before")) + anyText.Draw(t, "text"))
	text = bytes.Repeat(text, rapid.SampledFrom([]int{1, 1, 20}).Draw(t, "times"))
	all := make([][3]bool, len(text)) // quote, escaped, look
	escaped := false
	for at, c := range text {
		all[at] = [3]bool{c == '"' && !escaped, escaped, escaped && c != '"' && c != '\\' || c < ' ' || c >= 0x80}
		escaped = c == '\\' && !escaped
	}
	var m Marker
	for at, want := range all {
		b := m.at(text, at)
		if got := [3]bool{b.quotes>>(at%64)&1 != 0, b.escaped>>(at%64)&1 != 0, b.look>>(at%64)&1 != 0}; got != want {
			t.Fatalf("byte %d of %q: quote, escaped, look = %v, want %v", at, text, got, want)
		}
		end := -1 // of a plain string that begins here
		if at+64 <= m.to {
			if n := slices.IndexFunc(all[at:min(at+64, len(all))], func(b [3]bool) bool { return b != [3]bool{} }); n >= 0 && all[at+n][0] {
				end = at + n
			}
		}
		if got := m.PlainEnd(at); got != end {
			t.Fatalf("a string from byte %d of %q ends plainly at %d, want %d", at, text, got, end)
		}
	}
}

// BenchmarkSteps shows what each step costs for a page of 80 kB.
func BenchmarkSteps(b *testing.B) {
	page := []byte(strings.Repeat(`\u003cli class=\"item\"\u003e\n\t\t\u003ca href=\"https:\/\/example.org\/news\"\u003eSome news of the day, and новости\u003c/a\u003e`, 600) + `"`)
	step := func(name string, size int, do func()) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				do()
			}
		})
	}
	var all [chunkBlocks]marks
	step("mark 4 kB", 64*chunkBlocks, func() { mark(all[:], page) })
	step("mark 4 kB, in Go", 64*chunkBlocks, func() {
		for i := range all {
			markOne(&all[i], (*[64]byte)(page[64*i:]))
		}
	})
	step("find the end", len(page), func() {
		var m Marker
		if _, _, flaw := m.StringEnd(page, 0); flaw != Sound {
			b.Fatal(flaw)
		}
	})
	var text []byte
	step("unescape", len(page), func() { text, _ = AppendUnescaped(text[:0], page[:len(page)-1]) })
}
