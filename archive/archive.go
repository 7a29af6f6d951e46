// Package archive answers: how do bodies lie in the object store, and how are they had back?
//
// Bodies that were received in one hour, of one country and test, are a pile; about 20 MB of a pile are
// a pack, which is two objects: posts, a tar of the bodies byte for byte, and lines, one measurement each.
// Both are the established network's layout, so its tools read them. Every body is a gzip member of
// its own: `tar xzf` and `zcat` see one file, and one body is one range request. The same bodies
// make the same objects, byte for byte.
//
// Which packs count is in the database: an object that no row names is the remains of an attempt.
// Nothing here knows the database; packages service, server and main import this one.
package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/measurement"
)

// PackBytes is what the posts of a pack are to have, compressed. A pack ends with the body that
// passes it.
//
// Source: design/measurements.md, section 1 (the peer's uploader).
const PackBytes = 20_000_000

// PackBodies is how many bodies a pack has at most, so that its rows are written in a moment.
const PackBodies = 20_000

// Suffixes of the two objects of a pack.
const (
	PostsSuffix = ".tar.gz"
	LinesSuffix = ".jsonl.gz"
)

// A Pile is where a body belongs. Hour is the whole hour of its receipt, UTC; TestName is spelled as
// in the uid.
type Pile struct {
	Hour     time.Time
	Country  country.Code
	TestName string
}

// PileOf is the pile of a body. It is false for an id that is none of ours.
func PileOf(uid measurement.ID) (Pile, bool) {
	at, cc, ok := uid.Split()
	if !ok {
		return Pile{}, false
	}
	return Pile{at.Truncate(time.Hour), cc, strings.Split(string(uid), "_")[2]}, true
}

// String is the pile's name, and that of the directory in its tar files.
func (p Pile) String() string {
	return p.Hour.UTC().Format("2006010215") + "_" + string(p.Country) + "_" + segment(p.TestName)
}

// Name is the name of both objects of the kth pack of a collector, without their suffixes.
//
// Source: design/measurements.md, section 1 (the peer's bucket since 2020-10-20).
func (p Pile) Name(collector, k int) string {
	return fmt.Sprintf("raw/%s/%s/%s/%s.n%d.%d", p.Hour.UTC().Format("20060102/15"), p.Country, segment(p.TestName), p, collector, k)
}

// packName is what the objects of packs are called, ours and the established network's since 2020-10-20.
var packName = regexp.MustCompile(`/([0-9]{10})_([A-Z]{2})_([0-9a-z-]+)\.n[0-9]+\.[0-9]+(\.tar\.gz|\.jsonl\.gz)$`)

// PileOfObject is what the name of a pack's object says: its pile, with the test as in the name, and which of both it is,
// PostsSuffix or LinesSuffix. It is false for what is no pack's.
func PileOfObject(name string) (p Pile, suffix string, ok bool) {
	part := packName.FindStringSubmatch(name)
	if part == nil {
		return p, "", false
	}
	hour, err := time.Parse("2006010215", part[1])
	return Pile{hour, country.Code(part[2]), part[3]}, part[4], err == nil
}

// segment is a test's name as part of a path. Probes name tests: names may be empty, or longer than
// a file's name may be. "-" is in no name, so nothing else is spelled like this.
func segment(test string) string {
	const longest = 100
	switch {
	case test == "":
		return "-"
	case len(test) > longest:
		sum := sha256.Sum256([]byte(test))
		return test[:longest-17] + "-" + hex.EncodeToString(sum[:8])
	}
	return test
}

// An Object is one file in the store.
type Object struct {
	Name   string
	Size   int64
	SHA256 [32]byte
}

// An Entry says where a body lies in the objects of its pack, and what it is. Lengths are of gzip
// members. Line is counted from 0.
type Entry struct {
	UID                    measurement.ID
	PostOffset, PostLength int64
	LineOffset, LineLength int64
	Line                   int
	Size                   int
	SHA256                 [32]byte
}

// A Damage says that the store has something else than what was put there.
type Damage struct{ Object, Problem string }

// Error is for the log.
func (d *Damage) Error() string { return d.Object + " is damaged: " + d.Problem }
