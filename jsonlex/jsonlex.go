// Package jsonlex answers where the strings and numbers of JSON (RFC 8259) end and what they say,
// eight bytes at a time, because texts are nearly all of what probes send. What values mean, and
// which are too many, is for its callers: engine for requests, measurement for bodies.
package jsonlex

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

const ones, tops = 0x0101010101010101, 0x8080808080808080

// PlainEnd is where, from at on, the first byte lies that needs a look: a quote, a backslash, a
// control character or the start of a rune beyond ASCII; len(b) when there is none.
func PlainEnd(b []byte, at int) int {
	for at+8 <= len(b) {
		w := binary.LittleEndian.Uint64(b[at:])
		// Each term sets the top bit of bytes that qualify. Borrows make false positives, but
		// only above a true one, and the lowest is what counts.
		special := (w - ones*0x20) | ((w ^ ones*'"') - ones) | ((w ^ ones*'\\') - ones) | w
		if special &= tops; special != 0 {
			return at + bits.TrailingZeros64(special)/8
		}
		at += 8
	}
	for at < len(b) && b[at] >= 0x20 && b[at] != '"' && b[at] != '\\' && b[at] < utf8.RuneSelf {
		at++
	}
	return at
}

// A Flaw is what is wrong with a string, as the end of a sentence.
type Flaw string

// The flaws. Cut is of what simply ends.
const (
	Sound   Flaw = ""
	Cut     Flaw = "is cut short"
	Escape  Flaw = "has an unknown or unfinished escape in a string"
	Control Flaw = "has a control character in a string"
	NotUTF8 Flaw = "has a string that is not UTF-8"
)

// StringEnd is where the closing quote of the string lies whose text begins at at, and whether there are
// backslashes before it. With a flaw it is where that lies.
func StringEnd(b []byte, at int) (end int, escaped bool, flaw Flaw) {
	for {
		if at = PlainEnd(b, at); at == len(b) {
			return at, escaped, Cut
		}
		switch c := b[at]; {
		case c == '"':
			return at, escaped, Sound
		case c == '\\':
			n := escapeLen(b[at:])
			if n == 0 {
				return at, escaped, Escape
			}
			at += n
			escaped = true
		case c < 0x20:
			return at, escaped, Control
		default:
			n := runesLen(b[at:])
			if n == 0 {
				return at, escaped, NotUTF8
			}
			at += n
		}
	}
}

// escapeLen is the length of the escape that b starts with, or 0 when it is none.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) >= 6 && hexValue[b[2]]|hexValue[b[3]]|hexValue[b[4]]|hexValue[b[5]] < 16 {
			return 6
		}
	}
	return 0
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

// LoneSurrogate is what AppendUnescaped writes for half a surrogate pair, which is no character:
// a byte that is nowhere in UTF-8.
const LoneSurrogate = 0xff

// AppendUnescaped appends what the text of a string says. StringEnd must have found it sound. Whole is
// false when there is half a surrogate pair in it.
func AppendUnescaped(dst, raw []byte) (text []byte, whole bool) {
	dst, whole = slices.Grow(dst, len(raw)), true
	for {
		n := copyPlain(dst[len(dst):len(dst)+len(raw)], raw)
		dst, raw = dst[:len(dst)+n], raw[n:]
		if len(raw) == 0 {
			return dst, whole
		}
		if raw[1] != 'u' {
			dst = append(dst, unescaped[raw[1]])
			raw = raw[2:]
			continue
		}
		r := hexRune(raw[2:])
		raw = raw[6:]
		if r < utf8.RuneSelf {
			dst = append(dst, byte(r))
			continue
		}
		if !utf16.IsSurrogate(r) {
			dst = utf8.AppendRune(dst, r)
			continue
		}
		if len(raw) >= 6 && raw[0] == '\\' && raw[1] == 'u' {
			if pair := utf16.DecodeRune(r, hexRune(raw[2:])); pair != utf8.RuneError {
				dst = utf8.AppendRune(dst, pair)
				raw = raw[6:]
				continue
			}
		}
		dst, whole = append(dst, LoneSurrogate), false
	}
}

// copyPlain copies what of raw lies before its first backslash, and says how much that is. It
// may write beyond that within dst, which is as long as raw.
func copyPlain(dst, raw []byte) int {
	at := 0
	for ; at+8 <= len(raw) && at+8 <= len(dst); at += 8 {
		w := binary.LittleEndian.Uint64(raw[at:])
		binary.LittleEndian.PutUint64(dst[at:], w)
		// A zero byte in x is a backslash in w; the lowest is found exactly.
		x := w ^ ones*'\\'
		if zero := (x - ones) &^ x & tops; zero != 0 {
			return at + bits.TrailingZeros64(zero)/8
		}
	}
	for ; at < len(raw) && raw[at] != '\\'; at++ {
		dst[at] = raw[at]
	}
	return at
}

// unescaped is the byte that a backslash and another one stand for.
var unescaped = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// hexRune reads four hexadecimal digits.
func hexRune(b []byte) rune {
	return rune(hexValue[b[0]])<<12 | rune(hexValue[b[1]])<<8 | rune(hexValue[b[2]])<<4 | rune(hexValue[b[3]])
}
