package service

import (
	"context"
)

// A batcher lets concurrent callers share a transaction. There is no waiting for company:
// whoever comes while a transaction is under way travels with the next one, so a lone caller
// is served at once and a crowd pays one commit for many.
type batcher[T waiter] struct {
	max   int
	queue chan T
	lanes chan struct{}
	flush func(context.Context, []T)
}

// A waiter is one caller's part of a batch.
type waiter interface {
	done() chan struct{} // closed by flush when the part has its outcome
}

// newBatcher returns a batcher of so many transactions at a time, each for up to max callers.
func newBatcher[T waiter](lanes, max int, flush func(context.Context, []T)) *batcher[T] {
	b := &batcher[T]{max: max, queue: make(chan T, 4*max), lanes: make(chan struct{}, lanes), flush: flush}
	for range lanes {
		b.lanes <- struct{}{}
	}
	return b
}

// do hands item in and returns when its outcome is there. Whoever finds a lane free becomes
// its driver and takes everybody along who is in the queue; the others wait. When ctx ends
// first the item may still take effect: the caller does not know, and may try again.
func (b *batcher[T]) do(ctx context.Context, item T) error {
	select {
	case b.queue <- item:
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		select {
		case <-item.done():
			return nil
		case <-ctx.Done():
			// Left behind, it would wait for the next caller, or fill the queue so that none gets in.
			go func() {
				<-b.lanes
				b.drive(ctx)
			}()
			return ctx.Err()
		case <-b.lanes:
			b.drive(ctx)
		}
	}
}

// drive serves the queue once and gives the lane back. A driver works for others too: its
// own client's departure must not undo them.
func (b *batcher[T]) drive(ctx context.Context) {
	if batch := b.collect(); len(batch) > 0 {
		b.flush(context.WithoutCancel(ctx), batch)
	}
	b.lanes <- struct{}{}
}

func (b *batcher[T]) collect() []T {
	var batch []T
	for len(batch) < b.max {
		select {
		case item := <-b.queue:
			batch = append(batch, item)
		default:
			return batch
		}
	}
	return batch
}
