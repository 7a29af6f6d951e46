package simulation

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"
)

// A Latency sums up how long requests took, in real time, to within 9 %.
type Latency struct {
	P50, P90, P99, Max time.Duration
}

func (l Latency) String() string {
	round := func(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
	return fmt.Sprintf("p50 %v p90 %v p99 %v max %v", round(l.P50), round(l.P90), round(l.P99), round(l.Max))
}

// perOctave is the number of buckets between a latency and twice that.
const perOctave = 8

// A histogram counts latencies from a microsecond to over an hour in buckets whose width grows with
// them. The zero histogram is empty. Its methods may be called at the same time.
type histogram struct {
	buckets [32 * perOctave]atomic.Int64
	max     atomic.Int64
}

func (h *histogram) add(d time.Duration) {
	i := int(math.Log2(max(1, float64(d.Microseconds()))) * perOctave)
	h.buckets[min(i, len(h.buckets)-1)].Add(1)
	for {
		m := h.max.Load()
		if int64(d) <= m || h.max.CompareAndSwap(m, int64(d)) {
			return
		}
	}
}

func (h *histogram) latency() Latency {
	var counts [len(h.buckets)]int64
	total := int64(0)
	for i := range counts {
		counts[i] = h.buckets[i].Load()
		total += counts[i]
	}
	most := time.Duration(h.max.Load())
	quantile := func(q float64) time.Duration {
		left := int64(math.Ceil(q * float64(total)))
		for i, n := range counts {
			if left -= n; left <= 0 && total > 0 {
				return min(most, time.Duration(math.Exp2(float64(i+1)/perOctave)*float64(time.Microsecond)))
			}
		}
		return 0
	}
	return Latency{P50: quantile(0.5), P90: quantile(0.9), P99: quantile(0.99), Max: most}
}
