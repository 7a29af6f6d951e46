package measurement

import (
	"encoding/binary"
	"math/bits"
)

// marks are what the 64 bytes of a block are, one bit for each, the first byte's the lowest. Texts of bodies are long
// and have an escape every twenty bytes: looking for their ends in bits spares a mispredicted branch at each escape.
type marks struct {
	quotes, slashes uint64
	odd             uint64 // control characters, and bytes beyond ASCII
	escaped         uint64 // what a backslash is before
}

// chunkBlocks is how many blocks are marked at once: 4 kB, so that text and marks stay in a core's first cache.
const chunkBlocks = 64

// A marker holds the marks of one part of a text after the other.
type marker struct {
	from, to int // the part
	carry    uint64
	blocks   [chunkBlocks]marks
}

// at is the marks of the block that holds text[at]. From call to call, at never becomes smaller.
func (m *marker) at(text []byte, at int) *marks {
	for at >= m.to {
		m.next(text)
	}
	return &m.blocks[uint(at-m.from)/64%chunkBlocks]
}

func (m *marker) next(text []byte) {
	m.from = m.to
	rest := text[m.from:]
	n := min(len(rest)/64, chunkBlocks)
	mark(m.blocks[:n], rest)
	if tail := rest[n*64:]; n < chunkBlocks && len(tail) > 0 {
		// What lies beyond the end is marked as nothing.
		last := [64]byte{}
		for i := copy(last[:], tail); i < len(last); i++ {
			last[i] = ' '
		}
		markOne(&m.blocks[n], &last)
		n++
	}
	m.to += n * 64
	for i := range m.blocks[:n] {
		m.blocks[i].escaped, m.carry = escapedBy(m.blocks[i].slashes, m.carry)
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
	m.quotes, m.slashes, m.odd = 0, 0, 0
	for i := 56; i >= 0; i -= 8 {
		w := binary.LittleEndian.Uint64(text[i:])
		m.quotes = m.quotes<<8 | gather(zeros(w^ones*'"'))
		m.slashes = m.slashes<<8 | gather(zeros(w^ones*'\\'))
		m.odd = m.odd<<8 | gather(zeros(w&(0xe0*ones))|w&tops)
	}
}

// before are the bits below n, which may be 64.
func before(n int) uint64 { return 1<<uint(n) - 1 }

// lowest is the number of the lowest bit of w; 64 if there is none.
func lowest(w uint64) int { return bits.TrailingZeros64(w) }
