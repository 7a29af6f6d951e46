package db

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// copyIn stores rows by COPY: no planning, and no arrays that PostgreSQL has to take apart again.
func copyIn[T any](ctx context.Context, t *Tx, table, names string, all []T, values func(*T) []any) error {
	_, err := t.pgx.CopyFrom(ctx, pgx.Identifier{table}, columns(names), pgx.CopyFromSlice(len(all), func(i int) ([]any, error) {
		return values(&all[i]), nil
	}))
	return translate(err)
}
