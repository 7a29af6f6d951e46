package events_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openvantage/vantage/events"
)

func newTail(size int, at int64) *events.Tail[int64] {
	return events.NewTail(size, at, func(n int64) int64 { return n })
}

func TestTail(t *testing.T) {
	t.Parallel()
	type publish struct {
		items   []int64
		through int64
	}
	for name, c := range map[string]struct {
		publish []publish
		after   int64
		want    []int64
		head    int64
		ok      bool
	}{
		"nothing comes after the end of the log":            {nil, 10, nil, 10, true},
		"what came before the start must be read elsewhere": {nil, 9, nil, 10, false},
		"what is published comes after the start":           {[]publish{{[]int64{11, 13}, 13}}, 10, []int64{11, 13}, 13, true},
		"a position between two numbers counts":             {[]publish{{[]int64{11, 13}, 13}}, 12, []int64{13}, 13, true},
		"the head moves over numbers that are nobody's":     {[]publish{{nil, 20}}, 12, nil, 20, true},
		"the head may lie beyond the last item":             {[]publish{{[]int64{11}, 20}}, 10, []int64{11}, 20, true},
		"publishing again changes nothing":                  {[]publish{{[]int64{11, 12}, 12}, {[]int64{11, 12}, 12}}, 10, []int64{11, 12}, 12, true},
		"publishing what overlaps adds what is new":         {[]publish{{[]int64{11, 12}, 12}, {[]int64{12, 13}, 13}}, 10, []int64{11, 12, 13}, 13, true},
		"the oldest give way":                               {[]publish{{[]int64{11, 12, 13, 14}, 14}}, 11, []int64{12, 13, 14}, 14, true},
		"a reader behind the oldest must read elsewhere":    {[]publish{{[]int64{11, 12, 13, 14}, 14}}, 10, nil, 14, false},
		"a reader ahead of what is published finds nothing": {[]publish{{[]int64{11}, 11}}, 99, nil, 11, true},
		"more than fits at once leaves the newest":          {[]publish{{[]int64{11, 12, 13, 14, 15, 16}, 16}}, 13, []int64{14, 15, 16}, 16, true},
		"the head never moves back":                         {[]publish{{nil, 20}, {[]int64{15}, 15}}, 10, nil, 20, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tail := newTail(3, 10)
			for _, p := range c.publish {
				tail.Publish(p.items, p.through)
			}
			got, head, ok := tail.After(c.after)
			if !slices.Equal(got, c.want) || head != c.head || ok != c.ok {
				t.Errorf("After(%d) = %v, %d, %v; want %v, %d, %v", c.after, got, head, ok, c.want, c.head, c.ok)
			}
		})
	}

	t.Run("whoever waits is told once the head moves, and not before", func(t *testing.T) {
		t.Parallel()
		tail := newTail(3, 10)
		_, moved := tail.Head()
		tail.Publish(nil, 10)
		select {
		case <-moved:
			t.Error("told of nothing")
		default:
		}
		tail.Publish(nil, 11)
		select {
		case <-moved:
		default:
			t.Error("not told")
		}
		if _, again := tail.Head(); again == moved {
			t.Error("the next to wait would be told of the same move")
		}
	})

	t.Run("items in a reader's hands stay what they are", func(t *testing.T) {
		t.Parallel()
		tail := newTail(3, 0)
		var held, want [][]int64
		for n := int64(1); n < 50; n++ {
			tail.Publish([]int64{n}, n)
			items, _, _ := tail.After(max(0, n-3))
			held, want = append(held, items), append(want, slices.Clone(items))
		}
		if diff := cmp.Diff(want, held); diff != "" {
			t.Errorf("the readers now hold something else: %s", diff)
		}
	})
}

// A tailReader does what Follow does: it takes from the tail, and from the store where told to.
type tailReader struct {
	at  int64
	got []int64
}

func (r *tailReader) step(tail *events.Tail[int64], stored []int64) (fromStore bool) {
	items, head, ok := tail.After(r.at)
	if !ok {
		from, _ := slices.BinarySearch(stored, r.at+1)
		to, _ := slices.BinarySearch(stored, head+1)
		items = stored[from:to]
	}
	r.got = append(r.got, items...)
	r.at = max(r.at, head)
	return !ok
}

func TestTailGivesEachItemOnceInOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.Int64Range(0, 5).Draw(t, "start")
		tail := newTail(rapid.IntRange(1, 6).Draw(t, "size"), start)
		var log []int64 // all that was published
		head := start
		starts := map[*tailReader]int64{}
		var readers []*tailReader
		t.Repeat(map[string]func(*rapid.T){
			"publish": func(t *rapid.T) {
				again := rapid.IntRange(0, min(3, len(log))).Draw(t, "again")
				items := slices.Clone(log[len(log)-again:])
				for range rapid.IntRange(0, 9).Draw(t, "new") {
					head += rapid.Int64Range(1, 3).Draw(t, "by")
					items, log = append(items, head), append(log, head)
				}
				head += rapid.Int64Range(0, 2).Draw(t, "beyond")
				tail.Publish(items, head)
			},
			"arrive": func(t *rapid.T) {
				r := &tailReader{at: rapid.Int64Range(start, head).Draw(t, "at")}
				starts[r], readers = r.at, append(readers, r)
			},
			"read": func(t *rapid.T) {
				if len(readers) > 0 {
					rapid.SampledFrom(readers).Draw(t, "who").step(tail, log)
				}
			},
		})
		for _, r := range readers {
			r.step(tail, log)
			from, _ := slices.BinarySearch(log, starts[r]+1)
			if !slices.Equal(r.got, log[from:]) {
				t.Fatalf("a reader from %d on got %v, not %v", starts[r], r.got, log[from:])
			}
		}
	})
}

func TestTailUnderRace(t *testing.T) {
	t.Parallel()
	const last, size, readers = 3000, 16, 8
	tail := newTail(size, 0)
	stored := make([]int64, last)
	for i := range stored {
		stored[i] = int64(i + 1)
	}
	var all sync.WaitGroup
	for range readers {
		all.Go(func() {
			var r tailReader
			for r.at < last {
				_, moved := tail.Head()
				before := r.at
				if fromStore := r.step(tail, stored); !fromStore && r.at == before && r.at < last {
					<-moved
				}
			}
			if !slices.Equal(r.got, stored) {
				t.Errorf("a reader got %d items, not %d in order", len(r.got), last)
			}
		})
	}
	for n := int64(0); n < last; {
		through := min(last, n+1+n%23)
		tail.Publish(stored[n:through], through)
		n = through
	}
	all.Wait()
}
