package server

import (
	"context"
	"net/http"
	"strings"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/resolvers"
	"github.com/openvantage/vantage/service"
)

// An authenticator finds out who makes a request, and from where.
type authenticator struct {
	flows   *service.Service
	sources *sources
	guessed func(context.Context) error // takes the price of a bad token
	fail    func(http.ResponseWriter, *http.Request, int, error)
}

// wrap puts the principal and the source of a request into its context. A bad token is refused
// at once: whoever sends one means to be somebody.
func (a authenticator) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := withSource(r.Context(), a.sources.of(r))
		p, err := a.principal(ctx, r.Header.Get("Authorization"))
		if err != nil {
			a.fail(w, r, 0, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(resolvers.WithPrincipal(ctx, p)))
	})
}

// principal is who sent this Authorization header. It fails with UNAUTHENTICATED, and with
// RATE_LIMITED when too many from that source did.
func (a authenticator) principal(ctx context.Context, header string) (access.Principal, error) {
	if header == "" {
		return resolvers.Principal(ctx), nil
	}
	kind, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(kind, "bearer") || token == "" {
		return access.Anyone, fault.New(fault.Unauthenticated, "Send the token as `Authorization: Bearer TOKEN`.")
	}
	p, err := a.flows.Authenticate(ctx, strings.TrimSpace(token))
	if fault.Is(err, fault.Unauthenticated) {
		if limited := a.guessed(ctx); limited != nil {
			return access.Anyone, limited
		}
	}
	return p, err
}
