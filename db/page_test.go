package db_test

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/probe"
)

// turns reads a whole list page by page, and gives back what each page held.
func turns[T any](t *rapid.T, n int, backward bool, read func(db.Page) ([]T, error), key func(T) []string) []T {
	var all []T
	p := db.Page{N: n, Backward: backward}
	for {
		rows, err := read(p)
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) > n {
			t.Fatalf("a page of %d holds %d", n, len(rows))
		}
		if len(rows) == 0 {
			return all
		}
		if backward {
			all, p.Before = append(slices.Clone(rows), all...), key(rows[0])
		} else {
			all, p.After = append(all, rows...), key(rows[len(rows)-1])
		}
	}
}

func ids(all []db.Probe) []string {
	out := make([]string, len(all))
	for i, p := range all {
		out[i] = string(p.ID)
	}
	return out
}

func TestPagesOfProbes(t *testing.T) {
	t.Parallel()
	d, _ := open(t)
	countries := []country.Code{"DE", "IR", "RU"}
	var all []probe.Probe
	for n := range 30 { // many share each sort key, some to the microsecond
		all = append(all, register(t, d, n, func(r *probe.Registration) {
			r.Country, r.At = countries[n*7%3], now.Add(time.Duration(n*5%7)*time.Microsecond)
		}))
	}
	instant := func(at time.Time) string { return at.Format(time.RFC3339Nano) }
	for name, c := range map[string]struct {
		by  db.ProbeOrder
		key func(probe.Probe) string
	}{
		"by registration":      {db.ByRegisteredAt, func(p probe.Probe) string { return instant(p.RegisteredAt) }},
		"by the state's start": {db.ByStateSince, func(p probe.Probe) string { return instant(p.StateSince) }},
		"by country":           {db.ByCountry, func(p probe.Probe) string { return string(p.Country) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := slices.Clone(all)
			column := func(a, b probe.Probe) int {
				switch c.by {
				case db.ByRegisteredAt:
					return a.RegisteredAt.Compare(b.RegisteredAt)
				case db.ByStateSince:
					return a.StateSince.Compare(b.StateSince)
				default:
					return strings.Compare(string(a.Country), string(b.Country))
				}
			}
			slices.SortFunc(want, func(a, b probe.Probe) int { return cmp.Or(column(a, b), cmp.Compare(a.ID, b.ID)) })
			rapid.Check(t, func(t *rapid.T) {
				desc := rapid.Bool().Draw(t, "desc")
				n := rapid.IntRange(3, 31).Draw(t, "n")
				got := turns(t, n, rapid.Bool().Draw(t, "backward"), func(p db.Page) ([]db.Probe, error) {
					return d.Probes(context.Background(), db.ProbeQuery{}, c.by, desc, p)
				}, func(p db.Probe) []string { return []string{c.key(p.Probe), string(p.ID)} })
				expected := make([]string, len(want))
				for i, p := range want {
					if desc {
						i = len(want) - 1 - i
					}
					expected[i] = string(p.ID)
				}
				if !slices.Equal(ids(got), expected) {
					t.Fatalf("got %v, want %v", ids(got), expected)
				}
			})
		})
	}

	t.Run("a page between two keys holds neither", func(t *testing.T) {
		t.Parallel()
		whole, err := d.Probes(context.Background(), db.ProbeQuery{}, db.ByCountry, false, db.Page{N: 100})
		if err != nil {
			t.Fatal(err)
		}
		key := func(p db.Probe) []string { return []string{string(p.Country), string(p.ID)} }
		got, err := d.Probes(context.Background(), db.ProbeQuery{}, db.ByCountry, false,
			db.Page{N: 100, After: key(whole[3]), Before: key(whole[9])})
		if err != nil || !slices.Equal(ids(got), ids(whole[4:9])) {
			t.Errorf("got %v, %v", ids(got), err)
		}
	})

	t.Run("conditions hold together", func(t *testing.T) {
		t.Parallel()
		q := db.ProbeQuery{
			Countries: []string{"DE"}, IDs: []string{string(all[0].ID), string(all[1].ID)}, States: []string{"OFFLINE"},
			Lifecycles: []string{"PENDING"}, Types: []string{"DESKTOP"},
		}
		got, err := d.Probes(context.Background(), q, db.ByCountry, false, db.Page{N: 100})
		if err != nil || !slices.Equal(ids(got), []string{string(all[0].ID)}) {
			t.Errorf("got %v, %v", ids(got), err)
		}
	})
}

func TestPagesOfEvents(t *testing.T) {
	t.Parallel()
	d, _ := open(t)
	write(t, d, func(_ context.Context, tx *db.Tx) error {
		for range 40 {
			tx.Append(events.Event{OccurredAt: now, Kind: "A"})
		}
		return nil
	})
	want := logged(t, d)
	slices.Reverse(want)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(3, 41).Draw(t, "n")
		got := turns(t, n, rapid.Bool().Draw(t, "backward"), func(p db.Page) ([]events.Event, error) {
			return d.Events(context.Background(), db.EventQuery{}, p)
		}, func(e events.Event) []string { return []string{strconv.FormatInt(e.Seq, 10)} })
		if !slices.EqualFunc(got, want, func(a, b events.Event) bool { return a.Seq == b.Seq }) {
			t.Fatalf("%d events came back of %d, or in another order", len(got), len(want))
		}
	})
}
