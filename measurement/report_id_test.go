package measurement_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/network"
)

const reportID = "20261121T000000Z_webconnectivity_IT_30722_n1_abcdefghijklmnop"

func TestNewReportID(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 9, 22, 58, 10, 435617999, time.FixedZone("", 3600))
	for _, c := range []struct {
		name      string
		test      string
		country   country.Code
		asn       network.ASN
		collector string
		random    [12]byte
		want      string
	}{
		{"the test name loses its underscores", "web_connectivity", "IT", 30722, "1", [12]byte{}, "20261109T215810Z_webconnectivity_IT_30722_n1_AAAAAAAAAAAAAAAA"},
		{"who cannot be placed is ZZ and 0", "ndt", "", network.Unknown, "1", [12]byte{}, "20261109T215810Z_ndt_ZZ_0_n1_AAAAAAAAAAAAAAAA"},
		{"both signs of base64 become o", "ndt", "it", 1, "1", [12]byte{0xfb, 0xff, 0xbf}, "20261109T215810Z_ndt_IT_1_n1_ooooAAAAAAAAAAAA"},
		{"a collector cannot add a part", "ndt", "IT", 1, "a_b", [12]byte{}, "20261109T215810Z_ndt_IT_1_nab_AAAAAAAAAAAAAAAA"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := measurement.NewReportID(at, c.test, c.country, c.asn, c.collector, c.random); got != c.want {
				t.Errorf("NewReportID = %s, want %s", got, c.want)
			}
		})
	}
	t.Run("it has six parts whatever it is made of", func(t *testing.T) {
		t.Parallel()
		format := regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z_[a-z0-9]*_[A-Z]{2}_[0-9]{1,10}_n[a-z0-9]*_[A-Za-z0-9]{16}$`)
		rapid.Check(t, func(t *rapid.T) {
			var random [12]byte
			copy(random[:], rapid.SliceOfN(rapid.Byte(), 12, 12).Draw(t, "random"))
			id := measurement.NewReportID(time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "at"), 0), rapid.String().Draw(t, "test"),
				country.Code(rapid.String().Draw(t, "country")), network.ASN(rapid.Uint32().Draw(t, "asn")), rapid.String().Draw(t, "collector"), random)
			if !format.MatchString(id) {
				t.Fatalf("NewReportID = %q", id)
			}
		})
	})
}

func TestParseReportID(t *testing.T) {
	t.Parallel()
	r, err := measurement.ParseReportID(reportID)
	want := measurement.Report{ID: reportID, TestName: "webconnectivity", Country: "IT", ASN: 30722}
	if err != nil || r != want {
		t.Errorf("%+v, %v, want %+v", r, err, want)
	}
	for name, id := range map[string]string{
		"nothing": "", "five parts": "20261121T000000Z_telegram_IT_30722_n1", "seven parts": reportID + "_x",
		"a country of three letters": "t_telegram_ITA_30722_n1_x", "a country of digits": "t_telegram_12_30722_n1_x",
		"a network that is no number": "t_telegram_IT_x_n1_x", "a network beyond 32 bits": "t_telegram_IT_4294967296_n1_x",
		"a network below nothing": "t_telegram_IT_-1_n1_x", "a test of one letter": "t_a_IT_1_n1_x",
		"a test of 30 letters": "t_" + strings.Repeat("a", 30) + "_IT_1_n1_x", "other letters": "t_telegräm_IT_1_n1_x",
		"a path": "t_telegram_IT_1_n1_/../x", "too long a tail": reportID + strings.Repeat("x", 100),
	} {
		if _, err := measurement.ParseReportID(id); !fault.Is(err, fault.Invalid) || fault.Of(err).Field != "report_id" {
			t.Errorf("%s: %v, want INVALID of report_id", name, err)
		}
	}
}

// FuzzParseReportID: what is read has an id that names it and nothing that a path or a log must fear.
func FuzzParseReportID(f *testing.F) {
	f.Add(reportID)
	f.Add("t_telegram_zz_0_n1_x")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := measurement.ParseReportID(s)
		if err != nil {
			if !fault.Is(err, fault.Invalid) || fault.Of(err).Field != "report_id" {
				t.Fatalf("error %v, want INVALID of report_id", err)
			}
			return
		}
		if r.ID != s || len(s) > 100 || strings.Trim(s, "_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" || len(r.Country) != 2 {
			t.Fatalf("%q was read as %+v", s, r)
		}
	})
}
