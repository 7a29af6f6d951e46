package measurement_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/measurement"
)

func TestNewID(t *testing.T) {
	t.Parallel()
	at := time.Date(2022, 11, 9, 22, 58, 10, 435617999, time.FixedZone("", 3600))
	for _, c := range []struct {
		name    string
		country country.Code
		test    string
		want    measurement.ID
	}{
		{"the test name loses its underscores", "RU", "web_connectivity", "20221109215810.435617_RU_webconnectivity_"},
		{"the country is in upper case", "ru", "telegram", "20221109215810.435617_RU_telegram_"},
		{"a country that is not two letters is ZZ", "R_", "telegram", "20221109215810.435617_ZZ_telegram_"},
		{"no country is ZZ", "", "telegram", "20221109215810.435617_ZZ_telegram_"},
		{"junk in the test name is dropped", "RU", "Tele gräm/../2", "20221109215810.435617_RU_telegrm2_"},
		{"nothing may be left of the test name", "RU", "_", "20221109215810.435617_RU__"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			// The first 16 digits of SHA-512 of "abc". Source: FIPS 180-4 examples.
			want := c.want + "ddaf35a193617aba"
			got := measurement.NewID(at, c.country, c.test, []byte("abc"))
			if got != want {
				t.Errorf("NewID = %s, want %s", got, want)
			}
			if later := at.Add(time.Hour); got.At(later) != measurement.NewID(later, c.country, c.test, []byte("abc")) {
				t.Errorf("an hour later it is %s", got.At(later))
			}
		})
	}
}

func TestIDSplit(t *testing.T) {
	t.Parallel()
	for _, id := range []measurement.ID{
		"", "01202003026e2b60ffaa8e1b2bc7865d0bc26659",
		"20221109215810.435617_RU_telegram_ddaf35a193617ab",
		"20221109215810.435617_RU_telegram_DDAF35A193617ABA",
		"20221109215810.435617_ru_telegram_ddaf35a193617aba",
		"20221109215810.435617_RU_tele-gram_ddaf35a193617aba",
		"20221109215810.435617_RU_tele_gram_ddaf35a193617aba",
		"20221309215810.435617_RU_telegram_ddaf35a193617aba",
		"20221109215810,435617_RU_telegram_ddaf35a193617aba",
		"20221109215810.43561_RU_telegram_ddaf35a193617aba",
	} {
		if at, c, ok := id.Split(); ok {
			t.Errorf("%q splits into %v %v", id, at, c)
		}
	}
	t.Run("what NewID made comes apart again", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(t *rapid.T) {
			at := time.UnixMicro(rapid.Int64Range(0, 4e15).Draw(t, "at")).UTC()
			c := country.Code(rapid.StringMatching(`[A-Z]{2}`).Draw(t, "country"))
			id := measurement.NewID(at, c, rapid.String().Draw(t, "test"), rapid.SliceOf(rapid.Byte()).Draw(t, "body"))
			gotAt, gotC, ok := id.Split()
			if !ok || !gotAt.Equal(at) || gotC != c {
				t.Fatalf("%s splits into %v %v %v, want %v %v", id, gotAt, gotC, ok, at, c)
			}
		})
	})
}
