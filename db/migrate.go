package db

import (
	"context"
	"errors"
	"fmt"

	"github.com/golang-migrate/migrate/v4"
	migratepgx "github.com/golang-migrate/migrate/v4/database/pgx/v5"
	"github.com/golang-migrate/migrate/v4/source/iofs"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/migrations"
)

// minServerVersion is PostgreSQL 14: older ones lack what partitions and statements here use.
const minServerVersion = 140000

// A MigrationStatus says where a database stands. Dirty means that a step failed half-way
// and a person must look.
type MigrationStatus struct {
	Version uint // 0: empty
	Latest  uint
	Dirty   bool
}

// Migrate brings the database to the present schema. Replicas may call it at the same time:
// the first does the work and the others wait.
func Migrate(ctx context.Context, dsn string) error {
	return migrating(ctx, dsn, func(m *migrate.Migrate) error { return m.Up() })
}

// MigrateDown takes back the last steps. Data of dropped tables is lost.
func MigrateDown(ctx context.Context, dsn string, steps int) error {
	return migrating(ctx, dsn, func(m *migrate.Migrate) error { return m.Steps(-steps) })
}

// Migrations tells where the database stands.
func Migrations(ctx context.Context, dsn string) (MigrationStatus, error) {
	var st MigrationStatus
	err := migrating(ctx, dsn, func(m *migrate.Migrate) (err error) {
		st.Version, st.Dirty, err = m.Version()
		if errors.Is(err, migrate.ErrNilVersion) {
			return nil
		}
		return err
	})
	st.Latest = Latest()
	return st, err
}

// Latest is the version of the present schema.
func Latest() uint {
	src, err := iofs.New(migrations.FS, ".")
	if err != nil {
		panic(err) // embedded at build time
	}
	v, err := src.First()
	for err == nil {
		next, e := src.Next(v)
		if e != nil {
			break
		}
		v = next
	}
	return v
}

func migrating(ctx context.Context, dsn string, do func(*migrate.Migrate) error) error {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return fmt.Errorf("the database address cannot be read: %w", err)
	}
	conn := stdlib.OpenDB(*cfg)
	defer conn.Close()
	var version int
	if err := conn.QueryRowContext(ctx, "select current_setting('server_version_num')::int").Scan(&version); err != nil {
		return translate(err)
	}
	if version < minServerVersion {
		return fault.New(fault.Unavailable, "The database is PostgreSQL %d; Vantage needs 14 or newer.", version/10000)
	}
	target, err := migratepgx.WithInstance(conn, &migratepgx.Config{})
	if err != nil {
		return translate(err)
	}
	defer target.Close()
	src, err := iofs.New(migrations.FS, ".")
	if err != nil {
		return err
	}
	m, err := migrate.NewWithInstance("iofs", src, "pgx5", target)
	if err != nil {
		return err
	}
	if err := do(m); err != nil && !errors.Is(err, migrate.ErrNoChange) {
		return fmt.Errorf("migrating the database: %w", err)
	}
	return nil
}
