package model

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/measurement"
)

// A FaultyMeasurement is something wrong with a measurement as the viewer may see it.
type FaultyMeasurement struct {
	ID              string
	Fault           measurement.FaultKind
	Explanation     string
	FoundAt         time.Time
	UID             string
	ObservedCountry *Country // staff's to know

	AgeSeconds       *int
	MeasurementCount *int64

	LoadMeasurement func() (*Measurement, error)
}

// IsNode marks an entity.
func (*FaultyMeasurement) IsNode() {}

// faultFigures are what Details of a measurement.Fault may have.
type faultFigures struct {
	Seconds      *int
	Measurements *int64
}

// NewFaultyMeasurement shows f to the viewer.
func NewFaultyMeasurement(v Viewer, f db.Faulty) *FaultyMeasurement {
	var d faultFigures
	_ = json.Unmarshal(f.Details, &d) // what we wrote always reads
	out := &FaultyMeasurement{
		ID:    faultyPrefix + strconv.FormatInt(f.ID, 10),
		Fault: f.Kind, Explanation: reasonOf(f, d), FoundAt: f.FoundAt, UID: string(f.UID),
		AgeSeconds: d.Seconds, MeasurementCount: d.Measurements,
	}
	if f.ObservedCountry != "" && v.Principal.Staff() {
		out.ObservedCountry = NewCountry(f.ObservedCountry)
	}
	return out
}

func reasonOf(f db.Faulty, d faultFigures) string {
	var ago time.Duration
	if d.Seconds != nil {
		ago = time.Duration(*d.Seconds) * time.Second
	}
	where := NewCountry(f.Country).Name
	switch f.Kind {
	case measurement.GeoCountryMismatch:
		return fmt.Sprintf("It says that it was made in %s, and was sent from another country.", where)
	case measurement.GeoNetworkMismatch:
		return fmt.Sprintf("It says that it was made in %s, and was sent from another network.", f.ASN)
	case measurement.Volume:
		return fmt.Sprintf("There were %d or more measurements in one minute by programs of one kind in %s in %s.", measurement.VolumeLimit, f.ASN, where)
	case measurement.ClockFuture:
		return fmt.Sprintf("It began %s after it was received.", -ago)
	case measurement.ClockPast:
		return fmt.Sprintf("It began %s before it was received.", ago)
	}
	return string(f.Kind)
}
