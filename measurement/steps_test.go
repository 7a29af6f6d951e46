package measurement

import (
	"fmt"
	"strings"
	"testing"

	"github.com/openvantage/vantage/jsonlex"
)

// BenchmarkSteps shows what each step of scoring a page of 80 kB costs.
func BenchmarkSteps(b *testing.B) {
	page := strings.Repeat(`\u003cli class=\"item\"\u003e\n\t\t\u003ca href=\"https:\/\/example.org\/news\"\u003eSome news of the day, and новости\u003c/a\u003e`, 600)
	body := []byte(`{"test_keys":{"requests":[{"response":{"body":"` + page + `"}}]}}`)
	step := func(name string, size int, do func()) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				do()
			}
		})
	}
	step("scan", len(body), func() {
		if _, err := scan(body, DefaultLimits.complete()); err != nil {
			b.Fatal(err)
		}
	})
	text, _ := jsonlex.AppendUnescaped(nil, []byte(page))
	for _, n := range []int{2_000, 20_000} {
		var patterns []string
		for i := range n {
			patterns = append(patterns, fmt.Sprintf("<title>Blocked by order %d of example.org</title>", i))
		}
		long := newAutomaton(patterns)
		short := newAutomaton(append(patterns, "AAAA", "BBBBB", "CCCCCC", "DDDD", "EEEE"))
		step(fmt.Sprintf("search for %d patterns", n), len(text), func() { long.scan(text, func([]int32) {}) })
		step(fmt.Sprintf("search for %d patterns, some short", n), len(text), func() { short.scan(text, func([]int32) {}) })
	}
}
