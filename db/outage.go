package db

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openvantage/vantage/probe"
)

// An Outage is a stored observer outage.
type Outage struct {
	ID int64
	probe.Outage
}

const outageSelect = "select id, began_at, ended_at, healthy_since, heard_since, cause from observer_outage"

func scanOutage(row pgx.CollectableRow) (o Outage, err error) {
	var to, healthy, heard *time.Time
	err = row.Scan(&o.ID, &o.From, &to, &healthy, &heard, &o.Cause)
	o.From, o.To, o.HealthySince, o.HeardSince = o.From.UTC(), zero(to), zero(healthy), zero(heard)
	return o, err
}

// Outages returns up to n outages that had not ended before the instant, oldest first.
func (r reader) Outages(ctx context.Context, since time.Time, n int) ([]Outage, error) {
	return list(ctx, r, scanOutage, "select * from ("+outageSelect+
		" where ended_at is null or ended_at > $1 order by began_at desc, id desc limit $2) o order by began_at, id", since, n)
}

// LockOutages keeps every other sweeper from opening or closing outages until the transaction
// ends, and returns the latest outage, an open one before all; the zero Outage when there is
// none.
func (t *Tx) LockOutages(ctx context.Context) (Outage, error) {
	if err := t.exec(ctx, "lock table observer_outage in share row exclusive mode"); err != nil {
		return Outage{}, err
	}
	found, err := list(ctx, t.reader, scanOutage, outageSelect+" order by coalesce(ended_at, 'infinity') desc, id desc limit 1")
	if err != nil || len(found) == 0 {
		return Outage{}, err
	}
	return found[0], nil
}

// SaveOutage stores an outage, a new one when it has no id yet, and returns its id.
func (t *Tx) SaveOutage(ctx context.Context, o Outage) (int64, error) {
	if o.ID == 0 {
		return one(ctx, t.reader, pgx.RowTo[int64], `insert into observer_outage (began_at, ended_at, healthy_since, heard_since, cause)
			values ($1, $2, $3, $4, $5) returning id`, o.From, null(o.To), null(o.HealthySince), null(o.HeardSince), o.Cause)
	}
	return o.ID, t.exec(ctx, "update observer_outage set ended_at = $2, healthy_since = $3, heard_since = $4 where id = $1",
		o.ID, null(o.To), null(o.HealthySince), null(o.HeardSince))
}

// Watermark returns when any server process last swept; zero before the first time.
func (r reader) Watermark(ctx context.Context) (time.Time, error) {
	found, err := list(ctx, r, pgx.RowTo[time.Time], "select seen_at from observer_watermark")
	if err != nil || len(found) == 0 {
		return time.Time{}, err
	}
	return found[0].UTC(), nil
}

// SaveWatermark records that this process is sweeping. It never goes back.
func (t *Tx) SaveWatermark(ctx context.Context) error {
	return t.exec(ctx, `insert into observer_watermark (seen_at) values ($1)
		on conflict (only_row) do update set seen_at = greatest(observer_watermark.seen_at, excluded.seen_at)`, t.Now)
}
