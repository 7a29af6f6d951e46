package db_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/db/dbtest"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/programtest"
)

// schema is every column, index and function, one a line.
func schema(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	return query[string](t, conn, `
		select format('%s.%s %s %s %s', table_name, column_name, data_type, is_nullable, column_default) from information_schema.columns
		where table_schema = 'public' and table_name <> 'schema_migrations'
		union all select indexdef from pg_indexes where schemaname = 'public' and tablename <> 'schema_migrations'
		union all select sequence_name from information_schema.sequences where sequence_schema = 'public'
		union all select proname || prosrc from pg_proc where pronamespace = 'public'::regnamespace
		order by 1`)
}

func TestMigrate(t *testing.T) {
	t.Parallel()

	t.Run("down to nothing and up again gives the same schema", func(t *testing.T) {
		t.Parallel()
		url := dbtest.New(t)
		conn := raw(t, url)
		before := schema(t, conn)
		if err := db.MigrateDown(t.Context(), url, int(db.Latest())); err != nil {
			t.Fatal(err)
		}
		if left := schema(t, conn); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
		st, err := db.Migrations(t.Context(), url)
		if want := (db.MigrationStatus{Latest: db.Latest()}); err != nil || st != want {
			t.Errorf("at the bottom the status is %+v, %v", st, err)
		}
		if err := db.Migrate(t.Context(), url); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, schema(t, conn)); diff != "" {
			t.Errorf("the schema is another one now: %s", diff)
		}
	})

	t.Run("each step can be taken back alone", func(t *testing.T) {
		t.Parallel()
		url := dbtest.New(t)
		for v := db.Latest(); v > 0; v-- {
			if err := db.MigrateDown(t.Context(), url, 1); err != nil {
				t.Fatalf("from %d: %v", v, err)
			}
			st, err := db.Migrations(t.Context(), url)
			if err != nil || st.Version != v-1 || st.Dirty {
				t.Fatalf("below %d the status is %+v, %v", v, st, err)
			}
		}
	})

	t.Run("partitions go down with their tables", func(t *testing.T) {
		t.Parallel()
		_, url := open(t)
		if err := db.MigrateDown(t.Context(), url, int(db.Latest())); err != nil {
			t.Error(err)
		}
	})

	t.Run("replicas may migrate at the same time", func(t *testing.T) {
		t.Parallel()
		url := dbtest.New(t)
		if err := db.MigrateDown(t.Context(), url, int(db.Latest())); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if err := db.Migrate(t.Context(), url); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		st, err := db.Migrations(t.Context(), url)
		if want := (db.MigrationStatus{Version: db.Latest(), Latest: db.Latest()}); err != nil || st != want {
			t.Errorf("the status is %+v, %v", st, err)
		}
	})

	t.Run("a present schema is left alone", func(t *testing.T) {
		t.Parallel()
		url := dbtest.New(t)
		if err := db.Migrate(t.Context(), url); err != nil {
			t.Error(err)
		}
	})

	t.Run("no connection is left open", func(t *testing.T) {
		t.Parallel()
		url := dbtest.New(t)
		conn := raw(t, url)
		for range 3 {
			if _, err := db.Migrations(t.Context(), url); err != nil {
				t.Fatal(err)
			}
		}
		// A backend needs a moment to notice that its client is gone.
		gone := query[bool](t, conn, `select coalesce(bool_and(pg_terminate_backend(pid, 5000)), true) from pg_stat_activity
			where datname = current_database() and pid <> pg_backend_pid() and state <> 'idle'`)
		until(t, fmt.Sprintf("the end of the other connections (%v)", gone), func() bool {
			n := query[int](t, conn, `select count(*)::int from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`)
			return n[0] == 0
		})
	})

	t.Run("an address that makes no sense is refused", func(t *testing.T) {
		t.Parallel()
		if err := db.Migrate(t.Context(), "postgres://host:notaport/x"); err == nil {
			t.Error("it was accepted")
		}
	})

	t.Run("a server that is not there is UNAVAILABLE", func(t *testing.T) {
		t.Parallel()
		if err := db.Migrate(t.Context(), closedPort(t)); !fault.Is(err, fault.Unavailable) {
			t.Errorf("got %v", err)
		}
	})
}

// closedPort is the address of a database where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	return "postgres://u:p@" + programtest.Free(t) + "/x?sslmode=disable"
}
