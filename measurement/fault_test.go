package measurement_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/network"
)

func TestFaults(t *testing.T) {
	t.Parallel()
	received := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name string
		seen country.Code
		in   network.ASN
		age  time.Duration
		want []measurement.FaultKind
	}{
		{"where and when it says", "DE", 3320, 0, nil},
		{"a place that is not known", "", 0, 0, nil},
		{"a country that the database does not know", "ZZ", 1, 0, nil},
		{"a known country with an unknown network", "DE", 0, 0, nil},
		{"another country, whatever the network", "FR", 3215, 0, []measurement.FaultKind{measurement.GeoCountryMismatch}},
		{"another network of the country", "DE", 3209, 0, []measurement.FaultKind{measurement.GeoNetworkMismatch}},
		{"half an hour in the future", "", 0, -30 * time.Minute, nil},
		{"a second more", "", 0, -30*time.Minute - time.Second, []measurement.FaultKind{measurement.ClockFuture}},
		{"two hours in the past", "", 0, 2 * time.Hour, nil},
		{"a second longer", "", 0, 2*time.Hour + time.Second, []measurement.FaultKind{measurement.ClockPast}},
		{"both", "FR", 0, 3 * time.Hour, []measurement.FaultKind{measurement.GeoCountryMismatch, measurement.ClockPast}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := &measurement.Measurement{Country: "DE", ASN: 3320, StartedAt: received.Add(-c.age)}
			var got []measurement.FaultKind
			for _, f := range m.Faults(c.seen, c.in, received) {
				got = append(got, f.Kind)
				if seen := f.ObservedCountry; (seen != "") != (f.Kind == measurement.GeoCountryMismatch) {
					t.Errorf("%s tells of %q", f.Kind, seen)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}

	t.Run("a start that is not there is not compared", func(t *testing.T) {
		t.Parallel()
		if got := (&measurement.Measurement{Country: "DE"}).Faults("", 0, received); got != nil {
			t.Errorf("got %v", got)
		}
	})

	t.Run("figures are negative for the future", func(t *testing.T) {
		t.Parallel()
		m := &measurement.Measurement{Country: "DE", StartedAt: received.Add(time.Hour)}
		if got := string(m.Faults("", 0, received)[0].Details); got != `{"seconds":-3600}` {
			t.Error(got)
		}
	})
}
