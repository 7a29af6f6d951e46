package engine

import (
	"bytes"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// compressFrom is from how many bytes on a response is compressed: below, it is one packet anyway.
const compressFrom = 1 << 10

// An encoding is a Content-Encoding; the zero value is none.
type encoding string

const (
	identity  encoding = ""
	gzipped   encoding = "gzip"
	zstandard encoding = "zstd"
)

// acceptedEncoding chooses by the Accept-Encoding header. Of two that are wanted alike it is zstd, which
// is faster; none when nothing was asked for.
func acceptedEncoding(accept []string) encoding {
	const unnamed = -1
	zstdQ, gzipQ, identityQ, others := float64(unnamed), float64(unnamed), float64(unnamed), 0.
	for name, q := range weighted(accept) {
		switch name {
		case "zstd":
			zstdQ = q
		case "gzip", "x-gzip":
			gzipQ = q
		case "identity":
			identityQ = q
		case "*":
			others = q
		}
	}
	if zstdQ == unnamed {
		zstdQ = others
	}
	if gzipQ == unnamed {
		gzipQ = others
	}
	switch best := max(zstdQ, gzipQ); {
	case best <= 0 || identityQ > best:
		return identity
	case zstdQ == best:
		return zstandard
	default:
		return gzipped
	}
}

// The fastest levels: bandwidth of researchers is scarce, but so are our two cores.
var (
	gzipWriters = sync.Pool{New: func() any {
		w, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
		if err != nil { // the level exists
			panic(err)
		}
		return w
	}}
	zstdEncoder = sync.OnceValue(func() *zstd.Encoder { // EncodeAll may be called at the same time
		w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(256<<10), zstd.WithLowerEncoderMem(true))
		if err != nil { // the options are valid
			panic(err)
		}
		return w
	})
)

// compress appends src, encoded, to dst. There must be an encoding.
func (c encoding) compress(dst, src []byte) []byte {
	if c == zstandard {
		return zstdEncoder().EncodeAll(src, dst)
	}
	out := bytes.NewBuffer(dst)
	w := gzipWriters.Get().(*gzip.Writer)
	w.Reset(out)
	_, _ = w.Write(src) // memory does not fail
	_ = w.Close()
	gzipWriters.Put(w)
	return out.Bytes()
}
