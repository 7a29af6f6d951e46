package service

import (
	"context"
	"sync"
	"time"

	"github.com/openvantage/vantage/fault"
)

// A batcher lets concurrent callers share a transaction. There is no waiting for company:
// whoever comes while a transaction is under way travels with the next one, so a lone caller
// is served at once and a crowd pays one commit for many.
//
// What waits is bounded, by number and by size. Beyond that callers are refused at once: they
// would wait for longer than they have patience, and fill our memory with what is then done for nobody.
type batcher[T waiter] struct {
	limits queueLimits
	lanes  chan struct{}
	flush  func(context.Context, []T)
	refuse func() // hears of each refusal

	mu    sync.Mutex
	queue []T
	bytes int           // in the queue
	pace  time.Duration // of one item, lately
	since time.Time     // when a transaction last began or ended
}

// queueLimits bound a batcher: a transaction by items and bytes, the queue by items and bytes.
type queueLimits struct {
	batch, batchBytes int
	queue, queueBytes int
}

// A waiter is one caller's part of a batch.
type waiter interface {
	done() chan struct{} // closed by flush when the part has its outcome
	size() int           // bytes that it holds while it waits
}

// newBatcher returns a batcher of so many transactions at a time.
func newBatcher[T waiter](lanes int, limits queueLimits, refuse func(), flush func(context.Context, []T)) *batcher[T] {
	b := &batcher[T]{limits: limits, lanes: make(chan struct{}, lanes), flush: flush, refuse: refuse}
	for range lanes {
		b.lanes <- struct{}{}
	}
	return b
}

// do hands items in, together, and returns when their outcomes are there. Whoever finds a lane free
// becomes its driver and takes everybody along who is in the queue; the others wait. It fails
// with UNAVAILABLE at once, and nothing was handed in, when there is no room. When ctx ends first the
// items may still take effect: the caller does not know, and may try again.
func (b *batcher[T]) do(ctx context.Context, items ...T) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	size := 0
	for _, i := range items {
		size += i.size()
	}
	if err := b.enter(items, size); err != nil {
		return err
	}
	for n, i := range items {
		if err := b.wait(ctx, i); err != nil {
			go func() { // left behind, they would wait for the next caller
				for _, i := range items[n:] {
					_ = b.wait(context.WithoutCancel(ctx), i) // it does not end before they have their outcomes
				}
			}()
			return err
		}
	}
	return nil
}

func (b *batcher[T]) wait(ctx context.Context, item T) error {
	for {
		select {
		case <-item.done():
			return nil
		default:
		}
		select {
		case <-item.done():
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-b.lanes:
			b.drive(ctx)
		}
	}
}

// room fails with UNAVAILABLE when so much would not be let in now, so that a caller may spare
// itself what it does before.
func (b *batcher[T]) room(items, bytes int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.admit(items, bytes)
}

func (b *batcher[T]) enter(items []T, bytes int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.admit(len(items), bytes); err != nil {
		return err
	}
	b.queue = append(b.queue, items...)
	b.bytes += bytes
	return nil
}

// admit is for who holds the lock. What is larger than the whole queue is let in when it is empty.
func (b *batcher[T]) admit(items, bytes int) error {
	n := len(b.queue)
	if n == 0 || n+items <= b.limits.queue && b.bytes+bytes <= b.limits.queueBytes {
		return nil
	}
	b.refuse()
	return fault.New(fault.Unavailable, "More is waiting to be stored than can be soon. Nothing was stored; try again.").After(b.patience(n))
}

// patience is how long what waits will take at the pace of late, and no less than what is under way
// takes already: where nothing moves, nobody knows better.
func (b *batcher[T]) patience(waiting int) time.Duration {
	left := time.Duration(waiting) * b.pace
	if !b.since.IsZero() {
		left = max(left, time.Since(b.since))
	}
	return min(max(left, time.Second), time.Minute)
}

// drive serves the queue once and gives the lane back. A driver works for others too: its
// own client's departure must not undo them.
func (b *batcher[T]) drive(ctx context.Context) {
	if batch := b.collect(); len(batch) > 0 {
		began := time.Now()
		b.flush(context.WithoutCancel(ctx), batch)
		b.flushed(len(batch), began)
	}
	b.lanes <- struct{}{}
}

func (b *batcher[T]) collect() []T {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, bytes := 0, 0
	for n < len(b.queue) && n < b.limits.batch && bytes < b.limits.batchBytes {
		bytes += b.queue[n].size()
		n++
	}
	batch := b.queue[:n:n]
	if b.queue = b.queue[n:]; len(b.queue) == 0 {
		b.queue = nil // the array goes with the batch
	}
	b.bytes -= bytes
	b.since = time.Now()
	return batch
}

// flushed learns the pace from what was just done: half of it is the last transaction.
func (b *batcher[T]) flushed(items int, began time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.since = time.Now()
	took := b.since.Sub(began) / time.Duration(items*cap(b.lanes))
	if b.pace == 0 {
		b.pace = took
	}
	b.pace = (b.pace + took) / 2
}

// waiting is how many items wait, and their bytes.
func (b *batcher[T]) waiting() (items, bytes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.queue), b.bytes
}
