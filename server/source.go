package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// sources finds out which network a request comes from. Addresses are neither stored nor
// logged; of networks db.SaveRates keeps a hash for minutes.
type sources struct{ proxies []netip.Prefix }

func newSources(trusted []string) (*sources, error) {
	s := &sources{}
	for _, t := range trusted {
		p, err := netip.ParsePrefix(t)
		if err != nil {
			return nil, fmt.Errorf("TRUSTED_PROXIES: %q is not a network like 10.0.0.0/8", t)
		}
		s.proxies = append(s.proxies, p)
	}
	return s, nil
}

// of is the source of a request: the last address that no trusted proxy vouches for, as an
// IPv4 /24 or an IPv6 /56.
func (s *sources) of(r *http.Request) netip.Prefix {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && s.trusts(addr); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		addr = hop
	}
	bits := 56
	if addr = addr.Unmap(); addr.Is4() {
		bits = 24
	}
	p, _ := addr.Prefix(bits) // bits fit the address
	return p
}

func (s *sources) trusts(a netip.Addr) bool {
	for _, p := range s.proxies {
		if p.Contains(a.Unmap()) {
			return true
		}
	}
	return false
}

type sourceKey struct{}

func withSource(ctx context.Context, p netip.Prefix) context.Context {
	return context.WithValue(ctx, sourceKey{}, p)
}

// sourceOf is the network that a request comes from; the zero Prefix when it is not known.
func sourceOf(ctx context.Context) netip.Prefix {
	p, _ := ctx.Value(sourceKey{}).(netip.Prefix)
	return p
}
