// Package access answers: who is asking, what may they do, and what may they see?
//
// Rules only: no clock, no randomness, no database. Tokens are made from random bytes that
// the caller brings and are looked up by the caller. Any package but the other rules may
// import it.
package access

import (
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/network"
	"github.com/openvantage/vantage/probe"
)

// A Role is what a token may do, from least to most.
type Role string

// The roles. Public needs no token.
const (
	Public     Role = "PUBLIC"
	Probe      Role = "PROBE"
	Researcher Role = "RESEARCHER"
	Operator   Role = "OPERATOR"
	Admin      Role = "ADMIN"
)

// A Principal is whoever makes a request. The zero Principal is not valid: use Anyone.
// ProbeID is set for Role Probe alone, TokenID for the roles above it.
type Principal struct {
	Role    Role
	ProbeID probe.ID
	TokenID int64
	Name    string
}

// Anyone is a request without a token.
var Anyone = Principal{Role: Public}

// Staff reports whether the principal runs the network: OPERATOR or ADMIN.
func (p Principal) Staff() bool { return p.Role == Operator || p.Role == Admin }

// NeedStaff fails with UNAUTHENTICATED without a token and with FORBIDDEN with a lesser one.
func (p Principal) NeedStaff() error { return p.need(p.Staff(), Operator) }

// NeedAdmin fails with UNAUTHENTICATED without a token and with FORBIDDEN with a lesser one.
func (p Principal) NeedAdmin() error { return p.need(p.Role == Admin, Admin) }

// NeedProbe fails unless the principal is that probe: with UNAUTHENTICATED without a token,
// and with FORBIDDEN with any other.
func (p Principal) NeedProbe(id probe.ID) error {
	if p.Role == Public {
		return fault.New(fault.Unauthenticated, "Send the probe's secret as a bearer token.")
	}
	if p.Role != Probe || p.ProbeID != id {
		return fault.New(fault.Forbidden, "This token is not the secret of that probe.")
	}
	return nil
}

func (p Principal) need(ok bool, role Role) error {
	switch {
	case ok:
		return nil
	case p.Role == Public:
		return fault.New(fault.Unauthenticated, "Send a bearer token of the %s role.", role)
	default:
		return fault.New(fault.Forbidden, "This needs the %s role.", role)
	}
}

// PublicNetworks says when the public sees which network a probe is in.
type PublicNetworks string

// The settings. Grouped is the default: a probe that is alone in its country and network
// points to the person who runs it.
const (
	Always  PublicNetworks = "always"
	Grouped PublicNetworks = "grouped"
	Never   PublicNetworks = "never"
)

// SeesAll reports whether the principal sees everything of this probe: staff, and the probe
// itself.
func (p Principal) SeesAll(id probe.ID) bool {
	return p.Staff() || p.Role == Probe && p.ProbeID == id
}

// SeesNetwork reports whether the principal may learn which network a probe is in, and all
// that could be matched with its measurements. peers is how many ACTIVE probes that were
// ever seen share its country and network, the probe itself included. Probes that anybody
// can register do not count: registering a second one must not unmask the first.
func (n PublicNetworks) SeesNetwork(p Principal, id probe.ID, peers int) bool {
	if p.SeesAll(id) {
		return true
	}
	switch n {
	case Always:
		return true
	case Grouped:
		return peers >= 2
	case Never:
		return false
	}
	return false
}

// SeesProbeOf reports whether the principal may learn which probe made a measurement. The
// measurement's own network is public, so a probe that is withheld, or that measured outside
// the network it declares, must not be named beside it.
func (n PublicNetworks) SeesProbeOf(p Principal, id probe.ID, peers int, declared, measured network.ASN) bool {
	if p.SeesAll(id) {
		return true
	}
	return n.SeesNetwork(p, id, peers) && (declared == measured || n == Always)
}
