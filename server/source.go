package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/resolvers"
)

// sources finds out which network a request comes from. Addresses are neither stored nor
// logged.
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

// registrations bounds how many probes one source can register. Each server process counts
// for itself: it is a brake on floods, not a quota.
type registrations struct {
	perHour int
	buckets *lru.Cache[netip.Prefix, *rate.Limiter]
}

func newRegistrations(perHour int) *registrations {
	const remembered = 10_000 // sources; the longest unused are forgotten
	c, _ := lru.New[netip.Prefix, *rate.Limiter](remembered)
	return &registrations{perHour, c}
}

// spend takes one registration of the request's source. Staff is not counted.
func (g *registrations) spend(ctx context.Context) error {
	if resolvers.Principal(ctx).Staff() {
		return nil
	}
	from, _ := ctx.Value(sourceKey{}).(netip.Prefix)
	fresh := rate.NewLimiter(rate.Limit(float64(g.perHour)/time.Hour.Seconds()), g.perHour)
	bucket, known, _ := g.buckets.PeekOrAdd(from, fresh)
	if !known {
		bucket = fresh
	}
	g.buckets.Get(from) // mark it used
	if !bucket.Allow() {
		wait := time.Hour / time.Duration(max(1, g.perHour))
		return fault.New(fault.RateLimited, "Too many probes were registered from your network. Try again later.").After(wait)
	}
	return nil
}
