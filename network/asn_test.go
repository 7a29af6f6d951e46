package network_test

import (
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
