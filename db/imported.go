package db

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/openvantage/vantage/archive"
	"github.com/openvantage/vantage/measurement"
)

// ImportedObjects are the objects of another archive that were imported whole, and how large they were.
func (r reader) ImportedObjects(ctx context.Context, source string) (map[string]int64, error) {
	type row struct {
		Name string
		Size int64
	}
	rows, err := list(ctx, r, pgx.RowToStructByPos[row], "select name, size from imported_object where source = $1", source)
	out := make(map[string]int64, len(rows))
	for _, o := range rows {
		out[o.Name] = o.Size
	}
	return out, err
}

// SaveImported records that an object of another archive was imported whole.
func (t *Tx) SaveImported(ctx context.Context, source string, o archive.Object) error {
	return t.exec(ctx, `insert into imported_object (source, name, size, imported_at) values ($1, $2, $3, $4)
		on conflict (source, name) do update set size = excluded.size, imported_at = excluded.imported_at`, source, o.Name, o.Size, t.Now)
}

// Taken are those of the uids that stored bodies have, scored or kept aside.
func (r reader) Taken(ctx context.Context, uids []measurement.ID) (map[measurement.ID]bool, error) {
	at, cc, ids := splitAll(uids)
	rows, err := list(ctx, r, pgx.RowTo[measurement.ID], `select uid from measurement
		where (received_at, country, uid) in (select * from unnest($1::timestamptz[], $2::text[], $3::text[]))
		union all select uid from discarded_submission
		where (received_at, country, uid) in (select * from unnest($1::timestamptz[], $2::text[], $3::text[]))`, at, cc, ids)
	out := make(map[measurement.ID]bool, len(rows))
	for _, uid := range rows {
		out[uid] = true
	}
	return out, err
}
