package events

import (
	"sort"
	"sync"
)

// A Tail holds the newest items of the log for the readers of this process. A reader is
// nothing but a position: it asks for what comes after it and waits when there is nothing,
// so a slow or vanished reader costs no memory and nobody waits for anybody. A reader that
// has fallen behind what the Tail holds reads the stored log until it has caught up.
//
// All methods may be called at the same time.
type Tail[T any] struct {
	seq  func(T) int64
	size int

	mu    sync.Mutex
	items []T   // by ascending seq
	floor int64 // every item after floor, up to head, is in items
	head  int64
	moved chan struct{} // closed and replaced when head moves
}

// NewTail returns a Tail that holds up to size items after the position at.
func NewTail[T any](size int, at int64, seq func(T) int64) *Tail[T] {
	return &Tail[T]{seq: seq, size: size, floor: at, head: at, moved: make(chan struct{})}
}

// Publish appends items that are committed, in ascending order, and moves the head to
// through: the reader of the log has seen everything up to there. Items at or before the
// present head are dropped, so publishing again is harmless.
func (t *Tail[T]) Publish(items []T, through int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if through <= t.head {
		return
	}
	first := sort.Search(len(items), func(i int) bool { return t.seq(items[i]) > t.head })
	t.items = append(t.items, items[first:]...)
	if over := len(t.items) - t.size; over > 0 {
		t.floor = t.seq(t.items[over-1])
		// Not cleared: readers may still hold them. They go when append next moves the rest.
		t.items = t.items[over:]
	}
	t.head = through
	close(t.moved)
	t.moved = make(chan struct{})
}

// After returns the items that come after seq and the head up to which they are complete.
// It reports false when seq lies before what is held: the caller then reads the stored log.
// The items are shared and must not be changed.
func (t *Tail[T]) After(seq int64) (items []T, head int64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if seq < t.floor {
		return nil, t.head, false
	}
	first := sort.Search(len(t.items), func(i int) bool { return t.seq(t.items[i]) > seq })
	return t.items[first:len(t.items):len(t.items)], t.head, true
}

// Head returns the position up to which the log has been published, and a channel that is
// closed when it moves on.
func (t *Tail[T]) Head() (seq int64, moved <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.head, t.moved
}
