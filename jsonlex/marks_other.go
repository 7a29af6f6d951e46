//go:build !amd64

package jsonlex

func mark(m []marks, text []byte) {
	for i := range m {
		markOne(&m[i], (*[64]byte)(text[64*i:]))
	}
}
