package server_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/openvantage/vantage/db/dbtest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(dbtest.Suite{M: m},
		// The memory of tokens has a goroutine that its library gives nobody a way to stop.
		goleak.IgnoreAnyFunction("github.com/hashicorp/golang-lru/v2/expirable.NewLRU[...].func1"),
		// The leader of the queue resigns for some seconds, which nobody can cut short, when its database is gone:
		// it outlives the server that was told to stop, and this process, if such a test is the last.
		goleak.IgnoreAnyFunction("github.com/riverqueue/river/internal/leadership.(*Elector).attemptResignLoop"),
		goleak.IgnoreAnyFunction("github.com/riverqueue/river/rivershared/startstop.StopAllParallel"),
		goleak.IgnoreAnyFunction("github.com/riverqueue/river/rivershared/startstop.StopAllParallel.func1"),
	)
}
