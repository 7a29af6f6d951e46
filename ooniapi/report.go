package ooniapi

import (
	"crypto/rand"
	"net/http"
	"strings"
	"time"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/network"
	"github.com/openvantage/vantage/probe"
	"github.com/openvantage/vantage/service"
)

// backendVersion is what probes expect of a collector; none acts on it.
const backendVersion = "1.3.5"

// openReport names a report. A place that cannot be one is none, as at the peer: its entries are kept aside.
func (a *API) openReport(r *http.Request) (any, error) {
	var in struct {
		DataFormatVersion string `json:"data_format_version"`
		Format            string `json:"format"`
		ProbeASN          string `json:"probe_asn"`
		ProbeCC           string `json:"probe_cc"`
		SoftwareName      string `json:"software_name"`
		SoftwareVersion   string `json:"software_version"`
		TestName          string `json:"test_name"`
		TestStartTime     string `json:"test_start_time"`
		TestVersion       string `json:"test_version"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if in.Format != "" && !strings.EqualFold(in.Format, "json") {
		return nil, fault.Field("format", "Reports are taken as json.")
	}
	if err := measurement.CheckReportTest(in.TestName); err != nil {
		return nil, err
	}
	asn, upper := network.Unknown, strings.ToUpper(in.ProbeASN)
	if strings.HasPrefix(upper, "AS") && len(upper) <= 12 {
		asn, _ = network.Parse(upper)
	}
	return map[string]any{
		"backend_version": backendVersion, "supported_formats": []string{"json"},
		"report_id": a.reportID(a.DB.Now(), in.TestName, country.Code(in.ProbeCC), asn),
	}, nil
}

func (a *API) reportID(at time.Time, test string, c country.Code, n network.ASN) string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return measurement.NewReportID(at, test, c, n, a.Services.CollectorID, b)
}

func closeReport(r *http.Request) (any, error) {
	_, err := measurement.ParseReportID(r.PathValue("report_id"))
	return struct{}{}, err
}

// takeEntry takes one measurement of a report. What is stored is the content, byte for byte, with the report's
// id where it has none.
func (a *API) takeEntry(r *http.Request) (any, error) {
	report, err := measurement.ParseReportID(r.PathValue("report_id"))
	if err != nil {
		return nil, err
	}
	post, err := a.post(r)
	if err != nil {
		return nil, err
	}
	e, err := measurement.ParseReportEntry(post, a.Limits)
	if err != nil {
		return nil, err
	}
	if err := report.Check(e); err != nil {
		return nil, err
	}
	body := e.Content
	if !e.HasReportID() {
		body = e.WithReportID(report.ID)
	}
	done, err := a.submit(r, e, body)
	if err != nil {
		return nil, err
	}
	if done.Discarded != "" { // kept, and of no use to who sent it
		return struct{}{}, nil
	}
	return map[string]any{"measurement_uid": done.UID}, nil
}

// unverified is the status of every submission: nothing that could verify one is asked for.
const unverified = "unverified"

// manifestNotFound is what the peer says of credentials for a manifest that it does not have.
const manifestNotFound = "manifest_not_found"

// A receipt answers a submission. The submission is stored, whatever Error says.
type receipt struct {
	UID            measurement.ID `json:"measurement_uid"`
	Verification   string         `json:"verification_status"`
	SubmitResponse *string        `json:"submit_response"`  // null: of credentials alone
	Protocol       string         `json:"protocol_version"` // of credentials, which we have none of
	Error          *string        `json:"error"`
	ReportID       string         `json:"report_id"`
}

// takeSubmission takes a measurement that is a report of its own. What is stored is the text with the report's
// id written into it; credentials go no further.
func (a *API) takeSubmission(r *http.Request) (any, error) {
	post, err := a.post(r)
	if err != nil {
		return nil, err
	}
	e, err := measurement.ParseSubmission(post, a.Limits)
	if err != nil {
		return nil, err
	}
	id := e.NewReportID(a.Services.CollectorID)
	done, err := a.submit(r, e, e.WithReportID(id))
	if err != nil {
		return nil, err
	}
	out := receipt{UID: done.UID, Verification: unverified, ReportID: id}
	switch {
	case done.Discarded != "":
		reason := done.Discarded.String()
		out.Error = &reason
	case e.Credentials:
		reason := manifestNotFound
		out.Error = &reason
	}
	return out, nil
}

// tryAgain is when a probe may send what we could not store, where nobody knows better.
const tryAgain = 30 * time.Second

// submit is service.Submit with fields as probes spell them. Of an entry that is kept aside nobody demands more.
func (a *API) submit(r *http.Request, e *measurement.Entry, body []byte) (service.Outcome, error) {
	if e.Placed() {
		if err := e.CheckMetadata(); err != nil {
			return service.Outcome{}, err
		}
	}
	cc, asn, _ := a.Locate(r.Context())
	sub := service.Submission{Body: body, Observed: probe.Place{Country: cc, ASN: asn}}
	done, err := a.Flows.Submit(r.Context(), a.Principal(r.Context()), "", sub)
	if err == nil {
		return done, nil
	}
	f := fault.Of(err)
	if field, ok := strings.CutPrefix(f.Field, "input."); ok {
		f = f.At("content." + field)
		if field == "body" {
			f = f.At("content")
		}
	}
	if (f.Code == fault.Unavailable || f.Code == fault.Internal || f.Code == fault.Conflict) && f.RetryAfter == 0 {
		f = f.After(tryAgain)
	}
	return done, f
}
