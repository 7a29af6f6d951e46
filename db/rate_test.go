package db_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/engine"
	"github.com/openvantage/vantage/fault"
)

// settle is db.SaveRates as a server offers it to its ledger.
func settle(d *db.DB) engine.Settle {
	return func(ctx context.Context, payers []string, spent []time.Duration) (owed []time.Duration, err error) {
		err = d.Write(ctx, func(tx *db.Tx) error {
			owed, err = tx.SaveRates(ctx, payers, spent)
			return err
		})
		return owed, err
	}
}

func execute(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

// near reports whether the database's clock has gone on by less than a test takes.
func near(got, want time.Duration) bool { return got <= want && got > want-20*time.Second }

func TestSaveRates(t *testing.T) {
	t.Parallel()

	t.Run("what is spent adds up, comes back with time and by giving back", func(t *testing.T) {
		t.Parallel()
		d, url := open(t)
		sql := raw(t, url)
		save := func(want time.Duration, spent time.Duration) {
			t.Helper()
			owed, err := settle(d)(t.Context(), []string{"a"}, []time.Duration{spent})
			if err != nil || len(owed) != 1 || !near(owed[0], want) {
				t.Errorf("after %v more it owes %v, want %v: %v", spent, owed, want, err)
			}
		}
		save(time.Hour, time.Hour)
		save(3*time.Hour, 2*time.Hour)
		save(150*time.Minute, -30*time.Minute)
		save(150*time.Minute, 0)
		execute(t, sql, "update rate_level set full_at = full_at - interval '2 hours'")
		save(30*time.Minute, 0)
		execute(t, sql, "update rate_level set full_at = full_at - interval '1 day'")
		save(time.Minute, time.Minute)
		save(0, -time.Hour)
		save(time.Minute, time.Minute)
	})

	t.Run("answers are in the order of the question", func(t *testing.T) {
		t.Parallel()
		d, _ := open(t)
		payers, spent := make([]string, 500), make([]time.Duration, 500)
		for i, n := range rand.Perm(500) {
			payers[i], spent[i] = fmt.Sprint("payer ", n), time.Duration(n)*time.Hour
		}
		owed, err := settle(d)(t.Context(), payers, spent)
		if err != nil {
			t.Fatal(err)
		}
		for i := range owed {
			if !near(owed[i], spent[i]) {
				t.Errorf("%s owes %v, want %v", payers[i], owed[i], spent[i])
			}
		}
	})

	t.Run("rows vanish when they are full, whoever calls", func(t *testing.T) {
		t.Parallel()
		d, url := open(t)
		sql := raw(t, url)
		if _, err := settle(d)(t.Context(), []string{"a", "b", "nothing"}, []time.Duration{time.Hour, 2 * time.Hour, 0}); err != nil {
			t.Fatal(err)
		}
		rows := func(want int64) {
			t.Helper()
			if n := query[int64](t, sql, "select count(*) from rate_level")[0]; n != want {
				t.Errorf("%d rows, want %d", n, want)
			}
		}
		rows(2)
		execute(t, sql, "update rate_level set full_at = full_at - interval '61 minutes'")
		if _, err := settle(d)(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
		rows(1)
	})

	t.Run("deleting waits for nobody", func(t *testing.T) {
		t.Parallel()
		d, url := open(t)
		sql := raw(t, url)
		if _, err := settle(d)(t.Context(), []string{"a"}, []time.Duration{time.Hour}); err != nil {
			t.Fatal(err)
		}
		execute(t, sql, "update rate_level set full_at = full_at - interval '1 day'")
		tx, err := sql.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), "select * from rate_level for update"); err != nil {
			t.Fatal(err)
		}
		if _, err := settle(d)(t.Context(), nil, nil); err != nil {
			t.Error(err)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Error(err)
		}
	})

	t.Run("payers are stored as hashes under the key of the day", func(t *testing.T) {
		t.Parallel()
		d, url := open(t)
		sql := raw(t, url)
		const source = "source:198.51.100.0/24"
		hash := func() []byte {
			t.Helper()
			if _, err := settle(d)(t.Context(), []string{source}, []time.Duration{time.Hour}); err != nil {
				t.Fatal(err)
			}
			return query[[]byte](t, sql, "select payer from rate_level order by full_at desc limit 1")[0]
		}
		first := hash()
		plain := sha256.Sum256([]byte(source))
		if len(first) != sha256.Size || bytes.Contains(first, []byte("198")) || bytes.Equal(first, plain[:]) {
			t.Errorf("stored as %x", first)
		}
		if !bytes.Equal(hash(), first) {
			t.Error("the same payer got another hash on the same day")
		}
		execute(t, sql, "update rate_key set made_at = made_at - interval '1 day'")
		execute(t, sql, "update rate_level set full_at = now() + interval '1 minute'")
		if bytes.Equal(hash(), first) {
			t.Error("the key is older than a day")
		}
		if n := query[int64](t, sql, "select count(*) from rate_key")[0]; n != 1 {
			t.Errorf("%d keys are kept", n)
		}
		for _, table := range []string{"rate_level", "rate_key"} {
			if p := query[string](t, sql, "select relpersistence::text from pg_class where relname = $1", table)[0]; p != "u" {
				t.Errorf("%s is written to the log and to backups: %q", table, p)
			}
		}
	})

	t.Run("many processes at the same time neither lose, nor double, nor wait for each other in a circle", func(t *testing.T) {
		t.Parallel()
		const processes, payers, each = 8, 50, 20
		d, url := open(t)
		var all sync.WaitGroup
		for range processes {
			other := connect(t, url)
			all.Go(func() {
				for range each {
					names, spent := make([]string, payers), make([]time.Duration, payers)
					for i, n := range rand.Perm(payers) {
						names[i], spent[i] = fmt.Sprint(n), time.Hour
					}
					if _, err := settle(other)(context.Background(), names, spent); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		for n := range payers {
			owed, err := settle(d)(t.Context(), []string{fmt.Sprint(n)}, []time.Duration{0})
			if err != nil || owed[0] > processes*each*time.Hour || owed[0] < processes*each*time.Hour-time.Minute {
				t.Errorf("%d owes %v: %v", n, owed, err)
			}
		}
	})
}

// running is a ledger that exchanges with the database of url some times a second.
func running(t *testing.T, url string, report func(error)) *engine.Ledger {
	t.Helper()
	l := engine.NewLedger(engine.LedgerOptions{Settle: settle(connect(t, url)), Every: 200 * time.Millisecond, Report: report})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l
}

// until asks again and again, and leaves the machine to others meanwhile, until ok or for too long.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: it did not come", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestLedgersShareABudget(t *testing.T) {
	t.Parallel()
	p := engine.Payer{Key: "source:198.51.100.0/24", Rate: engine.Rate{PerSecond: 0.1, Burst: 1000}}

	t.Run("what is spent at one is missing at the other", func(t *testing.T) {
		t.Parallel()
		_, url := open(t)
		a, b := running(t, url, nil), running(t, url, nil)
		if _, err := a.Spend(p, 900); err != nil {
			t.Fatal(err)
		}
		spent := 0
		until(t, "the other learns of it", func() bool {
			if spent <= 60 { // more than quiet
				if _, err := b.Spend(p, 1); err != nil {
					t.Fatal(err)
				}
				spent++
			}
			return b.Balance(p).Remaining < 50
		})
		until(t, "and the first of that", func() bool {
			_, _ = a.Spend(p, 1000) // is refused, and asks for news
			return a.Balance(p).Remaining < 50
		})
		b.Refund(p, 50)
		until(t, "what is given back comes round, too", func() bool {
			_, _ = a.Spend(p, 1000)
			return a.Balance(p).Remaining > 80
		})
	})

	t.Run("without the database each goes on alone, and tells afterwards", func(t *testing.T) {
		t.Parallel()
		_, url := open(t)
		reports := make(chan error, 10)
		a, b := running(t, url, func(err error) { reports <- err }), running(t, url, nil)
		sql := raw(t, url)
		execute(t, sql, "alter table rate_level rename to mislaid")
		if _, err := a.Spend(p, 600); err != nil {
			t.Fatal(err)
		}
		if err := <-reports; err == nil || fault.Is(err, fault.NotFound) {
			t.Errorf("reported %v", err)
		}
		if _, err := a.Spend(p, 300); err != nil {
			t.Errorf("without the database it is refused: %v", err)
		}
		if _, err := a.Spend(p, 300); !fault.Is(err, fault.RateLimited) {
			t.Errorf("without the database there is no limit: %v", err)
		}
		execute(t, sql, "alter table mislaid rename to rate_level")
		if err := <-reports; err != nil {
			t.Errorf("reported %v", err)
		}
		spent := 0
		until(t, "the other learns of it", func() bool {
			if spent <= 60 {
				_, err := b.Spend(p, 1)
				spent++
				if err != nil && !errors.As(err, new(*fault.Error)) {
					t.Fatal(err)
				}
			}
			return b.Balance(p).Remaining < 50
		})
	})
}
