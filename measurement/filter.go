package measurement

import (
	"encoding/binary"
	"math/bits"
)

// A filter says where in a text patterns may begin. It knows windows, of four bytes, of each pattern: as many side by
// side as its stride, so that one of them lies at a place of the text that it looks at. They are the pattern's rarest
// ones, for most patterns begin like most pages.
type filter struct {
	stride int

	// Tables are indexed by hashes, so they may say too much, never too little. All but a few places are done with
	// the bits alone.
	seen   bitTable  // that a window is some pattern's
	exact  bitTable  // that eight bytes from a window on are
	wide   backTable // by these, how far before it patterns begin: a bit for each distance
	narrow backTable // by a window, the same for patterns that end sooner
}

const (
	window    = 4
	maxStride = 4
	wideBytes = 8
	maxBack   = 32 // the distances that a number has bits for
)

// newFilter is for patterns of at least window+stride-1 bytes.
func newFilter(patterns []string, stride int) filter {
	places := len(patterns) * stride
	f := filter{stride: stride, seen: newBitTable(places), exact: newBitTable(places), wide: newBackTable(places), narrow: newBackTable(len(patterns))}
	var common [1 << 16]uint16 // how often windows occur, by their hash
	count := func(s string, times uint16) {
		for i := range len(s) - window + 1 {
			n := &common[hash(s[i:])%(1<<16)]
			*n = min(*n+times, 1<<15)
		}
	}
	count(typicalPage, 100)
	for _, p := range patterns {
		count(p, 1)
	}
	for _, p := range patterns {
		first := f.rarest(p, &common)
		for back := first; back < first+stride; back++ {
			h := hash(p[back:])
			f.seen.add(h)
			if back+wideBytes <= len(p) {
				w := hashWide(binary.LittleEndian.Uint64([]byte(p[back:])))
				f.exact.add(w)
				f.wide.add(w, back)
			} else {
				f.narrow.add(h, back)
			}
		}
	}
	return f
}

// rarest is where in the pattern its windows begin.
func (f *filter) rarest(pattern string, common *[1 << 16]uint16) (first int) {
	least := ^uint32(0)
	for i := range min(len(pattern)-window, maxBack-1) - f.stride + 2 {
		var times uint32
		for at := i; at < i+f.stride; at++ {
			times += uint32(common[hash(pattern[at:])%(1<<16)])
			if at+wideBytes > len(pattern) {
				times += 1 << 16 // looked at by eight bytes it would be rarer
			}
		}
		if times < least {
			least, first = times, i
		}
	}
	return first
}

// typicalPage has what is not worth looking for: the words of pages and scripts.
const typicalPage = `<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Type" content="text/html; charset=utf-8"><title></title><meta property="og:image" name="description" content="">
<link rel="stylesheet" type="text/css" href="/css/style.min.css"><script type="text/javascript" src="https://www.example.com/static/js/main.js" async></script>
<script>var data = {"enabled":true,"visible":false,"value":null,"url":"http:\/\/"}; function(event) { return this.element.addEventListener(document.getElementById("content")); }
if (typeof window.location === "undefined") { new Date().getTime(); } else { parseInt(Math.random()); }</script>
<style>.container { display: none; background-color: #ffffff; font-size: 14px; margin: 0 auto; padding: 10px; position: absolute; border: 1px solid; height: 100%; }</style>
</head><body class="page"><div id="main" class="container"><ul class="menu"><li class="menu-item"><a href="https://www.example.com/index.html" title="Home" target="_blank">
<span class="icon"></span></a></li></ul><p>Please read our privacy policy and contact us for more information about the services.</p>
<img src="/images/image.png" alt="" width="100" height="100"><br/><input type="hidden" name="action" value=""><form method="post"><button type="button" class="btn">
<td align="center" style="text-align: left"><iframe src=""></iframe></td></form><!-- end --></div></body></html>        ` + "\n\n\t\t\t\t\r\n"

// next is the next place from at on where a window lies, and how far before it patterns may begin, or 0 at the end.
func (f *filter) next(text []byte, at int) (place int, back uint32) {
	seen, stride := f.seen, f.stride // in registers
	for ; at+wideBytes <= len(text); at += stride {
		w := binary.LittleEndian.Uint64(text[at : at+wideBytes])
		if h := hashWindow(uint32(w)); seen.has(h) {
			back := f.narrow.get(h)
			if h := hashWide(w); f.exact.has(h) {
				back |= f.wide.get(h)
			}
			if back != 0 {
				return at, back
			}
		}
	}
	for ; at+window <= len(text); at += stride {
		if back := f.narrow.get(hash(text[at:])); back != 0 {
			return at, back
		}
	}
	return at, 0
}

// hashBits is how many bits of a hash there are.
const hashBits = 21

// hash is that of the window that s begins with.
func hash[S []byte | string](s S) uint32 {
	return hashWindow(uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24)
}

func hashWindow(w uint32) uint32 { return hashWide(uint64(w)) }

// hashWide is hashWindow for eight bytes.
func hashWide(w uint64) uint32 { return uint32(w * 0x9e3779b97f4a7c15 >> (64 - hashBits)) }

// A bitTable has a bit for each hash.
type bitTable struct {
	words []uint64
	mask  uint32
}

func newBitTable(entries int) bitTable {
	n := 1 << min(bits.Len(uint(max(entries, 1<<10))*32), hashBits) // one in 32 to 64 is set
	return bitTable{make([]uint64, n/64), uint32(n - 1)}
}

func (t *bitTable) add(hash uint32) { t.words[hash&t.mask/64] |= 1 << (hash % 64) }

func (t *bitTable) has(hash uint32) bool { return t.words[hash&t.mask/64]>>(hash%64)&1 != 0 }

// A backTable has a set of distances for each hash.
type backTable struct {
	backs []uint32
	mask  uint32
}

func newBackTable(entries int) backTable {
	n := 1 << min(bits.Len(uint(max(entries, 1<<8))*2), hashBits)
	return backTable{make([]uint32, n), uint32(n - 1)}
}

func (t *backTable) add(hash uint32, back int) { t.backs[hash&t.mask] |= 1 << back }

func (t *backTable) get(hash uint32) uint32 { return t.backs[hash&t.mask] }
