package measurement

import (
	"cmp"
	"regexp"
	"strings"
)

// A version is one by Python's PEP 440, as far as it takes to compare it with plain releases:
// the peer compares probe versions so, and others do not parse.
type version struct {
	epoch   string
	release []string // digits without leading zeros; the last is not zero
	offset  int      // -1 before the release (alpha, dev …), 1 after it (post, local), else 0
}

// versionForm is the grammar of PEP 440, appendix B.
var versionForm = regexp.MustCompile(`(?i)^\s*v?(?:([0-9]+)!)?([0-9]+(?:\.[0-9]+)*)` +
	`([-_.]?(?:alpha|a|beta|b|preview|pre|c|rc)[-_.]?[0-9]*)?` +
	`(-[0-9]+|[-_.]?(?:post|rev|r)[-_.]?[0-9]*)?` +
	`([-_.]?dev[-_.]?[0-9]*)?` +
	`(\+[a-z0-9]+(?:[-_.][a-z0-9]+)*)?\s*$`)

func parseVersion(s string) (version, bool) {
	part := versionForm.FindStringSubmatch(s)
	if part == nil {
		return version{}, false
	}
	v := version{epoch: strings.TrimLeft(part[1], "0"), release: strings.Split(part[2], ".")}
	for i := range v.release {
		v.release[i] = strings.TrimLeft(v.release[i], "0")
	}
	for len(v.release) > 0 && v.release[len(v.release)-1] == "" {
		v.release = v.release[:len(v.release)-1]
	}
	pre, post, dev, local := part[3] != "", part[4] != "", part[5] != "", part[6] != ""
	switch {
	case pre, dev && !post:
		v.offset = -1
	case post, local:
		v.offset = 1
	}
	return v, true
}

// compare is negative when v is older than a plain release such as "3.17.2".
func (v version) compare(release string) int {
	if v.epoch != "" {
		return 1
	}
	for i, want := range strings.Split(release, ".") {
		var have string
		if i < len(v.release) {
			have = v.release[i]
		}
		want = strings.TrimLeft(want, "0")
		if c := cmp.Or(cmp.Compare(len(have), len(want)), strings.Compare(have, want)); c != 0 {
			return c
		}
	}
	if len(v.release) > strings.Count(release, ".")+1 {
		return 1
	}
	return v.offset
}
