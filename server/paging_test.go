package server_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/server"
)

// A walk goes through a connection of the root page by page.
type walk struct {
	field   string
	orderBy string // as it is written; empty for none
	node    string // what tells one node from another
}

func (w walk) document() string {
	order := ""
	if w.orderBy != "" {
		order = ", orderBy: " + w.orderBy
	}
	return fmt.Sprintf(`query ($first: Int, $after: Cursor, $last: Int, $before: Cursor) {
		%s(first: $first, after: $after, last: $last, before: $before%s) { edges { cursor node { %s } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }`,
		w.field, order, w.node)
}

// page asks for one page and returns its nodes with where it stands.
func (w walk) page(t *testing.T, a *api, variables object) (nodes []string, info object) {
	t.Helper()
	data := a.ask(t, "", w.document(), variables)
	edges := list(t, data, w.field, "edges")
	info = at(t, data, w.field, "pageInfo").(object)
	for _, e := range edges {
		nodes = append(nodes, str(t, e, "node", w.node))
	}
	if len(edges) > 0 {
		equal(t, info["startCursor"], at(t, edges, 0, "cursor"))
		equal(t, info["endCursor"], at(t, edges, len(edges)-1, "cursor"))
	} else {
		equal(t, []any{info["startCursor"], info["endCursor"]}, []any{nil, nil})
	}
	return nodes, info
}

// forward walks to the end with pages of these sizes in turn; between is called after each page.
func (w walk) forward(t *testing.T, a *api, sizes []int, between func()) (all []string) {
	t.Helper()
	var after any
	for i := 0; ; i++ {
		nodes, info := w.page(t, a, object{"first": sizes[i%len(sizes)], "after": after})
		all = append(all, nodes...)
		equal(t, info["hasPreviousPage"], any(after != nil))
		if info["hasNextPage"] == false {
			return all
		}
		after = info["endCursor"]
		between()
	}
}

// backward walks to the beginning and returns the nodes in the order of the list.
func (w walk) backward(t *testing.T, a *api, sizes []int) (all []string) {
	t.Helper()
	var before any
	for i := 0; ; i++ {
		nodes, info := w.page(t, a, object{"last": sizes[i%len(sizes)], "before": before})
		all = append(nodes, all...)
		if info["hasPreviousPage"] == false {
			return all
		}
		before = info["startCursor"]
	}
}

func TestPaging(t *testing.T) {
	t.Parallel()
	a := start(t)
	instant := time.Now().UTC().Add(-time.Hour).Format("2006-01-02 15:04:05")
	for i := range 23 {
		a.register(t, []string{"IT", "FR", "DE"}[i%3], 1+i%2)
		started := instant // many at one instant, so that the uid must decide
		if i%3 == 0 {
			started = startedAt(int64(-i)).Format("2006-01-02 15:04:05")
		}
		a.submit(t, "", body(object{"measurement_start_time": started, "probe_cc": []string{"IT", "FR"}[i%2]}))
	}
	// One instant for several probes, too.
	a.exec(t, "update probe set state_since = date_trunc('hour', state_since), registered_at = date_trunc('second', registered_at)")

	var walks []walk
	for _, direction := range []string{"ASC", "DESC"} {
		for _, by := range []string{"REGISTERED_AT", "STATE_SINCE", "COUNTRY"} {
			walks = append(walks, walk{"probes", "{field: " + by + ", direction: " + direction + "}", "id"})
		}
		for _, by := range []string{"STARTED_AT", "RECEIVED_AT"} {
			walks = append(walks, walk{"measurements", "{field: " + by + ", direction: " + direction + "}", "uid"})
		}
	}
	walks = append(walks, walk{"events", "", "id"}, walk{"probes", "", "id"}, walk{"measurements", "", "uid"})

	whole := make([][]string, len(walks))
	for i, w := range walks {
		whole[i], _ = w.page(t, a, object{"first": 100})
		if len(whole[i]) < 23 || len(whole[i]) != len(distinct(whole[i])) {
			t.Fatalf("%s %s: the whole list has %d items, %d of them distinct", w.field, w.orderBy, len(whole[i]), len(distinct(whole[i])))
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		i := rapid.IntRange(0, len(walks)-1).Draw(rt, "walk")
		w, sizes := walks[i], rapid.SliceOfN(rapid.IntRange(1, 30), 1, 3).Draw(rt, "sizes")
		if rapid.Bool().Draw(rt, "backward") {
			equal(t, w.backward(t, a, sizes), whole[i])
		} else {
			equal(t, w.forward(t, a, sizes, func() {}), whole[i])
		}
		if t.Failed() {
			rt.Fatalf("%s %s is another list in pages", w.field, w.orderBy)
		}
	})
}

func distinct(items []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(items)))
}

//nolint:paralleltest,tparallel // each walk begins with what the others left
func TestPagingWhileItGrows(t *testing.T) {
	t.Parallel()
	a := start(t, func(c *server.Config) { c.RegistrationsPerHour = 10_000 })
	for range 9 {
		a.register(t, "IT", 1)
		a.submit(t, "", body(nil))
	}
	for _, w := range []walk{
		{"probes", "", "id"},
		{"probes", "{field: COUNTRY, direction: ASC}", "id"},
		{"measurements", "", "uid"},
		{"measurements", "{field: RECEIVED_AT}", "uid"},
		{"measurements", "{field: STARTED_AT, direction: ASC}", "uid"},
		{"events", "", "id"},
	} {
		t.Run(strings.TrimSpace(w.field+" "+w.orderBy)+" that were there are met once each while others come", func(t *testing.T) {
			there, _ := w.page(t, a, object{"first": 100})
			round := 0
			met := w.forward(t, a, []int{2, 1}, func() {
				if round++; round > 6 {
					return // for what comes behind the walk makes it longer
				}
				a.register(t, []string{"AD", "ZW", "IT"}[round%3], 1)
				a.submit(t, "", body(nil))
				a.submit(t, "", body(object{"measurement_start_time": startedAt(-100).Format("2006-01-02 15:04:05")}))
			})
			equal(t, len(met), len(distinct(met)))
			old := slices.DeleteFunc(slices.Clone(met), func(id string) bool { return !slices.Contains(there, id) })
			equal(t, old, there)
		})
	}
}

func TestConnectionsOfPlaces(t *testing.T) {
	t.Parallel()
	a := start(t)
	operator := a.issue(t, access.Operator)
	here, there := a.register(t, "IT", 30722), a.register(t, "FR", 30722)
	a.activate(t, operator, here)
	uids := map[string]string{}
	for _, cc := range []string{"IT", "FR"} {
		uids[cc] = str(t, a.submit(t, "", body(object{"probe_cc": cc})), "measurement", "uid")
	}
	data := a.ask(t, "", `{ country(code: "IT") { probes(first: 9) { edges { node { id } } } measurements(last: 9) { edges { node { uid } } } }
		network(asn: 30722) { measurements(first: 9) { edges { node { uid } } } } }`, nil)
	equal(t, at(t, data, "country"), any(object{
		"probes": object{"edges": []any{object{"node": object{"id": here.id}}}}, "measurements": object{"edges": []any{object{"node": object{"uid": uids["IT"]}}}},
	}))
	equal(t, len(list(t, data, "network", "measurements", "edges")), 2)

	t.Run("countries are filtered", func(t *testing.T) {
		t.Parallel()
		all := list(t, a.ask(t, "", "{ countries { code riskTier monitored } }", nil), "countries")
		if len(all) < 240 || len(all) > 250 {
			t.Errorf("there are %d countries", len(all))
		}
		got := a.ask(t, "", `{ countries(filter: {codes: ["IT", "IR"]}) { code } none: countries(filter: {codes: []}) { code } }`, nil)
		equal(t, got, object{"countries": []any{object{"code": "IR"}, object{"code": "IT"}}, "none": []any{}})
	})

	t.Run("an empty list in a filter matches nothing, and none everything", func(t *testing.T) {
		t.Parallel()
		for field, names := range map[string][]string{
			"probes": {"ids", "countries", "asns", "states", "lifecycles", "types"}, "events": {"kinds", "countries", "subjects"},
			"measurements": {"countries", "asns", "testNames", "domains", "inputs", "outcomes", "softwareVersions"},
		} {
			for _, name := range names {
				got := a.ask(t, "", fmt.Sprintf("{ none: %s(first: 9, filter: {%s: []}) { edges { cursor } } all: %s(first: 1, filter: {%s: null}) { edges { cursor } } }", field, name, field, name), nil)
				if len(list(t, got, "none", "edges")) != 0 || len(list(t, got, "all", "edges")) != 1 {
					t.Errorf("%s: %v", name, got)
				}
			}
		}
	})

	t.Run("probes are filtered by each condition", func(t *testing.T) {
		t.Parallel()
		for filter, want := range map[string][]string{
			`{ids: ["` + there.id + `"]}`:               {there.id},
			`{countries: ["FR"]}`:                       {there.id},
			`{lifecycles: [ACTIVE]}`:                    {here.id},
			`{lifecycles: [ACTIVE], countries: ["FR"]}`: nil,
			`{states: [ONLINE]}`:                        nil,
			`{types: [DESKTOP]}`:                        {here.id, there.id},
		} {
			got := map[string]bool{}
			for _, e := range list(t, a.ask(t, "", "{ probes(first: 9, filter: "+filter+") { edges { node { id } } } }", nil), "probes", "edges") {
				got[str(t, e, "node", "id")] = true
			}
			slices.Sort(want)
			equal(t, slices.Sorted(maps.Keys(got)), want)
		}
	})
}
