package measurement

// mark fills in m from text, which is long enough. The quotes are all there are, and the escaped bytes are the
// backslashes, as yet.
//
//go:noescape
func mark(m []marks, text []byte)
