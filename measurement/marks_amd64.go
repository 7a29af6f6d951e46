package measurement

// mark notes what the bytes of text are in as many blocks as m has: all but which are escaped. Text is long enough.
//
//go:noescape
func mark(m []marks, text []byte)
