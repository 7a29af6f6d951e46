// Package ooniapi answers the established network's own questions: the REST paths that its
// tools and pages already speak, in its spelling. What is changed goes through service as
// everywhere; nothing is decided here. Package server alone imports it.
package ooniapi

import (
	"net/http"

	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
)

// A Fail answers a request with a fault; status 0 is the one that fits the code.
type Fail func(w http.ResponseWriter, r *http.Request, status int, err error)

// Handler serves the paths below /api/.
func Handler(d *db.DB, fail Fail) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/raw_measurement", func(w http.ResponseWriter, r *http.Request) { rawMeasurement(w, r, d, fail) })
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, r, 0, fault.New(fault.NotFound, "There is nothing at this path. The API is at /graphql."))
	})
	return mux
}

// rawMeasurement sends a body byte for byte as it was submitted.
func rawMeasurement(w http.ResponseWriter, r *http.Request, d *db.DB, fail Fail) {
	uid := r.URL.Query().Get("measurement_uid")
	if uid == "" {
		fail(w, r, 0, fault.Field("measurement_uid", "Say which measurement: measurement_uid=…"))
		return
	}
	body, err := d.Body(r.Context(), measurement.ID(uid))
	if err != nil {
		fail(w, r, 0, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "public, max-age=86400") // a body never changes
	_, _ = w.Write(body)                            // the client is gone if this fails
}
