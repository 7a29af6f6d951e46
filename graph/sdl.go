// Package graph answers: what does the API promise? The schema is in graph/schema, written by
// hand; the executor that serves it is generated from there and never edited. What a field
// means is in graph/model, how it is found in resolvers, which alone implement it; server
// mounts it.
package graph

import (
	"strings"
	"sync"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/formatter"
)

//go:generate go -C .. tool gqlgen generate

// Schema returns the schema as the executor knows it. It must not be changed.
func Schema() *ast.Schema { return parsedSchema }

// SDL returns the whole schema in one text, sorted, as /schema.graphql serves it.
var SDL = sync.OnceValue(func() string {
	var b strings.Builder
	formatter.NewFormatter(&b, formatter.WithIndent("  ")).FormatSchema(parsedSchema)
	return b.String()
})
