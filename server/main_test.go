package server_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/openvantage/vantage/db/dbtest"
)

func TestMain(m *testing.M) {
	// The memory of tokens has a goroutine that its library gives nobody a way to stop.
	tokens := goleak.IgnoreAnyFunction("github.com/hashicorp/golang-lru/v2/expirable.NewLRU[...].func1")
	goleak.VerifyTestMain(dbtest.Suite{M: m}, tokens)
}
