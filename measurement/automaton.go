package measurement

import (
	"encoding/binary"
	"slices"
	"strings"
)

// An automaton finds which of many byte patterns occur in a text, in one pass (Aho and Corasick,
// 1975). Where no pattern has begun, a filter over the first bytes of all patterns skips
// ahead, so the time hardly depends on how many patterns there are.
//
// States are numbered breadth first, so the children of a state are neighbours: one label and
// three numbers a state, some 13 bytes, are the whole of it. State 0 is the root.
type automaton struct {
	first []uint32 // per state, its first child; first[s+1] ends its children
	label []byte   // per state, the byte that leads to it from its parent
	fail  []uint32 // per state, the longest proper suffix that is a state
	found []uint32 // per state, itself or the nearest on its fail chain where a pattern ends; 0 is none

	ends map[uint32][]int32 // per state where patterns end, their numbers

	window int      // bytes that the filter looks at first: up to 4, at most the shortest pattern's
	level  []uint32 // the first state of each depth up to window
	starts filter   // the first window bytes of all patterns
	short  filter   // of these, of the patterns with less than 8 bytes
	long   filter   // the first 8 bytes of the others: many pages have "<div", few go on right
}

// maxWindow is how many bytes the filter hashes at once.
const maxWindow = 4

// newAutomaton is for patterns that are not empty. Numbers are their indices.
func newAutomaton(patterns []string) *automaton {
	a := &automaton{ends: map[uint32][]int32{}, window: maxWindow}
	order := make([]int32, len(patterns))
	for i, p := range patterns {
		order[i] = int32(i)
		a.window = min(a.window, len(p))
	}
	slices.SortStableFunc(order, func(x, y int32) int { return strings.Compare(patterns[x], patterns[y]) })
	a.build(patterns, order)
	a.link()
	a.fillFilters(patterns)
	return a
}

// build makes the states level by level. A state is a run of sorted patterns that share
// their first depth bytes.
func (a *automaton) build(patterns []string, order []int32) {
	type run struct{ from, to int }
	level := []run{{0, len(order)}}
	a.label = []byte{0}
	a.first = []uint32{1}
	for depth := 0; len(level) > 0; depth++ {
		if depth <= a.window {
			a.level = append(a.level, uint32(len(a.label)-len(level)))
		}
		base := uint32(len(a.label) - len(level))
		var below []run
		for i, r := range level {
			at := r.from
			for at < r.to && len(patterns[order[at]]) == depth {
				at++
			}
			if at > r.from {
				a.ends[base+uint32(i)] = slices.Clone(order[r.from:at])
			}
			for at < r.to {
				c, from := patterns[order[at]][depth], at
				for at < r.to && patterns[order[at]][depth] == c {
					at++
				}
				a.label = append(a.label, c)
				below = append(below, run{from, at})
			}
			a.first = append(a.first, uint32(len(a.label)))
		}
		level = below
	}
}

// link computes the fail and found links, parents before children.
func (a *automaton) link() {
	a.fail = make([]uint32, len(a.label))
	a.found = make([]uint32, len(a.label))
	for s := range uint32(len(a.label)) {
		if _, ok := a.ends[s]; ok {
			a.found[s] = s
		} else {
			a.found[s] = a.found[a.fail[s]]
		}
		for c := a.first[s]; c < a.first[s+1]; c++ {
			if s != 0 {
				a.fail[c] = a.step(a.fail[s], a.label[c])
			}
		}
	}
}

// child is the state one byte on, or 0.
func (a *automaton) child(s uint32, c byte) uint32 {
	from, to := a.first[s], a.first[s+1]
	for i, l := range a.label[from:to] {
		if l == c {
			return from + uint32(i)
		}
	}
	return 0
}

// step is the state after one more byte.
func (a *automaton) step(s uint32, c byte) uint32 {
	for {
		if next := a.child(s, c); next != 0 || s == 0 {
			return next
		}
		s = a.fail[s]
	}
}

// filterBits is the logarithm of a filter's size: 32 kB, which a core's first cache holds. A
// constant lets the compiler see that no index is out of range.
const filterBits = 18

// A filter has the bits of the hashes of a set: it may hold what is not in the set, never the
// other way round.
type filter [1 << filterBits / 64]uint64

func (f *filter) add(h uint32) { f[h/64] |= 1 << (h % 64) }

func (f *filter) has(h uint32) bool { return f[h/64]>>(h%64)&1 != 0 }

// hash spreads a window over the bits of a filter.
func hash(window uint32) uint32 { return window * 0x9e3779b1 >> (32 - filterBits) }

// hash8 is hash for eight bytes.
func hash8(b []byte) uint32 {
	return uint32(binary.LittleEndian.Uint64(b) * 0x9e3779b97f4a7c15 >> (64 - filterBits))
}

func (a *automaton) fillFilters(patterns []string) {
	for _, p := range patterns {
		h := hash(a.load([]byte(p[:a.window])))
		a.starts.add(h)
		if len(p) < 8 {
			a.short.add(h)
		} else {
			a.long.add(hash8([]byte(p[:8])))
		}
	}
}

// load reads a window, which may be all that is left of a text.
func (a *automaton) load(b []byte) uint32 {
	if len(b) >= 4 {
		return binary.LittleEndian.Uint32(b) & a.mask()
	}
	var w uint32
	for i, c := range b {
		w |= uint32(c) << (8 * i)
	}
	return w & a.mask()
}

func (a *automaton) mask() uint32 { return 1<<(8*a.window) - 1 }

// scan calls hit for the patterns that occur in text, more than once for some.
func (a *automaton) scan(text []byte, hit func(numbers []int32)) {
	for at := 0; ; {
		at = a.skip(text, at)
		if at < 0 {
			return
		}
		state := a.descend(text[at:])
		if state == 0 {
			at++
			continue
		}
		at = a.follow(text, at+a.window, state, hit)
	}
}

// skip is the next place from at on where a pattern may begin, or -1. It looks at four places
// with one load.
func (a *automaton) skip(text []byte, at int) int {
	f, mask := &a.starts, a.mask()
	for ; at+11 <= len(text); at += 4 {
		w := binary.LittleEndian.Uint64(text[at:])
		if f.has(hash(uint32(w)&mask)) && a.likely(text[at:]) {
			return at
		}
		if f.has(hash(uint32(w>>8)&mask)) && a.likely(text[at+1:]) {
			return at + 1
		}
		if f.has(hash(uint32(w>>16)&mask)) && a.likely(text[at+2:]) {
			return at + 2
		}
		if f.has(hash(uint32(w>>24)&mask)) && a.likely(text[at+3:]) {
			return at + 3
		}
	}
	for ; at+a.window <= len(text); at++ {
		if f.has(hash(a.load(text[at:]))) {
			return at
		}
	}
	return -1
}

// likely is the second look at a place where a pattern may begin.
func (a *automaton) likely(text []byte) bool {
	return a.long.has(hash8(text)) || a.short.has(hash(a.load(text)))
}

// descend is the state after the window that text starts with, or 0 if no pattern starts so.
func (a *automaton) descend(text []byte) uint32 {
	var s uint32
	for _, c := range text[:a.window] {
		if s = a.child(s, c); s == 0 {
			return 0
		}
	}
	return s
}

// follow runs the automaton from state until what is left of it is shorter than a window, and
// says where that begins: what lies before it is done.
func (a *automaton) follow(text []byte, at int, state uint32, hit func([]int32)) int {
	for {
		for s := a.found[state]; s != 0; s = a.found[a.fail[s]] {
			hit(a.ends[s])
		}
		if at == len(text) {
			return at
		}
		state = a.step(state, text[at])
		at++
		if state < a.level[a.window] {
			return at - a.depth(state)
		}
	}
}

// depth is that of a state above the window.
func (a *automaton) depth(s uint32) int {
	d := 0
	for s >= a.level[d+1] {
		d++
	}
	return d
}
