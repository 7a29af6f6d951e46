// Package migrations answers: which steps lead from an empty database to the present schema?
//
// It holds SQL alone: NNNN_verb_noun.{up,down}.sql, never edited once on main. Package db
// applies them; nothing else reads them but db/dbtest, which names its template after them.
package migrations

import "embed"

// FS holds the migration files at its root.
//
//go:embed *.sql
var FS embed.FS
