package measurement

import "errors"

// errBase64 is that some data is not base64 even to Python, which is lenient.
var errBase64 = errors.New("not base64")

// appendBase64 appends what Python's b64decode makes of src: bytes outside the alphabet are
// passed over, and whatever follows complete padding is ignored. Stricter decoders would fail
// bodies that the peer scores.
func appendBase64(dst, src []byte) ([]byte, error) {
	var group uint32 // the digits of the present group of four
	digits, pads := 0, 0
	for _, c := range src {
		if c == '=' {
			if pads++; digits >= 2 && digits+pads >= 4 {
				return append(dst, partial(group, digits)...), nil
			}
			continue
		}
		d := base64Value[c]
		if d == 0xff {
			continue
		}
		pads = 0
		group = group<<6 | uint32(d)
		if digits++; digits == 4 {
			dst = append(dst, byte(group>>16), byte(group>>8), byte(group))
			group, digits = 0, 0
		}
	}
	if digits != 0 {
		return dst, errBase64
	}
	return dst, nil
}

// partial is the bytes of a padded group of two or three digits.
func partial(group uint32, digits int) []byte {
	if digits == 2 {
		return []byte{byte(group >> 4)}
	}
	return []byte{byte(group >> 10), byte(group >> 2)}
}

// base64Value is the value of a digit, and 0xff for any other byte.
var base64Value = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		t[c] = byte(i)
	}
	return t
}()
