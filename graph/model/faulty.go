package model

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/measurement"
)

// A FaultyMeasurement is something wrong with a measurement as the viewer may see it.
type FaultyMeasurement struct {
	Kind            measurement.FaultKind
	Reason          string
	FoundAt         time.Time
	UID             string
	Country         *Country
	Network         *Network
	ObservedCountry *Country // staff's to know
	Details         json.RawMessage

	LoadMeasurement func() (*Measurement, error)
}

// NewFaultyMeasurement shows f to the viewer.
func NewFaultyMeasurement(v Viewer, f db.Faulty) *FaultyMeasurement {
	out := &FaultyMeasurement{
		Kind: f.Kind, Reason: reasonOf(f), FoundAt: f.FoundAt, UID: string(f.UID), Country: NewCountry(f.Country), Network: NewNetwork(f.ASN),
		Details: f.Details,
	}
	if f.ObservedCountry != "" && v.Principal.Staff() {
		out.ObservedCountry = NewCountry(f.ObservedCountry)
	}
	return out
}

func reasonOf(f db.Faulty) string {
	var d struct {
		Seconds, Measurements int64
		Engine, Software      string
	}
	_ = json.Unmarshal(f.Details, &d) // ours: it reads
	ago := time.Duration(d.Seconds) * time.Second
	where := NewCountry(f.Country).Name
	switch f.Kind {
	case measurement.GeoCountryMismatch:
		return fmt.Sprintf("It says that it was made in %s, and was sent from another country.", where)
	case measurement.GeoNetworkMismatch:
		return fmt.Sprintf("It says that it was made in %s, and was sent from another network.", f.ASN)
	case measurement.Volume:
		return fmt.Sprintf("There were %d measurements in one minute by probes in %s in %s of one kind.", d.Measurements, f.ASN, where)
	case measurement.ClockFuture:
		return fmt.Sprintf("It began %s after it was received.", -ago)
	case measurement.ClockPast:
		return fmt.Sprintf("It began %s before it was received.", ago)
	}
	return string(f.Kind)
}
