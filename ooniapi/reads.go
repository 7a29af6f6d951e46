package ooniapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"time"

	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
)

// Prices in points of some 10 µs: of a request, beside it of each row that a list may have, and of counting.
const (
	listPrice  = 10
	bodyPrice  = 20
	rowPrice   = 1
	countPrice = 200
)

// keep is how long a list or what is known of a measurement may be kept: others may come.
const keep = time.Minute

// readRoutes serve measurements to tools. All of it is public, and the same for everybody: a page of another site may
// read it.
func (a *API) readRoutes(mux *http.ServeMux) {
	for path, do := range map[string]http.HandlerFunc{
		"measurements":      a.route(listPrice, maxSmall, a.list),
		"measurement_meta":  a.route(bodyPrice, maxSmall, a.measurementMeta),
		"raw_measurement":   a.route(bodyPrice, maxSmall, a.rawMeasurement),
		"measurement/{uid}": a.route(bodyPrice, maxSmall, a.measurement),
	} {
		mux.HandleFunc("GET /api/v1/"+path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Access-Control-Allow-Origin", "*")
			do(w, r)
		})
	}
}

// base is where the client finds this API.
func (a *API) base(r *http.Request) string {
	switch {
	case a.PublicURL != "":
		return a.PublicURL
	case r.TLS != nil:
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// found is the measurement that a request names, by uid or by report_id and input. Of several with the same report_id
// and input it is the first, and a link leads to the list of all of them. It fails with NOT_FOUND.
func (a *API) found(w http.ResponseWriter, r *http.Request, p *params) (m db.Measurement, err error) {
	uid, reportID, input := p.uid("measurement_uid"), p.text("report_id", 3), p.text("input", 0)
	switch {
	case p.err != nil:
		return m, p.err
	case uid == "" && reportID == "":
		return m, fault.Field("measurement_uid", "Say which measurement: measurement_uid=…, or report_id=… and its input=…")
	}
	ctx := r.Context()
	err = a.DB.ReadWithin(ctx, listPatience, func(v db.View) (err error) {
		if uid != "" {
			m, err = v.Measurement(ctx, uid)
			return err
		}
		var more bool
		if m, more, err = v.MeasurementOf(ctx, reportID, input); more {
			all := url.Values{"report_id": {reportID}}
			if input != "" {
				all.Set("input", input)
			}
			w.Header().Set("Link", "<"+a.base(r)+"/api/v1/measurements?"+all.Encode()+`>; rel="collection"`)
		}
		return err
	})
	return m, err
}

// meta is what measurement_meta tells, in the peer's types: scores and the body are texts.
type meta struct {
	summary
	CategoryCode   *string `json:"category_code"`
	ProbeASN       int64   `json:"probe_asn"`
	Scores         string  `json:"scores"`
	TestStartTime  *string `json:"test_start_time"`
	RawMeasurement *string `json:"raw_measurement,omitempty"`
}

// measurementMeta answers what is not there with an empty object: the pages that ask look into it.
func (a *API) measurementMeta(w http.ResponseWriter, r *http.Request) error {
	p := paramsOf(r, "measurement_uid", "report_id", "input", "full")
	full := p.boolean("full")
	m, err := a.found(w, r, p)
	wanted := full != nil && *full
	switch {
	case fault.Is(err, fault.NotFound) && wanted:
		writeJSON(w, keep, map[string]string{"raw_measurement": ""})
		return nil
	case fault.Is(err, fault.NotFound):
		writeJSON(w, keep, struct{}{})
		return nil
	case err != nil:
		return err
	}
	category, err := a.DB.Category(r.Context(), m.Input, m.Country)
	if err != nil {
		return err
	}
	out := meta{
		summary: summaryOf(m), CategoryCode: text(category), ProbeASN: int64(m.ASN), Scores: string(m.Scores), TestStartTime: stamp(m.TestStartedAt),
	}
	if wanted {
		body, err := a.Body(r.Context(), m.UID)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		raw := string(body)
		out.RawMeasurement = &raw
	}
	writeJSON(w, keep, out)
	return nil
}

// rawMeasurement sends a body byte for byte as it was submitted.
func (a *API) rawMeasurement(w http.ResponseWriter, r *http.Request) error {
	p := paramsOf(r, "measurement_uid", "report_id", "input")
	uid := p.uid("measurement_uid")
	if uid == "" || p.err != nil {
		m, err := a.found(w, r, p)
		if err != nil {
			return err
		}
		uid = m.UID
	}
	return a.sendBody(w, r, uid, 24*time.Hour)
}

// measurement sends a body, as a file if that is wanted.
func (a *API) measurement(w http.ResponseWriter, r *http.Request) error {
	p := paramsOf(r, "download")
	download := p.boolean("download")
	if p.err != nil {
		return p.err
	}
	uid := measurement.ID(r.PathValue("uid"))
	if _, _, ok := uid.Split(); ok && download != nil && *download {
		w.Header().Set("Content-Disposition", `attachment; filename="measurement-`+string(uid)+`.json"`)
	}
	return a.sendBody(w, r, uid, time.Hour)
}

// sendBody sends a body, or a part of it, or says that it is what the client has already: a body never changes.
func (a *API) sendBody(w http.ResponseWriter, r *http.Request, uid measurement.ID, maxAge time.Duration) error {
	body, err := a.Body(r.Context(), uid)
	if err != nil {
		w.Header().Del("Content-Disposition")
		return err
	}
	sum := sha256.Sum256(body)
	head(w, "application/json", maxAge)
	w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	return nil
}
