package server_test

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/openvantage/vantage/graph"
)

const introspection = `{ __schema {
	queryType { name } mutationType { name } subscriptionType { name }
	types { name kind description specifiedByURL interfaces { name } possibleTypes { name }
		fields(includeDeprecated: true) { name description type { ...T } args { name description defaultValue type { ...T } } }
		inputFields { name description defaultValue type { ...T } } enumValues(includeDeprecated: true) { name description } }
	directives { name description locations args { name description type { ...T } } } } }
fragment T on __Type { kind name ofType { kind name ofType { kind name ofType { kind name } } } }`

// spell writes an introspected type as SDL does.
func spell(v any) string {
	o := v.(object)
	switch o["kind"] {
	case "NON_NULL":
		return spell(o["ofType"]) + "!"
	case "LIST":
		return "[" + spell(o["ofType"]) + "]"
	}
	return o["name"].(string)
}

func TestIntrospection(t *testing.T) {
	t.Parallel()
	a := start(t)
	_, sdl := a.send(t, http.MethodGet, a.URL()+"/schema.graphql", nil, nil)
	equal(t, sdl, graph.SDL())
	data := at(t, a.ask(t, "", introspection, nil), "__schema")

	got := map[string]string{}
	add := func(path string, o object, kind string) {
		d, _ := o["description"].(string)
		got[path] = kind + " " + d
	}
	inputs := func(path string, vs any) {
		all, _ := vs.([]any)
		for _, v := range all {
			o := v.(object)
			add(path+str(t, o, "name"), o, spell(o["type"]))
		}
	}
	for _, v := range list(t, data, "types") {
		d := v.(object)
		name := str(t, d, "name")
		if strings.HasPrefix(name, "__") || slices.Contains([]string{"Int", "Float", "String", "Boolean", "ID"}, name) {
			continue
		}
		add(name, d, str(t, d, "kind"))
		fields, _ := d["fields"].([]any)
		for _, f := range fields {
			o := f.(object)
			add(name+"."+str(t, o, "name"), o, spell(o["type"]))
			inputs(name+"."+str(t, o, "name")+".", o["args"])
		}
		inputs(name+".", d["inputFields"])
		values, _ := d["enumValues"].([]any)
		for _, v := range values {
			add(name+"."+str(t, v, "name"), v.(object), "value")
		}
	}

	want := map[string]string{}
	for name, d := range graph.Schema().Types {
		if d.BuiltIn || strings.HasPrefix(name, "__") {
			continue
		}
		want[name] = string(d.Kind) + " " + d.Description
		for _, f := range d.Fields {
			if strings.HasPrefix(f.Name, "__") {
				continue
			}
			want[name+"."+f.Name] = f.Type.String() + " " + f.Description
			for _, arg := range f.Arguments {
				want[name+"."+f.Name+"."+arg.Name] = arg.Type.String() + " " + arg.Description
			}
		}
		for _, v := range d.EnumValues {
			want[name+"."+v.Name] = "value " + v.Description
		}
	}
	equal(t, got, want)

	t.Run("directives are shown", func(t *testing.T) {
		t.Parallel()
		var names []string
		for _, d := range list(t, data, "directives") {
			names = append(names, str(t, d, "name"))
		}
		slices.Sort(names)
		equal(t, names, slices.Sorted(maps.Keys(graph.Schema().Directives)))
	})

	t.Run("roots are the three", func(t *testing.T) {
		t.Parallel()
		for kind, d := range map[string]*ast.Definition{"queryType": graph.Schema().Query, "mutationType": graph.Schema().Mutation, "subscriptionType": graph.Schema().Subscription} {
			equal(t, str(t, data, kind, "name"), d.Name)
		}
	})
}
