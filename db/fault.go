package db

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/openvantage/vantage/fault"
)

// translate turns what the driver says into a fault, once, where it enters the program. It
// looks at SQLSTATE and never at text. A fault passes as it is.
func translate(err error) error {
	var known *fault.Error
	var pg *pgconn.PgError
	var dial *pgconn.ConnectError
	var netErr net.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, pgx.ErrNoRows):
		return fault.Wrap(err, fault.NotFound, "There is nothing with this id.")
	case errors.As(err, &dial): // whatever the server said when it would not let us in
		return unavailable(err)
	case errors.As(err, &pg):
		return ofState(pg)
	case errors.As(err, &netErr), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, net.ErrClosed), errors.Is(err, context.DeadlineExceeded), pgconn.SafeToRetry(err):
		return unavailable(err)
	}
	return err
}

func ofState(e *pgconn.PgError) error {
	switch {
	case e.Code == "57014": // the statement's time is up, or the client left
		return fault.Wrap(e, fault.Unavailable, "The database took too long. Ask for less, or try again.").After(5 * time.Second)
	case e.Code == "23505":
		return fault.Wrap(e, fault.Conflict, "It exists already.")
	case e.Code[:2] == "22": // a value that PostgreSQL has no room for, such as a text with U+0000
		return fault.Wrap(e, fault.Invalid, "A value in the request cannot be looked up: it is out of range, or text with U+0000.")
	case e.Code == "40001", e.Code == "40P01":
		return fault.Wrap(e, fault.Conflict, "Someone changed this at the same time. Try again.").After(time.Second)
	case e.Code[:2] == "08", e.Code[:2] == "53", e.Code[:2] == "57", e.Code[:2] == "58":
		return unavailable(e)
	}
	return e
}

func unavailable(err error) error {
	return fault.Wrap(err, fault.Unavailable, "The database cannot be reached. Try again.").After(5 * time.Second)
}
