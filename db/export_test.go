package db

import "context"

// Exec lets tests do to a transaction what no flow does: wait, fail, lose its connection.
func (t *Tx) Exec(ctx context.Context, sql string, args ...any) error {
	return t.exec(ctx, sql, args...)
}

// Translate lets tests show SQLSTATEs that are hard to provoke.
var Translate = translate
