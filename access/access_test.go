package access_test

import (
	"crypto/sha256"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/network"
	"github.com/openvantage/vantage/probe"
)

const (
	own   probe.ID = "prb_0000000000000001"
	other probe.ID = "prb_0000000000000002"
)

var roles = []access.Role{access.Public, access.Probe, access.Researcher, access.Operator, access.Admin}

func principal(r access.Role) access.Principal {
	p := access.Principal{Role: r}
	if r == access.Probe {
		p.ProbeID = own
	}
	return p
}

func TestRights(t *testing.T) {
	t.Parallel()
	const ok, who, no = fault.Code(""), fault.Unauthenticated, fault.Forbidden
	for _, c := range []struct {
		role                           access.Role
		staff, admin, itself, stranger fault.Code
		issuable                       bool
	}{
		{access.Public, who, who, who, who, false},
		{access.Probe, no, no, ok, no, false},
		{access.Researcher, no, no, no, no, true},
		{access.Operator, ok, no, no, no, true},
		{access.Admin, ok, ok, no, no, true},
		{"", no, no, no, no, false},
		{"SUPERUSER", no, no, no, no, false},
	} {
		p := principal(c.role)
		for name, got := range map[string][2]any{
			"staff":               {code(p.NeedStaff()), c.staff},
			"admin":               {code(p.NeedAdmin()), c.admin},
			"itself":              {code(p.NeedProbe(own)), c.itself},
			"another":             {code(p.NeedProbe(other)), c.stranger},
			"issuable":            {c.role.Issuable(), c.issuable},
			"is staff":            {p.Staff(), c.staff == ok},
			"sees all":            {p.SeesAll(own), c.staff == ok || c.itself == ok},
			"sees all of another": {p.SeesAll(other), c.staff == ok},
		} {
			if got[0] != got[1] {
				t.Errorf("%s of %q: %v, want %v", name, c.role, got[0], got[1])
			}
		}
	}

	t.Run("a role with a probe's id is not that probe", func(t *testing.T) {
		t.Parallel()
		for _, r := range []access.Role{access.Public, access.Researcher, access.Operator, access.Admin} {
			p := access.Principal{Role: r, ProbeID: own}
			if p.NeedProbe(own) == nil || p.SeesAll(own) != p.Staff() {
				t.Errorf("%s is", r)
			}
		}
	})
}

func code(err error) fault.Code {
	if err == nil {
		return ""
	}
	return fault.Of(err).Code
}

func TestSeesNetwork(t *testing.T) {
	t.Parallel()
	for setting, shown := range map[access.PublicNetworks]func(peers int) bool{
		access.Always:  func(int) bool { return true },
		access.Grouped: func(peers int) bool { return peers >= 2 },
		access.Never:   func(int) bool { return false },
		"":             func(int) bool { return false }, // a setting that nobody made shows nothing
	} {
		for _, r := range roles {
			p := principal(r)
			for peers := range 4 {
				for _, id := range []probe.ID{own, other} {
					all := p.Staff() || r == access.Probe && id == own
					if got, want := setting.SeesNetwork(p, id, peers), all || shown(peers); got != want {
						t.Errorf("%q, %s, %s, %d peers: the network is seen: %v", setting, r, id, peers, got)
					}
					for measured := range network.ASN(2) {
						want := all || shown(peers) && (measured == 1 || setting == access.Always)
						if got := setting.SeesProbeOf(p, id, peers, 1, measured); got != want {
							t.Errorf("%q, %s, %s, %d peers, measured in AS%d: the probe is seen: %v", setting, r, id, peers, measured, got)
						}
					}
				}
			}
		}
	}
}

func tokens(t *rapid.T) (access.Role, string, access.Hash) {
	r := rapid.SampledFrom(roles[1:]).Draw(t, "role")
	var random [32]byte
	copy(random[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "random"))
	token, h := access.NewToken(r, random)
	return r, token, h
}

func TestToken(t *testing.T) {
	t.Parallel()

	t.Run("it says what it is, and is looked up by its hash", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(t *rapid.T) {
			r, token, h := tokens(t)
			got, err := access.ParseToken(token)
			if err != nil || got != h || h != sha256.Sum256([]byte(token)) {
				t.Fatalf("%s is parsed as %x, %v", token, got, err)
			}
			if !strings.HasPrefix(token, "vantage_"+strings.ToLower(string(r))+"_") {
				t.Fatalf("the token of %s is %s", r, token)
			}
		})
	})

	t.Run("a changed character is noticed, and never the same token", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(t *rapid.T) {
			_, token, h := tokens(t)
			i := rapid.IntRange(0, len(token)-1).Draw(t, "at")
			c := rapid.Byte().Draw(t, "to")
			if token[i] == c {
				return
			}
			b := []byte(token)
			b[i] = c
			if got, err := access.ParseToken(string(b)); err == nil || got == h {
				t.Fatalf("%s with another character at %d is taken", token, i)
			} else if !fault.Is(err, fault.Unauthenticated) {
				t.Fatalf("%v", err)
			}
		})
	})

	t.Run("what is cut off, longer or empty is none", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(t *rapid.T) {
			_, token, _ := tokens(t)
			for _, s := range []string{token[:rapid.IntRange(0, len(token)-1).Draw(t, "cut")], token + "A", " " + token, ""} {
				if _, err := access.ParseToken(s); !fault.Is(err, fault.Unauthenticated) {
					t.Fatalf("%q: %v", s, err)
				}
			}
		})
	})
}
