// Package ooniapi answers the established network's own questions: the REST paths that its
// probes, tools and pages already speak, in its spelling. What is changed goes through service as
// everywhere; nothing is decided here. Package server alone imports it.
package ooniapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/network"
	"github.com/openvantage/vantage/service"
)

// An API has what the handlers need.
type API struct {
	DB    *db.DB
	Flows *service.Service
	// Body is the body of a measurement, byte for byte. NOT_FOUND when there is none.
	Body func(context.Context, measurement.ID) ([]byte, error)
	// Principal says who asks.
	Principal func(context.Context) access.Principal
	// PublicURL is where clients find the API, without a slash at its end; empty: where each request was sent to.
	PublicURL string
	// Locate says where the address of the request is: ZZ, AS0 and no name where nobody knows.
	Locate func(context.Context) (country.Code, network.ASN, string)
	// Fail answers a request with a fault; status 0 is the one that fits the code.
	Fail func(w http.ResponseWriter, r *http.Request, status int, err error)
	// Charge takes points from whoever asks, and tells in the header what is left. It fails with RATE_LIMITED.
	Charge func(w http.ResponseWriter, r *http.Request, points float64) error
	// Place is where an address is: ZZ, AS0 and no name where nobody knows.
	Place func(netip.Addr) (country.Code, network.ASN, string)
	// Limits bound the measurements that are taken.
	Limits measurement.Limits
	// Services are what probes are told of the world beside this server.
	Services Services

	counts   *counts
	overview overview
}

// Handler serves the paths below /api/, /report and /bouncer.
func (a *API) Handler() http.Handler {
	a.counts = newCounts()
	mux := http.NewServeMux()
	a.readRoutes(mux)
	a.probeRoutes(mux)
	a.listRoutes(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if allowed := methodsOf(mux, r.URL); len(allowed) > 0 {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			a.Fail(w, r, http.StatusMethodNotAllowed, fault.New(fault.Invalid, "This path takes %s.", strings.Join(allowed, " and ")))
			return
		}
		a.Fail(w, r, 0, fault.New(fault.NotFound, "There is nothing at this path. The API is at /graphql."))
	})
	return mux
}

// route is a handler that takes its price, reads at most limit bytes, and answers with the fault if do fails.
func (a *API) route(points float64, limit int, do func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := a.Charge(w, r, points)
		if err == nil {
			r.Body = http.MaxBytesReader(w, r.Body, int64(limit))
			err = do(w, r)
		}
		if err == nil {
			return
		}
		status := 0
		if refused := new(refusal); errors.As(err, &refused) {
			status = refused.status
		}
		a.Fail(w, r, status, err)
	}
}

// answer is a route that writes what do says as JSON, which is true at this moment for this caller.
func (a *API) answer(points float64, limit int, do func(*http.Request) (any, error)) http.HandlerFunc {
	return a.route(points, limit, func(w http.ResponseWriter, r *http.Request) error {
		said, err := do(r)
		if err == nil {
			writeJSON(w, 0, said)
		}
		return err
	})
}

// A refusal is a fault with a status of its own.
type refusal struct {
	fault  *fault.Error
	status int
}

func (r *refusal) Error() string { return r.fault.Error() }

func (r *refusal) Unwrap() error { return r.fault }

// head says what kind of answer follows, and how long anybody may keep it; 0 is not at all.
func head(w http.ResponseWriter, kind string, maxAge time.Duration) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if maxAge > 0 {
		h.Set("Cache-Control", "public, max-age="+strconv.Itoa(int(maxAge.Seconds())))
	}
}

func writeJSON(w http.ResponseWriter, maxAge time.Duration, v any) {
	head(w, "application/json", maxAge)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // the client is gone if this fails
}

// methodsOf are those that a path is served for. The mux would say so itself if it had nothing for all paths.
func methodsOf(mux *http.ServeMux, u *url.URL) (allowed []string) {
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		if _, pattern := mux.Handler(&http.Request{Method: m, URL: u}); strings.HasPrefix(pattern, m+" ") {
			allowed = append(allowed, m)
		}
	}
	return allowed
}
