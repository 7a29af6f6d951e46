package server

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/engine"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/network"
	"github.com/openvantage/vantage/probe"
	"github.com/openvantage/vantage/resolvers"
)

// maxPacket is the largest heartbeat packet; a real one has some 200 bytes.
const maxPacket = 8 << 10

// A packet is the heartbeat of the probe-health document, and what newer probes say beside it, which
// may be left out. Times are Unix seconds.
type packet struct {
	ProbeID           *string       `json:"probe_id"`
	ProbeCC           *string       `json:"probe_cc"`
	ProbeASN          *network.Text `json:"probe_asn"`
	SoftwareVersion   *string       `json:"software_version"`
	UptimeSeconds     *int64        `json:"uptime_seconds"`
	QueueDepth        *int64        `json:"queue_depth"`
	LastMeasurementAt *int64        `json:"last_measurement_at"`

	BootID                    string   `json:"boot_id"`
	Seq                       *int64   `json:"seq"`
	SentAt                    *float64 `json:"sent_at"`
	Transport                 string   `json:"transport"`
	PausedReason              string   `json:"paused_reason"`
	TunnelHandshakeAgeSeconds *int64   `json:"tunnel_handshake_age_seconds"`
	ShuttingDown              bool     `json:"shutting_down"`
}

// decodePacket reads a packet. It fails with INVALID, naming the field as the packet spells it.
func decodePacket(raw []byte) (h probe.Heartbeat, err error) {
	var p packet
	if !engine.Exact(raw) {
		return h, fault.New(fault.Invalid, "The heartbeat is not UTF-8.")
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		f := fault.New(fault.Invalid, "The heartbeat is not a JSON object with the seven fields.")
		var typed *json.UnmarshalTypeError
		if errors.As(err, &typed) && typed.Field != "" {
			f = fault.Field(typed.Field, "This field has another type.")
		}
		return h, f
	}
	for _, f := range []struct {
		name string
		here bool
	}{
		{"probe_id", p.ProbeID != nil},
		{"probe_cc", p.ProbeCC != nil},
		{"probe_asn", p.ProbeASN != nil},
		{"software_version", p.SoftwareVersion != nil},
		{"uptime_seconds", p.UptimeSeconds != nil},
		{"queue_depth", p.QueueDepth != nil},
	} {
		if !f.here {
			return h, fault.Field(f.name, "This field is missing.")
		}
	}
	if h.ProbeID, err = probe.ParseID(*p.ProbeID); err != nil {
		return h, fault.New(fault.NotFound, "There is no probe with this id.").At("probe_id")
	}
	if h.ASN, err = network.Parse(string(*p.ProbeASN)); err != nil {
		return h, fault.Of(err).At("probe_asn")
	}
	h.Country, h.SoftwareVersion = country.Code(*p.ProbeCC), *p.SoftwareVersion
	h.UptimeSeconds, h.QueueDepth = *p.UptimeSeconds, *p.QueueDepth
	if at := p.LastMeasurementAt; at != nil {
		if *at < 0 || *at > lastSecond {
			return h, fault.Field("last_measurement_at", "This is no time in Unix seconds.")
		}
		h.LastMeasurementAt = time.Unix(*at, 0).UTC()
	}
	h.Extras = probe.Extras{
		BootID: p.BootID, Seq: p.Seq, Transport: p.Transport, PausedReason: probe.ParsePausedReason(p.PausedReason),
		TunnelHandshakeAgeSeconds: p.TunnelHandshakeAgeSeconds, ShuttingDown: p.ShuttingDown,
	}
	if at := p.SentAt; at != nil {
		if *at < 0 || *at > lastSecond {
			return h, fault.Field("sent_at", "This is no time in Unix seconds.")
		}
		h.SentAt = time.UnixMicro(int64(*at * 1e6)).UTC()
	}
	return h, nil
}

// lastSecond ends the year 9999.
const lastSecond = 253_402_300_799

// snake spells the mutation's field names as the packet does.
var snake = map[string]string{
	"probeId": "probe_id", "input.probeId": "probe_id", "probeCc": "probe_cc", "probeAsn": "probe_asn",
	"softwareVersion": "software_version", "uptimeSeconds": "uptime_seconds", "queueDepth": "queue_depth",
	"lastMeasurementAt": "last_measurement_at", "bootId": "boot_id", "seq": "seq", "sentAt": "sent_at", "transport": "transport",
	"pausedReason": "paused_reason", "tunnelHandshakeAgeSeconds": "tunnel_handshake_age_seconds",
}

// heartbeat takes the packet on the second listener: the same flow as the mutation.
func (s *Server) heartbeat(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPacket))
	if err != nil {
		s.writeFault(w, r, http.StatusRequestEntityTooLarge, fault.New(fault.Invalid, "A heartbeat has at most %d bytes.", maxPacket))
		return
	}
	h, err := decodePacket(raw)
	if err != nil {
		s.writeFault(w, r, 0, err)
		return
	}
	s.observe(r.Context(), &h)
	answer, err := s.flows.Heartbeat(r.Context(), resolvers.Principal(r.Context()), r.Header.Get("Idempotency-Key"), h)
	if err != nil {
		if f := fault.Of(err); snake[f.Field] != "" {
			err = f.At(snake[f.Field])
		}
		s.writeFault(w, r, 0, err)
		return
	}
	advice := make([]map[string]string, len(answer.Advisories))
	for i, a := range answer.Advisories {
		advice[i] = map[string]string{"code": string(a.Code), "message": a.Message}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{ // the client is gone if this fails
		"state": answer.Probe.State, "server_time": answer.At, "next_heartbeat_after": int(answer.NextAfter.Seconds()),
		"advisories": advice,
	})
}
