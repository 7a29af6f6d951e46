package measurement

import (
	"encoding/json"
	"time"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/network"
)

// A FaultKind says what is wrong with a measurement that is kept and counted all the same, as the
// API spells it.
type FaultKind string

// The kinds. Volume is of many measurements together; see VolumeLimit.
const (
	GeoCountryMismatch FaultKind = "GEO_COUNTRY_MISMATCH" // it was sent from another country than it names
	GeoNetworkMismatch FaultKind = "GEO_NETWORK_MISMATCH" // from the country it names, but another network
	Volume             FaultKind = "VOLUME"
	ClockFuture        FaultKind = "CLOCK_FUTURE" // it began after it was received
	ClockPast          FaultKind = "CLOCK_PAST"   // it began long before: a wrong clock, or a late upload in earnest
)

// Source: design/measurements.md, section 3, volume and time alarms of ooni/data.
const (
	// VolumeLimit is how many measurements in a minute of one country, network, engine, program,
	// platform and architecture are too many.
	VolumeLimit   = 200
	futureAfter   = 30 * time.Minute
	pastAfter     = 2 * time.Hour
	secondsDetail = "seconds"
)

// A Fault is something wrong with a measurement. ObservedCountry is where its sender's address is,
// and empty unless that differs. Of a network that differs only that is told: it could point
// to a person. Details is a JSON object of figures.
type Fault struct {
	Kind            FaultKind
	ObservedCountry country.Code
	Details         json.RawMessage
}

// Faults compares the measurement with where its sender's address was seen and when it was received.
// Neither a fault nor its absence changes the verdict. country.Unknown or "", and network.Unknown,
// are places that are not known; a start that the body does not have is not compared.
//
// The peer's job has the sign of the difference turned round; here positive is an age.
func (m *Measurement) Faults(seen country.Code, in network.ASN, receivedAt time.Time) []Fault {
	var out []Fault
	none := json.RawMessage("{}")
	switch {
	case seen == "" || seen == country.Unknown:
	case seen != m.Country:
		out = append(out, Fault{Kind: GeoCountryMismatch, ObservedCountry: seen, Details: none})
	case in != network.Unknown && in != m.ASN:
		out = append(out, Fault{Kind: GeoNetworkMismatch, Details: none})
	}
	if m.StartedAt.IsZero() {
		return out
	}
	age := receivedAt.Sub(m.StartedAt)
	kind := ClockPast
	switch {
	case age < -futureAfter:
		kind = ClockFuture
	case age <= pastAfter:
		return out
	}
	details, _ := json.Marshal(map[string]int64{secondsDetail: int64(age / time.Second)}) // always encodes
	return append(out, Fault{Kind: kind, Details: details})
}
