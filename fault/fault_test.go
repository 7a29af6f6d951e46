package fault_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/openvantage/vantage/fault"
)

func TestError(t *testing.T) {
	t.Parallel()
	cause := errors.New("the disk is full")
	wrapped := fault.Wrap(cause, fault.Unavailable, "Try again in %d s.", 5)

	t.Run("the cause is for the log and not in the message", func(t *testing.T) {
		t.Parallel()
		if wrapped.Message != "Try again in 5 s." || !errors.Is(wrapped, cause) {
			t.Errorf("%q, %v", wrapped.Message, errors.Is(wrapped, cause))
		}
		if got := wrapped.At("input.x").Error(); got != "UNAVAILABLE input.x: Try again in 5 s.: the disk is full" {
			t.Errorf("the log reads %q", got)
		}
	})

	t.Run("a copy with a field or a wait leaves the original alone", func(t *testing.T) {
		t.Parallel()
		c := wrapped.At("a").After(time.Second)
		if c.Field != "a" || c.RetryAfter != time.Second || !errors.Is(c, cause) || wrapped.Field != "" || wrapped.RetryAfter != 0 {
			t.Errorf("copy %+v of %+v", c, wrapped)
		}
	})

	t.Run("the fault is found in a chain, and what has none is INTERNAL", func(t *testing.T) {
		t.Parallel()
		for err, want := range map[error]fault.Code{
			fmt.Errorf("submit: %w", fault.Field("input.asn", "No.")): fault.Invalid, wrapped: fault.Unavailable, cause: fault.Internal,
			errors.Join(cause, fault.New(fault.Conflict, "Twice.")): fault.Conflict, context.Canceled: fault.Internal,
		} {
			if f := fault.Of(err); f.Code != want || !fault.Is(err, want) || fault.Is(err, fault.Resync) {
				t.Errorf("%v is %s, want %s", err, f.Code, want)
			}
		}
		if f := fault.Of(cause); f.Message == cause.Error() || !errors.Is(f, cause) {
			t.Errorf("%q tells the cause, or has lost it", f.Message)
		}
		if fault.Of(nil) != nil || fault.Is(nil, fault.Internal) {
			t.Error("nil is a fault")
		}
	})
}
