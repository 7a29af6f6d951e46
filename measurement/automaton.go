package measurement

import (
	"bytes"
	"math/bits"
	"slices"
	"strings"
)

// An automaton finds which of many byte patterns occur in a text, in one pass (Aho and Corasick, 1975). It runs only
// from where a filter says that a pattern may begin, so the time hardly depends on how many patterns there are.
//
// States are numbered breadth first, so the children of a state are neighbours: one label and
// three numbers a state, some 13 bytes, are the whole of it. State 0 is the root.
type automaton struct {
	first []uint32 // per state, its first child; first[s+1] ends its children
	label []byte   // per state, the byte that leads to it from its parent
	fail  []uint32 // per state, the longest proper suffix that is a state
	found []uint32 // per state, itself or the nearest on its fail chain where a pattern ends; 0 is none

	root [256]uint32        // the root's child by its label: it has too many to look through
	ends map[uint32][]int32 // per state where patterns end, their numbers

	level  []uint32 // the first state of each depth up to the filter's windows
	filter filter
	few    []fewBytes
}

// fewBytes is a pattern that is too short for the filter and looked for alone.
type fewBytes struct {
	pattern []byte
	number  []int32
}

// maxFew is how many patterns may be too short for a filter that looks at each fourth place. If there are more, it
// looks at all, and those that are too short even so have three bytes at most, which no list has.
const maxFew = 4

// newAutomaton is for patterns that are not empty. Numbers are their indices.
func newAutomaton(patterns []string) *automaton {
	a := &automaton{ends: map[uint32][]int32{}}
	short := 0 // too short for the filter to stride
	for _, p := range patterns {
		if len(p) < window+maxStride-1 {
			short++
		}
	}
	stride := maxStride
	if short > maxFew {
		stride = 1
	}
	var order []int32
	for i, p := range patterns {
		if len(p) < window+stride-1 {
			a.few = append(a.few, fewBytes{[]byte(p), []int32{int32(i)}})
		} else {
			order = append(order, int32(i))
		}
	}
	slices.SortStableFunc(order, func(x, y int32) int { return strings.Compare(patterns[x], patterns[y]) })
	filtered := make([]string, len(order))
	for i, n := range order {
		filtered[i] = patterns[n]
	}
	a.filter = newFilter(filtered, stride)
	a.build(patterns, order)
	a.link()
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
		if depth <= window {
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
	for c := a.first[0]; c < a.first[1]; c++ {
		a.root[a.label[c]] = c
	}
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
	if s == 0 {
		return a.root[c]
	}
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

// scan calls hit for the patterns that occur in text, more than once for some.
func (a *automaton) scan(text []byte, hit func(numbers []int32)) {
	for _, f := range a.few {
		if bytes.Contains(text, f.pattern) {
			hit(f.number)
		}
	}
	from, to := 0, 0 // what begins there is found
	for at := 0; ; at += a.filter.stride {
		var back uint32
		if at, back = a.filter.next(text, at); back == 0 {
			return
		}
		for back != 0 { // the earliest first
			n := bits.Len32(back) - 1
			back ^= 1 << n
			begin := at - n
			if begin < 0 || begin >= from && begin < to {
				continue
			}
			state := a.descend(text[begin:])
			if state == 0 {
				continue
			}
			switch end := a.follow(text, begin+window, state, hit); {
			case begin >= to:
				from, to = begin, end
			case end >= from: // a window may lie behind those of patterns that begin later
				from, to = begin, max(to, end)
			}
		}
	}
}

// descend is the state after the window that text starts with, or 0 if no pattern starts so.
func (a *automaton) descend(text []byte) uint32 {
	var s uint32
	for _, c := range text[:window] {
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
		if state < a.level[window] {
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
