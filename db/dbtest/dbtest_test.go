package dbtest_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/db/dbtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(dbtest.Suite{M: m}) }

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func TestNew(t *testing.T) {
	t.Parallel()

	t.Run("the schema is the present one", func(t *testing.T) {
		t.Parallel()
		status, err := db.Migrations(t.Context(), dbtest.New(t))
		if err != nil {
			t.Fatal(err)
		}
		if status.Dirty || status.Version == 0 || status.Version != status.Latest {
			t.Errorf("the database is at %+v", status)
		}
	})

	t.Run("two databases do not see each other", func(t *testing.T) {
		t.Parallel()
		first, second := connect(t, dbtest.New(t)), connect(t, dbtest.New(t))
		if _, err := first.Exec(t.Context(), "create table mine ()"); err != nil {
			t.Fatal(err)
		}
		var visible bool
		if err := second.QueryRow(t.Context(), "select to_regclass('mine') is not null").Scan(&visible); err != nil || visible {
			t.Errorf("the other database sees the table: %v, %v", visible, err)
		}
	})

	t.Run("a database is gone after its test, even with a connection open", func(t *testing.T) {
		t.Parallel()
		watch := connect(t, dbtest.New(t))
		var name string
		t.Run("its test", func(t *testing.T) { //nolint:paralleltest // its end is waited for
			conn, err := pgx.Connect(t.Context(), dbtest.New(t))
			if err != nil {
				t.Fatal(err)
			}
			name = conn.Config().Database
		})
		var exists bool
		if err := watch.QueryRow(t.Context(), "select exists (select from pg_database where datname = $1)", name).Scan(&exists); err != nil || exists {
			t.Errorf("%q is still there: %v, %v", name, exists, err)
		}
	})
}

func BenchmarkNew(b *testing.B) {
	dbtest.New(b)
	for b.Loop() {
		dbtest.New(b)
	}
}
