package db

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/probe"
)

// A Token is a stored token of a person or a program, without its secret.
type Token struct {
	ID        int64
	Role      access.Role
	Name      string
	CreatedAt time.Time
}

// Principal returns whose token or probe's secret this is the hash of. It fails with
// UNAUTHENTICATED when nobody's. A retired probe keeps its secret: what it may still do is
// for the flows to say.
func (r reader) Principal(ctx context.Context, h access.Hash) (access.Principal, error) {
	p, err := one(ctx, r, func(row pgx.CollectableRow) (p access.Principal, err error) {
		var probeID *string
		err = row.Scan(&p.Role, &probeID, &p.TokenID, &p.Name)
		if probeID != nil {
			p.ProbeID = probe.ID(*probeID)
		}
		return p, err
	}, `select role, null::text, id, name from token where hash = $1
		union all select 'PROBE', id, 0, display_name from probe where secret_hash = $1`, h[:])
	if fault.Is(err, fault.NotFound) {
		return access.Principal{}, fault.New(fault.Unauthenticated, "Nobody issued this token, or it was revoked.")
	}
	return p, err
}

// InsertToken stores a token by its hash and returns its number.
func (t *Tx) InsertToken(ctx context.Context, role access.Role, name string, h access.Hash) (Token, error) {
	id, err := one(ctx, t.reader, pgx.RowTo[int64],
		"insert into token (role, name, hash, created_at) values ($1, $2, $3, $4) returning id", role, name, h[:], t.Now)
	return Token{ID: id, Role: role, Name: name, CreatedAt: t.Now}, err
}

// Token returns a token by its number. NOT_FOUND when there is none.
func (r reader) Token(ctx context.Context, id int64) (Token, error) {
	return one(ctx, r, func(row pgx.CollectableRow) (t Token, err error) {
		err = row.Scan(&t.ID, &t.Role, &t.Name, &t.CreatedAt)
		t.CreatedAt = t.CreatedAt.UTC()
		return t, err
	}, "select id, role, name, created_at from token where id = $1", id)
}

// An Answer is what a mutation was answered with, under a hash of its idempotency key. It is
// sealed: who reads the table learns nothing.
type Answer struct {
	Request [32]byte
	Sealed  []byte
}

// Answer returns what was answered to the key since the instant, if anything was.
func (r reader) Answer(ctx context.Context, key [32]byte, since time.Time) (Answer, bool, error) {
	a, err := one(ctx, r, func(row pgx.CollectableRow) (a Answer, err error) {
		var request []byte
		err = row.Scan(&request, &a.Sealed)
		copy(a.Request[:], request)
		return a, err
	}, "select request, answer from idempotency where key = $1 and created_at >= $2", key[:], since)
	if fault.Is(err, fault.NotFound) {
		return Answer{}, false, nil
	}
	return a, err == nil, err
}

// Answers returns what was answered to those of the keys since the instant to which anything was.
func (r reader) Answers(ctx context.Context, keys [][32]byte, since time.Time) (map[[32]byte]Answer, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	type row struct {
		key [32]byte
		Answer
	}
	rows, err := list(ctx, r, func(c pgx.CollectableRow) (x row, err error) {
		var key, request []byte
		err = c.Scan(&key, &request, &x.Sealed)
		copy(x.key[:], key)
		copy(x.Request[:], request)
		return x, err
	}, "select key, request, answer from idempotency where key = any($1) and created_at >= $2", slices32(keys), since)
	out := make(map[[32]byte]Answer, len(rows))
	for _, x := range rows {
		out[x.key] = x.Answer
	}
	return out, err
}

func slices32(keys [][32]byte) [][]byte {
	out := make([][]byte, len(keys))
	for i := range keys {
		out[i] = keys[i][:]
	}
	return out
}

// errAnswered is why an answer could not be stored: somebody else used the key at the same time.
var errAnswered = errors.New("answered meanwhile")

// InsertAnswer stores an answer under the key, in place of one from before the instant. When
// the key was used since then it fails with CONFLICT, and so does the transaction.
func (t *Tx) InsertAnswer(ctx context.Context, key [32]byte, a Answer, since time.Time) error {
	b := &pgx.Batch{}
	t.queueAnswers(b, map[[32]byte]Answer{key: a}, since)
	return translate(t.q.SendBatch(ctx, b).Close())
}

// InsertAnswers is InsertAnswer for many, when the transaction commits.
func (t *Tx) InsertAnswers(all map[[32]byte]Answer, since time.Time) {
	t.queueAnswers(&t.pending, all, since)
}

func (t *Tx) queueAnswers(b *pgx.Batch, all map[[32]byte]Answer, since time.Time) {
	n := len(all)
	if n == 0 {
		return
	}
	keys := slices.SortedFunc(maps.Keys(all), func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) }) // whoever locks rows does so in this order
	requests, sealed := make([][]byte, n), make([][]byte, n)
	for i, k := range keys {
		a := all[k]
		requests[i], sealed[i] = bytes.Clone(a.Request[:]), a.Sealed
	}
	b.Queue(`insert into idempotency (key, request, answer, created_at)
		select key, request, answer, $4 from unnest($1::bytea[], $2::bytea[], $3::bytea[]) u (key, request, answer)
		on conflict (key) do update set request = excluded.request, answer = excluded.answer, created_at = excluded.created_at
		where idempotency.created_at < $5`, slices32(keys), requests, sealed, t.Now, since).Exec(func(tag pgconn.CommandTag) error {
		if int(tag.RowsAffected()) < n {
			return fault.Wrap(errAnswered, fault.Conflict, "This idempotency key is in use at this moment. Try again.").
				At("input.idempotencyKey").After(time.Second)
		}
		return nil
	})
}

// DeleteAnswers forgets the answers from before the instant and returns how many there were.
func (t *Tx) DeleteAnswers(ctx context.Context, before time.Time) (int64, error) {
	tag, err := t.q.Exec(ctx, "delete from idempotency where created_at < $1", before)
	return tag.RowsAffected(), translate(err)
}
