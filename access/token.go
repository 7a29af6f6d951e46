package access

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"strings"

	"github.com/openvantage/vantage/fault"
)

// A Hash is what is stored of a token: SHA-256 suffices for 32 random bytes.
type Hash [sha256.Size]byte

// prefixes are for people and secret scanners; rights come from the stored row alone.
var prefixes = map[Role]string{
	Probe: "vantage_probe_", Researcher: "vantage_researcher_", Operator: "vantage_operator_", Admin: "vantage_admin_",
}

// Issuable reports whether `vantage token create` and createToken may make this role.
func (r Role) Issuable() bool { return r == Researcher || r == Operator || r == Admin }

// NewToken spells 32 random bytes as a bearer token of the role: a readable prefix, the
// bytes, and a checksum that tells a mistyped token from an unknown one without a look-up.
func NewToken(r Role, random [32]byte) (token string, h Hash) {
	token = prefixes[r] + base64.RawURLEncoding.EncodeToString(random[:])
	token += checksum(token)
	return token, sha256.Sum256([]byte(token))
}

// ParseToken checks a bearer token's form and returns what it is looked up by. It fails with
// UNAUTHENTICATED.
func ParseToken(token string) (Hash, error) {
	const sum = 6
	known := false
	for _, p := range prefixes {
		known = known || strings.HasPrefix(token, p) && len(token) == len(p)+43+sum
	}
	if !known {
		return Hash{}, fault.New(fault.Unauthenticated, "This is not a token of this server.")
	}
	if checksum(token[:len(token)-sum]) != token[len(token)-sum:] {
		return Hash{}, fault.New(fault.Unauthenticated, "The token is mistyped or cut off.")
	}
	return sha256.Sum256([]byte(token)), nil
}

func checksum(s string) string {
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(s))))
}
