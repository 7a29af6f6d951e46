// Package jsonlex answers where the strings and numbers of JSON (RFC 8259) end and what they say, 64
// bytes at a time, because texts are nearly all of what probes send. What values mean, and which are too
// many, is for its callers: engine for requests, measurement for bodies.
package jsonlex

import (
	"encoding/binary"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// A Flaw is what is wrong with a string, as the end of a sentence.
type Flaw string

// The flaws.
const (
	Sound   Flaw = ""
	Cut     Flaw = "is cut short"
	Escape  Flaw = "has an unknown or unfinished escape in a string"
	Control Flaw = "has a control character in a string"
	NotUTF8 Flaw = "has a string that is not UTF-8"
)

// PlainEnd is StringEnd for most strings, which have less than 64 bytes and nothing to look at, and -1 for others.
func (m *Marker) PlainEnd(at int) int {
	i, skip := uint(at)/64%chunkBlocks, uint(at)%64
	if at+64 > m.to {
		return -1
	}
	b, next := &m.blocks[i], &m.blocks[(i+1)%chunkBlocks]
	ends := b.quotes>>skip | next.quotes<<1<<(63-skip)
	if look := (b.look|b.escaped)>>skip | (next.look|next.escaped)<<1<<(63-skip); ends == 0 || look&(ends&-ends-1) != 0 {
		return -1
	}
	return at + lowest(ends)
}

// StringEnd is where the closing quote lies of the string whose text begins at at, and whether there are
// backslashes before it. With a flaw it is where that lies. From call to call, at never becomes smaller.
func (m *Marker) StringEnd(text []byte, at int) (end int, escaped bool, flaw Flaw) {
	checked := 0
	for at < len(text) {
		b, skip := m.at(text, at), uint(at)%64
		ends, escapes, look := b.quotes>>skip, b.escaped>>skip, b.look>>skip
		if ends != 0 {
			before := ends&-ends - 1
			escapes &= before
			look &= before
		}
		escaped = escaped || escapes != 0
		if look != 0 {
			if end, flaw = check(text, at, look&escapes, look&^escapes, &checked); flaw != Sound {
				return end, escaped, flaw
			}
		}
		if ends != 0 {
			return at + lowest(ends), escaped, Sound
		}
		at += int(64 - skip)
	}
	return len(text), escaped, Cut
}

// check looks at the bytes from at on whose bits are set: in escapes a backslash is before them, and odd are
// control characters or parts of runes, but for those before checked.
func check(text []byte, at int, escapes, odd uint64, checked *int) (int, Flaw) {
	for ; escapes != 0; escapes &= escapes - 1 {
		i := at + lowest(escapes)
		if i < len(text) && unescaped[text[i]] == 0 && !isUnicodeEscape(text[i:]) {
			return i - 1, Escape
		}
	}
	for ; odd != 0; odd &= odd - 1 {
		i := at + lowest(odd)
		if i < *checked {
			continue
		}
		if text[i] < ' ' {
			return i, Control
		}
		n := runesLen(text[i:])
		if n == 0 {
			return i, NotUTF8
		}
		*checked = i + n
	}
	return 0, Sound
}

// isUnicodeEscape is true for u and four hexadecimal digits.
func isUnicodeEscape(b []byte) bool {
	return len(b) >= 5 && b[0] == 'u' && hexValue[b[1]]|hexValue[b[2]]|hexValue[b[3]]|hexValue[b[4]] < 16
}

// hexValue is the value of a hexadecimal digit, and 0xff for any other byte.
var hexValue = func() (t [256]byte) {
	for c := range t {
		switch {
		case c >= '0' && c <= '9':
			t[c] = byte(c - '0')
		case c >= 'a' && c <= 'f':
			t[c] = byte(c - 'a' + 10)
		case c >= 'A' && c <= 'F':
			t[c] = byte(c - 'A' + 10)
		default:
			t[c] = 0xff
		}
	}
	return t
}()

// runesLen is the length of the run of runes beyond ASCII that b starts with, or 0 when the
// run is not valid UTF-8.
func runesLen(b []byte) int {
	n := 0
	for n < len(b) && b[n] >= utf8.RuneSelf {
		w := runeLen(b[n:])
		if w == 0 {
			return 0
		}
		n += w
	}
	return n
}

// runeLen is the length of the one rune beyond ASCII that b starts with, or 0. It spares the
// decoding that utf8.DecodeRune does.
func runeLen(b []byte) int {
	switch c := b[0]; {
	case c < 0xc2:
		return 0
	case c < 0xe0:
		if len(b) >= 2 && b[1]&0xc0 == 0x80 {
			return 2
		}
	case c < 0xf0:
		if len(b) < 3 || b[1]&0xc0 != 0x80 || b[2]&0xc0 != 0x80 {
			return 0
		}
		if r := uint(c&0x0f)<<12 | uint(b[1]&0x3f)<<6; r >= 0x800 && r&0xf800 != 0xd800 {
			return 3
		}
	case c < 0xf5:
		if len(b) < 4 || b[1]&0xc0 != 0x80 || b[2]&0xc0 != 0x80 || b[3]&0xc0 != 0x80 {
			return 0
		}
		if r := uint(c&0x07)<<18 | uint(b[1]&0x3f)<<12; r >= 0x10000 && r <= utf8.MaxRune {
			return 4
		}
	}
	return 0
}

// NumberEnd is where the number ends that begins at at, or -1 and how far it was one. A number
// may not be followed by what would make it longer, but that is for the caller, who knows what comes.
func NumberEnd(b []byte, at int) (end int, ok bool) {
	if at < len(b) && b[at] == '-' {
		at++
	}
	if at < len(b) && b[at] == '0' {
		at++
	} else if at, ok = digitsEnd(b, at); !ok {
		return at, false
	}
	if at < len(b) && b[at] == '.' {
		if at, ok = digitsEnd(b, at+1); !ok {
			return at, false
		}
	}
	if at < len(b) && b[at]|0x20 == 'e' {
		at++
		if at < len(b) && (b[at] == '+' || b[at] == '-') {
			at++
		}
		return digitsEnd(b, at)
	}
	return at, true
}

// digitsEnd is where one digit or more end.
func digitsEnd(b []byte, at int) (end int, ok bool) {
	from := at
	for at < len(b) && b[at]-'0' <= 9 {
		at++
	}
	return at, at > from
}

// LoneSurrogate stands in unescaped bytes for half a surrogate pair, which has no UTF-8. It is
// found in no valid UTF-8, so no pattern matches it.
const LoneSurrogate = 0xff

// AppendUnescaped appends the text of a sound string with its escapes resolved. Whole is false when there is
// half a surrogate pair in it. No escape is shorter than what it stands for.
func AppendUnescaped(dst, raw []byte) (text []byte, whole bool) {
	dst = slices.Grow(dst, len(raw)+runBytes)
	out := dst[len(dst) : len(dst)+len(raw)+runBytes]
	var m Marker
	at, n := 0, 0 // of raw is read, of out is written
	whole = true
	for block := 0; block < len(raw); block += 64 {
		for escaped := m.at(raw, block).escaped; escaped != 0; {
			// The escapes of one byte, which nearly all are.
			at, n, escaped = unescapeBytes(out, raw, at, n, block, escaped)
			if escaped == 0 {
				break
			}
			i := block + lowest(escaped)
			escaped &= escaped - 1
			if i < at {
				continue // the other half of a pair
			}
			n += copyRun(out[n:], raw[at:], i-1-at)
			r, length := escapedRune(raw[i-1:])
			at = i - 1 + length
			if utf16.IsSurrogate(r) {
				out[n], n, whole = LoneSurrogate, n+1, false
			} else {
				n += utf8.EncodeRune(out[n:], r)
			}
		}
	}
	n += copy(out[n:], raw[at:])
	return dst[:len(dst)+n], whole
}

// unescapeBytes goes on until there is an escape that begins with u.
func unescapeBytes(out, raw []byte, at, n, block int, escaped uint64) (int, int, uint64) {
	for ; escaped != 0; escaped &= escaped - 1 {
		i := block + lowest(escaped)
		c := raw[i]
		if c == 'u' || i < at {
			break
		}
		n += copyRun(out[n:], raw[at:], i-1-at)
		out[n] = unescaped[c]
		n++
		at = i + 1
	}
	return at, n, escaped
}

// runBytes is more than most runs of bytes between two escapes have.
const runBytes = 32

// copyRun copies n bytes, and maybe some more, to dst, which has room for runBytes more. Most runs take one step without
// a branch that depends on their length.
func copyRun(dst, src []byte, n int) int {
	if n > runBytes || len(src) < runBytes {
		return copy(dst, src[:n])
	}
	d, s := (*[runBytes]byte)(dst), (*[runBytes]byte)(src)
	// An assignment of all is a call, and a loop is one.
	binary.LittleEndian.PutUint64(d[0:8], binary.LittleEndian.Uint64(s[0:8]))
	binary.LittleEndian.PutUint64(d[8:16], binary.LittleEndian.Uint64(s[8:16]))
	binary.LittleEndian.PutUint64(d[16:24], binary.LittleEndian.Uint64(s[16:24]))
	binary.LittleEndian.PutUint64(d[24:32], binary.LittleEndian.Uint64(s[24:32]))
	return n
}

// escapedRune is the rune that the escape at the start of raw stands for, with the next one if it is half a surrogate
// pair, and their length.
func escapedRune(raw []byte) (rune, int) {
	r := hexRune(raw[2:])
	if utf16.IsSurrogate(r) && len(raw) >= 12 && raw[6] == '\\' && raw[7] == 'u' {
		if pair := utf16.DecodeRune(r, hexRune(raw[8:])); pair != utf8.RuneError {
			return pair, 12
		}
	}
	return r, 6
}

// unescaped is the byte that a backslash and another one stand for.
var unescaped = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// hexRune reads four hexadecimal digits.
func hexRune(b []byte) rune {
	return rune(hexValue[b[0]])<<12 | rune(hexValue[b[1]])<<8 | rune(hexValue[b[2]])<<4 | rune(hexValue[b[3]])
}
