package network_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/network"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]network.ASN{
		"AS44244": 44244, "44244": 44244, "as1": 1, "AS0001": 1, "AS0": network.Unknown, "AS4294967295": 4294967295,
	} {
		got, err := network.Parse(in)
		if err != nil || got != want {
			t.Errorf("Parse(%q) = %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "AS", "AS-1", "+5", "AS+5", "AS4294967296", "ASx", "AS 1", "1.5"} {
		if got, err := network.Parse(in); !fault.Is(err, fault.Invalid) {
			t.Errorf("Parse(%q) = %v, %v, want INVALID", in, got, err)
		}
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	type post struct {
		ASN network.Text `json:"probe_asn"`
	}
	for in, want := range map[string]network.Text{
		`{"probe_asn": "AS44244"}`: "AS44244", `{"probe_asn": 44244}`: "44244", `{"probe_asn": "x"}`: "x", `{"probe_asn": -1.5}`: "-1.5",
		`{"probe_asn": null}`: "", `{"probe_asn": ""}`: "", `{}`: "",
	} {
		var p post
		if err := json.Unmarshal([]byte(in), &p); err != nil || p.ASN != want {
			t.Errorf("%s is %q, %v, want %q", in, p.ASN, err, want)
		}
	}
	for _, in := range []string{`{"probe_asn": true}`, `{"probe_asn": [1]}`, `{"probe_asn": {}}`} {
		err := json.Unmarshal([]byte(in), &post{})
		if typed := new(json.UnmarshalTypeError); !errors.As(err, &typed) || typed.Field != "probe_asn" {
			t.Errorf("%s: %v, want that probe_asn has another type", in, err)
		}
	}
}
