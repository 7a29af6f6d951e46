package country_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/fault"
)

func TestAll(t *testing.T) {
	t.Parallel()
	all := slices.Collect(country.All())

	t.Run("holds the 249 countries of ISO 3166-1 and XK", func(t *testing.T) {
		t.Parallel()
		assigned := slices.DeleteFunc(slices.Clone(all), func(c country.Country) bool { return c.Code == "XK" })
		if len(assigned) != 249 || len(all) != 250 {
			t.Errorf("%d countries, %d without XK, want 250 and 249", len(all), len(assigned))
		}
	})
	t.Run("is in order of code and names none twice", func(t *testing.T) {
		t.Parallel()
		alpha3, names := map[string]country.Code{}, map[string]country.Code{}
		for i, c := range all {
			if i > 0 && all[i-1].Code >= c.Code {
				t.Errorf("%s comes after %s", c.Code, all[i-1].Code)
			}
			if twin, ok := alpha3[c.Alpha3]; ok {
				t.Errorf("%s and %s are both %s", twin, c.Code, c.Alpha3)
			}
			if twin, ok := names[c.Name]; ok {
				t.Errorf("%s and %s are both called %s", twin, c.Code, c.Name)
			}
			alpha3[c.Alpha3], names[c.Name] = c.Code, c.Code
		}
	})
	t.Run("leaves no part of a country empty", func(t *testing.T) {
		t.Parallel()
		regions := []string{"Africa", "Americas", "Asia", "Europe", "Oceania"}
		for _, c := range all {
			if !upper(string(c.Code), 2) || !upper(c.Alpha3, 3) {
				t.Errorf("codes %q and %q, want two and three upper-case letters", c.Code, c.Alpha3)
			}
			if c.Name == "" || c.Subregion == "" || !slices.Contains(regions, c.Region) || c.Population < 0 {
				t.Errorf("%s is incomplete: %+v", c.Code, c)
			}
		}
	})
	t.Run("has the eight high-risk countries", func(t *testing.T) {
		t.Parallel()
		var got []country.Code
		for _, c := range all {
			switch c.RiskTier {
			case country.HighRisk:
				got = append(got, c.Code)
			case country.StandardRisk:
			default:
				t.Errorf("%s is in tier %q", c.Code, c.RiskTier)
			}
		}
		want := []country.Code{"BY", "CN", "ET", "IR", "NG", "PK", "RU", "VN"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("high-risk countries (-want +got):\n%s", diff)
		}
	})
	t.Run("adds up to the people on Earth", func(t *testing.T) {
		t.Parallel()
		var people int64
		for _, c := range all {
			people += c.Population
		}
		if people < 7_500_000_000 || people > 9_000_000_000 {
			t.Errorf("%d people, want about eight thousand million", people)
		}
	})
	t.Run("stops when the reader does", func(t *testing.T) {
		t.Parallel()
		n := 0
		for range country.All() {
			n++
			break
		}
		if n != 1 {
			t.Errorf("read %d countries, want 1", n)
		}
	})
}

func TestLookup(t *testing.T) {
	t.Parallel()
	t.Run("finds each country as All has it", func(t *testing.T) {
		t.Parallel()
		for want := range country.All() {
			got, ok := country.Lookup(want.Code)
			if !ok || got != want {
				t.Errorf("Lookup(%s) = %+v, %t, want %+v", want.Code, got, ok, want)
			}
		}
	})
	t.Run("knows Iran", func(t *testing.T) {
		t.Parallel()
		c, ok := country.Lookup("IR")
		if !ok || c.Population <= 80_000_000 {
			t.Errorf("Lookup(IR) = %+v, %t, want more than 80 million people", c, ok)
		}
		want := country.Country{
			Code: "IR", Alpha3: "IRN", Name: "Iran", Region: "Asia", Subregion: "Southern Asia",
			Population: c.Population, RiskTier: country.HighRisk,
		}
		if diff := cmp.Diff(want, c); diff != "" {
			t.Errorf("Lookup(IR) (-want +got):\n%s", diff)
		}
	})
	t.Run("knows Kosovo", func(t *testing.T) {
		t.Parallel()
		if c, ok := country.Lookup("XK"); !ok || c.Name != "Kosovo" || c.Region != "Europe" {
			t.Errorf("Lookup(XK) = %+v, %t", c, ok)
		}
	})
	t.Run("does not take the unknown country or a withdrawn one for a country", func(t *testing.T) {
		t.Parallel()
		for _, code := range []country.Code{country.Unknown, "", "SU", "YU", "AN", "EU", "AC", "XX"} {
			if c, ok := country.Lookup(code); ok || c != (country.Country{}) {
				t.Errorf("Lookup(%q) = %+v, %t, want none", code, c, ok)
			}
		}
	})
}

func TestParse(t *testing.T) {
	t.Parallel()
	t.Run("accepts the code of every country", func(t *testing.T) {
		t.Parallel()
		for c := range country.All() {
			if got, err := country.Parse(string(c.Code)); err != nil || got != c.Code {
				t.Errorf("Parse(%q) = %q, %v", c.Code, got, err)
			}
		}
	})
	t.Run("refuses everything else as INVALID", func(t *testing.T) {
		t.Parallel()
		for _, in := range []string{"", "I", "ir", "Ir", "IRN", "IR ", " IR", "ZZ", "UK", "EU", "364", "I\x00", "ÎR"} {
			if got, err := country.Parse(in); got != "" || !fault.Is(err, fault.Invalid) {
				t.Errorf("Parse(%q) = %q, %v, want INVALID", in, got, err)
			}
		}
	})
	t.Run("never answers with anything but what it was given", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(t *rapid.T) {
			in := rapid.StringMatching(`[A-Za-z]{0,3}`).Draw(t, "in")
			got, err := country.Parse(in)
			if err == nil && (string(got) != in || !upper(in, 2)) || err != nil && !fault.Is(err, fault.Invalid) {
				t.Fatalf("Parse(%q) = %q, %v", in, got, err)
			}
		})
	})
}

func TestMonitored(t *testing.T) {
	t.Parallel()
	t.Run("a country with people in it is monitored", func(t *testing.T) {
		t.Parallel()
		if c, _ := country.Lookup("IS"); !c.Monitored() {
			t.Errorf("%+v is not monitored", c)
		}
	})
	t.Run("a country of unknown population is not", func(t *testing.T) {
		t.Parallel()
		if c := (country.Country{Code: "IS"}); c.Monitored() {
			t.Errorf("%+v is monitored", c)
		}
	})
}

func upper(s string, n int) bool {
	for _, r := range s {
		if r < 'A' || r > 'Z' {
			return false
		}
	}
	return len(s) == n
}
