package jsonlex

// mark fills in m from text, which is long enough. Which bytes are escaped is not yet known: the quotes are all there
// are, and in the place of the escaped bytes are the backslashes.
//
//go:noescape
func mark(m []marks, text []byte)
