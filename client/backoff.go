package client

import (
	"context"
	"math/rand/v2"
	"time"
)

// The reconnection of the reference client: 0.5 s doubled each time up to 15 s, thirty percent either
// way, so that a restarted server is not met by everybody at once.
const (
	firstBackoff = 500 * time.Millisecond
	maxBackoff   = 15 * time.Second
	jitterShare  = 0.3
)

// Backoff is how long to wait before trying again after the given number of failures in a row, 1 for
// the first: half a second doubled with each, at most 15 s, ±30 %.
func Backoff(failures int) time.Duration {
	d := maxBackoff
	if n := failures - 1; n < 5 {
		d = min(firstBackoff<<max(n, 0), maxBackoff)
	}
	return time.Duration(float64(d) * (1 + jitterShare*(2*rand.Float64()-1)))
}

// Wait returns after d, or with ctx's error as soon as ctx ends.
func Wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
