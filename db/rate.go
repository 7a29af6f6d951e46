package db

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openvantage/vantage/fault"
)

// SaveRates adds what payers spent to what they owe, and returns what each owes now, in the
// order of payers. Both are times that it takes to come back; less than nothing is given back.
// No payer may be named twice. Rows of payers who owe nothing are deleted, whoever calls.
//
// Payers can be the networks of people at risk, so only hashes are stored, and only of those
// who spent much within the last minutes, or the last hour where a burst takes that long. Who
// steals the database while it runs has the key of the day as well, and learns by trying all
// networks which of them those few are; nothing tells what they asked, nor anything of earlier
// payers. Who has an old copy of the rows needs the key of that day, which is gone. Backups of
// files and the write-ahead log hold neither; pg_dump should be told --no-unlogged-table-data.
func (t *Tx) SaveRates(ctx context.Context, payers []string, spent []time.Duration) ([]time.Duration, error) {
	owed := make([]time.Duration, len(payers))
	if len(payers) > 0 {
		key, err := t.rateKey(ctx)
		if err != nil {
			return nil, err
		}
		places := make(map[[sha256.Size]byte]int, len(payers))
		hashes, micros := make([][]byte, len(payers)), make([]int64, len(payers))
		for i, p := range payers {
			mac := hmac.New(sha256.New, key)
			mac.Write([]byte(p))
			hashes[i] = mac.Sum(nil)
			micros[i] = int64((spent[i] + time.Microsecond - 1) / time.Microsecond)
			places[[sha256.Size]byte(hashes[i])] = i
		}
		if err := t.addRates(ctx, hashes, micros, func(hash []byte, d time.Duration) {
			owed[places[[sha256.Size]byte(hash)]] = max(0, d)
		}); err != nil {
			return nil, err
		}
	}
	// Rows that somebody is just changing are not full for long, and must not be waited for.
	return owed, t.exec(ctx, `delete from rate_level where payer in
		(select payer from rate_level where full_at <= now() for update skip locked)`)
}

// addRates is one statement for all payers. It takes their rows in one order, so that it cannot
// deadlock with its like.
func (t *Tx) addRates(ctx context.Context, hashes [][]byte, micros []int64, found func([]byte, time.Duration)) error {
	rows, err := t.q.Query(ctx, `insert into rate_level as r (payer, full_at)
		select payer, now() + micros * interval '1 microsecond' from unnest($1::bytea[], $2::bigint[]) as s (payer, micros) order by payer
		on conflict (payer) do update set full_at = greatest(r.full_at, now()) + (excluded.full_at - now())
		returning payer, full_at - now()`, hashes, micros)
	if err != nil {
		return translate(err)
	}
	var hash []byte
	var d time.Duration
	_, err = pgx.ForEachRow(rows, []any{&hash, &d}, func() error {
		found(hash, d)
		return nil
	})
	return translate(err)
}

// rateKey is the key of the day; the first to look after a day makes the next. Everybody has
// all points again then: rows under the old key are not found, and go when they would be full.
func (t *Tx) rateKey(ctx context.Context) ([]byte, error) {
	const present = "select key from rate_key where made_at > now() - interval '1 day'"
	key, err := one(ctx, t.reader, pgx.RowTo[[]byte], present)
	if !fault.Is(err, fault.NotFound) {
		return key, err
	}
	fresh := make([]byte, sha256.Size)
	_, _ = rand.Read(fresh) // never fails
	if err := t.exec(ctx, `insert into rate_key (key, made_at) values ($1, now())
		on conflict (only_row) do update set key = excluded.key, made_at = excluded.made_at
		where rate_key.made_at <= now() - interval '1 day'`, fresh); err != nil {
		return nil, err
	}
	return one(ctx, t.reader, pgx.RowTo[[]byte], present) // another process may have been faster
}
