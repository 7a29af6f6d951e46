package jsonlex

import (
	"encoding/binary"
	"math/bits"
	"strings"
)

// marks are what the 64 bytes of a block are, a bit for each, the first byte's the lowest. Bodies are mostly long texts
// with an escape every twenty bytes; bits find their ends without a mispredicted branch at each escape.
type marks struct {
	quotes  uint64 // that are not escaped
	escaped uint64 // a backslash is before them
	look    uint64 // those of these that are no quotes and no backslashes, control characters and bytes beyond ASCII
}

// chunkBlocks is how many blocks are marked at once: 4 kB, so that all stays in a core's first cache.
const chunkBlocks = 64 // tests of measurement know it

// A Marker has the marks of a text, a chunk after the other.
type Marker struct {
	to     int    // the end of the present chunk
	carry  uint64 // 1 when the byte at to is escaped
	blocks [chunkBlocks]marks
}

// at is the marks of the block that holds text[at]. From call to call, at never becomes smaller.
func (m *Marker) at(text []byte, at int) *marks {
	for at >= m.to {
		m.next(text)
	}
	return &m.blocks[uint(at)/64%chunkBlocks]
}

// blanks follow the end of a text: nothing that is marked.
var blanks = [64]byte([]byte(strings.Repeat(" ", 64)))

func (m *Marker) next(text []byte) {
	text = text[m.to:]
	n := min(len(text)/64, chunkBlocks)
	mark(m.blocks[:n], text)
	if n < chunkBlocks {
		last := blanks
		copy(last[:], text[n*64:])
		markOne(&m.blocks[n], &last)
		n++
	}
	m.to += n * 64
	for i := range m.blocks[:n] {
		b := &m.blocks[i]
		sound := b.quotes | b.escaped
		b.escaped, m.carry = escapedBy(b.escaped, m.carry)
		b.quotes &^= b.escaped
		b.look |= b.escaped &^ sound
	}
}

// escapedBy is which bytes of a block a backslash is before that is not escaped itself, and whether (1 or 0) the
// first byte of the next block is one more.
//
// Source: simdjson, json_escape_scanner.
func escapedBy(slashes, carry uint64) (escaped, next uint64) {
	if slashes == 0 {
		return carry, 0
	}
	// Backslashes that may begin an escape, subtracted from the even or odd places after them, leave those in
	// each run that do.
	const odd = 0xaaaaaaaaaaaaaaaa
	begins := slashes &^ carry
	codes := (begins<<1 | odd) - begins ^ odd
	return codes ^ (slashes | carry), codes & slashes >> 63
}

// markOne is mark in plain Go, for one block.
func markOne(m *marks, text *[64]byte) {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	// zeros has the top bit of each byte of w that is zero.
	zeros := func(w uint64) uint64 { return ^((w&^tops + ^uint64(tops)) | w) & tops }
	// gather moves the top bits of eight bytes together.
	gather := func(w uint64) uint64 { return w >> 7 * 0x0102040810204080 >> 56 }
	*m = marks{}
	for i := 56; i >= 0; i -= 8 {
		w := binary.LittleEndian.Uint64(text[i:])
		m.quotes = m.quotes<<8 | gather(zeros(w^ones*'"'))
		m.escaped = m.escaped<<8 | gather(zeros(w^ones*'\\'))
		m.look = m.look<<8 | gather(zeros(w&(0xe0*ones))|w&tops)
	}
}

// lowest is the number of the lowest bit of w; 64 if there is none.
func lowest(w uint64) int { return bits.TrailingZeros64(w) }
