package db_test

import (
	"context"
	"errors"
	"io"
	"net"
	neturl "net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/fault"
)

func TestTranslate(t *testing.T) {
	t.Parallel()
	state := func(code string) error { return &pgconn.PgError{Code: code, Message: "postgres said something"} }
	for name, c := range map[string]struct {
		err   error
		want  fault.Code
		after bool
	}{
		"a unique violation":              {state("23505"), fault.Conflict, false},
		"a failed serialization":          {state("40001"), fault.Conflict, true},
		"a deadlock":                      {state("40P01"), fault.Conflict, true},
		"a statement that took too long":  {state("57014"), fault.Unavailable, true},
		"a server that shuts down":        {state("57P01"), fault.Unavailable, true},
		"a server that starts":            {state("57P03"), fault.Unavailable, true},
		"too many connections":            {state("53300"), fault.Unavailable, true},
		"a full disk":                     {state("53100"), fault.Unavailable, true},
		"an input or output error":        {state("58030"), fault.Unavailable, true},
		"a broken protocol":               {state("08P01"), fault.Unavailable, true},
		"a value out of range":            {state("22003"), fault.Invalid, false},
		"a statement of ours in error":    {state("42601"), fault.Internal, false},
		"a check of ours":                 {state("23514"), fault.Internal, false},
		"no row":                          {pgx.ErrNoRows, fault.NotFound, false},
		"a connection that ends too soon": {io.ErrUnexpectedEOF, fault.Unavailable, true},
		"a connection that is closed":     {net.ErrClosed, fault.Unavailable, true},
		"a reset":                         {&net.OpError{Op: "read", Err: errors.New("reset")}, fault.Unavailable, true},
		"a deadline":                      {context.DeadlineExceeded, fault.Unavailable, true},
		"a caller who left":               {context.Canceled, fault.Internal, false},
		"a fault":                         {fault.Field("x", "No."), fault.Invalid, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := db.Translate(c.err)
			if !errors.Is(got, c.err) {
				t.Errorf("the cause is lost: %v", got)
			}
			if f := fault.Of(got); f.Code != c.want || f.RetryAfter > 0 != c.after {
				t.Errorf("got %s, again after %v", f.Code, f.RetryAfter)
			}
			if again := db.Translate(got); !errors.Is(again, got) || fault.Of(again).Code != fault.Of(got).Code {
				t.Errorf("translated twice it is %v", again)
			}
		})
	}
	if db.Translate(nil) != nil {
		t.Error("nothing became something")
	}
}

func TestFaultsOfARealServer(t *testing.T) {
	t.Parallel()

	t.Run("what exists already is a CONFLICT", func(t *testing.T) {
		t.Parallel()
		d, _ := open(t)
		p := register(t, d, 1, nil)
		err := d.Write(t.Context(), func(tx *db.Tx) error { return tx.InsertProbe(t.Context(), p, access.Hash{9}) })
		if !fault.Is(err, fault.Conflict) {
			t.Errorf("got %v", err)
		}
	})

	t.Run("a statement that takes too long is UNAVAILABLE and says when to come back", func(t *testing.T) {
		t.Parallel()
		d, _ := open(t)
		err := d.Write(t.Context(), func(tx *db.Tx) error {
			if err := tx.Exec(t.Context(), "set local statement_timeout = '20ms'"); err != nil {
				return err
			}
			return tx.Exec(t.Context(), "select pg_sleep(60)")
		})
		if f := fault.Of(err); f == nil || f.Code != fault.Unavailable || f.RetryAfter <= 0 {
			t.Errorf("got %v", err)
		}
	})

	t.Run("every session has the limit", func(t *testing.T) {
		t.Parallel()
		d, _ := open(t)
		write(t, d, func(ctx context.Context, tx *db.Tx) error {
			return tx.Exec(ctx, "select 1 / (current_setting('statement_timeout') = '20s' and current_setting('timezone') = 'UTC')::int")
		})
	})

	t.Run("a deadlock is a CONFLICT for one and nothing for the other", func(t *testing.T) {
		t.Parallel()
		d, _ := open(t)
		both := make(chan struct{}, 2)
		lock := func(first, second int) error {
			return d.Write(t.Context(), func(tx *db.Tx) error {
				if err := tx.Exec(t.Context(), "select pg_advisory_xact_lock($1)", first); err != nil {
					return err
				}
				both <- struct{}{}
				for len(both) < 2 {
					if err := tx.Exec(t.Context(), "select"); err != nil {
						return err
					}
				}
				return tx.Exec(t.Context(), "select pg_advisory_xact_lock($1)", second)
			})
		}
		other := make(chan error, 1)
		go func() { other <- lock(2, 1) }()
		mine, theirs := lock(1, 2), <-other
		if (mine == nil) == (theirs == nil) || !fault.Is(errors.Join(mine, theirs), fault.Conflict) {
			t.Errorf("got %v and %v", mine, theirs)
		}
	})

	t.Run("a closed port is UNAVAILABLE", func(t *testing.T) {
		t.Parallel()
		_, err := db.Open(t.Context(), closedPort(t), db.Options{})
		if f := fault.Of(err); f == nil || f.Code != fault.Unavailable || f.RetryAfter <= 0 {
			t.Errorf("got %v", err)
		}
	})

	t.Run("a server that does not let us in is UNAVAILABLE", func(t *testing.T) {
		t.Parallel()
		_, url := open(t)
		address, err := neturl.Parse(url)
		if err != nil {
			t.Fatal(err)
		}
		address.Path = "/nosuchdatabase"
		if _, err := db.Open(t.Context(), address.String(), db.Options{}); !fault.Is(err, fault.Unavailable) {
			t.Errorf("got %v", err)
		}
	})

	t.Run("a session that is cut is UNAVAILABLE, leaves nothing, and the next one works", func(t *testing.T) {
		t.Parallel()
		d, url := open(t)
		killer := raw(t, url)
		err := d.Write(t.Context(), func(tx *db.Tx) error {
			tx.Append(events.Event{OccurredAt: now, Kind: "A"})
			if err := tx.InsertBodies(t.Context(), db.CompressedBody{UID: "u", ReceivedAt: now, Country: "DE", Data: []byte{0}}); err != nil {
				return err
			}
			query[bool](t, killer, "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = current_database() and state = 'idle in transaction'")
			return nil // the loss shows when the event is written
		})
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("got %v", err)
		}
		if left := logged(t, d); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		register(t, d, 1, nil)
	})

	t.Run("a server that goes away for good is UNAVAILABLE for reads and writes", func(t *testing.T) {
		t.Parallel()
		_, url := open(t)
		cut, through := proxied(t, url)
		d := connect(t, through)
		if _, err := d.LogHead(t.Context()); err != nil {
			t.Fatal(err)
		}
		err := d.Write(t.Context(), func(tx *db.Tx) error {
			cut()
			return tx.SaveWatermark(t.Context())
		})
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("a write under way: %v", err)
		}
		if _, err := d.Probe(t.Context(), "x"); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a read: %v", err)
		}
		err = d.Read(t.Context(), func(db.View) error { return nil })
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("a view: %v", err)
		}
		if err := d.Listen(t.Context(), func() {}); !fault.Is(err, fault.Unavailable) {
			t.Errorf("listening: %v", err)
		}
	})

	t.Run("what is not there is NOT_FOUND", func(t *testing.T) {
		t.Parallel()
		d, _ := open(t)
		_, noProbe := d.Probe(t.Context(), "prb_0000000000000000")
		_, noMeasurement := d.Measurement(t.Context(), "20260310120000.000000_DE_signal_0123456789abcdef")
		_, noID := d.Measurement(t.Context(), "nonsense")
		_, noBody := d.StoredBody(t.Context(), "20260310120000.000000_DE_signal_0123456789abcdef")
		_, noToken := d.Token(t.Context(), 1)
		for _, err := range []error{noProbe, noMeasurement, noID, noBody, noToken} {
			if !fault.Is(err, fault.NotFound) {
				t.Errorf("got %v", err)
			}
		}
		if _, err := d.Principal(t.Context(), access.Hash{}); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("nobody's token: %v", err)
		}
	})

	t.Run("a caller who leaves while a statement runs gets its own error back", func(t *testing.T) {
		t.Parallel()
		d, _ := open(t)
		ctx, cancel := context.WithCancel(t.Context())
		err := d.Write(ctx, func(tx *db.Tx) error {
			time.AfterFunc(10*time.Millisecond, cancel)
			return tx.Exec(ctx, "select pg_sleep(60)")
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

// proxied gives another address for a database, and a way to cut it off as a crash of the
// server's machine would.
func proxied(t *testing.T, url string) (cut func(), through string) {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	kind, address := pgconn.NetworkAddress(cfg.Host, cfg.Port)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial(kind, address)
			if err != nil {
				_ = client.Close()
				continue
			}
			go func() { _, _ = io.Copy(server, client) }()
			go func() { _, _ = io.Copy(client, server) }()
			go func() {
				<-closed
				_, _ = client.Close(), server.Close()
			}()
		}
	}()
	cut = func() {
		_ = l.Close()
		close(closed)
	}
	return cut, "postgres://" + cfg.User + ":" + cfg.Password + "@" + l.Addr().String() + "/" + cfg.Database + "?sslmode=disable"
}
