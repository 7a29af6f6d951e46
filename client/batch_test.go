package client

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestBatcher(t *testing.T) {
	t.Parallel()
	t.Run("batches hold every body once, in order, and only a lone body may be over the bound", func(t *testing.T) {
		t.Parallel()
		room := make([]byte, maxBatchBytes+2)
		rapid.Check(t, func(t *rapid.T) {
			size := rapid.OneOf(rapid.IntRange(0, 100), rapid.IntRange(0, len(room)))
			sizes := rapid.SliceOfN(size, 0, 300).Draw(t, "sizes")
			var got []int
			b := batcher{send: func(batch []fileBody) error {
				bytes := 0
				for _, body := range batch {
					bytes += len(body.content)
					got = append(got, len(body.content))
				}
				if len(batch) == 0 || len(batch) > maxBatchItems || (len(batch) > 1 && bytes > maxBatchBytes) {
					t.Errorf("a batch of %d bodies, %d bytes", len(batch), bytes)
				}
				return nil
			}}
			for _, n := range sizes {
				if err := b.add(fileBody{item: item{content: room[:n]}}); err != nil {
					t.Fatal(err)
				}
			}
			if err := b.flush(); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(sizes, got) {
				t.Errorf("sent %v of %v", got, sizes)
			}
		})
	})
}
