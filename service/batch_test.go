package service

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// parcel counts how often it is flushed.
type parcel struct {
	flushed atomic.Int32
	ready   chan struct{}
}

func newParcel() *parcel { return &parcel{ready: make(chan struct{})} }

func (p *parcel) done() chan struct{} { return p.ready }

func (p *parcel) size() int { return 1 }

func ignored() {}

func atMost(batch, queue int) queueLimits {
	return queueLimits{batch: batch, batchBytes: 1 << 20, queue: queue, queueBytes: 1 << 20}
}

func deliver(_ context.Context, batch []*parcel) {
	for _, p := range batch {
		p.flushed.Add(1)
		close(p.ready)
	}
}

func waiting(b *batcher[*parcel]) int {
	n, _ := b.waiting()
	return n
}

func TestBatcher(t *testing.T) {
	t.Parallel()

	t.Run("each item is flushed once, whoever leaves meanwhile", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(t *rapid.T) {
			lanes, most := rapid.IntRange(1, 3).Draw(t, "lanes"), rapid.IntRange(1, 4).Draw(t, "max")
			var busy atomic.Int32
			b := newBatcher(lanes, atMost(most, 1000), ignored, func(ctx context.Context, batch []*parcel) {
				if n := busy.Add(1); int(n) > lanes {
					t.Errorf("%d transactions at a time", n)
				}
				if len(batch) == 0 || len(batch) > most {
					t.Errorf("a batch of %d", len(batch))
				}
				if ctx.Err() != nil {
					t.Error("the caller's departure reached the transaction")
				}
				deliver(ctx, batch)
				busy.Add(-1)
			})
			leaving := rapid.SliceOfN(rapid.SampledFrom([]string{"stays", "leaves", "has left"}), 1, 40).Draw(t, "callers")
			items := make([]*parcel, len(leaving))
			errs := make([]error, len(leaving))
			var all sync.WaitGroup
			for i, how := range leaving {
				items[i] = newParcel()
				ctx, cancel := context.WithCancel(context.Background())
				if how == "has left" {
					cancel()
				}
				all.Go(func() {
					defer cancel()
					errs[i] = b.do(ctx, items[i])
				})
				if how == "leaves" {
					all.Go(cancel)
				}
			}
			all.Wait()
			if err := b.do(context.Background(), newParcel()); err != nil {
				t.Fatal(err)
			}
			for range lanes { // when all lanes are back, all flushes are over
				<-b.lanes
			}
			for i, how := range leaving {
				n := items[i].flushed.Load()
				if n > 1 || errs[i] == nil && n != 1 || errs[i] != nil && (how == "stays" || !errors.Is(errs[i], context.Canceled)) {
					t.Errorf("one who %s was flushed %d times: %v", how, n, errs[i])
				}
			}
		})
	})

	t.Run("what a caller leaves behind is flushed without anybody else coming", func(t *testing.T) {
		t.Parallel()
		begun, release := make(chan struct{}), make(chan struct{})
		b := newBatcher(1, atMost(4, 100), ignored, func(ctx context.Context, batch []*parcel) {
			begun <- struct{}{}
			<-release
			deliver(ctx, batch)
		})
		first, left := newParcel(), newParcel()
		var all sync.WaitGroup
		all.Go(func() { _ = b.do(context.Background(), first) })
		<-begun
		ctx, cancel := context.WithCancel(context.Background())
		gone := make(chan error, 1)
		go func() { gone <- b.do(ctx, left) }()
		for waiting(b) == 0 {
			select { // let it get in
			case <-t.Context().Done():
				t.Fatal("it never got in")
			default:
			}
		}
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) { // the only lane is taken still
			t.Errorf("got %v", err)
		}
		all.Go(func() { <-begun })
		close(release)
		<-left.ready
		all.Wait()
	})

	t.Run("a queue full of those who left lets the next one in", func(t *testing.T) {
		t.Parallel()
		begun, release := make(chan struct{}, 100), make(chan struct{})
		b := newBatcher(1, atMost(2, 8), ignored, func(ctx context.Context, batch []*parcel) {
			begun <- struct{}{}
			<-release
			deliver(ctx, batch)
		})
		var all sync.WaitGroup
		all.Go(func() { _ = b.do(context.Background(), newParcel()) })
		<-begun // the database hangs
		ctx, cancel := context.WithCancel(context.Background())
		for range b.limits.queue {
			all.Go(func() { _ = b.do(ctx, newParcel()) })
		}
		for waiting(b) < b.limits.queue {
			select {
			case <-t.Context().Done():
				t.Fatal("the queue never filled")
			default:
			}
		}
		cancel()
		close(release)
		all.Wait()
		if err := b.do(t.Context(), newParcel()); err != nil {
			t.Error(err)
		}
	})
}
