// Package db answers: what is stored, and how is it read and written? Every SQL statement of
// the program is here, one file per noun, and so are the pool, the transaction and LISTEN.
//
// Reads exist on DB and on Tx; writes exist on Tx alone, so that none can happen outside a
// transaction. Events appended to a Tx get their numbers as its last step and are visible
// to readers of the log exactly when the rest of the transaction is. No rule is decided
// here. Package service writes; resolvers and ooniapi read.
package db

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openvantage/vantage/events"
)

// querier is what a pool and a transaction have in common.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// reader has every read. It is embedded in DB and Tx.
type reader struct{ q querier }

// A DB is a pool of connections. All methods may be called at the same time. They fail with
// UNAVAILABLE when the database cannot be reached, and with INTERNAL otherwise, unless they
// say more.
type DB struct {
	reader
	pool  *pgxpool.Pool
	clock func() time.Time
	parts *partitions
	queue *QueueClient
}

// A Tx is one transaction. Now is its instant: everything in it happens then.
type Tx struct {
	reader
	Now        time.Time
	pgx        pgx.Tx
	queue      *QueueClient
	pending    pgx.Batch // statements that can wait for the commit, and are sent with the log's
	rollup     []RollupChange
	events     []events.Event
	heartbeats []events.Heartbeat
}

// Options tune a DB. The zero value is good for a server of two cores.
type Options struct {
	MaxConns int32            // 0: 20
	Clock    func() time.Time // nil: the machine's, in UTC
}

// Open connects to the database and checks that it answers. It fails with UNAVAILABLE.
func Open(ctx context.Context, dsn string, o Options) (*DB, error) {
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("the database address cannot be read: %w", err)
	}
	cfg.MaxConns = 20
	if o.MaxConns > 0 {
		cfg.MaxConns = o.MaxConns
	}
	cfg.ConnConfig.RuntimeParams["timezone"] = "UTC"
	cfg.ConnConfig.RuntimeParams["application_name"] = "vantage"
	// A page that takes longer is refused, not waited for: researchers' queries must not
	// hold the connections that probes need.
	cfg.ConnConfig.RuntimeParams["statement_timeout"] = "20s"
	cfg.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = "60s"
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, translate(err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, translate(err)
	}
	clock := o.Clock
	if clock == nil {
		clock = time.Now
	}
	queue, err := enqueuer()
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &DB{reader: reader{pool}, pool: pool, clock: clock, parts: newPartitions(), queue: queue}, nil
}

// Close waits for running statements and closes the connections.
func (d *DB) Close() { d.pool.Close() }

// Now is the server's clock, in UTC and whole microseconds as the database keeps them.
func (d *DB) Now() time.Time { return d.clock().UTC().Truncate(time.Microsecond) }

// Write runs fn in a transaction and commits it when fn returns nil. What fn appended to the
// log is written last, under the log's lock, so that the order of numbers is the order of
// commits; see docs/decisions/001. An error of fn is returned as it is.
func (d *DB) Write(ctx context.Context, fn func(*Tx) error) error {
	return d.write(ctx, pgx.TxOptions{}, fn)
}

// WriteOften is Write for a flow that runs thousands of times a minute with the same few statements:
// they are planned once for each connection. Otherwise PostgreSQL plans those with lists anew each
// time, which takes a third of a heartbeat's transaction (BenchmarkHeartbeat).
func (d *DB) WriteOften(ctx context.Context, fn func(*Tx) error) error {
	return d.write(ctx, pgx.TxOptions{BeginQuery: "begin; set local plan_cache_mode = force_generic_plan"}, fn)
}

func (d *DB) write(ctx context.Context, o pgx.TxOptions, fn func(*Tx) error) error {
	return translate(pgx.BeginTxFunc(ctx, d.pool, o, func(t pgx.Tx) error {
		tx := &Tx{reader: reader{t}, Now: d.Now(), pgx: t, queue: d.queue}
		if err := fn(tx); err != nil {
			return err
		}
		return tx.flush(ctx)
	}))
}

// A View is the database as of one instant.
type View struct{ reader }

// Read runs fn on one unchanging view of the database, so that a list and the place in the
// log that it belongs to fit together.
func (d *DB) Read(ctx context.Context, fn func(View) error) error {
	o := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	return translate(pgx.BeginTxFunc(ctx, d.pool, o, func(t pgx.Tx) error { return fn(View{reader{t}}) }))
}

// exec runs one statement.
func (r reader) exec(ctx context.Context, sql string, args ...any) error {
	_, err := r.q.Exec(ctx, sql, args...)
	return translate(err)
}

// list runs a query and scans each row.
func list[T any](ctx context.Context, r reader, scan func(pgx.CollectableRow) (T, error), sql string, args ...any) ([]T, error) {
	rows, err := r.q.Query(ctx, sql, args...)
	if err != nil {
		return nil, translate(err)
	}
	out, err := pgx.CollectRows(rows, scan)
	return out, translate(err)
}

// one runs a query for at most one row; what is absent is NOT_FOUND.
func one[T any](ctx context.Context, r reader, scan func(pgx.CollectableRow) (T, error), sql string, args ...any) (T, error) {
	rows, err := r.q.Query(ctx, sql, args...)
	if err != nil {
		var zero T
		return zero, translate(err)
	}
	out, err := pgx.CollectOneRow(rows, scan)
	return out, translate(err)
}

// null stores the zero time as NULL.
func null(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// zero reads NULL as the zero time.
func zero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}
