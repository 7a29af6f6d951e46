package ooniapi

import (
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/network"
)

// Prices in points, of some 10 µs each; a submission's is that of the mutation.
const (
	cheap      = 1
	lookup     = 10
	submission = 5
)

// probeRoutes serve what probes of the established network call between check-in and the end of a run.
//
// Source: design/ooni-api.md, sections 1.3 and 2.
func (a *API) probeRoutes(mux *http.ServeMux) {
	large := a.maxPost()
	for pattern, do := range map[string]http.HandlerFunc{
		"POST /report":                   a.answer(cheap, maxSmall, a.openReport),
		"POST /report/{report_id}":       a.answer(submission, large, a.takeEntry),
		"POST /report/{report_id}/close": a.answer(cheap, maxSmall, closeReport),
		"GET /api/_/check_report_id":     a.answer(cheap, maxSmall, checkReportID),

		"POST /api/v1/submit_measurement": a.answer(submission, large, a.takeSubmission),
		"GET /api/v1/manifest":            a.answer(cheap, maxSmall, noCredentials),
		"POST /api/v1/sign_credential":    a.answer(cheap, maxSmall, noCredentials),

		"POST /api/v1/register":                       a.answer(cheap, maxSmall, a.register),
		"POST /api/v1/login":                          a.answer(cheap, maxSmall, a.login),
		"PUT /api/v1/update/{client_id}":              a.answer(cheap, maxSmall, a.update),
		"GET /api/v1/test-list/tor-targets":           a.answer(cheap, maxSmall, a.torTargets),
		"GET /api/v1/test-list/psiphon-config":        a.answer(cheap, maxSmall, a.psiphonConfig),
		"GET /api/v1/test-helpers":                    a.answer(cheap, maxSmall, a.testHelpers),
		"GET /api/v1/collectors":                      a.answer(cheap, maxSmall, a.collectors),
		"POST /bouncer/net-tests":                     a.answer(cheap, maxSmall, a.netTests),
		"POST /api/v1/geolookup":                      a.answer(lookup, maxSmall, a.geolookup),
		"GET /api/v2/ooniprobe/vpn-config/{provider}": a.answer(cheap, maxSmall, vpnConfig),
	} {
		mux.HandleFunc(pattern, do)
	}
}

// noCredentials tells probes to go on without: a manifest that is not found is no error to them.
func noCredentials(*http.Request) (any, error) {
	return nil, fault.New(fault.NotFound, "This server gives no anonymous credentials. Submit without.")
}

// profile is what a probe says of itself when it registers. It is read for its form alone.
type profile struct {
	Platform        string   `json:"platform"`
	ProbeASN        string   `json:"probe_asn"`
	ProbeCC         string   `json:"probe_cc"`
	SoftwareName    string   `json:"software_name"`
	SoftwareVersion string   `json:"software_version"`
	SupportedTests  []string `json:"supported_tests"`
}

func (a *API) register(r *http.Request) (any, error) {
	if err := decode(r, &profile{}); err != nil {
		return nil, err
	}
	return map[string]string{"client_id": a.Flows.Enroll()}, nil
}

// update is a no-op: nothing is kept of a probe that could be brought up to date.
func (a *API) update(r *http.Request) (any, error) {
	if err := decode(r, &profile{}); err != nil {
		return nil, err
	}
	return map[string]string{"status": "ok"}, nil
}

func (a *API) login(r *http.Request) (any, error) {
	var in struct {
		Username *string `json:"username"`
		Password *string `json:"password"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	for field, v := range map[string]*string{"username": in.Username, "password": in.Password} {
		if v == nil || *v == "" {
			return nil, fault.New(fault.Unauthenticated, "Missing credentials.").At(field)
		}
	}
	token, until, err := a.Flows.LogIn(*in.Username)
	if err != nil {
		return nil, fault.Of(err).At("username")
	}
	return map[string]string{"token": token, "expire": until.Format(time.RFC3339)}, nil
}

// loggedIn fails with UNAUTHENTICATED without a token. Whatever is sent as one was looked at before.
func loggedIn(r *http.Request) error {
	if r.Header.Get("Authorization") == "" {
		return fault.New(fault.Unauthenticated, "Log in first, and send the token as `Authorization: Bearer TOKEN`.")
	}
	return nil
}

// torTargets are the same for each country_code.
func (a *API) torTargets(r *http.Request) (any, error) {
	return a.Services.TorTargets, loggedIn(r)
}

func (a *API) psiphonConfig(r *http.Request) (any, error) {
	if err := loggedIn(r); err != nil {
		return nil, err
	}
	if len(a.Services.PsiphonConfig) == 0 {
		return nil, fault.New(fault.NotFound, "This server has no configuration of Psiphon.")
	}
	return a.Services.PsiphonConfig, nil
}

func vpnConfig(*http.Request) (any, error) {
	return nil, fault.New(fault.NotFound, "This server has no configuration of this provider.")
}

func (a *API) testHelpers(*http.Request) (any, error) { return a.Services.TestHelpers, nil }

func (a *API) collectors(*http.Request) (any, error) { return a.Services.Collectors, nil }

// A netTest tells an old probe what it needs for one test.
type netTest struct {
	Name               string                `json:"name"`
	Version            string                `json:"version"`
	Collector          string                `json:"collector"`
	CollectorAlternate []Endpoint            `json:"collector-alternate"`
	InputHashes        []string              `json:"input-hashes"` // null
	TestHelpers        map[string]string     `json:"test-helpers"`
	HelpersAlternate   map[string][]Endpoint `json:"test-helpers-alternate"`
}

// maxAsked is how many tests or addresses are answered at once.
const maxAsked = 100

func (a *API) netTests(r *http.Request) (any, error) {
	var in struct {
		Tests []struct {
			Name    string `json:"name"`
			Version string `json:"version"`
		} `json:"net-tests"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if n := len(in.Tests); n == 0 || n > maxAsked {
		return nil, fault.Field("net-tests", "Name 1 to %d tests.", maxAsked)
	}
	helpers, collector := map[string]string{}, ""
	for name, all := range a.Services.TestHelpers {
		if len(all) > 0 {
			helpers[name] = all[0].Address
		}
	}
	if len(a.Services.Collectors) > 0 {
		collector = a.Services.Collectors[0].Address
	}
	out := make([]netTest, len(in.Tests))
	for i, t := range in.Tests {
		out[i] = netTest{
			Name: t.Name, Version: t.Version, Collector: collector, CollectorAlternate: a.Services.Collectors,
			TestHelpers: helpers, HelpersAlternate: a.Services.TestHelpers,
		}
	}
	return map[string]any{"net-tests": out}, nil
}

// A geolocation is where an address is. ASName is null where nobody knows it.
type geolocation struct {
	Country string      `json:"cc"`
	ASN     network.ASN `json:"asn"`
	ASName  *string     `json:"as_name"`
}

// geolookup answers about addresses in the spelling of the question. They are neither kept nor repeated in
// errors.
func (a *API) geolookup(r *http.Request) (any, error) {
	var in struct {
		Addresses []string `json:"addresses"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if n := len(in.Addresses); n == 0 || n > maxAsked {
		return nil, fault.Field("addresses", "Name 1 to %d addresses.", maxAsked)
	}
	out := make(map[string]geolocation, len(in.Addresses))
	for i, s := range in.Addresses {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return nil, fault.Field("addresses."+strconv.Itoa(i), "This is not an IP address.")
		}
		c, n, name := a.Place(addr)
		out[s] = geolocation{Country: string(c), ASN: n}
		if name != "" {
			out[s] = geolocation{string(c), n, &name}
		}
	}
	return map[string]any{"v": 1, "geolocation": out}, nil
}

// checkReportID says to old probes, who ask before they send a report once more, that it is here. As at the
// peer, each id that can be one is.
func checkReportID(r *http.Request) (any, error) {
	_, err := measurement.ParseReportID(r.URL.Query().Get("report_id"))
	return map[string]any{"found": err == nil, "v": 0}, nil
}
